"""A source's answer is believed only if it is whole."""

from __future__ import annotations

import pytest

from rails.contract import RailProtocolError
from rails.liquid.integrity import whole_block

TXIDS = [
    "8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
    "fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
    "6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
    "e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
]
"""Bitcoin's block 100,000: Elements has kept its merkle tree."""
ROOT = "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766"
ROOT_OF_THREE = "fa435470825de273081dcc706b25514c936fa6dc80ab965ce6970d68ddd0b553"


def test_the_ids_of_a_whole_block_are_taken():
    assert whole_block(TXIDS, ROOT) == TXIDS
    assert whole_block(TXIDS[:1], TXIDS[0]) == TXIDS[:1]


@pytest.mark.parametrize(
    "txids",
    [TXIDS[:3], TXIDS[1:], [*TXIDS, TXIDS[0]], TXIDS[::-1], [], ["ab"], ["not hexadecimal"], [7]],
    ids=["cut", "without the first", "one more", "another order", "none", "short", "text", "number"],
)
def test_a_list_that_does_not_fit_its_root_is_refused(txids: list[str]):
    with pytest.raises(RailProtocolError):
        whole_block(txids, ROOT)


def test_an_id_that_stands_twice_is_refused_though_the_root_is_the_same():
    assert whole_block(TXIDS[:3], ROOT_OF_THREE) == TXIDS[:3]
    with pytest.raises(RailProtocolError):
        whole_block([*TXIDS[:3], TXIDS[2]], ROOT_OF_THREE)
