"""Rules of elementwise operators, reductions, normalizations and constants."""

from __future__ import annotations

from typing import Any

from ._axes import Axis, Invariant, product
from ._distinct import distinct_along
from ._rules_reshaping import cut
from ._walk import Labels, Op, fixed, rule

UNARY = """
    abs acos acosh alias alpha_dropout angle asin asinh atan atanh bitwise_not ceil celu clamp clamp_max
    clamp_min conj _conj conj_physical cos cosh deg2rad digamma dropout elu erf erfc erfinv exp exp2 expm1
    feature_dropout floor frac gelu hardshrink hardsigmoid hardswish hardtanh imag isfinite isinf isnan
    leaky_relu lgamma log log10 log1p log2 log_sigmoid logical_not logit mish nan_to_num neg negative pow
    positive real reciprocal relu relu6 resolve_conj resolve_neg round rrelu rsqrt selu sgn sigmoid sign silu
    sin sinc sinh softplus softshrink special_erf special_expit sqrt square tan tanh threshold trunc
"""
SEVERAL = """
    add addcdiv addcmul atan2 bitwise_and bitwise_or bitwise_xor clip complex copysign div divide eq float_power
    floor_divide fmax fmin fmod ge greater greater_equal gt hypot isclose le lerp less less_equal logaddexp logaddexp2
    logical_and logical_or logical_xor lt masked_fill maximum minimum mul multiply ne not_equal polar remainder rsub
    sub subtract true_divide where xlogy __and__ __or__ __xor__ bitwise_left_shift bitwise_right_shift
"""


@rule(*UNARY.split(), *SEVERAL.split())
def elementwise(op: Op) -> Any:
    """Tie axes that broadcast onto each other."""
    if (op.name == "aten.where" and op["self"] is None) or (op.name.endswith("dropout") and op["train"]):
        raise NotImplementedError  # positions of true entries, or noise that no permutation preserves
    axes = op.spread(op.operands(), op.shape)
    return (axes,) * len(op.shapes) if len(op.shapes) > 1 else axes


@rule("to", "_to_copy", "type_as", "clone", "contiguous", "detach", "lift_fresh_copy", "lift_fresh", "_to_dtype")
def same(op: Op) -> Any:
    """Keep the labels of a copy, perhaps in another dtype."""
    return op.value("self")


@rule("copy")
def copy(op: Op) -> Any:
    """Label a tensor that is overwritten by another."""
    return op.spread([op.axes("src")], op.shape)


@rule("prelu", "_prelu_kernel")
def prelu(op: Op) -> Any:
    """Tie the slopes to the channels."""
    axes, slope = op.axes("self"), op.axes("weight")
    if op.name == "aten._prelu_kernel":
        return op.spread([axes, slope], op.shape)
    if slope and slope[0].size > 1:
        axes[1] = op.spread([[axes[1]], slope], [axes[1].size])[0]
    return axes


@rule("zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
      "new_full", "new_empty", "scalar_tensor", "fill", "zero", "empty_permuted")  # fmt: skip
def filled(op: Op) -> Any:
    """Label a constant tensor, which every permutation preserves."""
    return [Invariant(size) for size in op.shape]


def dims_of(given: Any, ndim: int) -> list[int]:
    """Return one or several dimensions as non-negative numbers; None means all."""
    given = [given] if isinstance(given, int) else given
    return [d % ndim for d in given] if given else list(range(ndim))


@rule("sum", "mean", "amax", "amin", "prod", "var", "std", "var_mean", "std_mean", "logsumexp", "linalg_vector_norm",
      "linalg_norm", "norm", "any", "all", "nansum", "nanmean", "count_nonzero", "aminmax")  # fmt: skip
def reduction(op: Op) -> Any:
    """Drop the reduced axes; the result is a symmetric function of the entries along them."""
    axes = op.axes("self")
    gone = dims_of(op["dim"], len(axes)) if axes else []
    kept = [Invariant(1) if i in gone else axis for i, axis in enumerate(axes) if i not in gone or op["keepdim"]]
    return (kept,) * len(op.shapes) if len(op.shapes) > 1 else kept


@rule("max", "min", "argmax", "argmin", "sort", "argsort", "topk", "mode", "median", "kthvalue")
def ordering(op: Op) -> Any:
    """Label the largest entries, and their positions along the axis that they come from."""
    if op.name in ("aten.max", "aten.min") and op["other"] is not None:
        return elementwise(op)
    axes = op.axes("self")
    if not axes or (op["dim"] is None and op.name not in ("aten.sort", "aten.argsort", "aten.topk")):
        for axis in axes if op.name.startswith("aten.arg") else []:
            op.freeze(axis)
        return [Invariant(1)] * len(op.shape)
    dim = (-1 if op["dim"] is None else op["dim"]) % len(axes)
    source, rest = axes[dim], list(axes)
    op.mix(source)
    if len(op.shape) < len(axes):
        del rest[dim]
    else:
        rest[dim] = fixed(op.shape[dim], op.name)
    if isinstance(source, Invariant) or not distinct_along(op["self"], dim):
        if not isinstance(source, Invariant):
            op.freeze(source, f"{op.name} of entries that may be equal")  # ties go to the first
        where = Labels(tuple(rest))
    else:
        where = Labels(tuple(rest), points_to=source)
    if op.name.startswith("aten.arg"):
        return where
    return (rest, where)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "special_softmax", "softmin")
