"""What settings may hold: each setting with its rules, as data.

The gateway and every rail declare their settings with the rules below. `llamasketch check-config`, the start of
the API and the table in `docs/settings.md` all read the same declarations. A rule never repeats the value that it
refuses: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from rails.configuration_values import (
    WELL_KNOWN,
    Address,
    address_of,
    is_filled_in,
    is_random,
    networks_of,
    share_of_all_addresses,
)

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
PROXY_SHARE_MAX = 16
"""Trusted proxies may be one address in this many of all that are given out: whole continents are no proxy."""


class When(StrEnum):
    """When a rule holds, or a setting has to be given."""

    NEVER = "never"
    PRODUCTION = "production"
    ALWAYS = "always"

    def applies(self, *, production: bool) -> bool:
        """Whether it does here."""
        return self is When.ALWAYS or (self is When.PRODUCTION and production)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a value must be like. `says` completes the sentence "this setting must …"."""

    code: str
    says: str
    holds: Callable[[str], bool]
    when: When = When.PRODUCTION
    why: Callable[[str], str] | None = None
    """What exactly is wrong with a value that breaks it, where a sentence for all does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of the environment. An empty value counts as not given."""

    name: str
    rules: tuple[Rule, ...] = ()
    required: When = When.NEVER
    only_with: str = ""
    """Required only if this other setting is given."""
    unless: str = ""
    """Not required if this other setting is given."""


class Finding(NamedTuple):
    """One thing that is wrong: which setting, by which rule, and the sentence for its operator."""

    setting: str
    rule: str
    problem: str


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """What the environment really gives: an empty value counts as not given."""
    return {name: value.strip() for name, value in environ.items() if value.strip()}


def check(settings: Sequence[Setting], environ: Mapping[str, str], *, production: bool) -> list[Finding]:
    """Everything that is wrong with these settings, in their order; nothing is connected."""
    values = given(environ)
    findings: list[Finding] = []
    for setting in settings:
        value = values.get(setting.name)
        if value is not None:
            findings += _broken(setting, value, production=production)
        elif setting.required.applies(production=production) and (
            (not setting.only_with or setting.only_with in values) and setting.unless not in values
        ):
            findings.append(Finding(setting.name, "missing", f"{setting.name} is missing{_because(setting)}"))
    return findings


def _because(setting: Setting) -> str:
    if setting.only_with:
        return f": {setting.only_with} needs it"
    if setting.unless:
        return f": production needs it, or {setting.unless}"
    return ": production needs it" if setting.required is When.PRODUCTION else ""


def _broken(setting: Setting, value: str, *, production: bool) -> list[Finding]:
    for rule in setting.rules:
        if rule.when.applies(production=production) and not _holds(rule, value):
            where = "in production it" if rule.when is When.PRODUCTION else "it"
            # The first broken rule says it all: a value that is no address is also not https.
            why = f": {rule.why(value)}" if rule.why is not None else ""
            return [Finding(setting.name, rule.code, f"{setting.name}: {where} must {rule.says}{why}")]
    return []


def _holds(rule: Rule, value: str) -> bool:
    try:
        return rule.holds(value)
    except (ValueError, OSError, OverflowError):
        return False


@runtime_checkable
class Declares(Protocol):
    """A rail's plugin that says which settings it reads, so that they are checked before anything starts."""

    settings: Sequence[Setting]


def require(settings: Sequence[Setting], environ: Mapping[str, str], *, production: bool) -> None:
    """Raise `ValueError` with the first finding, one sentence."""
    findings = check(settings, environ, production=production)
    if findings:
        raise ValueError(findings[0].problem)


# --- rules, to be put together into settings ---


def one_of(*values: str) -> Rule:
    """One of these words."""
    return Rule(
        code="unknown_value",
        says=f"be {' or '.join(values)}",
        holds=lambda value: value in values,
        when=When.ALWAYS,
    )


def real_network(*values: str) -> Rule:
    """A network whose coins are worth something."""
    return Rule(
        code="test_network",
        says=f"be {' or '.join(values)}: coins of a test network are worth nothing",
        holds=lambda value: value in values,
    )


def whole(least: int, most: int, *, when: When = When.ALWAYS) -> Rule:
    """A whole number within bounds."""
    return Rule(
        code="number_out_of_range",
        says=f"be a whole number from {least} to {most}",
        holds=lambda value: value.isascii() and value.isdecimal() and least <= int(value) <= most,
        when=when,
    )


def number(least: str, most: str) -> Rule:
    """A decimal number within bounds, perhaps with a fraction."""
    return Rule(
        code="number_out_of_range",
        says=f"be a number from {least} to {most}",
        holds=lambda value: (
            _DECIMAL.fullmatch(value) is not None and Fraction(least) <= Fraction(value) <= Fraction(most)
        ),
        when=When.ALWAYS,
    )


