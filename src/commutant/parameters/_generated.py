"""Parameters made by a network: a linear map whose weights are a function of a code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ._given import kind_of


class GeneratedLinear(nn.Module):
    """A linear map `W(g) z` whose matrix is linear in a code: `W(g) = sum_a h_a(g) W_a`.

    Computed as one product of z with all `W_a` and a contraction with the code, so that no matrix is made for a sample:
    memory `batch * code * out` in place of `batch * out * in`.

    Without `hidden` and biases, `h(g) = g` and the map is linear in z and in g; then `W(0) = 0`, and no code can be
    ignored: a constant output for all codes would need them to lie in a plane that misses the origin.

    Args:
        in_features: of z.
        out_features: of the result.
        code_features: of g.
        hidden: widths of a network with ReLU that the code passes through first.
        bias: also generate a bias, linear in the code.
        hyper_bias: add a matrix that does not depend on the code.
        rank: of each `W_a`; full by default.

    Shapes:
        z `(*batch, in_features)`, g `(*batch, code_features)`, out `(*batch, out_features)`.

    Example:
        >>> layer = GeneratedLinear(8, 5, 4)
        >>> layer(torch.randn(10, 8), torch.randn(10, 4)).shape
        torch.Size([10, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        code_features: int,
        *,
        hidden: Sequence[int] = (),
        bias: bool = False,
        hyper_bias: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("code_features", code_features),
        ):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if isinstance(hidden, int) or not all(isinstance(n, int) and n >= 1 for n in hidden):
            raise InputError(f"hidden must be a list of whole numbers of at least 1, got {hidden!r}")
        if rank is not None and not 1 <= rank <= min(in_features, out_features):
            raise InputError(f"rank must lie in 1 to {min(in_features, out_features)}, got {rank}")
        sizes = (code_features, *hidden)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b, bias=hyper_bias), nn.ReLU()]
        self.code = nn.Sequential(*layers)
        self.in_features, self.out_features, self.code_features = in_features, out_features, code_features
        self.hyper_bias, self.rank = hyper_bias, rank
        parts = sizes[-1] + hyper_bias
        inner = out_features if rank is None else rank
        self.weight = nn.Parameter(torch.empty(parts, inner, in_features))
        self.lift = None if rank is None else nn.Parameter(torch.empty(parts, out_features, rank))
        self.bias = nn.Parameter(torch.zeros(parts, out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices so that a code of length one keeps the size of z: deviations `1 / sqrt(in_features)`."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        if self.lift is not None and self.rank is not None:
            nn.init.normal_(self.lift, std=self.rank**-0.5)

    def forward(self, z: Float[Tensor, "*batch in"], g: Float[Tensor, "*batch code"]) -> Float[Tensor, "*batch out"]:
        """`W(g) z`, and the generated bias."""
        for name, value in (("z", z), ("g", g)):
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor, got {kind_of(value)}")
            autocast = torch.is_autocast_enabled(value.device.type)
            if value.dtype != self.weight.dtype and not autocast:
                raise InputError(f"{name} must be {self.weight.dtype} like the weights, got {value.dtype}")
        if z.shape[-1:] != (self.in_features,) or g.shape[-1:] != (self.code_features,) or z.shape[:-1] != g.shape[:-1]:
            raise InputError(
                f"z must be (..., {self.in_features}) and g (..., {self.code_features}) with the same batch, got "
                f"{tuple(z.shape)} and {tuple(g.shape)}"
            )
        shares = self._shares(g)
        found = (z @ self.weight.flatten(0, 1).mT).unflatten(-1, self.weight.shape[:2])
        if self.lift is None:
            out = torch.einsum("...a,...ao->...o", shares, found)
        else:
            out = torch.einsum("...a,aor,...ar->...o", shares, self.lift, found)
        return out if self.bias is None else out + shares @ self.bias

    def matrix(self, g: Float[Tensor, "*batch code"]) -> Float[Tensor, "*batch out in"]:
        """The matrix `W(g)` itself."""
        whole = self.weight if self.lift is None else self.lift @ self.weight
        return torch.einsum("...a,aoi->...oi", self._shares(g), whole)

    def _shares(self, g: Tensor) -> Tensor:
        shares: Tensor = self.code(g)
        return torch.cat([shares, torch.ones_like(shares[..., :1])], -1) if self.hyper_bias else shares

    def extra_repr(self) -> str:
        rank = "" if self.rank is None else f", rank={self.rank}"
        return f"{self.in_features}, {self.out_features}, code={self.code_features}{rank}"
