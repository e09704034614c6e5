"""Asking strangers for an invoice: what they answer is believed by nobody, and our own network is not theirs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rails.contract import RailUnavailable, RefundImpossible
from rails.lightning import lookups
from rails.lightning.lookups import BYTES_MAX, Lookups, PublicWeb, client, is_public
from tests.rails.lightning.strangers import Stranger

PUBLIC = "93.184.216.34"
OWN = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.9",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "fd00::1",
    "fe80::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "ff02::1",
]


class Recorded(httpx.AsyncBaseTransport):
    """Answers everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))


def web(found: Sequence[str]) -> tuple[PublicWeb, Recorded]:
    """A web whose every host has these addresses."""
    transport = Recorded()

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("pay.example.com", 443)
        return found

    return PublicWeb(httpx.AsyncClient(transport=transport), resolve), transport


async def test_a_host_is_asked_by_the_address_that_was_checked_and_proves_its_name() -> None:
    public, transport = web([PUBLIC])
    await public.get("https://pay.example.com/.well-known/lnurlp/artist?x=1")
    [request] = transport.asked
    assert (request.url.host, request.url.path, request.url.query) == (
        PUBLIC,
        "/.well-known/lnurlp/artist",
        b"x=1",
    )
    assert request.headers["host"] == "pay.example.com"
    assert request.extensions["sni_hostname"] == "pay.example.com"


@pytest.mark.parametrize("address", OWN)
async def test_a_name_that_means_our_own_network_is_not_asked(address: str) -> None:
    for found in ([address], [PUBLIC, address]):
        public, transport = web(found)
        with pytest.raises(RefundImpossible):
            await public.get("https://pay.example.com/")
        assert transport.asked == []
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://pay.example.com/",
        "https://pay.example.com:8443/",
        "https://user:secret@pay.example.com/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[fe80::1%25eth0]/",
        "file:///etc/passwd",
        "gopher://pay.example.com/",
        "https://",
        "not an address",
        "https://pay.example.com\x00/",
    ],
)
async def test_what_must_not_be_asked_is_refused_by_name(address: str) -> None:
    transport = Recorded()

    async def resolve(host: str, port: int) -> Sequence[str]:
        # What the machine's resolver makes of a number is an address of this machine, too.
        return ["127.0.0.1"]

    with pytest.raises(RefundImpossible):
        await PublicWeb(httpx.AsyncClient(transport=transport), resolve).get(address)
    assert transport.asked == []


async def test_a_host_that_cannot_be_found_may_be_found_later() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    with pytest.raises(RailUnavailable):
        await PublicWeb(httpx.AsyncClient(transport=Recorded()), resolve).get("https://pay.example.com/")


# --- a stranger's server ----------------------------------------------------------------------------


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    async with Stranger() as found:
        yield found


@pytest.fixture
async def asking() -> AsyncIterator[Lookups]:
    found = Lookups(PublicWeb(client(), plain_http=True))
    yield found
    await found.close()


async def test_an_invoice_is_made_for_the_amount(stranger: Stranger, asking: Lookups) -> None:
    stranger.says(stranger.who(), {"pr": "lnbc1made"})
    assert await asking.invoice(stranger.address, 5_000) == "lnbc1made"
    assert stranger.asked == ["/who", "/callback?session=1&amount=5000"]


@pytest.mark.parametrize(
    "who",
    [
        {"status": "ERROR", "reason": "nobody"},
        {"tag": "withdrawRequest"},
        {"tag": "payRequest", "minSendable": 5_001},
        {"tag": "payRequest", "maxSendable": 4_999},
        {"tag": "payRequest", "minSendable": "1"},
        {"tag": "payRequest", "callback": 7},
        {"tag": "payRequest", "callback": ""},
        {"tag": "payRequest", "callback": "file:///etc/passwd"},
        {"tag": "payRequest", "callback": "https://[::1/"},
        [],
        None,
        "payRequest",
    ],
)
async def test_who_cannot_be_paid_is_refused_and_no_invoice_is_asked_for(
    stranger: Stranger, asking: Lookups, who: Any
) -> None:
    answer = {**stranger.who(), **who} if isinstance(who, dict) else who
    stranger.says(answer, {"pr": "lnbc1made"})
    with pytest.raises(RefundImpossible):
        await asking.invoice(stranger.address, 5_000)
    assert stranger.asked == ["/who"]


@pytest.mark.parametrize("made", [{"status": "ERROR"}, {}, {"pr": ""}, {"pr": 5}, [], "x"])
async def test_no_invoice_is_none(stranger: Stranger, asking: Lookups, made: Any) -> None:
    stranger.says(stranger.who(), made)
    with pytest.raises(RefundImpossible):
        await asking.invoice(stranger.address, 5_000)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            RailUnavailable,
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", RefundImpossible),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", RailUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\x00{]", RefundImpossible),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", RailUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", RefundImpossible),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * (BYTES_MAX + 1), RefundImpossible),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * BYTES_MAX, RefundImpossible),
        (b"SSH-2.0-OpenSSH_9.6\r\n", RailUnavailable),
        (b"", RailUnavailable),
    ],
)
async def test_whatever_a_stranger_sends_has_a_name(
    stranger: Stranger, asking: Lookups, raw: bytes, error: type[Exception]
) -> None:
    stranger.raw = raw
    with pytest.raises(error):
        await asking.invoice(stranger.address, 5_000)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_a_stranger_who_never_ends_is_left(
    stranger: Stranger, asking: Lookups, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(lookups, "SECONDS_MAX", 0.2)
    stranger.raw, stranger.hangs = sent, True
    with pytest.raises(RailUnavailable):
        await asking.invoice(stranger.address, 5_000)


async def test_no_connection_is_kept_for_another_host(stranger: Stranger, asking: Lookups) -> None:
    stranger.says(stranger.who(), {"pr": "lnbc1made"})
    await asyncio.gather(*(asking.invoice(stranger.address, 5_000) for _ in range(3)))
    assert stranger.connections == 6


async def test_the_machines_own_resolver_is_asked() -> None:
    assert "127.0.0.1" in await lookups.resolve("localhost", 443)
    assert not any(is_public(address) for address in await lookups.resolve("localhost", 443))


# --- who a host is -----------------------------------------------------------------------------------


def certificate(name: str, folder: Path) -> Path:
    """A certificate that says so itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return file


@pytest.mark.parametrize(
    ("proves", "error"), [("pay.example.com", None), ("other.example.com", RailUnavailable)]
)
async def test_whoever_is_connected_to_proves_the_name_that_was_asked_for(
    tmp_path: Path, proves: str, error: type[Exception] | None
) -> None:
    file = certificate(proves, tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert host == "pay.example.com"
        return ["127.0.0.1"]

    async with Stranger(serving) as stranger, httpx.AsyncClient(verify=trusting, trust_env=False) as http:
        stranger.says({"tag": "payRequest"}, None)
        asking = PublicWeb(http, resolve, plain_http=True)
        address = f"https://pay.example.com:{stranger.port}/who"
        if error is None:
            assert json.loads(await asking.get(address)) == {"tag": "payRequest"}
        else:
            with pytest.raises(error):
                await asking.get(address)
