"""Interaction bases: the identities of the sheet, any module, ablations, and what cannot be cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from commutant import InputError
from commutant.weights import InteractionBasis, edge_ablation_curve, edges_required, factorize, interaction_graph
from processes import run_in_group

SECTIONS = ["0", "2", "4"]


def network(activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 10), activation(), nn.Linear(10, 8), activation(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def blocks(model):
    """Return the same network with sections that are no linear layers, so that nothing has a closed form."""
    return nn.Sequential(nn.Sequential(*model[:2]), nn.Sequential(*model[2:4]), nn.Sequential(model[4]))


def data(rows=400, width=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=g, dtype=torch.float64) @ torch.randn(
        width, width, generator=g, dtype=torch.float64
    ) + torch.randn(width, generator=g, dtype=torch.float64)


def activations(model, x):
    with torch.no_grad():
        return {"0": x, "2": model[:2](x), "4": model[:4](x), "output": model(x)}


def after(name):
    return {"0": "2", "2": "4", "4": "output"}[name]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("closed", [True, False])
def test_local_coordinates_whiten_derivatives_and_diagonalize_activations(activation, closed):
    model, x = network(activation), data()
    found = InteractionBasis(model, SECTIONS).fit(x.split(150))
    assert found.closed == tuple(SECTIONS)
    acts = activations(model, x)
    bases = found.bases
    if not closed:
        other = InteractionBasis(blocks(model), ["0", "1", "2"]).fit(x.split(150))
        assert other.closed == ()
        bases = dict(zip(("0", "2", "4", "output"), (other.bases[k] for k in ("0", "1", "2", "output")), strict=True))
        for name in SECTIONS:
            torch.testing.assert_close(bases[name].strengths, found.bases[name].strengths)
    for name in SECTIONS:
        basis, place = bases[name], int(name)
        one = torch.eye(len(basis.strengths), dtype=torch.float64)
        torch.testing.assert_close(basis.inverse @ basis.directions, one, atol=1e-9, rtol=0)
        moved = (acts[name] - basis.mean) @ basis.directions
        torch.testing.assert_close(moved.mT @ moved / len(x), basis.strengths.diag(), atol=1e-9, rtol=0)
        jacobian = vmap(jacrev(model[place : place + 2]))(acts[name])
        jacobian = bases[after(name)].directions.mT @ jacobian @ basis.inverse.mT
        torch.testing.assert_close((jacobian.mT @ jacobian).mean(0), one, atol=1e-8, rtol=0)


def test_strengths_are_the_eigenvalues_of_covariance_times_squared_derivatives():
    model, x = network(), data()
    found = InteractionBasis(model, SECTIONS, "global").fit([x])
    for name, act in activations(model, x).items():
        if name != "output":
            jacobian = vmap(jacrev(model[int(name) :]))(act)
            matrix = torch.einsum("xij,xik->jk", jacobian, jacobian) / len(x)
            wanted = torch.linalg.eigvals(act.mT.cov(correction=0) @ matrix.detach()).real.sort(descending=True).values
            own = found.bases[name].strengths
            torch.testing.assert_close(own, wanted[: len(own)], rtol=1e-8, atol=0)
            assert bool((wanted[len(own) :].abs() < 1e-8 * own[0]).all())


@pytest.mark.parametrize("kind", ["local", "global", "pca"])
def test_an_invertible_change_of_activations_changes_nothing_but_pca(kind):
    model, x = network(), data()
    found = InteractionBasis(model, SECTIONS, kind).fit([x])
    g = torch.Generator().manual_seed(3)
    change = torch.randn(8, 8, generator=g, dtype=torch.float64) + 2 * torch.eye(8, dtype=torch.float64)
    wide, last = nn.Linear(8, 8).double(), nn.Linear(8, 3).double()
    with torch.no_grad():
        wide.weight.copy_(change), wide.bias.zero_()
        last.weight.copy_(model[4].weight @ change.inverse()), last.bias.copy_(model[4].bias)
    twin = nn.Sequential(*model[:3], model[3], nn.Sequential(wide), last)
    torch.testing.assert_close(twin(x), model(x))
    moved = InteractionBasis(twin, ["0", "2", "5"], kind).fit([x])
    mine, theirs = found.edges([x]), moved.edges([x])
    for name, other in zip(SECTIONS, ["0", "2", "5"], strict=True):
        equal = torch.allclose(found.bases[name].strengths, moved.bases[other].strengths, rtol=1e-7)
        assert equal or (kind == "pca" and name == "4")
        if kind != "pca":
            torch.testing.assert_close(mine[name], theirs[other], rtol=1e-6, atol=1e-9 * float(mine[name].max()))
    if kind == "pca":
        assert not torch.allclose(found.bases["4"].strengths, moved.bases["5"].strengths, rtol=0.1)


@pytest.mark.parametrize("kind", ["local", "pca", "neuron"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_edges_are_the_mean_squares_of_derivative_times_coordinate(kind, activation):
    model, x = network(activation), data(60)
    found = InteractionBasis(model, SECTIONS, kind).fit([x])
    edges = found.edges(x.split(25))
    plain = InteractionBasis(blocks(model), ["0", "1", "2"], kind).fit([x]).edges([x])
    for (name, act), other in zip(list(activations(model, x).items())[:3], plain.values(), strict=True):
        basis, next_ = found.bases[name], found.bases[after(name)]
        jacobian = vmap(jacrev(model[int(name) : int(name) + 2]))(act)
        jacobian = next_.directions.mT @ jacobian @ basis.inverse.mT
        own = (act - basis.mean) @ basis.directions
        wanted = (jacobian * own[:, None]).square().mean(0)
        torch.testing.assert_close(edges[name], wanted, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(other, wanted, rtol=1e-6, atol=1e-10)
    linear = found.bases["output"].directions.mT @ model[4].weight.detach() @ found.bases["4"].inverse.mT
    torch.testing.assert_close(edges["4"], linear.square() * found.bases["4"].strengths, rtol=1e-8, atol=1e-12)


def test_ablations():
    model, x = network(), data()
    found = InteractionBasis(model, SECTIONS).fit([x])
    sizes = {n: len(found.bases[n].strengths) for n in (*SECTIONS, "output")}
    whole = {n: torch.ones(sizes[after(n)], sizes[n], dtype=torch.bool) for n in SECTIONS}
    expected = model(x)
    with found.ablate(nodes={n: sizes[n] for n in SECTIONS}, edges=whole) as same:
        torch.testing.assert_close(same(x), expected)
    with found.ablate(nodes={"0": sizes["0"] - 1}):
        kept = found.bases["0"].directions[:, :-1] @ found.bases["0"].inverse[:-1]
        torch.testing.assert_close(model(x), expected_of(model, found.bases["0"].mean, kept, x))
    with found.ablate(edges={"2": torch.zeros_like(whole["2"])}):
        held = model[2:](found.bases["2"].mean)
        torch.testing.assert_close(model(x), held.expand(len(x), -1), atol=1e-9, rtol=0)
    mask = torch.rand(whole["2"].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with found.ablate(edges={"2": mask}):
        mine = model(x)
        torch.testing.assert_close(model(x[:7]), mine[:7])  # several passes in one context
    act, basis, next_ = model[:2](x), found.bases["2"], found.bases["4"]
    moved = (act - basis.mean) @ basis.directions
    rows = []
    for i in range(len(mask)):
        masked = basis.mean + (moved * mask[i]) @ basis.inverse
        rows.append(((model[2:4](masked) - next_.mean) @ next_.directions)[:, i])
    wanted = model[4](next_.mean + torch.stack(rows, 1) @ next_.inverse)
    torch.testing.assert_close(mine, wanted)
    torch.testing.assert_close(model(x), expected)  # nothing is left behind
    some = whole["4"].clone()
    some[0] = False
    with found.ablate(edges={"4": some}):
        out = model(x)
    torch.testing.assert_close(out[:, 1:], expected[:, 1:])
    torch.testing.assert_close(out[:, 0], model[4](found.bases["4"].mean)[0].expand(len(x)))


def expected_of(model, mean, matrix, x):
    return model(mean + (x - mean) @ matrix)


def test_the_mean_of_random_sums_of_outputs_is_the_matrix_of_all_of_them():
    model, x = blocks(network(nn.Tanh)), data()
    exact = InteractionBasis(model, ["0", "1", "2"]).fit([x])
    g = torch.Generator().manual_seed(0)
    drawn = InteractionBasis(model, ["0", "1", "2"], sources=400, generator=g).fit([x])
    for name in ("0", "1", "2"):
        torch.testing.assert_close(drawn.bases[name].strengths, exact.bases[name].strengths, rtol=0.1, atol=1e-4)


def test_parts_of_the_data_add_up_and_files_come_back(tmp_path):
    model, x = network(), data()
    one, many = (InteractionBasis(model, SECTIONS).fit(b) for b in ([x], x.split(37)))
    for name in one.bases:
        torch.testing.assert_close(one.bases[name].strengths, many.bases[name].strengths)
    one.save(tmp_path / "basis.safetensors")
    back = InteractionBasis(model, SECTIONS).load(tmp_path / "basis.safetensors")
    assert back.closed == one.closed
    for name in one.bases:
        assert torch.equal(
            back.transform(activations(model, x)[name], name), one.transform(activations(model, x)[name], name)
        )
    with pytest.raises(InputError, match="expected pca at"):
        InteractionBasis(model, SECTIONS, "pca").load(tmp_path / "basis.safetensors")


def test_equal_strengths_are_a_block():
    model = nn.Sequential(nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q)
    white = torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)])
    basis = InteractionBasis(model, ["0"]).fit([white] * 3).bases["0"]
    assert basis.blocks == [range(4)]
    assert [len(b) for b in InteractionBasis(network(), SECTIONS).fit([data()]).bases["0"].blocks] == [1] * 6


class Twice(nn.Module):
    """Model that calls one of its parts twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(self.a(x)))


