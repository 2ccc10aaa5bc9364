"""Entity classes, verbs and states: what is refused, and what a turn leaves behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from skerry import (
    App,
    BadApp,
    Entity,
    Failed,
    Generate,
    IncompatibleState,
    OutsideTurn,
    Rejected,
    ask,
    cancel_timer,
    errors,
    forget,
    handler,
    message,
    now,
    query,
    rng,
    send,
    send_later,
    set_timer,
    testing,
)
from skerry.entity import EntityMeta


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def transfer(self, to: str, amount: int) -> None:
        if amount > self.balance:
            raise Rejected("insufficient funds", balance=self.balance)
        self.balance -= amount
        asked = ask(Account.at(to).deposit, amount).then(self._paid, to)
        asked.rejected(self._refund, amount).failed(self._refund, amount).timeout(5, self._late, to)

    def tag(self, labels: list[str], loud: bool = False) -> None: ...

    def everything(self) -> None:
        send(Account.at("b").deposit, 1)
        send_later(timedelta(seconds=2), Account.at("b").deposit, 2)
        set_timer("t", 3, self._late, "x")
        assert cancel_timer("t")
        assert not cancel_timer("never")
        forget()

    @query
    def worth(self) -> int:
        return self.balance

    def _paid(self, balance: int, to: str) -> None: ...

    def _refund(self, error: Rejected | Failed, amount: int) -> None: ...

    def _late(self, to: str) -> None: ...


def made(**namespace: Any) -> type[Entity]:
    """A class with these attributes, as the metaclass makes it."""
    cls: Any = EntityMeta("Made", (Entity,), {"__module__": __name__, **namespace})
    return cls  # type: ignore[no-any-return]


def old_state(fields: dict[str, Any], schema: int = 99) -> tuple[bytes, Any]:
    """A state of an earlier class, and the store's answer about its schema."""
    described = msgspec.json.encode({"type": "Made", "fields": list(fields), "id": schema})
    return msgspec.msgpack.encode([schema, *fields.values()]), lambda id: described


def test_an_entity_is_a_plain_object_for_a_unit_test() -> None:
    assert Account(balance=5).deposit(3) == 8
    assert Account(balance=5) == Account(balance=5)


def test_what_a_turn_leaves_behind_can_be_looked_at() -> None:
    account = Account(balance=5)
    with testing.turn(account, key="a") as t:
        account.transfer("bob", 3)
    assert t.asked == [message(Account.at("bob").deposit, 3)]
    assert account.balance == 2
    with testing.turn(account) as t:
        account.everything()
    assert t.sent == [message(Account.at("b").deposit, 1)]
    assert t.laters == [(2.0, message(Account.at("b").deposit, 2))]
    assert t.timers == {"t": None, "never": None}
    assert t.forgotten


def test_verbs_outside_a_turn_name_the_way_to_try_them() -> None:
    for verb in (lambda: send(Account.at("a").deposit, 1), forget, now, rng):
        with pytest.raises(OutsideTurn, match=r"skerry\.testing\.turn"):
            verb()
    with pytest.raises(OutsideTurn):
        Account().key


def test_a_thread_of_a_handler_is_in_no_turn_whichever_runs_meanwhile() -> None:
    verbs: list[Callable[[], Any]] = [
        lambda: send(Account.at("b").deposit, 1),
        lambda: ask(Account.at("b").deposit, 1),
        lambda: send_later(1, Account.at("b").deposit, 1),
        forget,
        now,
        rng,
    ]
    with testing.turn(Account()) as t, ThreadPoolExecutor(1) as other:
        for verb in verbs:
            assert isinstance(other.submit(verb).exception(), OutsideTurn)
            assert isinstance(asyncio.run(asyncio.to_thread(_raised_by, verb)), OutsideTurn)
    assert (t.sent, t.asked, t.laters, t.forgotten) == ([], [], [], False)


def _raised_by(verb: Callable[[], Any]) -> Exception | None:
    try:
        verb()
    except OutsideTurn as error:
        return error
    return None


