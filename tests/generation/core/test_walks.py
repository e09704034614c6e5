"""A reservation and a completion are read top-down: `pytest -s` prints the way through the files."""

from __future__ import annotations

from pathlib import Path

from tests.generation.core.world import open_world
from tests.house.walks import walking


async def test_a_reservation_and_a_completion_are_read_from_top_to_bottom(
    empty_database: str, tmp_path: Path
) -> None:
    with walking("generation") as walk:
        async with open_world(empty_database, tmp_path) as world:
            person, scripted = await world.person(), await world.worker()
            await world.queue.watch.anew(world.clock())  # as of a moment ago, where many ask
            walk.begin()
            await world.ask(person)
            reservation = str(walk)
            assert len(walk.stays) <= 17, reservation
            job = await scripted.take()
            report = await scripted.upload(job)
            walk.begin()
            await world.dispatch.complete(scripted.worker, job.claim.job_id, report)
            completion = str(walk)
            assert len(walk.stays) <= 19, completion
    print(f"\nreservation: {reservation}\ncompletion:  {completion}")
