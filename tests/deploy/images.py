"""What a container file puts into its image, read from the file itself and from `.dockerignore`."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import packages_distributions

from tests.house.sources import PRODUCT, ROOT, Source, python

ALL_OURS = (*PRODUCT, "tests", "bench")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
NAMED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)
SENT = tuple(
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
)


@dataclass(frozen=True, slots=True)
class Image:
    """One container file."""

    name: str
    lock: str
    """The list of pinned packages that it installs, without ending."""
    sources: tuple[str, ...]
    """What it copies from the checkout."""
    program: tuple[str, ...]
    """What it runs."""

    @property
    def packages(self) -> frozenset[str]:
        """Our packages that are in it as a whole."""
        return frozenset(self.sources) & frozenset(ALL_OURS)

    @property
    def code(self) -> Sequence[Source]:
        """Our code that is in it."""
        return [source for source in python(*ALL_OURS) if self.holds(source.path)]

    def holds(self, path: str) -> bool:
        """Whether this file is in it."""
        return is_sent(path) and any(path == each or path.startswith(f"{each}/") for each in self.sources)


def read_image(name: str) -> Image:
    """The image that `deploy/Dockerfile.<name>` describes."""
    text = (ROOT / "deploy" / f"Dockerfile.{name}").read_text()
    copied = [line.split()[:-1] for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)]
    (lock,) = set(re.findall(r"-r requirements/(\w+)\.txt", text)) - {"bootstrap"}
    (program,) = re.findall(r"^CMD (\[.+\])$", text, re.MULTILINE)
    return Image(
        name, lock, tuple(source for sources in copied for source in sources), tuple(json.loads(program))
    )


def is_sent(path: str) -> bool:
    """Whether the builder gets this file: the last line of `.dockerignore` that fits it decides."""
    verdict = True
    for line in SENT:
        wanted, pattern = line.startswith("!"), line.lstrip("!").split("/")
        parts = path.split("/")
        if any(_fits(parts[:length], pattern) for length in range(1, len(parts) + 1)):
            verdict = wanted
    return verdict


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def imported(source: Source) -> Iterator[str]:
    """The top-level packages that a file imports anywhere in it, other than the standard library's."""
    for node in ast.walk(source.tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        yield from (top for name in modules if (top := name.split(".")[0]) not in sys.stdlib_module_names)


def imported_files(source: Source) -> Iterator[str]:
    """The files of ours that a file imports, as paths."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from _files(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _files(f"{node.module}.{alias.name}" for alias in node.names)


def _files(modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        *package, last = module.split(".")
        if module.split(".")[0] in ALL_OURS:
            # The last part may be a module, a package, or a name in the module before it.
            folder = "/".join(package)
            tried = (
                f"{folder}/{last}.py",
                f"{folder}/{last}/__init__.py",
                f"{folder}.py",
                f"{folder}/__init__.py",
            )
            yield next(path for path in tried if (ROOT / path.removeprefix("/")).is_file()).removeprefix("/")


@cache
def distributions() -> Mapping[str, frozenset[str]]:
    """Which installed distributions bring a top-level package, by names as locks write them."""
    return {
        package: frozenset(normalised(name) for name in names)
        for package, names in packages_distributions().items()
    }


def normalised(name: str) -> str:
    """A distribution's name as locks write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: str) -> frozenset[tuple[str, str]]:
    """Name and version of everything that a lock installs, on any platform."""
    return frozenset(PIN.findall((ROOT / "requirements" / f"{lock}.txt").read_text()))


def named(*lists: str) -> frozenset[str]:
    """What lists of requirements name."""
    texts = [(ROOT / "requirements" / f"{name}.in").read_text() for name in lists]
    return frozenset(normalised(name) for text in texts for name in NAMED.findall(text))
