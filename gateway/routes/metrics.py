"""`/metrics` for Prometheus: numbers only, no ids. Answered on this machine only."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from gateway.problems import Problem
from gateway.services import Services
from generation.stats import QueueFigures, figures

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Figures for Prometheus", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """This process's counters, and the queue as PostgreSQL knows it."""
    services: Services = request.app.state.services
    # Behind a configured proxy the forwarded address counts.
    if not services.origins.address(request).is_loopback:
        raise Problem(404, "not_found", "There is nothing here.")
    found = await figures(services.engine, services.clock())
    registry = CollectorRegistry()
    _show(registry, services, found)
    text = generate_latest(services.dispatch.metrics.registry) + generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _show(registry: CollectorRegistry, services: Services, found: QueueFigures) -> None:
    _labelled(registry, "jobs", "Jobs that have not ended, by state.", found.jobs.items())
    _labelled(registry, "boxes", "Boxes heard of lately, by state.", found.boxes.items())
    _labelled(registry, "job_payments", "Payments for one job alone, under way.", found.payments.items())
    states = {name: int(state["ok"]) for name, state in services.supervision.report().items()}
    _labelled(registry, "rail_open", "Whether a way to pay works.", states.items())
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
        ("commands_waiting", "Commands that the log has not taken yet.", services.sequencer.waiting),
        ("event_streams", "Open event streams in this process.", sum(services.streams.values())),
        ("wake_ups", "1 if Redis carries wake-ups.", int(services.signals.connected)),
    ):
        Gauge(f"llamasketch_{name}", help_text, registry=registry).set(value)


def _labelled(
    registry: CollectorRegistry, name: str, help_text: str, values: Iterable[tuple[str, int]]
) -> None:
    gauge = Gauge(f"llamasketch_{name}", help_text, ["name"], registry=registry)
    for label, value in values:
        gauge.labels(label).set(value)
