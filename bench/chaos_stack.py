"""The processes of a small LlamaSketch for `bench.chaos`: each real, each killed and started again by name.

PostgreSQL (fsync on), Valkey, API processes behind a balancer, and workers, which are a worker process
and a ComfyUI process each. No rails and no supervisor: here only `bench.chaos` kills and starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from gateway.derived_secrets import WORKER_REGISTRATION, derive_secret
from generation.fleet.tokens import RegistrationTokens
from ledger.clock import system_clock
from sandbox.embedded.command import ServerCommand, bound_to_parent
from sandbox.embedded.ports import free_port
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.running import RunningServer, answers
from sandbox.embedded.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parents[1]
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
GENEROUS = {
    # Nothing is paid for here: nobody outside is asked for a price.
    "RATE_FEEDS": "coinbase=http://127.0.0.1:9",
    # Everybody comes from one address, and what was lost is asked for again.
    "LLAMASKETCH_NETWORK_ALLOWANCE_ADDRESS": "1000000",
    "LLAMASKETCH_REQUESTS_PER_MINUTE": "1000000",
    "LLAMASKETCH_REQUESTS_PER_MINUTE_NETWORK": "1000000",
}
AGAIN_SECONDS = (0.3, 2.0)
"""How long after its end a process is started again: as fast as a supervisor, or as slow as one."""
READY_SECONDS_MAX = 60.0
SERVERS = ("postgres", "valkey")


class Server:
    """PostgreSQL or Valkey. They die with the thread that starts them, so one thread does it all."""

    def __init__(self, kind: str, command: ServerCommand, log: Path, thread: ThreadPoolExecutor) -> None:
        self.kind = kind
        self.name = kind
        self.by_itself = 0
        self._command = command
        self._log = log
        self._thread = thread
        self._running: RunningServer | None = None

    async def start(self) -> None:
        """Start it, or start it again; returns when it answers."""
        await self._do(self._start)

    def _start(self) -> None:
        if self._running is None:
            self._running = RunningServer(self._command, self._log)
        else:
            self._running.start()

    async def kill(self) -> None:
        """kill -9."""
        assert self._running is not None
        await self._do(self._running.kill)

    async def stop(self) -> None:
        """In order."""
        if self._running is not None:
            await self._do(self._running.stop)

    async def _do(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)


class Program:
    """One of our own processes, kept alive as a supervisor would: an end that nobody asked for is counted."""

    def __init__(self, kind: str, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path):
        self.kind = kind
        self.name = name
        self.by_itself = 0
        self._argv = bound_to_parent([sys.executable, *argv], signal.SIGKILL, None)
        self._environment = {k: v for k, v in os.environ.items() if k in INHERITED} | dict(environment)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._down = False

    @property
    def pid(self) -> int:
        """Of the one that runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and keep it running."""
        self._down = False
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._watching = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if not self._down:
            self.by_itself += 1
            await asyncio.sleep(1.0)
            if not self._down:
                await self.start()

    async def kill(self) -> None:
        """kill -9; it stays down until it is started."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and by force if it does not obey."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        self._down = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), 25)
        except TimeoutError:
            process.kill()
            await process.wait()


