"""Kernel regression in fixed memory: a sketch that learns while it is asked.

A sketch of a function of rows, such as each example's loss, is a table of counts and
sums that hash functions point into. What it says of a row is an average over examples
near it, in time and memory that do not depend on how many there were::

    family = lsh.simhash(key, dim, num_tables=32, num_bits=8)  # the kernel
    sketch = nw_init(family, num_slices=num_classes)
    sketch = nw_update(sketch, x, losses, labels)  # in place, if donated
    estimate = nw_query(sketch, x, labels)  # mean, stderr, count, density
    sketch = nw_decay(sketch, 0.995)  # forgets, without touching a cell

Sketches are sums: `nw_merge` and `nw_psum` of the sketches of parts are the sketch of
the whole. `nw_rotate` slides a window; `exact_nw` is what a sketch approximates, and
`standardizer` prepares rows whose angles or distances are to mean something.

A sketch is a pytree of arrays, for ``jit``, ``scan``, ``vmap``, ``shard_map`` and
checkpoints. It has no gradients.
"""

from fsparse.sketch._combine import nw_decay, nw_merge, nw_psum, nw_rotate
from fsparse.sketch._exact import exact_nw
from fsparse.sketch._query import Estimate, nw_query
from fsparse.sketch._standardizer import Standardizer, standardizer
from fsparse.sketch._state import NWSketch, nw_init, nw_num_bytes
from fsparse.sketch._update import nw_update

__all__ = [
    "Estimate",
    "NWSketch",
    "Standardizer",
    "exact_nw",
    "nw_decay",
    "nw_init",
    "nw_merge",
    "nw_num_bytes",
    "nw_psum",
    "nw_query",
    "nw_rotate",
    "nw_update",
    "standardizer",
]
