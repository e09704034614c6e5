"""`/v1/…`: authentication, version, idempotency, faults, and one transaction per request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass

import structlog
from starlette.requests import Request
from starlette.responses import Response

from sandbox.stripe import billing, checkout, queries
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params, parse_form
from sandbox.stripe.routes import Call, Router

KEY_PREFIX = "sk_test_sandbox"
KEY_LIFETIME_SECONDS = 24 * 3_600
MAX_KEY_LENGTH = 255
CARD_DECLINED = 402
"""An answer that is kept with all that happened: other errors leave everything as it was."""
MAX_BODY_BYTES = 256 * 1024
MAX_SILENCE_SECONDS = 120
RETRY_AFTER_SECONDS = 1
_BROKEN = {"error": {"message": "An unknown error occurred (sandbox fault).", "type": "api_error"}}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request. `key` is its idempotency key, if it has one that counts."""

    method: str
    path: str
    text: str
    id: str
    key: str | None


@dataclass(frozen=True, slots=True)
class _Answered:
    status: int
    body: str
    replayed: bool = False


class Api:
    """Answers API requests one at a time."""

    def __init__(self, context: Context, faults: Faults) -> None:
        self._context = context
        self.faults = faults
        self._router = Router()
        self._logger = structlog.get_logger()

    async def handle(self, request: Request) -> Response:
        """Any request below `/v1/`."""
        if self.faults.api_delay_ms:
            await asyncio.sleep(self.faults.api_delay_ms * 0.001)
        body, path = await request.body(), str(request.path_params["path"])
        request_id = self._context.new_id("req")
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        try:
            answered = self._answer(request, path, body, headers)
        except StripeFault as fault:
            answered = _Answered(fault.status, json.dumps(fault.body))
        status = answered.status
        self._logger.info(
            "api_request", method=request.method, path=path, status=status, request_id=request_id
        )
        self._context.wake()
        if request.method == "POST" and status < 400 and self.faults.take("timeout_after_commit"):
            await self._stay_silent(request)
        if answered.replayed:
            headers["Idempotent-Replayed"] = "true"
            if status >= 500:
                headers["Stripe-Should-Retry"] = "false"
        return Response(answered.body, status, headers, media_type="application/json")

    async def _stay_silent(self, request: Request) -> None:
        for _ in range(MAX_SILENCE_SECONDS * 20):
            if await request.is_disconnected():
                return
            await asyncio.sleep(0.05)

    def _answer(self, request: Request, path: str, body: bytes, headers: dict[str, str]) -> _Answered:
        """The answer; an idempotency key that was looked at is added to the headers."""
        api_key = self._authenticate(request)
        if len(body) > MAX_BODY_BYTES:
            raise StripeFault("Request too large.", status=413)
        try:
            text = body.decode() if request.method == "POST" else request.url.query
        except UnicodeDecodeError:
            raise StripeFault("Invalid request: the body is not UTF-8.") from None
        if self.faults.take("refuse_429"):
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            raise StripeFault("Too many requests.", status=429, code="rate_limit")
        if self.faults.take("refuse_500"):
            return _Answered(500, json.dumps(_BROKEN))
        asked = _Asked(request.method, path, text, headers["Request-Id"], self._key(request))
        if asked.key is not None:
            answered = self._idempotently(asked, f"{api_key}:{asked.key}")
            headers["Idempotency-Key"] = asked.key
            return answered
        if self.faults.take("error_500"):
            return _Answered(500, json.dumps(_BROKEN))
        with self._context.store.transaction():
            return self._run(asked)

    def _authenticate(self, request: Request) -> str:
        scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not api_key:
            raise StripeFault("You did not provide an API key.", status=401)
        if not api_key.startswith(KEY_PREFIX):
            shown = f"{api_key[:8]}****{api_key[-4:]}"
            raise StripeFault(f"Invalid API Key provided: {shown}", status=401)
        version = request.headers.get("stripe-version", API_VERSION)
        if version != API_VERSION:
            message = f"Invalid Stripe API version: {version[:40]}. This sandbox speaks {API_VERSION}."
            raise StripeFault(message)
        return hashlib.sha256(api_key.encode()).hexdigest()[:16]

    def _key(self, request: Request) -> str | None:
        key = request.headers.get("idempotency-key")
        if key is None or request.method != "POST":
            return None
        if not 1 <= len(key) <= MAX_KEY_LENGTH:
            raise invalid("Idempotency-Key", f"Idempotency keys are at most {MAX_KEY_LENGTH} characters.")
        return key

    def _idempotently(self, asked: _Asked, key: str) -> _Answered:
        content = f"{asked.method} {asked.path}\n{_canonical(asked.text)}"
        fingerprint = hashlib.sha256(content.encode()).hexdigest()
        connection = self._context.store.connection
        oldest = self._context.now() - KEY_LIFETIME_SECONDS
        connection.execute("DELETE FROM idempotency WHERE created < ?", (oldest,))
        query = "SELECT fingerprint, status, body FROM idempotency WHERE key = ?"
        row = connection.execute(query, (key,)).fetchone()
        if row is not None and row[0] != fingerprint:
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first "
                f"used with. Try using a key other than '{asked.key}' if you meant to execute "
                "a different request."
            )
            raise StripeFault(message, kind="idempotency_error")
        if row is not None:
            return _Answered(int(row[1]), str(row[2]), replayed=True)
        with self._context.store.transaction():
            fails = self.faults.take("error_500")
            answered = _Answered(500, json.dumps(_BROKEN)) if fails else self._run(asked)
            values = (key, fingerprint, answered.status, answered.body, self._context.now())
            connection.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)", values)
        return answered

    def _run(self, asked: _Asked) -> _Answered:
        """Carry it out, inside the transaction of the caller."""
        context = self._context
        handler, identifier = self._router.find(asked.method, asked.path)
        params = Params(parse_form(asked.text))
        context.request_id, context.request_key = asked.id, asked.key
        try:
            if context.swept_at != context.now():  # once for each second: looking at everything takes long
                context.swept_at = context.now()
                checkout.sweep(context)
                billing.sweep(context, self.faults)
            value = handler(Call(context, self.faults, params, f"/v1/{asked.path}", identifier))
            if value.get("_sandbox", {}).get("answer_status") == CARD_DECLINED:
                return _Answered(CARD_DECLINED, json.dumps(queries.public(value)))
            value = queries.expand(context, value, params.strings("expand"))
        finally:
            context.request_id = context.request_key = None
        return _Answered(200, json.dumps(queries.public(value)))


def _canonical(text: str) -> str:
    return "&".join(sorted(text.split("&")))
