"""The rail is built from the environment, or says in one sentence why not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ledger.clock import system_clock
from ledger.money import LBTC, USDT
from rails.contract import Rail, RailContext, RailProtocolError
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.networks import LIQUID, LIQUID_REGTEST, Network
from rails.liquid.plugin import plugin
from rails.liquid.rail import LiquidRail, LiquidSettings
from rails.testing.memory_references import MemoryReferences
from sandbox.elementsd.treasury import watch_only_descriptor
from tests.rails.liquid.outside import LiquidWorld, Till, an_order
from tests.rails.liquid.quiet import QuietChain
from tests.waiting import until

XPUB_DESCRIPTOR = (
    "ct(slip77(9c8e4f05c7711a98c838be228bcb84924d4570ca53f35fa1c793e58841d47023),"
    "elwpkh([73c5da0a/84h/1776h/0h]xpub6CRFzUgHFDaiDAQFNX7VeV9JNPDRabq6NYSpzVZ8zW8ANUCiDdenkb1gBoEZuXNZb3"
    "wPc1SVcDXgD2ww5UBtTb8s8ArAbTkoRQ8qn34KgcY/<0;1>/*))"
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    descriptor = tmp_path / "descriptor"
    descriptor.write_text(XPUB_DESCRIPTOR + "\n")
    return {
        "ELEMENTS_RPC_URL": "http://rail:a-long-password@node.internal:7041",
        "LIQUID_NETWORK": "liquid",
        "LIQUID_DESCRIPTOR": str(descriptor),
    }


def build(environ: Mapping[str, str], *, production: bool = True) -> Rail:
    context = RailContext(clock=system_clock, references=MemoryReferences(), production=production)
    return plugin.build(environ, context)


def test_it_is_configured_by_a_descriptor_and_a_way_to_read_the_chain(environ: dict[str, str]):
    assert plugin.configured(environ)
    assert plugin.configured({"ESPLORA_URL": "https://x", "LIQUID_DESCRIPTOR": "y"})
    for name in ("ELEMENTS_RPC_URL", "LIQUID_DESCRIPTOR"):
        assert not plugin.configured({key: value for key, value in environ.items() if key != name})


def test_its_entry_point_is_the_one_named():
    entry = EntryPoint(name="liquid", value="rails.liquid.plugin:plugin", group="llamasketch.rails")
    assert entry.load().name == "liquid"


async def test_production_takes_usdt_and_lbtc_of_the_real_network(environ: dict[str, str]):
    rail = build(environ)
    assert rail.capabilities.assets == (USDT, LBTC)
    await rail.close()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"LIQUID_NETWORK": "liquidregtest"}, "production"),
        ({"LIQUID_NETWORK": "bitcoin"}, "LIQUID_NETWORK"),
        ({"ELEMENTS_RPC_URL": "http://sandbox:sandbox@node:1"}, "password"),
        ({"ELEMENTS_RPC_URL": "http://node:1"}, "password"),
        ({"ELEMENTS_RPC_URL": "node:1"}, "ELEMENTS_RPC_URL"),
        ({"LIQUID_DESCRIPTOR": "/nowhere/at/all"}, "LIQUID_DESCRIPTOR"),
        ({"LIQUID_CONFIRMATIONS": "0"}, "LIQUID_CONFIRMATIONS"),
        ({"LIQUID_POLL_SECONDS": "never"}, "LIQUID_POLL_SECONDS"),
        ({"LIQUID_USDT_ASSET": "USDT"}, "LIQUID_USDT_ASSET"),
        ({"LIQUID_USDT_ASSET": LIQUID.lbtc_asset}, "real network"),
        ({"LIQUID_NETWORK": "liquidtestnet"}, "LIQUID_NETWORK"),
        ({"LIQUID_CONFIRMATIONS": "1"}, "from 2"),
        ({"ELEMENTS_RPC_URL": "http://rail:a-long-password@node.example.com:7041"}, "TLS"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(
    environ: dict[str, str], change: dict[str, str], sentence: str
):
    with pytest.raises(ValueError, match=sentence) as refused:
        build(environ | change)
    assert "\n" not in str(refused.value)
    assert "a-long-password" not in str(refused.value)


async def test_the_real_network_has_its_own_addresses_and_uris(environ: dict[str, str]):
    rail = quiet_rail(LIQUID, WatchOnlyDescriptor(XPUB_DESCRIPTOR, LIQUID))
    instructions = await rail.open(an_order(rail, 1))
    assert str(instructions.text).startswith("lq1qq")
    assert str(instructions.uri).startswith("liquidnetwork:lq1qq")
    assert f"&assetid={LIQUID.usdt_asset}" in str(instructions.uri)
    await rail.close()


def quiet_rail(
    network: Network, descriptor: WatchOnlyDescriptor, chain: QuietChain | None = None
) -> LiquidRail:
    assets = {str(network.usdt_asset): USDT, network.lbtc_asset: LBTC}
    settings = LiquidSettings(network=network, assets=assets)
    return LiquidRail(settings, descriptor, chain or QuietChain(), MemoryReferences(), system_clock)


@pytest.mark.parametrize(
    ("chain", "word"),
    [
        (QuietChain(chain="liquidtestnet"), "liquidtestnet"),
        (QuietChain(syncing=True), "catching up"),
        (QuietChain(genesis="ab" * 32), "another chain"),
        (QuietChain(newest=datetime.now(UTC) - timedelta(hours=1)), "seconds old"),
        (QuietChain(down=True), "quiet"),
    ],
)
async def test_an_unfit_node_closes_the_rail_with_a_reason(chain: QuietChain, word: str):
    rail = quiet_rail(LIQUID, WatchOnlyDescriptor(XPUB_DESCRIPTOR, LIQUID), chain)
    health = await rail.health()
    assert not health.ok
    assert word in health.detail
    await rail.close()


async def test_what_is_not_taken_is_not_opened(till: Till, world: LiquidWorld):
    with pytest.raises(RailProtocolError, match="not taken"):
        await till.ask(asset=world.foreign_asset)
    with pytest.raises(RailProtocolError, match="reference"):
        await till.rail.observe("not hexadecimal")


async def test_a_node_with_another_password_is_unavailable(world: LiquidWorld):
    url = world.environ["ELEMENTS_RPC_URL"].replace("sandbox:sandbox", "sandbox:wrong")
    rail = build({**world.environ, "ELEMENTS_RPC_URL": url}, production=False)
    refused = "elementsd refuses our credentials"
    health = await until(rail.health, lambda health: health.detail == refused, "the node has answered")
    assert not health.ok
    await rail.close()


async def test_a_password_in_the_address_may_be_written_with_percent_signs(world: LiquidWorld):
    url = world.environ["ELEMENTS_RPC_URL"].replace("sandbox:sandbox", "%73andbox:s%61ndbox")
    rail = build({**world.environ, "ELEMENTS_RPC_URL": url}, production=False)
    health = await rail.health()
    assert health.ok, health.detail
    await rail.close()


def test_regtest_descriptors_are_made_once_per_sandbox():
    assert (
        WatchOnlyDescriptor(watch_only_descriptor(b"\x01" * 32), LIQUID_REGTEST)
        .address(1)
        .startswith("el1qq")
    )
