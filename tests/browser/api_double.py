"""A double of the HTTP contract: real HTTP and SSE, every state on demand, nothing behind it.

Pages are developed and tested against it where the real stack cannot easily be brought into a state.
`POST /double/…` sets the scene. One visitor; all amounts are integers in minor units.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from gateway.web.pages import build_router, load_pages

Json = dict[str, Any]
ADDRESS = (
    "el1qqdp3hs5hu2kkpwjdf0gzhkxrm8vrcck9rgj0vmn6wr8r0pnxjv3k7wlqzt7j6kfzkyrrk7q0zxn3l0phwm5nx3ycwqfz5j7kk"
)
INVOICE = "lnbcrt50u1p" + "qyqszqgpq9skzcmfdeskuqs2t5x8rwvn3hjkl4m0" * 6
USDT_ID = "b612eb46313a2cd6ebabd8b7a8eed5696e29898b87a43bff41c94f51acef9d73"
RAILS: list[Json] = [
    {"name": "card", "label": "Card", "assets": [{"asset": "USD", "scale": 2}], "quote_seconds": 1800},
    {
        "name": "lightning",
        "label": "Lightning",
        "assets": [{"asset": "BTC", "scale": 11}],
        "quote_seconds": 900,
    },
    {
        "name": "liquid",
        "label": "USDT / L-BTC",
        "assets": [{"asset": "USDT", "scale": 8}, {"asset": "L-BTC", "scale": 8}],
        "quote_seconds": 900,
    },
]
PER_CREDIT = {"USD": 1, "BTC": 10_240, "USDT": 1_000_000, "L-BTC": 10}
PLANS: list[Json] = [
    {"name": "free", "label": "Free", "price_usd_minor": 0, "period": "day", "credits": 20, "rank": 0},
    {
        "name": "starter",
        "label": "Starter",
        "price_usd_minor": 800,
        "period": "month",
        "credits": 2000,
        "rank": 1,
    },
    {
        "name": "pro",
        "label": "Pro",
        "price_usd_minor": 2000,
        "period": "month",
        "credits": 8000,
        "rank": 2,
        "priority": True,
    },
    {
        "name": "unlimited",
        "label": "Unlimited",
        "price_usd_minor": 4000,
        "period": "day",
        "credits": 1000,
        "rank": 3,
        "priority": True,
    },
]


def now() -> datetime:
    """The time of the double is the world's."""
    return datetime.now(UTC)


def picture(png: bytes, prompt: str) -> bytes:
    """A wash of colour under the drawn lines: enough to look at."""
    sketch = Image.open(io.BytesIO(png)).convert("L").resize((768, 768))
    tint = sum(prompt.encode()) % 5
    palettes = [
        "#f3c58b #7fb3a5 #e58f65",
        "#a9cbe0 #f4d58a #6d8f6b",
        "#e9b7a4 #86a8c9 #f0dfb0",
        "#9cc5a1 #f2b880 #c98686",
        "#f6d6ad #8fa9c4 #b58db6",
    ]
    colours = palettes[tint].split()
    wash = Image.new("RGB", (768, 768), "#f8efdd")
    draw = ImageDraw.Draw(wash)
    for index, place in enumerate(
        [(-80, -120, 520, 420), (300, -60, 900, 460), (-120, 380, 480, 880), (330, 330, 900, 900)]
    ):
        draw.ellipse(place, fill=colours[index % 3])
    wash = wash.filter(ImageFilter.GaussianBlur(70))
    halo = sketch.filter(ImageFilter.GaussianBlur(22))
    wash = Image.composite(wash, Image.new("RGB", wash.size, colours[2]), ImageOps.autocontrast(halo))
    wash = Image.composite(
        wash, Image.new("RGB", wash.size, "#2c2320"), sketch.filter(ImageFilter.GaussianBlur(1.2))
    )
    out = io.BytesIO()
    wash.save(out, "PNG")
    return out.getvalue()


