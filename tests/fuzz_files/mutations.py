"""What can be wrong with a file. Pure: a seed always gives the same mutant."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from struct import pack

from tests.fuzz_files.bases import Base
from tests.fuzz_files.layout import Field, Layout, Tensor

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    257,
    1023,
    4096,
    2**15,
    2**16,
    2**20,
)
_LARGE = (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-45,
    1e-38,
    3e38,
    -3e38,
    1e-5,
    0.5,
    1e9,
    1e300,
)
_HALVES = (0x7C00, 0xFC00, 0x7E00, 0xFFFF, 0x7BFF, 0xFBFF, 0x0001, 0x0000, 0x8000)
_TYPES = (*range(45), 100, 2**31, 2**32 - 1)
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    8: (32, 34),
    24: (1, 1),
    26: (1, 4),
    28: (1, 8),
    30: (1, 2),
}
_TENSORS = (
    b"output.bias",
    b"output.weight",
    b"output_norm.weight",
    b"token_embd.bias",
    b"token_embd.weight",
    b"rope_freqs.weight",
    *(f"blk.0.attn_{part}.bias".encode() for part in ("q", "k", "v", "output", "norm")),
    *(f"blk.0.attn_{part}.weight".encode() for part in ("q", "k", "v", "output", "norm", "q_norm")),
    *(f"blk.0.ffn_{part}.bias".encode() for part in ("gate", "up", "down", "norm")),
    b"blk.1.attn_norm.weight",
    *(f"blk.0.attn_q.weight.theta_{part}".encode() for part in ("u", "v", "scale")),
)


@dataclass(frozen=True)
class Mutant:
    """A base with one file changed. `changes`: what was done, for a report."""

    seed: int
    base: Base
    files: dict[str, bytes]
    changes: tuple[str, ...]


def mutate(bases: Sequence[Base], seed: int) -> Mutant:
    """The mutant of a seed."""
    random = Random(seed)
    base = bases[seed % len(bases)]
    # Nearly always the first file: another one is refused by a checksum, or the business of another base.
    names = list(base.files)
    victim = names[0] if random.random() < 0.9 else random.choice(names)
    files = {name: layout.raw for name, layout in base.files.items()}
    layout = base.files[victim]
    kinds = random.choice((_RAW, _RAW, _WHOLE, _WEIGHTS))
    # What was put together again has its fields elsewhere: no change follows.
    count = 1 if kinds is _WHOLE else random.choice((1, 1, 1, 2, 3))
    changes = random.choices(kinds, k=count)
    raw = layout.raw
    for change in changes:
        raw = change(layout, raw, random)
    files[victim] = raw
    return Mutant(seed, base, files, (base.name, victim, *(change.__name__ for change in changes)))


Change = Callable[[Layout, bytes, Random], bytes]


def _put(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new[: max(0, len(raw) - at)] + raw[at + len(new) :]


def _of_kind(layout: Layout, random: Random, *kinds: str) -> Field:
    fields = [field for field in layout.fields if field.kind in kinds]
    # The vocabulary has most of the fields, and settings the most interesting ones.
    few = [field for field in fields if "[" not in field.name]
    return random.choice(few if few and random.random() < 0.85 else fields)


def a_number(layout: Layout, raw: bytes, random: Random) -> bytes:
    field = _of_kind(layout, random, "number")
    old = int.from_bytes(raw[field.at : field.at + field.size], "little")
    near = (old - 1, old + 1, 2 * old, old // 2, old ^ (1 << random.randrange(8 * field.size)))
    value = random.choice((*near, *near, *_NUMBERS, *_LARGE)) % (1 << 8 * field.size)
    return _put(raw, field.at, value.to_bytes(field.size, "little"))


def a_setting(layout: Layout, raw: bytes, random: Random) -> bytes:
    fields = [
        f for f in layout.fields if f.kind in ("number", "float") and f.name.startswith(("llama.", "nkat."))
    ]
    fields = [f for f in fields if not f.name.endswith((".length", ".type")) or f.kind == "float"] or fields
    field = random.choice(fields) if fields else _of_kind(layout, random, "number")
    if field.kind == "float":
        return _put(raw, field.at, _float(random.choice(_FLOATS), field.size))
    value = random.choice((*_NUMBERS, *_LARGE)) % (1 << 8 * field.size)
    return _put(raw, field.at, value.to_bytes(field.size, "little"))


def a_float(layout: Layout, raw: bytes, random: Random) -> bytes:
    if not any(field.kind == "float" for field in layout.fields):
        return a_number(layout, raw, random)
    field = _of_kind(layout, random, "float")
    return _put(raw, field.at, _float(random.choice(_FLOATS), field.size))


def a_type(layout: Layout, raw: bytes, random: Random) -> bytes:
    field = _of_kind(layout, random, "type")
    return _put(raw, field.at, random.choice(_TYPES).to_bytes(4, "little"))


def a_text(layout: Layout, raw: bytes, random: Random) -> bytes:
    field = _of_kind(layout, random, "text")
    new = bytearray(raw[field.at : field.at + field.size])
    if not new:  # an empty string, or one that a change before has cut off
        return raw
    for _ in range(random.choice((1, 1, 2, len(new)))):
        new[random.randrange(len(new))] = random.choice((0, 10, 27, 32, 127, 128, 255, random.randrange(256)))
    return _put(raw, field.at, bytes(new))


def two_texts(layout: Layout, raw: bytes, random: Random) -> bytes:
    fields = [field for field in layout.fields if field.kind == "text" and field.size]
    one = random.choice(fields)
    other = random.choice([field for field in fields if field.size == one.size])
    text, second = (raw[field.at : field.at + field.size] for field in (one, other))
    return _put(_put(raw, one.at, second), other.at, text)


def two_numbers(layout: Layout, raw: bytes, random: Random) -> bytes:
    fields = [field for field in layout.fields if field.name.endswith((".dim", ".offset", ".ggml"))]
    one = random.choice(fields)
    other = random.choice([field for field in fields if field.size == one.size])
    value, second = (raw[field.at : field.at + field.size] for field in (one, other))
    return _put(_put(raw, one.at, second), other.at, value)


def a_byte(layout: Layout, raw: bytes, random: Random) -> bytes:
    at = random.randrange(min(layout.header, len(raw)) or 1)
    return _put(raw, at, bytes([random.choice((0, 255, random.randrange(256)))]))


def a_cut(layout: Layout, raw: bytes, random: Random) -> bytes:
    at = random.choice((random.randrange(len(raw) + 1), random.choice(layout.fields).at, layout.header))
    return raw[:at] if random.random() < 0.7 else raw[: len(raw) - random.randrange(1, 200)]


def a_shift(layout: Layout, raw: bytes, random: Random) -> bytes:
    at = random.choice(layout.fields).at
    if random.random() < 0.5:
        return raw[:at] + random.randbytes(random.choice((1, 4, 8, 32))) + raw[at:]
    return raw[:at] + raw[at + random.choice((1, 4, 8, 32)) :]


def a_tensor_more(layout: Layout, raw: bytes, random: Random) -> bytes:
    content = layout.content
    name = random.choice(_TENSORS)
    known = {tensor.name for tensor in content.tensors}
    if name in known and random.random() < 0.9:
        name = random.choice([other for other in _TENSORS if other not in known])
    return replace(content, tensors=(*content.tensors, _tensor(name, random, content.tensors))).write()


def a_tensor_less(layout: Layout, raw: bytes, random: Random) -> bytes:
    return layout.content.with_tensor(random.randrange(len(layout.content.tensors)), None).write()


def a_tensor_of_another_shape(layout: Layout, raw: bytes, random: Random) -> bytes:
    number = random.randrange(len(layout.content.tensors))
    old = layout.content.tensors[number]
    return layout.content.with_tensor(number, _tensor(old.name, random, layout.content.tensors)).write()


def a_tensor_of_another_type(layout: Layout, raw: bytes, random: Random) -> bytes:
    number = random.randrange(len(layout.content.tensors))
    old = layout.content.tensors[number]
    kind = random.choice(list(_BLOCKS))
    new = Tensor(old.name, old.dims, kind, _random_data(old.dims, kind, random))
    return layout.content.with_tensor(number, new).write()


def an_entry_less(layout: Layout, raw: bytes, random: Random) -> bytes:
    entries = dict(layout.content.entries)
    del entries[random.choice(list(entries))]
    return replace(layout.content, entries=entries).write()


def other_order(layout: Layout, raw: bytes, random: Random) -> bytes:
    tensors = list(layout.content.tensors)
    random.shuffle(tensors)
    entries = list(layout.content.entries.items())
    random.shuffle(entries)
    return replace(layout.content, tensors=tuple(tensors), entries=dict(entries)).write()


def some_weights(layout: Layout, raw: bytes, random: Random) -> bytes:
    place = random.choice(list(layout.data.values()))
    size = min(place.stop, len(raw)) - place.start
    if size < 4:
        return raw
    for _ in range(random.choice((1, 1, 4, 64))):
        at = place.start + random.randrange(size // 4) * 4
        new = random.choice((_float(random.choice(_FLOATS), 4), pack("<2H", *random.choices(_HALVES, k=2))))
        raw = _put(raw, at, new)
    return raw


def the_first_scale(layout: Layout, raw: bytes, random: Random) -> bytes:
    place = random.choice(list(layout.data.values()))
    block = random.choice((2, 4, 18, 20, 34, 84, 110, 144, 176, 210))
    at = place.start + block * random.randrange(max(1, (place.stop - place.start) // block))
    return _put(raw, min(at, len(raw)), pack("<H", random.choice(_HALVES)))


def all_weights(layout: Layout, raw: bytes, random: Random) -> bytes:
    place = random.choice(list(layout.data.values()))
    size = place.stop - place.start
    fill = random.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\x7b", b"\x3f", None))
    return _put(raw, place.start, random.randbytes(size) if fill is None else fill * size)


_RAW: tuple[Change, ...] = (
    a_number,
    a_number,
    a_setting,
    a_setting,
    a_float,
    a_type,
    a_text,
    two_texts,
    two_numbers,
    a_byte,
    a_cut,
    a_shift,
)
_WHOLE: tuple[Change, ...] = (
    a_tensor_more,
    a_tensor_more,
    a_tensor_less,
    a_tensor_of_another_shape,
    a_tensor_of_another_shape,
    a_tensor_of_another_type,
    an_entry_less,
    other_order,
)
_WEIGHTS: tuple[Change, ...] = (some_weights, the_first_scale, all_weights)


def _float(value: float, size: int) -> bytes:
    if size == 8:
        return pack("<d", value)
    return pack("<f", value if not math.isfinite(value) or abs(value) < 3.4e38 else math.inf)


def _tensor(name: bytes, random: Random, others: Sequence[Tensor]) -> Tensor:
    """A tensor of a shape that some other has, or nearly, or of any."""
    dims = list(random.choice(others).dims)
    match random.randrange(5):
        case 0:
            dims = [1]
        case 1:
            dims = dims[:1]
        case 2:
            dims.reverse()
        case 3:
            dims[random.randrange(len(dims))] += random.choice((-32, -1, 1, 32))
    dims = [max(1, dim) for dim in dims]
    kind = random.choice([kind for kind, (block, _) in _BLOCKS.items() if dims[0] % block == 0])
    return Tensor(name, tuple(dims), kind, _random_data(tuple(dims), kind, random))


def _random_data(dims: tuple[int, ...], kind: int, random: Random) -> bytes:
    block, size = _BLOCKS[kind]
    count = math.prod(dims) // block
    if kind == 0:
        return b"".join(pack("<f", random.uniform(-1, 1)) for _ in range(min(count, 64))) * -(-count // 64)
    return random.randbytes(count * size)
