"""Requests of one stranger at the same time, meant to get past what each of them alone is held to.

Each attack ends by taking back what it has got, so that it may be repeated, and says how much of it there was at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Self
from uuid import uuid4

import httpx

from tests.gateway.stack import generation_request
from tests.hostile.attacks import Outcome, Target
from tests.waiting import until

AT_ONCE = 60
LOOPS = 20
"""That ask for an image and take it back, at the same time."""
ROUNDS = 3
"""Of each loop."""
TAKEN_BACK = 2
"""How many requests take back one image at once."""
UNPAID = ("opening", "waiting")
"""States of a top-up that nobody has paid."""
Body = Mapping[str, Any]


async def topups(target: Target, token: str, wanted: Body) -> Outcome:
    """Payment requests for an account, all at once; `reached` is how many of them are unpaid then."""
    async with _Stranger(target, token) as stranger:
        await stranger.all_at_once("/v1/topups", wanted)
        await stranger.close(await stranger.unpaid())
    return stranger.outcome


async def unpaid_images(target: Target, token: str, funding: Body) -> Outcome:
    """Images that are paid by payments of their own, all at once; `reached` is how many payments they await."""
    body = generation_request("a llama in a crowd", funding=funding)
    async with _Stranger(target, token) as stranger:
        jobs = [answer.json()["id"] for answer in await stranger.all_at_once("/v1/generations", body)]
        await stranger.unpaid()
        await asyncio.gather(*(stranger.take_back(job) for job in jobs))
        await stranger.none_unpaid()
    return stranger.outcome


async def link_topups(target: Target, token: str, link: str, wanted: Body) -> Outcome:
    """Payment requests by a link to the account of the token; `reached` is how many of them are unpaid then."""
    async with _Stranger(target, link) as stranger, _Stranger(target, token) as owner:
        await stranger.all_at_once("/v1/topup-link/topups", wanted)
        await owner.close(await owner.unpaid())
        stranger.outcome.reached = owner.outcome.reached
    return stranger.outcome


async def cancels_of_one_key(target: Target, token: str) -> Outcome:
    """One request, sent and taken back in many loops at once; `reached` is how many jobs it has made."""
    key, jobs = uuid4().hex, set[str]()
    async with _Stranger(target, token) as stranger:
        await asyncio.gather(*(stranger.loop(jobs, {"Idempotency-Key": key}) for _ in range(LOOPS)))
    stranger.outcome.reached = len(jobs)
    return stranger.outcome


async def cancels(target: Target, token: str) -> Outcome:
    """Images asked for and taken back in many loops at once; `reached` is the most credits owned meanwhile."""
    async with _Stranger(target, token) as stranger:
        loops = asyncio.gather(*(stranger.loop(set(), {}) for _ in range(LOOPS)))
        while not loops.done():
            await stranger.owned()
            await asyncio.wait([loops], timeout=0.05)
        await loops
        await stranger.owned()
    return stranger.outcome


async def link_of(target: Target, token: str) -> str:
    """A link to top up a visitor's account: what is asked for in its name when its free images are used up."""
    async with _Stranger(target, token) as stranger:
        jobs: list[str] = []
        while (answer := await stranger.ask(generation_request(), {})).status_code == 202:
            jobs.append(answer.json()["id"])
        await asyncio.gather(*(stranger.take_back(job) for job in jobs))
    return str(answer.json()["topup_url"]).partition("#")[2]


class _Stranger:
    """Somebody with a token, and what the server answered them."""

    def __init__(self, target: Target, token: str) -> None:
        self.outcome = Outcome()
        self._client = httpx.AsyncClient(
            base_url=f"http://{target.host}:{target.port}",
            headers={"Authorization": f"Bearer {token}"},
            limits=httpx.Limits(max_connections=AT_ONCE),
            trust_env=False,
            timeout=60,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def all_at_once(self, path: str, body: Body) -> list[httpx.Response]:
        """The same request so many times. Returns the answers of those that were accepted."""
        answers = await asyncio.gather(*(self._sent("POST", path, body) for _ in range(AT_ONCE)))
        return [answer for answer in answers if answer.is_success]

    async def ask(self, body: Body, headers: Mapping[str, str]) -> httpx.Response:
        """Ask for an image."""
        return await self._sent("POST", "/v1/generations", body, headers)

    async def take_back(self, job: str) -> None:
        """Cancel an image."""
        await self._sent("DELETE", f"/v1/generations/{job}")

    async def loop(self, jobs: set[str], headers: Mapping[str, str]) -> None:
        """Ask for an image and take it back, a few times; add the jobs that were made for it."""
        for _ in range(ROUNDS):
            answer = await self.ask(generation_request("a llama in a crowd"), headers)
            if answer.is_success:
                jobs.add(job := answer.json()["id"])
                await asyncio.gather(*(self.take_back(job) for _ in range(TAKEN_BACK)))

    async def unpaid(self) -> list[str]:
        """The unpaid top-ups that there are."""
        found = await self._unpaid_now()
        self.outcome.reached = max(self.outcome.reached, len(found))
        return found

    async def none_unpaid(self) -> None:
        """Return when the payments of cancelled images are closed too: that is a follow-up of their cancellation."""
        await until(self._unpaid_now, _empty, "the payments of cancelled images are closed")

    async def close(self, topups: Iterable[str]) -> None:
        """Cancel top-ups."""
        await asyncio.gather(*(self._sent("POST", f"/v1/topups/{topup}/cancel", {}) for topup in topups))

    async def owned(self) -> None:
        """Note how many credits there are, held or not."""
        held = (await self._sent("GET", "/v1/account")).json()["credits"]
        self.outcome.reached = max(self.outcome.reached, held["available"] + held["held"])

    async def _unpaid_now(self) -> list[str]:
        shown = (await self._sent("GET", "/v1/topups")).json()["topups"]
        return [topup["id"] for topup in shown if topup["state"] in UNPAID]

    async def _sent(
        self, method: str, path: str, body: Body | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        request = self._client.build_request(method, path, json=body, headers=headers)
        answer = await self._client.send(request)
        self.outcome.statuses[answer.status_code] += 1
        self.outcome.sent_bytes += len(request.content)
        if answer.is_error:
            self.outcome.codes[answer.json()["code"]] += 1
        return answer


def _empty(found: list[str]) -> bool:
    return not found
