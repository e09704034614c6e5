"""The way to a mail server: what it says, and what its silence means, against a real one."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.followups.rows import problem_of
from mail.domain.message import Sender, compose
from mail.domain.writing import Writer
from mail.errors import Postponed, Refused
from mail.server import Server
from mail.smtp import SmtpTransport
from sandbox.embedded.ports import free_port
from sandbox.lnd.certificate import ensure
from sandbox.mail.reception import Door
from tests.mail.conftest import MailServer
from tests.mail.letters import CARD, MOMENT
from tests.waiting import eventually

PASSWORD = "k8-sWq6JfUa1 Hn3c"
QUOTED = "k8-sWq6JfUa1%20Hn3c"


def message(to: str = "ada@llamas.art"):
    written = Writer("https://llamas.art").write(CARD, None)
    sender = Sender("LlamaSketch", "mail@llamas.art")
    return compose(written, mail_id="receipt:x:1", sender=sender, to=to, written_at=MOMENT, turn_off_url=None)


async def test_a_message_arrives_as_it_was_composed(post: MailServer) -> None:
    sent = message()
    await post.transport.send(sent)
    (came,) = post.came
    assert came["to"] == ["ada@llamas.art"]
    assert came["raw"] == sent.as_bytes()


async def test_several_messages_at_once_arrive_once_each(post: MailServer) -> None:
    transport = post.transport
    await asyncio.gather(*(transport.send(message(f"p{n}@llamas.art")) for n in range(12)))
    assert sorted(came["to"][0] for came in post.came) == sorted(f"p{n}@llamas.art" for n in range(12))


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("busy_recipients", Postponed, "(recipient: 451 4.7.1)"),
        ("unknown_recipients", Refused, "(recipient: 550 5.1.1)"),
        ("busy_content", Postponed, "(content: 451 4.3.0)"),
        ("refused_content", Refused, "(content: 554 5.7.1)"),
        ("dropped_at_recipient", Postponed, "(SMTPServerDisconnected)"),
    ],
)
async def test_what_a_server_says_decides_whether_it_is_tried_again(
    post: MailServer, fault: str, kind: type[Exception], says: str
) -> None:
    post.fail(**{fault: 1})
    with pytest.raises(kind) as error:
        await post.transport.send(message())
    assert problem_of(error.value).endswith(says)
    assert "@" not in problem_of(error.value), "servers quote addresses; what is kept names nobody"
    assert post.came == []
    await post.transport.send(message())
    assert len(post.came) == 1


@pytest.mark.parametrize("fault", ["silent_after_content", "dropped_after_content"])
async def test_silence_after_the_message_is_no_refusal_and_the_next_copy_is_the_same(
    post: MailServer, fault: str
) -> None:
    post.fail(**{fault: 1})
    while not post.came:  # a stalled machine is silent before the message, too
        with pytest.raises(Postponed):
            await post.impatient.send(message())
    await post.transport.send(message())
    assert [came["message"]["Message-ID"] for came in post.came] == [message()["Message-ID"]] * 2


async def test_a_slow_answer_is_waited_for_and_a_very_slow_one_is_not(post: MailServer) -> None:
    post.fail(delay_ms=100)
    await post.transport.send(message())
    post.fail(delay_ms=5_000)
    with pytest.raises(Postponed, match="no answer in time"):
        await post.impatient.send(message())


async def test_all_together_has_a_limit_also_if_each_step_keeps_to_its_own(post: MailServer) -> None:
    post.fail(delay_ms=300)
    with pytest.raises(Postponed, match="no answer in time"):
        await SmtpTransport(post.server, step_seconds=5, seconds_max=0.2).send(message())


async def test_a_server_that_is_away_or_hangs_up_is_tried_again(post: MailServer) -> None:
    with pytest.raises(Postponed):
        await SmtpTransport(Server.parse(f"smtp+plain://127.0.0.1:{free_port()}")).send(message())
    post.fail(down=True)
    with pytest.raises(Postponed):
        await post.transport.send(message())
    post.fail(down=False)
    await post.transport.send(message())
    assert len(post.came) == 1


# --- TLS and signing in ---


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    ensure(tmp_path, datetime.now(UTC))
    return tmp_path


def serving(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.cert", folder / "tls.key")
    return context


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "tls.cert")


@pytest.mark.parametrize(("scheme", "first"), [("smtp", False), ("smtps", True)])
async def test_a_message_goes_by_tls_to_a_server_that_knows_us(
    post: MailServer, certificate: Path, scheme: str, first: bool
) -> None:
    door = Door(tls=serving(certificate), tls_first=first, user="llama", password=PASSWORD)
    async with post.stand.receiving(port := free_port(), door):
        server = Server.parse(f"{scheme}://llama:{QUOTED}@localhost:{port}")
        await SmtpTransport(server, tls=trusting(certificate)).send(message())
        assert len(post.came) == 1
        wrong = SmtpTransport(server._replace(password="another"), tls=trusting(certificate))
        with pytest.raises(Postponed, match=r"\(signing in: 535 5\.7\.8\)"):
            await wrong.send(message())
    await eventually(lambda: len(post.came) == 1, "the other one did not come")


@pytest.mark.parametrize(("scheme", "first"), [("smtp", False), ("smtps", True)])
async def test_a_certificate_that_nobody_vouches_for_gets_no_message_and_no_password(
    post: MailServer, certificate: Path, scheme: str, first: bool
) -> None:
    door = Door(tls=serving(certificate), tls_first=first, user="llama", password=PASSWORD)
    async with post.stand.receiving(port := free_port(), door):
        server = Server.parse(f"{scheme}://llama:{QUOTED}@localhost:{port}")
        with pytest.raises(Postponed):
            await SmtpTransport(server).send(message())
    assert post.came == []


async def test_a_server_without_starttls_gets_nothing_unless_plain_text_was_asked_for(
    post: MailServer,
) -> None:
    server = Server.parse(f"smtp://127.0.0.1:{post.port}")
    with pytest.raises(Postponed):
        await SmtpTransport(server).send(message())
    assert post.came == []


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtps://mail.llamas.art", Server("smtps", "mail.llamas.art", 465, None, None)),
        ("smtp://a%40b:p%3A%2F@mail.llamas.art", Server("smtp", "mail.llamas.art", 587, "a@b", "p:/")),
        ("smtp+plain://10.0.0.3:2525", Server("smtp+plain", "10.0.0.3", 2525, None, None)),
    ],
)
def test_an_address_of_a_server_is_read(url: str, server: Server) -> None:
    assert Server.parse(url) == server


@pytest.mark.parametrize("url", ["", "mail.llamas.art", "https://mail.llamas.art", "smtps://", "smtps://x:y"])
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Server.parse(url)
