"""Ways to damage a file: in its bytes, in the numbers among them, and in a tree of JSON values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["EXTREMES", "alter_bytes", "alter_tree", "alter_words", "random_bytes"]

EXTREMES = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 32767, 65535, 65536),
    *(
        2**31 - 1,
        2**31,
        -(2**31),
        2**32 - 1,
        2**32,
        2**40,
        2**60,
        2**62,
        2**63 - 1,
        2**63,
        -(2**63),
        2**64 - 1,
    ),
)
_INTEGERS = ("b", "<h", ">h", "<i", ">i", "<q", ">q")
_LONGEST = 1 << 16
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf")),
    *(2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 3.7, 4096, 1_000_000),
    *(
        "",
        "a",
        "0",
        "1",
        "nan",
        "float32",
        "float64",
        "relu",
        "softmax",
        "cross_entropy",
        "mse",
        "\0",
        "\ud800",
        "½",
    ),
    *("x" * 5000, [], {}, [[]], {"": None}, [1, "a"], [1.0, 2.0], ["a", "b"]),
)


def random_bytes(random: Random, most: int = 200) -> bytes:
    """Return up to so many random bytes."""
    return random.randbytes(random.randrange(most))


def alter_bytes(data: bytes, random: Random, others: Sequence[bytes] = (), most: int = 4) -> bytes:
    """Return the bytes with one to `most` alterations; some are spliced with `others`."""
    altered = bytearray(data)
    for _ in range(random.randint(1, most)):
        random.choice(_ALTERATIONS)(altered, random)
        if others and random.random() < 0.05:
            _splice(altered, random, random.choice(others))
    return bytes(altered[: max(4 * len(data), _LONGEST)])


def _place(data: bytearray, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _span(data: bytearray, random: Random) -> tuple[int, int]:
    start = _place(data, random)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 16, 64, 256, 1024)))


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _insert(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    data[start:start] = random_bytes(random, 20)


def _delete(data: bytearray, random: Random) -> None:
    start, stop = _span(data, random)
    del data[start:stop]


def _repeat(data: bytearray, random: Random) -> None:
    start, stop = _span(data, random)
    data[start:start] = data[start:stop] * random.choice((1, 1, 2, 30))


def _swap(data: bytearray, random: Random) -> None:
    first, middle, last = sorted(_place(data, random) for _ in range(3))
    data[first:last] = data[middle:last] + data[first:middle]


def _truncate(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _extend(data: bytearray, random: Random) -> None:
    data += random.choice((b"\0", b"\xff", b"\n", b"PK\x05\x06", b"PAR1")) * random.choice((1, 8, 300))


def _set_integer(data: bytearray, random: Random) -> None:
    code = random.choice(_INTEGERS)
    size = struct.calcsize(code)
    if len(data) < size:
        return
    # The numbers of a header are aligned more often than not.
    start = random.randrange(len(data) - size + 1)
    start -= start % size if random.random() < 0.5 else 0
    order: Any = "big" if code[0] == ">" else "little"
    data[start : start + size] = (random.choice(EXTREMES) % (1 << 8 * size)).to_bytes(size, order)


def _add_to_integer(data: bytearray, random: Random) -> None:
    if data:
        place = random.randrange(len(data))
        data[place] = (data[place] + random.choice((-16, -8, -4, -2, -1, 1, 2, 4, 8, 16))) % 256


def _set_varint(data: bytearray, random: Random) -> None:
    """Replace a variable-length integer, as Thrift writes it."""
    start = stop = _place(data, random)
    while stop < len(data) and data[stop] & 0x80:
        stop += 1
    value = random.choice(EXTREMES) % 2**64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    data[start : stop + 1] = encoded + bytes([value])


def _splice(data: bytearray, random: Random, other: bytes) -> None:
    start, stop = _span(data, random)
    begin, end = _span(bytearray(other), random)
    data[start:stop] = other[begin:end]


_ALTERATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    *(_flip, _flip, _set, _insert, _delete, _repeat, _swap, _truncate, _extend),
    *(_set_integer, _set_integer, _add_to_integer, _set_varint),
)


def alter_tree(tree: Any, random: Random, most: int = 3) -> Any:
    """Return a tree of JSON values (dicts, lists, plain values) in which some nodes are others."""
    for _ in range(random.randint(1, most)):
        tree = _altered_once(tree, random)
    return tree


def _altered_once(tree: Any, random: Random) -> Any:
    """Walk down to a random node, copying the path, and change it."""
    if random.random() < 0.06 or not isinstance(tree, dict | list) or not tree:
        return _other_value(tree, random)
    if isinstance(tree, list):
        items: list[Any] = list(tree)
        place = random.randrange(len(items))
        action = random.random()
        if action < 0.06:
            del items[place]
        elif action < 0.12:
            items.insert(place, items[random.randrange(len(items))])
        else:
            items[place] = _altered_once(items[place], random)
        return items
    fields = dict(tree)
    key = random.choice(sorted(fields))
    action = random.random()
    if action < 0.05:
        del fields[key]
    elif action < 0.08:
        fields[random.choice(("", "name", "kind", key + "s", "columns"))] = fields.pop(key)
    elif action < 0.11:
        fields[key] = fields[random.choice(sorted(fields))]
    else:
        fields[key] = _altered_once(fields[key], random)
    return fields


def _other_value(value: Any, random: Random) -> Any:
    action = random.random()
    if isinstance(value, int | float) and action < 0.4:
        return random.choice((value + 1, value - 1, -value, value * 2, *EXTREMES))
    if action < 0.45:
        return [value] * random.choice((1, 2) if isinstance(value, dict | list) else (1, 2, 100))
    if action < 0.5:
        nested: Any = value
        for _ in range(random.choice((1, 10, 100))):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    return random.choice(_ODD_VALUES)


def alter_words(text: str, random: Random, divider: str, words: Sequence[str], most: int = 4) -> str:
    """Return the text with parts between `divider`s replaced by odd words, left out, or put in twice."""
    parts = text.split(divider)
    for _ in range(random.randint(1, most)):
        place = random.randrange(len(parts))
        action = random.random()
        if action < 0.7:
            parts[place] = random.choice(words)
        elif action < 0.8:
            parts.insert(place, random.choice(parts))
        elif action < 0.9:
            other = random.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        elif len(parts) > 1:
            del parts[place]
    return divider.join(parts)
