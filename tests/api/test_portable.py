"""Classes that no worker can import travel with an app, complete."""

import dataclasses
import enum
import sys
from typing import Any

import msgspec
import pytest

from skerry import App, BadApp, Entity, portable


def travelled(cls: type[Entity]) -> Any:
    """A class of entities, as a worker gets it."""
    return portable.loads(portable.dumps(App("notebook", entities=[cls]))).types[cls.__name__].cls


def test_the_types_of_fields_travel_with_their_fields_options_and_methods() -> None:
    class Colour(enum.Enum):
        RED = "red"

    @dataclasses.dataclass
    class Label:
        text: str = "x"

    class Line(msgspec.Struct, frozen=True, rename="camel", array_like=True):
        unit_price: int
        labels: list[Label] = []

        def __post_init__(self) -> None:
            if self.unit_price < 0:
                raise ValueError("a negative price")

        def doubled(self) -> "Line":
            return Line(2 * self.unit_price)

    class Basket(Entity):
        lines: list[Line] = []
        colour: Colour = Colour.RED
        start: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})

        def add(self, price: int) -> None:
            self.lines.append(Line(price).doubled())

    basket = travelled(Basket)()
    basket.add(3)
    assert basket.start == {"a": 1}
    (line,) = basket.lines
    assert (line.unit_price, line.labels) == (6, [])
    assert msgspec.json.encode(line) == b"[6,[]]"
    assert msgspec.structs.fields(line)[0].encode_name == "unitPrice"
    with pytest.raises(ValueError, match="a negative price"):
        type(line)(-1)
    with pytest.raises(AttributeError):
        line.unit_price = 5
    assert basket.__skerry__.schema_id == Basket.__skerry__.schema_id


class Node(msgspec.Struct):
    following: "Node | None" = None


def test_a_type_that_holds_itself_is_refused_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class List(Entity):
        first: Node | None = None

    monkeypatch.setattr(Node, "__module__", "__main__")  # As if this file were a notebook.
    monkeypatch.setattr(sys.modules["__main__"], "Node", Node, raising=False)
    with pytest.raises(BadApp, match=r"Node has a field of its own type.*module"):
        travelled(List)
