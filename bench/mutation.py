"""Mutation testing: break the code in one place at a time, and count which tests notice.

mutmut makes the mutants and runs each in a fork of one warm process. This program chooses them: a sample in an
order that a fixed seed gives, until the budget is spent (mutmut alone knows no budget and no sample). It works on
a copy of the tracked files in `.mutation/`. What a survivor means is in docs/mutation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".mutation"
PACKAGES = (
    "ledger",
    "rails",
    "generation",
    "worker",
    "processes",
    "projections",
    "gateway",
    "sandbox",
    "bench",
)
SEED = 20_090_103
PARENT = "MUTATION_PARENT"
"""The environment's name for this process, which `bench.mutation_profile` does not hurry. (Imported before pytest
runs, that module could not be its plugin.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is broken, and the tests that shall notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    """Tests that take too long to be run once for each mutant."""
    order_alone: bool = False
    """Change nothing but the order of steps, and leave steps out."""
    database: bool = False
    """Whether tests want PostgreSQL: then one is started for all mutants."""


RAILS_IN_MEMORY = tuple(
    f"tests/rails/core/test_{name}.py"
    for name in ("golden", "recorded", "payment_properties", "payments", "rates", "runner", "fake_contract")
)
RAILS_RUNNING = (
    *(f"tests/rails/core/test_{name}.py" for name in ("received_money", "sweeps", "stores", "open_limit")),
    "tests/processes/test_pay_per_image.py",
)

TARGETS = {
    "ledger.domain": Target(
        files=("ledger/domain/*.py",),
        tests=("tests/ledger",),
        passed_over=(
            "tests/ledger/test_alone.py",
            "tests/ledger/test_bounded_state.py",
            "tests/ledger/test_holds.py::test_a_thousand_open_holds_are_found_again_whatever_their_ids",
            # The seeded walks beside it are as deep, and take the same steps each time.
            "tests/ledger/test_machine.py::TestAccounts",
        ),
    ),
    "rails.domain": Target(
        files=("rails/domain/*.py",),
        tests=RAILS_IN_MEMORY,
        passed_over=("tests/rails/core/test_payment_properties.py::TestPaymentMachine",),
    ),
    "gateway.auth": Target(
        files=("gateway/auth/authentication.py", "gateway/auth/identity.py"),
        tests=tuple(f"tests/auth/test_{name}.py" for name in ("authentication", "identity", "people")),
    ),
    # Apart from the others: half of its tests want a database.
    "gateway.people": Target(
        files=("gateway/auth/people.py",),
        tests=("tests/auth/test_people.py", "tests/auth/test_people_kept.py"),
        database=True,
    ),
    "generation.domain": Target(
        files=("generation/domain/*.py",),
        tests=(
            "tests/generation/domain",
            "tests/generation/core/test_reasons.py",
            "tests/generation/core/test_job_events.py",
        ),
        # The rules one by one beside it are as deep, and quicker.
        passed_over=("tests/generation/domain/test_job_machine.py",),
    ),
    "ledger.sequencer": Target(
        files=("ledger/log/sequencer.py", "ledger/log/deciding.py", "ledger/log/unit_of_work.py"),
        tests=(
            *(f"tests/log/test_{name}.py" for name in ("sequencer", "ahead", "log_contract", "faults")),
            "tests/proof/test_idle_accounts.py",
            "tests/proof/test_rules_broken_at_run_time.py",
        ),
        # Each starts processes; the same race is run beside it in one.
        passed_over=(
            "tests/log/test_sequencer.py::test_processes_side_by_side_lose_no_update_and_progress_evenly",
        ),
        database=True,
    ),
    "rails.payments": Target(
        files=("rails/payments/*.py",),
        tests=(*RAILS_IN_MEMORY, *RAILS_RUNNING),
        order_alone=True,
        database=True,
    ),
}

SETTINGS = """\
[mutmut]
source_paths =
    {packages}
only_mutate =
    {files}
do_not_mutate_patterns =
    ^\\s*raise \\w+\\(f?"
    ^\\s*assert_never\\(
pytest_add_cli_args_test_selection =
    {tests}
pytest_add_cli_args =
    {arguments}
timeout_multiplier = 10.0
timeout_constant = 30.0
use_git_change_detection = false
track_dependencies = false
"""
"""The patterns pass over lines that only raise with words for a person, and over those that are never reached.
The time-outs are long: `bench.mutation_profile` has one for each test, which comes first."""

ARGUMENTS = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "bench.mutation_profile")

FOUND_PERCENT_MIN = 90
"""With less, tests have been lost. A sample is small, and some mutants mean the same as the code."""

