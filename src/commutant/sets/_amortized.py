"""Amortized inference: a network that predicts inclusion probabilities, trained by the evidence lower bound."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import check_generator, positive, whole
from .._errors import InputError
from ..algebra.arithmetic import promote_half
from ..laws import Equivariance, SetPermutation, obeys
from ._law_cases import logits_of_elements
from ._layout import encoded, layout_of
from ._set_utility import SetUtility


@obeys(
    "equivariance to order", lambda draw: logits_of_elements(draw, AmortizedInference, Equivariance(SetPermutation(0)))
)
class AmortizedInference(nn.Module):
    r"""Network that predicts the inclusion probability of each element, with independent or correlated samples.

    It replaces the constant at which `MeanField` starts: pass `logits.sigmoid()` as its `start`. Each element is seen
    alone, as in EquiVSet, so the probabilities do not depend on the ground set.

    A sample is $s_i = [\operatorname{logit} \psi_i + \operatorname{logit} u_i > 0]$ with uniform $u_i$, so that
    $P(s_i = 1) = \psi_i$. With `rank`, $u = \Phi(g)$ is a Gaussian copula, where $g = \sigma \epsilon + U \epsilon'$
    divided by its standard deviation, so that $\psi$ are the marginals. The published code omits the division. The
    gradient is that of a sigmoid of temperature `temperature` (straight-through).

    Args:
        encoder: Module from elements `(elements, ...)` to `(elements, features)`.
        features: Number of features that the encoder returns.
        hidden_features: Width of the hidden layer.
        rank: Rank of the copula; 0 for independent elements.
        temperature: Temperature of the gradient.

    Shapes:
        x `(elements, ...)` to logits `(elements,)`.

    Raises:
        InputError: If an argument is not valid.

    References:
        Ou et al. (2022), "Learning Neural Set Functions Under the Optimal Subset Oracle", section 4.

    Example:
        >>> network = AmortizedInference(torch.nn.Linear(3, 16), 16, 32, rank=2)
        >>> network(torch.randn(5, 3)).shape, network.sample(torch.randn(5, 3), 8).shape
        (torch.Size([5]), torch.Size([8, 5]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden_features: int = 128,
        *,
        rank: int = 0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder must be a module, got {type(encoder).__name__}")
        whole("features", features)
        whole("hidden_features", hidden_features)
        whole("rank", rank, 0)
        positive("temperature", temperature)
        self.encoder, self.features, self.rank, self.temperature = encoder, features, rank, temperature
        self.hidden = nn.Sequential(nn.Linear(features, hidden_features), nn.ReLU())
        self.logit = nn.Linear(hidden_features, 1)
        self.scale = nn.Linear(hidden_features, 1) if rank else None
        self.factors = nn.Linear(hidden_features, rank) if rank else None

    def forward(self, x: Float[Tensor, "elements *shape"]) -> Float[Tensor, " elements"]:
        """Return the logit of the inclusion probability of each element.

        Args:
            x: Elements, `(elements, ...)`.
        """
        return self.logit(self._hidden(x)).squeeze(-1)  # type: ignore[no-any-return]

    def _hidden(self, x: Tensor) -> Tensor:
        return self.hidden(encoded(self.encoder, x, self.features, self.logit.weight))  # type: ignore[no-any-return]

    def sample(
        self,
        x: Float[Tensor, "elements *shape"],
        num_samples: int,
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples elements"]:
        """Draw subsets as zeros and ones, with straight-through gradients.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            num_samples: Number of subsets.
            index: Index of the set of each element, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`. Without `index` and `ptr`, all elements are one set.
            generator: Source of randomness; by default torch's global generator.
        """
        return self._drawn(x, num_samples, index, ptr, generator)[0]

    def negative_elbo(
        self,
        utility: SetUtility,
        x: Float[Tensor, "elements *shape"],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_samples: int = 5,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        r"""Return the negative evidence lower bound, averaged over sets: the loss of this network.

        The entropy is that of the marginals, an upper bound if samples are correlated. Step only the parameters of this
        network with its gradient.

        Args:
            utility: Utility.
            x: Elements of all ground sets, `(elements, ...)`.
            index: Index of the set of each element, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`.
            num_samples: Number of subsets.
            generator: Source of randomness; by default torch's global generator.
        """
        if not isinstance(utility, SetUtility) or not isinstance(utility.pool, str):
            given = f"one with the pool {type(utility.pool).__name__}" if isinstance(utility, SetUtility) else "another"
            raise InputError(f"the bound needs a SetUtility with the pool 'sum' or 'mean', got {given}")
        subsets, logits = self._drawn(x, num_samples, index, ptr, generator)
        values = utility(x, subsets, index, ptr)
        # in logits, as the derivative of p log p is infinite where p is rounded to zero
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
        return -(values.mean(0).sum() + entropy.sum()) / values.shape[1]

    def _drawn(
        self, x: Tensor, num_samples: int, index: Tensor | None, ptr: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return subsets `(samples, elements)` and the logits of their marginals."""
        whole("num_samples", num_samples)
        check_generator(generator)
        hidden = self._hidden(x)
        plan = layout_of(x, index, ptr)
        owner = torch.repeat_interleave(plan.sizes)
        if plan.order is not None:
            owner = torch.empty_like(owner).index_copy(0, plan.order, owner)
        logits = promote_half(self.logit(hidden).squeeze(-1))
        source = x.device if generator is None else generator.device

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=source).to(logits)

        normal = drawn(num_samples, len(x))
        if self.scale is not None and self.factors is not None:
            scale = promote_half(nn.functional.softplus(self.scale(hidden)).squeeze(-1))
            factors = promote_half(self.factors(hidden).tanh())
            common = (drawn(num_samples, len(plan.sizes), self.rank)[:, owner] * factors).sum(-1)
            normal = (scale * normal + common) / (scale.square() + factors.square().sum(-1)).sqrt()
        score = logits + torch.special.log_ndtr(normal) - torch.special.log_ndtr(-normal)
        soft = (score / self.temperature).sigmoid()
        subsets = soft + ((score > 0).to(soft) - soft).detach()
        return subsets.to(hidden.dtype), logits
