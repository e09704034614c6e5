"""The entry point of the card rail: reads the environment, refuses what is unsafe, builds the rail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import stripe

from rails.configuration import (
    Setting,
    When,
    begins_with,
    each,
    matching,
    one_of,
    require,
    secret,
    url,
    whole,
)
from rails.contract import RailContext
from rails.stripe.calls import API_VERSION
from rails.stripe.rail import CardCalls, CardRail
from rails.stripe.terms import PLAIN, CheckoutTerms, Tax, terms_of
from rails.stripe.transport import HttpxTransport
from rails.stripe.webhooks import WebhookRules

STRIPE_API = "https://api.stripe.com"
DEADLINE_SECONDS = 20.0
PHASE_SECONDS = 8.0
POLL_SECONDS = 30.0
NETWORK_RETRIES = 2
_LIVE = ("sk_live_", "rk_live_")
_TEST = ("sk_test_", "rk_test_")
_SIGNING = "whsec_"
SECRETS_MAX = 4
"""Two are in use while one is exchanged for another."""
TERMS = (
    Setting(name="STRIPE_TAX", rules=(one_of(*(tax.value for tax in Tax)),)),
    Setting(
        name="STRIPE_TAX_CODE",
        rules=(
            matching(
                "no_tax_code",
                "be a code of Stripe's list, txcd_ and eight digits",
                lambda code: re.fullmatch(r"txcd_[0-9]{8}", code) is not None,
            ),
        ),
    ),
    Setting(name="STRIPE_PROMOTION_CODES", rules=(one_of("on", "off"),)),
)
"""On what terms is sold; also for commands that need no more."""
SETTINGS = (
    Setting(
        name="STRIPE_SECRET_KEY",
        required=When.ALWAYS,
        rules=(
            matching(
                "wrong_kind",
                "be a Stripe key: this is not a Stripe key, it begins with sk_live_, rk_live_ or sk_test_",
                lambda key: key.startswith(_LIVE + _TEST),
            ),
            matching(
                "test_key",
                "be a live key, and this is a test key",
                lambda key: key.startswith(_LIVE),
                when=When.PRODUCTION,
            ),
            matching(
                "secret_too_short",
                "have the length of a real key",
                lambda key: len(key) >= 24,
                when=When.PRODUCTION,
            ),
            secret(0)[1],
        ),
    ),
    Setting(
        name="STRIPE_WEBHOOK_SECRET",
        required=When.ALWAYS,
        rules=(
            *(each(rule) for rule in (begins_with(_SIGNING), *secret(24, prefix=_SIGNING))),
            matching(
                "too_many_secrets",
                f"be at most {SECRETS_MAX} secrets, separated by commas",
                lambda value: value.count(",") < SECRETS_MAX,
            ),
        ),
    ),
    Setting(
        name="STRIPE_API_BASE",
        rules=(
            url("https", "http", bare=True),
            matching(
                "stand_in",
                "be unset: it names a stand-in for Stripe",
                lambda base: base.rstrip("/") == STRIPE_API,
                when=When.PRODUCTION,
            ),
        ),
    ),
    Setting(name="STRIPE_POLL_SECONDS", rules=(whole(1, 3600),)),
    *TERMS,
)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CardPlugin:
    """`STRIPE_SECRET_KEY`, `STRIPE_WEBHOOK_SECRET` (several, separated by commas, while one is exchanged), and `STRIPE_API_BASE` for a stand-in.

    `STRIPE_POLL_SECONDS` (30) is how often the event list is read behind the webhooks. `STRIPE_TAX`, `STRIPE_TAX_CODE`
    and `STRIPE_PROMOTION_CODES` say on what terms is sold: see `terms`.
    """

    name = "card"
    settings = SETTINGS

    def configured(self, environ: Mapping[str, str]) -> bool:
        """Whether there is a key."""
        return bool(environ.get("STRIPE_SECRET_KEY", "").strip())

    def build(self, environ: Mapping[str, str], context: RailContext) -> CardRail:
        """Build the rail. Raises `ValueError` with one clear sentence on bad configuration."""
        base = environ.get("STRIPE_API_BASE", "").strip().rstrip("/") or STRIPE_API
        key = environ.get("STRIPE_SECRET_KEY", "").strip()
        signing = environ.get("STRIPE_WEBHOOK_SECRET", "").strip()
        require(SETTINGS, environ, production=context.production)
        if not context.production and key.startswith(_LIVE):
            raise ValueError(
                "STRIPE_SECRET_KEY is a live key: outside of production only a test key is taken."
            )
        # The SDK would write an id into the home folder and send it along.
        stripe.enable_telemetry = False
        return build_rail(
            context,
            base=base,
            key=key,
            secrets=tuple(part.strip() for part in signing.split(",")),
            poll_seconds=float(environ.get("STRIPE_POLL_SECONDS", "").strip() or POLL_SECONDS),
            terms=terms_of(environ),
        )


def build_rail(
    context: RailContext,
    *,
    base: str,
    key: str,
    secrets: tuple[str, ...],
    poll_seconds: float = POLL_SECONDS,
    deadline_seconds: float = DEADLINE_SECONDS,
    retries: int = NETWORK_RETRIES,
    terms: CheckoutTerms = PLAIN,
) -> CardRail:
    """The rail with all its parts."""
    sdk, transport = _sdk(base, key, min(PHASE_SECONDS, deadline_seconds), retries)
    rules = WebhookRules(secrets=secrets, api_version=API_VERSION, livemode=key.startswith(_LIVE))
    calls = CardCalls(sdk, transport, deadline_seconds=deadline_seconds)
    return CardRail(calls, context.clock, rules, poll_seconds=poll_seconds, terms=terms)


def sdk_of(environ: Mapping[str, str]) -> tuple[stripe.StripeClient, HttpxTransport]:
    """Stripe's client by the settings of the rail, for commands. Raises `ValueError` without a key."""
    key = environ.get("STRIPE_SECRET_KEY", "").strip()
    if not key:
        raise ValueError("STRIPE_SECRET_KEY is not given, so there is no Stripe to ask.")
    base = environ.get("STRIPE_API_BASE", "").strip().rstrip("/") or STRIPE_API
    stripe.enable_telemetry = False
    return _sdk(base, key, PHASE_SECONDS, NETWORK_RETRIES)


def _sdk(
    base: str, key: str, phase_seconds: float, retries: int
) -> tuple[stripe.StripeClient, HttpxTransport]:
    """A loopback address never goes through a proxy."""
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(phase_seconds),
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
    return sdk, transport


plugin = CardPlugin()
