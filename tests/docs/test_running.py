"""What the documents and the reference tell people to run, run."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import sys
from pathlib import Path

import psycopg
import pytest

from gateway.routes import health_shapes, plan_shapes, shapes
from tests.docs.texts import ROOT, blocks
from tests.gateway.stack import FakeWorker, Gateway, generation_request, picture
from tests.waiting import SECONDS_MAX

ACCOUNTANTS = ROOT / "docs" / "accountants.md"
HERE = "http://127.0.0.1:8000"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def run(*command: str, folder: Path, **environment: str) -> str:
    """Run to its end; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def paint(worker: FakeWorker) -> str:
    """Take the next job, however long its asker takes to start, and deliver it."""
    job = await worker.claim(20)
    assert job is not None
    (await worker.deliver(job)).raise_for_status()
    return str(job["id"])


async def test_the_python_client_of_the_api_document_paints_an_image(
    lived_in: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "client.py").write_text(blocks(ROOT / "docs" / "api.md", "python")[-1])
    (tmp_path / "sketch.png").write_bytes(picture())
    worker = await lived_in.worker("worker of the client")
    painting = asyncio.create_task(paint(worker))
    printed = await run(
        sys.executable, "client.py", "sketch.png", folder=tmp_path, LLAMASKETCH_URL=lived_in.url
    )
    await painting
    assert printed.startswith("completed")
    assert (tmp_path / "llama.png").stat().st_size > 0


@needs_curl
async def test_the_readmes_commands_reach_the_api(lived_in: Gateway, tmp_path: Path) -> None:
    script = next(block for block in blocks(ROOT / "README.md", "sh") if "curl" in block)
    printed = await run("bash", "-ec", script.replace(HERE, lived_in.url), folder=tmp_path)
    assert '"available":20' in printed


@needs_curl
async def test_the_references_quick_start_paints_an_image(lived_in: Gateway, tmp_path: Path) -> None:
    page = (await lived_in.client().get("/docs")).text
    begin, ask, fetch = [
        html.unescape(text) for text in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)[:3]
    ]
    worker = await lived_in.worker("worker of the reference")
    painting = asyncio.create_task(paint(worker))
    asked = await run("bash", "-ec", f'{begin}\n{ask}\necho "$TOKEN $JOB"', folder=tmp_path)
    token, job = asked.split()
    assert await painting == job
    variables = f"URL={lived_in.url} TOKEN={token} JOB={job}"
    await run("bash", "-ec", f"{variables}\n{fetch}", folder=tmp_path)
    assert (tmp_path / "llama.png").read_bytes().startswith(b"\x89PNG")


async def test_every_question_of_the_accountants_has_an_answer(lived_in: Gateway) -> None:
    questions = blocks(ACCOUNTANTS, "sql")
    assert len(questions) >= 6
    answers = {}
    async with await psycopg.AsyncConnection.connect(
        lived_in.services.base.settings.database_url
    ) as connection:
        await connection.execute("SET default_transaction_read_only = on")
        for question in questions:
            cursor = await connection.execute(question.encode())
            answers[question] = [tuple(row) async for row in cursor]
    settled = next(rows for question, rows in answers.items() if "payment_settled" in question)
    rail, _, pieces, _, cents, granted = settled[0]
    assert (rail, pieces, cents, granted) == ("fake", 1, 500, 500)
    together = next(rows for question, rows in answers.items() if "log_batches.batch" in question)
    assert together


async def test_the_reference_needs_no_script_and_names_every_operation(gateway: Gateway) -> None:
    client = gateway.client(Accept="text/html")
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "style-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"<style|\sstyle=|onclick=", page.text)
    document = (await client.get("/v1/openapi.json")).json()
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page.text
        for operation in methods.values():
            assert html.escape(operation["summary"], quote=False).replace("'", "&#39;") in page.text
            problem = operation["responses"]["4XX"]["content"]
            assert list(problem) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/account", shapes.AccountOut),
        ("/v1/statement", shapes.StatementOut),
        ("/v1/plans", plan_shapes.PlansOut),
        ("/v1/rails", shapes.RailsOut),
        ("/v1/topups", shapes.TopupsOut),
        ("/v1/session", shapes.SessionOut),
        ("/health", health_shapes.HealthOut),
    ],
)
async def test_answers_have_the_shape_that_the_reference_gives(
    lived_in: Gateway, path: str, shape: type[shapes.Shape]
) -> None:
    client = await lived_in.visitor()
    await client.post("/v1/generations", json=generation_request())
    await client.post("/v1/topups", json={"rail": "fake", "pay_asset": "USD", "credits": 100})
    answer = await client.get(path)
    shape.model_validate(answer.json())


async def test_an_opened_topup_and_a_new_visitor_have_their_shapes(lived_in: Gateway) -> None:
    client = await lived_in.visitor()
    opened = (
        await client.post("/v1/topups", json={"rail": "fake", "pay_asset": "USD", "credits": 100})
    ).json()
    assert shapes.TopupOut.model_validate(opened).recovery_code
    shapes.TopupOut.model_validate((await client.get(f"/v1/topups/{opened['id']}")).json())
    shapes.VisitorOut.model_validate((await client.post("/v1/visitors")).json())


async def test_a_problem_has_its_shape(lived_in: Gateway) -> None:
    answer = await (await lived_in.visitor()).get("/v1/topups/pay_nobody")
    assert shapes.ProblemOut.model_validate(answer.json()).code == "payment_not_found"
