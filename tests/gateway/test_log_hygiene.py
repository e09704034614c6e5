"""Nothing secret and nothing personal is ever written to a log."""

from __future__ import annotations

import re

from gateway.logging import _hide_secrets
from tests.gateway.conftest import Logged
from tests.gateway.stack import Gateway, generation_request

SHAPES = {
    "a visitor's token": re.compile(r"lsv1\.acct_[0-9a-z]{26}\.\d+\.[\w-]{20,}"),
    "a link to top up": re.compile(r"lst1\.acct_[0-9a-z]{26}\.\d+\.\d+\.[\w-]{20,}"),
    "a JWT": re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a recovery code": re.compile(r"LLAMA(-[0-9A-Z]{4}){4}"),
    "a bearer token": re.compile(r"(?i)bearer [\w.-]{16,}"),
    "a signed link": re.compile(r"signature=[0-9a-f]{20,}"),
    "a macaroon": re.compile(r"(?i)macaroon[\"' ]*[:=][\"' ]*[0-9a-f]{16,}"),
    "a preimage": re.compile(r"(?i)preimage[\"' ]*[:=][\"' ]*[0-9a-f]{16,}"),
    "an e-mail address": re.compile(r"[\w.]+@example\.com"),
    "an address of a person": re.compile(r"203\.0\.113\.\d+"),
    "SQL parameters": re.compile(r"\[parameters: (?!\[)"),
}
PROMPT = "a llama in its private garden"


async def test_no_log_line_of_all_these_tests_holds_a_secret(gateway: Gateway, logged: Logged) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    await gateway.top_up(browser, 100)
    await browser.post("/v1/generations", json=generation_request(PROMPT))
    await browser.post("/v1/session", json={"email": "hygiene@example.com"})
    gateway.secrets |= set(browser.cookies.values())
    worker = await gateway.worker()
    await worker.drain_queue()
    await worker.client.get("/v1/account")
    await gateway.client(Cookie="ls_session=eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.x").get("/v1/account")
    reported = "\n".join(logged.lines)
    for name, shape in SHAPES.items():
        assert not shape.search(reported), f"{name} was logged: {shape.search(reported)}"
    for secret in gateway.secrets:
        assert secret not in reported
    assert PROMPT not in reported
    settings = gateway.settings
    assert settings.secret_key.get_secret_value() not in reported
    assert settings.database_url not in reported


async def test_the_secrets_of_the_settings_are_not_shown(gateway: Gateway) -> None:
    shown = repr(gateway.settings)
    assert gateway.settings.secret_key.get_secret_value() not in shown


def test_a_field_with_a_secret_name_is_hidden_however_deep_it_lies() -> None:
    event = {"authorization": "x1", "nested": {"recovery_code": "x2", "fine": "y"}, "list": [{"token": "x3"}]}
    shown = repr(_hide_secrets(None, "info", dict(event)))
    assert not re.search(r"x[123]", shown)
    assert "'fine': 'y'" in shown
