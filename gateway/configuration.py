"""The settings of the API and the command line, their rules as data, and what is wrong with an environment.

The rules themselves are in `rails/configuration.py`; every rail declares its own settings with the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ledger.catalogue import CatalogueInvalid, load_catalogue
from mail.domain.message import Sender
from mail.errors import NotAnAddress
from mail.server import PLAIN, Server
from rails.configuration import (
    ELSEWHERE,
    FOR_THE_WORLD,
    HTTPS,
    NARROW_PROXIES,
    NETWORKS,
    NO_LOGIN,
    PASSWORD_NOT_KNOWN,
    PASSWORD_OUTSIDE,
    TLS_OUTSIDE,
    Declares,
    Finding,
    Rule,
    Setting,
    When,
    check,
    given,
    matching,
    number,
    one_of,
    password_is_not_known,
    secret,
    url,
    whole,
)
from rails.configuration_values import Address, address_of, is_nobodys
from rails.contract import RailPlugin
from rails.quotes.feeds import KINDS

ENVIRONMENT = "LLAMASKETCH_ENVIRONMENT"
EMBEDDED, PRODUCTION = "embedded", "production"
FEEDS_LEAST = 2
"""Price feeds that production needs: the median of one is whatever that one says."""
COUNT_MAX = 1_000_000
SMTP_URL = "LLAMASKETCH_SMTP_URL"
SIGN_IN, OIDC_ISSUER = "LLAMASKETCH_SIGN_IN", "LLAMASKETCH_OIDC_ISSUER"
_STORE = "LLAMASKETCH_OBJECT_STORE_URL"
_SANDBOX = "SANDBOX_"
_REMOTE = (HTTPS, NO_LOGIN, ELSEWHERE)
_PUBLIC = (*_REMOTE, FOR_THE_WORLD)
_TLS_FOR_CERTAIN = ("require", "verify-ca", "verify-full")
"""Modes of libpq that never fall back to plain text; `prefer`, what it does unasked, does."""


def _feeds(value: str) -> Iterator[tuple[str, str]]:
    for entry in value.split(","):
        kind, _, address = entry.strip().partition("=")
        yield kind, address


def _feeds_are_written_well(value: str) -> bool:
    return all(kind in KINDS and urlsplit(to).scheme in ("http", "https") for kind, to in _feeds(value))


def _every_feed_is(rule: Rule) -> Rule:
    return matching(
        rule.code,
        f"name feeds, each of which must {rule.says}",
        lambda value: all(rule.holds(to) for _, to in _feeds(value)),
        when=When.PRODUCTION,
    )


def _feeds_differ(value: str) -> bool:
    feeds = list(_feeds(value))
    kinds, hosts = {kind for kind, _ in feeds}, {address_of(to).name for _, to in feeds}
    return min(len(kinds), len(hosts)) >= FEEDS_LEAST


_FEEDS = (
    matching(
        "no_feeds",
        f"be written kind=url, separated by commas, with kinds out of {', '.join(KINDS)}",
        _feeds_are_written_well,
    ),
    _every_feed_is(HTTPS),
    _every_feed_is(NO_LOGIN),
    _every_feed_is(ELSEWHERE),
    _every_feed_is(FOR_THE_WORLD),
    matching(
        "one_feed",
        f"name {FEEDS_LEAST} or more different feeds: one alone is believed whatever it says",
        _feeds_differ,
        when=When.PRODUCTION,
    ),
)


def _hosts_of_database(value: str) -> tuple[Mapping[str, object], list[Address]]:
    """What libpq makes of the address, and the servers that it leads to; sockets of this machine are none."""
    try:
        read = conninfo_to_dict(value)
    except psycopg.ProgrammingError as error:
        raise ValueError("libpq does not understand it") from error
    # An address beside a name is where the connection goes.
    named = str(read.get("hostaddr") or read.get("host") or "")
    hosts = [host for host in named.split(",") if host and not host.startswith(("/", "@"))]
    return read, [
        address_of(f"postgresql://[{host}]" if ":" in host else f"postgresql://{host}") for host in hosts
    ]


def _database_is_private_on_its_way(value: str) -> bool:
    read, hosts = _hosts_of_database(value)
    return read.get("sslmode") in _TLS_FOR_CERTAIN or all(host.is_inside for host in hosts)


def _database_asks_who_comes(value: str) -> bool:
    read, hosts = _hosts_of_database(value)
    shown = any(read.get(name) for name in ("password", "passfile", "sslcert"))
    return shown or all(host.is_this_machine for host in hosts)


def _database_password_is_ones_own(value: str) -> bool:
    password = _hosts_of_database(value)[0].get("password")
    return password is None or password_is_not_known(str(password))


def _is_mail_server(value: str) -> bool:
    address_of(value)
    return bool(Server.parse(value).host)


def _is_private_on_its_way(value: str) -> bool:
    return Server.parse(value).scheme != PLAIN or address_of(value).is_inside


def _is_sender(value: str) -> bool:
    try:
        return bool(Sender.parse(value).domain)
    except NotAnAddress:
        return False


def _gets_mail(value: str) -> bool:
    domain = Sender.parse(value).domain.lower() if _is_sender(value) else "invalid"
    return not is_nobodys(domain)


def _wrong_in_catalogue(path: str) -> str:
    try:
        load_catalogue(path)
    except CatalogueInvalid as error:
        return str(error)
    except OSError:
        return "the file cannot be read"
    return ""


def keys_of(value: str) -> tuple[str, ...]:
    """The keys in a list with commas."""
    return tuple(key for part in value.split(",") if (key := part.strip()))


def _each_key(rule: Rule) -> Rule:
    return replace(
        rule,
        says=f"list keys, each of which must {rule.says}",
        holds=lambda value: all(map(rule.holds, keys_of(value))),
    )


_SECRET_KEY = secret(32, when=When.ALWAYS)
CATALOGUE = "LLAMASKETCH_CATALOGUE"
SETTINGS: Sequence[Setting] = (
    Setting(
        name=CATALOGUE,
        rules=(
            Rule(
                code="catalogue_invalid",
                says="name a file of plans and packs as docs/operators.md describes it",
                holds=lambda path: not _wrong_in_catalogue(path),
                when=When.ALWAYS,
                why=_wrong_in_catalogue,
            ),
        ),
    ),
    Setting(name=ENVIRONMENT, rules=(one_of(EMBEDDED, PRODUCTION),)),
    Setting(
        name="DATABASE_URL",
        required=When.ALWAYS,
        rules=(
            matching(
                "no_address",
                "be an address that begins with postgresql://",
                lambda value: address_of(value).scheme == "postgresql",
            ),
            matching(
                "no_address",
                "be an address that PostgreSQL's own programs understand",
                lambda value: bool(_hosts_of_database(value)),
            ),
            matching(
                "no_password",
                "hold a password, a passfile or an sslcert, unless it is on this machine",
                _database_asks_who_comes,
                when=When.PRODUCTION,
            ),
            matching(
                PASSWORD_NOT_KNOWN.code,
                PASSWORD_NOT_KNOWN.says,
                _database_password_is_ones_own,
                when=When.PRODUCTION,
            ),
            matching(
                TLS_OUTSIDE.code,
                f"use TLS (sslmode={' or '.join(_TLS_FOR_CERTAIN)}), unless it is on this machine or in a private network",
                _database_is_private_on_its_way,
                when=When.PRODUCTION,
            ),
        ),
    ),
    Setting(
        name="REDIS_URL",
        required=When.ALWAYS,
        rules=(url("redis", "rediss"), PASSWORD_OUTSIDE, PASSWORD_NOT_KNOWN, TLS_OUTSIDE),
    ),
    Setting(name="LLAMASKETCH_SECRET_KEY", required=When.ALWAYS, rules=_SECRET_KEY),
    Setting(name="LLAMASKETCH_OLDER_SECRET_KEYS", rules=tuple(map(_each_key, _SECRET_KEY))),
    Setting(
        name="LLAMASKETCH_PUBLIC_URL",
        required=When.PRODUCTION,
        rules=(url("https", "http", bare=True), *_PUBLIC),
    ),
    Setting(name="LLAMASKETCH_DATA"),
    Setting(name="LLAMASKETCH_TRUSTED_PROXIES", rules=(NETWORKS, NARROW_PROXIES)),
    Setting(name="LLAMASKETCH_METRICS_TOKEN", rules=secret(24)),
    Setting(
        name=_STORE,
        rules=(
            matching(
                "no_address",
                "be written s3://bucket",
                lambda value: urlsplit(value).scheme == "s3" and bool(urlsplit(value).netloc),
            ),
        ),
    ),
    Setting(name="LLAMASKETCH_OBJECT_STORE_ENDPOINT", rules=(url("https", "http"), *_REMOTE)),
    Setting(name="LLAMASKETCH_OBJECT_STORE_PUBLIC_ENDPOINT", rules=(url("https", "http"), *_PUBLIC)),
    Setting(name="LLAMASKETCH_OBJECT_STORE_REGION"),
    Setting(
        name="LLAMASKETCH_OBJECT_STORE_ACCESS_KEY",
        required=When.ALWAYS,
        only_with=_STORE,
        rules=(secret(0)[1],),
    ),
    Setting(
        name="LLAMASKETCH_OBJECT_STORE_SECRET_KEY", required=When.ALWAYS, only_with=_STORE, rules=secret(16)
    ),
    Setting(
        name=OIDC_ISSUER,
        required=When.PRODUCTION,
        unless=SIGN_IN,
        rules=(url("https", "http"), *_PUBLIC),
    ),
    Setting(name=SIGN_IN, rules=(one_of("link"),)),
    Setting(name="LLAMASKETCH_OIDC_AUDIENCE"),
    Setting(name="LLAMASKETCH_OIDC_JWKS_URL", rules=(url("https", "http"), *_PUBLIC)),
    Setting(
        name=SMTP_URL,
        required=When.ALWAYS,
        only_with=SIGN_IN,
        rules=(
            matching(
                "no_address",
                "be the address of a mail server, which begins with smtps://, smtp:// or smtp+plain://",
                _is_mail_server,
            ),
            matching(
                "plain_text_outside",
                "use TLS (smtps://, or smtp:// for STARTTLS), unless it is on this machine or in a private network",
                _is_private_on_its_way,
                when=When.PRODUCTION,
            ),
            PASSWORD_NOT_KNOWN,
        ),
    ),
    Setting(
        name="LLAMASKETCH_MAIL_FROM",
        required=When.ALWAYS,
        only_with=SMTP_URL,
        rules=(
            matching(
                "no_sender",
                "be one mail address, perhaps with a name, as in LlamaSketch <mail@llamas.art>",
                _is_sender,
            ),
            matching(
                "sender_of_nobody",
                "be of a domain of your own that gets mail, and this one is for examples or for one machine",
                _gets_mail,
                when=When.PRODUCTION,
            ),
        ),
    ),
    Setting(
        name="LLAMASKETCH_GRAPH",
        rules=(
            matching(
                "no_graph",
                "name a graph and its version, as in sketch@1",
                lambda value: re.fullmatch(r"[a-z0-9_-]{1,40}@[0-9]{1,4}", value) is not None,
            ),
        ),
    ),
    Setting(name="LLAMASKETCH_NETWORK_ALLOWANCE_ADDRESS", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_NETWORK_ALLOWANCE_SITE", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_HELD_IMAGES_ACCOUNT", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_HELD_IMAGES_ADDRESS", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_HELD_IMAGES_SITE", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_HELD_IMAGES", rules=(whole(0, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_REFUND_DAYS", rules=(whole(0, 3650),)),
    Setting(name="LLAMASKETCH_REQUESTS_PER_MINUTE", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_REQUESTS_PER_MINUTE_NETWORK", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_RECOVERY_ATTEMPTS_PER_MINUTE", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_UPLOADS_WAITING", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_UPLOADS_WAITING_NETWORK", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_UPLOAD_PROCESSES", rules=(whole(1, 64),)),
    Setting(name="LLAMASKETCH_UPLOAD_CPU_SECONDS", rules=(whole(1, 120),)),
    Setting(name="LLAMASKETCH_UPLOAD_MEGABYTES_PER_HOUR", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_UPLOAD_MEGABYTES_PER_HOUR_NETWORK", rules=(whole(1, COUNT_MAX),)),
    Setting(name="LLAMASKETCH_CONNECTIONS", rules=(whole(16, 1000000),)),
    Setting(name="LLAMASKETCH_CONNECTIONS_ADDRESS", rules=(whole(8, 1000000),)),
    Setting(name="LLAMASKETCH_CONNECTIONS_SITE", rules=(whole(8, 1000000),)),
    Setting(name="LLAMASKETCH_HEADER_BYTES", rules=(whole(4096, 1000000),)),
    Setting(name="LLAMASKETCH_HEADER_FIELDS", rules=(whole(20, 10000),)),
    Setting(name="LLAMASKETCH_BODY_BYTES_ADDRESS", rules=(whole(6000000, 1000000000000),)),
    Setting(name="LLAMASKETCH_BODY_BYTES", rules=(whole(6000000, 1000000000000),)),
    Setting(name="LLAMASKETCH_STREAMS_ACCOUNT", rules=(whole(1, 10000),)),
    Setting(name="LLAMASKETCH_STREAMS_ADDRESS", rules=(whole(1, 1000000),)),
    Setting(name="LLAMASKETCH_STREAMS", rules=(whole(1, 1000000),)),
    Setting(name="LLAMASKETCH_HEADER_SECONDS", rules=(number("0.001", "3600"),)),
    Setting(name="LLAMASKETCH_BODY_SECONDS", rules=(number("0.001", "3600"),)),
    Setting(name="LLAMASKETCH_IDLE_SECONDS", rules=(number("0.001", "3600"),)),
    Setting(name="LLAMASKETCH_IDLE_SECONDS_PROXY", rules=(number("0.001", "3600"),)),
    Setting(name="LLAMASKETCH_UNREAD_SECONDS", rules=(number("0.001", "3600"),)),
    Setting(name="LLAMASKETCH_REFUSALS_PER_SECOND", rules=(number("0.1", "1000000"),)),
    Setting(name="LLAMASKETCH_REQUESTS_AT_ONCE_ADDRESS", rules=(whole(1, 1000000),)),
    Setting(name="RATE_FEEDS", rules=_FEEDS),
    Setting(name="USDT_FEEDS", rules=_FEEDS),
)


def is_production(environ: Mapping[str, str]) -> bool:
    """Whether this is production: it is, unless the try-out stack is asked for."""
    return given(environ).get(ENVIRONMENT) != EMBEDDED


def findings_of(environ: Mapping[str, str], plugins: Sequence[RailPlugin]) -> list[Finding]:
    """Everything that is wrong with the settings, of the gateway and of the rails that are configured."""
    production, values = is_production(environ), given(environ)
    findings = check(SETTINGS, environ, production=production)
    for plugin in plugins:
        if isinstance(plugin, Declares):
            findings += _of_rail(plugin, plugin.configured(values), values, production=production)
    if SIGN_IN in values and OIDC_ISSUER in values:
        findings.append(
            Finding(
                SIGN_IN, "two_ways_to_sign_in", f"{SIGN_IN}: it must be unset, because {OIDC_ISSUER} is given"
            )
        )
    if production:
        findings += _used_twice(values, [s for _, settings in _groups(plugins) for s in settings])
        findings += [
            Finding(name, "sandbox_setting", f"{name} is for trying out: production must not have it")
            for name in sorted(values)
            if name.startswith(_SANDBOX)
        ]
    return findings


def _used_twice(values: Mapping[str, str], settings: Sequence[Setting]) -> Iterator[Finding]:
    """A secret that stands in two settings is known to whoever may know one of them: who reads metrics signs in."""
    holders: dict[str, str] = {}
    for setting in settings:
        if not any(rule.code == "secret_not_random" for rule in setting.rules):
            continue
        for key in keys_of(values.get(setting.name, "")):
            holder = holders.setdefault(key, setting.name)
            if holder != setting.name:
                yield Finding(
                    setting.name,
                    "secret_used_twice",
                    f"{setting.name}: in production it must hold another secret than {holder}",
                )


def _of_rail(
    plugin: Declares, configured: bool, values: Mapping[str, str], *, production: bool
) -> list[Finding]:
    found = check(plugin.settings, values, production=production)
    # What a rail that is not wanted would need is not missing.
    return found if configured else [finding for finding in found if finding.rule != "missing"]


def tables() -> Iterator[tuple[str, Sequence[Setting]]]:
    """Every group of settings with its title, for the table in the documents."""
    from rails.payments.registry import installed_plugins

    return _groups(installed_plugins())


def _groups(plugins: Sequence[RailPlugin]) -> Iterator[tuple[str, Sequence[Setting]]]:
    yield "The API and the command line", SETTINGS
    for plugin in plugins:
        if isinstance(plugin, Declares):
            yield f"Rail `{plugin.name}`", plugin.settings
