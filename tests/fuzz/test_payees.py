"""Where people want their money, and whatever those answer who are asked for an invoice: read, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import httpx
from hypothesis import strategies as st

from rails.contract import RailUnavailable, RefundImpossible
from rails.lightning import bech32
from rails.lightning.destinations import DestinationUnreadable, Kind, read
from rails.lightning.lookups import Lookups, PublicWeb
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, bodies

GENUINE = (
    "lnbc2500u1pvjluezpp5qqqsyq",
    "artist@pay.example.com",
    "lnurlp://pay.example.com/x",
    bech32.encode("lnurl", b"https://pay.example.com/x?y=1"),
)
WHO = {
    "tag": "payRequest",
    "callback": "https://pay.example.com/x?y=1",
    "minSendable": 1,
    "maxSendable": 10**9,
}


class Answers(httpx.AsyncBaseTransport):
    """The same to everything."""

    def __init__(self, *bodies_: bytes) -> None:
        self._bodies = list(bodies_)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host == "93.184.216.34"
        return httpx.Response(200, stream=httpx.ByteStream(self._bodies.pop(0)))


async def resolve(host: str, port: int) -> Sequence[str]:
    return ["93.184.216.34"]


@fuzzed(
    text=TEXTS
    | st.builds(
        lambda text, at, junk: text[:at] + junk + text[at:],
        st.sampled_from(GENUINE),
        st.integers(0, 60),
        st.text(max_size=4),
    )
    | st.binary(max_size=60).map(lambda data: bech32.encode("lnurl", data))
)
def test_a_destination_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DestinationUnreadable):
        known = read(text)
        assert known.kind is Kind.INVOICE or known.text.startswith("https://")


@fuzzed(who=bodies([WHO, {**WHO, "callback": "x"}]), made=bodies([{"pr": "lnbc1x"}, {"status": "ERROR"}]))
def test_an_answer_of_a_stranger_is_understood_or_refused(
    loop: asyncio.Runner, who: bytes, made: bytes
) -> None:
    asking = Lookups(PublicWeb(httpx.AsyncClient(transport=Answers(who, made)), resolve))
    with contextlib.suppress(RefundImpossible, RailUnavailable):
        assert loop.run(asking.invoice("https://pay.example.com/x", 5_000))


@fuzzed(address=TEXTS | TEXTS.map(lambda text: f"https://{text}"))
def test_an_address_is_asked_or_refused(loop: asyncio.Runner, address: str) -> None:
    web = PublicWeb(httpx.AsyncClient(transport=Answers(b"{}")), resolve)
    with contextlib.suppress(RefundImpossible, RailUnavailable):
        loop.run(web.get(address))
