"""The page routes: every page is rendered once at start and served with a strict policy.

Nothing on a page depends on who asks for it: personal data comes over the HTTP API, with the visitor's
cookie, after the page is there. That keeps pages cacheable, and a page never leaks another's data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from fastapi import APIRouter, Request, Response

from gateway.web.assets import Asset, Assets, load_assets

TEMPLATES = Path(__file__).parent / "templates"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"

PAGES: Mapping[str, str] = {
    "/": "sketch.html",
    "/account": "account.html",
    "/plans": "plans.html",
    "/sign-in": "sign_in.html",
    "/topups/{topup_id}": "topup.html",
    "/topup": "topup_link.html",
    "/mail/{token}": "mail.html",
    "/images/{job_id}": "image.html",
    "/operator": "operator.html",
    "/offline": "offline.html",
}
SANDBOX_PAGES: Mapping[str, str] = {"/sandbox/wallet": "wallet.html"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    body: bytes
    etag: str


class Pages:
    """All pages of one build, ready to send."""

    def __init__(self, *, assets: Assets, sandbox: bool, version: str, image_origins: Sequence[str]) -> None:
        self._assets = assets
        self._headers = security_headers(assets.import_map_hash, image_origins)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(
            asset=assets.url,
            import_map=assets.import_map,
            sandbox=sandbox,
            version=version,
            build=assets.build,
        )
        self._environment = environment
        names = [*PAGES.values(), *(SANDBOX_PAGES.values() if sandbox else ())]
        self._pages = {name: self._render(name) for name in names}
        self._errors = {status: self._render("error.html", status=status) for status in (404, 500)}

    def _render(self, name: str, **values: object) -> _Page:
        body = self._environment.get_template(name).render(values).encode()
        return _Page(body=body, etag=f'"{hashlib.sha256(body).hexdigest()[:16]}"')

    def keep(self, name: str, **values: object) -> None:
        """Render one more page, for `page` to send."""
        self._pages[name] = self._render(name, **values)

    def page(self, request: Request, name: str) -> Response:
        """A page, or 304 when the browser has it already."""
        page = self._pages[name]
        headers = {**self._headers, "Cache-Control": REVALIDATE, "ETag": page.etag}
        if _matches(request, page.etag):
            return Response(status_code=304, headers=headers)
        return Response(page.body, headers=headers, media_type="text/html")

    def error(self, status: int) -> Response:
        """The page a person sees where an API client would get a problem document."""
        page = self._errors[404 if 400 <= status < 500 else 500]
        headers = {**self._headers, "Cache-Control": "no-store"}
        return Response(page.body, status_code=status, headers=headers, media_type="text/html")

    def file(self, request: Request, path: str) -> Response:
        """A static file: immutable under its hash, revalidated under its bare name."""
        asset = self._assets.files.get(path)
        return self.error(404) if asset is None else self._send(request, asset, {})

    def service_worker(self, request: Request) -> Response:
        """The service worker, from the root so that its scope is the whole site."""
        asset = self._assets.files["/static/js/sw.js"]
        return self._send(request, asset, {"Service-Worker-Allowed": "/"}, cache=REVALIDATE)

    def _send(
        self, request: Request, asset: Asset, extra: Mapping[str, str], cache: str | None = None
    ) -> Response:
        current = request.query_params.get("v") == asset.digest
        headers = {
            "Cache-Control": cache or (IMMUTABLE if current else REVALIDATE),
            "ETag": asset.etag,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            **extra,
        }
        if _matches(request, asset.etag):
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers, media_type=asset.content_type)


def security_headers(import_map_hash: str, image_origins: Sequence[str] = ()) -> dict[str, str]:
    """Headers of every page. `image_origins` are object stores that images are redirected to.

    They may also be read by scripts, because a picture can become the next sketch.
    """
    images = " ".join(["'self'", "data:", "blob:", *image_origins])
    policy = (
        "default-src 'none'",
        f"script-src 'self' '{import_map_hash}'",
        "style-src 'self'",
        f"img-src {images}",
        " ".join(["connect-src 'self'", *image_origins]),
        "manifest-src 'self'",
        "worker-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    }


def load_pages(
    *, sandbox: bool, node_modules: Path, version: str, image_origins: Sequence[str] = ()
) -> Pages:
    """Read and render everything once. Raises `AssetsMissing` without the browser packages."""
    return Pages(
        assets=load_assets(node_modules), sandbox=sandbox, version=version, image_origins=image_origins
    )


def build_router(pages: Pages, *, sandbox: bool) -> APIRouter:
    """Page routes, static files, web manifest and service worker."""
    router = APIRouter(include_in_schema=False)
    methods = ["GET", "HEAD"]

    def add_page(path: str, name: str) -> None:
        async def show(request: Request) -> Response:
            return pages.page(request, name)

        router.add_api_route(path, show, methods=methods, name=name.removesuffix(".html"))

    for path, name in {**PAGES, **(SANDBOX_PAGES if sandbox else {})}.items():
        add_page(path, name)

    async def asset(request: Request) -> Response:
        return pages.file(request, request.url.path)

    async def service_worker(request: Request) -> Response:
        return pages.service_worker(request)

    async def manifest(request: Request) -> Response:
        return pages.file(request, "/static/site.webmanifest")

    async def icon(request: Request) -> Response:
        return pages.file(request, "/static/img/favicon.svg")

    router.add_api_route("/static/{path:path}", asset, methods=methods, name="static")
    router.add_api_route("/modules/{path:path}", asset, methods=methods, name="modules")
    router.add_api_route("/sw.js", service_worker, methods=methods, name="service_worker")
    router.add_api_route("/site.webmanifest", manifest, methods=methods, name="manifest")
    router.add_api_route("/favicon.svg", icon, methods=methods, name="icon")
    router.add_api_route("/favicon.ico", icon, methods=methods, name="icon_fallback")
    return router


def _matches(request: Request, etag: str) -> bool:
    sent = request.headers.get("if-none-match", "")
    return any(part.strip().removeprefix("W/") == etag for part in sent.split(","))
