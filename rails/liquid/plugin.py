"""The Liquid rail's entry point: settings from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from ledger.money import LBTC, USDT, Asset
from rails.contract import Rail, RailContext
from rails.liquid.bindings import keep_bindings
from rails.liquid.chain import ChainSource
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.elementsd import ElementsdChain
from rails.liquid.esplora import EsploraChain
from rails.liquid.networks import LIQUID_REGTEST, NETWORKS, Network
from rails.liquid.rail import NAME, LiquidRail, LiquidSettings

_TIMEOUT_SECONDS: Final = 10
_DEFAULT_PASSWORDS: Final = frozenset({"", "sandbox", "password", "rpcpassword"})


class LiquidPlugin:
    """`RailPlugin`. Settings: `LIQUID_NETWORK`, `LIQUID_DESCRIPTOR`, `ELEMENTS_RPC_URL` or `ESPLORA_URL`,
    `LIQUID_USDT_ASSET`, `LIQUID_LBTC_ASSET`, `LIQUID_CONFIRMATIONS`, `LIQUID_POLL_SECONDS`."""

    name = NAME

    def configured(self, environ: Mapping[str, str]) -> bool:
        """With a descriptor and a way to read the chain."""
        source = environ.get("ELEMENTS_RPC_URL") or environ.get("ESPLORA_URL")
        return bool(source and environ.get("LIQUID_DESCRIPTOR"))

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        """Build the rail; connects to nothing yet. Raises `ValueError` with one sentence."""
        keep_bindings()
        network = _network(environ.get("LIQUID_NETWORK", "liquid"))
        if context.production and network is LIQUID_REGTEST:
            raise ValueError("LIQUID_NETWORK is liquidregtest: production does not take coins of a sandbox")
        settings = LiquidSettings(
            network=network,
            assets=_assets(environ, network),
            confirmations=_whole(environ, "LIQUID_CONFIRMATIONS", 2, 1, 100),
            interval_seconds=_seconds(environ.get("LIQUID_POLL_SECONDS", "0.5")),
            tip_age_max=None if network is LIQUID_REGTEST else timedelta(minutes=15),
        )
        descriptor = _descriptor(environ["LIQUID_DESCRIPTOR"], network)
        chain = _chain(environ, production=context.production)
        return LiquidRail(settings, descriptor, chain, context.references, context.clock)


def _network(name: str) -> Network:
    if name not in NETWORKS:
        raise ValueError(f"LIQUID_NETWORK must be one of {', '.join(NETWORKS)}, not {name!r}")
    return NETWORKS[name]


def _assets(environ: Mapping[str, str], network: Network) -> dict[str, Asset]:
    usdt = environ.get("LIQUID_USDT_ASSET") or network.usdt_asset
    lbtc = environ.get("LIQUID_LBTC_ASSET") or network.lbtc_asset
    assets = {**({usdt: USDT} if usdt else {}), lbtc: LBTC}
    for asset_id in assets:
        if len(asset_id) != 64 or not set(asset_id) <= set("0123456789abcdef"):
            raise ValueError("LIQUID_USDT_ASSET and LIQUID_LBTC_ASSET are 64 lower-case hexadecimal digits")
    if len(assets) == 1 and usdt:
        raise ValueError("LIQUID_USDT_ASSET and LIQUID_LBTC_ASSET name the same asset")
    return assets


def _descriptor(path: str, network: Network) -> WatchOnlyDescriptor:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"LIQUID_DESCRIPTOR cannot be read: {error.strerror}") from error
    return WatchOnlyDescriptor(text, network)


def _chain(environ: Mapping[str, str], *, production: bool) -> ChainSource:
    url = environ.get("ELEMENTS_RPC_URL")
    if not url:
        base = environ["ESPLORA_URL"].rstrip("/")
        return EsploraChain(httpx.AsyncClient(base_url=base, timeout=_TIMEOUT_SECONDS))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("ELEMENTS_RPC_URL must look like http://user:password@host:port")
    if production and (parts.password or "") in _DEFAULT_PASSWORDS:
        raise ValueError("ELEMENTS_RPC_URL has no password or a well-known one")
    # The credentials are kept out of the URL, which error messages may show.
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    base = urlunsplit((parts.scheme, host, parts.path, "", ""))
    auth = httpx.BasicAuth(parts.username or "", parts.password or "")
    return ElementsdChain(httpx.AsyncClient(base_url=base, auth=auth, timeout=_TIMEOUT_SECONDS))


def _whole(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.05 <= seconds <= 60:
        raise ValueError("LIQUID_POLL_SECONDS is a number from 0.05 to 60")
    return seconds


plugin = LiquidPlugin()
