"""The sandbox node: real confidential transactions, elementsd's answers, a chain that survives."""

from __future__ import annotations

import hashlib
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import lwk
import pytest

from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.networks import LIQUID_REGTEST
from sandbox.elementsd.params import LBTC_ASSET
from sandbox.elementsd.service import describe
from sandbox.elementsd.treasury import watch_only_descriptor
from sandbox.elementsd.wallet import usdt_asset
from sandbox.embedded.ports import free_port
from tests.rails.liquid.outside import NodeError, SandboxNode


@pytest.fixture
def address() -> str:
    return WatchOnlyDescriptor(watch_only_descriptor(secrets.token_bytes(32)), LIQUID_REGTEST).address(1)


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[SandboxNode]:
    node = SandboxNode(tmp_path, free_port(), "--block-seconds", "0", "--pending-seconds", "0")
    node.start()
    yield node
    node.stop()


def pay(node: SandboxNode, address: str, amount: str = "1", **body: object) -> str:
    return str(
        node.control("pay", address=address, amount=amount, **{"assetid": usdt_asset(), **body})["txid"]
    )


def previous_outputs(node: SandboxNode, txid: str) -> list[lwk.TxOut]:
    spent = []
    for item in node.call("getrawtransaction", txid, True)["vin"]:
        raw = bytes.fromhex(node.find(item["txid"]))
        spent.append(lwk.Transaction.from_bytes(raw).outputs()[item["vout"]])
    return spent


def test_an_independent_library_accepts_the_proofs_and_amounts(node: SandboxNode, address: str):
    node.control("mine")
    txid = pay(node, address)
    spent = previous_outputs(node, txid)
    raw = bytes.fromhex(node.call("getrawtransaction", txid))
    lwk.Transaction.from_bytes(raw).verify_tx_amt_proofs(spent)


def test_an_independent_library_refuses_a_changed_amount(node: SandboxNode, address: str):
    node.control("mine")
    txid = pay(node, address)
    spent = previous_outputs(node, txid)
    raw = bytearray.fromhex(node.call("getrawtransaction", txid))
    fee = raw.index(bytes.fromhex(LBTC_ASSET)[::-1]) + 32
    raw[fee + 8] ^= 1
    with pytest.raises(lwk.LwkError):
        lwk.Transaction.from_bytes(bytes(raw)).verify_tx_amt_proofs(spent)
    with pytest.raises(NodeError) as refused:
        node.call("sendrawtransaction", bytes(raw).hex())
    assert (refused.value.code, refused.value.message) == (-26, "bad-txns-in-ne-out")


def test_the_discount_makes_a_confidential_payment_cheap(node: SandboxNode, address: str):
    entry = node.call("getmempoolentry", pay(node, address))
    assert entry["discountvsize"] < 600 < entry["vsize"]


def test_a_block_is_its_header_and_its_transactions(node: SandboxNode, address: str):
    txid = pay(node, address)
    block_hash = node.control("mine")["blocks"][0]
    verbose = node.call("getblock", block_hash, 2)
    raw = bytes.fromhex(node.call("getblock", block_hash, 0))
    header = bytes.fromhex(node.call("getblockheader", block_hash, False))
    assert raw.startswith(header)
    # Elements leaves the proof's solution (here one empty byte) out of the hash.
    assert hashlib.sha256(hashlib.sha256(header[:-1]).digest()).digest()[::-1].hex() == block_hash
    assert raw.endswith(b"".join(bytes.fromhex(tx["hex"]) for tx in verbose["tx"]))
    assert [tx["txid"] for tx in verbose["tx"]] == node.call("getblock", block_hash)["tx"]
    assert verbose["tx"][-1]["txid"] == txid
    assert verbose["size"] == len(raw)