def test_the_turn_gives_the_time_and_the_same_random_numbers_when_it_runs_again() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    drawn: list[float] = []
    for _ in range(2):
        with testing.turn(Account(), now=noon):
            assert now() == noon
            assert isinstance(rng(), random.Random)
            drawn.append(rng().random())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: message(Account.at("a").deposit), "misses its argument `amount`"),
        (lambda: message(Account.at("a").deposit, 1, 2), "takes 1 arguments"),
        (lambda: message(Account.at("a").deposit, amont=1), "has no argument `amont`"),
        (lambda: message(Account.at("a").deposit, "1"), "argument `amount`"),
        (lambda: message(Account.at("a").deposit, True), "argument `amount`"),
        (lambda: message(Account.at("a").tag, [1]), "argument `labels`"),
        (lambda: message(print, 1), "is no handler"),
        (lambda: Account.at("a").deposit(1), "calls nothing"),
        (lambda: message(Account.at(3).deposit, 1), "key is a str"),
    ],
)
def test_wrong_calls_are_type_errors_that_name_the_mistake(call: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        call()


def test_arguments_beside_a_message_are_refused_not_dropped() -> None:
    with testing.turn(Account()) as t, pytest.raises(TypeError, match="takes it alone"):
        send(message(Account.at("a").deposit, 1), 99)  # type: ignore[call-overload]
    assert t.sent == []


def test_a_private_handler_is_named_by_its_own_entity_only() -> None:
    other = Account.at("b")
    with testing.turn(Account(), key="a") as t:
        for reach in (
            lambda: send(other._late, "x"),
            lambda: ask(other._late, "x"),
            lambda: send_later(1, other._late, "x"),
            lambda: set_timer("t", 1, other._late, "x"),
            lambda: message(other._late, "x"),
        ):
            with pytest.raises(TypeError, match=r"private|entity itself"):
                reach()
    assert t.sent == t.asked == t.laters == []
    account = Account()
    with testing.turn(account, key="a") as t:
        send(account._late, "now")
        ask(account._late, "asked").then(account._late, "then")
        send_later(1, account._late, "later")
        set_timer("t", 2, account._late, "at last")
    assert [m.key for m in (*t.sent, *t.asked)] == ["a", "a"]
    assert t.laters == [(1.0, message(account._late, "later"))]
    assert t.timers == {"t": (2.0, message(account._late, "at last"))}


def test_wrong_arguments_of_an_outcome_s_handler_are_named() -> None:
    account = Account()
    for said, attach in {
        "misses its argument `to`": lambda asked: asked.then(account._paid),
        "has no argument `too`": lambda asked: asked.then(account._paid, too="b"),
        "got `to` twice": lambda asked: asked.then(account._paid, "b", to="b"),
        r"takes 1 arguments \(to, behind the outcome\), not 2": lambda asked: asked.then(
            account._paid, "b", "c"
        ),
        "misses its argument `amount`": lambda asked: asked.rejected(account._refund),
        "has no argument for the outcome": lambda asked: asked.failed(account.everything),
        "takes an outcome: only `ask` can name it": lambda asked: asked.timeout(
            1, account._refund, 3
        ),
    }.items():
        with testing.turn(account, key="a"), pytest.raises(TypeError, match=said):
            attach(ask(Account.at("b").deposit, 1))


@pytest.mark.parametrize("key", ["", "x" * 481, "é" * 241, "\ud800"])
def test_keys_that_no_store_can_hold_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="entity's key"):
        message(Account.at(key).deposit, 1)
    assert message(Account.at("é" * 240).deposit, 1).key == "é" * 240


def test_classes_that_could_not_be_kept_are_refused_when_they_are_made() -> None:
    async def waits(self: Any) -> None: ...

    def many(self: Any, *args: int) -> None: ...

    async def waits_and_yields(self: Any) -> Any:
        yield 1

    def yields(self: Any) -> Any:
        yield 1

    def replies(self: Any) -> random.Random:
        return random.Random()

    for said, namespace in {
        "has no default": {"__annotations__": {"balance": int}},
        "not async": {"waits": waits},
        "waits_and_yields: a handler is a plain def, not async": {
            "waits_and_yields": waits_and_yields
        },
        "what it yields": {"yields": yields},
        "its reply: Random can't be stored or sent": {"replies": replies},
        r"no \*args": {"many": many},
        "`key` is reserved": {"__annotations__": {"key": str}, "key": ""},
        "`_key` is reserved": {"_key": lambda self: None},
        "can't be stored": {"__annotations__": {"f": type(waits)}, "f": None},
    }.items():
        with pytest.raises(TypeError, match=said):
            made(**namespace)


