import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commutant import InputError
from commutant.laws import (
    ACTIONS,
    BatchPermutation,
    Equivariance,
    Euclidean,
    GeneratedPermutation,
    GraphPermutation,
    MatrixGroup,
    Orthogonal,
    ProductAction,
    Reflection,
    Rotation,
    Scaling,
    SetPermutation,
    Sets,
    SignFlip,
    TimeShift,
    Translation,
    Trivial,
    check,
    check_action,
)

POINTS = torch.randn(4, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
EDGES = torch.tensor([[0, 1, 2, 3, 3, 5], [1, 2, 0, 4, 5, 6]])
GRAPH = (POINTS[0], EDGES, torch.randn(6, 2, generator=torch.Generator().manual_seed(2)).double())
SETS = Sets(POINTS[0], torch.tensor([0, 0, 0, 1, 1, 2, 2]))
CASES = {
    "set": (SetPermutation(), POINTS),
    "ragged": (SetPermutation(), SETS),
    "tuple": (SetPermutation(), (POINTS, POINTS[..., :1])),
    "dict": (SetPermutation().on("x"), {"x": POINTS, "scale": torch.ones(())}),
    "generated": (GeneratedPermutation([[1, 2, 3, 4, 5, 6, 0], [6, 5, 4, 3, 2, 1, 0]]), POINTS),
    "batch": (BatchPermutation(), POINTS),
    "graph": (GraphPermutation(), GRAPH),
    "graph-dict": (GraphPermutation(), {"x": GRAPH[0], "edge_index": EDGES, "edge_attr": GRAPH[2]}),
    "rotation": (Rotation(), POINTS),
    "plane": (Rotation(2), POINTS[..., :2]),
    "orthogonal": (Orthogonal(), POINTS),
    "reflection": (Reflection(3, axis=2), POINTS),
    "translation": (Translation(), POINTS),
    "euclidean": (Euclidean(), POINTS),
    "scaling": (Scaling(), POINTS),
    "sign-flip": (SignFlip(), POINTS),
    "time-shift": (TimeShift(), POINTS),
    "matrices": (
        MatrixGroup(torch.tensor([[[1.0, 1, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]])),
        POINTS,
    ),
    "product": (SetPermutation() * Rotation(), POINTS),
    "part": (Rotation().on(0), (POINTS, POINTS.clone())),
}


@pytest.mark.parametrize(("action", "x"), CASES.values(), ids=CASES.keys())
@given(seed=st.integers(0, 10**6))
def test_group_axioms(action, x, seed):
    assert check_action(action, x, trials=4, generator=torch.Generator().manual_seed(seed)) < 1e-9


def test_a_product_of_actions_that_do_not_commute_fails_the_axioms():
    assert check_action(ProductAction(Translation(), Rotation()), POINTS) > 1e-3


def test_axioms_find_a_composition_in_the_wrong_order():
    class Wrong(SetPermutation):
        def compose(self, g, h):
            return g[h]

    assert check_action(Wrong(), POINTS) > 1e-3


def test_an_action_that_moves_nothing_is_refused():
    with pytest.raises(InputError, match="no drawn element"):
        check_action(Rotation(), torch.zeros(2, 5, 3))
    assert check_action(Trivial(), POINTS) == 0


def test_part_leaves_the_rest_alone():
    action, (a, b) = Rotation().on(0), (POINTS, POINTS.clone())
    moved = action.act(action.sample((a, b), torch.Generator().manual_seed(0)), (a, b))
    assert not torch.equal(moved[0], a)
    assert torch.equal(moved[1], b)


def test_graph_permutation_relabels_edges():
    adjacency = torch.zeros(7, 7).index_put((EDGES[0], EDGES[1]), torch.ones(6))
    action = GraphPermutation()
    g = action.sample(GRAPH, torch.Generator().manual_seed(3))
    x, edges, _ = action.act(g, GRAPH)
    moved = torch.zeros(7, 7).index_put((edges[0], edges[1]), torch.ones(6))
    assert torch.equal(moved, adjacency[g[0]][:, g[0]])
    assert torch.equal(x, GRAPH[0][g[0]])


def test_graph_permutation_on_pyg_data():
    data_module = pytest.importorskip("torch_geometric.data")
    nn = pytest.importorskip("torch_geometric.nn")
    data = data_module.Data(x=GRAPH[0].float(), edge_index=EDGES)
    assert check_action(GraphPermutation(), data) == 0
    conv = nn.GCNConv(3, 4)
    assert check(Equivariance(GraphPermutation()), lambda d: conv(d.x, d.edge_index), data).passed
    report = check(Equivariance(GraphPermutation()), lambda d: conv(d.x, d.edge_index).cumsum(0), data)
    assert report.status == "broken"


def test_names_on_the_command_line():
    assert {"permutation", "rotation", "translation", "time-shift"} <= set(ACTIONS)


def test_wrong_inputs_are_named():
    with pytest.raises(InputError, match="axis 4"):
        check_action(SetPermutation(4), POINTS)
    with pytest.raises(InputError, match="edge_index"):
        check_action(GraphPermutation(), (POINTS, POINTS))
    with pytest.raises(InputError, match="invertible"):
        MatrixGroup(torch.zeros(1, 2, 2))


def test_generated_elements_stay_in_the_group():
    rotation = torch.tensor([[1, 2, 3, 4, 0]])
    action, g = GeneratedPermutation(rotation), torch.Generator().manual_seed(0)
    x = torch.arange(5.0)[None]
    found = {tuple(action.sample(x, g).tolist()) for _ in range(100)}
    assert found == {tuple((i + k) % 5 for i in range(5)) for k in range(5)}


def test_a_function_of_the_cyclic_group_fails_for_a_larger_one():
    def difference(x):
        return x - x.roll(1, dims=1)

    x = torch.randn(3, 5, 2, dtype=torch.float64)
    rotation, swap = [1, 2, 3, 4, 0], [1, 0, 2, 3, 4]
    assert check(Equivariance(GeneratedPermutation([rotation], pairs=False)), difference, x).passed
    report = check(Equivariance(GeneratedPermutation([rotation, swap], pairs=False)), difference, x)
    assert not report.passed


@pytest.mark.parametrize(
    ("generators", "words"),
    [
        ([[0, 0, 1]], "rows that are permutations"),
        ([0, 1], "rows that are permutations"),
        ([[0.0, 1.0]], "rows that are permutations"),
        ([[1, 2, 3]], "rows that are permutations"),
        ([[0, 1], [0]], "rows of whole numbers"),
        ("ab", "rows of whole numbers"),
    ],
)
def test_generators_must_be_permutations(generators, words, unchecked):
    with pytest.raises(InputError, match=words):
        GeneratedPermutation(generators)


def test_generators_must_fit_the_input():
    with pytest.raises(InputError, match="permute 3 elements, got 7 on axis 1"):
        check(Equivariance(GeneratedPermutation([[1, 2, 0]])), lambda x: x, POINTS)
    with pytest.raises(InputError, match="ragged sets"):
        check(Equivariance(GeneratedPermutation([[1, 2, 0]])), lambda x, index: x, SETS)


def test_pairs_in_the_output_must_be_stated():
    x, cycle = torch.randn(4, 6, 3, dtype=torch.float64), [[1, 2, 3, 4, 5, 0]]
    with pytest.raises(InputError, match="pass pairs=True or pairs=False to GeneratedPermutation"):
        check(Equivariance(GeneratedPermutation(cycle)), lambda x: x @ x.mT, x)
    assert check(Equivariance(GeneratedPermutation(cycle, pairs=True)), lambda x: x @ x.mT, x).passed
