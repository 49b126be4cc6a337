"""Attention-only transformer whose layers write into columns of their own, and weights that undo permutations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .._checks import check_features, one_of, positive, whole
from .._errors import InputError
from ..algebra import is_permutation
from ._masks import causal_mask, full_mask, min_scratch

Variant: TypeAlias = Literal["robust", "paper"]
MaskName: TypeAlias = Literal["none", "causal"]


class DisentangledTransformer(nn.Module):
    r"""Attention-only transformer that concatenates the output of each layer instead of adding it.

    $h_0 = [X, I]$ holds tokens and one-hot positions; $h_{l+1} = [h_l, \mathrm{softmax}(h_l A_{l+1} h_l^\top) h_l]$,
    without scale, values or MLPs. Each layer's output stays in its own named columns, so that weights can be read and
    written: `set_block(1, "token", "P", matrix)`. It computes what an ordinary attention-only network of the same depth
    computes.

    A model is tied to one length, since positions are one-hot. Each layer multiplies the width by `1 + heads`.

    Args:
        token_features: Width of a token.
        positions: Number of positions of each named part of the sequence, in order.
        layers: Number of layers.
        heads: Number of heads.
        mask: Whether a row attends to a column, `(length, length)`; None for all.
        bos: Whether a first position with zero token and zero one-hot precedes the parts.
        readout: Width of a final linear map, or None.

    Shapes:
        `(batch, length, token_features)` -> `(batch, length, width)`, or `(batch, length, readout)`

    Example:
        >>> model = DisentangledTransformer(3, {"P": 3, "Y": 3}, layers=2)
        >>> [(name, c.stop - c.start) for name, c in model.columns(1).items()]
        [('token', 3), ('P', 3), ('Y', 3), ('1.0.token', 3), ('1.0.P', 3), ('1.0.Y', 3)]

    Reference:
        Nichani, Damian and Lee, "How Transformers Learn Causal Structure with Gradient Descent", ICML 2024.
    """

    positions: Tensor
    mask: Tensor

    def __init__(
        self,
        token_features: int,
        positions: Mapping[str, int],
        layers: int,
        heads: int = 1,
        mask: Bool[Tensor, "length length"] | None = None,
        bos: bool = False,
        readout: int | None = None,
    ) -> None:
        super().__init__()
        for name, given in (("token_features", token_features), ("layers", layers), ("heads", heads)):
            whole(name, given)
        for name, given in positions.items():
            whole(f"positions[{name!r}]", given, 0)
        self.parts = {"token": token_features, **positions}
        if "token" in positions or not sum(positions.values()):
            raise InputError(f"positions must name parts of the sequence other than 'token', got {dict(positions)}")
        count = sum(positions.values())
        encoding = torch.eye(count)
        self.register_buffer("positions", torch.cat([torch.zeros(1, count), encoding]) if bos else encoding)
        length = count + bos
        given_mask = full_mask(length) if mask is None else mask
        if given_mask.dtype != torch.bool or given_mask.shape != (length, length) or not bool(given_mask.any(1).all()):
            raise InputError(
                f"mask must be boolean of shape ({length}, {length}) with a True in each row, got {given_mask.dtype} "
                f"of shape {tuple(given_mask.shape)}"
            )
        self.register_buffer("mask", given_mask.clone())
        width = token_features + count
        self.weights = nn.ParameterList()
        for _ in range(layers):
            self.weights.append(nn.Parameter(torch.zeros(heads, width, width)))
            width *= 1 + heads
        self.width, self.heads = width, heads
        self.readout = None if readout is None else nn.Linear(width, readout, bias=False)

    def forward(self, x: Float[Tensor, "batch length token_features"]) -> Float[Tensor, "batch length width"]:
        """Return the columns of all layers, or the readout.

        Args:
            x: Tokens, `(batch, length, token_features)`.
        """
        length, features = len(self.positions), self.parts["token"]
        if x.dim() != 3 or x.shape[1:] != (length, features):
            raise InputError(f"x must have shape (batch, {length}, {features}), got {tuple(x.shape)}")
        check_features("x", x)
        h = torch.cat([x, self.positions.to(x.dtype).expand(len(x), -1, -1)], -1)
        for weight in self.weights:
            scores = h[:, None] @ weight.to(h.dtype) @ h[:, None].mT
            scores = scores.masked_fill(~self.mask, -torch.inf)
            mixed = scores.softmax(-1) @ h[:, None]  # (batch, heads, length, width)
            h = torch.cat([h, mixed.transpose(1, 2).flatten(2)], -1)
        return h if self.readout is None else nn.functional.linear(h, self.readout.weight.to(h.dtype))

    def columns(self, layer: int) -> dict[str, slice]:
        """Return the columns of each named block after some layers; `2.0.P` is what head 0 of layer 2 wrote of `P`.

        Args:
            layer: Number of layers.
        """
        whole("layer", layer, 0)
        if layer > len(self.weights):
            raise InputError(f"layer must be at most {len(self.weights)}, got {layer}")
        widths = dict(self.parts)
        for done in range(1, layer + 1):
            own = list(widths.items())
            for head in range(self.heads):
                widths |= {f"{done}.{head}.{name}": width for name, width in own}
        out, start = {}, 0
        for name, width in widths.items():
            out[name] = slice(start, start + width)
            start += width
        return out

    def blocks(self, h: Float[Tensor, "batch length width"]) -> dict[str, Tensor]:
        """Return the named blocks of the columns of all layers.

        Args:
            h: Output of `forward` without a readout.
        """
        columns = self.columns(len(self.weights))
        if h.shape[-1] != self.width:
            raise InputError(f"h must have {self.width} columns, got {h.shape[-1]}")
        return {name: h[..., c] for name, c in columns.items()}

    def set_block(self, layer: int, query: str, key: str, matrix: Float[Tensor, "rows columns"], head: int = 0) -> None:
        """Write the weights with which a layer compares one block of the queries with one of the keys.

        Args:
            layer: Number of the layer, from 1.
            query: Name of the block of the queries.
            key: Name of the block of the keys.
            matrix: Weights, `(width of query, width of key)`.
            head: Number of the head, from 0.
        """
        whole("layer", layer)
        if layer > len(self.weights):
            raise InputError(f"layer must be at most {len(self.weights)}, got {layer}")
        columns = self.columns(layer - 1)
        for name, given in (("query", query), ("key", key)):
            one_of(name, given, columns)
        rows, others = columns[query], columns[key]
        expected = (rows.stop - rows.start, others.stop - others.start)
        if tuple(matrix.shape) != expected or not 0 <= head < self.heads:
            raise InputError(f"matrix must have shape {expected} and head lie in 0..{self.heads - 1}, got "
                             f"{tuple(matrix.shape)} and {head}")  # fmt: skip
        with torch.no_grad():
            self.weights[layer - 1][head, rows, others] = matrix.to(self.weights[layer - 1])


class InversePermutation(nn.Module):
    r"""Two attention layers with explicit weights that undo a permutation of rows: from P and $P Y$ to $Y$.

    Layer 1 copies row i of P to row i of $Y_P = PY$, which stands elsewhere in the sequence. In layer 2, output row j
    looks for the row i with $P_{ij} = 1$. With a causal mask the output must be written after the input: at least
    d - 1 scratch tokens are needed, and they suffice. The robust variant returns exactly Y for any finite Y in
    float32 and bfloat16, without autocast. The variant of the paper needs Y in [0, 1], and a beginning token if it is
    causal.

    The weights are for study; `algebra.inverse` undoes permutations in one line, and `Canonicalize` makes a model
    ignore them.

    Args:
        d: Number of rows.
        mask: "none" or "causal".
        scratch: Number of scratch tokens of a causal network; by default d - 1, for the paper's variant d.
        beta: Sharpness of the attention. From 104 on, float32 gives exact zeros.
        variant: "robust" or "paper".
        features: Width of a row of Y, at most d for the paper's variant.

    Shapes:
        permutation `(batch, d)`, permuted rows `(batch, d, features)` -> rows `(batch, d, features)`

    Example:
        >>> p, y = torch.tensor([[2, 0, 1]]), torch.randn(1, 3, 3)
        >>> bool(torch.equal(InversePermutation(3, "causal")(p, y[:, p[0]]), y))
        True

    Reference:
        Alur, Hays, Raghavan and Shah, "The Impossibility of Inverse Permutation Learning in Transformer Models", 2025,
        theorems 2 and 3.
    """

    def __init__(
        self,
        d: int,
        mask: MaskName = "none",
        scratch: int | None = None,
        beta: float = 120.0,
        variant: Variant = "robust",
        features: int | None = None,
    ) -> None:
        super().__init__()
        whole("d", d)
        one_of("mask", mask, ("none", "causal"))
        one_of("variant", variant, ("robust", "paper"))
        positive("beta", beta)
        paper, causal = variant == "paper", mask == "causal"
        if scratch is None:
            scratch = (d if paper else min_scratch(d)) if causal else 0
        whole("scratch", scratch, 0)
        features = d if features is None else features
        whole("features", features)
        if causal and scratch < min_scratch(d):
            raise InputError(
                f"a causal network needs at least {min_scratch(d)} scratch tokens to undo all permutations of {d} "
                f"rows, got {scratch}"
            )
        if paper and (features > d or scratch != d * causal):
            raise InputError(
                f"the paper's variant has {d * causal} scratch tokens for this mask and at most {d} features, got "
                f"{scratch} and {features}"
            )
        self.d, self.scratch, self.features, self.causal, self.bos = d, scratch, features, causal, paper and causal
        length = 2 * d + scratch + self.bos
        parts = {"P": d, "Y": d, "scratch": scratch}
        self.model = DisentangledTransformer(
            max(d, features), parts, 2, mask=causal_mask(length) if causal else None, bos=self.bos
        )
        (self._write_paper if paper else self._write_robust)(causal, beta)
        self.model.requires_grad_(False)

    def _write_paper(self, causal: bool, beta: float) -> None:
        d, eye = self.d, beta * torch.eye(self.d)
        self.model.set_block(1, "Y", "P", eye)
        lookup = torch.zeros(d, self.model.parts["token"])
        lookup[:, :d] = eye
        self.model.set_block(2, "scratch" if causal else "P", "1.0.token", lookup)

    def _write_robust(self, causal: bool, beta: float) -> None:
        d, s, eye, token = self.d, self.scratch, beta * torch.eye(self.d), self.model.parts["token"]
        self.model.set_block(1, "Y", "P", eye)
        self.model.set_block(1, "P", "P", eye)  # rows of P keep to themselves
        lookup, bonus = torch.zeros(d, token), beta * torch.ones(d, d)
        lookup[:, :d] = eye
        self.model.set_block(1, "scratch", "P", beta * torch.ones(s, d))  # the mean of P, whose entries lose
        if not causal:
            self.model.set_block(2, "P", "1.0.token", lookup)
            self.model.set_block(2, "P", "Y", bonus)  # only rows of Y may win
            return
        queries = self.model.columns(1)
        out = slice(queries["P"].start + d + s, queries["P"].start + 2 * d + s)  # the last d positions
        with torch.no_grad():
            weight = self.model.weights[1]
            weight[0, out, queries["1.0.token"].start : queries["1.0.token"].start + d] = eye
            weight[0, out, queries["Y"]] = bonus

    def encode(
        self, permutation: Int[Tensor, "batch d"], permuted: Float[Tensor, "batch d features"]
    ) -> Float[Tensor, "batch length width"]:
        """Return the tokens `[P; Y_P; scratch]`, after a zero token for the paper's causal variant.

        Args:
            permutation: Permutations p, where row i of the permuted rows is row p[i], `(batch, d)`.
            permuted: Permuted rows, `(batch, d, features)`.
        """
        d = self.d
        if permutation.shape[-1] != d or permutation.dim() != 2 or not is_permutation(permutation):
            raise InputError(f"permutation must hold each of 0 to {d - 1} once in each row, got "
                             f"{permutation.tolist()[:1]} of shape {tuple(permutation.shape)}")  # fmt: skip
        if permuted.shape != (len(permutation), d, self.features):
            raise InputError(
                f"permuted must have shape ({len(permutation)}, {d}, {self.features}), got {tuple(permuted.shape)}"
            )
        if not bool(torch.isfinite(permuted).all()):
            raise InputError("permuted must be finite: attention multiplies every entry by zero, which NaN survives")
        if not permuted.is_floating_point():
            raise InputError(f"permuted must be floating point, got {permuted.dtype}; convert it with .float()")
        x = permuted.new_zeros(len(permuted), len(self.model.positions), self.model.parts["token"])
        start = int(self.bos)
        x[:, start : start + d, :d] = nn.functional.one_hot(permutation.long(), d).to(x.dtype)
        x[:, start + d : start + 2 * d, : self.features] = permuted
        return x

    def decode(self, h: Float[Tensor, "batch length columns"]) -> Float[Tensor, "batch d features"]:
        """Return the rows that the network wrote.

        Args:
            h: Output of the network.
        """
        rows = slice(len(self.model.positions) - self.d, None) if self.causal else slice(0, self.d)
        return h[:, rows, self.model.columns(2)["2.0.token"]][..., : self.features]

    def forward(
        self, permutation: Int[Tensor, "batch d"], permuted: Float[Tensor, "batch d features"]
    ) -> Float[Tensor, "batch d features"]:
        """Return the rows before the permutation.

        Args:
            permutation: Permutations, `(batch, d)`.
            permuted: Permuted rows, `(batch, d, features)`.
        """
        return self.decode(self.model(self.encode(permutation, permuted)))
