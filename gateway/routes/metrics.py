"""`/metrics` for Prometheus: numbers only, no ids. Answered to who has the token; while trying out, to this machine."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from gateway.auth.networks import Origins
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.settings import Settings
from gateway.wiring.dependencies import (
    ClockDep,
    DifferencesDep,
    DispatchDep,
    EngineDep,
    OpenStreamsDep,
    OriginsDep,
    SequencerDep,
    SettingsDep,
    SignalsDep,
    SupervisionDep,
)
from generation.fleet.statistics import QueueFigures, figures
from ledger.followups.figures import Figures as FollowUpFigures
from processes.followups import followup_figures
from rails.store.differences import OpenDifferences

router = APIRouter(route_class=BoundedRoute, tags=["health"])


class ProcessFigures(NamedTuple):
    """What only this process knows."""

    rails: Mapping[str, int]
    receivable: Mapping[str, int]
    followed: Mapping[str, Mapping[str, Any]]
    """By rail: how far the chain was read that it follows."""
    commands_waiting: int
    invariant_violations: int
    event_streams: int
    wake_ups: int


async def process_figures(
    supervision: SupervisionDep, sequencer: SequencerDep, signals: SignalsDep, streams: OpenStreamsDep
) -> ProcessFigures:
    """Dependency: this process's own figures."""
    report = supervision.report()
    return ProcessFigures(
        rails={name: int(state["ok"]) for name, state in report.items()},
        receivable={
            f"{name}:{asset}": minor
            for name, state in report.items()
            for asset, minor in (state["receivable"] or {}).items()
        },
        followed={name: state["following"] for name, state in report.items() if state["following"]},
        commands_waiting=sequencer.waiting,
        invariant_violations=sequencer.violations,
        event_streams=streams.count,
        wake_ups=int(signals.connected),
    )


@router.get("/metrics", summary="Figures for Prometheus", include_in_schema=False)
async def metrics(
    request: Request,
    settings: SettingsDep,
    origins: OriginsDep,
    engine: EngineDep,
    clock: ClockDep,
    dispatch: DispatchDep,
    differences: DifferencesDep,
    process: Annotated[ProcessFigures, Depends(process_figures)],
) -> Response:
    """This process's counters, and the queue as PostgreSQL knows it."""
    if not _may_read(request, settings, origins):
        raise Problem("not_found", "There is nothing here.")
    registry = CollectorRegistry()
    _show_queue(registry, await figures(engine, clock()))
    _show_process(registry, process, clock())
    _show_followups(registry, await followup_figures(engine, clock))
    _show_differences(registry, await differences.figures(), clock())
    text = generate_latest(dispatch.metrics.registry) + generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _may_read(request: Request, settings: Settings, origins: Origins) -> bool:
    """By the token if there is one. Without one a proxy on this machine would open the page to the world, so
    only the try-out stack answers, and to this machine; behind a configured proxy the forwarded address counts."""
    token = settings.metrics_token.get_secret_value()
    if not token:
        return settings.embedded and origins.address(request).is_loopback
    return hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode())


def _show_queue(registry: CollectorRegistry, found: QueueFigures) -> None:
    _labelled(registry, "jobs", "Jobs that have not ended, by state.", found.jobs.items())
    _labelled(registry, "workers", "Workers heard of lately, by state.", found.workers.items())
    _labelled(registry, "job_payments", "Payments for one job alone, under way.", found.payments.items())
    for name, help_text, value in (
        ("people_waiting", "People with a waiting job.", found.people_waiting),
        ("oldest_wait_seconds", "How long the oldest waiting job has waited.", found.oldest_wait_seconds),
        ("images_last_hour", "Images delivered in the last hour.", found.delivered),
        ("wait_p95_milliseconds", "Requested to leased, last hour.", found.wait_p95),
        (
            "images_per_gpu_hour",
            "Images that an hour of GPU time gives, last hour.",
            found.images_per_gpu_hour,
        ),
    ):
        Gauge(f"llamasketch_{name}", help_text, registry=registry).set(value)


def _show_followups(registry: CollectorRegistry, found: Sequence[FollowUpFigures]) -> None:
    waiting = [(kind.kind, kind.waiting) for kind in found]
    failing = [(kind.kind, kind.failing) for kind in found]
    _labelled(registry, "followups_waiting", "Follow-ups that are due or failing, by kind.", waiting)
    _labelled(registry, "followups_failing", "Follow-ups that failed when last tried, by kind.", failing)


def _show_differences(registry: CollectorRegistry, found: Sequence[OpenDifferences], now: datetime) -> None:
    help_text = "What a rail's books and ours do not agree on, by rail. Any is an alert."
    _labelled(registry, "rail_differences", help_text, [(rail.rail, rail.stands) for rail in found])
    ages = [
        (rail.rail, 0 if rail.oldest is None else int((now - rail.oldest).total_seconds())) for rail in found
    ]
    _labelled(registry, "rail_difference_seconds", "How long the oldest of them has stood, by rail.", ages)


def _age(then: datetime | None, now: datetime) -> float:
    return inf if then is None else int((now - then).total_seconds())


def _show_process(registry: CollectorRegistry, process: ProcessFigures, now: datetime) -> None:
    Counter(
        "llamasketch_invariant_violations",
        "Commands that would have broken the books and were not kept. Any is an alert.",
        registry=registry,
    ).inc(process.invariant_violations)
    _labelled(registry, "rail_open", "Whether a payment method works.", process.rails.items())
    receivable = "What a payment method can receive now, in minor units, where something limits it."
    _labelled(registry, "rail_receivable", receivable, process.receivable.items())
    behind = "Blocks that are known and not read yet, of the chain that a payment method follows."
    found = process.followed.items()
    _labelled(registry, "rail_behind", behind, [(rail, chain["behind"]) for rail, chain in found])
    age = "How long ago that chain was last read to its end; infinite before that."
    _labelled(
        registry, "rail_unread_seconds", age, [(rail, _age(chain["as_of"], now)) for rail, chain in found]
    )
    for name, help_text, value in (
        ("commands_waiting", "Commands that the log has not taken yet.", process.commands_waiting),
        ("event_streams", "Open event streams in this process.", process.event_streams),
        ("wake_ups", "1 if Redis carries wake-ups.", process.wake_ups),
    ):
        Gauge(f"llamasketch_{name}", help_text, registry=registry).set(value)


def _labelled(
    registry: CollectorRegistry, name: str, help_text: str, values: Iterable[tuple[str, float]]
) -> None:
    gauge = Gauge(f"llamasketch_{name}", help_text, ["name"], registry=registry)
    for label, value in values:
        gauge.labels(label).set(value)
