"""A gateway that starts before its servers waits for what it needs, says so, and gives up with a sentence."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from gateway.database.startup_retry import DatabaseAway, migrate_when_there
from sandbox.embedded.ports import free_port
from sandbox.embedded.running import RunningServer
from tests.gateway.conftest import Open
from tests.gateway.stack import generation_request
from tests.waiting import SECONDS_MAX

ROOT = Path(__file__).parents[2]


class Time:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses = 0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self.now += seconds


def nowhere() -> str:
    return f"postgresql://somebody:hush@127.0.0.1:{free_port()}/nothing"


def test_the_wait_is_told_at_once_and_every_ten_seconds_and_ends_with_a_reason() -> None:
    time = Time()
    with capture_logs() as lines, pytest.raises(DatabaseAway) as ended:
        migrate_when_there(nowhere(), wait_seconds_max=35, now=time, pause=time.pause)
    assert time.now == 1035
    assert [line["waited_seconds"] for line in lines] == [0, 10, 20, 30]
    assert {line["event"] for line in lines} == {"waiting_for_database"}
    assert "not reachable for 35 seconds" in str(ended.value)
    assert "refused" in str(ended.value).lower()
    assert "hush" not in f"{ended.value} {lines}"


def test_a_database_that_comes_late_is_migrated(start_postgres: Callable[..., RunningServer]) -> None:
    server, time = start_postgres(), Time()
    server.kill()

    def pause(seconds: float) -> None:
        time.pause(seconds)
        if time.pauses == 3:
            server.start()

    migrate_when_there(server.url, now=time, pause=pause)
    assert time.pauses >= 3
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM job_queue").fetchone() == (0,)


def test_a_database_that_is_missing_is_a_reason_too(postgres_url: str) -> None:
    time = Time()
    missing = postgres_url.rpartition("/")[0] + "/never_made"
    with pytest.raises(DatabaseAway, match="never_made"):
        migrate_when_there(missing, wait_seconds_max=1, now=time, pause=time.pause)


def test_a_database_that_is_there_is_not_waited_for(database_url: str) -> None:
    time = Time()
    with capture_logs() as lines:
        migrate_when_there(database_url, now=time, pause=time.pause)
    assert (time.pauses, lines) == (0, [])
    engine = sa.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    assert "job_queue" in sa.inspect(engine).get_table_names()
    engine.dispose()


async def test_the_program_ends_with_one_sentence_and_a_status() -> None:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "DATABASE_URL": nowhere(),
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}",
        "LLAMASKETCH_ENVIRONMENT": "embedded",
        "LLAMASKETCH_SECRET_KEY": "k" * 40,
    }
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.serve", "--port", str(free_port()), "--startup-timeout", "0.2"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, reported = await program.communicate()
    assert program.returncode == 1
    text = reported.decode()
    assert "Traceback" not in text
    assert '"event": "waiting_for_database"' in text
    assert text.splitlines()[-1].startswith("PostgreSQL (DATABASE_URL) was not reachable for")
    assert "hush" not in text


async def test_without_redis_a_gateway_starts_and_works(open_gateway: Open) -> None:
    async with open_gateway(redis_url=f"redis://127.0.0.1:{free_port()}") as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        health = (await client.get("/health")).json()
        assert (health["ok"], health["wake_ups"]) == (True, "slower: Redis is not reachable")
        asked = (await client.post("/v1/generations", json=generation_request())).json()["id"]
        assert await worker.paint() == asked


async def test_stopped_as_soon_as_it_has_started_it_ends(open_gateway: Open) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        async with open_gateway():
            pass
