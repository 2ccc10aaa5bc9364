from collections.abc import Sequence

from skerry import (
    App,
    Client,
    Entity,
    Failed,
    Generate,
    JsonLines,
    Output,
    Rejected,
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

milestones: Output[int] = Output("milestones")


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


class User(Entity):
    def work(self) -> None:
        emit(milestones, "x")  # wrong
        emit(milestones)  # wrong
        emit("milestones", 1)  # wrong
        send(Account.at("a").deposit)  # wrong
        send(Account.at("a").deposit, "10")  # wrong
        send(Account.at("a").deposit, 10, 20)  # wrong
        send(Account.at("a").deposit, amont=10)  # wrong
        send(Account.at("a").deposit, 1.5)  # wrong
        send(Account.at("a").rename, 3)  # wrong
        send(Account.at("a").rename, "x", twice="yes")  # wrong
        send(Account.at("a").nothing)  # wrong
        send(Account.at(7).deposit, 1)  # wrong
        send(Account.at().deposit, 1)  # wrong
        send(Account.at("a"), 1)  # wrong to mypy
        send("Account", 1)  # wrong
        send(Account.at("a").balance, 1)  # wrong
        send_later("soon", Account.at("a").deposit, 1)  # wrong
        send_later(1, Account.at("a").deposit)  # wrong
        send_later(Account.at("a").deposit, 1)  # wrong
        set_timer(1, 1, self._late, "x")  # wrong
        set_timer("t", "1", self._late, "x")  # wrong
        set_timer("t", 1, self._late)  # wrong
        set_timer("t", 1, self._late, 2)  # wrong
        set_timer("t", self._late, "x")  # wrong
        cancel_timer(1)  # wrong
        cancel_timer()  # wrong
        ask(Account.at("a").deposit)  # wrong
        ask(Account.at("a").deposit, "1")  # wrong
        ask(Account.at("a").deposit, 1).then(self._late, "x", "y")  # wrong
        ask(Account.at("a").deposit, 1).then(self._paid)  # wrong
        ask(Account.at("a").deposit, 1).then(self._paid, 5)  # wrong
        ask(Account.at("a").deposit, 1).rejected(self._broken)  # wrong
        ask(Account.at("a").deposit, 1).rejected(self._no)  # wrong
        ask(Account.at("a").deposit, 1).failed(self._no, 1)  # wrong
        ask(Account.at("a").deposit, 1).timeout(self._late, "x")  # wrong
        ask(Account.at("a").deposit, 1).timeout("3", self._late, "x")  # wrong
        ask(Account.at("a").deposit, 1).then_(self._paid, "x")  # wrong
        message(Account.at("a").deposit)  # wrong
        message(Account.at("a").deposit, None)  # wrong
        now(1)  # wrong
        now() + 3  # wrong
        forget("a")  # wrong
        rng().dice()  # wrong
        self.unknown = 3  # wrong at run time only

    def _paid(self, balance: int, note: str) -> None: ...

    def _no(self, refused: Rejected, amount: int) -> None: ...

    def _broken(self, error: Failed) -> None: ...

    def _late(self, note: str) -> None: ...


Account(5)  # wrong to pyright
Account(balance="5")  # wrong
Account(balance=5).deposit("1")  # wrong
App()  # wrong
App("x", entities=[int])  # wrong
App("x", [Account])  # wrong
App("x", retries="3")  # wrong
app = App("x", entities=[Account, Word, User])
app.source("a.txt")  # wrong
lines = app.source(TextFiles("a.txt"))
lines.map(len).filter(str.upper)  # wrong
lines.key_by(len)  # wrong
lines.to(Word.seen)  # wrong
lines.map(len).key_by(str).to(Word.heard)  # wrong
lines.key_by(str).to(Account.deposit)  # wrong
TextFiles(3)  # wrong
Generate(3)  # wrong
app.run(workers="2")  # wrong


def blocking(client: Client) -> None:
    total: str = client.ask(Account.at("a").deposit, 1)  # wrong
    client.ask(Account.at("a").deposit)  # wrong
    client.send(Account.at("a").deposit, "x")  # wrong
    word: Word = client.get(Account.at("a"))  # wrong
    client.get("Account/a")  # wrong
    client.scan("Account")  # wrong
    client.ask_many([Account.at("a").deposit])  # wrong
    client.options(timeout="5")  # wrong
    for key, found in client.scan(Word):
        found.balance  # wrong


class Shelf:
    def write(self, partition: str, sequence: int, items: Sequence[str]) -> None: ...


class Ints:
    def write(self, partition: str, sequence: int, items: Sequence[int]) -> None: ...


class Hook:
    def write(self, items: Sequence[int]) -> None: ...


App("typed", outputs=["milestones"])  # wrong
app.stream("milestones")  # wrong
app.stream(milestones).sink(Shelf())  # wrong
app.stream(milestones).sink(Hook())  # wrong
app.stream(milestones).sink(print)  # wrong
app.stream(milestones).map(str).sink(Ints())  # wrong
app.source(Generate(lambda partition, at: at, count=3)).sink(Shelf())  # wrong
app.source(Generate(lambda partition, at: at, count=3)).key_by(str).sink(Shelf())  # wrong
app.stream(milestones).sink(JsonLines("a"))  # wrong
app.source(sinks.JsonLines("a"))  # wrong
sinks.JsonLines("a", "b")  # wrong
JsonLines("a", type=3)  # wrong
app.stream(milestones).map(str, "name")  # wrong
app.stream(milestones).map(str, name=3)  # wrong
lines.key_by(str).to(Word.seen).map(str.upper)  # wrong
lines.key_by(str).to(Word.seen).to(Word.heard)  # wrong
lines.key_by(str).to(Word.seen).key_by(len)  # wrong
lines.merge(lines.key_by(str))  # wrong
lines.key_by(str).merge(lines)  # wrong
lines.branch(len)[0].map(len).map(str.upper)  # wrong
lines.branch("x")  # wrong
lines.key_by(str).reduce(0, lambda total, text: total + text)  # wrong
lines.key_by(str).reduce(0, lambda total, text: total + len(text)).map(str.upper)  # wrong
lines.key_by(str).reduce(0, lambda n, text: n, combine=str.upper)  # wrong
app.changes(Account).map(lambda change: change.state.balance)  # wrong
app.changes(Account).map(lambda change: change.balance)  # wrong
app.changes(Account.at("a"))  # wrong
app.source(sources.Csv("a.csv")).map(lambda row: row + 1)  # wrong
app.source(sources.Csv("a.csv", delimiter=3))  # wrong
lines.reduce(0, lambda total, text: total)  # wrong
