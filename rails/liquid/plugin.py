"""The Liquid rail's entry point: settings from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from ledger.money import LBTC, USDT, Asset
from rails.configuration import (
    NO_LOGIN,
    PASSWORD_GIVEN,
    PASSWORD_NOT_KNOWN,
    READABLE,
    TLS_OUTSIDE,
    Setting,
    When,
    given,
    matching,
    number,
    real_network,
    require,
    url,
    whole,
)
from rails.contract import Rail, RailContext
from rails.liquid.bindings import keep_bindings
from rails.liquid.chain import ChainSource
from rails.liquid.comparing import ComparedChain
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.elementsd import ElementsdChain
from rails.liquid.esplora import EsploraChain
from rails.liquid.networks import LIQUID, LIQUID_REGTEST, NETWORKS, Network
from rails.liquid.rail import NAME, LiquidRail, LiquidSettings

_TIMEOUT_SECONDS: Final = 10


def _is_asset_id(value: str) -> bool:
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def _asset(name: str, known: str | None) -> Setting:
    # Coins of another asset would be credited as if they were these.
    return Setting(
        name=name,
        rules=(
            matching("no_asset_id", "be 64 lower-case hexadecimal digits", _is_asset_id),
            matching(
                "foreign_asset",
                "be unset, or the asset of the real network",
                lambda value: value == known,
                when=When.PRODUCTION,
            ),
        ),
    )


SETTINGS: Final = (
    Setting(
        name="ELEMENTS_RPC_URL",
        rules=(url("https", "http", bare=False), PASSWORD_GIVEN, PASSWORD_NOT_KNOWN, TLS_OUTSIDE),
    ),
    Setting(name="ESPLORA_URL", rules=(url("https", "http"), NO_LOGIN, TLS_OUTSIDE)),
    Setting(
        name="LIQUID_NETWORK",
        rules=(
            matching(
                "unknown_value",
                f"be one of {', '.join(NETWORKS)}",
                lambda value: value in NETWORKS,
            ),
            real_network(LIQUID.name),
        ),
    ),
    Setting(name="LIQUID_DESCRIPTOR", rules=(READABLE,)),
    _asset("LIQUID_USDT_ASSET", LIQUID.usdt_asset),
    _asset("LIQUID_LBTC_ASSET", LIQUID.lbtc_asset),
    Setting(name="LIQUID_CONFIRMATIONS", rules=(whole(1, 100), whole(2, 100, when=When.PRODUCTION))),
    Setting(name="LIQUID_POLL_SECONDS", rules=(number("0.05", "60"),)),
)


class LiquidPlugin:
    """`RailPlugin`. Settings: `LIQUID_NETWORK`, `LIQUID_DESCRIPTOR`, `ELEMENTS_RPC_URL` or `ESPLORA_URL` (or both),
    `LIQUID_USDT_ASSET`, `LIQUID_LBTC_ASSET`, `LIQUID_CONFIRMATIONS`, `LIQUID_POLL_SECONDS`."""

    name = NAME
    settings = SETTINGS

    def configured(self, environ: Mapping[str, str]) -> bool:
        """With a descriptor and a way to read the chain."""
        source = environ.get("ELEMENTS_RPC_URL") or environ.get("ESPLORA_URL")
        return bool(source and environ.get("LIQUID_DESCRIPTOR"))

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        """Build the rail; connects to nothing yet. Raises `ValueError` with one sentence."""
        keep_bindings()
        require(SETTINGS, environ, production=context.production)
        environ = given(environ)
        network = NETWORKS[environ.get("LIQUID_NETWORK", "liquid")]
        settings = LiquidSettings(
            network=network,
            assets=_assets(environ, network),
            confirmations=int(environ.get("LIQUID_CONFIRMATIONS", "2")),
            interval_seconds=float(environ.get("LIQUID_POLL_SECONDS", "0.5")),
            tip_age_max=None if network is LIQUID_REGTEST else timedelta(minutes=15),
        )
        descriptor = _descriptor(environ["LIQUID_DESCRIPTOR"], network)
        chain = _chain(environ, settings.confirmations)
        return LiquidRail(settings, descriptor, chain, context.references, context.clock)


def _assets(environ: Mapping[str, str], network: Network) -> dict[str, Asset]:
    usdt = environ.get("LIQUID_USDT_ASSET") or network.usdt_asset
    lbtc = environ.get("LIQUID_LBTC_ASSET") or network.lbtc_asset
    assets = {**({usdt: USDT} if usdt else {}), lbtc: LBTC}
    if len(assets) == 1 and usdt:
        raise ValueError("LIQUID_USDT_ASSET and LIQUID_LBTC_ASSET name the same asset")
    return assets


def _descriptor(path: str, network: Network) -> WatchOnlyDescriptor:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"LIQUID_DESCRIPTOR cannot be read: {error.strerror}") from error
    return WatchOnlyDescriptor(text, network)


def _chain(environ: Mapping[str, str], confirmations: int) -> ChainSource:
    """The one that is named; where both are, elementsd is read, and Esplora has to agree."""
    rpc, esplora = environ.get("ELEMENTS_RPC_URL"), environ.get("ESPLORA_URL")
    if rpc and esplora:
        return ComparedChain(_elementsd(rpc), _esplora(esplora), confirmations=confirmations)
    return _elementsd(rpc) if rpc else _esplora(environ["ESPLORA_URL"])


def _esplora(url: str) -> EsploraChain:
    return EsploraChain(httpx.AsyncClient(base_url=url.rstrip("/"), timeout=_TIMEOUT_SECONDS))


def _elementsd(url: str) -> ElementsdChain:
    parts = urlsplit(url)
    # The credentials are kept out of the URL, which error messages may show.
    host = parts.netloc.rpartition("@")[2]
    base = urlunsplit((parts.scheme, host, parts.path, "", ""))
    auth = httpx.BasicAuth(unquote(parts.username or ""), unquote(parts.password or ""))
    return ElementsdChain(httpx.AsyncClient(base_url=base, auth=auth, timeout=_TIMEOUT_SECONDS))


plugin = LiquidPlugin()
