"""`llamasketch`: run, try, prove, look after."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands import money

app = typer.Typer(
    name="llamasketch",
    help="Sketches into images, paid per image: run it, try it, prove its books.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
workers_app = typer.Typer(help="Workers: list them, let them in, drain them.", rich_markup_mode=None)
mail_app = typer.Typer(help="Mail: what was parked, and a test message.", rich_markup_mode=None)
bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=False, rich_markup_mode=None)
app.add_typer(workers_app, name="workers", invoke_without_command=True)
app.add_typer(mail_app, name="mail", invoke_without_command=True)
app.add_typer(bench_app, name="bench", invoke_without_command=True)
money.add_to(app)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.callback()
def _logs() -> None:
    from gateway.logging import configure_command_logging

    configure_command_logging()


@app.command()
def verify(
    seal: Annotated[list[Path] | None, typer.Option(help="A sealed head; may be given again.")] = None,
    public_key: Annotated[str | None, typer.Option(help="Whose seals count (hexadecimal).")] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the chain, replay every stream, check every invariant; name the first event that is wrong."""
    from gateway.commands.verify import run_verify

    raise typer.Exit(run_verify(as_json=as_json, seal_files=seal or [], public_key=public_key))


@app.command()
def seal(
    output: Annotated[
        Path | None, typer.Option(help="Where to write it; by default below the data folder.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Ed25519 key (PEM); made if there is none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign the head of the log, so that `verify --seal` can notice a cut tail."""
    from gateway.commands.verify import run_seal

    raise typer.Exit(run_seal(output=output, key_file=key, as_json=as_json))


@app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Write balances, statements and feeds anew from the log; the stack may go on meanwhile."""
    from gateway.commands.verify import run_rebuild

    raise typer.Exit(run_rebuild(as_json=as_json))


@app.command()
def erase(
    who: Annotated[str, typer.Argument(help="An account id (acct_…) or an e-mail address.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person's prompts, sketches, images, addresses and sign-in. The books stay whole."""
    from gateway.commands.erase import run_erase

    raise typer.Exit(run_erase(who, sure=yes, as_json=as_json))


@app.command()
def jobs(
    job: Annotated[str | None, typer.Argument(help="A job id: everything that happened to it.")] = None,
    account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Jobs in flight and the newest results; or the history of one job."""
    from gateway.commands.operators import show_jobs

    raise typer.Exit(show_jobs(job, account=account, limit=limit, as_json=as_json))


@app.command("check-config")
def check_config(as_json: AsJson = False) -> None:
    """Everything that is wrong with the settings, at once. Ends with 1 if anything is."""
    from gateway.commands.check_config import run_check_config

    raise typer.Exit(run_check_config(as_json=as_json))


@app.command("prepare-database")
def prepare_database() -> None:
    """As the owner (DATABASE_OWNER_URL): the newest schema, and the role of DATABASE_URL with few rights."""
    from gateway.commands.prepare_database import run_prepare_database

    raise typer.Exit(run_prepare_database())


@app.command()
def followups(
    parked: Annotated[
        bool, typer.Option("--parked", help="List notifications of ours that were set aside, and why.")
    ] = False,
    replay: Annotated[
        list[int] | None,
        typer.Option("--replay", help="Deal with this one again; may be given several times."),
    ] = None,
    replay_all: Annotated[
        bool, typer.Option("--replay-all", help="Deal with all that were set aside again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What waits to be done after the fact, what of it fails, and why."""
    from gateway.commands.followups import replay_parked, show_followups, show_parked

    if replay or replay_all:
        raise typer.Exit(replay_parked(None if replay_all else replay or [], as_json=as_json))
    raise typer.Exit(show_parked(as_json=as_json) if parked else show_followups(as_json=as_json))


@app.command()
def objects(
    delete: Annotated[bool, typer.Option("--delete", help="Delete what nothing refers to.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stored sketches, uploads and images, and what of them nothing refers to."""
    from gateway.commands.objects import show_objects

    raise typer.Exit(show_objects(delete=delete, as_json=as_json))


@app.command()
def queue(as_json: AsJson = False) -> None:
    """How many wait and run, for how long, and for whom."""
    from gateway.commands.operators import show_queue

    raise typer.Exit(show_queue(as_json=as_json))


@workers_app.callback()
def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """GPU workers: list them, let them in, drain them."""
    if context.invoked_subcommand is None:
        from gateway.commands.operators import show_workers

        raise typer.Exit(show_workers(as_json=as_json))


@workers_app.command("drain")
def drain(worker: Annotated[str, typer.Argument(help="wrk_…")]) -> None:
    """No more jobs for this worker; what it has, it finishes."""
    from gateway.commands.operators import set_worker_state

    raise typer.Exit(set_worker_state(worker, "draining"))


@workers_app.command("trust")
def trust(worker: Annotated[str, typer.Argument(help="wrk_…")]) -> None:
    """Give a drained or quarantined worker work again."""
    from gateway.commands.operators import set_worker_state

    raise typer.Exit(set_worker_state(worker, "active"))


@workers_app.command("revoke")
def revoke(worker: Annotated[str, typer.Argument(help="wrk_…")]) -> None:
    """Shut a worker out for good: its credentials are worth nothing within a second."""
    from gateway.commands.operators import set_worker_state

    raise typer.Exit(set_worker_state(worker, "gone"))


@workers_app.command("token")
def token(hours: Annotated[int, typer.Option(min=1, max=24 * 365)] = 24) -> None:
    """Print a token with which one worker can register, once."""
    from gateway.commands.operators import mint_token

    raise typer.Exit(mint_token(hours))


@mail_app.callback()
def mail(context: typer.Context, as_json: AsJson = False) -> None:
    """Mail that was refused for good, or that no server took for three days."""
    if context.invoked_subcommand is None:
        from gateway.commands.mail import show_parked

        raise typer.Exit(show_parked(as_json=as_json))


@mail_app.command("again")
def mail_again(
    mail: Annotated[str | None, typer.Argument(help="Its id; by default all that is parked.")] = None,
) -> None:
    """Send parked mail again, for example when an address or the server's settings were put right."""
    from gateway.commands.mail import send_again

    raise typer.Exit(send_again(mail))


@mail_app.command("test")
def mail_test(address: Annotated[str, typer.Argument(help="Where to.")]) -> None:
    """Send one message now, by the settings of the stack, and say what the server answered."""
    from gateway.commands.mail import send_test

    raise typer.Exit(send_test(address))


@bench_app.callback()
def bench(context: typer.Context, as_json: AsJson = False) -> None:
    """Measure on this machine; without a name: ledger and dispatch."""
    if context.invoked_subcommand is None:
        from gateway.commands.bench import run_benches

        run_benches(("ledger", "dispatch"), ["--json"] if as_json else [])


def _bench(name: str, summary: str) -> None:
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}

    @bench_app.command(name, help=summary, context_settings=settings, add_help_option=False)
    def one(context: typer.Context) -> None:
        from gateway.commands.bench import run_benches

        run_benches((name,), context.args)


_bench(
    "ledger",
    "Holds and captures per second on this machine's disk (--json, --rounds, --only, --deep-events).",
)
_bench("dispatch", "From enqueued to leased, and claims with completions per second (--json).")
_bench(
    "pictures",
    "Processor time over all processes for a sketch taken and an image delivered, in bare decodes (--json, --images 60).",
)
_bench("crash", "kill -9 of PostgreSQL and of writers under load (--rounds 50, --json).")
_bench("streams", "How many event streams one API process bears (--json, --streams 2000, --seconds 6).")
_bench(
    "live",
    "How soon a drawing is painted while ten people draw (--json, --people 10, --rate 10, --workers 4).",
)
_bench(
    "http",
    "What an accepted request costs over HTTP, beside one that does next to nothing (--json, --callers 64, --seconds 4).",
)
_bench(
    "card",
    "How soon webhook messages are answered and card payments credited, and a missed message found (--json, --rate 200, --seconds 10).",
)
_bench(
    "liquid",
    "How soon payments on Liquid are seen, and credited when all of them are in one block (--json, --payments 200).",
)
_bench(
    "lightning",
    "How soon Lightning payments are credited and held ones queue their image, alone and 200 a second (--json, --open 1000, --rate 200).",
)
_bench(
    "chaos",
    "Kill workers, ComfyUIs, API processes, Valkey and PostgreSQL at random under load, then count what was "
    "lost or paid twice (--seconds 600, --seed, --json, --keep FOLDER).",
)
_bench(
    "sketchers",
    "A thousand simulated people on the real queue for an hour: waits, fairness, estimates "
    "(--people, --workers, --seconds, --drawing, --json).",
)
_bench(
    "journey",
    "The main job in a browser: starts, memory, click to image, payment to page (--json, --rounds 30, --cold).",
)
_bench(
    "hostile",
    "Attacks of strangers: what they cost them and us, and what an honest visitor feels (--json, --only NAME, --seconds 4).",
)


@cache
def command_line() -> typer.Typer:
    """Every command: those above, and what the entry points of `llamasketch.commands` add.

    An entry point whose package is not on this machine is passed over: a production image has no sandbox.
    """
    for entry in entry_points(group="llamasketch.commands"):
        if find_spec(entry.module.partition(".")[0]) is not None:
            entry.load()(app)
    return app


def main() -> None:
    """The entry point `llamasketch`."""
    command_line()()


if __name__ == "__main__":
    main()
