"""Whatever a node, a chain or a price feed answers: it is read, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from hypothesis import strategies as st
from lndgrpc.compiled import lightning_pb2 as ln

from rails.contract import RailProtocolError
from rails.lightning.invoices import from_wire
from rails.lightning.listening import Position
from rails.lightning.observing import observe
from rails.liquid import cursor
from rails.liquid.elementsd import ElementsdChain, RpcFault
from rails.liquid.esplora import EsploraChain
from rails.liquid.integrity import is_transaction
from rails.liquid.unblind import Output, outputs, unblind
from rails.quotes.feeds import KINDS, FeedFailed, HttpFeed
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, Question, answered, bodies, rpc_answer, server, spoiled
from tests.fuzz.receipts import NAMED, is_whole
from tests.fuzz.stripe_objects import NOW

HASH = "ab" * 32


# --- Lightning ---------------------------------------------------------------------------------------


@fuzzed(
    state=st.integers(-(2**31), 2**31 - 1) | st.sampled_from(range(5)),
    numbers=st.lists(
        st.sampled_from([0, 1, -1, 1_790_000_000, 2**40, 2**63 - 1, -(2**63)]), min_size=6, max_size=6
    ),
    htlc_state=st.integers(-1, 4),
    digest=st.binary(max_size=40),
)
def test_an_invoice_of_a_node_is_understood_or_refused(
    state: int, numbers: list[int], htlc_state: int, digest: bytes
) -> None:
    value, paid, created, settled, amount, accepted = numbers
    htlc = ln.InvoiceHTLC(state=htlc_state, amt_msat=abs(amount), accept_time=accepted, expiry_height=7)
    message = ln.Invoice(
        r_hash=digest,
        state=state,
        value_msat=value,
        amt_paid_msat=paid,
        creation_date=created,
        settle_date=settled,
        htlcs=[htlc],
    )
    with contextlib.suppress(RailProtocolError):
        for receipt in observe(from_wire(message)).receipts:
            is_whole(receipt)


@fuzzed(
    text=st.text(max_size=30)
    | TEXTS
    | st.from_regex(r"[0-9]{1,30}:[0-9]{1,25}")
    | st.just("9" * 5_000 + ":1")
)
def test_a_cursor_of_an_earlier_day_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RailProtocolError):
        assert Position.parse(text).add_index < 2**64
    cursor.read(text)


CARRIED = cursor.Carried(HASH, 0, "51", HASH, 5, NOW)


@fuzzed(body=bodies(json.loads(cursor.Cursor(5, HASH, (CARRIED,)).text())))
def test_a_kept_place_in_the_chain_is_read_or_forgotten(body: bytes) -> None:
    found = cursor.read(body.decode(errors="replace"))
    for carried in () if found is None else found.carried:
        carried.sighting()


# --- Liquid ------------------------------------------------------------------------------------------

BLOCK = {"hash": HASH, "height": 7, "time": 1_790_000_000, "tx": [HASH], "merkleroot": HASH}
SCAN = {"unspents": [{"txid": HASH, "vout": 0, "scriptPubKey": "51", "height": 5}]}
INFO = {
    "chain": "liquidv1", "blocks": 7, "bestblockhash": HASH, "initialblockdownload": False, "time": 1, "loaded": True,
}  # fmt: skip


@fuzzed(
    result=spoiled(BLOCK, SCAN, INFO, [HASH], HASH, 7, "00ff"),
    junk=st.none() | bodies([{"id": 1, "error": None}]),
)
def test_an_answer_of_elementsd_is_understood_or_refused(
    loop: asyncio.Runner, result: Any, junk: bytes | None
) -> None:
    chain = ElementsdChain(server(junk if junk is not None else lambda request: rpc_answer(request, result)))
    questions: list[Question] = [
        chain.pulse,
        chain.tip_time,
        lambda: chain.block_hash(7),
        lambda: chain.block(HASH),
        lambda: chain.transactions([HASH], None),
        lambda: chain.seen_at(HASH),
        lambda: chain.unspent([b"Q"]),
    ]
    for question in questions:
        answered(loop, question, *NAMED, RpcFault)


ESPLORA_BLOCK = {"id": HASH, "height": 7, "timestamp": 1_790_000_000, "merkle_root": HASH}
UTXO = [{"txid": HASH, "vout": 0, "status": {"confirmed": True, "block_height": 5}}]


@fuzzed(body=bodies(ESPLORA_BLOCK, UTXO, [HASH], 7) | st.just(HASH.encode()))
def test_an_answer_of_esplora_is_understood_or_refused(loop: asyncio.Runner, body: bytes) -> None:
    chain = EsploraChain(server(body))
    questions: list[Question] = [
        chain.pulse,
        chain.tip_time,
        lambda: chain.block_hash(7),
        lambda: chain.block(HASH),
        lambda: chain.unspent([b"Q"]),
    ]
    for question in questions:
        answered(loop, question, *NAMED)


@fuzzed(raw=st.binary(max_size=120), parts=st.lists(st.binary(max_size=70), min_size=5, max_size=5))
def test_bytes_of_a_transaction_are_read_or_refused(raw: bytes, parts: list[bytes]) -> None:
    for read in (lambda: list(outputs(raw)), lambda: is_transaction(raw, HASH)):
        with contextlib.suppress(ValueError):  # as documented
            read()
    script, asset, value, nonce, range_proof = parts
    unblind(Output(0, script, asset, value, nonce, range_proof), b"\x01" * 32)


# --- price feeds -------------------------------------------------------------------------------------

PRICES = {
    "coinbase": {"data": {"amount": "97123.45", "currency": "USD"}},
    "kraken": {"error": [], "result": {"XXBTZUSD": {"c": ["97123.4", "0.1"]}}},
    "bitstamp": {"last": "97123"},
}


@fuzzed(name=st.sampled_from(sorted(KINDS)), data=st.data())
def test_a_price_is_exact_or_refused(loop: asyncio.Runner, name: str, data: st.DataObject) -> None:
    feed = HttpFeed(name, "http://node.test/x", server(data.draw(bodies(PRICES[name]))))
    price = answered(loop, feed.read, FeedFailed)
    assert price is None or price > 0
