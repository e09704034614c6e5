"""Whether the confidential amounts of a transaction balance, checked without knowing them.

A value commitment is `value*H + blinder*G`, where H is the (blinded) generator of the asset.
Inputs minus outputs must be the point at infinity. wallycore makes commitments but cannot
add them, so that the little arithmetic on secp256k1 stands here. Not constant-time: it
handles public data only.
"""

from __future__ import annotations

from typing import Final

_P: Final = 2**256 - 2**32 - 977

Point = tuple[int, int] | None
"""An affine point; None is the point at infinity."""


def lift(commitment: bytes) -> Point:
    """A 33-byte value commitment (08/09) or asset generator (0a/0b) as a point."""
    if len(commitment) != 33 or commitment[0] not in (0x08, 0x09, 0x0A, 0x0B):
        raise ValueError("not a commitment")
    x = int.from_bytes(commitment[1:], "big")
    square = (pow(x, 3, _P) + 7) % _P
    y = pow(square, (_P + 1) // 4, _P)
    if x >= _P or y * y % _P != square:
        raise ValueError("not on the curve")
    return (x, _P - y) if commitment[0] & 1 else (x, y)


def negate(point: Point) -> Point:
    """The additive inverse."""
    return None if point is None else (point[0], _P - point[1])


def add(a: Point, b: Point) -> Point:
    """The sum of two points."""
    if a is None:
        return b
    if b is None:
        return a
    if a[0] == b[0]:
        if (a[1] + b[1]) % _P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, _P) % _P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P) % _P
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def multiply(point: Point, factor: int) -> Point:
    """`factor` times a point, by doubling and adding."""
    result: Point = None
    while factor:
        if factor & 1:
            result = add(result, point)
        point, factor = add(point, point), factor >> 1
    return result
