"""Bugs of an app on several hosts: where shards live, and how hosts reach each other."""

from skerry.runtime.app.homes import Homes
from tests.mutants.bugs import bug

_put: set[str] = set()

# Where shards live.


@bug("a present host loses its shards", "app.homes:rehomed")
def _(rehomed, old, wants):
    return rehomed(old, dict(list(wants.items())[1:]) or wants)


@bug("all shards of an evicted host go to one other", "app.homes:rehomed")
def _(rehomed, old, wants):
    return rehomed(old, dict([min(wants.items())]) | {h: 0 for h in wants if h != min(wants)})


@bug("shards of an evicted host are no guests", "app.homes:rehomed")
def _(rehomed, old, wants):
    found = rehomed(old, wants)
    return found and Homes(found.homes, old.guests)


@bug("guests go before their host is back", "app.homes:settled")
def _(settled, old, wants, fresh):
    found = settled(old, wants, fresh)
    keep = [s for s in old.homes if s not in old.guests]
    return (old, keep) if found is None and old.guests and keep else found


@bug("the last host gives its shards away", "app.homes:settled")
def _(settled, old, wants, fresh):
    return settled(old, wants, fresh) or (None if any(wants.values()) else (old, []))


@bug("a host that an old look misses is taken for gone", "app.housing:Housing._rehomed")
def _(rehomed, self):
    self._hosts.is_absent = lambda host: True
    return rehomed(self)


@bug("the process of an evicted host stays named", "app.housing:Housing._rehomed")
def _(rehomed, self):
    before = dict(self._register.app.tenants)
    found = rehomed(self)
    self._register.app.tenants |= before
    return found


@bug("the next process of a host is not named", "app.housing:Housing._named")
def _(named, self):
    return False


@bug("a host that has not said what it wants is emptied", "app.housing:Housing._wants")
def _(wants, self):
    hosts = self._hosts.hosts
    return {host: 0 if seen.leaves else seen.workers for host, seen in hosts.items()}


@bug("a process runs shards though it is not named", "description:Description.shards_of")
def _(shards_of, self, host, nonce):
    return shards_of(self, host, self.tenants.get(host, nonce))


# What hosts agree on.


@bug("a change is made while another one's outcome is unknown", "app.register:Register.put")
def _(put, self, **changes):
    self._pending = None
    put(self, **changes)


@bug("a change that was refused is tried again", "app.register:Register.finish")
def _(finish, self):
    pending = self._pending
    try:
        finish(self)
    except Exception:
        self._pending = pending
        raise


@bug("a leader whose process was replaced still leads", "cluster.lease:vacant")
def _(vacant, leader, present):
    return vacant(leader, present) and (leader is None or leader.host not in present)


# Conversations between links.


@bug("a message that was lost is not seen", "link.talks:Numbers.fits")
def _(fits, self, raw):
    fits(self, raw)
    return len(raw) == 8 and raw != bytes(8)


@bug("a reader may be sent any amount", "link.talks:Credit.heard")
def _(heard, self, size):
    heard(self, size)
    return True


@bug("what was read is told twice", "link.talks:Credit.read")
def _(read, self, size):
    return 2 * read(self, size)


@bug("a sender is never told what was read", "link.talks:Credit.taken")
def _(taken, self, size):
    pass


@bug("a link carries packets for its own shards", "link.table:Table.remote")
def _(remote, self, me):
    return remote(self, "")


@bug("the last message may be lost", "link.talks:Numbers.whole")
def _(whole, self, last):
    return True


@bug("a host that is dropped is let in over what it has", "link.zap:Gate.admits")
def _(admits, self, key):
    self._ever = getattr(self, "_ever", set()) | self._keys
    return key in self._ever


@bug("whoever has keys is let in", "link.zap:Gate.admits")
def _(admits, self, key):
    return bool(key)


@bug("a connection that was refused is not made anew", "link.line:Line.up")
def _(up, self):
    self._connected_s = float("inf")
    return up(self)


@bug("a connection over which something was lost is kept", "link.line:Line._renew_talk")
def _(renew, self):
    pass


@bug("a place that somebody has removed stays lost", "link.doors:put")
def _(put, own, place):
    if own.name not in _put:
        put(own, place)
    _put.add(own.name)


@bug("a conversation whose caller has gone stays open", "link.line:Talk._end")
def _(end, self, conversation):
    self._close(conversation)


@bug("what a caller has not read yet is thrown away at the end", "link.doors:End.finish")
def _(finish, self):
    finish(self)
    return True
