"""`python -m tests.configuration.table > docs/settings.md`: the rules of all settings, as a document."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.configuration import tables
from rails.configuration import Rule, Setting, When
from worker.config import BOUNDS

INTRODUCTION = """\
# What settings may hold

`.env.example` says what each setting is for; this page says what it must be like. It is written from the rules that are checked (`gateway/configuration.py`, `settings` of each rail's plugin, `worker/config.py`): `python -m tests.configuration.table > docs/settings.md` writes it anew, and a test compares.

`llamasketch check-config` prints everything that is wrong at once (`--json` for programs) and ends with 1 if anything is; with `DATABASE_URL` it also asks whether the role is a superuser. `python -m gateway.serve` prints the same lines and ends with 2. An empty value counts as not given. Production is what runs unless `LLAMASKETCH_ENVIRONMENT=embedded` asks for the try-out stack, as `make run`, `llamasketch demo` and `docker-compose.yml` do.

Whether a secret is random cannot be known: what is refused repeats itself, counts, is well known, or says what is to be put in its place.
"""
BEHIND = """\
## Beyond single settings

| Where | In production |
|---|---|
| any `SANDBOX_…` | must not be given |
| secrets of different settings | must differ (`secret_used_twice`): who may know one would know the other |
| the role of `DATABASE_URL` | must not be a superuser, make roles, replicate, or bypass row security; `llamasketch prepare-database` makes one that reads and writes rows, and cannot change or delete what stands in the log |
| macaroons of the Lightning rail | must allow the needed calls only |

## Changing the secret key

Give a new `LLAMASKETCH_SECRET_KEY` to every process and write the old one into `LLAMASKETCH_OLDER_SECRET_KEYS`, the newest first. What people hold goes on: visitors' and guests' tokens, sessions by mailed links, and guests' recovery codes. What is given out from then on is made with the new key alone. A recovery code that is shown or used while its key is listed works without it afterwards. So take an old key off the list when its tokens have ended (30 days for people, 400 for visitors who did not come back), and know that the codes of guests who did not come meanwhile end with it.

Not carried over, because it lives for a day or less: links to top up, to sign in and to files, tokens with which workers register (give the workers new ones), the day's count of free images by network, and the digests by which a request that is sent again is known. Links in mails that turn mails off end, too: later mails have new ones.

**A key that somebody else may know must not be listed**: who has it can make any of these tokens. Then everybody is signed out, and recovery codes are lost; tell guests before to sign in.

## The worker

`LLAMASKETCH_API_URL` must be https (or on this machine), `COMFYUI_URL` https or in a private network, in production. Its numbers, always:

| Setting | From | To |
|---|---|---|
"""


def document() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_groups(), BEHIND + "\n".join(_worker()), ""])


def _groups() -> Iterator[str]:
    for title, settings in tables():
        yield f"## {title}\n\n| Setting | Always | In production, also |\n|---|---|---|"
        yield "".join(
            f"| `{s.name}` | {_cell(s, When.ALWAYS)} | {_cell(s, When.PRODUCTION)} |\n" for s in settings
        )


def _cell(setting: Setting, when: When) -> str:
    parts = [_must(rule) for rule in setting.rules if rule.when is when]
    if setting.required is when:
        unless = f" unless `{setting.unless}` is" if setting.unless else ""
        parts.insert(0, f"be given with `{setting.only_with}`" if setting.only_with else f"be given{unless}")
    return "must " + "; ".join(parts) if parts else ""


def _must(rule: Rule) -> str:
    return f"{rule.says} (`{rule.code}`)".replace("|", "\\|")


def _worker() -> Iterator[str]:
    for name, (least, most) in BOUNDS.items():
        yield f"| `LLAMASKETCH_WORKER_{name.upper()}` | {least:g} | {most:,} |"


if __name__ == "__main__":
    print(document(), end="")
