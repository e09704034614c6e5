"""People: JSON web tokens of any OIDC issuer, the built-in issuer, recovery codes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.auth.authentication import TokenReader, unauthenticated
from gateway.auth.identity import Credential, Principal, Role, token_digest
from gateway.database.tables import guests, people
from gateway.http.problems import Problem
from gateway.settings import Settings
from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers, encode_crockford

SESSION_LIFETIME = timedelta(days=30)
BUILT_IN_KEY_ID = "built-in"
JWKS_FRESH_SECONDS = 3600
JWKS_RETRY_SECONDS = 30
FRESH = timedelta(minutes=10)
"""Since its issue, for which a token says the newest address of its person."""
ALGORITHMS = ("RS256", "ES256", "EdDSA")
_CODE_BYTES = 10
_LATEST = 253_000_000_000.0
"""Seconds since 1970: as late as a date can be written."""
_CODE_PREFIX = "LLAMA"


_PROFILE = b"""
SELECT CASE WHEN p.account_id IS NOT NULL THEN 'person' WHEN g.account_id IS NOT NULL THEN 'guest' ELSE 'visitor' END
    AS kind, p.email
FROM (SELECT %(account)s::text AS account_id) AS asked
LEFT JOIN people p USING (account_id) LEFT JOIN guests g USING (account_id)
"""

_MISREAD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    jwt.PyJWTError,
)
"""What reading a token or an issuer's keys may raise if somebody else wrote them."""


def normal_address(email: str) -> str:
    """The same however somebody writes it."""
    return email.strip().lower()


def _is_name(text: object) -> bool:
    """Whether a table can keep it."""
    return isinstance(text, str) and 0 < len(text) <= 500 and text.isprintable()


def _address(claims: Mapping[str, Any]) -> str | None:
    """The address of a token, if a table can keep it, unless its issuer says that nobody has shown it to be theirs."""
    email = claims.get("email")
    return str(email) if _is_name(email) and claims.get("email_verified") is not False else None


class BuiltInIssuer:
    """Signs people in who have shown that they read their mail (`gateway.auth.sign_in_links`); by their word alone only
    for trying out, never in production."""

    def __init__(
        self,
        *,
        secret: bytes,
        issuer: str,
        audience: str,
        clock: Clock,
        nonce: Callable[[], str] | None = None,
    ) -> None:
        """`nonce` makes every token another one, also for the same person in the same second."""
        self._nonce = nonce
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def token(self, email: str) -> str:
        """A session for whoever owns this address."""
        now = self._clock()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": hashlib.sha256(normal_address(email).encode()).hexdigest()[:32],
            "email": normal_address(email),
            "iat": now,
            "exp": now + SESSION_LIFETIME,
        }
        if self._nonce is not None:
            # Two sessions of one second are two, and one that begins in the second of an end is none of the ended.
            claims |= {"iat": now.timestamp(), "jti": self._nonce()}
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": BUILT_IN_KEY_ID})

    def jwks(self) -> dict[str, Any]:
        """The public key, as any issuer publishes it."""
        algorithm = jwt.algorithms.OKPAlgorithm()
        shown: dict[str, Any] = algorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**shown, "kid": BUILT_IN_KEY_ID, "alg": "EdDSA", "use": "sig"}]}


class KeySet:
    """An issuer's public keys, fetched when needed and kept for an hour."""

    def __init__(self, url: str, http: httpx.AsyncClient, *, fixed: dict[str, Any] | None = None) -> None:
        self._url = url
        self._http = http
        self._keys: dict[str, jwt.PyJWK] = _parse(fixed) if fixed else {}
        self._fixed = fixed is not None
        self._asked_at: float | None = None
        self._lock = asyncio.Lock()
        self._log = structlog.get_logger("gateway.auth.people")

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; an unknown id asks the issuer again, at most twice a minute."""
        if not self._fixed and self._is_stale(key_id):
            async with self._lock:
                if self._is_stale(key_id):
                    await self._fetch()
        return self._keys.get(key_id)

    def _is_stale(self, key_id: str) -> bool:
        if self._asked_at is None:
            return True
        age = asyncio.get_running_loop().time() - self._asked_at
        return age > (JWKS_FRESH_SECONDS if key_id in self._keys else JWKS_RETRY_SECONDS)

    async def _fetch(self) -> None:
        self._asked_at = asyncio.get_running_loop().time()
        try:
            response = await self._http.get(self._url, timeout=5)
            response.raise_for_status()
            self._keys = _parse(response.json())
        except (httpx.HTTPError, *_MISREAD) as error:
            self._log.warning("jwks_not_read", error=type(error).__name__)


class NotAKeySet(ValueError):
    """What the issuer published is no JSON Web Key Set."""


def _parse(document: Any) -> dict[str, jwt.PyJWK]:
    """An empty list is taken at its word: the issuer has withdrawn its keys. Raises `NotAKeySet`."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise NotAKeySet
    keys = {}
    for entry in listed:
        if entry.get("use", "sig") == "sig" and entry.get("kid"):
            # A key of a kind we cannot use must not cost us the others.
            with contextlib.suppress(*_MISREAD):
                keys[str(entry["kid"])] = jwt.PyJWK(entry)
    return keys


