"""What `bench.chaos` counts when everything is still: from the log, event by event, and from the rows beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from bench.chaos_load import ENDED, Book
from gateway.wiring.foundation import CATEGORIES
from ledger.domain import holds as holds_
from ledger.log.categories import Categories
from ledger.log.model import Envelope
from ledger.log.postgres_reader import PostgresLogReader

PAGE = 5000
RESOLUTIONS = ("hold_captured", "hold_released", "hold_expired")


class Check(NamedTuple):
    """One thing that must be so."""

    what: str
    found: Any
    wanted: Any

    @property
    def ok(self) -> bool:
        """Whether it is."""
        return bool(self.found == self.wanted)


@dataclass
class Tally:
    """Everything that the log says about jobs and their holds."""

    owners: dict[str, str] = field(default_factory=dict)
    ends: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each delivered image."""
    captured_by_job: Counter[str] = field(default_factory=Counter)
    """Credits."""
    captures_by_job: Counter[str] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    """Events about holds, by what happened."""
    starts: int = 0
    requeued: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    accounts: set[str] = field(default_factory=set)

    def add(self, envelope: Envelope) -> None:
        """Count one event."""
        name = envelope.name.split(".")[1]
        event: Any = envelope.event
        if envelope.stream.startswith("acct_"):
            self.accounts.add(envelope.stream)
            if name == "credits_held" or name in RESOLUTIONS:
                self.holds[name] += 1
            if name == "hold_captured":
                self.captured_by_job[event.job_id] += event.credits
                self.captures_by_job[event.job_id] += 1
        elif envelope.stream.startswith("job_"):
            self._add_to_job(envelope.stream, name.removeprefix("job_"), event)

    def _add_to_job(self, job_id: str, what: str, event: Any) -> None:
        ends = self.ends.setdefault(job_id, [])
        if what in ENDED:
            ends.append(what)
        match what:
            case "requested":
                self.owners[job_id] = event.account_id
            case "started":
                self.starts += 1
            case "requeued":
                self.requeued[event.reason] += 1
            case "failed":
                self.failed[event.reason] += 1
            case "completed":
                self.digests[job_id] = event.sha256

    @property
    def states(self) -> Counter[str]:
        """Jobs by their (first) end."""
        return Counter(ends[0] for ends in self.ends.values() if ends)


async def tally(url: str) -> tuple[Tally, int]:
    """Read the whole log; also how many holds are open now."""
    found = Tally()
    async with AsyncConnectionPool(
        url, min_size=1, max_size=2, open=False, kwargs={"autocommit": True}
    ) as pool:
        reader = PostgresLogReader(pool, Categories(CATEGORIES))
        after = 0
        while page := await reader.read(after=after, limit=PAGE):
            after = page[-1].position
            for envelope in page:
                found.add(envelope)
        still_open = 0
        for account_id in found.accounts:
            account = (await reader.state(account_id)).state
            still_open += sum(1 for _ in holds_.each(account.holds))
    return found, still_open


def rows(url: str) -> dict[str, Any]:
    """What is beside the log: the queue, and the delivered images' keys."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        waiting = connection.execute("SELECT count(*) AS n FROM job_queue").fetchone()
        results = connection.execute("SELECT job_id, image_key FROM job_results").fetchall()
    return {
        "queue": waiting["n"] if waiting else 0,
        "images": {row["job_id"]: row["image_key"] for row in results},
    }


def checks(
    book: Book,
    found: Tally,
    holds_open: int,
    beside: Mapping[str, Any],
    fetched: Mapping[str, str | None],
    held_by_api: int,
) -> list[Check]:
    """Everything that must be so, with what is."""
    delivered = len(found.digests)
    asked = set(found.ends)
    return [
        Check("jobs that have not ended", sum(not ends for ends in found.ends.values()), 0),
        Check("jobs that ended twice", sum(len(ends) > 1 for ends in found.ends.values()), 0),
        Check("rows left in the queue", beside["queue"], 0),
        Check("accepted requests without their job", len(set(book.accepted) - asked), 0),
        Check(
            "jobs of somebody else",
            sum(found.owners.get(job) != who for job, who in book.accepted.items()),
            0,
        ),
        Check("jobs beyond accepted and unanswered requests", _excess(book, asked), 0),
        Check(
            "ends told over HTTP that are not so",
            sum(found.ends.get(job) != [state] for job, state in book.ended.items()),
            0,
        ),
        Check("contradicting answers", len(book.contradictions), 0),
        Check("holds open", holds_open, 0),
        Check("holds open, as the API says", held_by_api, 0),
        Check("holds resolved", sum(found.holds[name] for name in RESOLUTIONS), found.holds["credits_held"]),
        Check("credits captured", sum(found.captured_by_job.values()), delivered),
        Check("jobs charged twice", sum(count > 1 for count in found.captures_by_job.values()), 0),
        Check("charged jobs without an image", len(set(found.captured_by_job) - set(found.digests)), 0),
        Check("delivered images in the index", set(beside["images"]) == set(found.digests), True),
        Check(
            "images fetched with the right digest",
            sum(fetched.get(job) == digest for job, digest in found.digests.items()),
            delivered,
        ),
    ]


def _excess(book: Book, asked: set[str]) -> int:
    return max(0, len(asked - set(book.accepted)) - book.unanswered)


def files_left_over(objects: Path, beside: Mapping[str, Any]) -> int:
    """Image files that no result names: an API process was killed between the file and the record."""
    named = set(beside["images"].values())
    return sum(f"images/{path.name}" not in named for path in (objects / "images").glob("*.png"))