class Skip(nn.Module):
    """Residual model: `b` reads a part of the stream only."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = torch.tanh(self.a(x))
        return self.c(y + torch.tanh(self.b(y)))


class Normalized(Skip):
    """Residual model whose last part reads a normalized stream, whose sum is constant."""

    def forward(self, x):
        y = torch.tanh(self.a(x))
        return self.c(nn.functional.layer_norm(y + torch.tanh(self.b(y)), (4,)))


class Pair(nn.Module):
    """Model whose second part reads two activations."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Bilinear(4, 4, 2)

    def forward(self, x):
        y = self.a(x)
        return self.b(y, y.tanh())


def matrix_of(section, act, after):
    """Return the mean over rows of the squared derivatives over all outputs and positions, from whole Jacobians."""
    jacobian = jacrev(lambda a: section(a) @ after)(act)  # (batch, positions, coordinates, batch, positions, features)
    return torch.einsum("xtiysj,xtiysk->jk", jacobian, jacobian) / (act.shape[0] * act.shape[1])


@pytest.mark.filterwarnings("ignore:.*rows of data")
def test_convolutions_have_positions():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    ).double()
    x = torch.randn(20, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = InteractionBasis(model, ["0", "2", "5"]).fit([x[:12], x[12:]])
    assert [len(found.bases[n].mean) for n in ("0", "2", "5", "output")] == [2, 3, 36, 2]

    def section(rows):  # (batch, positions, channels) to (batch, 1, features)
        return model[2:5](rows.mT.reshape(len(rows), 3, 4, 4))[:, None]

    act = model[:2](x).detach()
    rows = act.flatten(2).mT
    basis = found.bases["2"]
    matrix = matrix_of(section, rows, found.bases["5"].directions)
    one = torch.eye(len(basis.strengths), dtype=torch.float64)
    torch.testing.assert_close(basis.inverse @ matrix @ basis.inverse.mT, one, atol=1e-8, rtol=0)
    jacobian = jacrev(lambda a: section(a) @ found.bases["5"].directions)(rows)
    moved = (rows - basis.mean) @ basis.directions
    each = torch.einsum("xtiysj,kj,ysk->xtiyk", jacobian, basis.inverse, moved)
    wanted = torch.einsum("xtixk->xtik", each).square().sum((0, 1)) / (20 * 16)
    torch.testing.assert_close(found.edges([x])["2"], wanted)
    with found.ablate(nodes={"2": 2}):
        kept = basis.directions[:, :2] @ basis.inverse[:2]
        held = (basis.mean + (rows - basis.mean) @ kept).mT.reshape(act.shape)
        out = model(x)
    torch.testing.assert_close(out, model[2:](held))


def test_a_decoder_of_hugging_face_is_cut_at_its_residual_stream():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 11, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).double()
    tokens, mask = torch.randint(11, (30, 6), generator=torch.Generator().manual_seed(0)), torch.ones(30, 6).long()
    mask[:10, 4:] = 0
    batch = {"input_ids": tokens, "attention_mask": mask}
    sections = ["transformer.h.0", "transformer.h.1", "transformer.ln_f"]
    found = InteractionBasis(model, sections).fit([batch])
    kept = mask.bool()
    hidden = model(**batch, output_hidden_states=True).hidden_states[1].detach()
    torch.testing.assert_close(found.bases["transformer.h.1"].mean, hidden[kept].mean(0))
    changed = tokens.clone()
    changed[:10, 4:] = 0  # padding has no influence
    other = InteractionBasis(model, sections).fit([{"input_ids": changed, "attention_mask": mask}])
    for name in found.bases:
        torch.testing.assert_close(found.bases[name].strengths, other.bases[name].strengths)
    edges = found.edges([batch])
    assert all(bool((e >= 0).all()) and e.shape[1] == len(found.bases[n].strengths) for n, e in edges.items())
    with found.ablate(edges={"transformer.h.1": torch.ones_like(edges["transformer.h.1"]).bool()}):
        torch.testing.assert_close(model(**batch).logits[kept], model(**batch).logits[kept])


