"""Random features of sets: an attention layer whose query-key matrices are drawn and frozen."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .._checks import check_generator, one_of, whole
from .._errors import InputError
from ..algebra import Blocks
from ..algebra.arithmetic import promote_half
from ..algebra.plans import lazy_plan
from ..laws import BatchIndependence, Invariance, SetPermutation, obeys
from ._aggregation import SetAggregation
from ._law_cases import order_of_three, query_and_keys, sets_of_a_batch
from ._tokens import Bias, augmented, bias_matrix, check_tokens

_CHUNK = 1 << 24  # most pre-activations of several sets held at once; one set is never split


@obeys(
    "invariance to the order of keys",
    lambda draw: query_and_keys(draw, lambda d: RandomAttentionFeatures(d, d, 8), Invariance(SetPermutation().on(1))),
)
@obeys(
    "batch independence",
    lambda draw: query_and_keys(
        draw, lambda d: RandomAttentionFeatures(d, d, 8, bias="identity", orthogonal=True), BatchIndependence()
    ),
)
class RandomAttentionFeatures(nn.Module):
    r"""Features of a query and a set of keys from an attention layer with random, frozen query-key matrices.

    With tokens augmented by one, $\tilde x = (x, 1)$, head m gives

    $$\phi_m(x_0; x_{1:N}) = \frac{1}{\sqrt M} \frac{1}{N} \sum_i \mathrm{ReLU}(\tilde x_0^\top W_m \tilde x_i)\, \tilde
    x_i,$$

    where the entries of $W_m$ are drawn from N(0, 1/4), so that pre-activations of unit tokens are standard normal. A
    linear model on these features is fitted in closed form; it expresses averages over keys of functions of the query
    and one key, and nothing else. It is unrelated to "Random Feature Attention" (Peng et al. 2021), which approximates
    the softmax kernel by random Fourier features.

    Scale tokens to norms of about one first; `RandomAttentionRegressor` does.

    Args:
        query_features: Number of features of a query.
        key_features: Number of features of a key.
        num_heads: Number of heads M.
        bias: Mean of the matrices: None for zero, `"identity"` for the identity on the features (not on the constant),
            or a matrix of shape `(query_features + 1, key_features + 1)`. The identity is a prior for targets that
            depend on the inner product of query and key.
        orthogonal: Whether matrices are drawn as rows of random orthogonal matrices, rescaled to the norms of Gaussian
            ones. This lowers the variance of the features' inner products at the same number of heads.
        generator: Source of the matrices, on the CPU; by default torch's global generator.

    Shapes:
        query `(sets, query_features)`, keys `(sets, n, key_features)` to `(sets, num_heads * (key_features + 1))`.

    Raises:
        InputError: If an argument is not valid, or shapes or dtypes do not fit.

    References:
        Fu et al. (2023), "What can a Single Attention Layer Learn? A Study Through the Random Features Lens".

    Example:
        >>> features = RandomAttentionFeatures(3, 3, num_heads=16)
        >>> features(torch.randn(5, 3), torch.randn(5, 7, 3)).shape
        torch.Size([5, 64])
    """

    weight: Tensor

    def __init__(
        self,
        query_features: int,
        key_features: int,
        num_heads: int = 256,
        *,
        bias: Bias = None,
        orthogonal: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("query_features", query_features),
            ("key_features", key_features),
            ("num_heads", num_heads),
        ):
            whole(name, value)
        one_of("orthogonal", orthogonal, (False, True))
        check_generator(generator)
        mean = bias_matrix(bias, query_features, key_features)
        size = (query_features + 1) * (key_features + 1)
        rows = _orthogonal(num_heads, size, generator) if orthogonal else _normal(num_heads, size, generator)
        weight = (rows / 2).reshape(num_heads, query_features + 1, key_features + 1)
        self.register_buffer("weight", (weight if mean is None else weight + mean).to(torch.get_default_dtype()))

    @property
    def out_features(self) -> int:
        """Number of features of a set."""
        return self.weight.shape[0] * self.weight.shape[2]

    def forward(
        self,
        query: Float[Tensor, "sets d_query"],
        keys: Float[Tensor, "sets n d_key"],
        mask: Bool[Tensor, "sets n"] | None = None,
    ) -> Float[Tensor, "sets features"]:
        """Return the features of each set; those of a set without keys are zero.

        Args:
            query: Query of each set.
            keys: Keys of each set.
            mask: Whether a key exists; by default all do.
        """
        check_tokens(query, keys, mask, self.weight)
        given, expected = (query.shape[1], keys.shape[2]), tuple(s - 1 for s in self.weight.shape[1:])
        if given != expected:
            raise InputError(f"queries and keys must have {expected} features, got {given}")
        heads = self.weight.shape[0]
        tokens = augmented(promote_half(keys))  # sums in half precision may overflow
        count = tokens.new_full((len(keys), 1, 1), keys.shape[1])
        if mask is not None:
            tokens = tokens.masked_fill(~mask[..., None], 0.0)  # also where a missing key holds NaN
            count = mask.sum(1)[:, None, None].to(tokens)
        directions = torch.einsum("sa,mab->smb", augmented(promote_half(query)), promote_half(self.weight))
        scores = (directions @ tokens.transpose(1, 2)).relu()
        pooled = scores @ tokens / (count.clamp(min=1) * heads**0.5)
        return pooled.flatten(1).to(keys.dtype)


def features_of_sets(features: RandomAttentionFeatures, query: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    """Return the features of sets of different sizes, `(sets, features)`.

    Args:
        features: Random features.
        query: Query of each set.
        x: Elements of all sets, sorted by set, `(elements, key_features)`.
        sizes: Number of elements of each set.
    """
    blocks = Blocks(sizes)
    parts = []
    for keys, asked in zip(blocks.split(x, 1), blocks.split(query, 0), strict=True):
        rows = max(1, _CHUNK // (features.weight.shape[0] * max(1, keys.shape[1])))
        chunks = zip(asked.split(rows), keys.split(rows), strict=True)
        parts.append(torch.cat([features(q, k) for q, k in chunks]))
    return blocks.join(parts, 0)


@obeys(
    "batch independence",
    lambda draw: sets_of_a_batch(draw, lambda: RandomAttentionAggregation(draw.width, 4, 8), draw.width),
)
@obeys(
    "invariance to order",
    lambda draw: order_of_three(draw, lambda: RandomAttentionAggregation(8, 4, 8)),
)
class RandomAttentionAggregation(SetAggregation):
    """Aggregation for PyG: random attention features of each set with the mean as the query, and a trained linear
    layer.

    The only trained parameters are those of the linear layer, so the model is convex in them; see
    `RandomAttentionFeatures`. An empty set gives the bias of the layer.

    Args:
        in_channels: Number of features of an element.
        out_channels: Number of features of the result.
        num_heads: Number of heads.
        bias: Mean of the query-key matrices, as for `RandomAttentionFeatures`.
        orthogonal: Whether heads are drawn orthogonal.
        generator: Source of the heads, on the CPU.

    Shapes:
        x `(elements, in_channels)` to `(sets, out_channels)`.

    Raises:
        InputError: If an index is out of range, lengths do not match, or features do not fit.

    Example:
        >>> agg = RandomAttentionAggregation(4, 8, num_heads=16)
        >>> agg(torch.randn(6, 4), torch.tensor([0, 0, 1, 2, 2, 2])).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int = 64,
        *,
        bias: Bias = None,
        orthogonal: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole("out_channels", out_channels)
        self.features = RandomAttentionFeatures(
            in_channels, in_channels, num_heads, bias=bias, orthogonal=orthogonal, generator=generator
        )
        self.linear = nn.Linear(self.features.out_features, out_channels)

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.features.weight.shape[2] - 1:
            channels = self.features.weight.shape[2] - 1
            raise InputError(f"x must have shape (elements, {channels}), got {tuple(x.shape)}")
        plan = lazy_plan(num_elements=x.shape[0], index=index, ptr=ptr, num_sets=num_sets)
        x = x if plan.order is None else x[plan.order]
        owner = torch.repeat_interleave(plan.sizes)
        total = promote_half(x).new_zeros(plan.num_sets, x.shape[1]).index_add(0, owner, promote_half(x))
        mean = (total / plan.sizes.clamp(min=1)[:, None]).to(x.dtype)
        return self.linear(features_of_sets(self.features, mean, x, plan.sizes))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Reinitialize the linear layer; the heads stay."""
        self.linear.reset_parameters()


def _normal(rows: int, size: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(rows, size, generator=generator, dtype=torch.float64)


def _orthogonal(rows: int, size: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows that are orthogonal within each group of `size`, with the norms of Gaussian rows."""
    found = []
    for start in range(0, rows, size):
        count = min(size, rows - start)
        q, r = torch.linalg.qr(_normal(size, count, generator))
        found.append((q * r.diagonal().sign()).T)  # with these signs the directions are uniform
    norms = _normal(rows, size, generator).norm(dim=1, keepdim=True)
    return torch.cat(found) * norms
