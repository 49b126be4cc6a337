"""Empirical neural tangent kernel of a network, computed in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacrev, jvp, vjp, vmap

from ..._checks import whole
from ..._errors import InputError
from ...parameters import called_with, unchanged

_BYTES = 1 << 28  # size of the Jacobians that are held at a time


def empirical_ntk(
    model: nn.Module,
    rows: Float[Tensor, "rows ..."],
    columns: Float[Tensor, "columns ..."] | None = None,
    *,
    every_output: bool = False,
    bytes_at_once: int = _BYTES,
) -> Float[Tensor, "rows columns ..."]:
    """Compute $\\Theta(x, x') = \\sum_\\theta \\partial_\\theta f(x)\\, \\partial_\\theta f(x')$ over the parameters.

    Gradients are plain, as for SGD with one learning rate. Jacobians are contracted block by block and never stored as
    a whole. They are not formed at all if all parameters belong to `nn.Linear` layers, each of which adds
    $(h \\cdot h' + 1)(\\delta \\cdot \\delta')$. The model is left unchanged, also after an exception.

    Args:
        model: Module with one input and one output tensor, batch first; frozen parameters do not count.
        rows: Inputs `(rows, ...)`.
        columns: Inputs `(columns, ...)`, or None for the rows again.
        every_output: Whether to return all pairs of outputs, `(rows, columns, outputs, outputs)`, rather than the mean
            over pairs of equal outputs, which is the kernel of a wide network.
        bytes_at_once: Size of the Jacobians stored at a time, in bytes.

    Returns:
        Kernel `(rows, columns)` in the dtype of the parameters.

    Raises:
        InputError: For a model without parameters; for batch normalization or dropout in training mode, or outputs that
            depend on other rows, for which the kernel is not a function of two inputs; for inputs or gradients that are
            not finite.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> empirical_ntk(net, torch.randn(5, 3)).shape
        torch.Size([5, 5])
    """
    parameters = _trainable(model)
    for x in (rows, columns):
        if x is not None:
            _need_inputs(x)
    whole("bytes_at_once", bytes_at_once)
    rows, columns = rows.detach().clone(), None if columns is None else columns.detach().clone()
    if columns is not None and columns.shape[1:] != rows.shape[1:]:
        raise InputError(
            f"inputs must have one shape, got rows of {tuple(rows.shape[1:])} and {tuple(columns.shape[1:])}"
        )
    with unchanged(model):
        kernel = _kernel(model, parameters, rows, columns, every_output, bytes_at_once)
    if not bool(torch.isfinite(kernel).all()):
        raise InputError(f"a gradient of {type(model).__name__} or the kernel of these inputs is not finite")
    return kernel


def _kernel(
    model: nn.Module, parameters: dict[str, Tensor], rows: Tensor, columns: Tensor | None, every_output: bool,
    bytes_at_once: int,
) -> Tensor:  # fmt: skip
    jacobian = _jacobian(model, parameters)
    outputs = 1
    for x in (rows, columns):  # first, since its errors say what is wrong with the model
        if x is not None and len(x):
            outputs = _need_rows_apart(model, x)
    if not every_output and len(rows) and (columns is None or len(columns)):
        layered = _by_layers(model, parameters, rows, columns)
        if layered is not None:
            return layered
    first = next(iter(parameters.values()))
    each = outputs * sum(p.numel() for p in parameters.values()) * first.element_size()
    block = max(1, bytes_at_once // max(1, 2 * each))
    others = rows if columns is None else columns
    shape = (len(rows), len(others), *([outputs, outputs] if every_output else []))
    out = torch.zeros(shape, dtype=first.dtype, device=first.device)
    for i in range(0, len(rows), block):
        left = jacobian(rows[i : i + block])
        for j in range(i if columns is None else 0, len(others), block):
            right = left if columns is None and i == j else jacobian(others[j : j + block])
            if every_output:
                part = torch.einsum("aop,bqp->aboq", left, right)
            else:
                part = left.flatten(1) @ right.flatten(1).T / outputs
            out[i : i + block, j : j + block] = part
            if columns is None and i != j:
                out[j : j + block, i : i + block] = part.permute(1, 0, 3, 2) if every_output else part.T
    return out


def ntk_vector_product(
    model: nn.Module, x: Float[Tensor, "rows ..."], v: Float[Tensor, "rows ..."]
) -> Float[Tensor, "rows ..."]:
    """Compute $\\Theta(x, x)\\, v$ over all pairs of outputs by one backward and one forward pass, without the kernel.

    Args:
        model: Module with one input and one output tensor, batch first; frozen parameters do not count.
        x: Inputs `(rows, ...)`.
        v: Real tensor of the shape of the model's output.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> ntk_vector_product(net, torch.zeros(1, 3), torch.ones(1, 2))  # contribution of the biases
        tensor([[1., 1.]])
    """
    parameters = _trainable(model)
    _need_inputs(x)
    x = x.detach()

    def outputs(p: dict[str, Tensor]) -> Tensor:
        return called_with(model, {**p, **rest()}, (x.clone(),))  # type: ignore[no-any-return]

    with unchanged(model):
        _need_rows_apart(model, x)
        rest = _rest(model, parameters)
        value, back = vjp(outputs, parameters)[:2]
        if not isinstance(v, Tensor) or v.shape != value.shape or v.is_complex():
            got = f"{tuple(v.shape)}, {v.dtype}" if isinstance(v, Tensor) else type(v).__name__
            raise InputError(f"v must be real with the shape of the output {tuple(value.shape)}, got {got}")
        (gradient,) = back(v.to(value))
        product = jvp(outputs, (parameters,), (gradient,))[1]
    if not bool(torch.isfinite(product).all()):
        raise InputError(f"a gradient of {type(model).__name__}, or v, is not finite on these inputs")
    return product.detach()


def _need_inputs(x: object) -> None:
    if not isinstance(x, Tensor) or not x.ndim:
        got = f"a {x.ndim}-dimensional tensor" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"inputs must be tensors (rows, ...), got {got}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("inputs must be finite, got NaN or infinity")


def _need_rows_apart(model: nn.Module, x: Tensor) -> int:
    """Return the number of outputs of a row; check that the first and last row do not depend on the others."""
    with torch.no_grad():
        every = _tensor(model, x.clone())
        every = every[None] if not every.ndim and len(x) == 1 else every
        if every.ndim == 0 and len(x):
            raise InputError(f"{type(model).__name__} gives one number for {len(x)} rows, expected one row for each")
        for row in {0, len(x) - 1} if len(x) else ():
            alone = _tensor(model, x[row : row + 1].clone()).flatten()
            close = torch.finfo(every.dtype).eps ** 0.5 * float(every.abs().max())
            if float((every[row].flatten() - alone).abs().max() if alone.numel() else 0) > close:
                raise InputError(
                    f"the outputs of {type(model).__name__} for a row depend on the other rows or are random, but a "
                    "tangent kernel is a function of two inputs"
                )
    return every[:1].numel() if len(x) else 0


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be an nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        kind = type(module).__name__
        chance: Any = getattr(module, "p" if "Dropout" in kind else "dropout", 0.0)
        if module.training and ("BatchNorm" in kind or (isinstance(chance, float) and chance > 0)):
            raise InputError(
                f"{name or kind} ({kind}) makes outputs random or dependent on the rest of the batch, but a tangent "
                "kernel is a function of two inputs: call eval() first"
            )
    lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise InputError(f"the parameter {lazy[0]} has no values yet: run the model on one batch first")
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError(f"{type(model).__name__} has no parameter that requires gradients")
    return parameters


def _rest(model: nn.Module, parameters: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Return a function that gives frozen parameters and copies of buffers, which a transform may overwrite."""
    frozen = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    buffers = dict(model.named_buffers())
    return lambda: {**frozen, **{name: buffer.clone() for name, buffer in buffers.items()}}


