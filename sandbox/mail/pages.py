"""The mailbox page: what came, and each message as HTML, as text, and as it was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.mail.store import Kept, Mailbox

_HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'"
POLICY_OF_MAIL = (
    "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
"""A message runs nothing and loads nothing; its links open in a tab of their own."""
VIEWS = {"html": "HTML", "text": "Text", "source": "Source"}


class Pages:
    """The pages over one mailbox."""

    def __init__(self, mailbox: Mailbox, product_url: str) -> None:
        self._mailbox = mailbox
        loader = jinja2.FileSystemLoader(_HERE / "templates")
        self._templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        self._templates.globals["product_url"] = product_url

    def routes(self) -> list[Route | Mount]:
        """The routes."""
        return [
            Route("/", self.show_all),
            Route("/messages/{number:int}", self.show),
            Route("/messages/{number:int}/html", self.body),
            Route("/clear", self.clear, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ]

    async def show_all(self, request: Request) -> Response:
        """Every message, the newest first."""
        messages = [summary_of(kept) for kept in self._mailbox.all()]
        return self._page("mailbox.html", messages=messages)

    async def show(self, request: Request) -> Response:
        """One message."""
        kept = self._find(request)
        if kept is None:
            return self._page("gone.html", 404)
        view = request.query_params.get("view", "html")
        parsed = parts_of(kept)
        return self._page(
            "message.html",
            message=summary_of(kept),
            view=view if view in VIEWS else "html",
            views=VIEWS,
            text=parsed["text"],
            source=kept.raw.decode(errors="replace"),
        )

    async def body(self, request: Request) -> Response:
        """A message's HTML, for the frame."""
        kept = self._find(request)
        if kept is None:
            return self._page("gone.html", 404)
        html = parts_of(kept)["html"].replace("<head>", '<head><base target="_blank">', 1)
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY_OF_MAIL})

    async def clear(self, request: Request) -> Response:
        """Forget all messages."""
        self._mailbox.clear()
        return RedirectResponse("/", 303)

    def _find(self, request: Request) -> Kept | None:
        return self._mailbox.find(request.path_params["number"])

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(name).render(values)
        return HTMLResponse(html, status, headers={"Content-Security-Policy": POLICY})


def summary_of(kept: Kept) -> dict[str, Any]:
    """What a list shows of a message."""
    message = kept.parsed()
    return {
        "number": kept.number,
        "received_at": kept.received_at,
        "from": str(message["From"]),
        "to": ", ".join(kept.recipients),
        "subject": str(message["Subject"]),
        "message_id": str(message["Message-ID"]),
    }


def parts_of(kept: Kept) -> dict[str, str]:
    """A message's text and HTML; empty where it has none."""
    message = kept.parsed()
    found = {}
    for name, kind in (("text", "plain"), ("html", "html")):
        part = message.get_body(preferencelist=(kind,))
        found[name] = "" if part is None else str(part.get_content())
    return found
