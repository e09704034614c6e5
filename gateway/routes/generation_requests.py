"""From a body to a `GenerationRequest`, and what happens when the same one is sent again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from fastapi import Request

from gateway.auth.identity import NetworkKeys, Principal
from gateway.auth.l402 import opted_in, wanted_credits
from gateway.auth.limits import Limiter
from gateway.auth.networks import Origins, prefixes, quotas
from gateway.auth.prepaid import Asked, Prepaid
from gateway.auth.topup_links import TopupLinks
from gateway.http.problems import Problem, problem_of
from gateway.http.request_keys import RequestKeys, SentRequest
from gateway.routes.generation_shapes import GenerationIn
from gateway.routes.live import SessionNames, SessionNamesDep
from gateway.routes.presenting import balance, image_prices
from gateway.routes.sketch_data import sent_data
from gateway.settings import Settings
from gateway.wiring.dependencies import (
    ClockDep,
    GenerationsDep,
    IdentifiersDep,
    LedgerDep,
    LimiterDep,
    NetworkKeysDep,
    OriginsDep,
    PaymentsDep,
    PrepaidDep,
    RequestKeysDep,
    SettingsDep,
    TopupLinksDep,
    UploadsDep,
)
from generation.domain.errors import UploadsBusy
from generation.domain.funding import FundingOrder
from generation.domain.quotas import NetworkQuota, QuotasOf
from generation.domain.requests import Accepted, GenerationRequest, price_of, session_key
from generation.domain.sketches import Sketch
from generation.images.checking import inspect_sketch, output_size, read_upload, upright
from generation.images.executors import ExecutorLost
from generation.images.uploads import Uploads
from generation.jobs.admission import REQUEST_KIND
from generation.jobs.foreseeing import RequestOutline
from generation.jobs.service import Generations
from ledger.clock import Clock
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, HoldId, Identifiers, JobId
from ledger.service import Ledger
from rails.contract import RailError
from rails.payments.service import Payments

ROUTE = "POST /v1/generations"
PAYABLE = frozenset({"insufficient_credits", "allowance_shared_out"})
"""What a payment mends at once."""
STRENGTH_PERMILLE = 600
"""How closely the lines are kept when nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Takes requests for images, each once, however often it is sent."""

    generations: Generations
    ledger: Ledger
    payments: Payments
    keys: RequestKeys
    uploads: Uploads
    limiter: Limiter
    links: TopupLinks
    prepaid: Prepaid
    identifiers: Identifiers
    origins: Origins
    network_keys: NetworkKeys
    names: SessionNames
    clock: Clock
    settings: Settings

    async def accept(
        self, request: Request, caller: Principal, body: GenerationIn, key: str | None
    ) -> Accepted:
        """Hold the price and queue the job. Raises `Problem` or a `Refusal`; 402 comes with the balance."""
        check_parts(body)
        data = sent_data(body.sketch)
        await self.limiter.upload(request, caller, len(data))
        price = price_of(*output_size(*upright(inspect_sketch(data, body.sketch.content_type))))
        if caller.prepays and body.funding is not None:
            raise Problem("invalid_request", "An L402 token pays for its calls itself: leave funding out.")
        sent = await self._sent(request, caller, key)
        for asked_again in (False, True):
            try:
                return await self._accepted(request, caller, body, data, price, sent)
            except Exception as error:
                problem = problem_of(error)
                if problem.status != 402:
                    raise
                if not asked_again and caller.token_id and await self.prepaid.settle(caller.token_id):
                    continue  # it was paid a moment ago
                raise await self._payment_required(request, caller, key, problem, price) from error
        raise AssertionError("it is accepted or refused")

    async def _sent(self, request: Request, caller: Principal, key: str | None) -> SentRequest:
        if key is None:  # each such request stands for itself
            job_id = self.identifiers.job()
            return SentRequest(CommandKey(f"{job_id}:0"), "", job_id)
        return await self.keys.find(
            principal=caller.account_id,
            route=ROUTE,
            kind=REQUEST_KIND,
            key=key,
            body=await request.body(),
        )

    async def _accepted(
        self,
        request: Request,
        caller: Principal,
        body: GenerationIn,
        data: bytes,
        price: int,
        sent: SentRequest,
    ) -> Accepted:
        account_id, job_id = caller.account_id, JobId(sent.resource_id or self.identifiers.job())
        funding = body.funding.method if body.funding else None
        if sent.outcome is not None:
            order = FundingOrder(
                job_id=job_id, account_id=account_id, method=funding or "", price_credits=price
            )
            return await self.generations.accepted(sent.outcome, order)
        networks = self._networks(request, caller)
        outline = RequestOutline(
            account_id=account_id,
            price=price,
            networks=networks(self.clock()),
            live=body.live,
            graph=self.settings.graph,
            pays_apart=funding is not None,
        )
        async with self._turn(account_id, body):
            await self.generations.foresee(outline)
            return await self.generations.request(
                GenerationRequest(
                    key=sent.command_key,
                    sent_digest=sent.digest,
                    job_id=job_id,
                    hold_id=HoldId("hold_" + job_id.removeprefix("job_")),
                    account_id=account_id,
                    prompt=body.prompt,
                    sketch=await self._read(request, data, body.sketch.content_type),
                    seed=seed_of(job_id) if body.seed is None else body.seed,
                    strength_permille=STRENGTH_PERMILLE
                    if body.strength is None
                    else round(body.strength * 1000),
                    live=body.live,
                    session_id=body.session_id and await self.names.use(account_id, body.session_id),
                    seq=body.seq,
                    variation=body.variation,
                    session_cap=body.session_cap,
                    funding=funding,
                    networks=networks,
                    graph=self.settings.graph,
                )
            )

    def _turn(
        self, account_id: AccountId, body: GenerationIn
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Of a live frame, among those of its session that come at the same time."""
        if not body.live or body.session_id is None or body.seq is None:
            return contextlib.nullcontext()
        return self.generations.frames.turn(session_key(account_id, body.session_id), body.seq)

    async def _read(self, request: Request, data: bytes, content_type: str) -> Sketch:
        """The drawing, decoded away from here, in its network's turn. Raises `SketchRejected`."""
        network = prefixes(self.origins.address(request))[-1]
        try:
            sketch = await self.uploads.run(network, read_upload, data, content_type)
        except (ExecutorLost, OSError) as error:  # no fault of the sketch's
            raise UploadsBusy from error
        return sketch if sketch.data else sketch._replace(data=data)

    def _networks(self, request: Request, caller: Principal) -> QuotasOf:
        """A day's free images of where the request comes from; none for whoever pays for each call."""
        if caller.prepays:
            return none_free
        return partial(
            quotas,
            self.origins.address(request),
            self.network_keys,
            narrow=self.settings.network_allowance_address,
            wide=self.settings.network_allowance_site,
        )

    async def _payment_required(
        self, request: Request, caller: Principal, key: str | None, problem: Problem, price: int
    ) -> Problem:
        account = await self.ledger.account(caller.account_id)
        shown = {
            **problem.extra,
            "balance": balance(account).model_dump(),
            "needed_credits": price,
            "image_prices": image_prices(self.payments, price),
        }
        if not caller.nobody:
            shown["topup_url"] = self.links.issue(caller.account_id, price)
        if not opted_in(request.headers) or problem.code not in PAYABLE:
            return Problem(problem.code, problem.detail, **shown)
        missing = price + account.debt - (account.available - account.claimable)
        asked = Asked(
            holder=await self._holder(request, caller, key),
            account_id=caller.account_id,
            credits=max(missing, wanted_credits(request.headers) or 0),
            networks=self._digests(request),
            narrowed=caller.narrowed,
        )
        try:
            headers = {"WWW-Authenticate": await self.prepaid.challenge(asked)}
        except (Problem, Refusal, RailError):
            if caller.prepays:
                raise
            return Problem(problem.code, problem.detail, **shown)
        if caller.prepays:
            return Problem("payment_required", headers=headers, **shown)
        return Problem(problem.code, problem.detail, headers=headers, **shown)

    async def _holder(self, request: Request, caller: Principal, key: str | None) -> str:
        """Who is asked to pay. Nobody is known by where it is, and what it asks for."""
        if not caller.nobody:
            return f"account:{caller.account_id}"
        sent = hashlib.sha256(await request.body()).hexdigest()
        return f"nobody:{prefixes(self.origins.address(request))[0]}:{key or ''}:{sent}"

    def _digests(self, request: Request) -> list[str]:
        day = self.clock().replace(hour=0, minute=0, second=0, microsecond=0)
        return [self.network_keys.key(prefix, day) for prefix in prefixes(self.origins.address(request))]


