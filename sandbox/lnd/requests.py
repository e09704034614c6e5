"""What may be asked of AddInvoice and AddHoldInvoice, checked as LND checks it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bolt11.models.routehint import Route
from lndgrpc.compiled import lightning_pb2 as ln

from sandbox.lnd.bolt11 import FEATURES, Terms
from sandbox.lnd.errors import LndError
from sandbox.lnd.store import OPEN

DEFAULT_EXPIRY_SECONDS = 86_400
MAX_EXPIRY_SECONDS = 31_536_000
DEFAULT_CLTV_DELTA = 80
MIN_CLTV_DELTA = 24
MAX_MEMO_BYTES = 1024
MAX_DESCRIPTION_BYTES = 639
"""What a field of BOLT11 holds."""
MSAT_PER_BTC = 10**11
MAX_VALUE_BTC = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """A checked request for an invoice. `preimage` is empty for a hold invoice."""

    terms: Terms
    preimage: bytes
    private: bool


def check_add(request: Any, randomness: Callable[[int], bytes], private_hop: Route | None) -> NewInvoice:
    """AddInvoice: with its own preimage, or one that the node chooses."""
    preimage = bytes(request.r_preimage) or randomness(32)
    if len(preimage) != 32:
        raise LndError(f"invalid preimage length of {len(preimage)}, want 32")
    if not any(preimage):
        raise LndError("cannot use hash of all-zeroes preimage")
    payment_hash = hashlib.sha256(preimage).digest()
    return _check(request, payment_hash, preimage, private_hop)


def check_add_hold(request: Any, private_hop: Route | None) -> NewInvoice:
    """AddHoldInvoice: the caller keeps the preimage."""
    payment_hash = bytes(request.hash)
    if len(payment_hash) != 32:
        raise LndError(f"invalid hash length of {len(payment_hash)}, want 32")
    return _check(request, payment_hash, b"", private_hop)


def _check(request: Any, payment_hash: bytes, preimage: bytes, private_hop: Route | None) -> NewInvoice:
    if request.value and request.value_msat:
        raise LndError("sat and msat arguments are mutually exclusive")
    if request.value < 0 or request.value_msat < 0:
        raise LndError("amount cannot be negative")
    value_msat = int(request.value_msat) or int(request.value) * 1000
    if value_msat > MAX_VALUE_BTC * MSAT_PER_BTC:
        whole, part = divmod(value_msat // 1000, 10**8)
        raise LndError(f"invoice amount {whole}.{part:08} BTC is too large, max is {MAX_VALUE_BTC} BTC")
    memo = str(request.memo)
    if (size := len(memo.encode())) > MAX_MEMO_BYTES:
        raise LndError(f"memo too large: {size} bytes (maxsize={MAX_MEMO_BYTES})")
    if size > MAX_DESCRIPTION_BYTES:
        raise LndError(f"data length too big to fit within 10 bits: {-(-size * 8 // 5)}")
    digest = bytes(request.description_hash)
    if digest and len(digest) != 32:
        raise LndError(f"description hash is {len(digest)} bytes, must be 32")
    expiry = int(request.expiry) or DEFAULT_EXPIRY_SECONDS
    if expiry > MAX_EXPIRY_SECONDS:
        raise LndError(f"expiry of {expiry} seconds greater than max expiry of {MAX_EXPIRY_SECONDS} seconds")
    delta = int(request.cltv_expiry) or DEFAULT_CLTV_DELTA
    if delta > 0xFFFF:
        raise LndError(f"CLTV delta of {delta} is too large, max accepted is: {0xFFFF}")
    if delta < MIN_CLTV_DELTA:
        raise LndError(f"CLTV delta of {delta} must be greater than minimum of {MIN_CLTV_DELTA}")
    terms = Terms(
        payment_hash=payment_hash,
        amount_msat=value_msat,
        description=memo,
        description_hash=digest,
        expiry_seconds=expiry,
        cltv_delta=delta,
        hops=[*_hops(request), *([private_hop] if request.private and private_hop else [])],
    )
    return NewInvoice(terms=terms, preimage=preimage, private=bool(request.private))


def new_message(new: NewInvoice, payment_request: str, secret: bytes, now: int) -> Any:
    """The `lnrpc.Invoice` of a new invoice."""
    terms = new.terms
    return ln.Invoice(
        memo=terms.description,
        r_preimage=new.preimage,
        r_hash=terms.payment_hash,
        value=terms.amount_msat // 1000,
        value_msat=terms.amount_msat,
        creation_date=now,
        payment_request=payment_request,
        description_hash=terms.description_hash,
        expiry=terms.expiry_seconds,
        cltv_expiry=terms.cltv_delta,
        private=new.private,
        payment_addr=secret,
        state=OPEN,
        route_hints=[route_hint(hop) for hop in terms.hops],
        features={
            bit: ln.Feature(name=name, is_required=bit % 2 == 0, is_known=True)
            for bit, name in FEATURES.items()
        },
    )


def route_hint(hop: Route) -> Any:
    """A hop as LND's message."""
    block, transaction, output = (int(part) for part in hop.short_channel_id.split("x"))
    hint = ln.HopHint(
        node_id=hop.public_key,
        chan_id=block << 40 | transaction << 16 | output,
        fee_base_msat=hop.base_fee,
        fee_proportional_millionths=hop.ppm_fee,
        cltv_expiry_delta=hop.cltv_expiry_delta,
    )
    return ln.RouteHint(hop_hints=[hint])


def _hops(request: Any) -> list[Route]:
    return [
        Route(
            public_key=hint.node_id,
            short_channel_id=f"{hint.chan_id >> 40}x{hint.chan_id >> 16 & 0xFFFFFF}x{hint.chan_id & 0xFFFF}",
            base_fee=hint.fee_base_msat,
            ppm_fee=hint.fee_proportional_millionths,
            cltv_expiry_delta=hint.cltv_expiry_delta,
        )
        for route in request.route_hints
        for hint in list(route.hop_hints)[:1]
    ]
