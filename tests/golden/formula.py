"""The parameters of goldens that store none; formula.h computes the same ones."""
import math

import torch


def Weight(name, shape):
    """Number i is u = the upper 24 bits of splitmix64 at (FNV-1a of the name) + i, in [-1, 1), scaled by the kind of parameter."""
    mask = (1 << 64) - 1
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & mask
    n = math.prod(shape)
    values = []
    for i in range(n):
        z = (h + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        values.append(((z ^ z >> 31) >> 40) / 8388608.0 - 1)
    u = torch.tensor(values, dtype=torch.float64)
    if name.endswith("bias"):
        u = 0.15 * u
    elif len(shape) == 1:
        u = 1 + 0.3 * u
    else:
        u = u * math.sqrt(3.0 / math.prod(shape[1:]))
    return u.float().view(shape)
