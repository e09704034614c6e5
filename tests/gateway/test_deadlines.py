"""Time passes: what nobody painted ends together with its hold, and tomorrow is another day."""

from __future__ import annotations

from datetime import timedelta

from tests.gateway.conftest import Open
from tests.gateway.stack import LateClock, credits_of, generation_request, picture, soon


async def test_a_job_and_its_hold_expire_together(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock) as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        running = (await client.post("/v1/generations", json=generation_request("running"))).json()["id"]
        job = await worker.take()
        waiting = (await client.post("/v1/generations", json=generation_request("waiting"))).json()["id"]
        assert (await credits_of(client))["held"] == 2
        clock.ahead = timedelta(minutes=11)

        async def released() -> bool:
            return (await credits_of(client))["held"] == 0

        await soon(released, "the holds never expired")
        for job_id in (running, waiting):
            shown = (await client.get(f"/v1/generations/{job_id}")).json()
            assert (shown["state"], shown["credits"]) == ("expired", {"held": 0, "captured": 0})
        late = await worker.report(job, picture())
        assert late.status_code == 409 or late.json() == {"state": "expired"}
        assert (await credits_of(client))["available"] == 20
        kinds = [entry["kind"] for entry in (await client.get("/v1/statement")).json()["entries"]]
        assert kinds.count("hold_expired") == 2


async def test_the_free_images_come_back_at_midnight_utc(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock, network_allowance_address=25) as gateway:
        client = await gateway.visitor()
        await gateway.spend_allowance(client)
        assert (await client.post("/v1/generations", json=generation_request())).status_code == 402
        clock.ahead = timedelta(days=1)
        assert (await credits_of(client))["available"] == 20
        assert (await client.post("/v1/generations", json=generation_request())).status_code == 202


async def test_a_token_of_a_visitor_ends_after_its_time(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock) as gateway:
        client = await gateway.visitor()
        clock.ahead = timedelta(days=399)
        assert (await client.get("/v1/account")).status_code == 200
        clock.ahead = timedelta(days=401)
        assert (await client.get("/v1/account")).status_code == 401
