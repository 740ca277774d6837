"""Slow references of the hash families, in plain Python and numpy."""

import numpy as np
from scipy.linalg import hadamard

MASK = 2**32 - 1
GOLDEN = 0x9E3779B9


def mix(h):
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & MASK
    h = ((h ^ (h >> 15)) * 0x846CA68B) & MASK
    return h ^ (h >> 16)


def hashed(x, seed):
    first, second = map(int, seed)
    return mix((mix((x & MASK) ^ first) + second) & MASK)


def joined(hashes, num_bits):
    h = 0
    for x in hashes:
        h = mix(((h ^ x) + GOLDEN) & MASK)
    return h >> (32 - num_bits)


def borrowed(values, seed):
    """None marks an empty bin: 32 bins asked, then the first with a value."""
    out, n, seed = list(values), len(values), np.asarray(seed)
    for i in (i for i in range(n) if values[i] is None):
        asked = [hashed(i + attempt * n, seed) % n for attempt in range(32)]
        order = [*asked, *range(n)]
        out[i] = next((values[j] for j in order if values[j] is not None), None)
    return out


def dwta_row(family, x):
    """The codes of a dense row, from who sits where."""
    members, size = np.asarray(family.members), family.bin_size
    copies = members.shape[1] // size
    winners = []
    for bin_members in members:
        best, winner = -np.inf, None
        for slot, coordinate in enumerate(bin_members):
            if coordinate < len(x) and x[coordinate] != 0 and x[coordinate] > best:
                best, winner = x[coordinate], slot // copies
        winners.append(winner)
    digits = [w or 0 for w in borrowed(winners, family.bin_seed)]
    k = family.num_hashes
    tables = [digits[i : i + k] for i in range(0, len(digits), k)]
    return [sum(w * size**j for j, w in enumerate(table)) for table in tables]


def minhash_row(family, x):
    n = family.num_tables * family.num_hashes
    least, seed = [None] * n, np.asarray(family.coordinate_seed)
    for i in np.flatnonzero(x):
        h = hashed(int(i), seed)
        if least[h % n] is None or h < least[h % n]:
            least[h % n] = h
    if not np.any(x):
        return [0] * family.num_tables
    least, k = borrowed(least, family.bin_seed), family.num_hashes
    return [joined(least[i : i + k], family.num_bits) for i in range(0, n, k)]


def packed(bits):
    return (bits * 2 ** np.arange(bits.shape[-1])).sum(-1)


def margins(family, x):
    """Projections of dense rows, ``f32[b, l, k]``."""
    if hasattr(family, "directions"):
        y = x @ np.asarray(family.directions, np.float32)
        return y.reshape(len(x), family.num_tables, -1)
    n = family.signs.shape[-1]
    y = np.pad(np.asarray(x, np.float64), ((0, 0), (0, n - x.shape[1])))[:, None]
    for signs in np.moveaxis(np.asarray(family.signs, np.float64), 1, 0):
        y = (y * signs) @ hadamard(n)
    y = y.reshape(len(x), -1)[:, : family.num_tables * family.num_bits]
    return y.reshape(len(x), family.num_tables, -1).astype(np.float32) / n


def by_probability(margins):
    """Masks of all sets of flips, in rising order of their exact total."""
    k = len(margins)
    sets = (np.arange(2**k)[:, None] >> np.arange(k)) & 1
    totals = sets @ np.abs(margins.astype(np.float64))
    return np.argsort(totals, kind="stable"), np.sort(totals)
