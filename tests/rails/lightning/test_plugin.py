"""The entry point: what it accepts, and what production refuses."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ledger.clock import system_clock
from rails.contract import RailContext, RailPlugin, Refunds
from rails.lightning.plugin import plugin
from rails.testing.memory_references import MemoryReferences
from sandbox.lnd.service import describe
from sandbox.service import TcpReady
from tests.rails.lightning.node import SandboxNode


def context(*, production: bool = False) -> RailContext:
    return RailContext(clock=system_clock, references=MemoryReferences(), production=production)


def environment(node: SandboxNode) -> dict[str, str]:
    return {
        "LND_GRPC_ADDRESS": node.address,
        "LND_TLS_CERT": str(node.folder / "tls.cert"),
        "LND_MACAROON": str(node.folder / "invoices.macaroon"),
        "LIGHTNING_PREIMAGE_KEY": str(node.folder / "preimage.key"),
    }


def test_the_entry_point_is_a_plugin() -> None:
    point = EntryPoint("lightning", "rails.lightning.plugin:plugin", "llamasketch.rails")
    loaded: RailPlugin = point.load()
    assert loaded.name == "lightning"


def test_without_an_address_the_rail_is_absent() -> None:
    assert not plugin.configured({})
    assert plugin.configured({"LND_GRPC_ADDRESS": "127.0.0.1:10009"})


async def test_it_builds_a_rail_that_works(node: SandboxNode) -> None:
    rail = plugin.build(environment(node), context())
    assert (await rail.health()).ok
    assert not isinstance(rail, Refunds)
    await rail.close()


async def test_with_a_refund_macaroon_it_can_refund(node: SandboxNode) -> None:
    more = {"LND_REFUND_MACAROON": str(node.folder / "refunds.macaroon")}
    rail = plugin.build(environment(node) | more, context())
    assert isinstance(rail, Refunds)
    assert (await rail.health()).ok
    await rail.close()


@pytest.mark.parametrize("missing", ["LND_TLS_CERT", "LND_MACAROON"])
def test_a_missing_setting_is_named(node: SandboxNode, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        plugin.build(environment(node) | {missing: ""}, context())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIGHTNING_HOLD_CLTV_DELTA", "18"),
        ("LIGHTNING_HOLD_CLTV_DELTA", "soon"),
        ("LIGHTNING_MAXIMUM_MSAT", "-1"),
        ("LIGHTNING_NETWORK", "moonnet"),
    ],
)
def test_a_setting_out_of_range_is_named(node: SandboxNode, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        plugin.build(environment(node) | {name: value}, context())


def test_production_refuses_an_admin_macaroon(node: SandboxNode) -> None:
    settings = environment(node) | {"LND_MACAROON": str(node.folder / "admin.macaroon")}
    with pytest.raises(ValueError, match="LND_MACAROON allows more than it should"):
        plugin.build(settings, context(production=True))


def test_production_refuses_to_refund_with_the_admin_macaroon(node: SandboxNode) -> None:
    settings = environment(node) | {"LND_REFUND_MACAROON": str(node.folder / "admin.macaroon")}
    with pytest.raises(ValueError, match="LND_REFUND_MACAROON allows more"):
        plugin.build(settings, context(production=True))


def test_production_makes_no_key_by_itself(node: SandboxNode, tmp_path: Path) -> None:
    settings = environment(node) | {"LIGHTNING_PREIMAGE_KEY": ""}
    with pytest.raises(ValueError, match="LIGHTNING_PREIMAGE_KEY is missing"):
        plugin.build(settings, context(production=True))
    settings = environment(node) | {"LIGHTNING_PREIMAGE_KEY": str(tmp_path / "none")}
    with pytest.raises(ValueError, match="cannot be read"):
        plugin.build(settings, context(production=True))


async def test_production_stays_closed_on_a_sandbox_node(node: SandboxNode) -> None:
    rail = plugin.build(environment(node), context(production=True))
    health = await rail.health()
    assert not health.ok
    assert "regtest" in health.detail
    await rail.close()


async def test_the_supervisors_description_fits_the_plugin(tmp_path: Path) -> None:
    def port(name: str) -> int:
        return {"lnd": 21009, "lnd-control": 21010}[name]

    service = describe(tmp_path, port)
    assert service.ready == TcpReady(21009)
    assert plugin.configured(service.environment)
    rail = plugin.build(service.environment, context())
    assert isinstance(rail, Refunds)
    assert not (await rail.health()).ok  # nothing runs there, and that is no exception
    await rail.close()
