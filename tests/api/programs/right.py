from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from skerry import (
    App,
    AsyncClient,
    Client,
    Entity,
    Failed,
    Generate,
    JsonLines,
    Output,
    Rejected,
    Sink,
    TextFiles,
    ask,
    cancel_timer,
    emit,
    forget,
    message,
    now,
    query,
    rng,
    send,
    send_later,
    set_timer,
    sinks,
    sources,
)


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def rename(self, name: str, twice: bool = False) -> None: ...

    @query
    def worth(self) -> int:
        return self.balance


class Word(Entity):
    count: int = 0

    def seen(self) -> int:
        self.count += 1
        return self.count

    def heard(self, text: str) -> None: ...

    def maybe(self) -> str | None: ...


class User(Entity):
    def work(self) -> None:
        send(Account.at("a").deposit, 10)
        send(Account.at("a").rename, "x", twice=True)
        send(message(Account.at("a").deposit, 10))
        send_later(timedelta(seconds=3), Account.at("a").deposit, 10)
        set_timer("t", 2.5, self._late, "x")
        stood: bool = cancel_timer("t")
        ask(Account.at("a").deposit, 1).then(self._paid, "x").rejected(self._no, 2).failed(
            self._broken
        ).timeout(30, self._late, "x")
        ask(Account.at("a").rename, "x").then(self._late, "y")
        later = now() + timedelta(days=1)
        print(stood, later.year, rng().random())
        emit(milestones, 10)
        emit(named, "x")
        forget()

    def _paid(self, balance: int, note: str) -> None: ...

    def _no(self, refused: Rejected, amount: int) -> None:
        print(refused.reason, refused.details)

    def _broken(self, error: Failed) -> None: ...

    def _late(self, note: str) -> None: ...


@dataclass
class Trade:
    cents: int


milestones: Output[int] = Output("milestones")
named = Output[str]("named", partitions=2)


class Shelf:
    def write(self, partition: str, sequence: int, items: Sequence[object]) -> None: ...


shelf: Sink[int] = Shelf()
app = App("typed", entities=[Account, Word, User], outputs=[milestones, named])
app.stream(milestones).filter(lambda n: n > 3).map(str).sink(sinks.JsonLines("milestones"))
app.stream(named).sink(Shelf())
app.source(Generate(lambda partition, at: at, count=3)).sink(shelf)
app.source(Generate(lambda partition, at: at, count=3)).key_by(str).map(float).sink(Shelf())
lines = app.source(TextFiles("a.txt"))
lines.flat_map(str.split).filter(lambda w: len(w) > 1).key_by(lambda w: w).to(Word.seen)
lines.map(str.upper).key_by(lambda w: w).to(Word.heard)
app.source(Generate(lambda partition, at: at, count=3)).key_by(str).to(Account.deposit)
app.source(JsonLines("a.jsonl", type=int)).key_by(str).to(Account.deposit)
counts = lines.key_by(str).to(Word.seen)
counts.filter(lambda n: n % 10 == 0).sink(shelf)
counts.map(lambda n: n + 1).key_by(str).to(Account.deposit).to(Account.deposit).sink(shelf)
counts.key_by(lambda n: str(n % 3)).to(Word.maybe).map(str.upper).sink(Shelf())
app.changes(Account).map(lambda change: change.key).sink(Shelf())
balances = app.changes(Account).map(lambda change: change.state.balance if change.state else 0)
balances.filter(lambda n: n < 0).key_by(str).to(Account.deposit)
rows = app.source(sources.Csv("a.csv"))
rows.map(lambda row: row["shop"].upper()).key_by(str).to(Word.heard)
app.source(sources.Csv("a.csv", type=Trade, delimiter=";")).map(lambda trade: trade.cents + 1)
few, many = counts.branch(lambda n: n < 10)
few.merge(many).reduce(0.5, lambda total, n: total + n, combine=lambda a, b: a + b).map(float.hex)
plain, odd = lines.branch(str.isprintable, name="readable")
plain.merge(odd.map(str.upper)).key_by(str).reduce("", lambda longest, text: max(longest, text))
lines.merge(lines.map(len)).map(lambda either: str(either)).key_by(str).to(Word.heard)


def blocking() -> None:
    with Client() as client:
        total: int = client.ask(Account.at("a").deposit, 1)
        client.send(Account.at("a").rename, "x")
        account: Account = client.get(Account.at("a"))
        many: list[int | Rejected | Failed] = client.ask_many([message(Account.at("a").deposit, 1)])
        for key, found in client.scan(Account, prefix="a"):
            print(key.upper(), found.balance + total, account.balance, many)
        client.options(timeout=5, idempotency_key="k").ask(Account.at("a").worth)


async def waiting() -> int:
    async with AsyncClient() as client:
        async for key, word in client.scan(Word):
            print(key, word.count)
        return await client.ask(Account.at("a").deposit, 1)


app.source(Generate(lambda p, n: n), name="all").map(str, name="texts").sink(
    sinks.JsonLines("a"), name="out"
)
