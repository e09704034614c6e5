"""`/v1/objects`: the local disk store behind signed, expiring links. Absent with a bucket."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.wiring.dependencies import LinkSignerDep, ObjectStoreDep
from generation.domain.errors import ObjectMissing
from generation.images.checking import RESULT_BYTES_MAX

router = APIRouter(route_class=BoundedRoute, prefix="/v1/objects", include_in_schema=False)
_TYPES = {"png": "image/png", "webp": "image/webp"}


def _forbidden() -> Problem:
    return Problem("link_not_valid", "This link is not valid, or has expired.")


@router.get("/{key:path}")
async def fetch(request: Request, key: str, signer: LinkSignerDep, store: ObjectStoreDep) -> Response:
    """An object by its signed link."""
    if signer.allows("GET", key, request.query_params) is None:
        raise _forbidden()
    try:
        data = await store.get(key, limit_bytes=RESULT_BYTES_MAX)
    except ObjectMissing as error:
        raise Problem("no_object", "There is no such object any more.") from error
    headers = {
        "Cache-Control": "private, max-age=3600, immutable",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    kind = _TYPES.get(key.rpartition(".")[2], "application/octet-stream")
    return Response(data, media_type=kind, headers=headers)


@router.put("/{key:path}", status_code=201)
async def upload(request: Request, key: str, signer: LinkSignerDep, store: ObjectStoreDep) -> Response:
    """Put an object by its signed link; a second upload to the same key replaces the first."""
    limit = signer.allows("PUT", key, request.query_params)
    if limit is None:
        raise _forbidden()
    data = await request.body()
    if len(data) > limit:
        raise Problem("body_too_large", f"The body may have {limit} bytes at most.")
    await store.put(key, data, "application/octet-stream")
    return Response(status_code=201)
