"""An environment with which production starts, and one that is only for trying out."""

from __future__ import annotations

from pathlib import Path

SOUND = {
    "DATABASE_URL": "postgresql://llamasketch:Vb7mQ2xKp9LzRt4w@db.internal:5432/llamasketch",
    "REDIS_URL": "redis://:Hn3cYd8sWq6JfUa1@cache.internal:6379/0",
    "LLAMASKETCH_SECRET_KEY": "kX9vTq2LmZ7bRw4cNf8YpHs3JdGe6UaVtB1oKi5WyQ0",
    "LLAMASKETCH_PUBLIC_URL": "https://sketch.llamas.art",
    "LLAMASKETCH_OIDC_ISSUER": "https://clerk.llamas.art",
    "LLAMASKETCH_SMTP_URL": "smtps://llamas:p8HsJ3dGe6Ua@mail.llamas.art",
    "LLAMASKETCH_MAIL_FROM": "LlamaSketch <mail@llamas.art>",
    "LLAMASKETCH_OBJECT_STORE_URL": "s3://pictures",
    "LLAMASKETCH_OBJECT_STORE_ENDPOINT": "https://store.llamas.art",
    "LLAMASKETCH_OBJECT_STORE_PUBLIC_ENDPOINT": "https://pictures.llamas.art",
    "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY": "AKc8Ld2mXq7TzLw4Vb",
    "LLAMASKETCH_OBJECT_STORE_SECRET_KEY": "t9ZpK4wQx7mLb2VcRf8YnHs3JdGe6Ua",
    "LLAMASKETCH_METRICS_TOKEN": "m2VcRf8YnHs3JdGe6UaQx7mLb9ZpK4w",
    "LLAMASKETCH_TRUSTED_PROXIES": "10.1.0.0/16, 2001:db8::1",
    "STRIPE_SECRET_KEY": "sk_live_51Qz8Ldf03kWmVbTe7YhNcR2",
    "STRIPE_WEBHOOK_SECRET": "whsec_9fK2mXq7TzLw4VbNc8RpYd3HsJe6GuAa",
    "RATE_FEEDS": "coinbase=https://api.coinbase.com,kraken=https://api.kraken.com",
    "USDT_FEEDS": "kraken=https://api.kraken.com,bitstamp=https://www.bitstamp.net",
}
"""Without files: the rails that read some have their own."""


def with_node(folder: Path) -> dict[str, str]:
    """The same with a node of the Lightning network, whose files are in `folder`."""
    files = {
        "LND_TLS_CERT": (folder / "tls.cert", "a certificate"),
        "LND_MACAROON": (folder / "invoices.macaroon", "a macaroon"),
        "LIGHTNING_PREIMAGE_KEY": (
            folder / "preimage.key",
            "8f3a1cd94be7602f5d18a6c3e97b04f2d65c8e1730ba94fd27e6510c3b8fa9d4",
        ),
    }
    for path, text in files.values():
        path.write_text(text)
        path.chmod(0o600)
    named = {name: str(path) for name, (path, _) in files.items()}
    return {**SOUND, **named, "LND_GRPC_ADDRESS": "lnd.internal:10009"}
