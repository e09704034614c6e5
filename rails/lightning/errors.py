"""What LND's errors mean. Most of them are `UNKNOWN` with a sentence, so sentences are compared."""

from __future__ import annotations

import grpc

from rails.contract import RailError, RailProtocolError, RailUnavailable


class LndRefused(RailProtocolError):
    """The Lightning node refused a request."""


class CredentialRefused(RailUnavailable):
    """The Lightning node does not accept our macaroon."""


class AnswerUnreadable(RailUnavailable):
    """The Lightning node's answer cannot be read, so nothing is known of what it did."""


class InvoiceNotFound(LndRefused):
    """The Lightning node knows no such invoice."""


class InvoiceExists(LndRefused):
    """The Lightning node already has an invoice with this payment hash."""


class InvoiceFinal(LndRefused):
    """The invoice is not in a state in which this can be done."""


class PaymentExists(LndRefused):
    """A payment with this hash was already started."""


class PaymentNotFound(LndRefused):
    """No payment with this hash was ever started."""


_UNREACHABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Substrings of LND's own texts (v0.16 to v0.21), in lower case; the first that fits decides.
_MEANINGS: tuple[tuple[str, type[RailError]], ...] = (
    ("unable to locate invoice", InvoiceNotFound),
    ("there are no existing invoices", InvoiceNotFound),
    ("invoice with payment hash already exists", InvoiceExists),
    ("invoice still open", InvoiceFinal),
    ("invoice already canceled", InvoiceFinal),
    ("invoice already settled", InvoiceFinal),
    ("payment isn't initiated", PaymentNotFound),
    ("permission denied", CredentialRefused),
    ("macaroon", CredentialRefused),
    ("verification failed", CredentialRefused),
    ("encoding/hex", CredentialRefused),
    ("unmarshal v2", CredentialRefused),
    ("wallet locked", RailUnavailable),
    ("wallet not created", RailUnavailable),
    ("waiting to start", RailUnavailable),
    ("in the process of starting", RailUnavailable),
    ("shutting down", RailUnavailable),
)


def meaning(error: grpc.aio.AioRpcError, method: str) -> RailError:
    """The typed error for a failed call. Its text names the method and LND's words, no amounts or keys."""
    text = (error.details() or "").strip()
    reported = f"{method}: {text or error.code().name}"
    if error.code() in _UNREACHABLE:
        return RailUnavailable(f"{method}: {error.code().name}")
    if error.code() is grpc.StatusCode.ALREADY_EXISTS:
        return PaymentExists(reported)
    for part, kind in _MEANINGS:
        if part in text.lower():
            return kind(reported)
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return InvoiceNotFound(reported)
    return LndRefused(reported)
