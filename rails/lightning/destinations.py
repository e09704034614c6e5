"""Where people want their money: an invoice, a Lightning address, or an LNURL that can be paid. Pure.

Protocol source: BOLT 11 (the amount in the readable part), LUD-01 (bech32 of an address), LUD-16 (`name@host`),
LUD-17 (`lnurlp://`). What an invoice says beyond its amount is for the node to read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from rails.lightning import bech32


class DestinationUnreadable(ValueError):
    """It is none that money can be sent to."""


class Kind(Enum):
    """How it is paid."""

    INVOICE = "invoice"
    LOOKUP = "lookup"
    """Its owner is asked for an invoice first, at `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A destination that can be read."""

    kind: Kind
    text: str
    """The invoice in lower case, or the address to ask."""
    amount_msat: int | None = None
    """What the invoice asks for, if anything."""


_SCHEME = "lightning:"
_LOOKUP_SCHEMES = ("lnurlp://", "lnurl:")
_LNURL = "lnurl"
_PREFIX = re.compile(r"ln(?:bcrt|bc|tbs|tb)(?:(\d{1,12})([munp]?))?")
_PICO_PER_UNIT = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}
_PICO_PER_MSAT = 10
_MSAT_MAX = 21 * 10**17
_NAME = re.compile(r"[a-z0-9._+-]{1,64}")
_HOST = re.compile(r"(?=.{1,253}(?::|$))[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?")
_ADDRESS = re.compile(r"https?://[!-~]{1,1900}")


def read(text: str, *, plain_http: bool = False) -> Destination:
    """Raises `DestinationUnreadable`. `plain_http` also believes what is asked for without encryption."""
    bare = text.strip()
    if bare.lower().startswith(_SCHEME):
        bare = bare[len(_SCHEME) :]
    lower = bare.lower()
    if "@" in bare and "/" not in bare:
        return _lookup(_of_name(lower, plain_http), plain_http)
    for scheme in _LOOKUP_SCHEMES:
        if lower.startswith(scheme):
            rest = bare[len(scheme) :]
            # `lnurl:` comes before a bech32 text, `lnurlp://` takes the place of `https://` (LUD-17).
            return (
                read(rest) if scheme.endswith(":") else _lookup(f"{_way(rest, plain_http)}{rest}", plain_http)
            )
    if lower.startswith(f"{_LNURL}1"):
        return _lookup(_of_bech32(bare), plain_http)
    return _invoice(bare)


def _way(rest: str, plain_http: bool) -> str:
    return "http://" if plain_http and rest.startswith(("127.0.0.1", "localhost")) else "https://"


def _of_name(lower: str, plain_http: bool) -> str:
    name, _, host = lower.rpartition("@")
    if not _NAME.fullmatch(name) or not _HOST.fullmatch(host):
        raise DestinationUnreadable("not a Lightning address")
    return f"{_way(host, plain_http)}{host}/.well-known/lnurlp/{name}"


def _of_bech32(text: str) -> str:
    try:
        return bech32.decode(text, _LNURL).decode("ascii")
    except ValueError as error:
        raise DestinationUnreadable("not an LNURL") from error


def _lookup(address: str, plain_http: bool) -> Destination:
    if not _ADDRESS.fullmatch(address) or not (plain_http or address.startswith("https://")):
        raise DestinationUnreadable("not an address that can be asked")
    return Destination(kind=Kind.LOOKUP, text=address)


def _invoice(text: str) -> Destination:
    lower = text.lower()
    prefix, separator, rest = lower.rpartition("1")
    found = _PREFIX.fullmatch(prefix)
    if not separator or found is None or not rest.isalnum() or text not in (lower, text.upper()):
        raise DestinationUnreadable("not an invoice")
    digits, multiplier = found[1], found[2] or ""
    if digits is None:
        return Destination(kind=Kind.INVOICE, text=lower)
    msat, rest_pico = divmod(int(digits) * _PICO_PER_UNIT[multiplier], _PICO_PER_MSAT)
    if rest_pico or not 0 < msat <= _MSAT_MAX:
        raise DestinationUnreadable("not an amount")
    return Destination(kind=Kind.INVOICE, text=lower, amount_msat=msat)
