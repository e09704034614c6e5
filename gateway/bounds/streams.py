"""Event streams that are open in this process: of everybody, of one network, and of one account.

A stream costs as long as it is open. Where there are as many as may be, the account that has the most of them gives
up its oldest one, which its browser opens again by itself when there is room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gateway.http.problems import Problem


@dataclass(eq=False, slots=True)
class OpenStream:
    """A stream's place."""

    account_id: str
    network: str
    on_end: Callable[[], None] = lambda: None
    """What wakes it, to notice that it has ended."""
    ended: bool = False

    def end(self) -> None:
        """Give the place up."""
        self.ended = True
        self.on_end()


class OpenStreams:
    """Who has streams open. The oldest first."""

    def __init__(self, *, account_max: int, network_max: int, everybody_max: int) -> None:
        self._account_max = account_max
        self._network_max = network_max
        self._everybody_max = everybody_max
        self._open: dict[OpenStream, None] = {}
        self._by_account: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._open)

    def of(self, account_id: str) -> int:
        """How many an account has open."""
        return self._by_account[account_id]

    def take(self, account_id: str, network: str) -> OpenStream:
        """Have a place, until `close`. Raises `Problem` 429 for an account that has as many as it may, 503 where
        there is no room and nobody has more than this account."""
        if self.of(account_id) >= self._account_max:
            detail = f"This account has {self._account_max} streams open. Close one first."
            raise Problem("too_many_streams", detail)
        if self._by_network[network] >= self._network_max:
            self._make_room(account_id, [other for other in self._open if other.network == network])
        if self.count >= self._everybody_max:
            self._make_room(account_id, list(self._open))
        stream = OpenStream(account_id, network)
        self._open[stream] = None
        self._by_account[account_id] += 1
        self._by_network[network] += 1
        return stream

    def close(self, stream: OpenStream) -> None:
        """Give a place back; once is enough."""
        if stream not in self._open:
            return
        del self._open[stream]
        for counter, name in ((self._by_account, stream.account_id), (self._by_network, stream.network)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def _make_room(self, account_id: str, among: list[OpenStream]) -> None:
        having = Counter(stream.account_id for stream in among)
        most, count = having.most_common(1)[0]
        if count <= having[account_id] + 1:
            raise Problem("streams_busy")
        oldest = next(stream for stream in among if stream.account_id == most)
        self.close(oldest)
        oldest.end()
