"""Errors as LND words them: most of them are `UNKNOWN` with a sentence."""

from __future__ import annotations

import grpc


class LndError(Exception):
    """An RPC failed with a status code and LND's own text."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def invoice_not_found() -> LndError:
    """No invoice with this payment hash (`invoices.ErrInvoiceNotFound`)."""
    return LndError("unable to locate invoice", grpc.StatusCode.NOT_FOUND)
