"""The stand-in LND as a test can hold it: start, kill, pay, and make it misbehave."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from ledger.clock import system_clock
from ledger.identifiers import Identifiers
from ledger.money import BTC, Money
from rails.contract import Order
from rails.lightning.channels import Channels
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import CredentialFiles, Preimages, read_preimage_key
from rails.lightning.listening import Pace
from rails.lightning.lookups import Lookups, PublicWeb
from rails.lightning.lookups import client as web_client
from rails.lightning.rail import LightningRail, Settings
from rails.lightning.refunds import Payouts, RefundingLightningRail
from rails.lightning.throttle import Throttle
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX

QUICK = Pace(retry_ms=50, first_sweep_ms=200, sweep_ms=500)
LOST_AFTER_SECONDS = 1
"""After which a rail takes an answer for lost, where one is."""


class Refused(Exception):
    """The control API said no."""


@dataclass
class SandboxNode:
    """One node, its folder, and its process while it runs."""

    folder: Path
    port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    offset: timedelta = timedelta()
    _process: asyncio.subprocess.Process | None = None
    _draining: asyncio.Task[bytes] | None = None
    _http: aiohttp.ClientSession | None = None
    _connections: list[Connection] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where its gRPC is."""
        return f"127.0.0.1:{self.port}"

    def clock(self) -> datetime:
        """The node's time."""
        return datetime.now(UTC) + self.offset

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sandbox.lnd", "--port", str(self.port), "--control-port", str(self.control_port)),
            *("--data", str(self.folder), "--block-seconds", "0"),
            stderr=asyncio.subprocess.PIPE,
        )
        stderr = self._process.stderr
        assert stderr is not None
        reported = b""
        async with asyncio.timeout(SECONDS_MAX):
            while b"sandbox_lnd_ready" not in reported:
                line = await stderr.readline()
                assert line, reported.decode()
                reported += line
        self._draining = asyncio.create_task(stderr.read())

    async def kill(self) -> None:
        """`kill -9`, as by a power cut."""
        await self._end("kill")

    async def stop(self) -> None:
        """SIGTERM; it must end by itself."""
        await self._end("terminate")

    async def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            getattr(process, how)()
            async with asyncio.timeout(SECONDS_MAX):
                await process.wait()
            assert self._draining is not None
            await self._draining
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.kill()
        await self.start()

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """One call of the control API. Raises `Refused` with its reason."""
        async with self._session().post(f"http://127.0.0.1:{self.control_port}{path}", json=body) as answer:
            return await _read(answer)

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """One question to the control API."""
        url = f"http://127.0.0.1:{self.control_port}{path}"
        async with self._session().get(url, params=query) as answer:
            return await _read(answer)

    def _session(self) -> aiohttp.ClientSession:
        self._http = self._http or aiohttp.ClientSession()
        return self._http

    async def pay(self, bolt11: str, **more: Any) -> dict[str, Any]:
        """A payer pays."""
        return await self.post("/sandbox/pay", bolt11=bolt11, **more)

    async def faults(self, **wanted: Any) -> None:
        """Set faults."""
        await self.post("/sandbox/faults", **wanted)

    async def lose_next_answer(self, method: str = "") -> None:
        """The node does what it is asked and never answers."""
        for connection in self._connections:  # they would wait for it as long as for anything
            connection._deadline_seconds = LOST_AFTER_SECONDS
        await self.faults(timeout_after_commit=1, method=method)

    async def advance(self, step: timedelta) -> None:
        """Time passes, for the node and for `clock`."""
        await self.post("/sandbox/clock", advance_seconds=step // timedelta(seconds=1))
        self.offset += step

    # --- ours ----------------------------------------------------------------------------------

    def connection(self, macaroon: str = "invoices.macaroon") -> Connection:
        """A connection with one of the node's macaroons."""
        files = CredentialFiles(self.folder / "tls.cert", self.folder / macaroon)
        connection = Connection(self.address, files, int(SECONDS_MAX))
        self._connections.append(connection)
        return connection

    def client(self, macaroon: str = "invoices.macaroon") -> LndClient:
        """A client with one of the node's macaroons."""
        return LndClient(self.connection(macaroon))

    def rail(self, **settings: Any) -> LightningRail:
        """A rail as the plugin builds it, but with a quicker pace."""
        settings = {"production": False, "pace": QUICK, **settings}
        return LightningRail(
            self.client(), *self._rest(Settings(**settings)), Channels(self.connection("channels.macaroon"))
        )

    def refunding_rail(self) -> RefundingLightningRail:
        """A rail with the refund credential too."""
        return RefundingLightningRail(
            self.client(),
            *self._rest(Settings(production=False, pace=QUICK)),
            payouts=Payouts(
                self.connection("refunds.macaroon"),
                Lookups(PublicWeb(web_client(), plain_http=True)),
                plain_http=True,
            ),
        )

    def _rest(self, settings: Settings) -> tuple[Preimages, Throttle, Any, Settings]:
        preimages = Preimages(read_preimage_key(self.folder / "preimage.key", create=False))
        throttle = Throttle(per_second=1000, burst=1000, wait_ms_max=1000, monotonic_ns=time.monotonic_ns)
        return preimages, throttle, self.clock, settings

    def order(self, *, msat: int = 1_000_000, hold: bool = False, seconds: int = 900) -> Order:
        """An order for some credits."""
        ids = Identifiers(system_clock)
        return Order(
            payment_id=ids.payment(),
            account_id=ids.account(),
            ordinal=1,
            amount_due=Money(msat, BTC),
            description="500 images",
            expires_at=self.clock() + timedelta(seconds=seconds),
            return_url="https://llamasketch.test/topups/return",
            hold=hold,
        )


async def _read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json()
    if answer.status >= 400:
        raise Refused(body["error"])
    return body
