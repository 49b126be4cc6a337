"""Facts about traced tensors: which entries differ almost surely, as the rule of sorting and top-k needs it.

Parameters are taken as generic; inputs are not. A row of padding is zero, a unit may be dead, and a sum of zeros has
equal entries unless a bias makes them differ.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ._axes import runs
from ._lookahead import order_of
from ._walk import OUTER, PARAMETER, arguments_of, name_of

Flags = Sequence[bool]


@dataclass(frozen=True)
class Facts:
    """Facts that hold almost surely, for every input.

    Attributes:
        distinct: For each axis, whether entries whose positions differ only along it have different values.
        nonzero: Whether no entry is zero.
        reads: Parameters that the values depend on, as a bit mask.
    """

    distinct: tuple[bool, ...] = ()
    nonzero: bool = False
    reads: int = 0

    def at(self, axis: int) -> bool:
        """Return whether entries differ along an axis, given as a negative number; False if there is no such axis."""
        return -axis <= len(self.distinct) and self.distinct[axis]


NOTHING = Facts()
_FACTS = "commutant_facts"


def distinct_along(node: Any, dim: int) -> bool:
    """Return whether entries whose positions differ only along an axis have different values almost surely."""
    found = facts_of(node).distinct
    return bool(found) and found[dim % len(found)]


def facts_of(node: Any) -> Facts:
    """Return the facts of a node, computed from the nodes before it; `NOTHING` for any other value."""
    if not isinstance(node, fx.Node):
        return NOTHING
    if _FACTS not in node.meta:
        for number, earlier in enumerate(node.graph.nodes):
            if _FACTS not in earlier.meta:
                earlier.meta[_FACTS] = _facts(earlier, number)
            if earlier is node:
                break
    return node.meta[_FACTS]  # type: ignore[no-any-return]


def _facts(node: fx.Node, number: int) -> Facts:
    if node.op == "placeholder":
        value = node.meta.get(PARAMETER)
        return facts_of(node.meta.get(OUTER)) if value is None else Facts(*_generic(value), 1 << number)
    reads = 0
    for given in node.all_input_nodes:
        reads |= facts_of(given).reads
    if node.op != "call_function":
        return Facts(reads=reads)
    if node.target is operator.getitem:
        called: Any = node.args[0]
        several = name_of(called.target).removeprefix("aten.") in _RULES
        return facts_of(called) if several else Facts(reads=reads)
    apply = _RULES.get(name_of(node.target).removeprefix("aten."))
    try:
        distinct, nonzero = apply(node, arguments_of(node)) if apply else ((), False)
    except (LookupError, ValueError, TypeError, AttributeError):
        distinct, nonzero = (), False
    return Facts(tuple(distinct), nonzero, reads)


def _generic(value: Tensor) -> tuple[tuple[bool, ...], bool]:
    """Return whether the entries of a parameter differ along each axis, and whether none is zero."""
    if not (value.is_floating_point() or value.is_complex()) or value.numel() == 0:
        return (False,) * value.ndim, False
    if value.is_meta:
        return (True,) * value.ndim, True
    if value.ndim < 2:
        return (value.unique().numel() == value.numel(),) * value.ndim, bool((value != 0).all())
    live = bool((value.flatten(1) != 0).any(1).all())  # the padding row of an embedding is zero
    return (live and bool((value != value.flatten()[0]).any()),) * value.ndim, live


Rule = Callable[[fx.Node, dict[str, Any]], tuple[Flags, bool]]
_RULES: dict[str, Rule] = {}


def _rule(names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def _ndim(node: Any) -> int:
    return int(node.meta["val"].ndim)


@_rule("""abs alias alpha_dropout asinh atan celu clone contiguous cos cosh detach dropout elu erf exp expm1
    feature_dropout gelu glu leaky_relu lift_fresh_copy log log1p log_sigmoid log_softmax _log_softmax logit mish neg
    reciprocal rsqrt selu sigmoid silu sin sinh softmax _softmax softplus sqrt square tanh to _to_copy type_as
    split split_with_sizes chunk slice narrow""")
def _same(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    """Keep the facts, as functions without plateaus and slices do."""
    x = facts_of(node.args[0])
    return (x.distinct, x.nonzero) if not given.get("train") else ((), False)


@_rule("pow")
def _pow(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    return _same(node, given) if given["exponent"] not in (0, None) and _number(given["exponent"]) else ((), False)


@_rule("sum mean amax amin var std logsumexp linalg_vector_norm norm select unbind")
def _fewer(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    """Drop the reduced axes."""
    x, ndim = facts_of(node.args[0]), _ndim(node.args[0])
    dim = given.get("dim")
    dims = [dim] if isinstance(dim, int) else list(range(ndim)) if not dim else list(dim)
    gone = {d % ndim for d in dims}
    return [own for i, own in enumerate(x.distinct) if i not in gone or given.get("keepdim")], x.nonzero


@_rule("permute transpose swapaxes swapdims unsqueeze squeeze movedim moveaxis t numpy_T mT")
def _moved(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, name = facts_of(node.args[0]), name_of(node.target)
    order = order_of(name, node.args[1:], node.args[0].meta["val"].shape)  # type: ignore[union-attr]
    return [d is not None and x.distinct[d] for d in order or ()] if x.distinct else (), x.nonzero


@_rule("view reshape _unsafe_view flatten unflatten")
def _reshaped(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x = facts_of(node.args[0])
    flags = [False] * _ndim(node)
    for run, shape in runs(node.args[0].meta["val"].shape, node.meta["val"].shape):  # type: ignore[union-attr]
        for j in shape:
            flags[j] = bool(x.distinct) and all(x.distinct[i] for i in run)
    return flags, x.nonzero


@_rule("expand")
def _expanded(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, old, new = facts_of(node.args[0]), node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    return [x.at(i) and old[i] == new[i] for i in range(-len(new), 0)], x.nonzero


@_rule("cat concat stack")
def _beside(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    """Combine the facts of concatenated parts: entries differ where they differ in every part."""
    found = [facts_of(n) for n in given["tensors"]]
    distinct = [all(f.at(i) for f in found) for i in range(-_ndim(given["tensors"][0]), 0)]
    if name_of(node.target) == "aten.stack":
        distinct.insert((given["dim"] or 0) % _ndim(node), all(all(f.distinct) and f.distinct for f in found))
    return distinct, all(f.nonzero for f in found)


@_rule("add sub rsub")
def _sum(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, y = ((facts_of(n), _shape(n)) for n in (given["self"], given["other"]))
    return _added(node, x, y)


def _added(node: fx.Node, x: tuple[Facts, Sequence[int]], y: tuple[Facts, Sequence[int]]) -> tuple[Flags, bool]:
    """Return the facts of a sum.

    A term stays generic if the other one is generic too, is constant along the axis, or reads other parameters.
    """
    free = x[0].reads != y[0].reads or not (x[1] and y[1])
    flags = [
        (x[0].at(i) and y[0].at(i))
        or (x[0].at(i) and (free or _flat(y[1], i)))
        or (y[0].at(i) and (free or _flat(x[1], i)))
        for i in range(-_ndim(node), 0)
    ]
    return flags, (x[0].nonzero or y[0].nonzero) and free


@_rule("mul div true_divide")
def _product(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    """Return the facts of a product.

    A factor without zeros keeps entries distinct if it is constant along the axis or reads other parameters.
    """
    x, y = given["self"], given["other"]
    one, two = facts_of(x), facts_of(y)
    if _number(x) or _number(y):
        kept = two if _number(x) else one
        return (kept.distinct, kept.nonzero) if (x if _number(x) else y) != 0 else ((), False)
    free = one.reads != two.reads
    flags = [
        (one.at(i) and two.at(i))
        or (one.at(i) and two.nonzero and (free or _flat(_shape(y), i)))
        or (two.at(i) and one.nonzero and (free or _flat(_shape(x), i)))
        for i in range(-_ndim(node), 0)
    ]
    return flags, one.nonzero and two.nonzero


def _number(value: Any) -> bool:
    return isinstance(value, int | float | complex)


def _shape(node: Any) -> Sequence[int]:
    return tuple(node.meta["val"].shape) if isinstance(node, fx.Node) else ()


def _flat(shape: Sequence[int], axis: int) -> bool:
    """Return whether a tensor is broadcast along an axis."""
    return -axis > len(shape) or shape[axis] == 1


@_rule("linear")
def _linear(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, weight, bias = (facts_of(given[n]) for n in ("input", "weight", "bias"))
    return [*x.distinct[:-1], bias.at(-1) or (x.nonzero and weight.at(-2))], bias.nonzero or (
        x.nonzero and weight.nonzero
    )


@_rule("matmul mm bmm addmm baddbmm")
def _matmul(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "matmul": ("self", "other")}
    own = name_of(node.target).removeprefix("aten.")
    first, second = (given[n] for n in names.get(own, ("self", "mat2")))
    x, y = facts_of(first), facts_of(second)
    rows, columns = x.at(-2) and y.nonzero, y.at(-1) and x.nonzero
    vectors = [_ndim(first) == 1, _ndim(second) == 1]
    lead = [(x.at(i) and y.nonzero) or (y.at(i) and x.nonzero)
            for i in range(-max(_ndim(first), _ndim(second)), -2)]  # fmt: skip
    flags = [*lead, *([] if vectors[0] else [rows]), *([] if vectors[1] else [columns])]
    nonzero = x.nonzero and y.nonzero
    if own in ("addmm", "baddbmm"):
        product = Facts(tuple(flags), nonzero, x.reads | y.reads)
        return _added(node, (product, _shape(node)), (facts_of(given["self"]), _shape(given["self"])))
    return flags, nonzero


@_rule("conv1d conv2d conv3d convolution")
def _convolution(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, weight, bias = (facts_of(given[n]) for n in ("input", "weight", "bias"))
    if given.get("transposed"):
        return (), bias.nonzero
    flags = [False] * _ndim(node)
    ndim = _ndim(given["weight"])
    flags[-ndim + 1] = bias.at(-1) or (x.nonzero and weight.at(-ndim))
    return flags, bias.nonzero or (x.nonzero and weight.nonzero)


@_rule("einsum")
def _einsum(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    terms, _, result = given["equation"].replace(" ", "").partition("->")
    if "." in given["equation"] or not result:
        return (), False
    pairs = list(zip(terms.split(","), (facts_of(n) for n in given["tensors"]), strict=True))
    flags = [
        any(
            letter in term
            and own.at(term.index(letter) - len(term))
            and all(other.nonzero for t, other in pairs if t is not term)
            for term, own in pairs
        )
        for letter in result
    ]
    return flags, all(own.nonzero for _, own in pairs)


@_rule("cdist")
def _cdist(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, y = facts_of(given["x1"]), facts_of(given["x2"])
    return [*[False] * (_ndim(node) - 2), x.at(-2), y.at(-2)], x.nonzero or y.nonzero


@_rule("layer_norm native_layer_norm batch_norm _native_batch_norm_legit_no_training")
def _norm(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    """Return the facts of a normalization, which turns a constant input into its bias."""
    x, bias = facts_of(given["input"]), facts_of(given["bias"])
    channel = -1 if "layer" in name_of(node.target) else 1 - _ndim(given["input"])
    flags = [x.at(i) or (i == channel and bias.at(-1)) for i in range(-_ndim(given["input"]), 0)]
    return flags, bias.nonzero or (x.nonzero and x.at(channel))


@_rule("rms_norm _fused_rms_norm")
def _rms_norm(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    x, weight = facts_of(given["input"]), facts_of(given["weight"])
    return x.distinct, x.nonzero and (given["weight"] is None or weight.nonzero)


@_rule("embedding")
def _embedding(node: fx.Node, given: dict[str, Any]) -> tuple[Flags, bool]:
    weight = facts_of(given["weight"])
    padded = given.get("padding_idx", -1) not in (-1, None)
    return [*[False] * _ndim(given["indices"]), *weight.distinct[1:]], weight.nonzero and not padded
