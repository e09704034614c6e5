"""Reading the values of settings: addresses, networks, and whether something can be guessed."""

from __future__ import annotations

import ipaddress
import itertools
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import unquote, urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

WELL_KNOWN = (
    frozenset(
        "secret password passw0rd test tests testing admin root postgres redis minioadmin development dev guest "
        "default llamasketch sandbox user rpcpassword bitcoin letmein qwerty none null true".split()
    ),
    ("changeme", "change-me", "change_me", "placeholder", "example", "sandbox", "replace-me",
     "replace_me", "replaceme", "your-", "your_", "insecure", "xxxxx", "not-secret", "only-for-test"),
)  # fmt: skip
"""Secrets that everybody knows: whole ones, and parts that give an example away."""

_TLS = frozenset({"https", "rediss"})
_NUMERIC = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A URL in its parts."""

    scheme: str
    host: str
    password: str | None
    has_login: bool
    is_bare: bool
    """Nothing but scheme, host and port, and perhaps one slash."""

    @property
    def has_tls(self) -> bool:
        """Whether the scheme itself says so."""
        return self.scheme in _TLS

    @property
    def is_this_machine(self) -> bool:
        """Loopback, unspecified or link-local, however it is written."""
        ip = _ip_of(self.host)
        if ip is None:
            name = self.host.rstrip(".").lower()
            return name in _LOCAL_NAMES or name.endswith(".localhost")
        return ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast

    @property
    def is_inside(self) -> bool:
        """This machine, a private network, or a name that only a private network resolves."""
        ip = _ip_of(self.host)
        if ip is not None:
            return self.is_this_machine or ip.is_private
        name = self.host.rstrip(".").lower()
        return self.is_this_machine or "." not in name or name.endswith((".internal", ".local", ".svc"))


def address_of(value: str) -> Address:
    """Its parts. Raises `ValueError` for what is no address."""
    if any(c.isspace() or not c.isprintable() for c in value) or "\\" in value:
        raise ValueError("an address has no blanks")
    parts = urlsplit(value)
    port = parts.port
    if port == 0:
        raise ValueError("there is no port 0")
    return Address(
        scheme=parts.scheme,
        host=parts.hostname or "",
        password=None if parts.password is None else unquote(parts.password),
        has_login=parts.username is not None or parts.password is not None,
        is_bare=parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username),
    )


def _ip_of(host: str) -> IpAddress | None:
    """The address that a host is, also in the short and odd forms that resolvers understand."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if not _NUMERIC.fullmatch(host):
            return None
        try:
            ip = ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = getattr(ip, "ipv4_mapped", None)
    return mapped if mapped is not None else ip


def networks_of(value: str) -> Sequence[Network]:
    """Addresses or networks, separated by commas. Raises `ValueError`."""
    return [ipaddress.ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip()]


def share_of_all_addresses(networks: Sequence[Network]) -> Fraction:
    """The larger share of all IPv4 or of all IPv6 addresses that these networks cover together."""
    shares = [Fraction(0)]
    for version, bits in ((4, 32), (6, 128)):
        same = [network for network in networks if network.version == version]
        # collapse_addresses takes one version at a time, which its types cannot say of a filtered list.
        together = ipaddress.collapse_addresses(same)  # type: ignore[type-var]
        shares.append(Fraction(sum(network.num_addresses for network in together), 2**bits))
    return max(shares)


def is_random(value: str | bytes) -> bool:
    """Whether it looks like drawn at random: no repetition, no counting, enough different characters.

    It can only find what is certainly not: nobody can tell a random secret from a copied one.
    """
    units = list(value) if isinstance(value, bytes) else [ord(c) for c in value]
    if len(units) < 8 or len(set(units)) < min(8, len(units) * 2 // 3):
        return False
    steps = [after - before for before, after in itertools.pairwise(units)]
    if sum(abs(step) <= 1 for step in steps) * 2 > len(steps):
        return False
    triples = list(zip(units, units[1:], units[2:], strict=False))
    return len(set(triples)) * 3 >= len(triples) * 2