@pytest.mark.parametrize(
    ("method", "params", "code", "message"),
    [
        ("nosuchmethod", [], -32601, "Method not found"),
        ("getblockhash", [10**6], -8, "Block height out of range"),
        ("getblockhash", [], -1, None),
        ("getblock", ["ab" * 32], -5, "Block not found"),
        ("getblock", ["ab"], -8, "blockhash must be of length 64 (not 2, for 'ab')"),
        ("getblock", ["zz" * 32], -8, f"blockhash must be hexadecimal string (not '{'zz' * 32}')"),
        ("getmempoolentry", ["ab" * 32], -5, "Transaction not in mempool"),
        ("getrawtransaction", ["ab" * 32, False, "cd" * 32], -5, "Block hash not found"),
        ("sendrawtransaction", ["00"], -22, "TX decode failed. Make sure the tx has at least one input."),
        ("scantxoutset", ["start", ["wpkh(nonsense)"]], -5, None),
        ("testmempoolaccept", [[]], -8, "Array must contain between 1 and 25 transactions."),
    ],
)
def test_faults_have_the_codes_and_words_of_elementsd(
    node: SandboxNode, method: str, params: list[object], code: int, message: str | None
):
    with pytest.raises(NodeError) as fault:
        node.call(method, *params)
    assert fault.value.code == code
    assert fault.value.status == (404 if code == -32601 else 500)
    assert message in (None, fault.value.message)


def test_without_an_index_a_mined_transaction_needs_its_block(node: SandboxNode, address: str):
    txid = pay(node, address)
    block_hash = node.control("mine")["blocks"][0]
    with pytest.raises(NodeError, match="Use -txindex or provide a block hash"):
        node.call("getrawtransaction", txid)
    assert node.call("getrawtransaction", txid, True, block_hash)["confirmations"] == 1


def test_only_the_right_password_opens(node: SandboxNode):
    for auth in (None, ("sandbox", "wrong")):
        response = httpx.post(node.url, json={"id": 1, "method": "uptime"}, auth=auth)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Basic realm="jsonrpc"'


def test_the_version_of_json_rpc_is_checked_as_elements_28_does(node: SandboxNode):
    def ask(version: object) -> httpx.Response:
        call = {"jsonrpc": version, "id": 1, "method": "getblockhash", "params": [10**6]}
        return httpx.post(node.url, json=call, auth=("sandbox", "sandbox"))

    assert ask("1.0").status_code == 500
    new = ask("2.0")
    assert (new.status_code, new.json().keys()) == (200, {"jsonrpc", "error", "id"})
    for version, text in [("1.1", "not supported"), ("3", "not supported"), (2, "must be a string")]:
        refused = ask(version)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == -32600
        assert text in refused.json()["error"]["message"]
    batch = httpx.post(
        node.url,
        json=[
            {"jsonrpc": "1.1", "id": 1, "method": "uptime"},
            {"jsonrpc": "2.0", "id": 2, "method": "uptime"},
        ],
        auth=("sandbox", "sandbox"),
    )
    assert batch.status_code == 200
    assert [set(answer) for answer in batch.json()] == [
        {"result", "error", "id"},
        {"jsonrpc", "result", "id"},
    ]


def test_a_batch_answers_each_call_apart(node: SandboxNode):
    calls = [{"id": "a", "method": "getblockcount"}, {"id": "b", "method": "nope"}, 7]
    response = httpx.post(node.url, json=calls, auth=("sandbox", "sandbox"))
    answers = response.json()
    assert response.status_code == 200
    assert [answer["id"] for answer in answers] == ["a", "b", None]
    assert [answer["error"] and answer["error"]["code"] for answer in answers] == [None, -32601, -32600]


def test_a_spent_output_is_spent_once(node: SandboxNode, address: str):
    raw = node.call("getrawtransaction", pay(node, address))
    assert node.call("sendrawtransaction", raw) == node.call("decoderawtransaction", raw)["txid"]
    node.control("mine")
    with pytest.raises(NodeError) as known:
        node.call("sendrawtransaction", raw)
    assert (known.value.code, known.value.message) == (-27, "Transaction outputs already in utxo set")


def test_a_replaced_transaction_cannot_come_back(node: SandboxNode, address: str):
    txid = pay(node, address)
    raw = node.call("getrawtransaction", txid)
    node.control("replace", txid=txid)
    with pytest.raises(NodeError) as cheap:
        node.call("sendrawtransaction", raw)
    assert (cheap.value.code, cheap.value.message) == (-26, "insufficient fee")
    node.control("mine")
    (answer,) = node.call("testmempoolaccept", [raw])
    assert (answer["allowed"], answer["reject-reason"]) == (False, "missing-inputs")


