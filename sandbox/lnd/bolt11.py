"""BOLT11 invoices for regtest (`lnbcrt…`), signed with a node's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import coincurve
from bolt11 import Bolt11, Feature, FeatureState, MilliSatoshi, Tags
from bolt11 import decode as bolt11_decode
from bolt11 import encode as bolt11_encode
from bolt11.models.features import FeatureExtra, Features
from bolt11.models.routehint import Route, RouteHint
from bolt11.models.tags import TagChar

CURRENCY = "bcrt"
FEATURES = {8: "tlv-onion", 14: "payment-addr", 17: "multi-path-payments", 25: "route-blinding"}
"""By bit: even ones are required, odd ones are only offered."""
URI_SCHEME = "lightning:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an invoice asks for. `amount_msat` 0 means that the payer chooses."""

    payment_hash: bytes
    amount_msat: int
    description: str
    description_hash: bytes = b""
    expiry_seconds: int
    cltv_delta: int
    hops: Sequence[Route] = ()
    """Private channels offered as the last hop towards the payee."""


def encode(terms: Terms, payment_secret: bytes, created_at: int, private_key: bytes) -> str:
    """Write and sign an invoice; `created_at` in Unix seconds."""
    tags = Tags()
    tags.add(TagChar.payment_hash, terms.payment_hash.hex())
    if terms.description_hash:
        tags.add(TagChar.description_hash, terms.description_hash.hex())
    else:
        tags.add(TagChar.description, terms.description)
    tags.add(TagChar.payment_secret, payment_secret.hex())
    tags.add(TagChar.expire_time, terms.expiry_seconds)
    tags.add(TagChar.min_final_cltv_expiry, terms.cltv_delta)
    features: dict[Feature | FeatureExtra, FeatureState] = {
        Feature.var_onion_optin: FeatureState.required,
        Feature.payment_secret: FeatureState.required,
        Feature.basic_mpp: FeatureState.supported,
        Feature.option_route_blinding: FeatureState.supported,
    }
    tags.add(TagChar.features, Features.from_feature_list(features))
    for hop in terms.hops:
        tags.add(TagChar.route_hint, RouteHint(routes=[hop]))
    amount = MilliSatoshi(terms.amount_msat) if terms.amount_msat else None
    unsigned = Bolt11(currency=CURRENCY, date=created_at, amount_msat=amount, tags=tags)
    # An empty memo is legal in LND and makes an empty `d` field; the library's validation refuses that.
    return bolt11_encode(unsigned, private_key.hex(), ignore_exceptions=True)


def decode(text: str) -> Bolt11:
    """Read an invoice and recover its payee. Raises `ValueError` if it is not one."""
    try:
        return bolt11_decode(text, ignore_exceptions=True)
    except Exception as error:  # the library raises many kinds, some of them from bitstring
        raise ValueError(f"not a BOLT11 invoice: {type(error).__name__}") from error


def public_key(private_key: bytes) -> str:
    """The node id of a private key, in hex."""
    return coincurve.PrivateKey(private_key).public_key.format().hex()
