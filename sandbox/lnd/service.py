"""How the supervisor starts the stand-in LND."""

from __future__ import annotations

from pathlib import Path

from sandbox.service import PortBook, Service, TcpReady


def describe(data_dir: Path, port: PortBook) -> Service:
    """The node's credentials are files in its data folder, written before its port opens."""
    folder = data_dir / "lnd"
    grpc_port, control_port = port("lnd"), port("lnd-control")
    return Service(
        name="lnd",
        argv=(
            "-m",
            "sandbox.lnd",
            "--port",
            str(grpc_port),
            "--control-port",
            str(control_port),
            "--data",
            str(folder),
        ),
        environment={
            "LND_GRPC_ADDRESS": f"127.0.0.1:{grpc_port}",
            "LND_TLS_CERT": str(folder / "tls.cert"),
            "LND_MACAROON": str(folder / "invoices.macaroon"),
            "LND_REFUND_MACAROON": str(folder / "refunds.macaroon"),
            "LIGHTNING_PREIMAGE_KEY": str(folder / "preimage.key"),
            "SANDBOX_LND_CONTROL_URL": f"http://127.0.0.1:{control_port}",
        },
        ready=TcpReady(grpc_port),
    )
