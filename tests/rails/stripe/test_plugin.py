"""What the card rail refuses to be built with."""

from __future__ import annotations

import pytest
import stripe

from ledger.clock import system_clock
from rails.contract import Expiry, Holds, RailContext, Refunds, Webhooks
from rails.stripe.calls import API_VERSION
from rails.stripe.plugin import STRIPE_API, plugin
from rails.stripe.terms import CheckoutTerms, Tax, terms_of
from rails.testing.memory_references import MemoryReferences
from sandbox.stripe import context as sandbox_context

LIVE = {
    "STRIPE_SECRET_KEY": "sk_live_51Qz8Ldf03kWmVbTe7YhNcR2",
    "STRIPE_WEBHOOK_SECRET": "whsec_9fK2mXq7TzLw4VbNc8RpYd3HsJe6GuAa",
}
TEST = {
    "STRIPE_SECRET_KEY": "sk_test_sandbox_x",
    "STRIPE_WEBHOOK_SECRET": "whsec_x",
    "STRIPE_API_BASE": "http://127.0.0.1:1",
}


def context(*, production: bool) -> RailContext:
    return RailContext(clock=system_clock, references=MemoryReferences(), production=production)


def test_without_a_key_the_rail_is_absent() -> None:
    assert not plugin.configured({})
    assert not plugin.configured({"STRIPE_SECRET_KEY": " "})
    assert plugin.configured(LIVE)


async def test_it_is_built_for_production_and_for_the_sandbox() -> None:
    for environ, production in ((LIVE, True), ({**LIVE, "STRIPE_API_BASE": STRIPE_API}, True), (TEST, False)):
        rail = plugin.build(environ, context(production=production))
        assert rail.name == plugin.name == "card"
        assert isinstance(rail, Webhooks)
        assert isinstance(rail, Expiry)
        assert isinstance(rail, Refunds)
        assert not isinstance(rail, Holds)
        await rail.close()


@pytest.mark.parametrize(
    ("environ", "production", "word"),
    [
        ({**TEST, "STRIPE_API_BASE": ""}, True, "test key"),
        ({**LIVE, "STRIPE_SECRET_KEY": "rk_test_x"}, True, "test key"),
        ({**LIVE, "STRIPE_API_BASE": "http://127.0.0.1:1"}, True, "stand-in"),
        ({**LIVE, "STRIPE_WEBHOOK_SECRET": "whsec_sandbox_9fK2mXq7TzLw4VbNc8RpYd3HsJ"}, True, "example one"),
        ({**LIVE, "STRIPE_WEBHOOK_SECRET": "whsec_x"}, True, "24 characters"),
        (LIVE, False, "live key"),
        ({**TEST, "STRIPE_WEBHOOK_SECRET": " "}, False, "missing"),
        ({**LIVE, "STRIPE_WEBHOOK_SECRET": ""}, True, "missing"),
        ({**TEST, "STRIPE_SECRET_KEY": "pk_test_x"}, False, "not a Stripe key"),
        ({**TEST, "STRIPE_API_BASE": "127.0.0.1"}, False, "be an address"),
        ({**TEST, "STRIPE_POLL_SECONDS": "0.5"}, False, "whole number"),
        ({**TEST, "STRIPE_TAX": "yes"}, False, "off or inclusive or exclusive"),
        ({**TEST, "STRIPE_TAX_CODE": "txcd_1"}, False, "eight digits"),
        ({**TEST, "STRIPE_PROMOTION_CODES": "true"}, False, "on or off"),
    ],
)
def test_unsafe_settings_are_refused_in_a_sentence(
    environ: dict[str, str], production: bool, word: str
) -> None:
    with pytest.raises(ValueError, match=word) as refusal:
        plugin.build(environ, context(production=production))
    assert not any(value.strip() in str(refusal.value) for value in environ.values() if len(value) > 8)


@pytest.mark.parametrize(
    ("environ", "terms"),
    [
        ({}, CheckoutTerms()),
        ({"STRIPE_TAX": "off", "STRIPE_PROMOTION_CODES": "off"}, CheckoutTerms()),
        (
            {"STRIPE_TAX": "exclusive", "STRIPE_TAX_CODE": "txcd_10103001", "STRIPE_PROMOTION_CODES": "on"},
            CheckoutTerms(tax=Tax.EXCLUSIVE, tax_code="txcd_10103001", promotion_codes=True),
        ),
        ({"STRIPE_TAX": " inclusive "}, CheckoutTerms(tax=Tax.INCLUSIVE)),
    ],
)
async def test_the_rail_sells_on_the_terms_that_are_set(
    environ: dict[str, str], terms: CheckoutTerms
) -> None:
    rail = plugin.build({**TEST, **environ}, context(production=False))
    assert rail._terms == terms_of(environ) == terms
    assert rail.capabilities.tax_on_top == (terms.tax is Tax.EXCLUSIVE)
    await rail.close()


async def test_the_sdk_leaves_nothing_in_the_home_folder() -> None:
    rail = plugin.build(TEST, context(production=False))
    await rail.close()
    assert stripe.enable_telemetry is False


def test_rail_sandbox_and_sdk_speak_one_api_version() -> None:
    """When this fails the SDK was raised: read its changelog, then move the pinned version."""
    assert stripe.StripeClient("sk_test_x")._requestor._options.stripe_version == API_VERSION
    assert sandbox_context.API_VERSION == API_VERSION
