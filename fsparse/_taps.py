"""Differentiates a function with respect to what it reads from tables, not to tables.

The function is traced to a jaxpr, in which each read of a table is one equation of an
op of fsparse, whatever ``vmap`` it stood in. The jaxpr is then run equation by equation
with a zero, a *tap*, added to the result of each read::

    y = sampled(x, w, ids) + tap        or        y = gather(v, w, ids) + tap

JAX differentiates with respect to the taps. With ``dy`` the cotangent of one, the read
has the row gradient (ids, dy, x), or (ids, v, dy). Where examples share their ids, the
tap of ``sampled`` is added to the rows of ``w`` instead, and its cotangent is the row
gradient: see ``_shared_grads.py``, and ``_fused_softmax.py`` for a loss of it.
Equations that hold jaxprs (scan, cond, checkpoint, jit) are run by the functions of
those names, with their taps as one more argument. This happens twice: abstractly to
learn which taps there are, then to differentiate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

from fsparse._call import vary_over, vary_together, varying_axes
from fsparse._fused_softmax import tapped_loss
from fsparse._ordering import hold
from fsparse._precision import ALL_PARTS
from fsparse._shared_grads import tapped_matmul
from fsparse.matmul import sum_examples_op
from fsparse.row_gradients import RowGrad, row_grad

Array = jax.Array


@dataclass(frozen=True)
class _Ref:
    """A table on its way through a jaxpr."""

    index: int  # among the leaves
    name: str
    value: Array


def _static() -> Any:
    return field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Read:
    """The known factor of a read's gradient; the other is the cotangent of its tap.

    Reads in a scan are stacked: all arrays have its axis in front.
    """

    ids: Array  # i32[..., g, m]
    known: Any  # x: f32[..., g, b, d] of sampled, v: f32[..., g, b, m] of gather
    result: Any  # what the tap is added to, or like it, while the taps are sought
    op: str = _static()
    table: int = _static()
    num_parts: int = field(default=ALL_PARTS, metadata={"static": True})


def value_and_grad(
    fun: Callable[[list[Any]], tuple[Any, Any]],
    values: list[Any],
    tables: Mapping[int, str],
) -> tuple[tuple[Any, Any], list[Any]]:
    """Of ``fun(values) -> (scalar, aux)``.

    Args:
      fun: the function.
      values: its argument, arrays and scalars.
      tables: which values are tables, with their names.

    Returns:
      The result of ``fun``, and for each value its gradient: a `RowGrad` for tables.
    """
    closed, out_shape = jax.make_jaxpr(fun, return_shape=True)(values)
    dense = {i: value for i, value in enumerate(values) if i not in tables}
    refs = {i: _Ref(i, name, values[i]) for i, name in tables.items()}

    def run(dense: dict[int, Any], taps: Any) -> tuple[Any, Any]:
        args = [(refs | dense)[i] for i in range(len(values))]
        outs, reads = _run(closed.jaxpr, closed.consts, args, taps)
        value, aux = jax.tree.unflatten(jax.tree.structure(out_shape), _opened(outs))
        return value, (aux, reads)

    _, (_, reads) = jax.eval_shape(run, dense, None)
    taps = jax.tree.map(lambda read: _zero(read.result), reads, is_leaf=_is_read)
    differentiate = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (value, (aux, reads)), (grads, cts) = differentiate(dense, taps)
    grads |= {i: _no_rows(values[i]) for i in tables}
    for read, ct in zip(_flat(reads), jax.tree.leaves(cts), strict=True):
        grads[read.table] += _row_grad(read, ct, values[read.table])
    return (value, aux), _held(grads, [value, *_computed(aux, values)])


def _held(grads: dict[int, Any], until: list[Any]) -> list[Any]:
    """The gradients in order; an update by one waits for all that read a table.

    Ids are held, which every update needs and which are small: XLA copies them.
    """
    ordered = [grads[i] for i in range(len(grads))]
    rows = [i for i, grad in enumerate(ordered) if isinstance(grad, RowGrad)]
    own = [ordered[i].ids for i in rows]
    others = [leaf for leaf in jax.tree.leaves(ordered) if not _is_any(leaf, own)]
    for i, ids in zip(rows, hold(own, [*others, *until]), strict=True):
        ordered[i] = replace(ordered[i], ids=ids)
    return ordered


def _computed(aux: Any, values: list[Any]) -> list[Any]:
    """What is no argument handed on."""
    return [x for x in jax.tree.leaves(aux) if not _is_any(x, values)]


def _is_any(x: Any, values: list[Any]) -> bool:
    return any(x is value for value in values)


# ---- running a jaxpr ----------------------------------------------------------------


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], taps: Any) -> Any:
    """The results of a jaxpr, and its reads: a tree with a node for each equation."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    reads: list[Any] = []

    def value_of(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        inputs = list(map(value_of, eqn.invars))
        if any(map(_is_ref, inputs)):
            tap = None if taps is None else taps[len(reads)]
            outs, read = _RULES.get(eqn.primitive.name, _no_rule)(eqn, inputs, tap)
            reads.append(read)
        else:
            outs = _bind(eqn, inputs)
        env.update(zip(eqn.outvars, outs, strict=True))
    return list(map(value_of, jaxpr.outvars)), reads


def _bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    with eqn.ctx.manager:
        params = eqn.primitive.get_bind_params(eqn.params)
        outs = eqn.primitive.bind(*inputs, **params)
    return outs if eqn.primitive.multiple_results else [outs]


def _tapped(read: _Read, tap: Array | None) -> tuple[Any, _Read]:
    if tap is None:
        return read.result, read
    return read.result + tap, replace(read, result=None)


def _product(op: str, eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """``sampled(x, w, ids)`` and ``gather(v, w, ids)``."""
    known, w, ids = inputs
    if _is_ref(known) or not _is_ref(w):
        return _no_rule(eqn, inputs, tap)
    if op == "sampled" and known.shape[1] != 1:
        return _shared(known, w, ids, tap, **eqn.params)
    (y,) = _bind(eqn, [known, w.value, ids])
    y, read = _tapped(_Read(ids, known, y, op, w.index, **eqn.params), tap)
    return [y], read


def _shared(x: Array, w: _Ref, ids: Array, tap: Any, num_parts: int = ALL_PARTS) -> Any:
    """``sampled(x, w, ids)`` of examples that share ids: the tap is one of the rows."""
    (x, table, ids), tap, read = _row_taps(w, tap, x, ids)
    return [tapped_matmul(x, tap, table, ids, num_parts)], read


def _fused_loss(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """The softmax loss of ``sampled(x, w, ids)``, tapped in the same way."""
    x, w, ids, *rest = inputs
    if _is_ref(x) or not _is_ref(w):
        return _no_rule(eqn, inputs, tap)
    operands, tap, read = _row_taps(w, tap, x, ids, *rest)
    num_parts = eqn.params.get("num_parts", ALL_PARTS)
    return list(tapped_loss(num_parts, tap, *operands)), read


def _row_taps(w: _Ref, tap: Any, x: Array, ids: Array, *rest: Array) -> Any:
    """The operands of an op whose table is tapped by rows, the tap, and the read."""
    rows = jnp.zeros((*ids.shape, x.shape[2]), x.dtype)
    rows, *operands = vary_together(rows, x, w.value, ids, *rest)
    read = _Read(operands[2], None, rows if tap is None else None, "rows", w.index)
    return operands, rows if tap is None else tap, read


def _grads(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """``gather(v, w, ids)``, and what does not depend on ``w``."""
    v, x, w, ids = inputs
    if _is_ref(v) or _is_ref(x):
        return _no_rule(eqn, inputs, tap)
    z, *others = _bind(eqn, [v, x, w.value, ids])
    z, read = _tapped(_Read(ids, v, z, "gather", w.index, **eqn.params), tap)
    return [z, *others], read


def _top_k(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """Scores ``x[i] . w[ids[i, j]]`` and the ids that were found, among some or all."""
    x, w, *among = inputs
    if _is_ref(x):
        return _no_rule(eqn, inputs, tap)
    scores, ids = _bind(eqn, [x, w.value, *among])
    read = _Read(ids, x[:, None], scores[:, None], "sampled", w.index)
    scores, read = _tapped(read, tap)
    return [scores[:, 0], ids], read


def _pass(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """The table itself, of another type."""
    del tap
    (ref,) = inputs
    (value,) = _bind(eqn, [ref.value])
    return [_Ref(ref.index, ref.name, value)], []


def _jit(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    closed = eqn.params["jaxpr"]
    return _run(closed.jaxpr, closed.consts, inputs, tap)


def _checkpoint(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    arrays, fill = _without_refs(inputs)

    def body(arrays: list[Array], tap: Any) -> Any:
        outs, reads = _run(eqn.params["jaxpr"], [], fill(arrays), tap)
        return _only_arrays(eqn, outs), reads

    options = {name: eqn.params[name] for name in ("prevent_cse", "policy")}
    return jax.checkpoint(body, **options)(arrays, tap)


def _scan(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    num_consts, num_carry = _scan_sizes(eqn.params)
    consts, carry = inputs[:num_consts], inputs[num_consts:][:num_carry]
    xs = inputs[num_consts + num_carry :]
    for ref in filter(_is_ref, [*carry, *xs]):
        _refuse(eqn, ref, "Only read it in the loop, from outside of the carry and xs.")
    closed = eqn.params["jaxpr"]

    def body(carry: Any, step: Any) -> Any:
        xs, tap = step
        args = [*consts, *carry, *xs]
        outs, reads = _run(closed.jaxpr, closed.consts, args, tap)
        _only_arrays(eqn, outs)
        return outs[:num_carry], (outs[num_carry:], reads)

    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    carry, (ys, reads) = jax.lax.scan(body, carry, (xs, tap), **options)
    return [*carry, *ys], reads


def _scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # since jax 0.11
    return len(consts), len(carry)


def _cond(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """Each branch gives the reads of all of them, those of the others as padding."""
    index, *operands = inputs
    arrays, fill = _without_refs(operands)

    def run(closed: Any, arrays: list[Array], tap: Any) -> Any:
        outs, reads = _run(closed.jaxpr, closed.consts, fill(arrays), tap)
        return _only_arrays(eqn, outs), reads

    branches = [partial(run, closed) for closed in eqn.params["branches"]]
    shapes = [jax.eval_shape(branch, arrays, None)[1] for branch in branches]

    def branch(i: int, arrays: list[Array], tap: Any) -> Any:
        outs, own = branches[i](arrays, None if tap is None else tap[i])
        blank = partial(_blank_read, seeking=tap is None)
        reads = jax.tree.map(blank, shapes, is_leaf=_is_read)
        return outs, [*reads[:i], own, *reads[i + 1 :]]

    every = [partial(branch, i) for i in range(len(branches))]
    return jax.lax.switch(index, every, arrays, tap)


def _no_rule(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    """Other readers must not want a gradient."""
    del tap
    outs: list[Any] = [var.aval for var in eqn.outvars]
    if any(jnp.issubdtype(aval.dtype, jnp.floating) for aval in outs):
        ref = next(filter(_is_ref, inputs))
        _refuse(eqn, ref, _REMEDIES.get(eqn.primitive.name, _REMEDY))
    return _bind(eqn, _opened(inputs)), []


def _stop_gradient(eqn: JaxprEqn, inputs: Sequence[Any], tap: Any) -> Any:
    del tap
    return _bind(eqn, _opened(inputs)), []


_RULES: Mapping[str, Callable[..., Any]] = {
    "fsparse_sampled_matmul": partial(_product, "sampled"),
    "fsparse_gather_matmul": partial(_product, "gather"),
    "fsparse_sampled_grads": _grads,
    "fsparse_fused_softmax_loss": _fused_loss,
    "fsparse_dense_top_k": _top_k,
    "fsparse_sampled_top_k": _top_k,
    "stop_gradient": _stop_gradient,
    "copy": _pass,
    "pvary": _pass,
    "jit": _jit,
    "pjit": _jit,
    "remat2": _checkpoint,
    "checkpoint": _checkpoint,
    "scan": _scan,
    "cond": _cond,
}
_REMEDY = (
    "Read it with take_rows, embedding_bag, sampled_matmul, gather_matmul, "
    "dense_top_k, sampled_top_k or fused_softmax_loss of fsparse; or, as a constant, "
    "through jax.lax.stop_gradient; or pass an array in place of the Table, to have "
    "its dense gradient."
)
_REMEDIES = {
    "while": "JAX does not differentiate while_loop in reverse: use scan.",
    "fsparse_fused_softmax_grads": "For its second derivatives use "
    "sampled_softmax_loss(sampled_matmul(...), ...), which is the same loss.",
    "shard_map": "Call value_and_grad inside of shard_map.",
    "custom_vjp_call": "Read its rows outside of the function with a custom rule.",
    "custom_jvp_call": "Read its rows outside of the function with a custom rule.",
}


def _refuse(eqn: JaxprEqn, ref: _Ref, remedy: str) -> None:
    n, d = ref.value.shape
    raise TypeError(
        "value_and_grad: only fsparse may read a Table where a gradient is wanted; got "
        f"`{eqn.primitive.name}` of {ref.name}, whose gradient would be dense, "
        f"[{n},{d}]. {remedy}"
    )


# ---- values -------------------------------------------------------------------------


def _is_ref(x: Any) -> bool:
    return isinstance(x, _Ref)


def _is_read(x: Any) -> bool:
    return isinstance(x, _Read)


def _flat(reads: Any) -> list[_Read]:
    return jax.tree.leaves(reads, is_leaf=_is_read)


def _opened(xs: Sequence[Any]) -> list[Any]:
    return [x.value if isinstance(x, _Ref) else x for x in xs]


def _only_arrays(eqn: JaxprEqn, outs: list[Any]) -> list[Any]:
    for ref in filter(_is_ref, outs):
        _refuse(eqn, ref, "Do not return it from there.")
    return outs


def _without_refs(inputs: Sequence[Any]) -> tuple[list[Any], Callable[..., list[Any]]]:
    """The arrays, and a function that puts the tables back where they were."""

    def fill(arrays: Sequence[Any]) -> list[Any]:
        rest = iter(arrays)
        return [x if _is_ref(x) else next(rest) for x in inputs]

    return [x for x in inputs if not _is_ref(x)], fill


def _zero(shape: Any) -> Array:
    """A tap; inside ``shard_map`` it belongs to the shard, like what it is added to."""
    return vary_over(jnp.zeros(shape.shape, shape.dtype), varying_axes(shape))


def _blank_read(shape: _Read, seeking: bool) -> _Read:
    """A read that did not happen: its ids are padding."""
    ids, known = _zero(shape.ids) - 1, jax.tree.map(_zero, shape.known)
    result = _zero(shape.result) if seeking else None
    return replace(shape, ids=ids, known=known, result=result)


# ---- row gradients ------------------------------------------------------------------


def _no_rows(table: Array) -> RowGrad:
    n, d = table.shape
    return row_grad(jnp.zeros(0, jnp.int32), jnp.zeros((0, d), jnp.float32), num_rows=n)


def _row_grad(read: _Read, ct: Array, table: Array) -> RowGrad:
    """Row ``ids[g, j]`` gets ``sum_i v[g, i, j] x[g, i]``; one factor of it is ct."""
    shared = varying_axes(ct) - varying_axes(table)
    if read.op == "rows":
        ids, rows = read.ids.ravel(), ct.reshape(-1, ct.shape[-1])
        return _of_all(row_grad(ids, rows, num_rows=table.shape[0]), shared)
    ids = read.ids.reshape(-1, read.ids.shape[-1])
    known, ct = (a.reshape(-1, *a.shape[-2:]) for a in (read.known, ct))
    v, x = (ct, known) if read.op == "sampled" else (known, ct)
    b, d = x.shape[1:]
    if b == 1:
        grad = row_grad(ids, x[:, 0], v[:, 0], num_rows=table.shape[0])
    else:
        (rows,) = sum_examples_op(*vary_together(v, x), num_parts=read.num_parts)
        grad = row_grad(ids.ravel(), rows.reshape(-1, d), num_rows=table.shape[0])
    return _of_all(grad, shared)


def _of_all(grad: RowGrad, axes: frozenset[str]) -> RowGrad:
    for axis in sorted(axes):
        grad = _of_all_shards(grad, axis)
    return grad


def _of_all_shards(grad: RowGrad, axis: str) -> RowGrad:
    """Concatenated over a mesh axis, and the same on all shards, as `psum` is."""
    size, own = jax.lax.axis_size(axis), jax.lax.axis_index(axis)

    def gather(x: Array) -> Array:
        stacked = jnp.zeros((size, *x.shape), x.dtype).at[own].set(x)
        return jax.lax.psum(stacked, axis)

    return jax.tree.map(gather, grad).sum()