@pytest.mark.filterwarnings("ignore:.*rows of data")
def test_nodes_of_a_graph_are_positions_that_influence_each_other():
    from torch_geometric.nn import GCNConv, Sequential

    torch.manual_seed(0)
    layers = [(GCNConv(3, 4), "x, edge_index -> x"), nn.Tanh(), (GCNConv(4, 2), "x, edge_index -> x")]
    model = Sequential("x, edge_index", layers).double()
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [n for n, m in model.named_modules() if isinstance(m, GCNConv)]
    found = InteractionBasis(model, names, rtol=1e-8).fit([{"x": x, "edge_index": edge_index}])
    act = torch.tanh(model.get_submodule(names[0])(x, edge_index)).detach()
    basis = found.bases[names[1]]
    jacobian = jacrev(lambda a: model.get_submodule(names[1])(a, edge_index))(act)
    matrix = torch.einsum("tisj,tisk->jk", jacobian, jacobian) / 4
    one = torch.eye(len(basis.strengths), dtype=torch.float64)
    torch.testing.assert_close(basis.inverse @ matrix @ basis.inverse.mT, one, atol=1e-7, rtol=0)


def test_hidden_blocks_are_found_where_pca_sees_none():
    """Two independent networks side by side, behind a rotation of white inputs."""
    g = torch.Generator().manual_seed(0)
    white = torch.randn(2000, 8, generator=g, dtype=torch.float64)
    white = torch.linalg.qr(white - white.mean(0)).Q * 2000**0.5
    turn = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64)).Q
    layers = [nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)]
    model = nn.Sequential(*layers).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (m for m in model if isinstance(m, nn.Linear)):
            rows, columns = layer.weight.shape
            block = torch.kron(torch.eye(2), torch.ones(rows // 2, columns // 2))
            layer.weight.copy_(torch.randn(rows, columns) * block * (4 / columns) ** 0.5)
        model[0].weight.copy_(model[0].weight @ turn)
    for kind, blocks_ in (("local", True), ("pca", False)):
        found = InteractionBasis(model, SECTIONS, kind).fit([white])
        part = (turn @ found.bases["0"].directions).square()
        purity = (part[:4].sum(0) / part.sum(0)).sub(0.5).abs().add(0.5)
        assert bool((purity > 0.99).all()) == blocks_
        graph = interaction_graph(found, found.edges([white[:500]]), resolution=0.5)
        communities = [d["community"] for n, d in graph.nodes(data=True) if graph.degree(n)]
        if blocks_:
            assert len(set(communities)) == 2
            assert graph.graph["modularity"] > 0.3
    assert found.bases["0"].blocks == [range(8)]


def test_few_edges_are_enough_and_the_curve_shows_it():
    model, x = network(), data()
    with torch.no_grad():
        model[2].weight[:, 3:] *= 1e-4
    found = InteractionBasis(model, SECTIONS).fit([x])
    edges, target = found.edges([x]), model(x).detach()

    @torch.no_grad()
    def score(net):
        return -float((net(x) - target).square().sum() / (target - target.mean(0)).square().sum())

    needed = edges_required(found, edges, "2", score, 0.01)
    curve = edge_ablation_curve(found, edges, "2", score, [0, needed - 1, needed, edges["2"].numel()])
    assert 0 < needed < edges["2"].numel()
    assert [s >= -0.01 for _, s in curve] == [False, False, True, True]
    assert curve[-1][1] == pytest.approx(0, abs=1e-12)
    scores = iter([1.0, 0.5])
    with pytest.raises(InputError, match="a smaller rtol, or a larger drop"):
        edges_required(found, edges, "2", lambda _: next(scores), 0.1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_cut_is_refused():
    x = torch.randn(50, 4)
    for model, sections, message in (
        (Twice(), ["a", "b"], "'a' is called twice"),
        (Skip(), ["a", "b", "c"], "what 'c' reads depends on 'a' around 'b'"),
        (Skip(), ["b", "c"], "what 'c' reads depends on more than what 'b' reads"),
        (Normalized(), ["b", "c"], "what 'c' reads depends on more than what 'b' reads"),
        (Normalized(), ["a", "b", "c"], "what 'c' reads depends on 'a' around 'b'"),
        (Pair(), ["a", "b"], "'b' reads several activations"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), ["1", "0"], "in the order in which the model runs them"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), ["2"], "there is no module '2'"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), [], "must be a list of names"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), ["0", "0"], "must be different modules"),
    ):
        with pytest.raises(InputError, match=message):
            InteractionBasis(model, sections).fit([x])
    InteractionBasis(Skip(), ["a", "b", "c"], "global").fit([x])
    model = network().float()
    basis = InteractionBasis(model, SECTIONS)
    for batches, message in (
        ([], "no batch was given"),
        ([torch.randn(0, 6)], "without any sample"),
        ([torch.full((9, 6), torch.nan)], "hold NaN or infinities"),
        (iter([torch.randn(9, 6)]), "not an iterator"),
        (torch.randn(9, 6), "iterable of batches"),
    ):
        with pytest.raises(InputError, match=message):
            basis.fit(batches)
    with pytest.raises(InputError, match="call fit"):
        basis.transform(torch.randn(3, 6), "0")
    with pytest.raises(InputError, match="call fit"):
        basis.edges([torch.randn(3, 6)])
    basis.fit([torch.randn(300, 6)])
    for call, message in (
        (lambda: basis.transform(torch.randn(3, 5), "0"), r"expected floating-point \(\*batch, 6\) features of '0'"),
        (lambda: basis.transform(torch.randn(3, 6), "1"), "section must be one of"),
        (lambda: basis.ablate(nodes={"0": 7}).__enter__(), "at most 6"),
        (lambda: basis.ablate(nodes={"1": 2}).__enter__(), "by the name of a section"),
        (lambda: basis.ablate(edges={"0": torch.ones(2, 2).bool()}).__enter__(), "must be boolean"),
        (lambda: basis.ablate(edges={"output": torch.ones(2, 2).bool()}).__enter__(), "by the name of a section"),
        (lambda: InteractionBasis(model, SECTIONS, "svd"), "kind must be one of"),
        (lambda: InteractionBasis(model, SECTIONS, sources=0), "sources must be"),
        (lambda: InteractionBasis(model, SECTIONS).load("missing.safetensors"), "can't be read"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_little_data_and_dead_sections_warn():
    model = network()
    with pytest.warns(UserWarning, match="8 rows of data for 10 features"):
        InteractionBasis(model, SECTIONS).fit([data(8)])
    with torch.no_grad():
        model[2].bias.fill_(-1e6)
    with pytest.warns(UserWarning, match="reads varies and reaches the output: no coordinates") as warned:
        found = InteractionBasis(model, SECTIONS).fit([data()])
    assert [str(w.message).split()[2] for w in warned] == ["'4'", "'2'", "'0'"]
    assert [len(found.bases[n].strengths) for n in SECTIONS] == [0, 0, 0]
    assert found.edges([data()])["0"].shape == (0, 0)


def _shard(rank, size, path, model, x):
    part = x[rank::size]
    for name, sections in (("linear", SECTIONS), ("blocks", ["0", "1", "2"])):
        net = model if name == "linear" else blocks(model)
        found = InteractionBasis(net, sections).fit([part], torch.distributed.group.WORLD)
        found.save(f"{path}/{name}-{rank}.safetensors")


def test_processes_add_up_their_data(tmp_path):
    model, x = network(), data(240)
    run_in_group(_shard, tmp_path, model, x)
    for name, sections in (("linear", SECTIONS), ("blocks", ["0", "1", "2"])):
        net = model if name == "linear" else blocks(model)
        whole = InteractionBasis(net, sections).fit([x])
        for rank in (0, 1):
            part = InteractionBasis(net, sections).load(tmp_path / f"{name}-{rank}.safetensors")
            for place in whole.bases:
                torch.testing.assert_close(part.bases[place].strengths, whole.bases[place].strengths)


def test_features_are_last_before_linear_layers_with_any_number_of_positions():
    model, x = network(), data()
    flat = InteractionBasis(model, SECTIONS).fit([x])
    grid = InteractionBasis(model, SECTIONS).fit([x.view(4, 10, 10, 6)])
    assert grid.closed == flat.closed
    for name in (*SECTIONS,):
        torch.testing.assert_close(grid.bases[name].strengths, flat.bases[name].strengths)
    mine, theirs = grid.edges([x.view(4, 10, 10, 6)]), flat.edges([x])
    torch.testing.assert_close(mine["2"], theirs["2"])


@pytest.mark.filterwarnings("ignore")
def test_layers_that_read_fewer_coordinates():
    model, x = network(), data()
    found = InteractionBasis(model, SECTIONS).fit([x])
    whole = {name: len(found.bases[name].strengths) for name in SECTIONS}
    torch.testing.assert_close(factorize(found, whole)(x), model(x), rtol=1e-6, atol=1e-6)
    for name, rank in (("2", 3), ("4", 2)):
        with found.ablate(nodes={name: rank}):
            wanted = model(x)
        torch.testing.assert_close(factorize(found, {name: rank})(x), wanted, rtol=1e-6, atol=1e-6)
    last, (name,) = factorize(found, {"4": 2}), SECTIONS[-1:]
    change = (last(x) - model(x)).square().sum(1).mean()  # the last section is linear, so that the estimate is exact
    torch.testing.assert_close(change, found.bases[name].strengths[2:].sum(), rtol=1e-5, atol=1e-8)
    for ranks, message in (
        ({"1": 2}, "no section"),
        ({"2": 99}, "coordinates, so its rank"),
        ({"2": 0}, "rank of '2'"),
    ):
        with pytest.raises(InputError, match=message):
            factorize(found, ranks)
    with pytest.raises(InputError, match="fitted InteractionBasis"):
        factorize(InteractionBasis(model, SECTIONS), {"2": 1})
