"""A real elementsd on a regtest, with the same face as the sandbox node. Wants `ELEMENTSD_BIN`.

Flags and the start sequence are those that a regtest of Elements 28 needs; `issueasset` fails
about once in ten starts with an empty message, so it is repeated. Its wallet ends the whole node
when it spends unconfirmed coins (`coinselection.cpp`) or raises the fee of a blinded payment
(`confidential.h`): it pays with confirmed coins alone, and replacements are built by hand.
"""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from sandbox.elementsd.addresses import parse_destination, parse_uri
from tests.rails.liquid.outside import NodeError, SandboxNode

_FLAGS = (
    "-chain=liquidregtest",
    "-validatepegin=0",
    "-initialfreecoins=2100000000000000",
    "-fallbackfee=0.000001",
    "-spendzeroconfchange=0",
    "-acceptdiscountct=1",
    "-creatediscountct=1",
    "-server=1",
    "-listen=0",
    "-rpcuser=sandbox",
    "-rpcpassword=sandbox",
)
_COINS = 20
"""Of each asset: so many payments may wait at once."""
_REPLACEMENT_FEE = Decimal("0.0001")
_LBTC = "5ac9f65c0efcc4775e0baec4ec03abdde22473cd3cf33c0419ca290e0751b225"


class RealNode(SandboxNode):
    """elementsd, controlled by its own wallet."""

    def __init__(self, program: str, data: Path, port: int) -> None:
        super().__init__(data, port)
        self._program = program
        self._assets: dict[str, str] = {}
        self._down = False

    def start(self) -> None:
        """Start, wait until it answers, and on the first start make money."""
        self.data.mkdir(parents=True, exist_ok=True)
        argv = [self._program, *_FLAGS, f"-datadir={self.data}", f"-rpcport={self.port}"]
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv], stdout=log, stderr=log
            )
        self._client = httpx.Client(base_url=self.url, timeout=60, transport=httpx.HTTPTransport(retries=100))
        self._wait()
        if self._assets:
            self.call("loadwallet", "purse")
        else:
            self._found()

    def _wait(self) -> None:
        for _ in range(10_000):
            try:
                self.call("getblockcount")
            except (httpx.HTTPError, NodeError):
                continue
            return
        raise AssertionError("elementsd did not start")

    def _found(self) -> None:
        self.call("createwallet", "purse")
        self.call("rescanblockchain")
        self._mine(1)
        self.call("sendtoaddress", self.call("getnewaddress"), "2000000")
        self._mine(1)
        self._assets = {"L-BTC": _LBTC, "USDT": self._issue(), "JUNK": self._issue()}
        self._mine(1)
        for asset, amount in zip(self._assets.values(), ("50000", "25000", "25000"), strict=True):
            coins = [str(self.call("getnewaddress")) for _ in range(_COINS)]
            nothing = [None] * 3
            amounts, assets = dict.fromkeys(coins, amount), dict.fromkeys(coins, asset)
            self.call("sendmany", "", amounts, 1, "", [], *nothing, assets)
            self._mine(1)

    def _issue(self) -> str:
        for _ in range(20):
            try:
                return str(self.call("issueasset", 1_000_000, 0, False)["asset"])
            except NodeError:
                self._mine(1)
        raise AssertionError("elementsd issued no asset")

    def _mine(self, blocks: int) -> list[str]:
        # Always to a new address: after `invalidateblock` the same block would be refused.
        return list(self.call("generatetoaddress", blocks, self.call("getnewaddress")))

    def info(self) -> dict[str, Any]:
        """What the sandbox would say."""
        return {"assets": self._assets}

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """The sandbox's control calls, by elementsd's own means."""
        match path:
            case "pay":
                return {"txid": self._pay(body)}
            case "mine":
                return {"blocks": self._mine(int(body.get("blocks", 1)))}
            case "reorg":
                return self._reorg(int(body.get("depth", 1)), drop=bool(body.get("drop")))
            case "replace":
                return {"txid": self._replace(str(body["txid"]))}
            case "faults":
                return self._outage(down=bool(body.get("down")))
        raise NotImplementedError(path)

    def _pay(self, body: dict[str, Any]) -> str:
        if "uri" in body:
            body = {**parse_uri(body["uri"]), **body}
        address = str(body["address"])
        destination = parse_destination(address)
        if body.get("unconfidential") and destination is not None:
            address = destination.unconfidential
        label = str(body["assetid"])
        nothing = [None] * 2
        arguments = [address, body["amount"], *nothing, False, True, None, "unset", False, label]
        return str(self.call("sendtoaddress", *arguments))

    def _replace(self, txid: str) -> str:
        """Spend the same coins to ourselves, at a higher fee."""
        inputs = self.call("decoderawtransaction", self.call("gettransaction", txid)["hex"])["vin"]
        sums: dict[str, Decimal] = {}
        for spent in inputs:
            before = self.call("unblindrawtransaction", self.call("gettransaction", spent["txid"])["hex"])
            coin = self.call("decoderawtransaction", before["hex"])["vout"][spent["vout"]]
            sums[coin["asset"]] = sums.get(coin["asset"], Decimal(0)) + Decimal(str(coin["value"]))
        sums[_LBTC] -= _REPLACEMENT_FEE
        outputs: list[dict[str, Any]] = [
            {str(self.call("getnewaddress")): f"{amount:.8f}", "asset": asset}
            for asset, amount in sums.items()
        ]
        outputs.append({"fee": f"{_REPLACEMENT_FEE:.8f}"})
        spends = [{"txid": spent["txid"], "vout": spent["vout"]} for spent in inputs]
        plain = self.call("createrawtransaction", spends, outputs, 0, True)
        signed = self.call("signrawtransactionwithwallet", self.call("blindrawtransaction", plain))
        return str(self.call("sendrawtransaction", signed["hex"], 0))

    def _reorg(self, depth: int, *, drop: bool) -> dict[str, Any]:
        height = self.call("getblockcount")
        stale = self.call("getblockhash", height - depth + 1)
        self.call("invalidateblock", stale)
        waiting = self.call("getrawmempool")
        if drop:
            for txid in waiting:
                self._replace(txid)
        address = self.call("getnewaddress")
        hashes = [self.call("generateblock", address, [])["hash"] for _ in range(depth + 1)]
        return {"blocks": hashes}

    def _outage(self, *, down: bool) -> dict[str, Any]:
        if down and not self._down:
            self.stop()
        if not down and self._down:
            self.start()
        self._down = down
        return {}
