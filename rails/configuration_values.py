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
     "replace_me", "replaceme", "your-", "your_", "insecure", "xxxxx", "not-secret", "only-for-test",
     "change-this", "change_this", "changethis", "random-string", "random_string", "randomstring", "secret-key",
     "secret_key", "secretkey", "my-secret", "my_secret", "supersecret", "super-secret", "super_secret",
     "qwertyui", "asdfghjk", "zxcvbn"),
)  # fmt: skip
"""Secrets that everybody knows: whole ones, and parts that give an example away."""

_NOT_FILLED_IN = (("<", ">"), ("${", "}"), ("{{", "}}"), ("$(", ")"), ("[", "]"), ("%", "%"))
"""How what is to be put in for a value is written, where nobody did so."""
_TLS = frozenset({"https", "rediss"})
_NUMERIC = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]*")
"""Names with other letters are written as browsers send them (`xn--…`): what looks alike is not the same."""
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
_IPV6_GIVEN_OUT = 2**119
"""Addresses: eight networks of /12, which is what the registries of all continents have to give (IANA, 2025)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_LOCAL_DOMAINS = (".localhost", ".localtest.me", ".lvh.me", ".nip.io", ".sslip.io", ".xip.io", ".vcap.me")
"""Names that everybody's resolver leads back to this machine, or to the address that is written in them."""
_INSIDE_DOMAINS = (".internal", ".local", ".svc", ".lan", ".home", ".corp", ".private", ".intranet", ".localdomain",
                   ".home.arpa")  # fmt: skip
NOBODYS_DOMAINS = ("test", "example", "invalid", "localhost", "local", "localdomain", "example.com", "example.net",
                   "example.org")  # fmt: skip
"""Domains that nobody has, or everybody: for examples and for one machine (RFC 2606, RFC 6762)."""


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
            name = f".{self.name}"
            return self.name in _LOCAL_NAMES or name.endswith(_LOCAL_DOMAINS)
        return ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast

    @property
    def is_inside(self) -> bool:
        """This machine, a private network, or a name that only a private network resolves."""
        ip = _ip_of(self.host)
        if ip is not None:
            return self.is_this_machine or ip.is_private
        return self.is_this_machine or "." not in self.name or self.name.endswith(_INSIDE_DOMAINS)

    @property
    def is_for_the_world(self) -> bool:
        """Whether anybody anywhere could have it for an address: no private or reserved network, no example."""
        ip = _ip_of(self.host)
        if ip is not None:
            return ip.is_global and not ip.is_multicast
        return not self.is_inside and not is_nobodys(self.name)

    @property
    def name(self) -> str:
        """The host as resolvers compare it."""
        return self.host.rstrip(".").lower()


def is_nobodys(domain: str) -> bool:
    """Whether it is for examples or for one machine, or below such a one."""
    return any(domain == nobodys or domain.endswith(f".{nobodys}") for nobodys in NOBODYS_DOMAINS)


def address_of(value: str) -> Address:
    """Its parts. Raises `ValueError` for what is no address."""
    if any(c.isspace() or not c.isprintable() for c in value) or "\\" in value:
        raise ValueError("an address has no blanks")
    parts = urlsplit(value)
    port = parts.port
    if port == 0:
        raise ValueError("there is no port 0")
    if not _HOST_NAME.fullmatch(parts.hostname or ""):
        ipaddress.IPv6Address(parts.hostname)
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
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def networks_of(value: str) -> Sequence[Network]:
    """Addresses or networks, separated by commas. Raises `ValueError`."""
    return [ipaddress.ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip()]


def share_of_all_addresses(networks: Sequence[Network]) -> Fraction:
    """The larger share of all IPv4, or of all IPv6 that anybody has, that these networks cover together.

    Of IPv6 hardly a hundredth part is given out: a sixteenth of all there could be are the addresses of everybody.
    What is unique to a site (RFC 4193) is nobody else's, as private IPv4 networks are, and large by itself.
    """
    shares = [Fraction(0)]
    for version, most in ((4, 2**32), (6, _IPV6_GIVEN_OUT)):
        same = [network for network in networks if network.version == version and not _is_of_a_site(network)]
        # collapse_addresses takes one version at a time, which its types cannot say of a filtered list.
        together = ipaddress.collapse_addresses(same)  # type: ignore[type-var]
        shares.append(Fraction(sum(network.num_addresses for network in together), most))
    return min(Fraction(1), max(shares))


def _is_of_a_site(network: Network) -> bool:
    return isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_UNIQUE_LOCAL)


def is_filled_in(value: str) -> bool:
    """Whether it is a value, and not the words that say which one belongs there."""
    return not any(value.startswith(begin) and value.endswith(end) for begin, end in _NOT_FILLED_IN)


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
