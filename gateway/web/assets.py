"""Static files and browser modules, held in memory under content-hashed addresses.

The browser gets native ES modules: the import map names every package *and* every module of ours by
an address with its content hash, so that relative imports between our own files are immutable too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"

PACKAGES: Mapping[str, str] = {
    "preact": "preact/dist/preact.mjs",
    "preact/hooks": "preact/hooks/dist/hooks.mjs",
    "htm": "htm/dist/htm.module.js",
    "htm/preact": "htm/preact/index.module.js",
    "@preact/signals": "@preact/signals/dist/signals.module.js",
    "@preact/signals-core": "@preact/signals-core/dist/signals-core.module.js",
    "perfect-freehand": "perfect-freehand/dist/esm/index.mjs",
    "lean-qr": "lean-qr/index.mjs",
    "idb-keyval": "idb-keyval/dist/index.js",
}
"""Bare specifier to the file inside `node_modules` that is served for it; nothing else there is."""

CONTENT_TYPES: Mapping[str, str] = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".webmanifest": "application/manifest+json",
}


class AssetsMissing(Exception):
    """The browser packages are not installed: run `make setup` (or `npm ci`) first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file as it is sent."""

    path: str
    body: bytes
    content_type: str
    digest: str
    """The first 16 hexadecimal digits of the body's SHA-256."""

    @property
    def url(self) -> str:
        """The address under which the file may be cached for ever."""
        return f"{self.path}?v={self.digest}"

    @property
    def etag(self) -> str:
        """A strong validator."""
        return f'"{self.digest}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """Every file that the pages may ask for, and the import map over them."""

    files: Mapping[str, Asset]
    import_map: str
    import_map_hash: str
    """`sha256-…`, as the content security policy wants it."""
    build: str
    """A digest over all files: changes when any of them does."""

    def url(self, path: str) -> str:
        """The content-hashed address of a static file. Raises `KeyError` for an unknown one."""
        return self.files[path].url


def load_assets(node_modules: Path) -> Assets:
    """Read all static files and the browser packages once. Raises `AssetsMissing`."""
    files = {}
    for file in sorted(STATIC.rglob("*")):
        if file.is_file() and file.suffix in CONTENT_TYPES:
            asset = _read(file, "/static/" + file.relative_to(STATIC).as_posix())
            files[asset.path] = asset
    imports = {path: asset.url for path, asset in files.items() if path.endswith(".js")}
    for name, location in PACKAGES.items():
        file = node_modules / location
        if not file.is_file():
            raise AssetsMissing(AssetsMissing.__doc__)
        asset = _read(file, f"/modules/{location}")
        files[asset.path] = asset
        imports[name] = asset.url
    import_map = json.dumps({"imports": imports}, separators=(",", ":"), sort_keys=True)
    digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    build = hashlib.sha256("".join(asset.url for asset in files.values()).encode()).hexdigest()[:16]
    return Assets(files=files, import_map=import_map, import_map_hash=f"sha256-{digest}", build=build)


def slim(source: str) -> str:
    """Our own module without what only its readers need: doc comments, whole-line comments, indentation.

    Nothing is renamed or reordered, so this is no build step; it is a fifth of what travels. A template
    literal of ours therefore never holds a line that begins with a comment mark, and its indentation
    carries no meaning.
    """
    source = re.sub(r"(?ms)^[ \t]*/\*\*.*?\*/[ \t]*\n?", "", source)
    source = re.sub(r"/\*\* @.*?\*/ ?", "", source)
    source = re.sub(r"(?m)^[ \t]*//.*\n", "", source)
    return re.sub(r"(?m)^[ \t]+|\n(?=\n)", "", source)


def _read(file: Path, path: str) -> Asset:
    body = file.read_bytes()
    if path.startswith("/static/js/"):
        body = slim(body.decode()).encode()
    return Asset(
        path=path,
        body=body,
        content_type=CONTENT_TYPES[file.suffix],
        digest=hashlib.sha256(body).hexdigest()[:16],
    )
