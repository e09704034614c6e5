"""`llamasketch bench crash`: kill -9 of PostgreSQL and of writers under load, again and again.

Two writer processes move single credits between accounts: a capture in one stream and a grant in
another, in one command, so that half of a command would show in the sum of all credits. They say
which commands were acknowledged. Afterwards every acknowledged command must be in the log, none
may be there by half, the log must verify, and no credit may have come or gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from eventsourcing.postgres import PostgresDatastore

from bench.cycles import CATEGORIES, open_accounts
from bench.surroundings import machine, own_postgres, run
from ledger.clock import system_clock
from ledger.domain.applying import capture_in, grant_in, hold_in
from ledger.domain.commands import CaptureHold, GrantCredits, HoldCredits
from ledger.domain.lots import Source
from ledger.domain.movements import movement
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.identifiers import CommandKey, Identifiers
from ledger.log.encoding import EventRow, decode_row
from ledger.log.model import Transaction, UnitOfWork
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.log.tables import create_log_tables
from ledger.log.verify import verify
from ledger.verification import AccountAudit
from sandbox.embedded.running import RunningServer

ROOT = Path(__file__).resolve().parents[1]
WRITERS = 2
CALLERS = 48
UNDER_LOAD_SECONDS = (0.05, 0.7)
"""How long a round lasts before something is killed: long enough to be in the middle of work."""
ACCOUNTS_BUSY = 50
ANSWER_SECONDS_MAX = 60.0
LAST_WORDS_MAX = 2_000
"""Characters."""


def move(ids: Identifiers, source: str, target: str) -> Transaction:
    """Spend a credit here and grant one there, together."""
    key, hold_id, lot_id = ids.command(), ids.hold(), ids.lot()

    def decide(uow: UnitOfWork) -> None:
        deadline = uow.now.replace(year=uow.now.year + 1)
        hold_in(uow, source, HoldCredits(hold_id=hold_id, job_id="job_crash", credits=1, deadline=deadline))
        capture_in(uow, source, CaptureHold(hold_id=hold_id))
        grant_in(uow, target, GrantCredits(lot_id=lot_id, credits=1, source=Source.ADJUSTMENT))

    return Transaction(
        key=CommandKey(key),
        actor="system:bench",
        body=[source, target],
        streams=(source, target),
        decide=decide,
    )


async def _write(url: str, accounts: list[str]) -> None:
    """Move credits until standard input ends; every acknowledged key is a line on standard output."""
    ids = Identifiers(system_clock)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with open_datastore(url) as datastore:
        sequencer = Sequencer(_recorder(datastore), CATEGORIES, system_clock, batch_limit=64)
        sequencer.start()
        stopping = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))

        async def caller() -> None:
            while not stopping.done():
                source, target = random.sample(accounts, 2)
                command = move(ids, source, target)
                try:
                    await sequencer.submit(command)
                except (LogUnavailable, OutcomeUnknown, TooBusy):
                    continue
                os.write(1, f"{command.key}\n".encode())

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        await asyncio.to_thread(sequencer.stop)


def _recorder(datastore: PostgresDatastore) -> LogRecorder:
    """Its making asks the server; a writer may be started while there is none."""
    until = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        try:
            return LogRecorder(datastore)
        except PersistenceError:
            if time.monotonic() > until:
                raise


class Writer:
    """A writer process, and what it was told is done."""

    def __init__(self, url: str, accounts: list[str], acknowledged: set[str]) -> None:
        self._url = url
        self._accounts = accounts
        self._acknowledged = acknowledged
        self.last_words: list[str] = []
        """What it wrote each time it ended by itself, which it never should."""

    async def start(self) -> None:
        """Start it, and go on listening to it."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.crash", "--writer", self._url, *self._accounts),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.endswith(b"\n"):
                self._acknowledged.add(line.decode().strip())

    async def kill(self) -> None:
        """kill -9, and read what it had still said."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._ended(-signal.SIGKILL)

    async def stop(self) -> None:
        """Let it finish what it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._ended(0)

    async def _ended(self, expected: int) -> None:
        code = await self._process.wait()
        await self._listening
        with self._log as log:
            if code != expected:
                log.seek(0)
                self.last_words.append(f"exit {code}: {log.read().decode()[-LAST_WORDS_MAX:]}")


