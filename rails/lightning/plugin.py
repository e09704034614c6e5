"""The rail's entry point: settings from the environment, and nothing else global."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from rails.configuration import READABLE, Setting, When, given, matching, one_of, real_network, require, whole
from rails.configuration_values import is_random
from rails.contract import Rail, RailContext
from rails.lightning.channels import Channels
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import (
    CHANNEL_METHODS,
    INVOICE_METHODS,
    KEY_BYTES,
    REFUND_METHODS,
    CredentialFiles,
    Preimages,
    read_preimage_key,
    too_broad,
)
from rails.lightning.lookups import Lookups, PublicWeb
from rails.lightning.lookups import client as web_client
from rails.lightning.rail import LightningRail, Settings
from rails.lightning.refunds import Payouts, RefundingLightningRail
from rails.lightning.throttle import Throttle

INVOICES_PER_SECOND = 20
INVOICES_AT_ONCE = 100
WAIT_MS_MAX = 5_000
_NETWORKS = ("mainnet", "testnet", "testnet4", "signet", "regtest")
_NODE = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")
_NEEDS_NODE = "LND_GRPC_ADDRESS"
SETTINGS = (
    Setting(
        name="LND_GRPC_ADDRESS",
        required=When.ALWAYS,
        rules=(matching("no_address", "be written host:port", lambda value: bool(_NODE.fullmatch(value))),),
    ),
    Setting(name="LND_TLS_CERT", required=When.ALWAYS, only_with=_NEEDS_NODE, rules=(READABLE,)),
    Setting(name="LND_MACAROON", required=When.ALWAYS, only_with=_NEEDS_NODE, rules=(READABLE,)),
    Setting(name="LND_REFUND_MACAROON", rules=(READABLE,)),
    Setting(name="LND_CHANNELS_MACAROON", rules=(READABLE,)),
    Setting(
        name="LIGHTNING_PREIMAGE_KEY",
        required=When.PRODUCTION,
        only_with=_NEEDS_NODE,
        rules=(
            matching(
                "file_not_readable",
                "name a file that can be read, and this one cannot be read",
                lambda path: bool(Path(path).read_bytes()),
                when=When.PRODUCTION,
            ),
            matching(
                "no_key",
                f"hold {KEY_BYTES} bytes or more in hex",
                lambda path: len(bytes.fromhex(Path(path).read_text().strip())) >= KEY_BYTES,
                when=When.PRODUCTION,
            ),
            matching(
                "secret_not_random",
                "hold random bytes: these repeat themselves or count",
                lambda path: is_random(bytes.fromhex(Path(path).read_text().strip())),
                when=When.PRODUCTION,
            ),
            matching(
                "file_open_to_others",
                "be a file that only its owner and group can read (chmod 600)",
                lambda path: not Path(path).stat().st_mode & 0o007,
                when=When.PRODUCTION,
            ),
        ),
    ),
    Setting(name="LIGHTNING_NETWORK", rules=(one_of(*_NETWORKS), real_network("mainnet"))),
    Setting(name="LIGHTNING_PRIVATE_HINTS", rules=(one_of("0", "1", "true", "false", "yes", "no"),)),
    Setting(name="LIGHTNING_HOLD_CLTV_DELTA", rules=(whole(40, 1000),)),
    Setting(name="LIGHTNING_MAXIMUM_MSAT", rules=(whole(1_000, 10**14),)),
)


class LightningPlugin:
    """Builds the Lightning rail from `LND_*` and `LIGHTNING_*`."""

    name = "lightning"
    settings = SETTINGS

    def configured(self, environ: Mapping[str, str]) -> bool:
        """Whether a node's address is given."""
        return bool(environ.get("LND_GRPC_ADDRESS"))

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        """Build the rail; connects to nothing. Raises `ValueError` with one clear sentence."""
        require(SETTINGS, environ, production=context.production)
        environ = given(environ)
        certificate = Path(environ["LND_TLS_CERT"])
        files = CredentialFiles(
            certificate, Path(environ["LND_MACAROON"]), INVOICE_METHODS, strict=context.production
        )
        _check_macaroon("LND_MACAROON", files.macaroon, INVOICE_METHODS, production=context.production)
        key_path = Path(environ.get("LIGHTNING_PREIMAGE_KEY") or files.macaroon.with_name("preimage.key"))
        preimages = Preimages(read_preimage_key(key_path, create=not context.production))
        throttle = Throttle(
            per_second=INVOICES_PER_SECOND,
            burst=INVOICES_AT_ONCE,
            wait_ms_max=WAIT_MS_MAX,
            monotonic_ns=time.monotonic_ns,
        )
        address = environ["LND_GRPC_ADDRESS"]
        client = LndClient(Connection(address, files))
        settings = _settings(environ, context)
        channels = _channels(environ, address, certificate, production=context.production)
        refund_path = environ.get("LND_REFUND_MACAROON")
        if not refund_path:
            return LightningRail(client, preimages, throttle, context.clock, settings, channels)
        refund_files = CredentialFiles(
            certificate, Path(refund_path), REFUND_METHODS, strict=context.production
        )
        _check_macaroon(
            "LND_REFUND_MACAROON", refund_files.macaroon, REFUND_METHODS, production=context.production
        )
        plain_http = not context.production
        web = PublicWeb(web_client(), plain_http=plain_http)
        payouts = Payouts(Connection(address, refund_files), Lookups(web), plain_http=plain_http)
        return RefundingLightningRail(
            client, preimages, throttle, context.clock, settings, channels, payouts=payouts
        )


plugin = LightningPlugin()


def _channels(
    environ: Mapping[str, str], address: str, certificate: Path, *, production: bool
) -> Channels | None:
    """What can arrive is watched only with a credential for it."""
    path = environ.get("LND_CHANNELS_MACAROON")
    if not path:
        return None
    files = CredentialFiles(certificate, Path(path), CHANNEL_METHODS, strict=production)
    _check_macaroon("LND_CHANNELS_MACAROON", files.macaroon, CHANNEL_METHODS, production=production)
    return Channels(Connection(address, files))


def _settings(environ: Mapping[str, str], context: RailContext) -> Settings:
    return Settings(
        production=context.production,
        network=environ.get("LIGHTNING_NETWORK", "mainnet"),
        private_hints=environ.get("LIGHTNING_PRIVATE_HINTS", "") in {"1", "true", "yes"},
        hold_cltv_delta=int(environ.get("LIGHTNING_HOLD_CLTV_DELTA", "80")),
        maximum_msat=int(environ.get("LIGHTNING_MAXIMUM_MSAT", "4000000000")),
    )


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
