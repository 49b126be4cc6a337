"""Numbers of interactions that a network needs in a section, and the graph of those that count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import finite, positive, whole
from .._errors import InputError, require
from ._given import check_callable, number
from ._interaction_basis import InteractionBasis
from ._sections import OUTPUT

if TYPE_CHECKING:
    import networkx

Score = Callable[[nn.Module], float]


def edge_ablation_curve(
    basis: InteractionBasis,
    edges: Mapping[str, Float[Tensor, "outputs inputs"]],
    section: str,
    score: Score,
    budgets: Sequence[int],
) -> list[tuple[int, float]]:
    """Return the score of the model with the strongest interactions of a section alone.

    Args:
        basis: Fitted bases.
        edges: Interactions, from `InteractionBasis.edges`.
        section: Name of the section.
        score: Function from the model to a number, such as its accuracy.
        budgets: Numbers of interactions to keep.

    Returns:
        Pairs of a number of interactions and the score.
    """
    strengths = _strengths(basis, edges, section)
    check_callable(score, "score", "a function from the model to a number")
    found = []
    for budget in budgets:
        whole("a budget", budget, 0)
        order = strengths.flatten().argsort(descending=True, stable=True)
        mask = torch.zeros(strengths.numel(), dtype=torch.bool)
        mask[order[:budget]] = True
        with basis.ablate(edges={section: mask.view(strengths.shape)}) as model:
            found.append((int(budget), number(score(model), "the score")))
    return found


def edges_required(
    basis: InteractionBasis,
    edges: Mapping[str, Float[Tensor, "outputs inputs"]],
    section: str,
    score: Score,
    drop: int | float,
) -> int:
    """Return how many interactions of a section keep the score within a drop of that of the whole model.

    The number is found by bisection, as in the reference code. Where the curve is not monotone there are several, and
    `edge_ablation_curve` shows them.

    Args:
        basis: Fitted bases.
        edges: Interactions, from `InteractionBasis.edges`.
        section: Name of the section.
        score: Function from the model to a number that is better if larger, such as its accuracy.
        drop: Largest loss of score that is allowed.

    Raises:
        InputError: If the model with all interactions is worse than that, because coordinates are missing.
    """
    finite("drop", drop)
    strengths = _strengths(basis, edges, section)
    with basis.ablate() as model:
        least = number(score(model), "the score") - drop

    def enough(budget: int) -> bool:
        return edge_ablation_curve(basis, edges, section, score, [budget])[0][1] >= least

    low, high = -1, strengths.numel()
    if not enough(high):
        raise InputError(
            f"with all interactions of {section!r} the score drops by more than {drop}; the bases leave out directions "
            "that matter: use a smaller rtol, or a larger drop"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def interaction_graph(
    basis: InteractionBasis,
    edges: Mapping[str, Float[Tensor, "outputs inputs"]],
    least: int | float | Mapping[str, float] = 1e-3,
    resolution: int | float = 1.0,
    seed: int = 0,
) -> networkx.Graph:
    r"""Return the graph of interactions, with communities by the Louvain method.

    Nodes are pairs of a place and a range of coordinates: one coordinate, or a block of equal strength. The weight of
    an edge is $\log_{10}(E / \epsilon)$, and weaker interactions than $\epsilon$ have none. Each node has its
    `community`; `graph.graph["modularity"]` is Newman's modularity of the partition.

    Args:
        basis: Fitted bases.
        edges: Interactions, from `InteractionBasis.edges`.
        least: Smallest interaction that counts: a part of the largest of its section, or absolute numbers by section,
            such as the weakest that `edges_required` keeps.
        resolution: Resolution of the communities; a larger one gives smaller communities.
        seed: Seed of the Louvain method, which is random.
    """
    nx = require("networkx", "graphs")
    positive("resolution", resolution)
    if not isinstance(least, Mapping):
        positive("least", least)
    graph = nx.Graph()
    names = (*basis.sections, OUTPUT)
    blocks = {name: basis.bases[name].blocks for name in names}
    for name in names:
        graph.add_nodes_from((name, (b.start, b.stop)) for b in blocks[name])
    for name, after in itertools.pairwise(names):
        strengths = _strengths(basis, edges, name)
        total = _by_block(_by_block(strengths, blocks[after], 0), blocks[name], 1)
        floor = least[name] if isinstance(least, Mapping) else least * float(total.max()) if total.numel() else 0.0
        for i, j in (total > floor).nonzero().tolist() if floor > 0 else []:
            a, b = blocks[name][j], blocks[after][i]
            weight = float((total[i, j] / floor).log10())
            graph.add_edge((name, (a.start, a.stop)), (after, (b.start, b.stop)), weight=weight)
    found = nx.community.louvain_communities(graph, resolution=resolution, seed=seed)
    for number_, community in enumerate(sorted(found, key=lambda c: (-len(c), sorted(c)))):
        for node in community:
            graph.nodes[node]["community"] = number_
    graph.graph["modularity"] = nx.community.modularity(graph, found) if graph.number_of_edges() else 0.0
    return graph


def _by_block(strengths: Tensor, blocks: Sequence[range], axis: int) -> Tensor:
    """Return sums over the coordinates of each block."""
    index = torch.cat([torch.full((len(b),), i) for i, b in enumerate(blocks)]) if blocks else torch.zeros(0).long()
    shape = list(strengths.shape)
    shape[axis] = len(blocks)
    return strengths.new_zeros(shape).index_add(axis, index, strengths)


def _strengths(basis: InteractionBasis, edges: Mapping[str, Tensor], section: str) -> Tensor:
    names = (*basis.sections, OUTPUT)
    if section not in basis.sections or not isinstance(edges, Mapping) or section not in edges:
        raise InputError(f"section must be one of {', '.join(basis.sections)} and have edges, got {section!r}")
    if not basis.bases:
        raise InputError("there are no bases yet; call fit(batches) or load(path) first")
    sizes = [len(basis.bases[names[names.index(section) + i]].strengths) for i in (1, 0)]
    if list(edges[section].shape) != sizes:
        raise InputError(f"edges of {section!r} must be of shape {tuple(sizes)}, got {tuple(edges[section].shape)}")
    return edges[section].detach().double().cpu()
