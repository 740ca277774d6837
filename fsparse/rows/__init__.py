"""Optimizers that update only the rows of a table that a batch touched.

Each is a value, and the pure functions that it binds constants of::

    optimizer = adam(1e-3)                     # or adam(schedule)
    state = optimizer.init(table)              # adam_init
    table, state = optimizer.update(table, state, grad)    # adam_update

where ``grad`` is a :class:`fsparse.RowGrad`, the terms of a gradient and the rows they
belong to. Nothing of the size of a table is formed: each row's gradient is summed in
cache, applied at once, and forgotten. ``count`` in a state is the number of updates so
far, which schedules are functions of. :func:`fsparse.multi_transform` joins optimizers
of tables with those that optax has for arrays.

=================  ==================================  ============================
optimizer          moments, bytes a row (f32)          a row that is not named
=================  ==================================  ============================
`sgd`              none                                stays
`sgd(momentum=)`   ``trace``, ``4 d``                  stays, and its trace
`adagrad`          ``acc``, ``4 d``                    stays, as in dense Adagrad
`rowwise_adagrad`  ``acc``, ``4``                      stays
`adam`             ``mu, nu``, ``8 d``                 stays, and its moments
`exact_adam`       ``mu, nu, last``, ``8 d + 4``       moves as in dense Adam, later
=================  ==================================  ============================

Every table and moment is overwritten in place when the caller's jitted step donates it.
If it does not, XLA copies first and the old value stays valid.

A table is float32 or bfloat16, and so is each moment. Updates are computed in float32.
A row of bfloat16 is then rounded at random to one of its two neighbours, so that its
expectation is the float32 result and small updates add up; the random bits are a hash
of the state's ``key``, its ``count``, the row and the column.

Weight decay is decoupled: ``w = (1 - learning_rate * weight_decay) * w - ...``, for the
rows that are named.

Updates are differentiable, in forward and reverse mode and to any order, also with
respect to the learning rate. A derivative allocates as the pure-JAX twin does,
``f32[t, d]`` and ``f32[n, d]``; that of a rounding is the identity's. Under ``vmap``
tables of float32 are folded into one call; the rest is mapped one by one.
"""

from fsparse.rows._adagrad import (
    AdagradState,
    RowwiseAdagradState,
    adagrad_init,
    adagrad_update,
    rowwise_adagrad_init,
    rowwise_adagrad_update,
)
from fsparse.rows._adam import AdamState, adam_init, adam_update
from fsparse.rows._exact_adam import (
    ExactAdamState,
    exact_adam_catch_up,
    exact_adam_flush,
    exact_adam_init,
    exact_adam_update,
)
from fsparse.rows._norm import global_norm, sum_squares
from fsparse.rows._optimizers import (
    RowOptimizer,
    adagrad,
    adam,
    exact_adam,
    rowwise_adagrad,
    sgd,
)
from fsparse.rows._sgd import (
    MomentumState,
    SgdState,
    add_rows,
    momentum_init,
    momentum_update,
    sgd_init,
    sgd_update,
)

__all__ = [
    "AdagradState",
    "AdamState",
    "ExactAdamState",
    "MomentumState",
    "RowOptimizer",
    "RowwiseAdagradState",
    "SgdState",
    "adagrad",
    "adagrad_init",
    "adagrad_update",
    "adam",
    "adam_init",
    "adam_update",
    "add_rows",
    "exact_adam",
    "exact_adam_catch_up",
    "exact_adam_flush",
    "exact_adam_init",
    "exact_adam_update",
    "global_norm",
    "momentum_init",
    "momentum_update",
    "rowwise_adagrad",
    "rowwise_adagrad_init",
    "rowwise_adagrad_update",
    "sgd",
    "sgd_init",
    "sgd_update",
    "sum_squares",
]
