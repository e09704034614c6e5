"""What the demo plays, step by step, and the sums it does beside the ledger."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from gateway.commands.verify import verify_everything
from sandbox.demo.client import Api, DemoFailed, draw_llama

TOPUP_CREDITS = 100
FAILING_PROMPT = "a llama that cannot be painted: sandbox-fail"
HURRY = 0.05
"""Factor on the sandbox worker's pace while the rest of the free images is used up."""
_MOVES_POSTED = frozenset({"granted", "captured"})
_MOVES_HELD = {"held": -1, "captured": 1, "released": -1}
"""What a line of the statement does to the credits held: its own credits times this."""
_ENDED_TOPUPS = frozenset({"paid", "expired", "declined", "suspense", "unpriced", "reversed", "disputed"})


class Story:
    """Plays the main job and keeps its own account of every credit."""

    def __init__(
        self,
        api: Api,
        environment: Mapping[str, str],
        sketch: Mapping[str, str],
        prompt: str,
        *,
        show: Callable[[str], None],
    ) -> None:
        self._api = api
        self._environment = environment
        self._sketch = sketch
        self._scribble = {
            "content_type": "image/png",
            "data": base64.b64encode(draw_llama((64, 16))).decode(),
        }
        """A flat one: its image is a quarter of the standard size, for the same credit."""
        self._prompt = prompt
        self._show = show
        self._expected = 0
        """Credits that must be available, by our own sums."""
        self._painted: list[str] = []
        self._paid: dict[str, int] = {}
        self._failed_job = ""
        self.problems: list[str] = []
        self.steps: list[dict[str, Any]] = []

    def returned(self) -> dict[str, Any]:
        """What happened, for programs."""
        return {"ok": not self.problems, "problems": self.problems, "steps": self.steps}

    def play(self) -> None:
        """All steps in order. Raises `DemoFailed` where going on makes no sense."""
        with self._step("visitor") as step:
            step["account"] = self._api.begin()
            self._expected = self._api.available()
            self._expect(self._expected > 0, "a new visitor has no free images")
        with self._step("free image") as step:
            step.update(self._paint(self._prompt))
        for rail in self._rails():
            with self._step(f"top-up by {rail}") as step:
                self._top_up(rail, step)
        with self._step("rest of the free images") as step:
            self._use_up_allowance(step)
        with self._step("paid image") as step:
            self._paid_image(step)
        with self._step("failed image") as step:
            self._failed_image(step)
        with self._step("statement") as step:
            self._statement(step)
        with self._step("integrity") as step:
            self._integrity(step)

    @contextmanager
    def _step(self, name: str) -> Iterator[dict[str, Any]]:
        step: dict[str, Any] = {"step": name}
        began = time.perf_counter()
        yield step
        step["ms"] = round((time.perf_counter() - began) * 1000)
        if name not in ("integrity", "statement"):
            step["available"] = self._api.available()
            self._expect(
                step["available"] == self._expected,
                f"{name}: {step['available']} credits are available, {self._expected} should be",
            )
        self.steps.append(step)
        rest = {k: v for k, v in step.items() if k not in ("step", "ms", "available")}
        returned = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in rest.items())
        balance = f"{step['available']:>5} credits" if "available" in step else " " * 13
        self._show(f"{name:<26}{step['ms']:>8} ms {balance}   {returned}")

    def _expect(self, truth: bool, otherwise: str) -> None:
        if not truth:
            self.problems.append(otherwise)

    def _request(
        self, prompt: str, key: str | None = None, sketch: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        body = {"prompt": prompt, "sketch": sketch or self._sketch}
        return self._api.post("/v1/generations", body, key or secrets.token_hex(12))

    def _paint(self, prompt: str) -> dict[str, Any]:
        """One image, asked for twice with the same key: painted and charged once."""
        key = secrets.token_hex(12)
        asked = self._request(prompt, key)
        again = self._request(prompt, key)
        self._expect(again["id"] == asked["id"], "the same Idempotency-Key made a second job")
        width, height = self._delivered(asked)
        return {"job": asked["id"], "credits": asked["price_credits"], "pixels": f"{width}x{height}"}

    def _delivered(self, asked: Mapping[str, Any]) -> tuple[int, int]:
        job = self._api.generation(asked["id"])
        if job["state"] != "completed":
            raise DemoFailed(f"{asked['id']} ended as {job['state']}: {job.get('message')}")
        captured = job["credits"]["captured"]
        self._expect(captured == asked["price_credits"], f"{asked['id']} captured {captured} credits")
        self._painted.append(asked["id"])
        self._expected -= asked["price_credits"]
        return self._api.image(asked["id"])

    def _rails(self) -> list[str]:
        rails = self._api.get("/v1/rails")["rails"]
        for rail in rails:
            self._expect(rail["open"], f"the rail {rail['name']} is closed: {rail['reason']}")
        return [rail["name"] for rail in rails if rail["open"]]

    def _top_up(self, rail: str, step: dict[str, Any]) -> None:
        body = {"rail": rail, "credits": TOPUP_CREDITS}
        topup = self._api.post("/v1/topups", body, secrets.token_hex(12))
        due = topup["amount_due"]
        step.update(topup=topup["id"], amount=f"{due['amount_minor']} minor units of {due['asset']}")
        self._pay(topup["instructions"])
        paid_at = time.perf_counter()
        ended = self._api.wait(f"/v1/topups/{topup['id']}", lambda shown: shown["state"] in _ENDED_TOPUPS)
        step["paid_to_credited_ms"] = round((time.perf_counter() - paid_at) * 1000)
        step["credits"] = ended["credited"]
        if ended["state"] != "paid":
            raise DemoFailed(f"the top-up by {rail} ended as {ended['state']}")
        self._expect(ended["credited"] == TOPUP_CREDITS, f"{rail} credited {ended['credited']}")
        self._paid[topup["id"]] = ended["credited"]
        self._expected += ended["credited"]

    def _pay(self, instructions: Mapping[str, Any]) -> None:
        """As the wallet page does; a Checkout page by its own button."""
        if instructions["kind"] == "redirect":
            page = urlsplit(instructions["url"])
            session = page.path.rsplit("/", 1)[-1]
            button = urlunsplit((page.scheme, page.netloc, f"/sandbox/checkout/{session}/pay", "", ""))
            response = httpx.post(button, json={"outcome": "paid"}, timeout=30)
            if response.status_code >= 400:
                raise DemoFailed(f"the Checkout page refused to be paid: {response.text[:200]}")
            return
        text = instructions.get("uri") or instructions.get("bolt11") or instructions["text"]
        self._api.post("/sandbox/api/pay", {"text": text})

    def _lots(self, *, paid: bool) -> int:
        lots = self._api.get("/v1/account")["lots"]
        return sum(lot["left"] for lot in lots if (lot["source"] == "payment") is paid)

    def _use_up_allowance(self, step: dict[str, Any]) -> None:
        """Free credits are used before paid ones: only then can an image be paid for."""
        with self._fast_comfyui() as hurried:
            left = self._lots(paid=False)
            asked = [self._request(self._prompt, sketch=self._scribble) for _ in range(left)]
            for job in asked:
                self._delivered(job)
        step.update(images=len(asked), fast_comfyui=hurried)

    @contextmanager
    def _fast_comfyui(self) -> Iterator[bool]:
        """Ask the sandbox worker to be quick meanwhile, and leave it as it was."""
        control = self._environment.get("SANDBOX_COMFYUI_CONTROL_URL")
        if not control:
            yield False
            return
        url = f"{control.rstrip('/')}/sandbox/faults"
        before = float(httpx.get(url, timeout=10).json()["slow"])
        httpx.post(url, json={"slow": before * HURRY}, timeout=10).raise_for_status()
        try:
            yield True
        finally:
            httpx.post(url, json={"slow": before}, timeout=10).raise_for_status()

    def _paid_image(self, step: dict[str, Any]) -> None:
        before = self._lots(paid=True)
        step.update(self._paint(self._prompt))
        spent = before - self._lots(paid=True)
        self._expect(spent == step["credits"], f"the paid image took {spent} credits out of paid lots")
        step["paid_credits"] = spent

    def _failed_image(self, step: dict[str, Any]) -> None:
        asked = self._request(FAILING_PROMPT)
        self._failed_job = asked["id"]
        job = self._api.generation(asked["id"])
        step.update(job=asked["id"], state=job["state"], credits=job["credits"]["captured"])
        self._expect(job["state"] == "failed", f"an image that must fail ended as {job['state']}")
        self._expect(job["credits"] == {"held": 0, "captured": 0}, "a failed image was charged")

    def _statement(self, step: dict[str, Any]) -> None:
        entries = self._api.statement()
        account = self._api.get("/v1/account")["credits"]
        step.update(entries=len(entries), **account)
        posted = held = 0
        for entry in entries:
            kind, credits_ = entry["kind"], entry["credits"]
            posted += credits_ if kind in _MOVES_POSTED else 0
            held += _MOVES_HELD.get(kind, 0) * credits_
            returned = (entry["posted_after"], entry["held_after"], entry["available_after"])
            ours = (posted, held, posted - held)
            self._expect(
                returned == ours, f"the statement says {returned} at {entry['position']}, not {ours}"
            )
        ours = (posted, held, posted - held)
        returned = (account["posted"], account["held"], account["available"])
        self._expect(returned == ours, f"the balance is {returned}, the statement adds up to {ours}")
        self._expect(account["held"] == 0, f"{account['held']} credits are still held")
        self._lines(entries)

    def _lines(self, entries: list[dict[str, Any]]) -> None:
        """Every image and every top-up has its line, once; the failed image has none that charges."""
        returned = [(entry["kind"], entry["reference"]["id"]) for entry in entries]
        wanted = [("captured", job) for job in self._painted] + [("granted", topup) for topup in self._paid]
        wanted += [("held", self._failed_job), ("released", self._failed_job)]
        for line in wanted:
            self._expect(
                returned.count(line) == 1, f"the statement tells {returned.count(line)} times of {line}"
            )
        charged = {reference for kind, reference in returned if kind == "captured"}
        self._expect(charged == set(self._painted), "the statement charges for something else")

    def _integrity(self, step: dict[str, Any]) -> None:
        report = verify_everything(self._environment["DATABASE_URL"])
        step.update(verified=report.ok, events=report.events, batches=report.batches)
        for finding in report.findings[:5]:
            self.problems.append(f"verify: {msgspec.json.encode(finding).decode()}")
