"""`/v1/…`: authentication, version, idempotency, faults, and one transaction per request."""

from __future__ import annotations

import asyncio
import hashlib
import json

import structlog
from fastapi import Request, Response

from sandbox.stripe import billing, checkout, queries
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params, parse_form
from sandbox.stripe.routes import Call, Router

KEY_PREFIX = "sk_test_sandbox"
KEY_LIFETIME_SECONDS = 24 * 3_600
MAX_KEY_LENGTH = 255
MAX_BODY_BYTES = 256 * 1024
MAX_SILENCE_SECONDS = 120
_BROKEN = {"error": {"message": "An unknown error occurred (sandbox fault).", "type": "api_error"}}


class Api:
    """Answers API requests one at a time."""

    def __init__(self, context: Context, faults: Faults) -> None:
        self._context = context
        self.faults = faults
        self._router = Router()
        self._logger = structlog.get_logger()

    async def handle(self, request: Request, path: str) -> Response:
        """Any request below `/v1/`."""
        if self.faults.api_delay_ms:
            await asyncio.sleep(self.faults.api_delay_ms * 0.001)
        body = await request.body()
        request_id = self._context.new_id("req")
        status, payload, replayed, ended = self._answer(request, path, body, request_id)
        self._logger.info(
            "api_request", method=request.method, path=path, status=status, request_id=request_id
        )
        self._context.wake()
        if request.method == "POST" and status < 400 and self.faults.use("timeout_after_commit"):
            await self._stay_silent(request)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        key = request.headers.get("idempotency-key")
        if key is not None and ended:
            headers["Idempotency-Key"] = key
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        if replayed and status >= 500:
            headers["Stripe-Should-Retry"] = "false"
        return Response(payload, status, headers, media_type="application/json")

    async def _stay_silent(self, request: Request) -> None:
        for _ in range(MAX_SILENCE_SECONDS * 20):
            if await request.is_disconnected():
                return
            await asyncio.sleep(0.05)

    def _answer(
        self, request: Request, path: str, body: bytes, request_id: str
    ) -> tuple[int, str, bool, bool]:
        """Status, body, whether it is a replay, and whether the key was looked at."""
        try:
            api_key = self._authenticate(request)
            text = body.decode() if request.method == "POST" else request.url.query
            if len(body) > MAX_BODY_BYTES:
                raise StripeFault("Request too large.", status=413)
            if self.faults.use("refuse_500"):
                return 500, json.dumps(_BROKEN), False, False
            key = self._key(request)
            if key is None and self.faults.use("error_500"):
                return 500, json.dumps(_BROKEN), False, False
            if key is None:
                return 200, self._run(request.method, path, text, request_id, None), False, False
            return *self._idempotently(request.method, path, text, request_id, f"{api_key}:{key}"), True
        except StripeFault as fault:
            return fault.status, json.dumps(fault.body), False, False
        except UnicodeDecodeError:
            garbled = StripeFault("Invalid request: the body is not UTF-8.")
            return garbled.status, json.dumps(garbled.body), False, False

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

    def _idempotently(
        self, method: str, path: str, text: str, request_id: str, key: str
    ) -> tuple[int, str, bool]:
        fingerprint = hashlib.sha256(f"{method} {path}\n{_canonical(text)}".encode()).hexdigest()
        connection = self._context.store.connection
        oldest = self._context.clock() - KEY_LIFETIME_SECONDS
        connection.execute("DELETE FROM idempotency WHERE created < ?", (oldest,))
        query = "SELECT fingerprint, status, body FROM idempotency WHERE key = ?"
        row = connection.execute(query, (key,)).fetchone()
        if row is not None and row[0] != fingerprint:
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first "
                f"used with. Try using a key other than '{key.partition(':')[2]}' if you meant to execute "
                "a different request."
            )
            raise StripeFault(message, kind="idempotency_error")
        if row is not None:
            return int(row[1]), str(row[2]), True
        insert = "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)"
        if self.faults.use("error_500"):
            values = (key, fingerprint, 500, json.dumps(_BROKEN), self._context.clock())
            connection.execute(insert, values)
            return 500, json.dumps(_BROKEN), False
        answer = self._run(method, path, text, request_id, key, insert, fingerprint)
        return 200, answer, False

    def _run(
        self,
        method: str,
        path: str,
        text: str,
        request_id: str,
        key: str | None,
        insert: str | None = None,
        fingerprint: str = "",
    ) -> str:
        context = self._context
        handler, identifier = self._router.find(method, path)
        params = Params(parse_form(text))
        with context.store.transaction():
            context.request_id = request_id
            context.request_key = None if key is None else key.partition(":")[2]
            try:
                checkout.sweep(context)
                billing.sweep(context, self.faults)
                value = handler(Call(context, self.faults, params, f"/v1/{path}", identifier))
                value = queries.expand(context, value, params.strings("expand"))
            finally:
                context.request_id = context.request_key = None
            answer = json.dumps(queries.public(value))
            if insert is not None:
                context.store.connection.execute(insert, (key, fingerprint, 200, answer, context.clock()))
        return answer


def _canonical(text: str) -> str:
    return "&".join(sorted(text.split("&")))
