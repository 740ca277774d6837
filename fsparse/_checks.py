"""Checks at the public edge, at trace time, in the notation of JAX's own types.

Every message has the form ``function: requirement; got values. remedy``.
"""

import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp

from fsparse._call import vary_together
from fsparse.table import Table

_SHORT = {"float": "f", "int": "i", "uint": "u", "bfloat": "bf", "complex": "c"}


def aval(x: Any) -> str:
    """``f32[2,3]`` for an array of that dtype and shape."""
    name = x.dtype.name
    kind = name.rstrip("0123456789")
    short = _SHORT.get(kind, kind) + name[len(kind) :]
    return f"{short}[{','.join(map(str, x.shape))}]"


def _got(**arrays: Any) -> str:
    return ", ".join(f"{name}: {aval(x)}" for name, x in arrays.items())


def as_arrays(fn: str, **arrays: Any) -> tuple[jax.Array, ...]:
    """Converts the arguments, or says which one is no array; opens tables."""
    out = []
    for name, x in arrays.items():
        try:
            out.append(jnp.asarray(x.value if isinstance(x, Table) else x))
        except (TypeError, ValueError) as e:
            raise TypeError(
                f"{fn}: {name} must be an array; got {type(x).__name__}."
            ) from e
    return vary_together(*out)


def require_type(fn: str, wanted: type, **values: Any) -> None:
    """Arguments that are pytrees of their own."""
    for name, x in values.items():
        if not isinstance(x, wanted):
            raise TypeError(
                f"{fn}: {name} must be of type {wanted.__name__}; "
                f"got {type(x).__name__}."
            )


def require_count(fn: str, least: int, **values: Any) -> None:
    """Sizes: static integers, since they give shapes."""
    for name, x in values.items():
        try:
            count = operator.index(x)
        except TypeError as e:
            raise TypeError(
                f"{fn}: {name} must be a static integer; got {type(x).__name__}."
            ) from e
        if count < least:
            raise ValueError(f"{fn}: {name} must be at least {least}; got {count}.")


def require_between(fn: str, least: float, most: float, **values: Any) -> None:
    """Static numbers in a closed interval; NaN is in none."""
    for name, x in values.items():
        if not isinstance(x, numbers.Real):
            raise TypeError(f"{fn}: {name} must be a number; got {type(x).__name__}.")
        if not least <= float(x) <= most:
            raise ValueError(f"{fn}: {name} must be in [{least}, {most}]; got {x}.")


def require_f32(fn: str, **arrays: Any) -> None:
    """Floating operands are float32: nothing is cast behind the user's back."""
    _require_dtype(fn, ("float32",), "Cast it with {}.astype(jnp.float32).", arrays)


def require_table(fn: str, **tables: Any) -> None:
    """Tables are float32, or bfloat16 for half the memory."""
    allowed = "float32", "bfloat16"
    _require_dtype(fn, allowed, "Cast it with {}.astype(jnp.float32).", tables)


def require_int8(fn: str, **arrays: Any) -> None:
    """Rounded rows are int8, with a scale beside them."""
    _require_dtype(fn, ("int8",), "Make them with quantize_rows.", arrays)


def require_ids(fn: str, **arrays: Any) -> None:
    """Ids are int32."""
    _require_dtype(fn, ("int32",), "Cast it with {}.astype(jnp.int32).", arrays)


def require_mask(fn: str, **arrays: Any) -> None:
    """Masks are bool: of ids in their place, all would be true but 0."""
    _require_dtype(fn, ("bool",), "Compare, as in ids < num_rows.", arrays)


def _require_dtype(
    fn: str, allowed: tuple[str, ...], remedy: str, arrays: dict[str, Any]
) -> None:
    for name, x in arrays.items():
        if x.dtype.name not in allowed:
            wanted, got = " or ".join(allowed), _got(**{name: x})
            raise TypeError(
                f"{fn}: {name} must be {wanted}; got {got}. {remedy.format(name)}"
            )


def require_rank(fn: str, ranks: int | tuple[int, ...], **arrays: Any) -> None:
    """The number of axes."""
    allowed = (ranks,) if isinstance(ranks, int) else ranks
    for name, x in arrays.items():
        if x.ndim not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise ValueError(
                f"{fn}: {name} must have {wanted} axes; got {_got(**{name: x})}."
            )


def require(fn: str, condition: bool, requirement: str, **arrays: Any) -> None:
    """Any other requirement, stated in words, with the arrays it concerns."""
    if not condition:
        raise ValueError(f"{fn}: {requirement}; got {_got(**arrays)}.")


def require_rows_fit(fn: str, num_rows: int) -> None:
    """Row ids are int32 and one more id is needed for padding."""
    if num_rows >= 2**31 - 1:
        raise ValueError(
            f"{fn}: a table must have fewer than 2**31 - 1 rows, after folding mapped "
            f"axes into it; got {num_rows}. Split the table, or vmap over fewer tables."
        )