class Balancer:
    """One address in front of all API processes: each connection goes to one that takes it."""

    def __init__(self, ports: Sequence[int], chance: random.Random) -> None:
        self._ports = list(ports)
        self._chance = chance
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where everybody asks."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)

    async def stop(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._chance.sample(self._ports, len(self._ports)):
            try:
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            try:
                # Whichever side ends first ends both, as a killed process does.
                ways = [asyncio.create_task(_copy(reader, to_writer))]
                ways.append(asyncio.create_task(_copy(to_reader, writer)))
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            finally:
                to_writer.transport.abort()
            return


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


class ChaosStack:
    """All of it, on one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        apis: int,
        workers: int,
        paint_seconds: float,
        chance: random.Random,
        settings: Mapping[str, str] | None = None,
        plain: bool = False,
    ) -> None:
        """`settings` are added to the generous ones that every stack of these has; `plain` pictures cost nothing."""
        folder.chmod(0o755)  # as root, the servers run as a user of their own
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="servers")
        self._logs = folder / "log"
        self._logs.mkdir()
        postgres = EmbeddedPostgres(folder / "data", free_port()).command()
        valkey = EmbeddedValkey(folder / "data", free_port()).command()
        self.database_url = postgres.environment["DATABASE_URL"]
        self.redis_url = valkey.environment["REDIS_URL"]
        self.postgres = Server("postgres", postgres, self._logs / "postgres.log", self._thread)
        self.valkey = Server("valkey", valkey, self._logs / "valkey.log", self._thread)
        ports = [free_port() for _ in range(apis)]
        self.ports = ports
        self.balancer = Balancer(ports, random.Random(chance.random()))
        self.environment = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "LLAMASKETCH_ENVIRONMENT": "embedded",
            "LLAMASKETCH_SECRET_KEY": secrets.token_hex(32),
            "LLAMASKETCH_DATA": str(folder / "data"),
            "LLAMASKETCH_PUBLIC_URL": self.balancer.url,
            **GENEROUS,
            **(settings or {}),
        }
        self.apis = [self._api(port) for port in ports]
        self.comfyuis: list[Program] = []
        self.workers: list[Program] = []
        for number in range(workers):
            self._worker(number, paint_seconds, ("--plain",) * plain)

    def _api(self, port: int) -> Program:
        argv = ("-m", "gateway.serve", "--host", "127.0.0.1", "--port", str(port))
        return self._program("api", f"api-{port}", argv, self.environment)

    def _worker(self, number: int, paint_seconds: float, more: Sequence[str]) -> None:
        port, data = free_port(), self.folder / f"comfyui-{number}"
        argv = ["-m", "sandbox.comfyui", "--port", str(port), "--data", str(data)]
        argv += ["--paint-seconds", str(paint_seconds), *more]
        self.comfyuis.append(self._program("comfyui", f"comfyui-{number}", argv, {}))
        self.workers.append(
            self._program(
                "worker",
                f"worker-{number}",
                ("-m", "worker"),
                {
                    "LLAMASKETCH_API_URL": self.balancer.url,
                    "COMFYUI_URL": f"http://127.0.0.1:{port}",
                    "COMFYUI_FOLDER": str(data),
                    "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": self.registration_token(),
                    "LLAMASKETCH_WORKER_DATA_DIR": str(self.folder / f"worker-{number}"),
                    "LLAMASKETCH_WORKER_NAME": f"worker-{number}",
                    "LLAMASKETCH_WORKER_GATE_GRAPH": "invert@1",
                    "LLAMASKETCH_WORKER_STALL_SECONDS": "15",
                },
            )
        )

    def _program(self, kind: str, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Program:
        return Program(kind, name, argv, environment, self._logs / f"{name}.log")

    def registration_token(self) -> str:
        """A one-time token for one worker."""
        secret = derive_secret(self.environment["LLAMASKETCH_SECRET_KEY"], WORKER_REGISTRATION)
        return RegistrationTokens(secret, system_clock).mint(valid_for=timedelta(days=1))

    @property
    def mortals(self) -> list[Server | Program]:
        """Everything that may be killed."""
        return [self.postgres, self.valkey, *self.apis, *self.comfyuis, *self.workers]

    def ended_by_itself(self) -> dict[str, int]:
        """How often our own programs ended although nobody killed them, by kind."""
        counts = Counter(dict.fromkeys(("api", "comfyui", "worker"), 0))
        for program in (*self.apis, *self.comfyuis, *self.workers):
            counts[program.kind] += program.by_itself
        return dict(counts)

    async def start(self) -> None:
        """Servers, one API process (it makes the schema), then the rest."""
        await self.postgres.start()
        await self.valkey.start()
        await self.balancer.start()
        for port, api in zip(self.ports, self.apis, strict=True):
            await api.start()
            await until_it_answers(port)
        for program in (*self.comfyuis, *self.workers):
            await program.start()

    async def stop(self) -> None:
        """Workers first, servers last. Safe to call in any state."""
        for programs in (self.workers, self.comfyuis, self.apis):
            await asyncio.gather(*(program.stop() for program in programs))
        await self.balancer.stop()
        await self.valkey.stop()
        await self.postgres.stop()
        self._thread.shutdown()


async def until_it_answers(port: int) -> None:
    """Wait for something to listen there. Raises `TimeoutError`."""
    async with asyncio.timeout(READY_SECONDS_MAX):
        while not answers(port):  # noqa: ASYNC110 - a port tells nobody when it opens
            await asyncio.sleep(0.1)
