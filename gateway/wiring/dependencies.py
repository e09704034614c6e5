"""FastAPI dependencies: one per service, so that a route's signature names what it uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeAlias

import httpx
import structlog
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.authentication import Authenticator, unauthenticated
from gateway.auth.identity import NetworkKeys, Principal, VisitorTokens
from gateway.auth.limits import Limiter
from gateway.auth.networks import Origins
from gateway.auth.operators import Operators
from gateway.auth.people import People
from gateway.auth.prepaid import Prepaid
from gateway.auth.sessions import Sessions
from gateway.auth.sign_in_links import SignInLinks
from gateway.auth.topup_links import WATCHED_AFTER, TopupLink, TopupLinks
from gateway.bounds.streams import OpenStreams
from gateway.http.idempotency import IdempotencyKeys
from gateway.http.problems import Problem
from gateway.http.request_keys import RequestKeys
from gateway.settings import Settings
from gateway.streams.news import News
from gateway.wiring.mail import MailServices
from gateway.wiring.services import Services
from generation.delivery.dispatch import Dispatch
from generation.fleet.registry import Worker, WorkerRegistry
from generation.images.object_store import LinkSigner, ObjectStore
from generation.images.uploads import Uploads
from generation.jobs.service import Generations
from generation.queueing.signals import RedisSignals
from ledger.catalogue import Catalogue
from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.sequencer import Sequencer
from ledger.ownership import Ownership
from ledger.service import Ledger
from processes.auto_topups.service import AutoTopups
from processes.guest_merge import Guests
from processes.operating import Operations
from projections.accounts import Statements
from projections.debts import Debts
from projections.feed import Feeds
from projections.runner import ProjectionRunner
from rails.payments.runner import Supervision
from rails.payments.service import Payments
from rails.reconciliation.service import Reconciliation
from rails.store.differences import Differences
from rails.store.overview import PaymentOverview
from rails.subscriptions.service import Subscriptions


def _services(request: Request) -> Services:
    # A plain call: as a dependency of each dependency below it took a fifth of the time of GET /v1/account.
    services: Services = request.app.state.services
    return services


async def _settings(request: Request) -> Settings:
    return _services(request).base.settings


async def _clock(request: Request) -> Clock:
    return _services(request).base.clock


async def _identifiers(request: Request) -> Identifiers:
    return _services(request).base.identifiers


async def _engine(request: Request) -> AsyncEngine:
    return _services(request).base.engine


async def _reserved(request: Request) -> AsyncEngine:
    return _services(request).base.reserved


async def _reader(request: Request) -> PostgresLogReader:
    return _services(request).base.reader


async def _sequencer(request: Request) -> Sequencer:
    return _services(request).base.sequencer


async def _signals(request: Request) -> RedisSignals:
    return _services(request).base.signals


async def http_of(request: Request) -> httpx.AsyncClient:
    """Dependency, also for routers that are plugged in."""
    return _services(request).base.http


async def _catalogue(request: Request) -> Catalogue:
    return _services(request).base.catalogue


async def _ledger(request: Request) -> Ledger:
    return _services(request).ledger.ledger


async def _guests(request: Request) -> Guests:
    return _services(request).ledger.guests


async def _projections(request: Request) -> ProjectionRunner:
    return _services(request).ledger.projections


async def _statements(request: Request) -> Statements:
    return _services(request).ledger.statements


async def _ownership(request: Request) -> Ownership:
    return _services(request).ledger.ownership


async def _feeds(request: Request) -> Feeds:
    return _services(request).ledger.feeds


async def _debts(request: Request) -> Debts:
    return _services(request).ledger.debts


async def payments_of(request: Request) -> Payments:
    """Dependency, also for routers that are plugged in."""
    return _services(request).payments.payments


async def _subscriptions(request: Request) -> Subscriptions:
    return _services(request).payments.subscriptions


async def _auto_topups(request: Request) -> AutoTopups:
    return _services(request).payments.auto_topups


async def _supervision(request: Request) -> Supervision:
    return _services(request).payments.supervision


async def _generations(request: Request) -> Generations:
    return _services(request).generation.generations


async def _dispatch(request: Request) -> Dispatch:
    return _services(request).generation.dispatch


async def _registry(request: Request) -> WorkerRegistry:
    return _services(request).generation.registry


async def _object_store(request: Request) -> ObjectStore:
    return _services(request).generation.store


async def _link_signer(request: Request) -> LinkSigner:
    return _services(request).generation.signer


async def _uploads(request: Request) -> Uploads:
    return _services(request).generation.uploads


async def _visitor_tokens(request: Request) -> VisitorTokens:
    return _services(request).identity.visitors


async def _sessions(request: Request) -> Sessions:
    return _services(request).identity.sessions


async def _people(request: Request) -> People:
    return _services(request).identity.people


async def _authenticator(request: Request) -> Authenticator:
    return _services(request).identity.authenticator


async def _limiter(request: Request) -> Limiter:
    return _services(request).identity.limiter


async def _origins(request: Request) -> Origins:
    return _services(request).identity.origins


async def _network_keys(request: Request) -> NetworkKeys:
    return _services(request).identity.network_keys


async def _idempotency_keys(request: Request) -> IdempotencyKeys:
    return _services(request).identity.idempotency


async def _topup_links(request: Request) -> TopupLinks:
    return _services(request).identity.topup_links


async def _sign_in_links(request: Request) -> SignInLinks:
    return _services(request).identity.sign_in_links


async def _mail(request: Request) -> MailServices:
    return _services(request).mail


async def _news(request: Request) -> News:
    return _services(request).news


async def _request_keys(request: Request) -> RequestKeys:
    return _services(request).identity.request_keys


async def _operators(request: Request) -> Operators:
    return _services(request).identity.operators


async def _operations(request: Request) -> Operations:
    return _services(request).operations


async def _overview(request: Request) -> PaymentOverview:
    return _services(request).payments.overview


async def _reconciliation(request: Request) -> Reconciliation:
    return _services(request).payments.reconciliation


async def _differences(request: Request) -> Differences:
    return _services(request).payments.differences


async def _prepaid(request: Request) -> Prepaid:
    return _services(request).identity.prepaid


async def _open_streams(request: Request) -> OpenStreams:
    return _services(request).streams


SettingsDep: TypeAlias = Annotated[Settings, Depends(_settings)]
ClockDep: TypeAlias = Annotated[Clock, Depends(_clock)]
IdentifiersDep: TypeAlias = Annotated[Identifiers, Depends(_identifiers)]
EngineDep: TypeAlias = Annotated[AsyncEngine, Depends(_engine)]
ReservedDep: TypeAlias = Annotated[AsyncEngine, Depends(_reserved)]
LogReaderDep: TypeAlias = Annotated[PostgresLogReader, Depends(_reader)]
SequencerDep: TypeAlias = Annotated[Sequencer, Depends(_sequencer)]
SignalsDep: TypeAlias = Annotated[RedisSignals, Depends(_signals)]
CatalogueDep: TypeAlias = Annotated[Catalogue, Depends(_catalogue)]
LedgerDep: TypeAlias = Annotated[Ledger, Depends(_ledger)]
GuestsDep: TypeAlias = Annotated[Guests, Depends(_guests)]
ProjectionsDep: TypeAlias = Annotated[ProjectionRunner, Depends(_projections)]
StatementsDep: TypeAlias = Annotated[Statements, Depends(_statements)]
OwnershipDep: TypeAlias = Annotated[Ownership, Depends(_ownership)]
FeedsDep: TypeAlias = Annotated[Feeds, Depends(_feeds)]
PaymentsDep: TypeAlias = Annotated[Payments, Depends(payments_of)]
SubscriptionsDep: TypeAlias = Annotated[Subscriptions, Depends(_subscriptions)]
AutoTopupsDep: TypeAlias = Annotated[AutoTopups, Depends(_auto_topups)]
SupervisionDep: TypeAlias = Annotated[Supervision, Depends(_supervision)]
GenerationsDep: TypeAlias = Annotated[Generations, Depends(_generations)]
DispatchDep: TypeAlias = Annotated[Dispatch, Depends(_dispatch)]
RegistryDep: TypeAlias = Annotated[WorkerRegistry, Depends(_registry)]
ObjectStoreDep: TypeAlias = Annotated[ObjectStore, Depends(_object_store)]
LinkSignerDep: TypeAlias = Annotated[LinkSigner, Depends(_link_signer)]
UploadsDep: TypeAlias = Annotated[Uploads, Depends(_uploads)]
VisitorTokensDep: TypeAlias = Annotated[VisitorTokens, Depends(_visitor_tokens)]
SessionsDep: TypeAlias = Annotated[Sessions, Depends(_sessions)]
PeopleDep: TypeAlias = Annotated[People, Depends(_people)]
AuthenticatorDep: TypeAlias = Annotated[Authenticator, Depends(_authenticator)]
LimiterDep: TypeAlias = Annotated[Limiter, Depends(_limiter)]
OriginsDep: TypeAlias = Annotated[Origins, Depends(_origins)]
NetworkKeysDep: TypeAlias = Annotated[NetworkKeys, Depends(_network_keys)]
IdempotencyKeysDep: TypeAlias = Annotated[IdempotencyKeys, Depends(_idempotency_keys)]
TopupLinksDep: TypeAlias = Annotated[TopupLinks, Depends(_topup_links)]
SignInLinksDep: TypeAlias = Annotated[SignInLinks, Depends(_sign_in_links)]
MailDep: TypeAlias = Annotated[MailServices, Depends(_mail)]
NewsDep: TypeAlias = Annotated[News, Depends(_news)]
RequestKeysDep: TypeAlias = Annotated[RequestKeys, Depends(_request_keys)]
DebtsDep: TypeAlias = Annotated[Debts, Depends(_debts)]
OperatorsDep: TypeAlias = Annotated[Operators, Depends(_operators)]
OperationsDep: TypeAlias = Annotated[Operations, Depends(_operations)]
OverviewDep: TypeAlias = Annotated[PaymentOverview, Depends(_overview)]
ReconciliationDep: TypeAlias = Annotated[Reconciliation, Depends(_reconciliation)]
DifferencesDep: TypeAlias = Annotated[Differences, Depends(_differences)]
PrepaidDep: TypeAlias = Annotated[Prepaid, Depends(_prepaid)]
OpenStreamsDep: TypeAlias = Annotated[OpenStreams, Depends(_open_streams)]


async def optional_principal(request: Request, authenticator: AuthenticatorDep) -> Principal | None:
    """Dependency: whoever is asking, None if it brought nothing. Raises as `Authenticator.principal`."""
    if "principal" not in request.scope:
        request.scope["principal"] = await authenticator.principal(request)
    found: Principal | None = request.scope["principal"]
    return found


OptionalCaller: TypeAlias = Annotated[Principal | None, Depends(optional_principal)]


async def current_principal(request: Request, principal: OptionalCaller, limiter: LimiterDep) -> Principal:
    """Dependency: whoever is asking. Raises `Problem` 401 if nobody says who, 429 for too many writes."""
    if principal is None:
        raise unauthenticated("Get a visitor token with POST /v1/visitors, or sign in.")
    structlog.contextvars.bind_contextvars(account_id=principal.account_id)
    if "counted" not in request.scope:
        await limiter.check(request, principal)
        request.scope["counted"] = True
    return principal


Caller: TypeAlias = Annotated[Principal, Depends(current_principal)]


async def current_operator(principal: Caller, operators: OperatorsDep) -> Principal:
    """Dependency: the operator who is asking. Raises as `current_principal`, and `Problem` 403 for everybody else."""
    if not await operators.includes(principal):
        raise Problem("operators_only")
    return principal


CallingOperator: TypeAlias = Annotated[Principal, Depends(current_operator)]


async def current_worker(request: Request, registry: RegistryDep) -> Worker:
    """Dependency: the worker that is asking. Raises `Problem` 401."""
    if "worker" not in request.scope:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise unauthenticated("Workers need their bearer token.")
        request.scope["worker"] = await registry.authenticate(token.strip())
    found: Worker = request.scope["worker"]
    return found


CallingWorker: TypeAlias = Annotated[Worker, Depends(current_worker)]


async def current_link(
    request: Request, links: TopupLinksDep, limiter: LimiterDep, clock: ClockDep
) -> TopupLink:
    """Dependency: the link that is asked by, which may have ended within the last day. Cookies do not count.

    Raises `Problem` 403, 429 for too many writes.
    """
    if "link" not in request.scope:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        found = links.read(token.strip()) if kind.lower() == "bearer" else None
        if found is None:
            raise Problem("topup_link_not_valid")
        if clock() >= found.expires_at + WATCHED_AFTER:
            raise Problem("topup_link_expired")
        structlog.contextvars.bind_contextvars(account_id=found.account_id)
        # Of its network alone: whoever has a link uses up nothing of the account's own.
        await limiter.check(request, None)
        request.scope["link"] = found
    link: TopupLink = request.scope["link"]
    return link


LinkHolder: TypeAlias = Annotated[TopupLink, Depends(current_link)]


async def current_mail_link(
    request: Request, mail: MailDep, ownership: OwnershipDep, limiter: LimiterDep
) -> AccountId:
    """Dependency: whose letters the link in the address chooses. Cookies do not count. Raises `Problem` 403, 429."""
    if "mail_link" not in request.scope:
        account_id = mail.links.read(request.path_params["token"])
        if account_id is None:
            raise Problem("mail_link_not_valid")
        await limiter.check(request, None)
        request.scope["mail_link"] = await ownership.owner_of(account_id)
    found: AccountId = request.scope["mail_link"]
    return found


MailLinkHolder: TypeAlias = Annotated[AccountId, Depends(current_mail_link)]


# --- the same, before anything of the body is read ---


async def _admit_anybody(request: Request) -> None:
    await optional_principal(request, _services(request).identity.authenticator)


async def _admit_caller(request: Request) -> None:
    identity = _services(request).identity
    found = await optional_principal(request, identity.authenticator)
    await current_principal(request, found, identity.limiter)


async def _admit_operator(request: Request) -> None:
    identity = _services(request).identity
    found = await optional_principal(request, identity.authenticator)
    caller = await current_principal(request, found, identity.limiter)
    await current_operator(caller, identity.operators)


async def _admit_worker(request: Request) -> None:
    await current_worker(request, _services(request).generation.registry)


async def _admit_link(request: Request) -> None:
    services = _services(request)
    await current_link(request, services.identity.topup_links, services.identity.limiter, services.base.clock)


async def _admit_mail_link(request: Request) -> None:
    services = _services(request)
    await current_mail_link(request, services.mail, services.ledger.ownership, services.identity.limiter)


Admit: TypeAlias = Callable[[Request], Awaitable[None]]
ADMITTING: Sequence[tuple[Callable[..., Any], Admit]] = (
    (current_operator, _admit_operator),
    (current_worker, _admit_worker),
    (current_link, _admit_link),
    (current_mail_link, _admit_mail_link),
    (optional_principal, _admit_anybody),
    (current_principal, _admit_caller),
)
"""For each dependency that says who is asking, how it is asked before a body is read."""
