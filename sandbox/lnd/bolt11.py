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
FEATURES = {9: "tlv-onion", 14: "payment-addr", 17: "multi-path-payments"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A private channel offered as the last hop towards the payee."""

    node_id: str
    short_channel_id: str
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """What an invoice says. `amount_msat` 0 means the payer chooses."""

    payment_hash: bytes
    payment_secret: bytes
    amount_msat: int
    description: str
    description_hash: bytes
    created_at: int
    expiry_seconds: int
    cltv_delta: int
    hops: Sequence[Hop] = ()


def encode(invoice: Unsigned, private_key: bytes) -> str:
    """Write and sign an invoice."""
    tags = Tags()
    tags.add(TagChar.payment_hash, invoice.payment_hash.hex())
    if invoice.description_hash:
        tags.add(TagChar.description_hash, invoice.description_hash.hex())
    else:
        tags.add(TagChar.description, invoice.description)
    tags.add(TagChar.payment_secret, invoice.payment_secret.hex())
    tags.add(TagChar.expire_time, invoice.expiry_seconds)
    tags.add(TagChar.min_final_cltv_expiry, invoice.cltv_delta)
    features: dict[Feature | FeatureExtra, FeatureState] = {
        Feature.var_onion_optin: FeatureState.supported,
        Feature.payment_secret: FeatureState.required,
        Feature.basic_mpp: FeatureState.supported,
    }
    tags.add(TagChar.features, Features.from_feature_list(features))
    for hop in invoice.hops:
        route = Route(
            public_key=hop.node_id,
            short_channel_id=hop.short_channel_id,
            base_fee=MilliSatoshi(hop.fee_base_msat),
            ppm_fee=hop.fee_proportional_millionths,
            cltv_expiry_delta=hop.cltv_expiry_delta,
        )
        tags.add(TagChar.route_hint, RouteHint(routes=[route]))
    amount = MilliSatoshi(invoice.amount_msat) if invoice.amount_msat else None
    unsigned = Bolt11(currency=CURRENCY, date=invoice.created_at, amount_msat=amount, tags=tags)
    # An empty memo is legal in LND and makes an empty `d` field; the library's validation refuses that.
    return bolt11_encode(unsigned, private_key.hex(), ignore_exceptions=True)


def decode(text: str) -> Bolt11:
    """Read an invoice and recover its payee. Raises `ValueError` if it is not one."""
    bare = text.strip()
    if bare.lower().startswith("lightning:"):
        bare = bare[len("lightning:") :]
    try:
        return bolt11_decode(bare, ignore_exceptions=True)
    except Exception as error:  # the library raises many kinds, some of them from bitstring
        raise ValueError(f"not a BOLT11 invoice: {type(error).__name__}") from error


def public_key(private_key: bytes) -> str:
    """The node id of a private key, in hex."""
    return coincurve.PrivateKey(private_key).public_key.format().hex()
