"""How the supervisor is told to start the sandbox."""

from __future__ import annotations

from pathlib import Path

from rails.contract import RailContext
from rails.stripe.plugin import plugin
from rails.testing.memory_references import MemoryReferences
from sandbox.service import HttpReady
from sandbox.stripe.__main__ import parse
from sandbox.stripe.service import describe
from tests.rails.stripe.outside import OffsetClock


def ports(name: str) -> int:
    return {"gateway": 20001, "stripe": 20002}[name]


async def test_the_description_starts_it_and_configures_the_rail(tmp_path: Path) -> None:
    service = describe(tmp_path, ports)
    arguments = parse(service.argv[2:])
    assert arguments.port == 20002
    assert arguments.webhook_url == "http://127.0.0.1:20001/v1/hooks/card"
    secret = arguments.webhook_secret_file
    assert secret.read_text().strip() == service.environment["STRIPE_WEBHOOK_SECRET"]
    assert secret.stat().st_mode & 0o077 == 0
    assert service.ready == HttpReady("http://127.0.0.1:20002/sandbox/health")
    context = RailContext(clock=OffsetClock(), references=MemoryReferences(), production=False)
    await plugin.build(service.environment, context).close()


def test_keys_stay_the_same_on_the_same_data_and_are_not_on_the_command_line(tmp_path: Path) -> None:
    first, second = (describe(tmp_path, ports) for _ in range(2))
    assert first == second
    other = describe(tmp_path / "other", ports)
    assert other.environment["STRIPE_SECRET_KEY"] != first.environment["STRIPE_SECRET_KEY"]
    assert not any(first.environment["STRIPE_WEBHOOK_SECRET"] in word for word in first.argv)
