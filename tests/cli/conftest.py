"""A database in which people have lived, and the command line in front of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.database.schema import migrate
from tests.gateway.stack import SECRET_KEY, generation_request, running, settings_for, soon

EMAIL = "ada@example.com"
PROMPT = "a llama that only Ada knows of"


class Lived(NamedTuple):
    """What happened: an image, a failure, a cancelled job, a top-up; by somebody who is signed in."""

    database: str
    data: Path
    account: str
    painted: str
    failed: str
    topup: str


class CommandResult(NamedTuple):
    """What a command ended with."""

    code: int
    text: str
    """Everything that was printed."""
    output: str
    """What went to standard output: the answer."""

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.output)
        return document


Llamasketch = Callable[..., CommandResult]


async def _live(url: str, redis_url: str, data: Path) -> Lived:
    async with running(settings_for(url, redis_url, data)) as gateway:
        client, worker = await gateway.person(EMAIL), await gateway.worker()
        account = (await client.get("/v1/account")).json()["id"]
        painted = (await client.post("/v1/generations", json=generation_request(PROMPT))).json()["id"]
        await worker.paint()
        failed = (await client.post("/v1/generations", json=generation_request("no"))).json()["id"]
        await worker.say(await worker.take(), "fail", failure="input", code="bad_prompt")
        cancelled = (await client.post("/v1/generations", json=generation_request("stop"))).json()["id"]
        await client.delete(f"/v1/generations/{cancelled}")
        topup = await gateway.top_up(client, 100)
        await client.post("/v1/generations", json=generation_request("still waiting"))
        await client.get("/v1/statement")
        registry = gateway.services.generation.registry

        async def counted() -> bool:  # that is noted after the answer
            return all(row.jobs_done and row.gpu_milliseconds for row in await registry.present())

        await soon(counted, "what the worker has done was counted")
    return Lived(url.rpartition("/")[2], data, account, painted, failed, topup["id"])


@pytest.fixture(scope="session")
def life(
    make_database: Callable[..., str], valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Lived:
    """Lived once; `lived` is a copy of it."""
    url = make_database()
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    return asyncio.run(_live(url, valkey_url, tmp_path_factory.mktemp("life")))


@pytest.fixture
def lived(life: Lived, make_database: Callable[..., str], tmp_path: Path) -> Lived:
    """A life of this test's own: database and pictures."""
    data = tmp_path / "data"
    shutil.copytree(life.data, data)
    return life._replace(database=make_database(template=life.database), data=data)


@pytest.fixture
def llamasketch(lived: Lived, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Llamasketch:
    """Run a command where that stack's settings are."""

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> CommandResult:
        given = {
            "DATABASE_URL": lived.database,
            "REDIS_URL": valkey_url,
            "LLAMASKETCH_DATA": str(lived.data),
            "LLAMASKETCH_ENVIRONMENT": "embedded",
            "LLAMASKETCH_SECRET_KEY": SECRET_KEY,
            **(environment or {}),
        }
        result = CliRunner().invoke(command_line(), list(arguments), env=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result.exit_code, result.output, result.stdout)

    return run


@pytest.fixture
def tamper(lived: Lived) -> Callable[[str], None]:
    """Change something behind everybody's back."""

    def run(statement: str) -> None:
        with psycopg.connect(lived.database) as connection:
            assert connection.execute(statement.encode()).rowcount > 0, "the test changed nothing"

    return run
