"""Types of the compiled module (ffi/module.cc)."""

import numpy as np
from numpy.typing import NDArray

_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]
_U64 = NDArray[np.uint64]
_F32 = NDArray[np.float32]

cpu_level: str
api_version: tuple[int, int]

def registrations() -> dict[str, object]: ...
def use_huge_pages(begin: int, num_bytes: int, page: int) -> int: ...
def hash_char_ngrams(
    text: bytes, offsets: _I64, min_n: int, max_n: int, num_features: int, seed: int
) -> tuple[_I64, _I32, _F32]: ...
def hash_words(
    text: bytes, offsets: _I64, max_n: int, num_features: int, seed: int
) -> tuple[_I64, _I32, _F32]: ...
def hash_strings(text: bytes, offsets: _I64) -> _U64: ...
def parse_xc(
    chunk: bytes, num_features: int, num_labels: int, first_line: int
) -> tuple[_I64, _I32, _I64, _I32, _F32, list[tuple[int, str]]]: ...