def _credential(token: str, claims: Mapping[str, Any]) -> Credential:
    """An issuer that does not say when gets every token of its ended by signing out everywhere."""
    times = [claims.get("iat", 0), claims["exp"]]
    issued_at, expires_at = (datetime.fromtimestamp(min(float(time), _LATEST), UTC) for time in times)
    return Credential(token_digest(token), issued_at, expires_at)


class People:
    """Maps people to accounts and looks after guests' recovery codes."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        identifiers: Identifiers,
        engine: AsyncEngine,
        pool: AsyncConnectionPool[Any],
        http: httpx.AsyncClient,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._identifiers = identifiers
        self._engine = engine
        self._pool = pool
        self._code_secrets = (
            settings.secret_for("recovery-codes"),
            *settings.older_secrets_for("recovery-codes"),
        )
        secrets = settings.secret_for("built-in-issuer"), *settings.older_secrets_for("built-in-issuer")
        issuers = [] if settings.oidc_issuer else [self._built_in(settings, secret) for secret in secrets]
        self.issuer = issuers[0] if issuers else None
        self._issuer_name = settings.oidc_issuer or settings.public_url
        url = settings.oidc_jwks_url or f"{self._issuer_name.rstrip('/')}/.well-known/jwks.json"
        # Ours have the same id, whatever the secret: what was signed with an older one says no other.
        self._key_sets = [KeySet(url, http, fixed=issuer.jwks()) for issuer in issuers] or [KeySet(url, http)]

    def _built_in(self, settings: Settings, secret: bytes) -> BuiltInIssuer:
        return BuiltInIssuer(
            secret=secret,
            issuer=settings.public_url,
            audience=settings.oidc_audience,
            clock=self._clock,
            nonce=lambda: self._identifiers.new("ses"),
        )

    @property
    def token_readers(self) -> tuple[TokenReader, ...]:
        """The kinds of tokens that stand for people."""
        return (self,)

    async def principal(self, token: str) -> Principal | None:
        """See `TokenReader.principal`: a JWT, checked in signature, issuer, audience and time."""
        if token.count(".") != 2:
            return None
        claims = await self._claims(token)
        account_id = await self._account_of(claims)
        return Principal(Role.PERSON, account_id, by_cookie=False, credential=_credential(token, claims))

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            found = [await keys.key(str(header.get("kid", ""))) for keys in self._key_sets]
            keys = [key for key in found if key is not None]
            if not keys or header.get("alg") not in ALGORITHMS:
                raise unauthenticated("This token was not signed by our issuer.")
            claims = self._decoded(token, str(header["alg"]), keys)
        except _MISREAD as error:
            raise unauthenticated("This token is not valid, or has expired.") from error
        if not _is_name(claims["sub"]):
            raise unauthenticated("This token names nobody.")
        return claims

    def _decoded(self, token: str, algorithm: str, keys: Sequence[jwt.PyJWK]) -> dict[str, Any]:
        """The claims of a token that one of the keys has signed. Raises what the last of them raises."""
        *others, last = keys
        for key in others:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return self._decoded(token, algorithm, [key])
        claims: dict[str, Any] = jwt.decode(
            token,
            last,
            algorithms=[algorithm],
            issuer=self._issuer_name,
            audience=self._settings.oidc_audience,
            options={"require": ["exp", "iss", "aud", "sub"]},
            leeway=30,
        )
        return claims

    async def _account_of(self, claims: Mapping[str, Any]) -> AccountId:
        """Whose account it is; one is made for who comes first. The address is what a fresh token says of it."""
        theirs = people.c.issuer == self._issuer_name, people.c.subject == claims["sub"]
        known, address = sa.select(people.c.account_id, people.c.email).where(*theirs), _address(claims)
        async with self._engine.begin() as connection:
            found = (await connection.execute(known)).one_or_none()
            if found is None:
                await connection.execute(
                    insert(people)
                    .values(
                        issuer=self._issuer_name,
                        subject=claims["sub"],
                        account_id=self._identifiers.account(),
                        email=address,
                        created_at=self._clock(),
                    )
                    .on_conflict_do_nothing()
                )
                found = (await connection.execute(known)).one()
            # Older tokens go on for weeks, and must not bring an older address back.
            elif address not in (None, found.email) and self._is_fresh(claims):
                await connection.execute(sa.update(people).where(*theirs).values(email=address))
            return AccountId(found.account_id)

    def _is_fresh(self, claims: Mapping[str, Any]) -> bool:
        return self._clock() - _credential("", claims).issued_at < FRESH

    async def profile(self, account_id: AccountId) -> dict[str, str | None]:
        """`{"kind": "person" | "guest" | "visitor", "email"}`."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(_PROFILE, {"account": account_id}, prepare=True)
            (found,) = await cursor.fetchall()
        return {"kind": found["kind"], "email": found["email"]}

    async def recovery_code(self, account_id: AccountId) -> str | None:
        """A guest's recovery code; asking makes the account a guest's. Stored as a keyed digest.

        It follows from the account and our secret, so that an answer that was lost can be given again: the
        same code each time, also one that was made with an older secret of the settings. None for guests whose code
        was made otherwise: before, and then theirs still opens the account; or with a secret that is not among the
        settings any more, and then it opens the account if it was shown or used while it was.
        """
        codes = [_code_of(account_id, secret) for secret in self._code_secrets]
        newest = self._digests(codes[0])[0]
        statement = (
            insert(guests)
            .values(account_id=account_id, code_digest=newest, created_at=self._clock())
            .on_conflict_do_nothing()
        )
        kept = sa.select(guests.c.code_digest).where(guests.c.account_id == account_id)
        async with self._engine.begin() as connection:
            await connection.execute(statement)
            digest = (await connection.execute(kept)).scalar_one()
            for code in codes:
                if digest in self._digests(code):
                    await self._keep_up(connection, account_id, code, digest)
                    return code
        return None

    async def recover(self, code: str) -> AccountId:
        """The guest account that a recovery code opens. Raises `Problem` 404."""
        query = sa.select(guests).where(guests.c.code_digest.in_(self._digests(code)))
        async with self._engine.begin() as connection:
            found = (await connection.execute(query)).one_or_none()
            if found is None:
                raise Problem("recovery_code_unknown", "This recovery code is not known.")
            await self._keep_up(connection, AccountId(found.account_id), code, found.code_digest)
        return AccountId(found.account_id)

    async def _keep_up(self, connection: AsyncConnection, account_id: str, code: str, digest: bytes) -> None:
        """Keep the digest with the present secret, so that the code outlives the older ones in the settings."""
        newest = self._digests(code)[0]
        if digest != newest:
            mine = guests.c.account_id == account_id
            await connection.execute(sa.update(guests).where(mine).values(code_digest=newest))

    def _digests(self, code: str) -> list[bytes]:
        """With each of our secrets, the present one first."""
        plain = "".join(c for c in code.upper() if c.isalnum()).removeprefix(_CODE_PREFIX)
        plain = plain.replace("O", "0").replace("I", "1").replace("L", "1")
        return [hmac.new(secret, plain.encode(), hashlib.sha256).digest() for secret in self._code_secrets]


def _code_of(account_id: AccountId, secret: bytes) -> str:
    signed = hmac.new(secret, f"code of {account_id}".encode(), hashlib.sha256).digest()
    text = encode_crockford(int.from_bytes(signed[:_CODE_BYTES]))[-16:].upper()
    return "-".join((_CODE_PREFIX, *(text[n : n + 4] for n in range(0, 16, 4))))
