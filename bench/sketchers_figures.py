"""What `bench.sketchers` measures, and how it is said."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from bench.sketchers_people import Sketcher
from bench.surroundings import percentile

OFTEN = 5
"""Images after which a person's own median says something."""
BANDS_SECONDS = (3.0, 6.0, 12.0, 30.0)
"""Waits are grouped by these for the estimates."""
ENDS = ("completed", "superseded", "expired", "failed", "cancelled")


class Returned(NamedTuple):
    """A range that was shown, and what came, in seconds."""

    low: int
    high: int
    wait: float
    group: str


@dataclass
class Figures:
    """Counted while it runs."""

    workers: int
    seconds: int
    people: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    replaced: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    """What workers were answered."""
    busy_seconds: float = 0.0
    idle_while_waiting: float = 0.0
    """Worker seconds."""
    empty_claims: int = 0
    still_waiting: int = 0
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    since_stroke: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    by_person: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    returned: list[Returned] = field(default_factory=list)

    @property
    def delivered(self) -> int:
        """Images so far."""
        return self.reported["completed"]

    def note(
        self, person: Sketcher, wait: float, since_first: float, returned: tuple[int, int] | None
    ) -> None:
        """An image was delivered so long after it was asked for, and this range had been shown."""
        group = "batch" if person.habit == "batch" else person.plan
        self.waits[group].append(wait)
        self.since_stroke[group].append(since_first)
        self.by_person[(group, person.number)].append(wait)
        if returned is not None:
            self.returned.append(Returned(*returned, wait, group))

    def summary(self, ends: Counter[str]) -> dict[str, Any]:
        """Everything, and whether what was seen is what the log says."""
        seen = {
            "completed": self.reported["completed"],
            "superseded": self.reported["superseded"] + self.replaced,
        }
        capacity = self.workers * self.seconds
        return {
            "people": sum(self.people.values()),
            "kinds_of_people": dict(self.people),
            "workers": self.workers,
            "simulated_seconds": self.seconds,
            "asked": self.asked,
            "refused": dict(self.refused),
            "delivered": self.reported["completed"],
            "replaced_while_waiting": self.replaced,
            "painted_in_vain": self.reported["superseded"],
            "expired": ends["expired"],
            "still_waiting": self.still_waiting,
            "gpu_busy_percent": round(100 * self.busy_seconds / capacity, 1),
            "gpu_idle_while_anybody_waits_percent": round(100 * self.idle_while_waiting / capacity, 3),
            "empty_claims": self.empty_claims,
            "stroke_to_image_seconds": {group: _waits(self.waits[group]) for group in sorted(self.waits)},
            "oldest_replaced_stroke_to_image_seconds": {
                group: _waits(self.since_stroke[group]) for group in sorted(self.since_stroke)
            },
            "fairness": {group: self._fairness(group) for group in sorted(self.waits)},
            "estimates": self._estimates(),
            "log": {name: ends[name] for name in ENDS},
            "credits_captured": ends["captured"],
            "holds_open": ends["held"] - ends["captured"] - ends["released"],
            "adds_up": all(ends[name] == count for name, count in seen.items())
            and ends["captured"] == ends["completed"]
            and ends["held"] == ends["captured"] + ends["released"]
            and not self.still_waiting,
        }

    def _fairness(self, group: str) -> dict[str, Any]:
        """People of one plan against each other, each by the median of their own waits."""
        medians = sorted(
            statistics.median(waits)
            for (mine, _), waits in self.by_person.items()
            if mine == group and len(waits) >= OFTEN
        )
        if not medians:
            return {"people": 0}
        middle = statistics.median(medians)
        return {
            "people": len(medians),
            "median_person": round(middle, 2),
            "worst_person": round(medians[-1], 2),
            "worst_to_median": round(medians[-1] / middle, 2),
            "worst_single_wait": round(max(self.waits[group]), 1),
        }

    def _estimates(self) -> dict[str, Any]:
        bands: dict[str, list[Returned]] = defaultdict(list)
        groups: dict[str, list[Returned]] = defaultdict(list)
        for returned in self.returned:
            bands[_band(returned.wait)].append(returned)
            groups[returned.group].append(returned)
        names = [_band(edge - 0.001) for edge in BANDS_SECONDS] + [_band(1e9)]
        return {
            "all": judged_of(self.returned),
            "by_plan": {name: judged_of(groups[name]) for name in sorted(groups)},
            "by_real_wait": {name: judged_of(bands[name]) for name in names if bands[name]},
        }