async def requests_of(
    generations: GenerationsDep,
    ledger: LedgerDep,
    payments: PaymentsDep,
    keys: RequestKeysDep,
    uploads: UploadsDep,
    limiter: LimiterDep,
    links: TopupLinksDep,
    prepaid: PrepaidDep,
    identifiers: IdentifiersDep,
    origins: OriginsDep,
    network_keys: NetworkKeysDep,
    names: SessionNamesDep,
    clock: ClockDep,
    settings: SettingsDep,
) -> Requests:
    """Dependency: what takes requests for images."""
    return Requests(
        generations=generations,
        ledger=ledger,
        payments=payments,
        keys=keys,
        uploads=uploads,
        limiter=limiter,
        links=links,
        prepaid=prepaid,
        identifiers=identifiers,
        origins=origins,
        network_keys=network_keys,
        names=names,
        clock=clock,
        settings=settings,
    )


def check_parts(body: GenerationIn) -> None:
    """Whether the parts of a body fit together. Raises `Problem` 422."""
    if body.live and (body.session_id is None or body.seq is None):
        raise Problem("invalid_request", "A live frame needs session_id and seq.")
    if body.variation and (body.live or body.session_id is None):
        raise Problem("invalid_request", "A variation needs session_id and is no live frame.")
    if body.funding is not None and (body.live or body.variation):
        raise Problem("invalid_request", "A payment for one image alone cannot pay for a session.")


def seed_of(job_id: JobId) -> int:
    """Without a seed the job's own random tail is one: the same request gives the same picture."""
    return int.from_bytes(job_id[-8:].encode(), "big") & 0xFFFFFFFF


def none_free(now: datetime) -> Sequence[NetworkQuota]:
    """`QuotasOf` whoever has no free images, wherever they come from."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return (NetworkQuota("prepaid", 0, day + timedelta(days=1)),)
