"""How much a network has had us do for nothing lately, and how long it waits for that.

A refusal, a byte that is thrown away and a chunk of a few bytes cost whoever sends them less than us. They are counted
in points, per address and per site. Whoever has more than `BURST_SECONDS` of its rate is not refused but made to wait:
what it sends next is read later, and the back-pressure of TCP holds its sender.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

REFUSAL = 1.0
CONNECTION = 0.01
"""Of any connection: a thousand in a breath are still free."""
DISCARDED_BYTE = 1 / 1_000_000
CHUNK = 1 / 400
"""Of a chunked body."""
BURST_SECONDS = 2.0
"""How much of its rate a network may use up in a breath."""
WAIT_SECONDS_MAX = 2.0
"""Somebody honest behind the same address is served, if later."""
SITE_FACTOR = 4
"""How much more the site has (IPv4 /24, IPv6 /48) than one address of it (IPv4 /32, IPv6 /64)."""
NETWORKS_MAX = 16_384
"""That are remembered; the one that was quiet for longest is forgotten first."""


class Pace:
    """Leaky buckets of points, of networks that are given narrow first: an address, then its site."""

    def __init__(self, points_per_second: float, now: Callable[[], float]) -> None:
        self._rate = points_per_second
        self._now = now
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What has not run out yet, and when that was so."""

    def spend(self, networks: Sequence[str], points: float) -> None:
        """Count what a network had us do."""
        now = self._now()
        for network, rate in zip(networks, self._rates(), strict=False):
            # No more than what makes it wait for as long as anybody may: it is forgiven soon after it stops.
            most = rate * (BURST_SECONDS + WAIT_SECONDS_MAX)
            self._levels[network] = min(most, self._level(network, rate, now) + points), now
            self._levels.move_to_end(network)
        while len(self._levels) > NETWORKS_MAX:
            self._levels.popitem(last=False)

    def wait_seconds(self, networks: Sequence[str]) -> float:
        """For how long nothing more of a network is read."""
        now = self._now()
        waits = [
            self._level(network, rate, now) / rate - BURST_SECONDS
            for network, rate in zip(networks, self._rates(), strict=False)
        ]
        return max(0.0, *waits) if waits else 0.0

    def _rates(self) -> tuple[float, float]:
        return self._rate, self._rate * SITE_FACTOR

    def _level(self, network: str, rate: float, now: float) -> float:
        level, then = self._levels.get(network, (0.0, now))
        return max(0.0, level - (now - then) * rate)