@dataclass
class Scene:
    """Everything the double knows."""

    free: int = 20
    paid: int = 0
    held: int = 0
    debt: int = 0
    outcome: str = "completed"
    paint_seconds: float = 0.25
    refuse: Json | None = None
    closed: dict[str, str] = field(default_factory=dict)
    topup_delay: float = 0.0
    person: str | None = None
    topups: dict[str, Json] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, Json] = field(default_factory=dict)
    entries: list[Json] = field(default_factory=list)
    listeners: set[asyncio.Queue[str]] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    counter: Any = field(default_factory=lambda: itertools.count(1))
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def account(self) -> Json:
        """GET /v1/account."""
        midnight = (now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        lots: list[Json] = [
            {
                "id": "lot_free",
                "source": "allowance",
                "granted": 20,
                "left": self.free,
                "held": 0,
                "expires_at": midnight.isoformat(),
            }
        ]
        if self.paid or self.topups:
            lots.append(
                {
                    "id": "lot_paid",
                    "source": "payment",
                    "granted": max(self.paid, 100),
                    "left": self.paid,
                    "held": 0,
                    "expires_at": None,
                }
            )
        posted = self.free + self.paid + self.held
        return {
            "id": "acct_double",
            "plan": "free",
            "plan_label": "Free",
            "lots": lots,
            "free_today": {"left": self.free},
            "credits": {
                "posted": posted,
                "held": self.held,
                "available": posted - self.held,
                "debt": self.debt,
            },
        }

    def book(self, kind: str, change: int, reference: Json, image_url: str | None = None) -> None:
        """Write one entry and tell the listeners."""
        account = self.account()["credits"]
        self.entries.insert(
            0,
            {
                "position": 1000 + next(self.counter),
                "at": now().isoformat(),
                "kind": kind,
                "credits": change,
                "posted_after": account["posted"],
                "held_after": account["held"],
                "available_after": account["available"],
                "reference": reference,
                "description": "",
                "image_url": image_url,
            },
        )
        self.tell("account", self.account())

    def tell(self, event: str, data: Json) -> None:
        """To every open stream."""
        ident = "" if event == "progress" else f"id: {next(self.counter)}\n"
        for queue in self.listeners:
            queue.put_nowait(f"event: {event}\n{ident}data: {json.dumps(data)}\n\n")

    def spawn(self, work: Any) -> None:
        """Run beside the request, and keep it alive."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)


def problem(status: int, code: str, title: str, **extra: Any) -> JSONResponse:
    """A problem document."""
    body = {
        "type": f"https://llamasketch.com/problems/{code}",
        "title": title,
        "status": status,
        "detail": title,
        "code": code,
        **extra,
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


async def paint(scene: Scene, job: Json, png: bytes) -> None:
    """Queue, progress, end: as the scene wants it."""
    for step in range(1, 5):
        if scene.outcome == "wait":
            await scene.gate.wait()
        await asyncio.sleep(scene.paint_seconds / 4)
        if job["state"] == "cancelled":
            return
        job.update(state="running", position=None)
        scene.tell(
            "progress",
            {
                "id": job["id"],
                "state": "running",
                "position": None,
                "eta_seconds": 2,
                "value": step,
                "max": 4,
                "preview": preview(png) if step > 1 else None,
            },
        )
    finish(scene, job, "completed" if scene.outcome == "wait" else scene.outcome, png)


def preview(png: bytes) -> str:
    """A small JPEG, as a worker would send it."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").resize((96, 96)).filter(ImageFilter.GaussianBlur(2)).save(
        out, "JPEG", quality=60
    )
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def finish(scene: Scene, job: Json, state: str, png: bytes) -> None:
    """End a job and book it."""
    scene.held -= 1
    reference = {"type": "generation", "id": job["id"]}
    job["state"] = state
    job["credits"] = {"held": 0, "captured": 1 if state == "completed" else 0}
    if state == "completed":
        scene.images[job["id"]] = picture(png, job["prompt"])
        job["image_url"] = f"/v1/generations/{job['id']}/image"
        scene.book("captured", -1, reference, job["image_url"])
    else:
        scene.paid, scene.free = (
            (scene.paid + 1, scene.free) if job["from_paid"] else (scene.paid, scene.free + 1)
        )
        scene.book("released", 1, reference)
    scene.tell("generation", job)


def make_topup(scene: Scene, body: Json) -> Json:
    """POST /v1/topups."""
    count, asset = body["credits"], body["pay_asset"]
    due = {"amount_minor": count * PER_CREDIT[asset], "asset": asset}
    ident = f"pay_{next(scene.counter):06d}"
    if body["rail"] == "card":
        instructions: Json = {"kind": "redirect", "url": f"/double/checkout/{ident}"}
    elif body["rail"] == "lightning":
        instructions = {"kind": "invoice", "uri": f"LIGHTNING:{INVOICE.upper()}", "text": INVOICE}
    else:
        whole, part = divmod(due["amount_minor"], 10**8)
        amount = f"{whole}.{part:08d}".rstrip("0").rstrip(".")
        instructions = {
            "kind": "address",
            "text": ADDRESS,
            "uri": f"liquidnetwork:{ADDRESS}?amount={amount}&assetid={USDT_ID}",
            "asset_id": USDT_ID,
        }
    topup: Json = {
        "id": ident,
        "rail": body["rail"],
        "state": "waiting",
        "credits": count,
        "amount_due": due,
        "received": [],
        "credited": None,
        "quote": {
            "rate": {"numerator": "1", "denominator": "1", "from": asset, "to": "USD"},
            "expires_at": (now() + timedelta(minutes=15)).isoformat(),
        },
        "instructions": instructions,
        "created_at": now().isoformat(),
    }
    scene.topups[ident] = topup
    return topup