def test_options_of_a_class_that_make_no_sense_are_refused_when_it_is_made() -> None:
    fields = {"__annotations__": {"amount": int}, "amount": 0}
    for said, options in {
        "old name, as in `was='Konto'`, not 3": {"was": 3},
        "old name, as in `was='Konto'`, not ''": {"was": ""},
        "a dict of fields' old names": {"renamed": ["x"]},
        "not {'x': 3}": {"renamed": {"x": 3}},
        r"`amuont` now, but there is no such field.* There is: amount": {
            "renamed": {"balance": "amuont"}
        },
    }.items():
        with pytest.raises(TypeError, match=said):
            EntityMeta("Made", (Entity,), {"__module__": __name__, **fields}, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the handler's old name, not 3"):
        handler(was=3)  # type: ignore[arg-type]


def test_private_methods_that_help_may_be_generators_and_return_what_they_like() -> None:
    class Sum(Entity):
        def total(self) -> object:
            return sum(self._parts())

        def _parts(self) -> Iterator[int]:
            yield from (1, 2)

    h = testing.Harness(App("sum", entities=[Sum]))
    assert h.ask(Sum.at("a").total) == 3
    with testing.turn(Sum(), key="a"), pytest.raises(TypeError, match="no handler"):
        send(Sum()._parts)


def test_arguments_that_have_only_a_name_or_only_a_place_reach_their_handler() -> None:
    class Box(Entity):
        seen: list[Any] = []

        def named(self, *, amount: int) -> int:
            self.seen.append(amount)
            return amount

        def mixed(self, first: str, *, more: list[str], last: int = 3) -> None:
            self.seen += [first, more, last]
            set_timer("t", 1, self._late, what="late")

        def placed(self, amount: int, /) -> int:
            ask(self.named, amount=7).then(self._late, what="told")
            return amount

        def _late(self, reply: int = 0, *, what: str) -> None:
            self.seen.append([reply, what])

    app = App("boxes", entities=[Box])
    app.source(Generate(lambda p, n: 5, partitions=1, count=1)).key_by(lambda n: "s").to(Box.named)
    h = testing.Harness(app)
    assert h.ask(Box.at("a").named, amount=1) == 1
    assert h.ask(Box.at("a").placed, 2) == 2
    h.ask(Box.at("a").mixed, "x", more=["y"])
    h.advance(1)
    assert h[Box.at("a")].seen == [1, 7, [7, "told"], "x", ["y"], 3, [0, "late"]]
    assert h[Box.at("s")].seen == [5]
    with pytest.raises(TypeError, match="misses its argument `amount`"):
        h.ask(Box.at("a").named)  # type: ignore[call-arg]


def test_apps_that_could_not_run_are_refused() -> None:
    for said, build in {
        "1 to 64 letters": lambda: App("no spaces"),
        "no subclass": lambda: App("x", entities=[int]),  # type: ignore[list-item]
        "two entity types": lambda: App("x", entities=[Account, Account]),
        "retries is": lambda: App("x", retries=-1),
        "takes a source": lambda: App("x").source(3),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(BadApp, match=said):
            build()


def test_a_source_whose_entity_is_not_in_the_app_is_refused_before_it_runs() -> None:
    app = App("x", entities=[])
    app.source(Generate(lambda p, n: n, count=1)).key_by(str).to(Account.deposit)
    for run in (app.check, lambda: testing.Harness(app)):
        with pytest.raises(
            BadApp, match=r"Account\.deposit, but Account is not among its entities"
        ):
            run()


def test_a_state_of_an_older_class_reads_by_the_names_of_its_fields() -> None:
    now_class = made(__annotations__={"b": int, "c": str, "a": int}, b=1, c="new", a=2)
    state, schemas = old_state({"a": 10, "gone": True, "b": 20})
    entity: Any = now_class.__skerry__.decode(state, "k", schemas)
    assert (entity.a, entity.b, entity.c, entity.key) == (10, 20, "new", "k")


def test_a_field_that_changed_its_type_is_named_and_an_upgrade_can_mend_it() -> None:
    state, schemas = old_state({"a": "10"})
    with pytest.raises(IncompatibleState, match="field `a`"):
        made(__annotations__={"a": int}, a=0).__skerry__.decode(state, "k", schemas)

    def upgrade(cls: Any, old: dict[str, Any]) -> dict[str, Any]:
        return {"a": int(old["a"])}

    mended = made(__annotations__={"a": int}, a=0, _upgrade=classmethod(upgrade))
    entity: Any = mended.__skerry__.decode(state, "k", schemas)
    assert entity.a == 10


def test_an_upgrade_mends_what_a_field_is_made_of_too() -> None:
    def basket(price: type, **more: Any) -> Any:
        line = msgspec.defstruct("Line", [("price", price)])
        return made(__annotations__={"lines": list[line]}, lines=[], **more), line  # type: ignore[valid-type]

    def upgrade(cls: Any, old: dict[str, Any]) -> dict[str, Any]:
        return {"lines": [{"price": str(line["price"])} for line in old["lines"]]}

    old, line = basket(int)
    entity = old.__skerry__.new("k")
    entity.lines = [line(price=3)]
    state = old.__skerry__.encode(entity)
    new, _ = basket(str, _upgrade=classmethod(upgrade))
    assert new.__skerry__.schema_id == old.__skerry__.schema_id, "the text is the same"
    assert new.__skerry__.decode(state, "k", lambda id: None).lines[0].price == "3"
    with pytest.raises(IncompatibleState, match="price"):
        basket(str)[0].__skerry__.decode(state, "k", lambda id: None)


def test_the_error_tree_is_the_one_that_is_drawn() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.SkerryError):
            assert name in drawn, f"{name} is not in the tree"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "def pay(self, amount: Missing) -> None: ...",
            "Purse.pay: argument `amount` is annotated",
        ),
        ("def pay(self, a: int, amount: list[Missing]) -> None: ...", "argument `amount`"),
        (
            "def pay(self) -> Missing | None: ...",
            "Purse.pay: its reply is annotated with `Missing`",
        ),
        ("held: Missing | None = None", "Purse: field `held` is annotated with `Missing`"),
    ],
)
def test_a_type_that_is_there_for_checkers_only_is_named_with_its_place(
    body: str, said: str
) -> None:
    program = f"from __future__ import annotations\nfrom skerry import Entity\nclass Purse(Entity):\n    {body}"
    with pytest.raises(TypeError, match="under `if TYPE_CHECKING:`") as caught:
        exec(compile(program, "purse.py", "exec", dont_inherit=True), {"__name__": __name__})
    assert said in str(caught.value)
