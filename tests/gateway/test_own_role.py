"""The API serves with no more rights in the database than `llamasketch prepare-database` gives its role."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from gateway.database.privileges import APPEND_ONLY, make_role
from sandbox.embedded.ports import free_port
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request


@pytest.fixture
async def restricted(
    open_gateway: Open, make_database: Callable[..., str], migrated: str
) -> AsyncIterator[Gateway]:
    """A gateway whose database role may do what the API needs and nothing else."""
    owner = await asyncio.to_thread(make_database, migrated)
    name = f"api_{free_port()}"
    role = re.sub(r"//[^@]*@", f"//{name}:pT8wLm2xQzRk5@", owner)
    await asyncio.to_thread(make_role, owner, role)
    async with open_gateway(database=role) as gateway:
        yield gateway
    await asyncio.to_thread(_drop, owner, name)


def _drop(owner: str, name: str) -> None:
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}".encode())
        connection.execute(f"DROP ROLE {name}".encode())


async def test_with_its_own_role_the_api_takes_money_paints_and_charges(restricted: Gateway) -> None:
    client, worker = await restricted.visitor(), await restricted.worker()
    with psycopg.connect(restricted.settings.database_url) as connection, pytest.raises(psycopg.Error):
        connection.execute(f"DELETE FROM {APPEND_ONLY[0]}".encode())
    asked = await client.post("/v1/generations", json=generation_request())
    assert asked.status_code == 202
    assert await worker.paint() == asked.json()["id"]
    done = (await client.get(f"/v1/generations/{asked.json()['id']}")).json()
    assert (done["state"], done["credits"]) == ("completed", {"held": 0, "captured": 1})
    assert (await client.get(done["image_url"], follow_redirects=True)).status_code == 200
    again = await client.post("/v1/generations", json=generation_request("one that is not wanted"))
    assert (await client.delete(f"/v1/generations/{again.json()['id']}")).status_code == 200
    await restricted.top_up(client, 500)
    account = (await client.get("/v1/account")).json()["credits"]
    assert (account["posted"], account["held"]) == (519, 0)
