"""How the supervisor starts the stand-in LND."""

from __future__ import annotations

from pathlib import Path

from sandbox.service import PortBook, Service, TcpReady


def describe(data_dir: Path, port: PortBook) -> Service:
    """The node's credentials are files in its data folder, written before its port opens."""
    grpc_port, control_port = port("lnd"), port("lnd-control")
    return Service(
        name="lnd",
        argv=(
            *("-m", "sandbox.lnd", "--port", str(grpc_port)),
            *("--control-port", str(control_port), "--data", str(data_dir)),
        ),
        environment={
            "LND_GRPC_ADDRESS": f"127.0.0.1:{grpc_port}",
            "LND_TLS_CERT": str(data_dir / "tls.cert"),
            "LND_MACAROON": str(data_dir / "invoices.macaroon"),
            "LND_REFUND_MACAROON": str(data_dir / "refunds.macaroon"),
            "LND_CHANNELS_MACAROON": str(data_dir / "channels.macaroon"),
            "LIGHTNING_PREIMAGE_KEY": str(data_dir / "preimage.key"),
            "SANDBOX_LND_CONTROL_URL": f"http://127.0.0.1:{control_port}",
        },
        ready=TcpReady(grpc_port),
    )
