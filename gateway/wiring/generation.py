"""Making images: requests, the queue, the workers, and where pictures are kept."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from gateway.derived_secrets import WORKER_REGISTRATION
from gateway.settings import Settings
from gateway.wiring.foundation import Foundation
from generation.delivery.dispatch import Dispatch
from generation.domain.requests import Limits
from generation.fleet.registry import WorkerRegistry
from generation.images.executors import Executor, ProcessExecutor
from generation.images.moderation import TermModeration
from generation.images.object_store import BucketStore, DiskStore, LinkSigner, ObjectStore
from generation.images.results import ResultProcesses
from generation.images.uploads import UploadProcesses
from generation.jobs.funding import FundingProcess
from generation.jobs.metrics import Metrics
from generation.jobs.service import Generations
from generation.queueing.queue import JobQueue
from processes.pay_per_image import PaymentFunding
from rails.payments.service import Payments


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationServices:
    """What people and workers ask for, and what both stand on."""

    generations: Generations
    dispatch: Dispatch
    funding_process: FundingProcess
    queue: JobQueue
    registry: WorkerRegistry
    store: ObjectStore
    signer: LinkSigner
    executor: Executor
    uploads: UploadProcesses
    metrics: Metrics


def build_generation(
    base: Foundation, payments: Payments, stack: contextlib.AsyncExitStack
) -> GenerationServices:
    """Everything about images. `stack` ends the processes that decode them."""
    settings = base.settings
    executor, results = ProcessExecutor(), ResultProcesses(settings.upload_processes)
    stack.push_async_callback(executor.close)
    stack.push_async_callback(results.close)
    uploads = _upload_processes(settings)
    stack.push_async_callback(uploads.close)
    signer = LinkSigner(settings.secret_for("object-links"), base.clock)
    registry = WorkerRegistry(
        base.engine,
        base.clock,
        base.identifiers,
        registration_secret=settings.secret_for(WORKER_REGISTRATION),
    )
    store = object_store(settings, signer, executor, results)
    queue, moderation, metrics = JobQueue(base.engine, base.pool), TermModeration(), Metrics()
    funding_process = _funding_process(base, payments, queue, metrics)
    dispatch = Dispatch(
        log=base.sequencer,
        reader=base.reader,
        queue=queue,
        store=store,
        signals=base.signals,
        moderation=moderation,
        clock=base.clock,
        funding_process=funding_process,
        metrics=metrics,
        registry=registry,
    )
    generations = Generations(
        log=base.sequencer,
        reader=base.reader,
        queue=queue,
        store=store,
        signals=base.signals,
        moderation=moderation,
        clock=base.clock,
        funding_process=funding_process,
        metrics=metrics,
        digest_secret=settings.secret_for("input-digests"),
        limits=_limits(settings),
    )
    return GenerationServices(
        generations=generations,
        dispatch=dispatch,
        funding_process=funding_process,
        queue=queue,
        registry=registry,
        store=store,
        signer=signer,
        executor=executor,
        uploads=uploads,
        metrics=metrics,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        paid_apart_account=settings.held_images_account,
        paid_apart_networks=(settings.held_images_address, settings.held_images_site),
        paid_apart=settings.held_images,
    )


def _upload_processes(settings: Settings) -> UploadProcesses:
    return UploadProcesses(
        settings.upload_processes,
        waiting_each=settings.uploads_waiting_network,
        waiting_max=settings.uploads_waiting,
        cpu_seconds_max=settings.upload_cpu_seconds,
    )


def _funding_process(
    base: Foundation, payments: Payments, queue: JobQueue, metrics: Metrics
) -> FundingProcess:
    return FundingProcess(
        funding=PaymentFunding(payments, base.settings.public_url),
        log=base.sequencer,
        queue=queue,
        signals=base.signals,
        clock=base.clock,
        identifiers=base.identifiers,
        metrics=metrics,
    )


def object_store(
    settings: Settings, signer: LinkSigner, executor: Executor, checker: Executor | None = None
) -> ObjectStore:
    """The store that the settings name: the local disk, or a bucket. Raises `ValueError`."""
    if not settings.object_store_url:
        return DiskStore(
            settings.data / "objects", signer, settings.public_url, executor=executor, checker=checker
        )
    scheme, _, bucket = settings.object_store_url.partition("://")
    if scheme != "s3" or not bucket:
        raise ValueError("LLAMASKETCH_OBJECT_STORE_URL is written s3://bucket")
    config: dict[str, Any] = {
        "region": settings.object_store_region,
        "access_key_id": settings.object_store_access_key.get_secret_value(),
        "secret_access_key": settings.object_store_secret_key.get_secret_value(),
    }
    if settings.object_store_endpoint:
        config["endpoint"] = settings.object_store_endpoint
        config["virtual_hosted_style_request"] = False
        endpoints = (settings.object_store_endpoint, settings.object_store_public_endpoint)
        config["client_options"] = {"allow_http": any(one.startswith("http://") for one in endpoints)}
    return BucketStore.connect(
        bucket, checker=checker, public_endpoint=settings.object_store_public_endpoint, **config
    )