async def _storm(
    server: RunningServer, accounts: list[str], rounds: int, chance: random.Random
) -> dict[str, Any]:
    acknowledged: set[str] = set()
    writers = [Writer(server.url, accounts, acknowledged) for _ in range(WRITERS)]
    for writer in writers:
        await writer.start()
    kills = {"postgres": 0, "writer": 0}
    for _ in range(rounds):
        await _answered(acknowledged)
        await asyncio.sleep(chance.uniform(*UNDER_LOAD_SECONDS))
        if chance.random() < 0.6:
            kills["postgres"] += 1
            await asyncio.to_thread(server.kill)
            server.start()
        else:
            kills["writer"] += 1
            victim = chance.choice(writers)
            await victim.kill()
            await victim.start()
    for writer in writers:
        await writer.stop()
    last_words = [words for writer in writers for words in writer.last_words]
    return {"kills": kills, "writers_that_gave_up": last_words, "acknowledged": acknowledged}


async def _answered(acknowledged: set[str]) -> None:
    """Under load means: something is being answered."""
    progress, until = len(acknowledged), time.monotonic() + ANSWER_SECONDS_MAX
    while len(acknowledged) == progress:
        if time.monotonic() > until:
            raise SystemExit("nothing is being answered any more")
        await asyncio.sleep(0.01)


def _judge(url: str, acknowledged: set[str], credits_before: int) -> dict[str, Any]:
    """What must be true afterwards."""
    with psycopg.connect(url) as connection:
        known = {
            row[0]
            for row in connection.execute(
                "SELECT key FROM log_outcomes WHERE refusal IS NULL AND key LIKE 'cmd_%'"
            )
        }
    report = verify(url, CATEGORIES, audits={"acct": AccountAudit()}, command_audits=(_whole_command,))
    return {
        "recorded": len(known),
        "lost": len(acknowledged - known),
        "halves": sum(finding.part == "command" for finding in report.findings),
        "verified": report.ok,
        "findings": [finding.why for finding in report.findings[:10]],
        "events": report.events,
        "batches": report.batches,
        "credits_before": credits_before,
        "credits_after": total_credits(url),
    }


def _whole_command(events: Any) -> Any:
    """A move has its capture and its grant."""
    if events[0].actor != "system:bench":
        return
    names = {type(envelope.event).__name__ for envelope in events}
    if not {"CreditsHeld", "HoldCaptured", "CreditsGranted"} <= names:
        yield events[0], f"command {events[0].key} is there by half: {sorted(names)}"


def total_credits(url: str) -> int:
    """All credits posted, from the events alone, without those granted by the day."""
    total = 0
    with psycopg.connect(url) as connection, connection.cursor("credits", binary=True) as cursor:
        cursor.execute(
            b"SELECT originator_id, originator_version, topic, state, notification_id FROM stored_events"
        )
        for row in cursor:
            event = decode_row(EventRow(*row), CATEGORIES).event
            change = movement(event)
            by_the_day = getattr(event, "source", "") == Source.ALLOWANCE
            total += change.posted if change is not None and not by_the_day else 0
    return total


def crash(rounds: int, seed: int) -> dict[str, Any]:
    """Storm, then judge."""
    chance = random.Random(seed)
    with own_postgres() as server:
        create_log_tables(server.url)
        accounts = [str(account) for account in run(open_accounts(server.url, ACCOUNTS_BUSY))]
        before = total_credits(server.url)
        began = time.monotonic()
        storm = run(_storm(server, accounts, rounds, chance))
        seconds = time.monotonic() - began
        acknowledged = storm.pop("acknowledged")
        judged = _judge(server.url, acknowledged, before)
    ok = judged["lost"] == 0 and judged["halves"] == 0 and judged["verified"]
    return {
        "ok": ok
        and not storm["writers_that_gave_up"]
        and judged["credits_before"] == judged["credits_after"],
        "rounds": rounds,
        "seed": seed,
        "seconds": round(seconds, 1),
        **storm,
        "acknowledged": len(acknowledged),
        **judged,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="llamasketch bench crash", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--writer", nargs="+", help=argparse.SUPPRESS)
    request = parser.parse_args()
    if request.writer:
        run(_write(request.writer[0], request.writer[1:]))
        return 0
    result = {"machine": machine(), **crash(request.rounds, request.seed)}
    if request.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' '):<20} {value}")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