KILLED, TIMEOUT, SURVIVED, UNTESTED = "killed", "timeout", "survived", "no tests"
FOUND = (KILLED, TIMEOUT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument(
        "--budget-seconds", type=int, default=900, help="for the mutants; setting out adds to it"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="what orders the sample")
    parser.add_argument("--only", default="*", help="a pattern of mutants, such as ledger.domain.lots.*")
    wanted = parser.parse_args()
    work = FOLDER / wanted.target
    set_out(work, TARGETS[wanted.target])
    # mutmut reads its settings from the working directory when it is imported.
    os.chdir(work)
    from bench import mutation_operators

    mutation_operators.use(order_alone=TARGETS[wanted.target].order_alone)
    os.environ[PARENT] = str(os.getpid())
    with ExitStack() as stack:
        databases = stack.enter_context(databases_in(work)) if TARGETS[wanted.target].database else None
        found = run(wanted, databases)
    # Many steps may be taken in any order: there the survivors are for reading, and no share is asked for.
    percent_min = 0 if TARGETS[wanted.target].order_alone else FOUND_PERCENT_MIN
    report(found, Path(f"{work}.json"), percent_min)


def set_out(work: Path, target: Target) -> None:
    """A fresh copy of the tracked files, with mutmut's settings beside them."""
    shutil.rmtree(work, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES, "tests", "pyproject.toml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    passed_over = [word for name in target.passed_over for word in ("--deselect", name)]
    (work / "setup.cfg").write_text(
        SETTINGS.format(
            packages=lines(PACKAGES),
            files=lines(target.files),
            tests=lines(target.tests),
            arguments=lines((*ARGUMENTS, *passed_over)),
        )
    )


def lines(words) -> str:
    return "\n    ".join(words)


@contextmanager
def databases_in(work: Path) -> Iterator[Databases]:
    """A PostgreSQL for the tests of all mutants: starting one takes longer than most of them."""
    from sandbox.embedded.ports import free_port
    from sandbox.embedded.postgres import FAST_AND_FORGETFUL, EmbeddedPostgres
    from sandbox.embedded.running import RunningServer

    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = EmbeddedPostgres(folder / "data", free_port(), FAST_AND_FORGETFUL)
        with RunningServer(postgres.command(), work / "postgres.log") as server:
            os.environ["LLAMASKETCH_TEST_POSTGRES"] = server.url
            yield Databases(server.url)


@dataclass(frozen=True, slots=True)
class Databases:
    """What the tests make there."""

    url: str

    def drop(self, pid: int) -> None:
        """Those that a process left behind; it may have ended in the middle of a test."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            left = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"test_{pid}_%",)
            ).fetchall()
            for (name,) in left:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def run(wanted, databases: Databases | None) -> list[dict[str, str]]:
    """Make the mutants, learn which test reaches which function, and try a sample of them."""
    from mutmut.__main__ import (
        collect_or_load_stats,
        collect_source_file_mutation_data,
        copy_also_copy_files,
        copy_src_dir,
        create_mutants,
        estimated_worst_case_time,
        run_forced_fail_test,
        setup_source_paths,
    )
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state
    from mutmut.utils.format_utils import mangled_name_from_mutant_name
    from mutmut.workers.isolation import get_mutant_runner

    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir()
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
    runner = get_mutant_runner(1)
    collect_or_load_stats(runner)
    run_forced_fail_test(runner)
    set_mutant_under_test("")

    mutants, _ = collect_source_file_mutation_data(mutant_names=())
    names = sorted(name for _, name, _ in mutants if fnmatch(name, wanted.only))
    random.Random(wanted.seed).shuffle(names)
    file_of = {name: str(data.path) for data, name, _ in mutants}
    print(f"{len(names)} mutants; {wanted.budget_seconds} seconds from now on", flush=True)

    found = []
    end = time.monotonic() + wanted.budget_seconds
    runner.startup()
    for number, name in enumerate(names, 1):
        if time.monotonic() > end:
            break
        tests = state().tests_by_mangled_function_name.get(mangled_name_from_mutant_name(name), set())
        estimate = estimated_worst_case_time(name)
        runner.submit(name, list(tests), ceil(estimate * 6) + 60, estimate)
        tried_by = list(runner._running)  # noqa: SLF001 - it tells nobody which processes it starts
        try:
            result = runner.wait_for_result()
        except KeyboardInterrupt:
            break
        if databases is not None:
            for pid in tried_by:
                databases.drop(pid)
        outcome = outcome_of(result.exit_code)
        found.append(
            {
                "mutant": name,
                "file": file_of[name],
                "outcome": outcome,
                "difference": "" if outcome == KILLED else difference(name, file_of[name]),
            }
        )
        if outcome != KILLED:
            print(f"[{number}] {outcome}: {name}\n{found[-1]['difference']}\n", flush=True)
    print(f"{len(found)} of {len(names)} mutants were tried", flush=True)
    return found


def outcome_of(exit_code: int) -> str:
    from mutmut.stats import status_by_exit_code

    return status_by_exit_code[exit_code]


def difference(name: str, path: str) -> str:
    """The lines that differ, without what surrounds them."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    both = get_diff_for_mutant(name, path=path).splitlines()
    return "\n".join(line for line in both if line.startswith(("-", "+")) and line[:3] not in ("---", "+++"))


def report(found: list[dict[str, str]], path: Path, percent_min: int) -> None:
    """A table on the screen, everything in a file."""
    path.write_text(json.dumps(found, indent=1))
    by_file: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        by_file[each["file"]][each["outcome"]] += 1
    total = sum(by_file.values(), Counter())
    print(f"{'module':40} {'mutants':>8} {'found':>8} {'survived':>8} {'no test':>8}")
    for name, counts in [*sorted(by_file.items()), ("together", total)]:
        met = sum(counts[outcome] for outcome in FOUND)
        print(f"{name:40} {counts.total():8} {met:8} {counts[SURVIVED]:8} {counts[UNTESTED]:8}")
    strange = {outcome for outcome in total if outcome not in (*FOUND, SURVIVED, UNTESTED)}
    if not found:
        sys.exit("No mutant was tried: give it more time.")
    if sum(total[outcome] for outcome in FOUND) * 100 < total.total() * percent_min:
        sys.exit(f"Fewer than {percent_min} % were found: read the differences above.")
    if strange:
        sys.exit(f"Some mutants ended neither found nor survived: {', '.join(sorted(strange))}")


if __name__ == "__main__":
    main()
