"""Addresses, blinding keys, and what is seen through them."""

from __future__ import annotations

import secrets
from dataclasses import replace

import lwk
import pytest
import wallycore as wally

from rails.liquid.descriptor import MAX_INDEX, WatchOnlyDescriptor
from rails.liquid.networks import LIQUID, LIQUID_REGTEST
from rails.liquid.unblind import Content, Output, outputs, unblind
from sandbox.elementsd.confidential import Secret, Spend, Target, build
from sandbox.elementsd.params import ANYONE_CAN_SPEND, LBTC_ASSET, asset_bytes
from sandbox.elementsd.treasury import watch_only_descriptor

SEED = b"\x07" * 32
TEXT = watch_only_descriptor(SEED)
LBTC = asset_bytes(LBTC_ASSET)
OTHER = b"\x42" * 32


@pytest.fixture
def descriptor() -> WatchOnlyDescriptor:
    return WatchOnlyDescriptor(TEXT, LIQUID_REGTEST)


@pytest.mark.parametrize("index", [0, 1, 7777, MAX_INDEX])
def test_an_independent_library_derives_the_same_addresses(descriptor: WatchOnlyDescriptor, index: int):
    wallet = lwk.Wollet(lwk.Network.regtest_default(), lwk.WolletDescriptor(TEXT), None)
    theirs = wallet.address(index).address()
    assert str(theirs) == descriptor.address(index)
    assert str(theirs.script_pubkey()) == descriptor.script(index).hex()


def test_the_blinding_key_is_the_one_in_the_address(descriptor: WatchOnlyDescriptor):
    public = wally.ec_public_key_from_private_key(descriptor.blinding_key(descriptor.script(5)))
    assert public == wally.confidential_addr_segwit_to_ec_public_key(descriptor.address(5), "el")


def test_a_descriptor_that_could_spend_is_refused_and_not_repeated():
    master = wally.bip32_key_from_seed(SEED, wally.BIP32_VER_TEST_PRIVATE, 0)
    private = wally.bip32_key_to_base58(master, wally.BIP32_FLAG_KEY_PRIVATE)
    with pytest.raises(ValueError, match="private key") as refused:
        WatchOnlyDescriptor(f"ct(slip77({'ab' * 32}),elwpkh({private}/<0;1>/*))", LIQUID_REGTEST)
    assert private not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.replace("ct(slip77(", "ct(slip78("),
        TEXT[:-1] + ("q" if TEXT[-1] != "q" else "p"),
        TEXT.partition("#")[0].replace("/<0;1>/*", "/0/1"),
        f"elwpkh({'02' * 33})",
    ],
)
def test_a_descriptor_that_is_not_one_per_payment_is_refused(text: str):
    with pytest.raises(ValueError, match="descriptor"):
        WatchOnlyDescriptor(text, LIQUID_REGTEST)


def test_test_keys_are_refused_on_the_real_network():
    with pytest.raises(ValueError, match="for liquid"):
        WatchOnlyDescriptor(TEXT, LIQUID)


@pytest.mark.parametrize("index", [-1, MAX_INDEX + 1])
def test_an_index_is_never_hardened(descriptor: WatchOnlyDescriptor, index: int):
    with pytest.raises(ValueError, match="index"):
        descriptor.script(index)


def paid(descriptor: WatchOnlyDescriptor, *, explicit: bool = False, claimed: bytes | None = None) -> Output:
    """Output 0 of a transaction that pays the descriptor's first address 1,000 units."""
    script = descriptor.script(1)
    public = bytes(wally.ec_public_key_from_private_key(descriptor.blinding_key(script)))
    spend = Spend(
        txid="ab" * 32,
        vout=0,
        script=ANYONE_CAN_SPEND,
        value_bytes=bytes(wally.tx_confidential_value_from_satoshi(10_000)),
        secret=Secret(asset=LBTC, value=10_000),
        private_key=None,
    )
    targets = [
        Target(
            script=script,
            asset=LBTC,
            value=1_000,
            blinding_public_key=None if explicit else public,
            claimed_asset=claimed,
        ),
        *(Target(script=script, asset=LBTC, value=4_450, blinding_public_key=public) for _ in range(2)),
    ]
    built = build([spend], targets, 100, secrets.token_bytes)
    return next(outputs(built.raw))


@pytest.mark.parametrize("explicit", [False, True])
def test_what_is_ours_is_seen(descriptor: WatchOnlyDescriptor, explicit: bool):
    output = paid(descriptor, explicit=explicit)
    assert unblind(output, descriptor.blinding_key(output.script)) == Content(LBTC_ASSET, 1_000)


def test_another_key_sees_nothing(descriptor: WatchOnlyDescriptor):
    assert unblind(paid(descriptor), b"\x09" * 32) is None


def test_a_claim_of_another_asset_is_not_believed(descriptor: WatchOnlyDescriptor):
    output = paid(descriptor, claimed=OTHER)
    assert unblind(output, descriptor.blinding_key(output.script)) is None


@pytest.mark.parametrize("part", ["rangeproof", "nonce", "value", "asset"])
def test_a_damaged_output_is_nothing_and_no_fault(descriptor: WatchOnlyDescriptor, part: str):
    output = paid(descriptor)
    key = descriptor.blinding_key(output.script)
    damaged = bytearray(getattr(output, part))
    damaged[-1] ^= 1
    # The end of a range proof is not covered by rewinding it; its beginning and the rest are.
    if part == "rangeproof":
        damaged[20] ^= 1
    assert unblind(replace(output, **{part: bytes(damaged)}), key) is None
    assert unblind(replace(output, **{part: b""}), key) is None


def test_bytes_that_are_no_transaction_are_refused():
    with pytest.raises(ValueError):
        list(outputs(b"\x02\x00"))
