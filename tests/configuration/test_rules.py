"""What production refuses, rule by rule, and that each setting of a kind is held to the rules of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from gateway.configuration import findings_of, is_production, tables
from rails.configuration import Setting, When
from rails.contract import RailPlugin
from rails.payments.registry import installed_plugins
from tests.configuration.environments import SOUND, with_node

LIQUID = {"ELEMENTS_RPC_URL": "http://rail:pT8wLm2xQz@node.internal:7041", "LIQUID_NETWORK": "liquid"}
EVERY = [setting for _, settings in tables() for setting in settings]
HTTPS_ONLY = [
    "LLAMASKETCH_PUBLIC_URL",
    "LLAMASKETCH_OIDC_ISSUER",
    "LLAMASKETCH_OIDC_JWKS_URL",
    "LLAMASKETCH_OBJECT_STORE_ENDPOINT",
    "LLAMASKETCH_OBJECT_STORE_PUBLIC_ENDPOINT",
]
FOR_THE_WORLD = [name for name in HTTPS_ONLY if name != "LLAMASKETCH_OBJECT_STORE_ENDPOINT"]
"""A store may be in a network of ours if browsers have another address of it."""
PASSWORD = "Vb7mQ2xKp9LzRt4w"
SECRETS = [
    "LLAMASKETCH_SECRET_KEY",
    "LLAMASKETCH_METRICS_TOKEN",
    "LLAMASKETCH_OBJECT_STORE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRET",
]
NUMBERS = [
    setting.name for setting in EVERY if any(rule.code == "number_out_of_range" for rule in setting.rules)
]


@cache
def plugins() -> Sequence[RailPlugin]:
    """Looked for once: all installed packages are asked."""
    return installed_plugins()


def found(environ: dict[str, str]) -> dict[str, str]:
    """The broken rule of each setting that breaks one."""
    return {finding.setting: finding.rule for finding in findings_of(environ, plugins())}


def test_a_sound_environment_breaks_no_rule(tmp_path: Path) -> None:
    assert found(SOUND) == {}
    assert found({**with_node(tmp_path), **LIQUID, "LIGHTNING_NETWORK": "mainnet"}) == {}


def test_without_a_word_it_is_production() -> None:
    assert is_production({})
    assert is_production({"LLAMASKETCH_ENVIRONMENT": ""})
    assert is_production({"LLAMASKETCH_ENVIRONMENT": "staging"})
    assert not is_production({"LLAMASKETCH_ENVIRONMENT": "embedded"})
    assert found({**SOUND, "LLAMASKETCH_ENVIRONMENT": "staging"}) == {
        "LLAMASKETCH_ENVIRONMENT": "unknown_value"
    }


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = {
        "LLAMASKETCH_SECRET_KEY": "changeme",
        "LLAMASKETCH_TRUSTED_PROXIES": "0.0.0.0/0",
        "LLAMASKETCH_REQUESTS_PER_MINUTE": "-1",
        "STRIPE_WEBHOOK_SECRET": "x",
        "LIQUID_NETWORK": "liquidtestnet",
    }
    assert {*wrong} == {*found({**SOUND, **wrong})}
    assert {"DATABASE_URL", "REDIS_URL", "LLAMASKETCH_PUBLIC_URL", "LLAMASKETCH_OIDC_ISSUER"} < {*found({})}


@pytest.mark.parametrize("name", HTTPS_ONLY)
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("http://sketch.llamas.art", "not_https"),
        ("https://localhost", "address_of_this_machine"),
        ("https://127.0.0.1:8443", "address_of_this_machine"),
        ("https://127.1", "address_of_this_machine"),
        ("https://2130706433", "address_of_this_machine"),
        ("https://0x7f000001", "address_of_this_machine"),
        ("https://[::1]", "address_of_this_machine"),
        ("https://[::ffff:127.0.0.1]", "address_of_this_machine"),
        ("https://0.0.0.0", "address_of_this_machine"),
        ("https://169.254.169.254", "address_of_this_machine"),
        ("https://[::ffff:7f00:1]", "address_of_this_machine"),
        ("https://[64:ff9b::127.0.0.1]", "address_of_this_machine"),
        ("https://[2002:7f00:1::1]", "address_of_this_machine"),
        ("https://[fe80::1%25eth0]", "address_of_this_machine"),
        ("https://issuer.localhost.", "address_of_this_machine"),
        ("https://sketch.localtest.me", "address_of_this_machine"),
        ("https://127-0-0-1.nip.io", "address_of_this_machine"),
        ("https://１２７.0.0.1", "no_address"),
        ("https://127。0。0。1", "no_address"),
        ("https://%3127.0.0.1", "no_address"),
        ("https://lläma.art", "no_address"),
        ("ftp://sketch.llamas.art", "no_address"),
        ("sketch.llamas.art", "no_address"),
        ("https://", "no_address"),
        ("https://sketch.llamas.art:99999", "no_address"),
    ],
)
def test_an_address_for_the_world_is_https_and_elsewhere(name: str, value: str, rule: str) -> None:
    assert found({**SOUND, name: value}) == {name: rule}


@pytest.mark.parametrize("name", FOR_THE_WORLD)
@pytest.mark.parametrize(
    "host",
    ["example.com", "sketch.example.com", "sketch.EXAMPLE.org.", "llamas.example", "llamas.test", "a.invalid",
     "10.0.0.7", "192.168.1.5:8443", "172.20.0.3", "100.64.0.1", "192.0.2.10", "198.51.100.7", "203.0.113.9",
     "240.0.0.1", "0xa000007", "167772167", "[fd00::1]", "[2001:db8::1]", "[::ffff:10.0.0.7]", "[64:ff9b::a00:7]",
     "[2002:a00:7::1]", "issuer", "clerk.internal", "clerk.local", "clerk.svc.", "clerk.lan", "clerk.home.arpa"],
)  # fmt: skip
def test_an_address_for_the_world_is_one_that_the_world_can_reach(name: str, host: str) -> None:
    assert found({**SOUND, name: f"https://{host}"}) == {name: "address_of_nobody"}


@pytest.mark.parametrize(
    "host", ["sketch.llamas.art", "examples.com", "1.1.1.1", "[2606:4700::1111]", "xn--llma-noa.art"]
)
def test_any_other_address_is_taken(host: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_PUBLIC_URL": f"https://{host}"}) == {}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (f"postgresql://a:{PASSWORD}@db.llamas.art/x", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@93.184.215.14:5432/x", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@db.llamas.art/x?sslmode=prefer", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@db.llamas.art/x?sslmode=disable", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@127.0.0.1/x?host=db.llamas.art", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@127.0.0.1/x?hostaddr=93.184.215.14", "plain_text_outside"),
        (f"postgresql://a:{PASSWORD}@/x?host=/run/postgresql,db.llamas.art", "plain_text_outside"),
        ("postgresql://a@db.llamas.art/x?sslmode=verify-full", "no_password"),
        ("postgresql://a:@db.llamas.art/x?sslmode=verify-full", "no_password"),
        ("postgresql://a@db.internal/x", "no_password"),
        ("postgresql://a@10.0.0.5/x", "no_password"),
        ("postgresql://a@/x?host=db", "no_password"),
        ("postgresql://a@db.llamas.art/x?sslmode=require&password=changeme", "well_known_password"),
        (f"postgresql://a:{PASSWORD}@db.internal/x?sslmodus=require", "no_address"),
        (f"postgresql://a:{PASSWORD}@db.internal:x/x", "no_address"),
        (f"postgres://a:{PASSWORD}@db.internal/x", "no_address"),
    ],
)
def test_a_database_elsewhere_asks_for_a_password_and_is_spoken_to_by_tls(value: str, rule: str) -> None:
    assert found({**SOUND, "DATABASE_URL": value}) == {"DATABASE_URL": rule}


@pytest.mark.parametrize(
    "value",
    ["postgresql://a@127.0.0.1/x", "postgresql:///x", "postgresql://a@/x?host=/run/postgresql",
     f"postgresql://a:{PASSWORD}@db.llamas.art/x?sslmode=require",
     f"postgresql://a:{PASSWORD}@10.0.0.5/x", f"postgresql://a:{PASSWORD}@[fd00::5]/x",
     "postgresql://a@db.llamas.art/x?sslmode=verify-full&sslcert=/run/secrets/a.crt&sslkey=/run/secrets/a.key",
     "postgresql://a@db.internal/x?passfile=/run/secrets/pgpass"],
)  # fmt: skip
def test_a_database_here_or_with_another_proof_needs_none_of_that(value: str) -> None:
    assert found({**SOUND, "DATABASE_URL": value}) == {}


@pytest.mark.parametrize("value", ["rediss://cache.llamas.art:6379/0", "rediss://:@93.184.215.14/0"])
def test_a_cache_in_the_world_asks_for_a_password(value: str) -> None:
    assert found({**SOUND, "REDIS_URL": value}) == {"REDIS_URL": "no_password"}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("coinbase=http://api.coinbase.com,kraken=https://api.kraken.com", "not_https"),
        ("coinbase=https://127.0.0.1,kraken=https://api.kraken.com", "address_of_this_machine"),
        ("coinbase=https://10.0.0.7,kraken=https://api.kraken.com", "address_of_nobody"),
        ("coinbase=https://prices.example.com,kraken=https://api.kraken.com", "address_of_nobody"),
        ("coinbase=https://api.coinbase.com", "one_feed"),
        ("coinbase=https://api.coinbase.com,coinbase=https://mirror.coinbase.com", "one_feed"),
        ("coinbase=https://one.org/a,kraken=https://one.org/b", "one_feed"),
        ("coinbase=https://one.org/a,kraken=https://ONE.org./b", "one_feed"),
        ("someone=https://api.coinbase.com,kraken=https://api.kraken.com", "no_feeds"),
        ("https://api.coinbase.com", "no_feeds"),
    ],
)
def test_prices_come_from_several_feeds_by_https(value: str, rule: str) -> None:
    for name in ("RATE_FEEDS", "USDT_FEEDS"):
        assert found({**SOUND, name: value}) == {name: rule}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("mail.llamas.art", "no_address"),
        ("https://mail.llamas.art", "no_address"),
        ("smtps://", "no_address"),
        ("smtps://mail.llamas.art:0", "no_address"),
        ("smtps://mail.llamas.art:mail", "no_address"),
        ("smtp+plain://mail.llamas.art", "plain_text_outside"),
        ("smtp+plain://93.184.215.14:25", "plain_text_outside"),
        ("smtps://llamas:changeme@mail.llamas.art", "well_known_password"),
    ],
)
def test_mail_goes_to_a_server_and_by_tls_if_it_leaves(value: str, rule: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_SMTP_URL": value}) == {"LLAMASKETCH_SMTP_URL": rule}


@pytest.mark.parametrize(
    "value",
    ["smtps://mail.llamas.art", "smtp://llamas:p8HsJ3dGe6Ua@mail.llamas.art:2587", "smtp+plain://127.0.0.1:25",
     "smtp+plain://relay.internal", "smtp+plain://10.0.0.3"],
)  # fmt: skip
def test_a_relay_inside_may_be_spoken_to_plainly(value: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_SMTP_URL": value}) == {}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("LlamaSketch", "no_sender"),
        ("LlamaSketch <mail>", "no_sender"),
        ("a@llamas.art, b@llamas.art", "no_sender"),
        ("LlamaSketch <mail@llamasketch.example>", "sender_of_nobody"),
        ("mail@mail.example.com", "sender_of_nobody"),
        ("mail@llama.local", "sender_of_nobody"),
        ("", "missing"),
    ],
)
def test_mail_is_from_an_address_that_gets_mail(value: str, rule: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_MAIL_FROM": value}) == {"LLAMASKETCH_MAIL_FROM": rule}


def test_people_sign_in_by_an_issuer_or_by_mailed_links_and_not_by_both() -> None:
    without = {name: value for name, value in SOUND.items() if name != "LLAMASKETCH_OIDC_ISSUER"}
    assert found(without) == {"LLAMASKETCH_OIDC_ISSUER": "missing"}
    by_link = {**without, "LLAMASKETCH_SIGN_IN": "link"}
    assert found(by_link) == {}
    assert found({**by_link, "LLAMASKETCH_SIGN_IN": "word"}) == {"LLAMASKETCH_SIGN_IN": "unknown_value"}
    assert found({**SOUND, "LLAMASKETCH_SIGN_IN": "link"}) == {"LLAMASKETCH_SIGN_IN": "two_ways_to_sign_in"}
    del by_link["LLAMASKETCH_SMTP_URL"]
    assert found(by_link) == {"LLAMASKETCH_SMTP_URL": "missing"}


def test_without_a_mail_server_nothing_of_mail_is_missing() -> None:
    without = {name: value for name, value in SOUND.items() if "SMTP" not in name and "MAIL" not in name}
    assert found(without) == {}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "value",
    ["x", "changeme", "changeme" * 8, "a" * 64, "ab" * 40, "0123456789abcdef" * 4,
     "abcdefghijklmnopqrstuvwxyz0123456789", "replace-me-9fK2mXq7TzLw4VbNc8RpYd3HsJe6Gu",
     "<9fK2mXq7TzLw4VbNc8RpYd3HsJe6GuAa>", "${KEY_9fK2mXq7TzLw4VbNc8RpYd3HsJe6Gu}", "{{ vault.9fK2mXq7TzLw4VbNc8RpYd3 }}",
     "please-change-this-to-a-long-one-of-32", "qwertyuiopasdfghjklzxcvbnm1234567890",
     "a-long-random-string-of-32-characters", "SUPER_SECRET_9fK2mXq7TzLw4VbNc8RpYd3HsJe6Gu"],
)  # fmt: skip
def test_a_secret_is_long_random_and_of_ones_own(name: str, value: str) -> None:
    prefix = "whsec_" if name.endswith("WEBHOOK_SECRET") else ""
    (rule,) = found({**SOUND, name: prefix + value}).values()
    assert rule in ("secret_too_short", "secret_is_placeholder", "secret_not_random")


@pytest.mark.parametrize("value", ["10.0.0.0/8, fc00::/7", "2001:db8::/32", "2606:4700::/32", "fd00:1::/64"])
def test_what_is_ones_own_or_a_providers_is_no_continent(value: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_TRUSTED_PROXIES": value}) == {}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("other", SECRETS)
def test_a_secret_stands_in_one_setting(name: str, other: str) -> None:
    """Whoever reads the metrics must not be able to sign people in."""
    shared = {**SOUND, other: "whsec_4bN2mXq7TzLw4VfKc8RpYd3HsJe6GuZz"}
    shared[name] = shared[other]
    assert list(found(shared).values()) == ([] if name == other else ["secret_used_twice"])


def test_a_key_that_was_changed_is_not_listed_as_an_older_one_of_itself() -> None:
    kept = {
        **SOUND,
        "LLAMASKETCH_OLDER_SECRET_KEYS": f"8rT2mXq7TzLw4VbNc8RpYd3HsJe6GuAb,{SOUND['LLAMASKETCH_SECRET_KEY']}",
    }
    assert found(kept) == {"LLAMASKETCH_OLDER_SECRET_KEYS": "secret_used_twice"}


def test_the_secret_of_webhooks_looks_like_one() -> None:
    assert found({**SOUND, "STRIPE_WEBHOOK_SECRET": "whsec_" + "x"}) == {
        "STRIPE_WEBHOOK_SECRET": "secret_too_short"
    }
    assert found({**SOUND, "STRIPE_WEBHOOK_SECRET": "9fK2mXq7TzLw4VbNc8RpYd3HsJe6GuAa"}) == {
        "STRIPE_WEBHOOK_SECRET": "wrong_kind"
    }
    assert found({**SOUND, "STRIPE_SECRET_KEY": "sk_test_51Qz8Ldf03kWmVbTe7YhNcR2"}) == {
        "STRIPE_SECRET_KEY": "test_key"
    }
    assert found({**SOUND, "STRIPE_API_BASE": "https://stripe.llamas.art"}) == {"STRIPE_API_BASE": "stand_in"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://llamasketch:changeme@db.internal/llamasketch"),
        ("DATABASE_URL", "postgresql://postgres:postgres@db.internal/llamasketch"),
        ("DATABASE_URL", "postgresql://llamasketch:password123@db.internal/llamasketch"),
        ("REDIS_URL", "redis://:secret@cache.internal:6379/0"),
        ("ELEMENTS_RPC_URL", "http://rail:sandbox@node.internal:7041"),
    ],
)
def test_a_password_in_an_address_is_not_well_known(name: str, value: str) -> None:
    assert found({**SOUND, name: value}) == {name: "well_known_password"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://:Hn3cYd8sWq6JfUa1@cache.llamas.art:6379/0"),
        ("ELEMENTS_RPC_URL", "http://rail:pT8wLm2xQz@node.llamas.art:7041"),
        ("ESPLORA_URL", "http://blockstream.info/liquid/api"),
    ],
)
def test_what_is_far_away_is_reached_by_tls(name: str, value: str) -> None:
    assert found({**SOUND, name: value}) == {name: "plain_text_outside"}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("0.0.0.0/0", "proxies_too_wide"),
        ("::/0", "proxies_too_wide"),
        ("0.0.0.0/1,128.0.0.0/1", "proxies_too_wide"),
        ("10.0.0.1, 64.0.0.0/2", "proxies_too_wide"),
        ("2000::/3", "proxies_too_wide"),
        ("2000::/4", "proxies_too_wide"),
        ("2a00::/12", "proxies_too_wide"),
        ("fc00::/7, 2400::/12", "proxies_too_wide"),
        ("everybody", "no_networks"),
        ("*", "no_networks"),
        ("10.0.0.0/40", "no_networks"),
    ],
)
def test_proxies_are_some_networks_and_not_the_world(value: str, rule: str) -> None:
    assert found({**SOUND, "LLAMASKETCH_TRUSTED_PROXIES": value}) == {"LLAMASKETCH_TRUSTED_PROXIES": rule}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "-0.5", "many", "1e99", "nan", "inf", "99999999999999999999", "٣"])
def test_a_number_is_within_its_bounds(name: str, value: str) -> None:
    assert found({**SOUND, name: value}).get(name) == "number_out_of_range"


def test_production_waits_for_two_confirmations() -> None:
    assert found({**SOUND, "LIQUID_CONFIRMATIONS": "1"}) == {"LIQUID_CONFIRMATIONS": "number_out_of_range"}


@pytest.mark.parametrize("network", ["testnet", "testnet4", "signet", "regtest"])
def test_coins_of_a_test_network_are_not_taken(network: str) -> None:
    assert found({**SOUND, "LIGHTNING_NETWORK": network}) == {"LIGHTNING_NETWORK": "test_network"}
    assert (
        found({"LIGHTNING_NETWORK": network, "LLAMASKETCH_ENVIRONMENT": "embedded"}).get("LIGHTNING_NETWORK")
        is None
    )


@pytest.mark.parametrize("network", ["liquidtestnet", "liquidregtest"])
def test_assets_of_a_test_network_are_not_taken(network: str) -> None:
    assert found({**SOUND, "LIQUID_NETWORK": network}) == {"LIQUID_NETWORK": "test_network"}
    assert found({**SOUND, "LIQUID_USDT_ASSET": "ab" * 32}) == {"LIQUID_USDT_ASSET": "foreign_asset"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("00" * 32, "secret_not_random"),
        ("ff" * 32, "secret_not_random"),
        ("0123456789abcdef" * 4, "secret_not_random"),
        (bytes(range(32)).hex(), "secret_not_random"),
        ("8f3a1cd94be7602f", "no_key"),
        ("not hexadecimal", "no_key"),
        ("", "file_not_readable"),
    ],
)
def test_the_key_of_preimages_cannot_be_guessed(text: str, rule: str, tmp_path: Path) -> None:
    environ = with_node(tmp_path)
    Path(environ["LIGHTNING_PREIMAGE_KEY"]).write_text(text)
    assert found(environ) == {"LIGHTNING_PREIMAGE_KEY": rule}


def test_the_files_of_a_node_are_there_and_closed_to_others(tmp_path: Path) -> None:
    environ = with_node(tmp_path)
    Path(environ["LIGHTNING_PREIMAGE_KEY"]).chmod(0o644)
    assert found(environ) == {"LIGHTNING_PREIMAGE_KEY": "file_open_to_others"}
    assert found({**environ, "LND_MACAROON": "", "LND_TLS_CERT": str(tmp_path / "none")}) == {
        "LIGHTNING_PREIMAGE_KEY": "file_open_to_others",
        "LND_MACAROON": "missing",
        "LND_TLS_CERT": "file_not_readable",
    }


@pytest.mark.parametrize("name", ["SANDBOX_LND_CONTROL_URL", "SANDBOX_COMFYUI_PAINT_SECONDS"])
def test_what_is_for_the_sandbox_is_not_in_production(name: str) -> None:
    assert found({**SOUND, name: "1"}) == {name: "sandbox_setting"}


def test_a_store_needs_its_keys() -> None:
    environ = {**SOUND, "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY": "", "LLAMASKETCH_OBJECT_STORE_SECRET_KEY": " "}
    assert found(environ) == {
        "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY": "missing",
        "LLAMASKETCH_OBJECT_STORE_SECRET_KEY": "missing",
    }
    assert found({**SOUND, "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY": "minioadmin"}) == {
        "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY": "secret_is_placeholder"
    }


def test_no_finding_repeats_the_value_that_it_refuses() -> None:
    wrong = {setting.name: "changeme-7261-changeme" for setting in EVERY}
    for finding in findings_of({**wrong, "LLAMASKETCH_ENVIRONMENT": "production"}, plugins()):
        assert "7261" not in finding.problem


@pytest.mark.parametrize("setting", [setting for setting in EVERY if setting.rules], ids=lambda s: s.name)
def test_every_rule_of_a_setting_refuses_something(setting: Setting) -> None:
    """A rule that holds for every one of these would hold for everything."""
    hostile = ["", "x", "changeme", "-1", "0.0.0.0/0", "signet", "http://127.0.0.1", "ftp://a", "/nowhere/at/all",
               "redis://a.example.com", "a" * 64, "https://u:changeme@a.example.com/x", "coinbase=http://127.0.0.1",
               "coinbase=https://u:p@localhost", "sk_test_x", "whsec_x", ",".join(["whsec_x"] * 9), "0", "12345", __file__]  # fmt: skip
    for rule in setting.rules:
        refused = [value for value in hostile if not _holds(rule, value)]
        assert refused, f"{setting.name}: {rule.code} refuses nothing"
        assert isinstance(rule.when, When)


def _holds(rule: object, value: str) -> bool:
    try:
        return bool(rule.holds(value))  # type: ignore[attr-defined]
    except (ValueError, OSError):
        return False
