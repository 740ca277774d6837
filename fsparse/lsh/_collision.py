"""The kernel of a hash family: how often two rows get the same code."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from fsparse import _checks
from fsparse.lsh._codes import Family
from fsparse.lsh._inputs import Rows, clean, densified, open_rows
from fsparse.lsh._l2 import L2
from fsparse.lsh._minhash import MinHash
from fsparse.lsh._simhash import HadamardSimHash, SimHash

Array = jax.Array
_LARGE, _UNIT = 2.0**40, 2.0**80  # coordinates beyond, and what they are measured in
_FAR = 2.0**60  # distances beyond are alike: no collisions


def collision_probability(
    family: Family, x: Rows, y: Rows, *, rehash: bool = True
) -> Array:
    """The chance that a table of a family gives two rows one code.

    ===========  ==============================================================
    `simhash`    ``(1 - angle / pi) ** num_bits``; a row of zeros is at a right
                 angle to all others, and at 0 to another one
    `l2`         ``(erf(r / sqrt(2)) - sqrt(2 / pi) / r (1 - exp(-r**2 / 2))) **
                 num_hashes``, ``r = width / distance``, and 1 at distance 0
    `minhash`    ``(|A & B| / |A | B|) ** num_hashes``, and 1 of two empty sets
    ===========  ==============================================================

    Codes of `l2` and `minhash` are hashed to ``W = num_buckets``, where others meet by
    chance: ``p`` becomes ``p + (1 - p) / W``.

    Args:
      family: made by :func:`simhash`, :func:`l2` or :func:`minhash`; its random choices
        do not matter.
      x: ``a`` rows as for :func:`codes`.
      y: ``b`` rows likewise.
      rehash: whether meetings by chance count.

    Returns:
      ``f32[a, b]``. Of directions that are not Gaussian (``kind="sparse"`` or
      ``"hadamard"``), and of `minhash` with more than one hash, these are the chances
      for independent hashes, which theirs come near to.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, or the family has no such formula.

    Sparse rows are made dense, ``f32[a + b, dim]``. Distances are by products of rows
    centred at the mean of ``y``: they blur below ``3e-4`` of the largest from there.
    Nothing aliases; no gradients.

    Source: Charikar, STOC 2002; Datar et al., SoCG 2004, section 3.2; Broder 1997.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 2, num_tables=1, num_bits=2)
      >>> lsh.collision_probability(family, jnp.eye(2), jnp.eye(2))
      Array([[1.  , 0.25],
             [0.25, 1.  ]], dtype=float32)
    """
    fn = "collision_probability"
    _checks.require_type(fn, Family, family=family)
    x, y = (_dense(open_rows(fn, family.dim, rows), family.dim) for rows in (x, y))
    match family:
        case SimHash() | HadamardSimHash():
            p = (1 - _angle(x, y) / math.pi) ** family.num_bits
            return jnp.where(_is_zero(x)[:, None] & _is_zero(y)[None], 1, p)
        case L2():
            p = _same_interval(_distance(x, y) / family.width) ** family.num_hashes
        case MinHash():
            p = _jaccard(x, y) ** family.num_hashes
        case _:
            raise ValueError(
                f"{fn}: family must be simhash, l2 or minhash, whose chances have a "
                f"formula; got {type(family).__name__}."
            )
    return p + (1 - p) / family.num_buckets if rehash else p


def require_rehashed(fn: str, family: Family) -> None:
    """Families in whose buckets rows meet by chance."""
    if not isinstance(family, L2 | MinHash):
        raise ValueError(
            f"{fn}: rehash_correction must be for l2 or minhash, whose codes are "
            f"hashed; got {type(family).__name__}. Leave it out."
        )


def _dense(x: Rows, dim: int) -> Array:
    return jax.lax.stop_gradient(densified(clean(x, dim), dim))


def _products(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y.T, precision="highest")


def _is_zero(x: Array) -> Array:
    return jnp.all(x == 0, axis=1)


def _angle(x: Array, y: Array) -> Array:
    return jnp.arccos(jnp.clip(_products(_unit(x), _unit(y)), -1, 1))


def _unit(x: Array) -> Array:
    """Of length 1, or 0; by way of the largest entry, so that no square overflows."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True, initial=0)
    x = x / jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1)


def _distance(x: Array, y: Array) -> Array:
    """Centred first, for less is cancelled then; squares do not overflow."""
    is_large = jnp.max(jnp.abs(x), initial=0) + jnp.max(jnp.abs(y), initial=0) > _LARGE
    unit = jnp.where(is_large, _UNIT, 1)
    x, y = x * (1 / unit), y * (1 / unit)
    centre = jnp.sum(y, axis=0, keepdims=True) / max(len(y), 1)
    x, y = x - centre, y - centre
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None]
    squares -= 2 * _products(x, y)
    return unit * jnp.sqrt(jnp.maximum(squares, 0))


def _same_interval(c: Array) -> Array:
    """Of two points at a distance of ``c`` widths, projected."""
    c = jnp.minimum(c, _FAR)
    r = 1 / jnp.where(c > 0, c, 1)
    overlap = math.sqrt(2 / math.pi) / r * -jnp.expm1(-r * r / 2)
    return jnp.where(c > 0, jnp.maximum(erf(r / math.sqrt(2)) - overlap, 0), 1)


def _jaccard(x: Array, y: Array) -> Array:
    x, y = (jnp.where(z != 0, jnp.float32(1), 0) for z in (x, y))
    both = _products(x, y)
    either = jnp.sum(x, axis=1)[:, None] + jnp.sum(y, axis=1)[None] - both
    return jnp.where(either > 0, both / jnp.where(either > 0, either, 1), 1)
