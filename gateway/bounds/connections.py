"""How many connections there may be, of everybody and of one network, and who goes when there are more.

Newcomers get in: whoever has been waited for longest (silent, with half a request, or idle) makes room, first in the
network that has too many. Only where everybody is being served is a newcomer refused.
"""

from __future__ import annotations

import ipaddress
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Protocol

from starlette.requests import Request
from starlette.types import Scope

from gateway.auth.networks import Origins
from gateway.bounds.pace import Pace
from gateway.bounds.turns import Turns
from gateway.settings import Settings

RESERVED_DESCRIPTORS = 256
"""For the database, Redis, files and the processes that decode pictures."""
DESCRIPTORS_MAX = 65_536
LOOKED_AT_MAX = 32
"""Of the clients that are waited for: those who have just sent something are not the ones to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one client may keep waiting. Bytes, seconds, and connections."""

    connections: int
    connections_address: int
    connections_site: int
    header_bytes: int
    header_fields: int
    header_seconds: float
    idle_seconds: float
    idle_seconds_proxy: float
    unread_seconds: float
    """How long a client may leave an answer unread."""
    refusals_per_second: float
    """Of one address, before it waits: see `Pace`."""
    requests_at_once_address: int
    """Of one address, that are worked on at the same time: see `Turns`."""

    @classmethod
    def of(cls, settings: Settings, descriptors: int) -> ConnectionLimits:
        """As set, and no more than the operating system gives descriptors for."""
        most = max(16, min(settings.connections, descriptors - RESERVED_DESCRIPTORS))
        return cls(
            connections=most,
            connections_address=min(settings.connections_address, max(8, most * 3 // 4)),
            connections_site=min(settings.connections_site, max(8, most * 7 // 8)),
            header_bytes=settings.header_bytes,
            header_fields=settings.header_fields,
            header_seconds=settings.header_seconds,
            idle_seconds=settings.idle_seconds,
            idle_seconds_proxy=settings.idle_seconds_proxy,
            unread_seconds=settings.unread_seconds,
            refusals_per_second=settings.refusals_per_second,
            requests_at_once_address=settings.requests_at_once_address,
        )


def raise_descriptor_limit() -> int:
    """Have as many descriptors as are allowed without asking anybody; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft


class Connection(Protocol):
    """One client's connection."""

    def has_unread(self) -> bool:
        """Whether the client has sent something that we have not got round to read."""

    def is_put_off(self) -> bool:
        """Whether we read it later because its network has had us do too much for nothing."""

    def evict(self) -> None:
        """Make room, at once."""


class _Group:
    """The connections of one network, or of everybody."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.waiting: OrderedDict[Connection, None] = OrderedDict()
        """Those whose client is waited for, the longest first."""


class Connections:
    """All connections of this process."""

    def __init__(
        self, limits: ConnectionLimits, origins: Origins, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.pace = Pace(limits.refusals_per_second, now)
        self.turns = Turns(limits.requests_at_once_address)
        self._origins = origins
        self._everybody = _Group(limits.connections)
        self._groups: dict[str, _Group] = {}
        self._of: dict[Connection, list[tuple[str, _Group]]] = {}
        self.refused = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self._everybody.count

    def is_proxy(self, host: str) -> bool:
        """Whether a peer is a configured proxy: others wait behind it, and it counts them itself."""
        return self._origins.trusts(host)

    def networks(self, host: str) -> tuple[str, ...]:
        """What is bounded and paced together with a peer, the narrow one first: nothing for a proxy, behind which
        everybody waits."""
        return () if self.is_proxy(host) else _networks(host)

    def sender(self, scope: Scope) -> str:
        """The address, as `networks` gives it, that a proxy has forwarded a request for; empty if it does not say."""
        address = str(self._origins.address(Request(scope)))
        return "" if self._origins.trusts(address) else _networks(address)[0]

    def admit(self, connection: Connection, host: str) -> bool:
        """Count a new connection, which waits for its client. False where there is no room for it."""
        names = self.networks(host)
        mosts = (self.limits.connections_address, self.limits.connections_site)
        groups = [
            (name, self._groups.get(name) or _Group(most)) for name, most in zip(names, mosts, strict=False)
        ]
        if not all(self._has_room(group) for _, group in groups) or not self._has_room_at_all():
            self.refused += 1
            return False
        self._groups.update(groups)
        self._of[connection] = groups
        for group in self._groups_of(connection):
            group.count += 1
            group.waiting[connection] = None
        return True

    def waits(self, connection: Connection) -> None:
        """It is the client's turn, from now on."""
        for group in self._groups_of(connection):
            group.waiting[connection] = None
            group.waiting.move_to_end(connection)

    def serves(self, connection: Connection) -> None:
        """It is our turn: the request is whole."""
        for group in self._groups_of(connection):
            group.waiting.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """It is gone; once is enough."""
        if connection not in self._of:
            return
        for group in self._groups_of(connection):
            group.count -= 1
            group.waiting.pop(connection, None)
        for name, group in self._of.pop(connection):
            if not group.count:
                self._groups.pop(name, None)

    def _groups_of(self, connection: Connection) -> list[_Group]:
        found = self._of.get(connection)
        return [] if found is None else [self._everybody, *(group for _, group in found)]

    def _has_room(self, group: _Group) -> bool:
        return group.count < group.most or self._evict_from(group)

    def _has_room_at_all(self) -> bool:
        if self._everybody.count < self._everybody.most:
            return True
        # Whoever has the most makes room first.
        for group in sorted(self._groups.values(), key=lambda group: group.count, reverse=True)[:8]:
            if self._evict_from(group):
                return True
        return self._evict_from(self._everybody)

    def _evict_from(self, group: _Group) -> bool:
        put_off = None
        for longest in list(islice(group.waiting, LOOKED_AT_MAX)):
            if not longest.has_unread():
                break
            if longest.is_put_off():
                put_off = put_off or longest
            else:
                self.waits(longest)
        else:
            # All have sent something. Those that we let wait go before anybody is refused.
            if put_off is None:
                return False
            longest = put_off
        self.leave(longest)
        longest.evict()
        return True


@lru_cache(4096)
def _networks(host: str) -> tuple[str, ...]:
    """IPv4 /32 and /24, IPv6 /64 and /48, the narrow one first."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return (host,)
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    bits = (32, 24) if address.version == 4 else (64, 48)
    return tuple(str(ipaddress.ip_network((address, length), strict=False)) for length in bits)
