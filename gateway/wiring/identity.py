"""Who is who, how often they may ask, and what their own keys stand for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.auth.authentication import Authenticator
from gateway.auth.identity import NetworkKeys, VisitorTokens
from gateway.auth.l402 import Tokens
from gateway.auth.limits import Limiter
from gateway.auth.networks import Origins
from gateway.auth.operators import Operators
from gateway.auth.people import People
from gateway.auth.prepaid import Prepaid
from gateway.auth.sessions import Sessions
from gateway.auth.sign_in_links import SignInLinks
from gateway.auth.topup_links import TopupLinks
from gateway.http.idempotency import IdempotencyKeys
from gateway.http.request_keys import RequestKeys
from gateway.wiring.foundation import Foundation
from rails.payments.service import Payments


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityServices:
    """From a request to a person, and back to a cookie."""

    visitors: VisitorTokens
    sessions: Sessions
    people: People
    authenticator: Authenticator
    limiter: Limiter
    origins: Origins
    network_keys: NetworkKeys
    idempotency: IdempotencyKeys
    topup_links: TopupLinks
    sign_in_links: SignInLinks
    request_keys: RequestKeys
    operators: Operators
    prepaid: Prepaid


def build_identity(base: Foundation, payments: Payments) -> IdentityServices:
    """Everything that says who is asking."""
    settings = base.settings
    prepaid = Prepaid(
        Tokens(
            settings.secret_for("l402-tokens"),
            settings.public_url,
            older=settings.older_secrets_for("l402-tokens"),
        ),
        settings.secret_for("l402-holders"),
        engine=base.engine,
        payments=payments,
        clock=base.clock,
        randomness=secrets.token_bytes,
        public_url=settings.public_url,
    )
    visitors = VisitorTokens(
        settings.secret_for("visitor-tokens"),
        base.clock,
        older=settings.older_secrets_for("visitor-tokens"),
    )
    sessions = Sessions(base.engine, base.clock, base.signals.session_ended)
    people = People(
        settings=settings,
        clock=base.clock,
        identifiers=base.identifiers,
        engine=base.engine,
        pool=base.pool,
        http=base.http,
    )
    authenticator = Authenticator(
        visitors=visitors,
        readers=people.token_readers,
        public_url=settings.public_url,
        embedded=settings.embedded,
        ended=sessions,
        prepaid=prepaid,
        identifiers=base.identifiers,
    )
    return IdentityServices(
        visitors=visitors,
        sessions=sessions,
        people=people,
        authenticator=authenticator,
        limiter=Limiter(settings, base.redis, base.clock),
        origins=Origins(settings.trusted_proxies),
        network_keys=NetworkKeys(settings.secret_for("network-keys")),
        idempotency=IdempotencyKeys(base.engine, base.clock),
        topup_links=TopupLinks(settings.secret_for("topup-links"), settings.public_url, base.clock),
        sign_in_links=SignInLinks(
            settings.secret_for("sign-in-links"),
            settings.public_url,
            engine=base.engine,
            clock=base.clock,
            identifiers=base.identifiers,
        ),
        request_keys=RequestKeys(base.pool, settings.secret_for("input-digests")),
        operators=Operators(base.engine, base.clock),
        prepaid=prepaid,
    )
