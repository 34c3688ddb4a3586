"""A random direction at every site of a steering vector, as long as the vector there: the control that a vector must beat.

    python scripts/random_direction.py good.safetensors random.safetensors [SEED]

Copies the file's header (sites, residual norms) and draws each tensor anew from a Gaussian. Standard library only.
"""
import json
import math
import random
import struct
import sys

source, out = sys.argv[1:3]
generator = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
data = open(source, "rb").read()
start = 8 + struct.unpack("<Q", data[:8])[0]
drawn = bytearray(data)
for name, tensor in json.loads(data[8:start]).items():
    if name == "__metadata__":
        continue
    if tensor["dtype"] != "F32":
        sys.exit(f"{source}, tensor {name}: found {tensor['dtype']}, expected F32")
    begin, end = (start + offset for offset in tensor["data_offsets"])
    vector = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    noise = [generator.gauss(0, 1) for _ in vector]
    scale = math.hypot(*vector) / math.hypot(*noise)
    drawn[begin:end] = struct.pack(f"<{len(noise)}f", *(scale * number for number in noise))
open(out, "wb").write(drawn)
