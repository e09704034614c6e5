"""What happens to a payment that has arrived is read top-down: `pytest -s` prints the way through the files."""

from __future__ import annotations

from tests.house.walks import walking
from tests.rails.core.platform import make_platform


async def test_a_payment_is_read_from_top_to_bottom() -> None:
    platform = make_platform()
    account_id = platform.ids.account()
    topup = await platform.payments.open_topup(
        account_id, "fake", wanted=500, key="k", return_url="https://x"
    )
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    with walking("rails") as walk:
        await platform.payments.observe(topup.payment_id)
        payment = str(walk)
    assert await platform.posted(account_id) == 500
    assert len(walk.stays) <= 21, payment
    print(f"\npayment: {payment}")
