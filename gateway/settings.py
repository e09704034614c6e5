"""Settings: from the environment only, checked once at start. `.env.example` explains each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.configuration import SETTINGS, is_production, keys_of
from gateway.derived_secrets import derive_secret
from generation.domain.requests import SKETCH_GRAPH
from rails.configuration import check

_PORTS = {"http": 80, "https": 443}


class Settings(BaseSettings):
    """What the API, the command line and the background tasks need to know."""

    model_config = SettingsConfigDict(
        env_prefix="LLAMASKETCH_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: str = Field(validation_alias="DATABASE_URL")
    redis_url: str = Field(validation_alias="REDIS_URL")
    environment: Literal["embedded", "production"] = "production"
    """Trying out must be asked for: nobody runs the built-in issuer by forgetting a setting."""
    secret_key: SecretStr
    older_secret_keys: SecretStr = SecretStr("")
    """What `secret_key` was before, separated by commas: what people hold that was made with them still counts."""
    public_url: str = "http://127.0.0.1:8000"
    data: Path = Path("var")
    catalogue: str = ""
    """A file with the plans, packs and passes that are for sale; empty means those built in."""
    metrics_token: SecretStr = SecretStr("")
    """What Prometheus sends; without it `/metrics` is answered on this machine while trying out, else nowhere."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks whose forwarding header counts."""
    object_store_url: str = ""
    """`s3://bucket`; empty means the local disk under the data folder."""
    object_store_endpoint: str = ""
    object_store_public_endpoint: str = ""
    """Where browsers reach the same store; empty means at its endpoint."""
    object_store_region: str = "auto"
    object_store_access_key: SecretStr = SecretStr("")
    object_store_secret_key: SecretStr = SecretStr("")
    oidc_issuer: str = ""
    """The issuer of people's tokens; empty means the built-in one."""
    sign_in: Literal["", "link"] = ""
    """`link`: without an issuer, people sign in by a link that is mailed to them, also in production."""
    oidc_audience: str = "llamasketch"
    oidc_jwks_url: str = ""
    smtp_url: SecretStr = SecretStr("")
    """The mail server; empty means that no mail is sent."""
    mail_from: str = ""
    """Whom mail is from: `LlamaSketch <mail@llamas.art>`."""
    graph: str = Field(default=SKETCH_GRAPH, pattern=r"^[a-z0-9_-]{1,40}@[0-9]{1,4}$")
    """The graph that images are made with: one that ships with the worker, or of the operator's own."""
    network_allowance_address: int = 60
    """Free images per UTC day and IPv4 address or IPv6 /64."""
    network_allowance_site: int = 240
    """Free images per UTC day and IPv6 /48."""
    held_images_account: int = 8
    """Images of one account that wait for payments of their own, or are made for them, at the same time."""
    held_images_address: int = 60
    """The same within ten minutes of one IPv4 address or IPv6 /64."""
    held_images_site: int = 240
    """The same within ten minutes of one IPv6 /48."""
    held_images: int = 400
    """The same of everybody at the same time: a Lightning channel carries 483 payments at once."""
    refund_days: int = 14
    """For how many days people may ask for the money of unspent credits; 0: only operators refund."""
    requests_per_minute: int = 600
    """HTTP writes per principal."""
    requests_per_minute_network: int = 1200
    """HTTP writes per address prefix."""

    recovery_attempts_per_minute: int = 6
    """Guesses at recovery codes per address prefix."""

    upload_megabytes_per_hour: int = 1024
    """Megabytes of sketches per account."""
    upload_megabytes_per_hour_network: int = 4096
    """Megabytes of sketches per address prefix."""
    upload_processes: int = 2
    """Processes of this API process that decode people's uploads, one at a time each."""
    uploads_waiting_network: int = 16
    """Uploads of one network that may wait for their turn."""
    uploads_waiting: int = 256
    """Uploads of everybody together that may wait for their turn."""
    upload_cpu_seconds: int = 3
    """Processor seconds that reading one upload may take."""

    connections: int = Field(default=8192, ge=16)
    """Open connections; fewer where the operating system gives fewer descriptors."""
    connections_address: int = Field(default=1024, ge=8)
    """Of one IPv4 address or IPv6 /64."""
    connections_site: int = Field(default=2048, ge=8)
    """Of one IPv4 /24 or IPv6 /48."""
    header_bytes: int = Field(default=32_768, ge=4096)
    """Of one request's head."""
    header_fields: int = Field(default=100, ge=20)
    header_seconds: float = Field(default=10.0, gt=0)
    """From the connection, or the first byte of a further request, to the whole head."""
    body_seconds: float = Field(default=60.0, gt=0)
    """From the head to the whole body."""
    idle_seconds: float = Field(default=5.0, gt=0)
    """Between two requests on one connection."""
    idle_seconds_proxy: float = Field(default=75.0, gt=0)
    """The same, for configured proxies."""
    unread_seconds: float = Field(default=60.0, gt=0)
    """For which a client may leave an answer unread."""
    refusals_per_second: float = Field(default=10.0, gt=0)
    """Of one IPv4 address or IPv6 /64, and four times as many of its site, before what it sends next waits."""
    requests_at_once_address: int = Field(default=4, ge=1)
    """Of one IPv4 address or IPv6 /64, that are worked on at the same time; those that wait for others do not count."""
    body_bytes_address: int = Field(default=64_000_000, ge=6_000_000)
    """Of bodies that are held for one IPv4 address or IPv6 /48 at the same time."""
    body_bytes: int = Field(default=256_000_000, ge=6_000_000)
    """Of bodies that are held for everybody at the same time."""
    streams_account: int = Field(default=8, ge=1)
    """Open event streams of one account; a browser needs one for all its tabs."""
    streams_address: int = Field(default=128, ge=1)
    """Of one IPv4 address or IPv6 /48."""
    streams: int = Field(default=1024, ge=1)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("public_url")
    @classmethod
    def _as_browsers_write_it(cls, value: str) -> str:
        """It is compared with what browsers say of themselves, begins every link, and decides about TLS."""
        parts = urlsplit(value.strip())
        ordinary = f":{_PORTS.get(parts.scheme)}"
        return f"{parts.scheme}://{parts.netloc.lower().removesuffix(ordinary)}{parts.path.rstrip('/')}"

    @model_validator(mode="before")
    @classmethod
    def _by_the_rules(cls, data: Any) -> Any:
        """However settings are made, the rules of `gateway/configuration.py` hold for them."""
        if isinstance(data, dict):
            environ = {_variable(name): text for name, value in data.items() if (text := _text(value))}
            findings = check(SETTINGS, environ, production=is_production(environ))
            if findings:
                raise ValueError("; ".join(finding.problem for finding in findings))
        return data

    @property
    def embedded(self) -> bool:
        """Whether this is the try-out stack with its sandboxes."""
        return self.environment == "embedded"

    @property
    def signs_in_by_word(self) -> bool:
        """Whether an address alone is enough to be somebody: for trying out."""
        return self.embedded and not self.sign_in and not self.oidc_issuer

    @property
    def sends_mail(self) -> bool:
        """Whether there is a mail server."""
        return bool(self.smtp_url.get_secret_value())

    @property
    def sqlalchemy_url(self) -> str:
        """The database for SQLAlchemy, on psycopg."""
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)

    def secret_for(self, purpose: str) -> bytes:
        """A secret of its own for each purpose, so that one never opens another's door."""
        return derive_secret(self.secret_key.get_secret_value(), purpose)

    def older_secrets_for(self, purpose: str) -> tuple[bytes, ...]:
        """The same, made of older keys: to check what was given out with, never to make anything."""
        return tuple(
            derive_secret(key, purpose) for key in keys_of(self.older_secret_keys.get_secret_value())
        )


def _variable(field: str) -> str:
    """The environment's name of a field; a name that it has already stays."""
    return field if field.isupper() else f"LLAMASKETCH_{field.upper()}"


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