def settle(scene: Scene, topup: Json, received: int | None = None) -> None:
    """Money arrives and is credited."""
    due = topup["amount_due"]
    topup["received"] = [
        {"amount_minor": received or due["amount_minor"], "asset": due["asset"], "state": "settled"}
    ]
    topup.update(state="paid", credited=topup["credits"])
    scene.paid += topup["credits"]
    scene.book("granted", topup["credits"], {"type": "topup", "id": topup["id"]})
    scene.tell("topup", topup)


def create_app(node_modules: Path) -> FastAPI:
    """The double, with the real pages in front."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    scene = Scene()
    app.state.scene = scene
    pages = load_pages(sandbox=True, node_modules=node_modules, version="test")
    app.include_router(build_router(pages, sandbox=True))

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        wants_page = "text/html" in request.headers.get("accept", "")
        return (
            pages.error(error.status_code)
            if wants_page
            else problem(error.status_code, "not_found", "Not found")
        )

    _api(app, scene)
    _topups(app, scene)
    _double(app, scene, pages.error)
    return app


def _api(app: FastAPI, scene: Scene) -> None:
    @app.get("/v1/account")
    async def account() -> Json:
        return scene.account()

    @app.get("/v1/session")
    async def session() -> Json:
        return {"kind": "person" if scene.person else "visitor", "email": scene.person, "sign_in": "embedded"}

    @app.post("/v1/session")
    async def sign_in(body: Json) -> Json:
        scene.person = body["email"]
        return {"kind": "person", "email": scene.person, "merged": {"credits": scene.paid}}

    @app.delete("/v1/session")
    async def sign_out() -> Json:
        scene.person = None
        return {}

    @app.post("/v1/session/recover")
    async def recover(body: Json) -> Any:
        if not body["recovery_code"].startswith("LLAMA"):
            return problem(404, "recovery_code_unknown", "This recovery code is not known.")
        return {"merged": {"credits": 100}}

    @app.get("/v1/plans")
    async def plans() -> Json:
        return {"plans": PLANS}

    @app.get("/v1/statement")
    async def statement(limit: int = 25, cursor: int = 0, type: str = "") -> Json:  # noqa: A002 - the API's word
        rows = [e for e in scene.entries if type in ("", e["reference"]["type"])]
        page = rows[cursor : cursor + limit]
        return {"entries": page, "next_cursor": str(cursor + limit) if len(rows) > cursor + limit else None}

    @app.get("/v1/events")
    async def events() -> Response:
        async def frames() -> AsyncIterator[str]:
            queue: asyncio.Queue[str] = asyncio.Queue()
            scene.listeners.add(queue)
            try:
                yield ": hello\n\n"
                while True:
                    yield await queue.get()
            finally:
                scene.listeners.discard(queue)

        return StreamingResponse(
            frames(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    _generations(app, scene)


def _generations(app: FastAPI, scene: Scene) -> None:
    @app.post("/v1/generations", status_code=202)
    async def generate(request: Request, body: Json) -> Any:
        if scene.refuse:
            return problem(**scene.refuse)
        key = request.headers["idempotency-key"]
        if key in scene.keys:
            return scene.keys[key]
        if scene.free + scene.paid <= 0:
            return problem(
                402,
                "insufficient_credits",
                "Not enough credits.",
                available=0,
                needed=1,
                topup_url="/topups/new",
            )
        from_paid = scene.free <= 0
        scene.paid, scene.free = (scene.paid - 1, scene.free) if from_paid else (scene.paid, scene.free - 1)
        scene.held += 1
        ident = f"job_{next(scene.counter):06d}"
        job: Json = {
            "id": ident,
            "state": "queued",
            "price_credits": 1,
            "position": 2,
            "eta_seconds": {"low": 3, "high": 7},
            "prompt": body["prompt"],
            "image_url": None,
            "credits": {"held": 1, "captured": 0},
            "from_paid": from_paid,
        }
        scene.jobs[ident] = scene.keys[key] = job
        scene.book("held", -1, {"type": "generation", "id": ident})
        scene.spawn(paint(scene, job, base64.b64decode(body["sketch"]["data"])))
        return job

    @app.get("/v1/generations/{ident}")
    async def generation(ident: str) -> Any:
        return scene.jobs.get(ident) or problem(404, "not_found", "No such image.")

    @app.delete("/v1/generations/{ident}")
    async def cancel(ident: str) -> Any:
        job = scene.jobs[ident]
        if job["state"] in ("queued", "running"):
            finish(scene, job, "cancelled", b"")
        return job

    @app.get("/v1/generations/{ident}/image")
    async def image(ident: str) -> Response:
        return Response(
            scene.images[ident], media_type="image/png", headers={"Cache-Control": "private, max-age=86400"}
        )


def _topups(app: FastAPI, scene: Scene) -> None:
    @app.get("/v1/rails")
    async def rails() -> Json:
        listed = [
            {**rail, "open": rail["name"] not in scene.closed, "reason": scene.closed.get(rail["name"])}
            for rail in RAILS
        ]
        packs = [{"credits": count, "usd_minor": count} for count in (100, 500, 2000)]
        return {"rails": listed, "packs": packs}

    @app.post("/v1/topups", status_code=201)
    async def topup(body: Json) -> Any:
        await asyncio.sleep(scene.topup_delay)
        topup = make_topup(scene, body)
        first = len(scene.topups) == 1 and scene.person is None
        return {**topup, "recovery_code": "LLAMA-7Q4F-K2ZT-9MXA"} if first else topup

    @app.get("/v1/topups/{ident}")
    async def read(ident: str) -> Any:
        return scene.topups.get(ident) or problem(404, "not_found", "No such top-up.")

    @app.get("/sandbox/api/open")
    async def opened() -> Json:
        states = ("waiting", "underpaid")
        balances = [
            {"label": "Lightning", "amount_minor": 250_000_000_000, "asset": "BTC"},
            {"label": "Liquid", "amount_minor": 99_500_000_000, "asset": "USDT"},
        ]
        return {
            "topups": [one for one in scene.topups.values() if one["state"] in states],
            "balances": balances,
        }

    @app.post("/sandbox/api/pay")
    async def pay(body: Json) -> Any:
        # A URI may ask for the rest of what is due: the address in it says which top-up is meant.
        text = body["text"].lower().partition("?")[0]
        for one in scene.topups.values():
            given = [
                str(one["instructions"].get(name, "")).lower().partition("?")[0] for name in ("uri", "text")
            ]
            if one["state"] in ("waiting", "underpaid") and text in given:
                if body.get("amount"):
                    scene.tell("topup", underpay(one))
                    return {"state": "seen", "detail": "Sent a part."}
                settle(scene, one)
                return {"state": "paid", "detail": "Paid."}
        return problem(
            422, "not_payable", "This is neither an open invoice nor a Liquid URI of this sandbox."
        )


def underpay(topup: Json) -> Json:
    """Half of it came."""
    due = topup["amount_due"]
    topup.update(
        state="underpaid",
        received=[{"amount_minor": due["amount_minor"] // 2, "asset": due["asset"], "state": "settled"}],
    )
    return topup


def _double(app: FastAPI, scene: Scene, error_page: Any) -> None:
    @app.post("/double/reset")
    async def reset(body: Json) -> Json:
        for task in list(scene.running):
            task.cancel()
        listeners = scene.listeners
        scene.__dict__.update(Scene(**body).__dict__)
        scene.listeners = listeners
        return {}

    @app.post("/double/set")
    async def change(body: Json) -> Json:
        scene.__dict__.update(body)
        scene.tell("account", scene.account())
        return {}

    @app.post("/double/go")
    async def go() -> Json:
        scene.gate.set()
        return {}

    @app.post("/double/topups/{ident}")
    async def change_topup(ident: str, body: Json) -> Json:
        topup = scene.topups[ident]
        if body.get("state") == "paid" and "received" not in body:
            settle(scene, topup, body.get("amount"))
        else:
            topup.update(body)
            scene.tell("topup", topup)
        return topup

    @app.get("/double/checkout/{ident}")
    async def checkout(ident: str) -> HTMLResponse:
        return HTMLResponse(f"<!doctype html><title>Checkout</title><a href='/topups/{ident}'>Back</a>")

    @app.get("/double/error")
    async def broken() -> Any:
        return error_page(500)


def serve(port: int, node_modules: Path) -> uvicorn.Server:
    """A server for a thread or a terminal."""
    config = uvicorn.Config(
        create_app(node_modules),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8321)
    serve(parser.parse_args().port, Path(__file__).parents[2] / "node_modules").run()
