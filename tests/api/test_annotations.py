"""Field types are read alike on every Python: one schema id, one order, nothing mixed up."""

# No `from __future__ import annotations`: programs have none, and it hides what 3.14 changes.
import enum
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, Union

import msgspec
import pytest

from skerry import App, Entity, portable
from skerry.annotations import type_text
from skerry.entity import EntityMeta

Cents = NewType("Cents", int)


class Colour(enum.Enum):
    RED = "red"


class Line(msgspec.Struct):
    price: int = 0


class Namespace(dict[str, Any]):
    """A class body's names as Python 3.14 shows them: a function that makes the annotations.

    What is made of them finds the annotations all the same, as `type` does there.
    """

    def __init__(self) -> None:
        self["__annotate_func__"] = lambda format: self["__annotations__"]

    def __contains__(self, name: object) -> bool:
        return name != "__annotations__" and super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name != "__annotations__")

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default) if name in self else default


class Deferred(EntityMeta):
    """Makes entity classes of such names."""

    @classmethod
    def __prepare__(cls, *given: Any, **options: Any) -> Namespace:  # type: ignore[override]
        return Namespace()


def stored(cls: type[Entity]) -> Any:
    """What the metaclass knows of an entity class."""
    return cls.__skerry__


def old_account() -> type[Entity]:
    class Account(Entity, metaclass=Deferred):
        overdraft: int = 0
        balance: int = 0

    return Account


def test_releases_of_a_class_have_different_ids_where_a_namespace_holds_no_annotations() -> None:
    class Account(Entity, metaclass=Deferred):
        balance: int = 0

    old, new = stored(old_account()), stored(Account)
    assert old.schema_id != new.schema_id
    entity = old.cls(overdraft=500, balance=7)
    read = new.decode(old.encode(entity), "a", lambda id: old.schema)
    assert read.balance == 7


def test_a_class_has_one_id_however_its_namespace_holds_annotations() -> None:
    class Account(Entity):
        overdraft: int = 0
        balance: int = 0

    text = EntityMeta(
        "Account",
        (Entity,),
        {
            "__module__": __name__,
            "__annotations__": {"overdraft": "int", "balance": "int"},
            "overdraft": 0,
            "balance": 0,
        },
    )
    ids = {stored(cls).schema_id for cls in (old_account(), Account, text)}  # type: ignore[arg-type]
    assert len(ids) == 1


def test_reserved_names_are_refused_where_a_namespace_holds_no_annotations() -> None:
    with pytest.raises(TypeError, match="`_key` is reserved"):

        class Wrong(Entity, metaclass=Deferred):
            _key: str


def test_a_class_travels_by_value_with_the_fields_and_the_id_that_it_has() -> None:
    class Basket(Entity, metaclass=Deferred):
        lines: list[Line] = []
        note: Optional[str] = None  # noqa: UP045

        def add(self, price: int) -> int:
            self.lines.append(Line(price))
            return len(self.lines)

    came = portable.loads(portable.dumps(App("shop", entities=[Basket]))).types["Basket"]
    assert came.schema_id == stored(Basket).schema_id
    state = came.encode(came.cls(lines=[Line(3)], note="x"))
    assert stored(Basket).decode(state, "b", lambda id: None).lines == [Line(3)]


def test_schema_ids_are_those_of_every_other_python() -> None:
    class Account(Entity):
        limit: ClassVar[int] = 3
        balance: int = 0
        note: Optional[str] = None  # noqa: UP045
        colour: Colour | None = None
        parts: dict[str, Union[int, list[Optional[Line]]]] = {}  # noqa: UP007, UP045
        state: Literal["open", "shut"] = "open"
        cents: Annotated[Cents, msgspec.Meta(ge=0)] = Cents(0)

        def pay(self, to: str, parts: Optional[Sequence[int]] = None) -> None:  # noqa: UP045
            ...

    class Vip(Account):
        perks: tuple[str, ...] = ()

    account, vip = stored(Account), stored(Vip)
    assert account.fields == ("balance", "note", "colour", "parts", "state", "cents")
    assert (account.schema_id, vip.schema_id) == (ACCOUNT_ID, VIP_ID)
    assert account.handlers["pay"].params_id == PAY_ID


ACCOUNT_ID, VIP_ID = 1604459610113941115, 6951821942537962202
PAY_ID = 6030687861387316559
"""As the first Python that we ran on made them: what is stored is found by these."""


@pytest.mark.parametrize(
    ("spellings", "text"),
    [
        ((Optional[int], int | None, None | int, Union[None, int]), "None | int"),  # noqa: UP007, UP045
        ((typing.List[int], list[int]), "list[int]"),  # noqa: UP006
        ((typing.List, list), "list"),  # noqa: UP006
        ((Annotated[int, object()], int), "int"),
        ((Literal["a", "b"], Literal["b", "a"]), "Literal['a', 'b']"),
        ((tuple[int, ...], typing.Tuple[int, ...]), "tuple[int, Ellipsis]"),  # noqa: UP006
        ((dict[str, list[Line | None]],), "dict[str, list[Line | None]]"),
        ((Cents,), "Cents"),
        ((Any,), "Any"),
    ],
)
def test_spellings_of_one_type_are_one_text(spellings: tuple[Any, ...], text: str) -> None:
    assert {type_text(spelling) for spelling in spellings} == {text}
