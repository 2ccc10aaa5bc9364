"""The connection to NATS: what lets it in, and what is said when nobody answers."""

from __future__ import annotations

import re

import pytest
from nats.aio.client import Client

from skerry.runtime.cluster.engine import Away, Engine
from tests.cluster.servers import Servers


async def _streams(client: Client) -> int:
    return (await client.jetstream().account_info()).streams


def _bare(url: str) -> str:
    return re.sub("//.*@", "//", url)


def test_the_password_of_one_url_lets_in_everywhere(nats: Servers) -> None:
    """Servers that are found by themselves have none in their URLs."""
    engine = Engine([nats.servers[0], _bare(nats.servers[1])], name="test")
    try:
        nats.kill(0)
        while True:
            try:
                engine.run(_streams, 10)
                break
            except Away as error:
                assert "refuses" not in str(error)
    finally:
        engine.close()


@pytest.mark.parametrize("how", ["wrong", "missing"])
def test_a_wrong_password_is_told_from_servers_that_are_away(nats: Servers, how: str) -> None:
    urls = [url.replace("@", "x@") if how == "wrong" else _bare(url) for url in nats.servers]
    engine = Engine(urls, name="test")
    try:
        said = ""
        while "refuses the connection" not in said:
            with pytest.raises(Away) as raised:
                engine.run(_streams, 1)
            said = str(raised.value)
        assert "Authorization Violation" in said
    finally:
        engine.close()


def test_no_password_is_shown_in_what_is_said(nats: Servers) -> None:
    url = nats.servers[0].rpartition(":")[0] + ":1"
    assert "@" in url
    engine = Engine([url], name="test")
    try:
        with pytest.raises(Away) as raised:
            engine.run(_streams, 0.5)
    finally:
        engine.close()
    assert "nats://127.0.0.1:1 has answered" in str(raised.value)
    assert "@" not in str(raised.value)
