"""Whether a source of the chain may be believed now.

A node that is behind, starting, or on another chain knows less than we did. That is an outage: it says nothing about
anybody's money. Only a branch that is at least as long as the one we read takes blocks away: Liquid's blocks are
signed, and no honest node ever goes back to fewer of them.
"""

from __future__ import annotations

from rails.contract import RailUnavailable
from rails.liquid.chain import ChainSource, Pulse
from rails.liquid.networks import Network


class KnownChain:
    """What was learnt of the chain so far, in this process and before it: its first block, and how far it goes."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.genesis: str | None = network.genesis
        self.height = 0
        """Of the newest block that was ever read."""

    def expect(self, height: int, genesis: str | None) -> None:
        """What a cursor remembers."""
        self.height = max(self.height, height)
        self.genesis = self.genesis or genesis

    def judge(self, pulse: Pulse) -> None:
        """Raises `RailUnavailable` if what this source says is not to be believed yet."""
        expected = self._network.node_chain
        if pulse.chain not in (None, expected):
            raise RailUnavailable(f"the node is on the chain {pulse.chain}, not on {expected}")
        if pulse.syncing:
            raise RailUnavailable("the node is still catching up with the network")
        if pulse.height < self.height:
            raise RailUnavailable(
                f"the node has {pulse.height:,} blocks, and there were {self.height:,} before: it is behind"
            )

    async def check_genesis(self, chain: ChainSource) -> None:
        """Raises `RailUnavailable` if the source follows a chain with another first block."""
        found = await chain.block_hash(0)
        if found is None:
            raise RailUnavailable("the node has no blocks")
        if self.genesis is None:
            self.genesis = found
        if found != self.genesis:
            raise RailUnavailable(f"the node's first block is {found}, not {self.genesis}: another chain")
