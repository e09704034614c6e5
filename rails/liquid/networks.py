"""The Liquid networks: names, address prefixes, assets. Constants only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import wallycore as wally


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One Liquid network."""

    name: str
    wally_id: int
    node_chain: str
    """What elementsd's `getblockchaininfo` calls it."""
    genesis: str | None
    """The hash of its first block; None where each network has one of its own."""
    uri_scheme: str
    lbtc_asset: str
    usdt_asset: str | None
    """None where no USDT is known: settings must name it."""


LIQUID: Final = Network(
    name="liquid",
    wally_id=wally.WALLY_NETWORK_LIQUID,
    node_chain="liquidv1",
    genesis="1466275836220db2944ca059a3a10ef6fd2ea684b0688d2c379296888a206003",
    uri_scheme="liquidnetwork",
    lbtc_asset="6f0279e9ed041c3d710a9f57d0c02928416460c4b722ae3457a11eec381c526d",
    usdt_asset="ce091c998b83c78bb71a632313ba3760f1763d9cfcffae02258ffa9865a37bd2",
)
LIQUID_TESTNET: Final = Network(
    name="liquidtestnet",
    wally_id=wally.WALLY_NETWORK_LIQUID_TESTNET,
    node_chain="liquidtestnet",
    genesis="a771da8e52ee6ad581ed1e9a99825e5b3b7992225534eaa2ae23244fe26ab1c1",
    uri_scheme="liquidtestnet",
    lbtc_asset="144c654344aa716d6f3abcc1ca90e5641e4e2a7f633bc09fe3baf64585819a49",
    usdt_asset=None,
)
# Wallets disagree about regtest (GDK: `liquidnetwork` or `liquidregtestnetwork`); lwk, which also
# Aqua builds on, reads a regtest address under `liquidtestnet:` only.
LIQUID_REGTEST: Final = Network(
    name="liquidregtest",
    wally_id=wally.WALLY_NETWORK_LIQUID_REGTEST,
    node_chain="liquidregtest",
    genesis=None,
    uri_scheme="liquidtestnet",
    lbtc_asset="5ac9f65c0efcc4775e0baec4ec03abdde22473cd3cf33c0419ca290e0751b225",
    usdt_asset=None,
)
NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {network.name: network for network in (LIQUID, LIQUID_TESTNET, LIQUID_REGTEST)}
)
