"""Settings: from the environment only, checked once at start. `.env.example` explains each."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

WORKER_REGISTRATION = "worker-registration"
DEFAULT_SECRETS = frozenset({"", "change-me", "changeme", "secret", "development"})


class Settings(BaseSettings):
    """What the API, the command line and the background tasks need to know."""

    model_config = SettingsConfigDict(env_prefix="LLAMASKETCH_", extra="ignore", frozen=True)

    database_url: str = Field(validation_alias="DATABASE_URL")
    redis_url: str = Field(validation_alias="REDIS_URL")
    environment: Literal["embedded", "production"] = "embedded"
    secret_key: SecretStr
    public_url: str = "http://127.0.0.1:8000"
    data: Path = Path("var")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks whose forwarding header counts."""
    object_store_url: str = ""
    """`s3://bucket`; empty means the local disk under the data folder."""
    object_store_endpoint: str = ""
    object_store_region: str = "auto"
    object_store_access_key: SecretStr = SecretStr("")
    object_store_secret_key: SecretStr = SecretStr("")
    oidc_issuer: str = ""
    """The issuer of people's tokens; empty means the built-in one."""
    oidc_audience: str = "llamasketch"
    oidc_jwks_url: str = ""
    network_allowance_address: int = 60
    """Free images per UTC day and IPv4 address or IPv6 /64."""
    network_allowance_site: int = 240
    """Free images per UTC day and IPv6 /48."""
    requests_per_minute: int = 600
    """HTTP writes per principal."""
    requests_per_minute_network: int = 1200
    """HTTP writes per address prefix."""

    recovery_attempts_per_minute: int = 6
    """Guesses at recovery codes per address prefix."""

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def _production_is_strict(self) -> Settings:
        if (
            len(self.secret_key.get_secret_value()) < 32
            or self.secret_key.get_secret_value() in DEFAULT_SECRETS
        ):
            raise ValueError("LLAMASKETCH_SECRET_KEY must be a random secret of at least 32 characters")
        if self.environment == "production":
            if not self.oidc_issuer:
                raise ValueError(
                    "production needs LLAMASKETCH_OIDC_ISSUER: the built-in issuer is for trying out"
                )
            if not self.public_url.startswith("https://"):
                raise ValueError("production needs an https:// address in LLAMASKETCH_PUBLIC_URL")
        return self

    @property
    def embedded(self) -> bool:
        """Whether this is the try-out stack with its sandboxes."""
        return self.environment == "embedded"

    @property
    def sqlalchemy_url(self) -> str:
        """The database for SQLAlchemy, on psycopg."""
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)

    def secret_for(self, purpose: str) -> bytes:
        """A secret of its own for each purpose, so that one never opens another's door."""
        return derive_secret(self.secret_key.get_secret_value(), purpose)


def derive_secret(secret_key: str, purpose: str) -> bytes:
    """32 bytes that depend on the purpose and tell nothing about the key."""
    return hmac.new(secret_key.encode(), purpose.encode(), hashlib.sha256).digest()