def test_a_final_transaction_cannot_be_replaced(node: SandboxNode, address: str):
    txid = pay(node, address, final=True)
    with pytest.raises(httpx.HTTPStatusError):
        node.control("replace", txid=txid)


def test_an_unspent_output_is_found_by_script_and_address(node: SandboxNode, address: str):
    txid = pay(node, address)
    block_hash = node.control("mine")["blocks"][0]
    script = node.call("validateaddress", address)["scriptPubKey"]
    for scan in (f"raw({script})", f"addr({address})"):
        (unspent,) = node.call("scantxoutset", "start", [scan])["unspents"]
        assert (unspent["txid"], unspent["blockhash"]) == (txid, block_hash)
        assert "amountcommitment" in unspent
    held = node.call("gettxout", txid, unspent["vout"])
    assert held["scriptPubKey"]["hex"] == script


def test_addresses_are_taken_apart(node: SandboxNode, address: str):
    reported = node.call("validateaddress", address)
    assert reported["isvalid"]
    assert reported["confidential_key"]
    plain = node.call("validateaddress", reported["unconfidential"])
    assert plain["scriptPubKey"] == reported["scriptPubKey"]
    assert not plain["confidential_key"]
    assert not node.call("validateaddress", "lq1nonsense")["isvalid"]


@pytest.mark.parametrize(
    "body",
    [
        {"uri": "bitcoin:abc?amount=1"},
        {"uri": "liquidtestnet:el1nonsense?amount=1"},
        {"address": "el1nonsense", "amount": "1", "assetid": LBTC_ASSET},
        {"address": "x", "amount": "1e8", "assetid": LBTC_ASSET},
        {"address": "x", "amount": "1", "assetid": "short"},
        {},
    ],
)
def test_the_purse_refuses_nonsense_in_one_sentence(node: SandboxNode, body: dict[str, str]):
    response = httpx.post(node.url + "/sandbox/pay", json=body)
    assert response.status_code == 400
    assert response.json()["error"]


def test_the_purse_cannot_pay_more_than_it_has(node: SandboxNode, address: str):
    with pytest.raises(httpx.HTTPStatusError):
        pay(node, address, amount="99999999")


def test_a_killed_node_has_lost_nothing(own_node: SandboxNode, address: str):
    mined = pay(own_node, address)
    block_hash = own_node.control("mine")["blocks"][0]
    waiting = pay(own_node, address)
    before = own_node.info()
    assert own_node.stop(signal.SIGKILL) == -signal.SIGKILL
    own_node.start()
    assert own_node.info() == before
    assert own_node.call("getrawmempool") == [waiting]
    assert mined in own_node.call("getblock", block_hash)["tx"]
    assert pay(own_node, address)


def test_a_told_node_stops_cleanly_and_keeps_its_descriptor(own_node: SandboxNode):
    descriptor = (own_node.data / "descriptor.txt").read_text()
    assert own_node.stop() == 0
    own_node.start()
    assert (own_node.data / "descriptor.txt").read_text() == descriptor


def test_blocks_come_by_themselves_until_a_payment_has_two_confirmations(tmp_path: Path, address: str):
    node = SandboxNode(tmp_path, free_port(), "--pending-seconds", "1")
    node.start()
    try:
        start = node.call("getblockcount")
        txid = pay(node, address)
        assert node.control("wait", height=start + 2)["height"] == start + 2
        assert node.call("getrawmempool") == []
        assert txid in node.call("getblock", node.call("getblockhash", start + 1))["tx"]
    finally:
        node.stop()


def test_the_service_says_how_to_reach_it(tmp_path: Path):
    service = describe(tmp_path, lambda _: 12345)
    assert service.environment["ELEMENTS_RPC_URL"].endswith(":12345")
    assert service.environment["LIQUID_DESCRIPTOR"] == str(tmp_path / "descriptor.txt")
    assert len(service.environment["LIQUID_USDT_ASSET"]) == 64
