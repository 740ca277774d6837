"""Values to numbers of 64 bits, and those to feature ids: the hash of ffi/text.h."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fsparse import _ffi
from fsparse.data.features import join_texts
from fsparse.data.rows import I32

U64 = NDArray[np.uint64]

_M1, _M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SHIFT, _HALF = np.uint64(33), np.uint64(32)


def hash_strings(texts: Sequence[str]) -> U64:
    """``u64[m]``: one number for each string as a whole."""
    return _ffi.hash_strings(*join_texts("hash_strings", texts))


@cache
def seed_of(*names: str) -> int:
    """A seed of a column, or of a part of it."""
    return int(hash_strings(["\x1f".join(names)])[0])


def mix(hashes: U64) -> U64:
    """Murmur3's finaliser, ``fmix64``."""
    hashes = (hashes ^ (hashes >> _SHIFT)) * _M1
    hashes = (hashes ^ (hashes >> _SHIFT)) * _M2
    return hashes ^ (hashes >> _SHIFT)


def combine(first: U64, second: U64) -> U64:
    """One number for an ordered pair of numbers."""
    return mix(first * _GOLDEN + second)


def feature_ids(hashes: U64, seed: int, num_features: int) -> I32:
    """``i32[m]``: ``(fmix64(hash ^ seed) >> 32) * num_features >> 32``."""
    high = mix(hashes ^ np.uint64(seed)) >> _HALF
    return ((high * np.uint64(num_features)) >> _HALF).astype(np.int32)


@cache
def feature_id(seed: int, num_features: int) -> int:
    """The one feature of a seed."""
    return int(feature_ids(np.zeros(1, np.uint64), seed, num_features)[0])