def _band(wait: float) -> str:
    edge = next((edge for edge in BANDS_SECONDS if wait < edge), None)
    return f"under {edge:g} s" if edge is not None else f"{BANDS_SECONDS[-1]:g} s and more"


def judged_of(returned: Sequence[Returned]) -> dict[str, Any]:
    """How often these ranges held, and how wide they were beside the real waits."""
    if not returned:
        return {"shown": 0}
    count = len(returned)
    return {
        "shown": count,
        "held_percent": round(100 * sum(t.low <= t.wait <= t.high for t in returned) / count, 1),
        "too_soon_percent": round(100 * sum(t.wait < t.low for t in returned) / count, 1),
        "too_late_percent": round(100 * sum(t.wait > t.high for t in returned) / count, 1),
        "wait_p50": round(statistics.median(t.wait for t in returned), 1),
        "low_p50": statistics.median(t.low for t in returned),
        "high_p50": statistics.median(t.high for t in returned),
        "width_to_wait_p50": round(
            statistics.median((t.high - t.low) / max(t.wait, 0.2) for t in returned), 2
        ),
    }


def _waits(waits: Sequence[float]) -> dict[str, Any]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        "images": len(waits),
        **{name: round(percentile(waits, share), 2) for name, share in shares.items()},
    }


async def ended_in_the_log(connection: psycopg.AsyncConnection[Any]) -> Counter[str]:
    """Events of the log by what they say: ends of jobs, and `held`, `captured`, `released` credits' holds."""
    cursor = await connection.execute("SELECT topic, count(*) FROM stored_events GROUP BY topic")
    names = {str(topic).split(".")[1]: int(count) for topic, count in await cursor.fetchall()}
    found = Counter({end: names.get(f"job_{end}", 0) for end in ENDS})
    found["held"] = names.get("credits_held", 0)
    found["captured"] = names.get("hold_captured", 0)
    found["released"] = names.get("hold_released", 0) + names.get("hold_expired", 0)
    return found


def table(result: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [
        f"{result['people']} people, {result['workers']} workers, {result['simulated_seconds']} simulated seconds",
        f"{result['asked']} asked, {result['delivered']} delivered, {result['expired']} expired",
        f"{result['replaced_while_waiting']} replaced while waiting, {result['painted_in_vain']} painted in vain",
        f"GPUs busy: {result['gpu_busy_percent']} %",
        f"GPUs idle while anybody waits: {result['gpu_idle_while_anybody_waits_percent']} %",
        f"taken: {result['wall_seconds']} s",
        "",
        f"  {'':8}{'images':>8}{'p50 s':>8}{'p95 s':>8}{'p99 s':>8}{'worst person : median':>24}",
    ]
    for group, waits in result["stroke_to_image_seconds"].items():
        ratio = result["fairness"][group].get("worst_to_median", "-")
        figures = "".join(f"{waits[name]:>8}" for name in ("images", "p50", "p95", "p99"))
        lines.append(f"  {group:8}{figures}{ratio:>24}")
    lines += ["", "  Estimates, by plan and by how long it really took:"]
    estimates = result["estimates"]
    for name, judged in {
        "all": estimates["all"],
        **estimates["by_plan"],
        **estimates["by_real_wait"],
    }.items():
        if judged["shown"]:
            lines.append(
                f"  {name:14}{judged['shown']:>8} shown, {judged['held_percent']:>5} % held, "
                f"{judged['too_soon_percent']:>5} % came sooner, {judged['too_late_percent']:>5} % later; "
                f"shown {judged['low_p50']:g} to {judged['high_p50']:g} s, real {judged['wait_p50']} s"
            )
    lines += ["", "It adds up." if result["adds_up"] else "IT DOES NOT ADD UP."]
    return "\n".join(lines)
