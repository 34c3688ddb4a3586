#!/usr/bin/env python3
"""A GGUF file with its Q4_0, Q4_1, Q8_0, F16 and F32 tensors written as F32: the numbers that the blocks stand for. Needs numpy.

    python scripts/dequantise.py MODEL.Q4_1.gguf MODEL.F32.gguf

Metadata, tokenizer and tensor names are copied byte by byte. It checks `pearl probe check` on two precisions of one model.
"""
import struct, sys
import numpy as np

FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
source, out = sys.argv[1:3]
raw = np.memmap(source, dtype=np.uint8, mode="r")
at = 0


def take(format):
    global at
    value = struct.unpack_from("<" + format, raw, at)
    at += struct.calcsize("<" + format)
    return value if len(value) > 1 else value[0]


def text():
    global at
    length = take("Q")
    at += length
    return bytes(raw[at - length : at])


def skip(kind):
    global at
    if kind == 8:
        text()
    elif kind == 9:
        inner, count = take("I"), take("Q")
        if inner in FIXED:
            at += FIXED[inner] * count
        else:
            for _ in range(count):
                skip(inner)
    else:
        at += FIXED[kind]


def blocks(data, size, step):
    return data[: size // step[0] * step[1]].reshape(-1, step[1])


def numbers(kind, data, count):
    """The tensor's numbers, f32."""
    if kind == 0:
        return data[: 4 * count].view(np.float32)
    if kind == 1:
        return data[: 2 * count].view(np.float16).astype(np.float32)
    if kind in (2, 3):
        rows = blocks(data, count, (32, 18 if kind == 2 else 20))
        scale = rows[:, :2].copy().view(np.float16).astype(np.float32)
        packed = rows[:, 2:] if kind == 2 else rows[:, 4:]
        low = rows[:, 2:4].copy().view(np.float16).astype(np.float32) if kind == 3 else -8 * scale
        nibbles = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
        return (scale * nibbles + low).reshape(-1)
    if kind == 8:
        rows = blocks(data, count, (32, 34))
        scale = rows[:, :2].copy().view(np.float16).astype(np.float32)
        return (scale * rows[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
    sys.exit(f"{source}: found a tensor of type {kind}, expected F32, F16, Q4_0, Q4_1 or Q8_0")


magic, version = bytes(raw[:4]), struct.unpack_from("<I", raw, 4)[0]
if magic != b"GGUF" or version not in (2, 3):
    sys.exit(f"{source}: found {magic!r} version {version}, expected GGUF version 2 or 3")
at = 8
tensors, pairs = take("QQ")
alignment = 32
for _ in range(pairs):
    key, kind = text(), take("I")
    if key == b"general.alignment":
        alignment = struct.unpack_from("<I", raw, at)[0]
    skip(kind)
head = bytes(raw[:at])
infos = []
for _ in range(tensors):
    name, rank = text(), take("I")
    shape = [take("Q") for _ in range(rank)]
    kind, offset = take("I"), take("Q")
    infos.append((name, shape, kind, offset))
begin = -(-at // alignment) * alignment
pad = lambda size: -size % alignment
with open(out, "wb") as file:
    file.write(head)
    offset = 0
    for name, shape, _, _ in infos:
        file.write(struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        file.write(struct.pack("<IQ", 0, offset))
        size = 4 * int(np.prod(shape))
        offset += size + pad(size)
    file.write(bytes(pad(file.tell())))
    for _, shape, kind, offset in infos:
        count = int(np.prod(shape))
        values = numbers(kind, raw[begin + offset :], count)
        assert values.size == count
        file.write(values.astype("<f4").tobytes() + bytes(pad(4 * count)))
