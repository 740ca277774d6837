"""Locality sensitive hashing: rows that are alike get equal codes, in many tables.

A hash family is an immutable pytree of its random choices, made from a key; its codes
are a pure function of it and of rows, dense ones or :class:`SparseRows`::

    family = lsh.simhash(jax.random.key(0), dim=128, num_tables=64, num_bits=10)
    codes = lsh.codes(family, x)  # i32[b, 64], each in [0, family.num_buckets)

==========  ===============================  ===========================================
family      likeness of two rows             chance that one hash of them agrees
==========  ===============================  ===========================================
`simhash`   angle                            ``1 - angle / pi``
`dwta`      order of the largest entries     that of the winner among ``bin_size`` ones
`minhash`   Jaccard, of sets of coordinates  ``|A & B| / |A | B|``
`l2`        Euclidean distance               falls with ``distance / width``
==========  ===============================  ===========================================

A table's code joins ``num_bits`` or ``num_hashes`` hashes, so that chance is taken to
that power. Every family has the static attributes ``dim``, ``num_tables`` and
``num_buckets``, at most 32,768.

An index keeps the rows of a table in the buckets of such a family. A query finds the
rows that most tables agree upon, for training and for inference::

    index = lsh.build(lsh.default_family(key, *table.shape), table)
    ids = lsh.query(index, x, size=1000).ids  # i32[b, 1000], most votes first
    scores, best = lsh.top_k(index, x, table, k=10, size=1000)  # scored exactly
    index = lsh.refresh(index, table, moved_ids)  # after rows have changed
    negatives = lsh.sampler(index)  # for fsparse.sample_active_set

`tune` measures which index to build, and `diagnose` how well one serves.

In all families a coordinate that is absent and one that is 0 are the same, so dense
rows and their sparse form have the same codes; those of `dwta` and `minhash` to the
bit, those of `simhash` and `l2` up to the rounding of a projection. A row with NaN or
infinity has the codes of the row of zeros.
"""

from fsparse.lsh._codes import Family, codes, probes
from fsparse.lsh._collision import collision_probability
from fsparse.lsh._default import default_family
from fsparse.lsh._diagnostics import Diagnostics, diagnose
from fsparse.lsh._dwta import dwta
from fsparse.lsh._index import (
    Candidates,
    Index,
    build,
    insert,
    num_bytes,
    query,
    refresh,
    remove,
)
from fsparse.lsh._inputs import SparseRows
from fsparse.lsh._l2 import l2
from fsparse.lsh._minhash import minhash
from fsparse.lsh._mips import Mips, mips, mips_queries, mips_rows
from fsparse.lsh._plot import plot_diagnostics
from fsparse.lsh._sampler import sampler
from fsparse.lsh._search import top_k
from fsparse.lsh._simhash import simhash
from fsparse.lsh._tune import SearchTrial, TunedSearch, search, tune
from fsparse.lsh._warn import warn

__all__ = [
    "Candidates",
    "Diagnostics",
    "Family",
    "Index",
    "Mips",
    "SearchTrial",
    "SparseRows",
    "TunedSearch",
    "build",
    "codes",
    "collision_probability",
    "default_family",
    "diagnose",
    "dwta",
    "insert",
    "l2",
    "minhash",
    "mips",
    "mips_queries",
    "mips_rows",
    "num_bytes",
    "plot_diagnostics",
    "probes",
    "query",
    "refresh",
    "remove",
    "sampler",
    "search",
    "simhash",
    "top_k",
    "tune",
    "warn",
]
