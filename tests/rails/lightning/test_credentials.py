"""Macaroons and certificates: what may pass, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ledger.identifiers import PaymentId
from rails.contract import RailUnavailable
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import (
    INVOICE_METHODS,
    REFUND_METHODS,
    CredentialFiles,
    Permission,
    Preimages,
    permissions,
    read_preimage_key,
    too_broad,
)
from rails.lightning.errors import CredentialRefused
from sandbox.lnd import macaroons
from tests.rails.lightning.node import SandboxNode

# The version 2 test vector of libmacaroons: root key, and the signature that it must have.
VECTOR_KEY = b"this is the key"
VECTOR = (
    "AgETaHR0cDovL2V4YW1wbGUub3JnLwIFa2V5aWQAAhRhY2NvdW50ID0gMzczNTkyODU1OQACDHVzZXIgPSBhbGljZQAABiBL6WfN"
    "HqDGsmuvakqU7psFsViG2guoXoxCqTyNDhJe_A=="
)
GOLDEN_KEY = bytes(range(32))


@asynccontextmanager
async def client_with(node: SandboxNode, macaroon: bytes, folder: Path) -> AsyncIterator[LndClient]:
    path = folder / "some.macaroon"
    path.write_bytes(macaroon)
    client = LndClient(Connection(node.address, CredentialFiles(node.folder / "tls.cert", path)))
    yield client
    await client.close()


async def test_the_invoice_macaroon_makes_invoices_and_nothing_else(node: SandboxNode) -> None:
    client = node.client()
    assert (await client.info()).network == "regtest"
    assert not await client.can_see_channels()
    await client.close()


async def test_the_admin_macaroon_is_found_out(node: SandboxNode) -> None:
    client = node.client("admin.macaroon")
    assert await client.can_see_channels()
    await client.close()


async def test_the_refund_macaroon_makes_no_invoices(node: SandboxNode) -> None:
    client = node.client("refunds.macaroon")
    with pytest.raises(CredentialRefused, match="permission denied"):
        await client.info()
    await client.close()


async def test_a_tampered_macaroon_is_refused(node: SandboxNode, tmp_path: Path) -> None:
    genuine = (node.folder / "invoices.macaroon").read_bytes()
    for place in (-1, 60):
        forged = bytearray(genuine)
        forged[place] ^= 1
        async with client_with(node, bytes(forged), tmp_path) as client:
            with pytest.raises(RailUnavailable):
                await client.info()


async def test_a_macaroon_of_another_node_is_refused(node: SandboxNode, tmp_path: Path) -> None:
    ops = [macaroons.Op("uri", method) for method in macaroons.INVOICE_METHODS]
    foreign = macaroons.mint(secrets.token_bytes(32), "1", b"n" * 16, ops).encode()
    async with client_with(node, foreign, tmp_path) as client:
        with pytest.raises(CredentialRefused, match="verification failed"):
            await client.info()


async def test_a_macaroon_under_an_unknown_root_key_is_refused(node: SandboxNode, tmp_path: Path) -> None:
    foreign = macaroons.mint(b"k" * 32, "99", b"n" * 16, [macaroons.Op("info", "read")]).encode()
    async with client_with(node, foreign, tmp_path) as client:
        with pytest.raises(CredentialRefused, match="root key with id 99"):
            await client.info()


@pytest.mark.parametrize(
    ("caveat", "passes"),
    [
        (b"time-before 2100-01-01T00:00:00Z", True),
        (b"time-before 2020-01-01T00:00:00Z", False),
        (b"ipaddr 10.0.0.1", False),
    ],
)
async def test_caveats_narrow_a_macaroon(
    node: SandboxNode, tmp_path: Path, caveat: bytes, passes: bool
) -> None:
    genuine = macaroons.decode((node.folder / "invoices.macaroon").read_bytes())
    # Whoever holds a macaroon can make a narrower one.
    signature = hmac.new(genuine.signature, caveat, hashlib.sha256).digest()
    narrower = replace(genuine, caveats=(*genuine.caveats, caveat), signature=signature)
    async with client_with(node, narrower.encode(), tmp_path) as client:
        if passes:
            assert (await client.info()).network == "regtest"
        else:
            with pytest.raises(CredentialRefused, match="not satisfied"):
                await client.info()


async def test_a_broader_macaroon_put_in_its_place_is_noticed(node: SandboxNode, tmp_path: Path) -> None:
    path = tmp_path / "some.macaroon"
    path.write_bytes((node.folder / "invoices.macaroon").read_bytes())
    certificate = node.folder / "tls.cert"
    strict = LndClient(
        Connection(node.address, CredentialFiles(certificate, path, INVOICE_METHODS, strict=True))
    )
    lenient = LndClient(Connection(node.address, CredentialFiles(certificate, path, INVOICE_METHODS)))
    assert (await strict.info()).network == (await lenient.info()).network == "regtest"
    path.write_bytes((node.folder / "admin.macaroon").read_bytes())
    with pytest.raises(CredentialRefused, match=r"some\.macaroon allows more than it should"):
        await strict.info()
    with capture_logs() as logs:
        await lenient.info()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "lightning_macaroon_too_broad"
    ]
    path.write_bytes(path.read_bytes().hex().encode())
    with pytest.raises(CredentialRefused, match="not a macaroon of LND"):
        await strict.info()
    with pytest.raises(CredentialRefused):  # the node's own word
        await lenient.info()
    path.write_bytes((node.folder / "invoices.macaroon").read_bytes())
    assert (await strict.info()).network == "regtest"
    await strict.close()
    await lenient.close()


def test_a_key_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"LIGHTNING_PREIMAGE_KEY: .* cannot be made; name a file"):
        read_preimage_key(tmp_path / "file" / "preimage.key", create=True)


async def test_an_empty_macaroon_is_refused(node: SandboxNode, tmp_path: Path) -> None:
    async with client_with(node, b"\x02", tmp_path) as client:
        with pytest.raises(CredentialRefused, match="unmarshal v2"):
            await client.info()


async def test_getting_the_nodes_state_needs_no_macaroon(node: SandboxNode, tmp_path: Path) -> None:
    async with client_with(node, b"\x02", tmp_path) as client:
        await client.require_active()


async def test_a_wrong_certificate_is_refused(
    node: SandboxNode, own_node: SandboxNode, tmp_path: Path
) -> None:
    files = CredentialFiles(own_node.folder / "tls.cert", node.folder / "invoices.macaroon")
    client = LndClient(Connection(node.address, files))
    with pytest.raises(RailUnavailable):
        await client.info()
    await client.close()


async def test_a_renewed_certificate_is_taken_up_without_a_restart_of_ours(own_node: SandboxNode) -> None:
    client = own_node.client()
    await client.info()
    before = (own_node.folder / "tls.cert").read_bytes()
    await own_node.kill()
    (own_node.folder / "tls.cert").unlink()
    await own_node.start()
    assert (own_node.folder / "tls.cert").read_bytes() != before
    await client.info()
    await client.close()


async def test_missing_files_make_the_rail_unavailable_not_broken(node: SandboxNode, tmp_path: Path) -> None:
    client = LndClient(Connection(node.address, CredentialFiles(tmp_path / "tls.cert", tmp_path / "none")))
    with pytest.raises(RailUnavailable, match=r"tls\.cert"):
        await client.info()
    (tmp_path / "tls.cert").write_bytes((node.folder / "tls.cert").read_bytes())
    (tmp_path / "none").write_bytes((node.folder / "invoices.macaroon").read_bytes())
    await client.info()
    await client.close()


# --- reading macaroons -------------------------------------------------------------------------


def test_permissions_are_read_from_the_identifier(node: SandboxNode) -> None:
    found = permissions((node.folder / "invoices.macaroon").read_bytes())
    assert found == {Permission("uri", method) for method in INVOICE_METHODS}


def test_an_admin_macaroon_is_too_broad(node: SandboxNode) -> None:
    assert "offchain:write" in too_broad((node.folder / "admin.macaroon").read_bytes(), INVOICE_METHODS)


def test_each_macaroon_is_right_for_its_own_purpose_only(node: SandboxNode) -> None:
    invoices = (node.folder / "invoices.macaroon").read_bytes()
    refunds = (node.folder / "refunds.macaroon").read_bytes()
    assert too_broad(invoices, INVOICE_METHODS) == []
    assert too_broad(refunds, REFUND_METHODS) == []
    assert too_broad(refunds, INVOICE_METHODS)


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x02", b"\x02\x02\x05abc", b"hello", b"\x02\x02\x02\x03\xff", b"\xff" * 80]
)
def test_rubbish_is_no_macaroon(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not a macaroon of LND"):
        permissions(rubbish)


def test_a_macaroon_survives_encoding() -> None:
    made = macaroons.mint(GOLDEN_KEY, "0", bytes(16), [macaroons.Op("invoices", "read")])
    assert macaroons.decode(made.encode()) == made
    allowed, key_id = macaroons.verify(made.encode(), lambda _: GOLDEN_KEY, lambda: 0)
    assert (allowed, key_id) == (frozenset({macaroons.Op("invoices", "read")}), "0")


def test_the_format_is_the_one_of_libmacaroons() -> None:
    data = base64.urlsafe_b64decode(VECTOR)
    read = macaroons.decode(data)
    assert read.location == b"http://example.org/"
    assert (read.identifier, read.caveats) == (b"keyid", (b"account = 3735928559", b"user = alice"))
    assert macaroons.chain(VECTOR_KEY, read) == read.signature
    assert macaroons.chain(b"another key", read) != read.signature
    assert read.encode() == data


def test_the_binary_form_never_changes() -> None:
    made = macaroons.mint(GOLDEN_KEY, "0", bytes(16), [macaroons.Op("invoices", "read")])
    assert made.encode().hex() == (
        "0201036c6e640228030a10"
        + "00" * 16
        + "1201301a100a08696e766f6963657312047265616400000620"
        + made.signature.hex()
    )


# --- preimages ---------------------------------------------------------------------------------

PAYMENT = PaymentId("pay_01k0000000000000000000000a")


def test_a_preimage_depends_on_key_and_payment() -> None:
    ours, theirs = Preimages(b"a" * 32), Preimages(b"b" * 32)
    assert ours.of(PAYMENT) == Preimages(b"a" * 32).of(PAYMENT)
    assert ours.of(PAYMENT) != theirs.of(PAYMENT)
    assert ours.of(PAYMENT) != ours.of(PaymentId(PAYMENT[:-1] + "b"))


def test_a_preimage_is_found_by_the_memo_and_checked_by_the_hash() -> None:
    ours = Preimages(b"a" * 32)
    payment_hash = ours.hash_of(PAYMENT).hex()
    assert ours.found_in(f"500 images ({PAYMENT})", payment_hash) == ours.of(PAYMENT)
    assert ours.found_in(f"500 images ({PAYMENT})", "00" * 32) is None
    assert ours.found_in("500 images", payment_hash) is None


def test_the_key_is_never_shown() -> None:
    assert "a" * 8 not in repr(Preimages(b"a" * 32))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Preimages(b"short")


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "preimage.key"
    first = read_preimage_key(path, create=True)
    assert read_preimage_key(path, create=True) == first
    assert len(first) == 32
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["preimage.key"]


def test_a_missing_or_broken_key_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_preimage_key(tmp_path / "none", create=False)
    (tmp_path / "bad").write_text("not hex")
    with pytest.raises(ValueError, match="hex"):
        read_preimage_key(tmp_path / "bad", create=False)
