"""The entry point of the card rail: reads the environment, refuses what is unsafe, builds the rail."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import stripe

from rails.contract import RailContext
from rails.stripe.calls import API_VERSION, StripeCalls
from rails.stripe.hints import WebhookRules
from rails.stripe.rail import CardRail
from rails.stripe.transport import HttpxTransport

STRIPE_API = "https://api.stripe.com"
DEADLINE_SECONDS = 20.0
PHASE_SECONDS = 8.0
POLL_SECONDS = 30.0
NETWORK_RETRIES = 2
_LIVE = ("sk_live_", "rk_live_")
_TEST = ("sk_test_", "rk_test_")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CardPlugin:
    """`STRIPE_SECRET_KEY`, `STRIPE_WEBHOOK_SECRET`, and `STRIPE_API_BASE` for a stand-in.

    `STRIPE_POLL_SECONDS` (30) is how often the event list is read behind the webhooks.
    """

    name = "card"

    def configured(self, environ: Mapping[str, str]) -> bool:
        """Whether there is a key."""
        return bool(environ.get("STRIPE_SECRET_KEY", "").strip())

    def build(self, environ: Mapping[str, str], context: RailContext) -> CardRail:
        """Build the rail. Raises `ValueError` with one clear sentence on bad configuration."""
        base = environ.get("STRIPE_API_BASE", "").strip().rstrip("/") or STRIPE_API
        key = environ.get("STRIPE_SECRET_KEY", "").strip()
        secret = environ.get("STRIPE_WEBHOOK_SECRET", "").strip()
        _check(base, key, secret, production=context.production)
        # The SDK would write an id into the home folder and send it along.
        stripe.enable_telemetry = False
        return build_rail(
            context,
            base=base,
            key=key,
            secret=secret,
            poll_seconds=_seconds(environ.get("STRIPE_POLL_SECONDS", "").strip()),
        )


def build_rail(
    context: RailContext,
    *,
    base: str,
    key: str,
    secret: str,
    poll_seconds: float = POLL_SECONDS,
    deadline_seconds: float = DEADLINE_SECONDS,
    retries: int = NETWORK_RETRIES,
) -> CardRail:
    """The rail with all its parts. A loopback address never goes through a proxy."""
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(min(PHASE_SECONDS, deadline_seconds)),
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=10),
        trust_env=urlsplit(base).hostname not in _LOOPBACK,
    )
    transport = HttpxTransport(client)
    sdk = stripe.StripeClient(
        key,
        stripe_version=API_VERSION,
        base_addresses={"api": base},
        http_client=transport,
        max_network_retries=retries,
    )
    rules = WebhookRules(secret=secret, api_version=API_VERSION, livemode=key.startswith(_LIVE))
    calls = StripeCalls(sdk, transport, deadline_seconds=deadline_seconds)
    return CardRail(calls, context.clock, rules, poll_seconds=poll_seconds)


def _check(base: str, key: str, secret: str, *, production: bool) -> None:
    if not key.startswith(_LIVE + _TEST):
        raise ValueError(
            "STRIPE_SECRET_KEY is not a Stripe key: it begins with sk_live_, rk_live_ or sk_test_."
        )
    if not secret:
        raise ValueError("STRIPE_WEBHOOK_SECRET is empty: anyone could forge a payment message.")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise ValueError("STRIPE_API_BASE is not an address: leave it unset to use Stripe itself.")
    if production and base != STRIPE_API:
        raise ValueError("STRIPE_API_BASE must be unset in production: it names a stand-in for Stripe.")
    if production and key.startswith(_TEST):
        raise ValueError("STRIPE_SECRET_KEY is a test key: production needs a live one.")
    if production and secret.startswith("whsec_sandbox"):
        raise ValueError("STRIPE_WEBHOOK_SECRET is the sandbox's: production needs the endpoint's own.")
    if not production and key.startswith(_LIVE):
        raise ValueError("STRIPE_SECRET_KEY is a live key: outside of production only a test key is taken.")


def _seconds(text: str) -> float:
    if not text:
        return POLL_SECONDS
    if not text.isdecimal() or not 1 <= int(text) <= 3600:
        raise ValueError("STRIPE_POLL_SECONDS is a whole number of seconds from 1 to 3600.")
    return float(int(text))


plugin = CardPlugin()
