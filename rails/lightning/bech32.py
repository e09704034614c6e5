"""Bech32 as LNURL uses it (LUD-01): any length, and bytes inside."""

from __future__ import annotations

from collections.abc import Iterable

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6
LENGTH_MAX = 2_000


def encode(prefix: str, data: bytes) -> str:
    """In lower case."""
    values = list(_regrouped(data, 8, 5, padded=True))
    bare = _expanded(prefix) + values
    rest = _polymod(bare + [0] * _CHECKSUM) ^ 1
    values += [rest >> 5 * (_CHECKSUM - 1 - index) & 31 for index in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_LETTERS[value] for value in values)}"


def decode(text: str, prefix: str) -> bytes:
    """The bytes of a text with this prefix. Raises `ValueError` if it is not one."""
    if text not in (text.lower(), text.upper()) or len(text) > LENGTH_MAX:
        raise ValueError("mixed case, or too long")
    found, separator, rest = text.lower().rpartition("1")
    if not separator or found != prefix or len(rest) < _CHECKSUM:
        raise ValueError("another prefix, or too short")
    values = [_LETTERS.index(letter) for letter in rest]
    if _polymod(_expanded(prefix) + values) != 1:
        raise ValueError("the checksum is wrong")
    return bytes(_regrouped(values[:-_CHECKSUM], 5, 8, padded=False))


def _expanded(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _polymod(values: Iterable[int]) -> int:
    rest = 1
    for value in values:
        top = rest >> 25
        rest = (rest & 0x1FFFFFF) << 5 ^ value
        for index, generator in enumerate(_GENERATORS):
            rest ^= generator if top >> index & 1 else 0
    return rest


def _regrouped(values: Iterable[int], from_bits: int, to_bits: int, *, padded: bool) -> Iterable[int]:
    kept, bits = 0, 0
    for value in values:
        kept, bits = kept << from_bits | value, bits + from_bits
        while bits >= to_bits:
            bits -= to_bits
            yield kept >> bits & ((1 << to_bits) - 1)
        kept &= (1 << bits) - 1
    if padded and bits:
        yield kept << (to_bits - bits) & ((1 << to_bits) - 1)
    elif not padded and (bits >= from_bits or kept):
        raise ValueError("bits are left over")
