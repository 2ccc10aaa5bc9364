"""Market spread: check orders against the newest quote of their symbol, as Wallaroo's example did.

    skerry run examples.market_spread                    # two million quotes, a million orders
    skerry run examples.market_spread -- 10000           # a hundredth of a million each

Quotes and orders come from two sources and meet at the symbol. An order is turned down while the
spread of its symbol is wide, by Wallaroo's rule: 5 cents or more, and 0.05 % of the price or more.
"""

from msgspec import Struct

import skerry
from skerry import App, Entity, sinks
from skerry.sources import Generate

SYMBOLS = [f"SYM{number:03}" for number in range(350)]
ORDERS = int((skerry.args() or ["1000000"])[0])
CENTS, PERCENT = 0.05, 0.05


class Quote(Struct, frozen=True, array_like=True):
    """What is bid for a symbol, and what it is offered for."""

    symbol: str
    bid: float
    offer: float


class Order(Struct, frozen=True, array_like=True):
    """What a client wants to buy."""

    client: str
    symbol: str
    quantity: int


class Symbol(Entity):
    """A symbol, with its newest quote."""

    bid: float = 0.0
    offer: float = 0.0
    wide: bool = False

    def quote(self, quote: Quote) -> None:
        """Take a quote."""
        spread, middle = quote.offer - quote.bid, (quote.offer + quote.bid) / 2
        self.bid, self.offer = quote.bid, quote.offer
        self.wide = spread >= CENTS and spread / middle * 100 >= PERCENT

    def check(self, order: Order) -> list[str | int | float] | None:
        """Reply with an order that is turned down, and the quote that it met."""
        if not self.wide:
            return None
        return [order.client, order.symbol, order.quantity, self.bid, self.offer]


def quote(partition: str, position: int) -> Quote:
    """A quote that looks random, and is the same each time; one in 50 has a wide spread."""
    drawn = position * 7919 + int(partition) * 104_729
    bid = 10 + drawn % 9000 / 100
    wide = 0.10 if drawn % 50 == 0 else 0.01
    return Quote(SYMBOLS[drawn % len(SYMBOLS)], bid, round(bid + wide, 2))


def order(partition: str, position: int) -> Order:
    """An order that looks random, and is the same each time."""
    drawn = position * 6101 + int(partition) * 15_485_863
    return Order(f"client-{drawn % 1000}", SYMBOLS[drawn % len(SYMBOLS)], drawn % 500 + 1)


app = App("market-spread", entities=[Symbol])
quotes = app.source(Generate(quote, partitions=4, count=ORDERS // 2), name="quotes")
orders = app.source(Generate(order, partitions=4, count=ORDERS // 4), name="orders")
quotes.key_by(lambda quote: quote.symbol).to(Symbol.quote)
turned_down = orders.key_by(lambda order: order.symbol).to(Symbol.check)
turned_down.sink(sinks.JsonLines("turned-down"))