def url(*schemes: str, bare: bool = False) -> Rule:
    """An address with one of these schemes and a host; `bare`: with nothing behind the host."""

    def holds(value: str) -> bool:
        address = address_of(value)
        return address.scheme in schemes and bool(address.host) and (not bare or address.is_bare)

    shown = " or ".join(f"{scheme}://" for scheme in schemes)
    plain = ", with nothing behind the host" if bare else ""
    return Rule(
        code="no_address",
        says=f"be an address that begins with {shown}{plain}",
        holds=holds,
        when=When.ALWAYS,
    )


def address_rule(code: str, says: str, holds: Callable[[Address], bool]) -> Rule:
    """A rule for production about the parts of an address."""
    return Rule(code=code, says=says, holds=lambda value: holds(address_of(value)))


HTTPS = address_rule("not_https", "begin with https://", lambda address: address.scheme == "https")
NO_LOGIN = address_rule(
    "login_in_address", "hold no user and password", lambda address: not address.has_login
)
ELSEWHERE = address_rule(
    "address_of_this_machine",
    "not be an address of this machine",
    lambda address: not address.is_this_machine,
)
FOR_THE_WORLD = address_rule(
    "address_of_nobody",
    "be an address that people anywhere can reach, and this one is of a private network or for examples",
    lambda address: address.is_for_the_world,
)
TLS_OUTSIDE = address_rule(
    "plain_text_outside",
    "use TLS, unless it is on this machine or in a private network",
    lambda address: address.has_tls or address.is_inside,
)
PASSWORD_NOT_KNOWN = address_rule(
    "well_known_password",
    "hold no well-known or short password",
    lambda address: address.password is None or password_is_not_known(address.password),
)
PASSWORD_OUTSIDE = address_rule(
    "no_password",
    "hold a password, unless it is on this machine or in a private network",
    lambda address: bool(address.password) or address.is_inside,
)
PASSWORD_GIVEN = address_rule("no_password", "hold a password", lambda address: bool(address.password))


def password_is_not_known(password: str) -> bool:
    """Whether it is neither short nor one that everybody tries first."""
    return _no_placeholder(password, least=8)


def _no_placeholder(value: str, *, least: int) -> bool:
    plain = value.lower()
    whole_words, parts = WELL_KNOWN
    letters = "".join(c for c in plain if c.isalpha())
    known = plain in whole_words or letters in whole_words or any(part in plain for part in parts)
    return not known and is_filled_in(value) and len(value) >= least and len(set(value)) >= 4


def begins_with(*prefixes: str, when: When = When.ALWAYS) -> Rule:
    """As the other side writes it."""
    return Rule(
        code="wrong_kind",
        says=f"begin with {' or '.join(prefixes)}",
        holds=lambda value: value.startswith(prefixes),
        when=when,
    )


def each(rule: Rule) -> Rule:
    """The same of every part of a value that may be several, separated by commas."""

    def holds(value: str) -> bool:
        parts = [part.strip() for part in value.split(",")]
        return all(parts) and all(rule.holds(part) for part in parts)

    return Rule(code=rule.code, says=rule.says, holds=holds, when=rule.when)


def secret(least: int, *, prefix: str = "", when: When = When.PRODUCTION) -> tuple[Rule, ...]:
    """A secret of at least this many characters (behind its prefix) that nobody can guess."""
    return (
        Rule(
            code="secret_too_short",
            says=f"have at least {least} characters" + (f" behind {prefix}" if prefix else ""),
            holds=lambda value: len(value.removeprefix(prefix)) >= least,
            when=when,
        ),
        Rule(
            code="secret_is_placeholder",
            says="be a secret of your own, not a well-known or example one",
            holds=lambda value: _no_placeholder(value.removeprefix(prefix), least=1),
        ),
        Rule(
            code="secret_not_random",
            says="be random: this one repeats itself or counts",
            holds=lambda value: is_random(value.removeprefix(prefix)),
        ),
    )


NARROW_PROXIES = Rule(
    code="proxies_too_wide",
    says="name your proxies only: whoever is in these networks may pretend any address",
    holds=lambda value: share_of_all_addresses(networks_of(value)) * PROXY_SHARE_MAX <= 1,
)
NETWORKS = Rule(
    code="no_networks",
    says="be addresses or networks, separated by commas",
    holds=lambda value: bool(networks_of(value)),
    when=When.ALWAYS,
)
READABLE = Rule(
    code="file_not_readable",
    says="name a file that can be read",
    holds=lambda value: bool(Path(value).read_bytes()),
)


def matching(code: str, says: str, holds: Callable[[str], bool], *, when: When = When.ALWAYS) -> Rule:
    """A rule that only one setting has."""
    return Rule(code=code, says=says, holds=holds, when=when)
