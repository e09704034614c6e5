"""Asking the owner of a Lightning address, or of an LNURL, for an invoice (LUD-06, LUD-16).

Whoever wants a refund names the host that is asked, so that none of it is believed: only public addresses are
connected to, by the address that was looked up and checked; no redirect is followed, and size and time have bounds.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import msgspec

from rails.contract import RailProtocolError, RailUnavailable, RefundImpossible
from rails.reading import MISREAD, decoded

SECONDS_MAX = 10
"""For one question and all of its answer."""
BYTES_MAX = 64 * 1024
AT_ONCE = 8
HTTPS = 443
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GONE = frozenset({400, 401, 403, 404, 410, 422})
_UNREADABLE = "what was answered there cannot be read"


class _PayRequest(msgspec.Struct, frozen=True, kw_only=True):
    tag: str = ""
    status: str = ""
    callback: str = ""
    min_msat: int = msgspec.field(name="minSendable", default=0)
    max_msat: int = msgspec.field(name="maxSendable", default=0)


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    status: str = ""
    pr: str = ""


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the machine's own resolver. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: str) -> bool:
    """Whether it is an address of the public network, and of nothing behind it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or ip in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast


def client() -> httpx.AsyncClient:
    """A client for `PublicWeb`. It keeps no connection: hosts that share an address must not share one."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=SECONDS_MAX)


class PublicWeb:
    """Reads what public hosts answer, and nothing of our own network."""

    def __init__(
        self, http: httpx.AsyncClient, resolve_host: Resolve = resolve, *, plain_http: bool = False
    ) -> None:
        self._http = http
        self._resolve = resolve_host
        self._plain_http = plain_http
        """For trying out: this machine is asked, too, and without encryption."""

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def get(self, address: str) -> bytes:
        """Raises `RefundImpossible` for what must not be asked, `RailUnavailable` for what does not answer."""
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, *MISREAD):
            raise RefundImpossible("there is no such address") from None
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return await self._read(url, await self._checked(url))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise RailUnavailable(f"the address does not answer: {type(error).__name__}") from None

    async def _checked(self, url: httpx.URL) -> str:
        """The address to connect to. One that is not public makes the whole host unwanted."""
        allowed = ("https", "http") if self._plain_http else ("https",)
        port = url.port or HTTPS
        if url.scheme not in allowed or not url.host or url.userinfo:
            raise RefundImpossible("there is no such address")
        if port != HTTPS and not self._plain_http:
            raise RefundImpossible("only the usual port is asked")
        host = url.host.rstrip(".")
        try:
            found: Sequence[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            found = await self._resolve(host, port)
        if not found or not (self._plain_http or all(is_public(address) for address in found)):
            raise RefundImpossible("the address is not a public one")
        return found[0]

    async def _read(self, url: httpx.URL, address: str) -> bytes:
        # Connected to by what was checked: a name may mean something else the next time it is looked up.
        request = self._http.build_request(
            "GET",
            url.copy_with(host=address),
            headers={
                "Host": url.netloc.decode(),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            extensions={"sni_hostname": url.host},
        )
        answer = await self._http.send(request, stream=True)
        try:
            if answer.status_code in _GONE:
                raise RefundImpossible("nobody is known there")
            if answer.status_code != httpx.codes.OK:
                raise RailUnavailable(f"the address answers {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise RefundImpossible(_UNREADABLE)
            content = b""
            async for part in answer.aiter_raw():
                content += part
                if len(content) > BYTES_MAX:
                    raise RefundImpossible(_UNREADABLE)
            return content
        finally:
            await answer.aclose()


class Lookups:
    """Invoices from whoever owns an address."""

    def __init__(self, web: PublicWeb) -> None:
        self._web = web

    async def close(self) -> None:
        """Let go of connections."""
        await self._web.close()

    async def invoice(self, address: str, amount_msat: int) -> str:
        """An invoice for this amount; the node checks that it is. Raises `RefundImpossible`, `RailUnavailable`."""
        request: _PayRequest = _understood(await self._web.get(address), _PayRequest)
        if request.status.upper() == "ERROR" or request.tag != "payRequest":
            raise RefundImpossible("nobody who can be paid is known there")
        if not request.min_msat <= amount_msat <= request.max_msat:
            raise RefundImpossible("this amount is not taken there")
        try:
            callback = httpx.URL(request.callback).copy_set_param("amount", str(amount_msat))
        except (httpx.InvalidURL, *MISREAD):
            raise RefundImpossible(_UNREADABLE) from None
        made: _Made = _understood(await self._web.get(str(callback)), _Made)
        if made.status.upper() == "ERROR" or not made.pr:
            raise RefundImpossible("no invoice was made there")
        return made.pr


def _understood(content: bytes, shape: Any) -> Any:
    try:
        return decoded("the address", content, shape)
    except RailProtocolError:
        raise RefundImpossible(_UNREADABLE) from None
