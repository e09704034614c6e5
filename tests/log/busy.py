"""A process of its own that keeps one purse busy: `python -m tests.log.busy URL NAME COMMANDS`.

Says `ready` when it is connected, and begins when it is told to by a line on standard input.
"""

from __future__ import annotations

import asyncio
import sys

from ledger.clock import system_clock
from ledger.log.categories import Categories
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from tests.log.purse import PURSES, add

LANES = 4


async def keep_busy(url: str, name: str, commands: int) -> None:
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), Categories([PURSES]), system_clock, batch_limit=LANES)
        sequencer.start()
        await sequencer.submit(add(f"{name}-first", f"purse_{name}", 1))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)

        async def lane(number: int) -> None:
            for step in range(number, commands, LANES):
                await sequencer.submit(add(f"{name}-{step}", "purse_hot", 1))

        await asyncio.gather(*(lane(number) for number in range(LANES)))
        await asyncio.to_thread(sequencer.stop)


if __name__ == "__main__":
    asyncio.run(keep_busy(sys.argv[1], sys.argv[2], int(sys.argv[3])))
