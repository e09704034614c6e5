"""The rail's entry point: settings from the environment, and nothing else global."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from rails.contract import Rail, RailContext
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import (
    INVOICE_METHODS,
    REFUND_METHODS,
    CredentialFiles,
    Preimages,
    read_preimage_key,
    too_broad,
)
from rails.lightning.rail import LightningRail, Settings
from rails.lightning.refunds import Payouts, RefundingLightningRail
from rails.lightning.throttle import Throttle

INVOICES_PER_SECOND = 20
INVOICES_AT_ONCE = 100
PATIENCE_MS = 5_000
_NETWORKS = {"mainnet", "testnet", "testnet4", "signet"}


class LightningPlugin:
    """Builds the Lightning rail from `LND_*` and `LIGHTNING_*`."""

    name = "lightning"

    def configured(self, environ: Mapping[str, str]) -> bool:
        """Whether a node's address is given."""
        return bool(environ.get("LND_GRPC_ADDRESS"))

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        """Build the rail; connects to nothing. Raises `ValueError` with one clear sentence."""
        certificate = Path(_required(environ, "LND_TLS_CERT"))
        files = CredentialFiles(certificate, Path(_required(environ, "LND_MACAROON")))
        _check_macaroon("LND_MACAROON", files.macaroon, INVOICE_METHODS, production=context.production)
        key_path = Path(environ.get("LIGHTNING_PREIMAGE_KEY") or _default_key(files, context))
        preimages = Preimages(read_preimage_key(key_path, create=not context.production))
        throttle = Throttle(
            per_second=INVOICES_PER_SECOND,
            burst=INVOICES_AT_ONCE,
            patience_ms=PATIENCE_MS,
            monotonic_ns=time.monotonic_ns,
        )
        address = _required(environ, "LND_GRPC_ADDRESS")
        client = LndClient(Connection(address, files))
        settings = _settings(environ, context)
        refund_path = environ.get("LND_REFUND_MACAROON")
        if not refund_path:
            return LightningRail(client, preimages, throttle, context.clock, settings)
        refund_files = CredentialFiles(certificate, Path(refund_path))
        _check_macaroon(
            "LND_REFUND_MACAROON", refund_files.macaroon, REFUND_METHODS, production=context.production
        )
        payouts = Payouts(Connection(address, refund_files))
        return RefundingLightningRail(client, preimages, throttle, context.clock, settings, payouts=payouts)


plugin = LightningPlugin()


def _settings(environ: Mapping[str, str], context: RailContext) -> Settings:
    network = environ.get("LIGHTNING_NETWORK") or "mainnet"
    if network not in _NETWORKS:
        raise ValueError(f"LIGHTNING_NETWORK must be one of {', '.join(sorted(_NETWORKS))}")
    return Settings(
        production=context.production,
        network=network,
        private_hints=environ.get("LIGHTNING_PRIVATE_HINTS", "") in {"1", "true", "yes"},
        hold_cltv_delta=_integer(environ, "LIGHTNING_HOLD_CLTV_DELTA", 80, least=40, most=1000),
        maximum_msat=_integer(environ, "LIGHTNING_MAXIMUM_MSAT", 4_000_000_000, least=1_000, most=10**14),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ValueError(f"{name} is missing: the Lightning rail needs it")
    return value


def _integer(environ: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _default_key(files: CredentialFiles, context: RailContext) -> Path:
    if context.production:
        raise ValueError("LIGHTNING_PREIMAGE_KEY is missing: a file with 32 random bytes in hex")
    return files.macaroon.with_name("preimage.key")


def _check_macaroon(name: str, path: Path, methods: frozenset[str], *, production: bool) -> None:
    """In production a macaroon must be readable and allow no more than it should; else a warning."""
    try:
        beyond = too_broad(path.read_bytes(), methods)
    except (OSError, ValueError) as error:
        if production:
            raise ValueError(f"{name}: {path} is not a readable macaroon of LND") from error
        return
    if not beyond:
        return
    if production:
        raise ValueError(
            f"{name} allows more than it should ({', '.join(beyond[:5])} …): bake one for the needed calls only"
        )
    structlog.get_logger().warning("lightning_macaroon_too_broad", setting=name)
