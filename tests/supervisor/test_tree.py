"""A tree of real processes: started, killed, stopped."""

from __future__ import annotations

import os
import signal
import socket

import psycopg
import pytest

from sandbox.supervisor.errors import SupervisorError
from sandbox.supervisor.process import ChildSpec
from sandbox.supervisor.tree import in_order
from tests.living import living
from tests.supervisor.conftest import Launch, born
from tests.waiting import SECONDS_MAX, eventually


async def test_everything_starts_in_the_order_of_its_dependencies(launch: Launch) -> None:
    stack = await launch()
    assert (await stack.ready())["ready"] == ["first", "last", "middle"]
    listeners = [pid for pid, argv in stack.children().items() if "create_server" in argv]
    assert min(map(born, listeners)) < born(stack.child_that("pathlib")) < max(map(born, listeners))
    assert await stack.end() == 0


@pytest.mark.parametrize("text", ["create_server", "pathlib"])
async def test_a_child_that_is_killed_is_started_again(launch: Launch, text: str) -> None:
    stack = await launch()
    await stack.ready()
    victim = min(pid for pid, argv in stack.children().items() if text in argv)
    os.kill(victim, signal.SIGKILL)
    reported = await stack.until(lambda line: "starting it again" in line.get("said", ""))
    assert "SIGKILL" in reported["said"]
    await eventually(lambda: len(stack.children()) == 3, "three children again")
    assert victim not in stack.children()


async def test_killing_postgres_loses_nothing(launch: Launch) -> None:
    stack = await launch("postgres")
    url = (await stack.until(lambda line: "database" in line))["database"]
    await stack.ready()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    os.kill(stack.child_that("postgres -D"), signal.SIGKILL)
    await stack.until(lambda line: "starting it again" in line.get("said", ""))

    def kept() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute("SELECT number FROM kept").fetchone() == (42,)
        except psycopg.OperationalError:
            return False

    await eventually(kept, "PostgreSQL answers with what it was told")
    assert await stack.end() == 0


@pytest.mark.parametrize("kind", ["plain", "stubborn", "postgres"])
async def test_killing_the_supervisor_leaves_no_survivor(launch: Launch, kind: str) -> None:
    stack = await launch(kind)
    await stack.ready()
    children = stack.children()
    assert len(children) == 3
    await stack.end(signal.SIGKILL)
    family = str(stack.data)
    await eventually(lambda: not set(children) & set(living()), "all children are gone")
    await eventually(
        lambda: not any(family in argv for _, argv in living().values()), "nothing of it is left"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_asked_to_stop_it_stops_everything_and_says_so(launch: Launch, number: signal.Signals) -> None:
    stack = await launch()
    await stack.ready()
    children = stack.children()
    assert await stack.end(number) == 0
    assert not set(children) & set(living())


async def test_a_second_ctrl_c_does_not_wait_for_the_stubborn(launch: Launch) -> None:
    stack = await launch("stubborn")
    await stack.ready()
    stack.process.send_signal(signal.SIGINT)
    await stack.until(lambda line: line.get("said") == "Stopping …")
    await eventually(lambda: len(stack.children()) == 2, "the last one is down")
    assert await stack.end(signal.SIGINT) == 0, "long before the stubborn one's time is up"


async def test_after_a_kill_the_next_start_works_on_the_same_data(launch: Launch) -> None:
    stack = await launch("postgres")
    await stack.ready()
    await stack.end(signal.SIGKILL)
    again = await launch("postgres")
    assert (await again.ready())["seconds"] < SECONDS_MAX / 2
    assert await again.end() == 0


async def test_a_port_in_use_is_said_in_one_sentence(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = await launch(port=port)
        reported = await stack.until(lambda line: "error" in line)
    assert reported["error"].startswith(f"Port {port} is in use by another program")
    assert await stack.process.wait() == 2


async def test_a_second_instance_on_the_same_data_is_said_in_one_sentence(launch: Launch) -> None:
    stack = await launch()
    await stack.ready()
    second = await launch()
    reported = await second.until(lambda line: "error" in line)
    assert f"already running on {stack.data} (process {stack.process.pid})" in reported["error"]
    assert len(stack.children()) == 3


async def test_a_child_that_never_gets_ready_ends_the_start_with_its_last_words(launch: Launch) -> None:
    stack = await launch("broken")
    reported = await stack.until(lambda line: "error" in line)
    assert reported["error"].startswith("middle did not become ready: no luck today")
    assert await stack.process.wait() == 2
    assert not stack.children()


def test_a_circle_of_dependencies_is_refused() -> None:
    specs = [ChildSpec(name="a", argv=(), depends_on=("b",)), ChildSpec(name="b", argv=(), depends_on=("a",))]
    with pytest.raises(SupervisorError, match="a, b"):
        in_order(specs)


def test_a_dependency_that_is_served_elsewhere_counts_as_met() -> None:
    specs = [ChildSpec(name="a", argv=(), depends_on=("postgres",))]
    assert [spec.name for spec in in_order(specs)] == ["a"]
