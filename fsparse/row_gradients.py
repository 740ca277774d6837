"""Gradients of a few rows of a table, as pytrees.

A row gradient is a sum of outer products, one for each occurrence of a row's id::

    g[r] = sum of scale[o] * x[source[o]]  over the occurrences o with ids[o] == r

An embedding bag has this gradient, with ``scale`` its weights and ``x`` the cotangent
of its output; so have per-example active sets, with ``scale`` the cotangents of the
logits and ``x`` the hidden layer. Nothing of size ``n d`` or ``b k d`` is formed, and
the sum of two row gradients is their concatenation.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_together
from fsparse._row_ops import sgd_rows
from fsparse.reference import valid

Array = jax.Array
Scalar = Array | float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowGrad:
    """The gradient of a table in factored form: memory follows the active rows.

    ``g[r]`` sums ``scale[o] * x[source[o]]`` over the occurrences ``o`` of row ``r``.
    An occurrence whose id is outside ``[0, n)``, or whose source is outside ``[0, s)``,
    is padding: it adds nothing and hides what ``scale`` and ``x`` hold.

    A pytree of four arrays, of ``12 t + 4 s d`` bytes, that goes through ``jit``,
    ``scan``, ``vmap`` and ``shard_map``. ``a + b``, ``c * a``, ``a / c`` and ``-a`` are
    those of the dense gradients. A function for all leaves of a tree wants
    ``is_leaf=lambda x: isinstance(x, RowGrad)``: without it ``ids`` would be scaled,
    too (the optimizers refuse ids that are no longer ``i32``).

    Make one with :func:`fsparse.row_grad`, or by :func:`fsparse.value_and_grad`.
    """

    ids: Array  # i32[t]
    scale: Array  # f32[t]
    source: Array  # i32[t], rows of x
    x: Array  # f32[s, d]
    num_rows: int = field(metadata={"static": True})  # n

    __array_ufunc__ = None  # numpy's scalars leave `c * a` to __rmul__

    @property
    def shape(self) -> tuple[int, int]:
        """Of the dense gradient: ``(n, d)``."""
        return self.num_rows, self.x.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Of the dense gradient."""
        return self.x.dtype

    def __add__(self, other: Any) -> "RowGrad":
        """The sum: occurrences of both."""
        return _concatenate(self, other) if isinstance(other, RowGrad) else _refuse()

    def __radd__(self, other: Any) -> "RowGrad":
        """So that ``sum(row_grads)`` works, which starts at 0."""
        return self if isinstance(other, int) and other == 0 else _refuse()

    def __mul__(self, factor: Scalar) -> "RowGrad":
        """Every row times a scalar."""
        if jnp.ndim(factor) != 0:
            _refuse()
        return replace(self, scale=self.scale * jnp.asarray(factor, self.scale.dtype))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scalar) -> "RowGrad":
        """Every row over a scalar."""
        return self * (1 / jnp.asarray(divisor, self.scale.dtype))

    def __neg__(self) -> "RowGrad":
        """Every row times -1."""
        return replace(self, scale=-self.scale)

    def __sub__(self, other: Any) -> "RowGrad":
        """The difference: occurrences of both."""
        return self + -other

    def astype(self, dtype: Any) -> "RowGrad":
        """Factors cast to another floating dtype; the optimizers want ``f32`` back."""
        return replace(self, scale=self.scale.astype(dtype), x=self.x.astype(dtype))

    def sum(self) -> "RowGrad":
        """The sum over leading axes, as ``vmap``, ``scan`` or ``all_gather`` make.

        ``ids: i32[..., t]`` becomes ``i32[... * t]``: nothing is added up yet.
        """
        s, d = self.x.shape[-2:]
        sources = self.source.reshape(-1, self.source.shape[-1])
        shift = s * jnp.arange(sources.shape[0], dtype=jnp.int32)[:, None]
        x = self.x.reshape(-1, d)
        source = jnp.where(valid(sources, s), sources + shift, x.shape[0])
        return RowGrad(
            self.ids.ravel(), self.scale.ravel(), source.ravel(), x, self.num_rows
        )

    def coalesce(self) -> "RowGrad":
        """The same gradient with one occurrence for each distinct row, in rising order.

        ``x: f32[min(t, n), d]`` holds the rows' sums; ids that are left over are ``n``.
        """
        size = min(self.ids.shape[0], self.num_rows)
        ids = jnp.where(valid(self.ids, self.num_rows), self.ids, self.num_rows)
        rows = jnp.unique(ids, size=size, fill_value=self.num_rows)
        place = jnp.where(ids < self.num_rows, jnp.searchsorted(rows, ids), size)
        own = replace(self, ids=place.astype(jnp.int32), num_rows=size)
        return row_grad(rows, own.to_dense(), num_rows=self.num_rows)

    def to_dense(self) -> Array:
        """The dense gradient ``f32[n, d]`` that ``jax.grad`` gives, newly allocated."""
        zeros = jnp.zeros(self.shape, jnp.float32)
        seed = jnp.zeros(2, jnp.uint32)  # of a rounding that f32 does not need
        factors = self.ids, self.scale, self.source, self.x
        return sgd_rows(*factors, jnp.array([-1, 0], jnp.float32), seed, zeros)[0]