def softmax(op: Op) -> Any:
    """Keep the labels; softmax is permutation-equivariant along its axis."""
    axes = op.axes("self")
    op.mix(axes[op["dim"] % len(axes)])
    return axes


@rule("cumsum", "cumprod", "logcumsumexp", "flip", "roll", "tril", "triu", "cummax", "cummin", "rot90", "diff")
def positional(op: Op) -> Any:
    """Pin the axes whose order matters."""
    if op["prepend"] is not None or op["append"] is not None:
        raise NotImplementedError
    axes = op.axes("self")
    if op.name in ("aten.tril", "aten.triu"):
        dims = [len(axes) - 2, len(axes) - 1]
    else:
        dims = dims_of(op["dim"] if op["dim"] is not None else op["dims"], len(axes))
    result = [op.pin(axis, op.shape[i]) if i in dims else axis for i, axis in enumerate(axes)]
    if op.name in ("aten.cummax", "aten.cummin"):
        return result, [op.pin(axis) for axis in result]
    return result


@rule("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft", "fft_fft2", "fft_ifft2", "fft_rfft2",
      "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "fft_fftshift", "fft_ifftshift", "_fft_r2c",
      "_fft_c2r", "_fft_c2c")  # fmt: skip
def fourier(op: Op) -> Any:
    """Pin the axes of the transform; all other positions are transformed separately."""
    axes = op.axes("self")
    lengths = op["s"] if op["dim"] is None and op["s"] is not None else None
    dims = dims_of(op["dim"], len(axes)) if lengths is None else range(len(axes) - len(lengths), len(axes))
    return [op.pin(axis, op.shape[i]) if i in dims else axis for i, axis in enumerate(axes)]


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(op: Op) -> Any:
    """Tie scale and shift to the normalized axes; the statistics are symmetric."""
    axes = op.axes("input")
    last = len(op["normalized_shape"])
    for name in ("weight", "bias"):
        for axis, own in zip(axes[-last:], op.axes(name), strict=False):
            op.tie(axis, own)
    op.mix(*axes[-last:])
    axes = op.spread([axes, op.axes("weight"), op.axes("bias")], op.shape)
    kept = [*axes[:-last], *[Invariant(1)] * last]
    return (axes, *[kept] * (len(op.shapes) - 1)) if len(op.shapes) > 1 else axes


@rule("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training", "native_batch_norm",
      "_native_batch_norm_legit", "cudnn_batch_norm")  # fmt: skip
def batch_norm(op: Op) -> Any:
    """Tie statistics, scale and shift to the channels, each of which is normalized separately."""
    axes = op.axes("input")
    own = [op.axes(name) for name in ("weight", "bias", "running_mean", "running_var")]
    axes[1] = op.spread([[axes[1]], *own], [axes[1].size])[0]
    if op.name == "aten.instance_norm":
        op.mix(*axes[2:])
    elif not own[2] or op["training"] or op["train"]:
        op.mix(axes[0], *axes[2:])
    others = [
        None if s is None else [axes[1]] if s == (axes[1].size,) else [fixed(n, op.name) for n in s]
        for s in op.shapes[1:]
    ]
    return (axes, *others) if others else axes


@rule("group_norm", "native_group_norm")
def group_norm(op: Op) -> Any:
    """Let channels move within groups, and groups as wholes."""
    axes = op.axes("input")
    count = op["num_groups"] or op["group"]
    groups, inner = Axis(count), Axis(axes[1].size // count)
    axes[1] = op.spread([[axes[1]], op.axes("weight"), op.axes("bias")], [axes[1].size])[0]
    if isinstance(axes[1], Invariant):
        axes[1] = op.pin(axes[1])
    op.tie(axes[1], product([groups, inner]))
    op.mix(inner, *axes[2:])
    return (axes, *[[axes[0], groups]] * (len(op.shapes) - 1)) if len(op.shapes) > 1 else axes


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(op: Op) -> Any:
    """Label weights made of a direction and a length for each index along one axis."""
    axes = op.spread([op.axes("v"), op.axes("g")], op.shapes[0] or ())
    op.mix(*[axis for i, axis in enumerate(axes) if i != op["dim"] % len(axes)])
    others = [Invariant(1) if n == 1 else axis for n, axis in zip(op.shapes[-1] or (), axes, strict=False)]
    return (axes, others) if len(op.shapes) > 1 else axes


@rule("glu")
def glu(op: Op) -> Any:
    """Tie the two halves of an axis, one of which gates the other."""
    axes = op.axes("self")
    dim = op["dim"] % len(axes)
    half = axes[dim].size // 2
    first, second = cut(op, axes[dim], [half, half])
    op.tie(first, second)
    axes[dim] = first
    return axes