def _jacobian(model: nn.Module, parameters: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function from rows to their Jacobians, `(rows, outputs, parameters)`."""
    rest = _rest(model, parameters)

    def one(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return called_with(model, {**p, **rest()}, (x[None],)).flatten()  # type: ignore[no-any-return]

    def of(x: Tensor) -> Tensor:
        # nested batching rules of torch are wrong for some operations (prelu) and missing for others
        for chunk in (None, 1):
            try:
                parts = vmap(jacrev(one, chunk_size=chunk), (None, 0))(parameters, x)
            except RuntimeError:
                continue
            found = torch.cat([part.flatten(2) for part in parts.values()], 2).detach()
            if _agrees(model, parameters, x, found):
                return found
        return torch.stack([_row_jacobian(model, parameters, row[None]) for row in x])

    return of


def _gradients(model: nn.Module, parameters: dict[str, Tensor], of: Tensor) -> Tensor:
    own = dict(model.named_parameters())
    given = [own[name] for name in parameters]
    found = torch.autograd.grad(of, given, retain_graph=True, allow_unused=True)
    pairs = zip(given, found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def _agrees(model: nn.Module, parameters: dict[str, Tensor], x: Tensor, jacobian: Tensor) -> bool:
    """Return whether a Jacobian agrees with the gradient of a random sum of outputs."""
    with torch.enable_grad():
        out = _tensor(model, x.clone()).reshape(len(x), -1)
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
        exact = _gradients(model, parameters, (out * probe).sum()) if out.requires_grad else torch.zeros(())
    found = torch.einsum("ro,rop->p", probe, jacobian)
    return not float((found - exact).norm()) > torch.finfo(out.dtype).eps ** 0.5 * float(found.norm() + exact.norm())


def _row_jacobian(model: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        return torch.stack([_gradients(model, parameters, out) for out in _tensor(model, x.clone()).flatten()])


def _by_layers(model: nn.Module, parameters: dict[str, Tensor], rows: Tensor, columns: Tensor | None) -> Tensor | None:
    """Return the kernel without Jacobians if all parameters are in linear layers that read one vector per input."""
    layers = {name: m for name, m in model.named_modules() if type(m) is nn.Linear}
    owned = {f"{name}.{own}" if name else own for name, m in layers.items() for own, _ in m.named_parameters()}
    shared = len(owned) != len({id(p) for m in layers.values() for p in m.parameters()})
    if not set(parameters) <= owned or shared or not layers:
        return None
    with torch.enable_grad():
        left = _layer_signals(model, layers, rows)
        if left is not None and not _complete(model, layers, parameters, left, rows):
            return None
    right = left
    if columns is not None:
        with torch.enable_grad():
            right = _layer_signals(model, layers, columns)
    if left is None or right is None:
        return None
    total: Tensor | None = None
    for name in layers:
        if name not in left[0]:
            continue
        prefix = f"{name}." if name else ""
        weight, bias = f"{prefix}weight" in parameters, f"{prefix}bias" in parameters
        (h, d), (g, e) = (side[0][name] for side in (left, right))
        factor = (h @ g.T if weight else 0) + (1.0 if bias else 0.0)
        part = d.flatten(1) @ e.flatten(1).T * factor / left[1]
        total = part if total is None else total + part
    return total


def _complete(
    model: nn.Module, layers: dict[str, nn.Linear], parameters: dict[str, Tensor],
    signals: tuple[dict[str, tuple[Tensor, Tensor]], int], x: Tensor,
) -> bool:  # fmt: skip
    """Return whether the recorded calls explain the whole gradient of the layers, tested on a random sum of outputs."""
    generator = torch.Generator().manual_seed(0)
    out = _tensor(model, x.clone()).reshape(len(x), -1)
    probe = torch.randn(out.shape, generator=generator).to(out)
    given = dict(model.named_parameters())
    names = list(parameters)
    exact = torch.autograd.grad(out, [given[name] for name in names], probe, allow_unused=True)
    for name, grad in zip(names, exact, strict=True):
        layer, _, kind = name.rpartition(".")
        if layer not in signals[0]:
            if grad is not None and bool(grad.any()):
                return False
            continue
        h, d = signals[0][layer]
        delta = torch.einsum("ro,roi->ri", probe, d)
        found = delta.T @ h if kind == "weight" else delta.sum(0)
        size = float(found.norm()) + (0.0 if grad is None else float(grad.norm()))
        if float((found - (0 if grad is None else grad)).norm()) > 1e-3 * size:
            return False
    return True


def _tensor(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a model, which must be one real tensor with one row for each input."""
    try:
        out = model(x)
    except Exception as error:
        raise InputError(f"{type(model).__name__} fails on these inputs ({type(error).__name__}: {error})") from error
    if not isinstance(out, Tensor) or not out.is_floating_point() or (out.ndim and len(out) != len(x)):
        raise InputError(
            f"a tangent kernel needs a model with one tensor (rows, ...) of real numbers, got {type(out).__name__}"
        )
    return out


def _layer_signals(
    model: nn.Module, layers: dict[str, nn.Linear], x: Tensor
) -> tuple[dict[str, tuple[Tensor, Tensor]], int] | None:
    """Return the inputs of every layer, `(rows, in)`, and the gradients by its outputs, `(rows, outputs, out)`."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    fits = True

    def hook(name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            nonlocal fits
            fits &= output.ndim == 2 and len(output) == len(x) and name not in seen
            seen[name] = given[0].detach(), output
            return output.clone()

        return keep

    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    try:
        with torch.enable_grad():
            # below a frozen layer, only the input requires gradients
            out = model(x.detach().clone().requires_grad_(x.is_floating_point()).clone())
    finally:
        for handle in handles:
            handle.remove()
    if not fits or not isinstance(out, Tensor) or not out.requires_grad or len(out) != len(x):
        return None
    flat, names = out.reshape(len(x), -1), list(seen)
    grads: dict[str, list[Tensor]] = {name: [] for name in names}
    for k in range(flat.shape[1]):
        found = torch.autograd.grad(
            flat[:, k].sum(), [seen[name][1] for name in names], retain_graph=True, allow_unused=True
        )
        for name, grad in zip(names, found, strict=True):
            grads[name].append(torch.zeros_like(seen[name][1]) if grad is None else grad)
    return {name: (seen[name][0], torch.stack(grads[name], 1).detach()) for name in names}, flat.shape[1]