def row_grad(
    ids: Array, x: Array, scale: Array | None = None, *, num_rows: int
) -> RowGrad:
    """A row gradient from the gradients of rows, or from outer products.

    With ``ids: i32[m]``, ``g[ids[j]] += x[j]``: ``x`` is most often the gradient of
    ``take_rows(table, ids)``. With ``ids: i32[b, k]``,
    ``g[ids[i, j]] += scale[i, j] * x[i]``: the gradient of
    ``embedding_bag(table, ids, scale)``, whose output has the cotangent ``x``.

    Args:
      ids: ``i32[m]`` or ``i32[b, k]`` rows, which may repeat; outside ``[0, n)`` is
        padding.
      x: ``f32[m, d]`` or ``f32[b, d]``.
      scale: ``f32`` of the shape of ``ids``; 1 by default.
      num_rows: ``n``, rows of the table.

    Returns:
      A :class:`RowGrad`.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases; differentiable in ``x`` and ``scale``.

    Example:
      >>> import jax.numpy as jnp
      >>> row_grad(jnp.array([1, 1]), jnp.ones((2, 2)), num_rows=2).to_dense()
      Array([[0., 0.],
             [2., 2.]], dtype=float32)
    """
    fn = "row_grad"
    (ids,) = _checks.as_arrays(fn, ids=ids)
    if scale is None:
        scale = jnp.ones(ids.shape, jnp.float32)
    ids, x, scale = _checks.as_arrays(fn, ids=ids, x=x, scale=scale)
    _checks.require_ids(fn, ids=ids)
    _checks.require_f32(fn, x=x, scale=scale)
    _checks.require_rank(fn, (1, 2), ids=ids)
    _checks.require_rank(fn, 2, x=x)
    _checks.require_count(fn, 0, num_rows=num_rows)
    _checks.require_rows_fit(fn, num_rows)
    _checks.require(
        fn,
        ids.shape == scale.shape and ids.shape[0] == x.shape[0],
        "ids and scale must have one shape, [m] or [b, k], and x a row for each m or b",
        ids=ids,
        scale=scale,
        x=x,
    )
    source = jnp.arange(ids.shape[0], dtype=jnp.int32).reshape(
        -1, *[1] * (ids.ndim - 1)
    )
    source = jnp.broadcast_to(source, ids.shape).ravel()
    (source, *_) = vary_together(source, ids)
    return RowGrad(ids.ravel(), scale.ravel(), source, x, int(num_rows))


def _concatenate(a: RowGrad, b: RowGrad) -> RowGrad:
    if a.shape != b.shape:
        raise ValueError(
            "RowGrad: only gradients of tables of one shape can be added; got "
            f"{list(a.shape)} and {list(b.shape)}."
        )
    s, total = a.x.shape[0], a.x.shape[0] + b.x.shape[0]
    source = (
        jnp.where(valid(a.source, s), a.source, total),
        jnp.where(valid(b.source, total - s), b.source + s, total),
    )
    pairs = (a.ids, b.ids), (a.scale, b.scale), source, (a.x, b.x)
    ids, scale, sources, x = map(jnp.concatenate, pairs)
    return RowGrad(ids, scale, sources, x, a.num_rows)


def _refuse() -> Any:
    raise TypeError(
        "RowGrad: add it to a RowGrad of the same table, or multiply it by a scalar; "
        "to_dense() gives an array for everything else."
    )
