# SPDX-License-Identifier: Apache-2.0
"""Mutated messages: by bytes, by structure, and by the encoding of the same structure.

``mutants`` yields messages that differ from the one given; it knows a pool of others to
splice with.  Every kind of change has a name, so that a test can count them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from secure_fl import wire
from secure_fl.masking import messages

from ..consortium import Consortium, make_session
from ..vectors.reference import cbor

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
WHO = 1
ODD: list[wire.Value] = [
    -1, 0, 1, 2, 3, 23, 24, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1,
    -(2**63), b"", b"\0", bytes(31), bytes(32), bytes(33), b"\xff" * 32, bytes(64),
    bytes(112), "", "text", "\u00fc", [], [[]], [0], [0, 0], {}, {0: 1}, [[0, b""]],
    [bytes(32)] * 3,
]  # fmt: skip


# -- by bytes --------------------------------------------------------------------


def flip(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def truncate(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    return data[: draw.randrange(len(data))]


def delete(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.choice([1, 1, 2, 32, 33]) :]


def insert(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.randrange(1, 9)) + data[at:]


def overwrite(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data))
    size = draw.randrange(1, 40)
    return data[:at] + draw.randbytes(min(size, len(data) - at)) + data[at + size :]


def repeat(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    return data + data[draw.randrange(len(data)) :]


def splice(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """The beginning of one message and the end of another, of any kind or context."""
    other = draw.choice(pool)
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def whole(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """Another message as it is: another kind, sender, reader or context."""
    return draw.choice(pool)


# -- by structure ----------------------------------------------------------------


def _nodes(value: wire.Value, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nodes(item, (*at, key))
    elif isinstance(value, list):
        for key, item in enumerate(value):
            yield from _nodes(item, (*at, key))


def _get(value: wire.Value, at: Sequence[int]) -> wire.Value:
    for key in at:
        assert isinstance(value, dict | list)
        value = value[key]
    return value


def _put(value: wire.Value, at: Sequence[int], new: wire.Value) -> wire.Value:
    if not at:
        return new
    assert isinstance(value, dict | list)
    inner = _put(value[at[0]], at[1:], new)
    if isinstance(value, dict):
        return {**value, at[0]: inner}
    return [*value[: at[0]], inner, *value[at[0] + 1 :]]


def _spot(tree: wire.Value, draw: random.Random) -> tuple[int, ...]:
    # Below the root, and mostly not the kind or the context: those are soon refused.
    spots = [at for at in _nodes(tree) if at]
    inner = [at for at in spots if at[0] > 1]
    return draw.choice(inner if draw.random() < 0.9 else spots)


def retype(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    tree = wire.decode(data)
    return wire.encode(_put(tree, _spot(tree, draw), draw.choice(ODD)))


def remove(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    tree = wire.decode(data)
    *parent, key = _spot(tree, draw)
    holder = _get(tree, parent)
    if isinstance(holder, dict):
        less: wire.Value = {k: v for k, v in holder.items() if k != key}
    else:
        assert isinstance(holder, list)
        less = holder[:key] + holder[key + 1 :]
    return wire.encode(_put(tree, parent, less))


def add(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    tree = wire.decode(data)
    spots = [at for at in _nodes(tree) if isinstance(_get(tree, at), dict | list)]
    at = draw.choice(spots)
    holder = _get(tree, at)
    if isinstance(holder, dict):
        return wire.encode(
            _put(tree, at, {**holder, draw.randrange(24): draw.choice(ODD)})
        )
    assert isinstance(holder, list)
    item = draw.choice([*holder, draw.choice(ODD)])
    where = draw.randrange(len(holder) + 1)
    return wire.encode(_put(tree, at, [*holder[:where], item, *holder[where:]]))


def reorder(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    tree = wire.decode(data)
    spots = [at for at in _nodes(tree) if isinstance(_get(tree, at), list)]
    if not spots:
        return flip(data, draw, pool)
    at = draw.choice(spots)
    items = _get(tree, at)
    assert isinstance(items, list)
    return wire.encode(_put(tree, at, draw.sample(items, len(items))))


def transplant(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """A part of another message, or of another place in this one."""
    tree, other = wire.decode(data), wire.decode(draw.choice([data, *pool]))
    part = _get(other, draw.choice(list(_nodes(other))))
    try:
        return wire.encode(_put(tree, _spot(tree, draw), part))
    except ValueError:  # nested too deep by now
        return flip(data, draw, pool)


def renumber(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """Client numbers, indices and kinds: another one, or two exchanged."""
    tree = wire.decode(data)
    spots = [at for at in _nodes(tree) if isinstance(_get(tree, at), int) and at[0]]
    if not spots:
        return flip(data, draw, pool)
    at, to = draw.choice(spots), draw.choice(spots)
    if draw.random() < 0.5:
        return wire.encode(_put(tree, at, draw.choice([0, 1, 2, 3, 4, 5, 2**32])))
    one, two = _get(tree, at), _get(tree, to)
    return wire.encode(_put(_put(tree, at, two), to, one))


# -- by encoding: the same tree in another form ----------------------------------


def _long_head(major: int, argument: int, draw: random.Random) -> bytes:
    code, size = draw.choice([(24, 1), (25, 2), (26, 4), (27, 8)])
    if argument >= 1 << 8 * size:
        code, size = 27, 8
    return bytes([major << 5 | code]) + argument.to_bytes(size, "big")


def _head_of(value: wire.Value) -> tuple[int, int]:
    if isinstance(value, int):
        return (0, value) if value >= 0 else (1, -1 - value)
    major = {bytes: 2, str: 3, list: 4, dict: 5}[type(value)]
    return major, len(value.encode() if isinstance(value, str) else value)


def _body(value: wire.Value, inner: Callable[[wire.Value], bytes]) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return b"".join(inner(item) for item in value)
    if isinstance(value, dict):
        pairs = ((cbor(k), inner(value[k])) for k in sorted(value))
        return b"".join(k + v for k, v in pairs)
    return b""


def _form(
    tree: wire.Value,
    spot: Sequence[int],
    change: Callable[[wire.Value], bytes],
) -> bytes:
    """``tree`` in its form, but for the node at ``spot``, which ``change`` writes."""
    if not spot:
        return change(tree)
    assert isinstance(tree, dict | list)
    major, argument = _head_of(tree)
    head = cbor(argument)
    out = bytes([head[0] | major << 5]) + head[1:]
    items = sorted(tree) if isinstance(tree, dict) else range(len(tree))
    for key in items:
        if isinstance(tree, dict):
            out += cbor(key)
        child = tree[key]
        out += _form(child, spot[1:], change) if key == spot[0] else cbor(child)
    return out


def longer(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """A head that is not the shortest."""

    def change(value: wire.Value) -> bytes:
        return _long_head(*_head_of(value), draw) + _body(value, cbor)

    tree = wire.decode(data)
    return _form(tree, draw.choice(list(_nodes(tree))), change)


def huge(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """A length of what is not there, up to 2^64 - 1 bytes or items."""

    def change(value: wire.Value) -> bytes:
        size = draw.choice([2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
        major = draw.choice([2, 3, 4, 5])
        return bytes([major << 5 | 27]) + size.to_bytes(8, "big") + _body(value, cbor)

    tree = wire.decode(data)
    return _form(tree, draw.choice(list(_nodes(tree))), change)


def tagged(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """Tags, floats, simple values and indefinite forms in place of, or around, one."""

    def change(value: wire.Value) -> bytes:
        inside = cbor(value)
        forms = [
            bytes([0xC0 | draw.randrange(24)]) + inside,
            b"\xd8" + draw.randbytes(1) + inside,
            b"\xd9\x01\x00" + inside,  # string references
            b"\xd8\x1c" + inside,  # shared values, and one that shares
            b"\xd8\x1d\x00",
            b"\xf9\x3c\x00",
            b"\xfb" + draw.randbytes(8),
            bytes([0xE0 | draw.randrange(32)]),
            b"\x5f" + inside + b"\xff",
            b"\x9f" + inside + b"\xff",
            b"\xbf\x00" + inside + b"\xff",
        ]
        return draw.choice(forms)

    tree = wire.decode(data)
    return _form(tree, draw.choice(list(_nodes(tree))), change)


def doubled(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """A key twice in the outer map, or two keys out of order."""
    tree = wire.decode(data)
    assert isinstance(tree, dict)
    keys = sorted(tree)
    if draw.random() < 0.5:
        keys.insert(draw.randrange(len(keys)), draw.choice(keys))
    else:
        keys = draw.sample(keys, len(keys))
    head = bytes([5 << 5 | len(keys)])
    return head + b"".join(cbor(k) + cbor(tree[k]) for k in keys)


def nested(data: bytes, draw: random.Random, pool: Sequence[bytes]) -> bytes:
    """Nested up to a hundred thousand deep, in arrays or in maps."""
    depth = draw.choice([7, 8, 9, 10, 100, 1000, 100_000])

    def change(value: wire.Value) -> bytes:
        return draw.choice([b"\x81", b"\xa1\x00"]) * depth + cbor(value)

    tree = wire.decode(data)
    return _form(tree, draw.choice(list(_nodes(tree))), change)


MUTATIONS: dict[str, Mutation] = {
    f.__name__: f
    for f in (
        flip, truncate, delete, insert, overwrite, repeat, splice, whole,
        retype, remove, add, reorder, transplant, renumber,
        longer, huge, tagged, doubled, nested,
    )
}  # fmt: skip
# Deep ones are long: a few are enough.
_WEIGHTS = [1 if name == "nested" else 20 for name in MUTATIONS]


def mutants(
    data: bytes, pool: Sequence[bytes], count: int, seed: int
) -> Iterator[tuple[str, bytes]]:
    """``count`` messages that are not ``data``, each with the name of its change."""
    draw = random.Random(seed)
    names = list(MUTATIONS)
    while count:
        (name,) = draw.choices(names, _WEIGHTS)
        out = MUTATIONS[name](data, draw, pool)
        if out != data:
            count -= 1
            yield name, out


def recorded(n: int = 4) -> tuple[Consortium, dict[int, bytes], list[bytes]]:
    """One good message of each kind of client WHO, and a pool of other ones.

    The pool holds what others said in this context, and all of another context.  Not
    what WHO said in this one: sent by it, that would be no mutant.
    """
    rounds = [Consortium(make_session(n, attempt=k)) for k in (0, 1)]
    pool: list[bytes] = []
    good: dict[int, bytes] = {}
    for c in rounds:
        c.opened()
        for step in range(1, 6):
            pool += c.told[step].values()
            for who, said in c.said[step].items():
                if c is not rounds[0] or who != WHO:
                    pool += said
            if c is rounds[0]:
                for raw in (*c.said[step][WHO], c.told[step].get(WHO, b"")):
                    if raw:
                        good.setdefault(messages.kind_of(raw), raw)
    return rounds[0], good, pool
