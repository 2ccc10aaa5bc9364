"""Bugs of the app around its workers: other shards, the description, the supervisor's policy."""

from unittest.mock import patch

from msgspec.structs import replace

from skerry.runtime.app import directory, membership, reshard
from skerry.runtime.core.events import Table
from skerry.runtime.store import label as labels
from tests.mutants.bugs import bug

# A change of workers.


def _leave_behind(table):
    def deal_rows_but(deal_rows, store, held, placement, new):
        with patch.object(reshard, "SLOTTED", reshard.SLOTTED - {table}):
            deal_rows(store, held, placement, new)

    return deal_rows_but


for _what, _table in {
    "the outcomes of requests": Table.REQUEST,
    "the floors of requests": Table.FLOOR,
    "pending asks": Table.ASK,
    "timers": Table.TIMER,
    "dead letters": Table.DEAD,
    "what waits for sinks": Table.OUTPUT,
}.items():
    bug(f"a change of workers leaves {_what} behind", "app.reshard:_deal_rows")(
        _leave_behind(_table)
    )


@bug("a change of workers begins time anew", "app.reshard:_NewShard.__init__")
def _(init, self, store, shard, time_ns):
    init(self, store, shard, 0)


@bug("a change of workers goes on from the time of one of its shards", "app.reshard:deal")
def _(deal, stores, placement, new_stores):
    new_shard = reshard._NewShard
    time_ns = min(store.last.time_ns for store in stores.values())
    with patch.object(reshard, "_NewShard", lambda *args: new_shard(*args[:2], time_ns)):
        deal(stores, placement, new_stores)


@bug("a second change of workers deals out what is newer first", "app.reshard:_deal_frames")
def _(deal_frames, stores, sender, receiver, held, placement, new):
    before = {shard: list(made.waiting) for shard, made in new.items()}
    for made in new.values():
        made.waiting.clear()
    deal_frames(stores, sender, receiver, held, placement, new)
    for shard, made in new.items():
        made.waiting += before[shard]


@bug("a change of workers deals out what its receivers have taken", "app.reshard:_deal_frames")
def _(deal_frames, stores, sender, receiver, held, placement, new):
    with patch.object(stores[receiver], "read", lambda table, key: None):
        deal_frames(stores, sender, receiver, held, placement, new)


@bug(
    "a change of workers overlooks a version that a new owner has not heard of",
    "app.reshard:_takers",
)
def _(takers, moves):
    return {shard for shard, progress in moves.items() if progress.arriving}


@bug("a change of workers deals out a copy as if its shard had the slot", "app.reshard:_holders")
def _(holders, moves):
    return {}


@bug("the description is written before the new stores are synced", "app.reshard:reshard")
def _(reshard_app, data, app, workers):
    deal = reshard.deal

    def describe_first(stores, placement, new_stores):
        membership.dealt_out(data, app, placement.version)
        moved = replace(app, placement=placement, generation=app.generation + 1)
        directory.save(data, moved)
        deal(stores, placement, new_stores)

    with (
        patch.object(reshard, "deal", describe_first),
        patch.object(directory, "replace", lambda data, app, generation: None),
    ):
        return reshard_app(data, app, workers)


@bug("old stores are marked after the description has the new ones", "app.reshard:reshard")
def _(reshard_app, data, app, workers):
    write, dealt_out, marks = directory.replace, membership.dealt_out, []

    def write_first(data, app, generation):
        write(data, app, generation=generation)
        dealt_out(*marks)

    with (
        patch.object(membership, "dealt_out", lambda *args: marks.extend(args)),
        patch.object(directory, "replace", write_first),
    ):
        return reshard_app(data, app, workers)


# The description and its stores.


@bug("a folder that no description mentions is thrown away", "app.membership:_replaceable")
def _(replaceable, data, app, folder):
    return bool(membership._STORE.fullmatch(folder.name)) and membership._only_ours(folder)


@bug("an old store is removed beside members that are not whole", "app.membership:_whole")
def _(whole, data, members):
    return True


@bug("a start writes the labels before the description", "app.membership:enlist")
def _(enlist, data, app):
    write = directory.replace

    def label_first(data, app, generation):
        for shard in app.placement.members:
            folder = membership.folder_of(data, shard)
            labels.write(folder, replace(labels.read(folder), generation=app.generation))
        write(data, app, generation=generation)

    with patch.object(directory, "replace", label_first):
        enlist(data, app)


@bug("an older description of the same placement passes", "app.membership:_disagreement")
def _(disagreement, folder, shard, label, app):
    if label.version == app.placement.version:
        label = replace(label, generation=min(label.generation, app.generation))
    return disagreement(folder, shard, label, app)


@bug("new shards take ids whatever folders are there", "app.membership:free_ids")
def _(free_ids, data, app, count):
    return list(range(app.placement.next_id, app.placement.next_id + count))


# The supervisor's policy.


@bug("one quiet round is the end", "app.watch:Rounds.over")
def _(over, self, answers):
    over(self, answers)
    return over(self, answers)


@bug("two quiet rounds are the end, whatever ran between", "app.watch:Rounds.over")
def _(over, self, answers):
    quiet_before = bool(self._before)
    over(self, answers)
    return quiet_before and bool(self._before)


@bug("a message that ends its worker is never found", "app.watch:Watch.crashed")
def _(crashed, self, now_s, beat, how):
    self._suspect = None
    return crashed(self, now_s, beat, how)


@bug("the first message that ends a worker is buried at once", "app.watch:Watch.crashed")
def _(crashed, self, now_s, beat, how):
    if beat is not None:
        self._suspect = beat.running
    return crashed(self, now_s, beat, how)


# The replacement of workers.


@bug("two workers are away at a time", "app.rolling:Rolling.next")
def _(next_of, self, serving):
    return next_of(self, {shard: at for shard, at in serving.items() if at is not None})


@bug("a worker that was started meanwhile is replaced again", "app.rolling:Rolling.has_new")
def _(has_new, self, started_s):
    return has_new(self, started_s) and started_s > self._since_s


@bug("a worker that does not serve yet counts as replaced", "app.rolling:Rolling.over")
def _(over, self, serving, now_s):
    return over(self, {shard: at for shard, at in serving.items() if at is not None}, now_s)


@bug("a restart is over before its last worker has taken a step", "app.rolling:Rolling.over")
def _(over, self, serving, now_s):
    return over(self, serving, now_s) or self.replaced(serving) == len(serving)


@bug("the last worker keeps the old program", "app.rolling:Rolling.next")
def _(next_of, self, serving):
    shard = next_of(self, serving)
    return None if shard == max(serving) else shard
