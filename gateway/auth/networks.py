"""Where a request comes from: the peer, or what a configured proxy says; and its prefixes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from fastapi import Request

from gateway.auth.identity import NetworkKeys
from generation.domain.quotas import NetworkQuota

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_UNKNOWN = ipaddress.IPv4Address(0)
_WITH_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}|\[([^\]]{2,100})\](?::[0-9]{1,5})?")
ADDRESSES_MAX = 4_096
"""That are kept as they were read: each request asks for its own several times."""


class Origins:
    """Finds the address that a request really came from."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._trusted: list[Network] = [ipaddress.ip_network(p, strict=False) for p in trusted_proxies]

    def address(self, request: Request) -> Address:
        """The peer; or, if the peer is a configured proxy, the last address in
        `X-Forwarded-For` that is not one. Anything else in that header is hearsay."""
        peer = _parse(request.client.host if request.client else "")
        if not self._is_trusted(peer):
            return peer
        header = ",".join(request.headers.getlist("x-forwarded-for"))
        for part in reversed([p.strip() for p in header.split(",") if p.strip()]):
            address = _parse(part)
            if not self._is_trusted(address):
                return address
        return peer

    def trusts(self, host: str) -> bool:
        """Whether a peer is a configured proxy."""
        return self._is_trusted(_parse(host))

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == net.version and address in net for net in self._trusted)


@lru_cache(maxsize=ADDRESSES_MAX)
def _parse(text: str) -> Address:
    """An address, as some proxies write it also with a port (203.0.113.9:4711, [2001:db8::1]:4711)."""
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is not None:
        text = with_port[1] or with_port[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return _UNKNOWN
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


@lru_cache(maxsize=ADDRESSES_MAX)
def prefixes(address: Address) -> tuple[str, ...]:
    """IPv4 /32; IPv6 /64 and /48: the narrow one first."""
    if address.version == 4:
        return (f"{address}/32",)
    return tuple(str(ipaddress.ip_network((address, bits), strict=False)) for bits in (64, 48))


def quotas(
    address: Address, keys: NetworkKeys, now: datetime, *, narrow: int, wide: int
) -> tuple[NetworkQuota, ...]:
    """The free-image quotas of an address, of the day of `now`."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    caps = (narrow, wide)
    return tuple(
        NetworkQuota(key=keys.key(prefix, day), cap=cap, expires_at=day + timedelta(days=1))
        for prefix, cap in zip(prefixes(address), caps, strict=False)
    )
