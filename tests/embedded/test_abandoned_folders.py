"""What a killed run of the tests left behind is removed by the next run; what a living run holds is not."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.folders import PREFIX, HeldFolder, held_folder, remove_abandoned

ROOT = Path(__file__).resolve().parents[2]
HOLDS = """
import sys
from pathlib import Path
from tests.folders import HeldFolder
print(HeldFolder(Path(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_held_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        (folder / "cluster").mkdir()
        (folder / "cluster" / "PG_VERSION").write_text("17")
        remove_abandoned(tmp_path)
        assert (folder / "cluster" / "PG_VERSION").exists()
        process.kill()
    remove_abandoned(tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "llamasketch-1").mkdir()
    (tmp_path / f"{PREFIX}note").write_text("a file")
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"llamasketch-1", f"{PREFIX}note"}


def test_a_folder_is_never_taken_for_abandoned_while_it_is_being_made(tmp_path: Path) -> None:
    def make(_number: int) -> bool:
        remove_abandoned(tmp_path)
        folder = HeldFolder(tmp_path)
        (folder.path / "file").touch()
        there = (folder.path / "file").exists()
        folder.remove()
        return there

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(make, range(400)))
    assert [*tmp_path.iterdir()] == []


def test_it_is_removed_in_the_end(tmp_path: Path) -> None:
    with held_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o755
    assert [*tmp_path.iterdir()] == []
