"""Pointer networks: lengths, padding, order, likelihood against step-by-step decoding, search against enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

from commutant import InputError
from commutant.permutations import (
    ClosedPolygon,
    PointerAttention,
    PointerNetwork,
    Subset,
    Tour,
    Triangles,
)
from commutant.permutations._pointer_losses import rotation_log_prob, rotations, triangle_log_prob

ENCODERS = ("lstm", "bilstm", "set", "deepsets")
CONSTRAINTS = {"tour": Tour(), "subset": Subset(2), "polygon": ClosedPolygon(), "triangles": Triangles()}


def network(encoder="lstm", hidden=12, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    made = PointerNetwork(2, hidden, encoder, **options).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)  # default weights make all choices nearly equal
    return made.eval()


def points(batch=3, n=5, dtype=torch.float64, seed=1):
    return torch.rand(batch, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cell(decoder, inputs, state):
    """One step of the decoder's LSTM."""
    lstm = decoder.lstm
    return torch.lstm_cell(inputs, state, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)


def ended(rows, stop=True):
    """Sequences with a stop."""
    return torch.tensor([[*row, -1] if stop else list(row) for row in rows])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_one_set_of_weights_points_at_any_number_of_elements(encoder, n):
    scores = network(encoder)(points(2, n), torch.tensor([[0, -1], [n - 1, -1]]))
    assert scores.shape == (2, 2, n + 1)
    assert torch.allclose(scores.softmax(-1).sum(-1), torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_has_no_influence(encoder):
    x, lengths = points(3, 6), torch.tensor([6, 4, 1])
    targets = torch.tensor([[5, 0, -1], [3, 1, -1], [0, -1, -1]])
    made, garbage = network(encoder), x.clone()
    for row, k in enumerate(lengths.tolist()):
        garbage[row, k:] = torch.nan
    together = made.log_prob(garbage, targets, lengths)
    alone = [made.log_prob(x[i : i + 1, :k], targets[i : i + 1]) for i, k in enumerate(lengths.tolist())]
    assert torch.allclose(together, torch.cat(alone), atol=1e-10)
    flat = torch.cat([x[i, :k] for i, k in enumerate(lengths.tolist())])
    batch = torch.repeat_interleave(lengths)
    assert torch.allclose(made.log_prob(flat, targets, batch=batch), together, atol=1e-10)
    best = made.decode(garbage, "beam", 3, lengths=lengths, constraint=Tour())
    for i, k in enumerate(lengths.tolist()):
        own = made.decode(x[i : i + 1, :k], "beam", 3, constraint=Tour()).best[0]
        assert best.best[i, : k + 1].tolist() == own.tolist()
        assert bool((best.best[i, k:] == -1).all())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_only_set_encoders_ignore_the_order_of_the_input(encoder):
    made, x, p = network(encoder), points(4, 5), torch.tensor([3, 1, 4, 0, 2])
    targets = ended([[0, 3, 2]] * 4)
    moved = torch.where(targets < 0, -1, p.argsort()[targets.clamp(min=0)])  # where each target has gone
    gap = (made.log_prob(x, targets) - made.log_prob(x[:, p], moved)).abs().max()
    assert bool(gap < 1e-10) == (encoder in ("set", "deepsets"))
    assert encoder in ("set", "deepsets") or gap > 1e-3


@pytest.mark.parametrize("kind", ["additive", "dot", "bilinear"])
def test_the_distribution_moves_with_the_keys(kind):
    torch.manual_seed(0)
    attention = PointerAttention(6, 4, 8, kind).double()
    q, k, p = torch.randn(2, 3, 6).double(), torch.randn(2, 5, 4).double(), torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(attention(q, k)[..., p], attention(q, k[:, p]), atol=1e-12)
    mask = torch.tensor([[True, False, True, True, False], [True, True, True, False, True]])
    probs = attention(q, k, mask).softmax(-1)
    assert bool((probs[~mask[:, None].expand_as(probs)] == 0).all())
    assert torch.allclose(probs[0][:, mask[0]], attention(q[:1], k[:1, mask[0]]).softmax(-1)[0])


@pytest.mark.parametrize("kind", ["additive", "dot", "bilinear"])
def test_scores_are_their_formula(kind):
    torch.manual_seed(0)
    attention = PointerAttention(6, 6, 6, kind, clip=2.0).double()
    q, k = torch.randn(1, 2, 6).double(), torch.randn(1, 3, 6).double()
    for i, j in itertools.product(range(2), range(3)):
        left = None if attention.queries is None else attention.queries.weight @ q[0, i]
        right = attention.keys.weight @ k[0, j]
        if kind == "additive":
            score = attention.weight @ torch.tanh(left + right)
        else:
            score = (q[0, i] if left is None else left) @ right / 6**0.5
        assert torch.allclose(attention(q, k)[0, i, j], 2 * torch.tanh(score))


@pytest.mark.parametrize("constraint", [None, *CONSTRAINTS])
def test_the_likelihood_is_the_sum_over_single_steps(constraint):
    """Teacher forcing in one call against one call for each step."""
    made, x, rule = network(), points(), CONSTRAINTS.get(constraint)
    found = made.decode(x, "sample", 4, constraint=rule, generator=torch.Generator().manual_seed(0), max_steps=6)
    sequences = found.sequences
    total = torch.zeros(3, 4, dtype=torch.float64)
    memory = made.encode(x)
    for r in range(4):
        state, inputs = memory.state, made.decoder.start.expand(3, -1)
        running = torch.ones(3, dtype=torch.bool)
        for t in range(sequences.shape[-1]):
            state = cell(made.decoder, inputs, state)
            scores = made.decoder.scores(state[0][:, None], made.decoder.projected(memory), memory.valid)[:, 0]
            if rule is not None:
                allowed = rule(sequences[:, r : r + 1, :t], memory.valid)[:, 0]
                scores = scores.masked_fill(~(allowed | ~running[:, None]), -torch.inf)
            choice = sequences[:, r, t]
            step = scores.log_softmax(-1).gather(1, (choice % 6)[:, None])[:, 0]
            total[:, r] += torch.where(running, step, 0)
            running = running & (choice >= 0)
            inputs = memory.inputs.gather(1, choice.clamp(min=0)[:, None, None].expand(-1, -1, 12))[:, 0]
    assert torch.allclose(made.log_prob(x, sequences, constraint=rule), total, atol=1e-10)
    assert torch.allclose(found.log_probs, total, atol=1e-10)


@pytest.mark.parametrize(
    ("constraint", "n", "expected"), [("tour", 4, 24), ("subset", 4, 12), ("polygon", 4, 48), ("triangles", 3, 2)]
)
def test_a_beam_as_wide_as_all_sequences_finds_all_of_them(constraint, n, expected):
    made, x, rule = network(), points(2, n), CONSTRAINTS[constraint]
    found = made.decode(x, "beam", expected + 5, constraint=rule)
    real = torch.isfinite(found.log_probs)
    assert real.sum(1).tolist() == [expected] * 2
    assert len({tuple(s) for s in found.sequences[0][real[0]].tolist()}) == expected
    assert torch.allclose(found.log_probs.exp().sum(1), torch.ones(2).double(), atol=1e-5)
    assert bool(found.finished[real].all())
    exact = made.log_prob(x, found.sequences[:, :expected], constraint=rule)
    assert torch.allclose(exact, found.log_probs[:, :expected].double(), atol=1e-5)
    assert bool((exact.argmax(1) == 0).all())


def test_without_a_constraint_all_sequences_are_possible():
    made, x = network(), points(2, 3)
    found = made.decode(x, "beam", 60, max_steps=3)  # 1 + 3 + 9 + 27 sequences of at most three choices
    assert torch.isfinite(found.log_probs).sum(1).tolist() == [40, 40]
    repeats = [s for s in found.sequences[0].tolist() if len(set(s)) < len(s) - s.count(-1) + (-1 in s)]
    assert repeats, "a decoder without a constraint can repeat a city"
    exact = made.log_prob(x, found.sequences)
    finite = torch.isfinite(found.log_probs)
    assert torch.allclose(exact[finite], found.log_probs[finite].double(), atol=1e-5)
    cut = (found.sequences[..., :3] >= 0).all(-1) & finite
    assert bool((found.finished == (finite & ~cut)).all())


@pytest.mark.parametrize("width", [2, 3, 7])
def test_a_beam_is_never_worse_than_greedy_search(width):
    """The greedy hypothesis is kept, although a wider beam can lose it."""
    for seed in range(10):
        made, x = network(seed=seed), points(8, 6, seed=seed)
        greedy = made.decode(x, "greedy", constraint=Tour())
        beam = made.decode(x, "beam", width, constraint=Tour())
        assert bool((beam.log_probs[:, 0] >= greedy.log_probs[:, 0] - 1e-6).all())
        assert bool((beam.log_probs.diff(dim=1) <= 0).all())
        assert len({tuple(s) for s in beam.sequences[0].tolist()}) == width
    one = made.decode(x, "beam", 1, constraint=Tour())
    assert torch.equal(one.sequences, greedy.sequences)


@pytest.mark.parametrize("kind", ["additive", "dot", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_attention_decodes_what_its_likelihood_says(kind, dtype):
    torch.manual_seed(1)
    made = PointerNetwork(2, 16, attention=kind).to(dtype).eval()
    x = points(3, 6).to(dtype)
    found = made.decode(x, "beam", 4, constraint=Tour())
    exact = made.log_prob(x, found.sequences, constraint=Tour())
    assert torch.allclose(exact.double(), found.log_probs.double(), atol=1e-5)


def slow_beam(made, x, width, constraint):
    """Beam search of one set, one hypothesis at a time."""
    memory = made.encode(x[None])
    keys, n = made.decoder.projected(memory), x.shape[0]
    beams = [((), 0.0, (memory.state[0], memory.state[1]), False)]
    for t in range(constraint.max_steps(n) + 1):
        grown = []
        for prefix, score, state, done in beams:
            if done:
                grown.append((prefix, score, state, True))
                continue
            inputs = memory.inputs[:, prefix[-1]] if prefix else made.decoder.start[None]
            state = cell(made.decoder, inputs, state)
            allowed = constraint(torch.tensor(prefix, dtype=torch.int64).reshape(1, 1, -1), memory.valid)[0]
            scores = made.decoder.scores(state[0][:, None], keys, memory.valid)[0]
            logs = scores.masked_fill(~allowed, -torch.inf).log_softmax(-1)[0].detach()
            if t == constraint.max_steps(n):
                logs[:n] = -torch.inf
            for j in range(n + 1):
                if torch.isfinite(logs[j]):
                    grown.append(((*prefix, j) if j < n else prefix, score + float(logs[j]), state, j == n))
        beams = sorted(grown, key=lambda b: -b[1])[:width]
    return [list(b[0]) for b in beams], [b[1] for b in beams]


@pytest.mark.parametrize("constraint", list(CONSTRAINTS))
def test_the_vectorized_beam_is_the_plain_one(constraint):
    rule = CONSTRAINTS[constraint]
    for seed in range(3):
        made, x = network(seed=seed), points(3, 5, seed=seed + 5)
        found = made.decode(x, "beam", 4, constraint=rule)
        for i in range(3):
            sequences, scores = slow_beam(made, x[i], 4, rule)
            greedy = made.decode(x[i : i + 1], constraint=rule)
            ours = [[j for j in s if j >= 0] for s in found.sequences[i].tolist()]
            if [j for j in greedy.best[0].tolist() if j >= 0] in sequences:
                assert ours == sequences
                assert torch.allclose(found.log_probs[i], torch.tensor(scores).double(), atol=1e-4)
            else:
                assert ours[:3] == sequences[:3]


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_constrained_sequences_obey_their_constraint(strategy):
    made, lengths = network(), torch.tensor([7, 5, 3, 2, 1])
    x = points(5, 7)
    decode = {"strategy": strategy, "width": 6, "lengths": lengths}
    found = made.decode(x, constraint=Tour(), **decode)
    for rows, k, logs in zip(found.sequences.tolist(), lengths.tolist(), found.log_probs, strict=True):
        for row in itertools.compress(rows, torch.isfinite(logs)):
            assert sorted(row[:k]) == list(range(k))
            assert set(row[k:]) == {-1}
    found = made.decode(x, constraint=ClosedPolygon(), **decode)
    for rows, k, logs in zip(found.sequences.tolist(), lengths.tolist(), found.log_probs, strict=True):
        for row in itertools.compress(rows, torch.isfinite(logs)):
            ring = [j for j in row if j >= 0]
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1 >= min(k, 3)
    found = made.decode(x, constraint=Triangles(), **decode)
    for rows, k, logs in zip(found.sequences.tolist(), lengths.tolist(), found.log_probs, strict=True):
        for row in itertools.compress(rows, torch.isfinite(logs)):
            flat = [j for j in row if j >= 0]
            triples = [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]
            assert all(len(t) == 3 and 0 <= t[0] < t[1] < t[2] < k for t in triples)
            assert len(set(triples)) == len(triples)
    found = made.decode(x, constraint=Subset(3), **decode)
    for rows, k, logs in zip(found.sequences.tolist(), lengths.tolist(), found.log_probs, strict=True):
        for row in itertools.compress(rows, torch.isfinite(logs)):
            chosen = [j for j in row if j >= 0]
            assert len(set(chosen)) == len(chosen) == min(3, k)


def test_samples_follow_the_distribution():
    made, x = network(), points(1, 3)
    everything = made.decode(x, "beam", 6, constraint=Tour())
    drawn = made.decode(x, "sample", 20_000, constraint=Tour(), generator=torch.Generator().manual_seed(0))
    share = [(drawn.sequences[0] == s).all(-1).double().mean() for s in everything.sequences[0]]
    assert torch.allclose(torch.stack(share), everything.log_probs[0].exp().double(), atol=0.015)


def test_a_constraint_of_the_user():
    """Descending order: each choice below the last one."""

    def descending(prefix, valid):
        n = valid.shape[1]
        place = torch.arange(n)
        last = prefix[..., -1:] if prefix.shape[-1] else torch.full((*prefix.shape[:2], 1), n)
        fits = valid[:, None] & (place < last)
        return torch.cat([fits, torch.ones_like(fits[..., :1])], -1)

    found = network().decode(points(), "beam", 5, constraint=descending, max_steps=5)
    for row in found.sequences.flatten(0, 1).tolist():
        chosen = [j for j in row if j >= 0]
        assert chosen == sorted(chosen, reverse=True)


def test_without_a_stop_sequences_have_one_entry_per_element():
    made, lengths = network(stop=False), torch.tensor([4, 2, 1])
    x = points(3, 4)
    found = made.decode(x, "beam", 300, lengths=lengths)
    assert torch.isfinite(found.log_probs).sum(1).tolist() == [4**4, 2**2, 1]
    assert torch.allclose(found.log_probs.exp().sum(1), torch.ones(3).double(), atol=1e-5)
    assert bool(found.finished[torch.isfinite(found.log_probs)].all())
    assert made(x, found.sequences[:, 0], lengths).shape == (3, 4, 4)
    targets = made.decode(x, lengths=lengths, constraint=Tour()).best
    assert torch.isfinite(made.loss(x, targets, lengths))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_and_gradients(encoder, dtype):
    made, x = network(encoder, dtype=dtype), points(dtype=dtype)
    made.train()
    made.loss(x, ended([[0, 1, 2], [2, 1, 4], [3, 0, 1]])).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert made.decode(x, "beam", 3, constraint=Tour()).best.shape == (3, 6)


def test_the_gradient_of_the_loss_is_probability_minus_target():
    made, x, targets = network(), points(1, 4), torch.tensor([[2, 0, -1]])
    scores = made(x, targets).detach().requires_grad_()
    (-scores.log_softmax(-1).gather(-1, (targets % 5)[..., None]).sum()).backward()
    one_hot = torch.nn.functional.one_hot(targets % 5, 5)
    assert torch.allclose(scores.grad, scores.softmax(-1).detach() - one_hot, atol=1e-12)
    loss = made.loss(x, targets)
    assert torch.allclose(loss, -made.log_prob(x, targets).sum() / 3)


def test_rotations_are_the_same_polygon_from_each_vertex():
    turned, exists = rotations(torch.tensor([[0, 3, 1, 0, -1], [2, 4, 3, 1, -1], [5, -1, -1, -1, -1]]))
    assert exists.sum(1).tolist() == [3, 4, 1]
    assert turned[0, :3].tolist() == [[0, 3, 1, 0, -1], [3, 1, 0, 3, -1], [1, 0, 3, 1, -1]]
    assert turned[1].tolist() == [[2, 4, 3, 1, -1], [4, 3, 1, 2, -1], [3, 1, 2, 4, -1], [1, 2, 4, 3, -1]]
    assert turned[2, 0].tolist() == [5, -1, -1, -1, -1]


def test_the_loss_over_rotations_sums_their_probabilities():
    made, x = network("set"), points(2, 5)
    targets = torch.tensor([[0, 3, 1, 0, -1], [1, 2, 4, 1, -1]])
    ways = torch.stack([torch.tensor([[*c[k:3], *c[:k], c[k], -1] for k in range(3)]) for c in targets.tolist()])
    expected = -made.log_prob(x, ways).logsumexp(1).sum() / 10
    assert torch.allclose(made.loss(x, targets, equivalent="rotations"), expected)
    turned = torch.tensor([[3, 1, 0, 3, -1], [4, 1, 2, 4, -1]])
    assert torch.allclose(made.loss(x, turned, equivalent="rotations"), expected)
    assert made.loss(x, targets) > expected


def test_the_loss_over_triangles_lets_any_missing_one_follow():
    made, x = network(), points(2, 5)
    targets = torch.tensor([[0, 1, 2, 1, 2, 4, 2, 3, 4, -1], [0, 1, 3, -1, -1, -1, -1, -1, -1, -1]])
    memory = made.encode(x)
    found = triangle_log_prob(made.decoder, memory, targets)
    triples = [targets[0, i : i + 3].tolist() for i in (0, 3, 6)]
    steps = lambda rows: made.decoder.step_log_probs(memory, torch.tensor([rows, rows]))[0]  # noqa: E731
    expected = steps(targets[0].tolist())[-1]
    for slot in range(3):
        before = targets[0, : 3 * slot].tolist()
        chances = [steps([*before, *t])[3 * slot : 3 * slot + 3].sum() for t in triples[slot:]]
        expected = expected + torch.stack(chances).logsumexp(0)
    assert torch.allclose(found[0], expected)
    assert torch.allclose(found[1], made.log_prob(x, targets)[1])  # a single triangle has no order
    assert torch.allclose(made.loss(x, targets, equivalent="triangles"), -found.sum() / 14)


def test_duplicate_and_collinear_points_are_no_problem():
    for x in (torch.zeros(2, 4, 2), torch.linspace(0, 1, 4)[None, :, None].expand(2, 4, 2)):
        for encoder in ENCODERS:
            found = network(encoder, dtype=torch.float32).decode(x, "beam", 3, constraint=ClosedPolygon())
            assert bool(torch.isfinite(found.log_probs).all())


def test_nan_reaches_only_its_own_set_and_decoding_names_it():
    made, x, targets = network(), points(), ended([[0, 1]] * 3)
    clean = made.log_prob(x, targets)
    x[1, 2] = torch.nan
    spoiled = made.log_prob(x, targets)
    assert torch.equal(spoiled[[0, 2]], clean[[0, 2]])
    assert bool(spoiled[1].isnan())
    with pytest.raises(InputError, match="row 1 of the batch are NaN"):
        made.decode(x)


def test_a_constraint_rules_out_what_it_forbids_in_the_likelihood_too():
    made, x = network(stop=False), points(1, 4)
    assert made.log_prob(x, torch.tensor([[0, 1, 2]]), constraint=Subset(2)).item() == -torch.inf
    assert torch.isfinite(made.log_prob(x, torch.tensor([[0, 1, -1]]), constraint=Subset(2))).all()
    assert network().log_prob(x, torch.tensor([[0, 1, -1]]), constraint=nowhere).item() == -torch.inf


def test_an_empty_polygon_counts_its_stop():
    made, x = network(), points(2, 4)
    targets = torch.tensor([[0, 1, 2, -1], [-1, -1, -1, -1]])
    loss = made.loss(x, targets, equivalent="rotations")
    empty = made.log_prob(x, targets)[1]
    assert torch.isfinite(loss)
    assert torch.allclose(rotation_log_prob(made.decoder, made.encode(x), targets)[1], empty)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_empty_batches_and_empty_targets(encoder):
    made, x = network(encoder), points()
    targets = ended([[0, 1]] * 3)
    assert made.log_prob(x[:0], targets[:0]).shape == (0,)
    assert made(x[:0], targets[:0]).shape == (0, 3, 6)
    assert made.log_prob(x, targets[:, :0]).tolist() == [0, 0, 0]
    assert made.decode(x[:0]).best.shape == (0, 12)
    for kind in (torch.int32, torch.int16, torch.int8):
        assert torch.equal(made.log_prob(x, targets.to(kind)), made.log_prob(x, targets))


def nowhere(prefix, valid):
    return torch.zeros(*prefix.shape[:2], valid.shape[1] + 1, dtype=torch.bool)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.decode(points(), lengths=torch.tensor([5, 0, 2])), r"lengths must lie in 1\.\.5, got 0 to 5"),
        (lambda net: net.decode(points(), lengths=torch.tensor([5, 6, 2])), r"lengths must lie in 1\.\.5, got 2 to 6"),
        (lambda net: net.decode(points(), lengths=torch.tensor([5.0])), "lengths must be integers"),
        (lambda net: net.decode(torch.zeros(3, 0, 2).double()), "at least one element"),
        (lambda net: net.decode(torch.zeros(3, 5, 3).double()), r"shape \(batch, n, 2\), got \(3, 5, 3\)"),
        (lambda net: net.decode(points().long()), "must be floating point"),
        (lambda net: net.decode(points().float()), "the weights are torch.float64"),
        (lambda net: net.decode([[0.0, 1.0]]), "must be a tensor, got list"),
        (lambda net: net.log_prob(points(), ended([[5]] * 3)), r"must lie in 0\.\.4"),
        (lambda net: net.log_prob(points(), ended([[-2]] * 3)), r"must lie in 0\.\.4"),
        (lambda net: net.log_prob(points(), torch.tensor([[0, -1, 1]] * 3)), "no index after a -1"),
        (lambda net: net.log_prob(points(), torch.tensor([[0, -1]])), r"one row per set \(3\), got 1"),
        (lambda net: net.log_prob(points(), torch.rand(3, 2)), "targets must be signed integers"),
        (lambda net: net.log_prob(points(), ended([[4]] * 3), torch.tensor([5, 4, 5])), "must not point at padding"),
        (lambda net: net.loss(points(), torch.tensor([[0, 1]] * 3)), "must end with -1, the stop"),
        (lambda net: net.loss(points(), ended([[0]] * 3), equivalent="mirror"), "equivalent must be one of"),
        (
            lambda net: net.loss(points(), ended([[0, 1]] * 3), equivalent="triangles"),
            "three indices for each triangle",
        ),
        (lambda net: net.decode(points(), constraint=nowhere, max_steps=3), "allows no choice after 0 steps in row 0"),
        (lambda net: net.decode(points(), constraint=nowhere), "max_steps must be given"),
        (lambda net: net.decode(points(), constraint=lambda p, v: v, max_steps=3), "must return a boolean tensor"),
        (lambda net: net.decode(points(), "best"), "strategy must be one of greedy, beam, sample"),
        (lambda net: net.decode(points(), "beam", 0), "width must be a whole number"),
        (lambda net: net.decode(points(), max_steps=0), "max_steps must be a whole number"),
        (lambda net: net.decode(points(), generator=0), "generator must be a torch.Generator"),
        (lambda net: net.decode(points()[0], batch=torch.tensor([0, 0, 2, 2, 2])), "rise by at most 1"),
        (lambda net: net.decode(points()[0], batch=torch.tensor([0, 1, 0, 1, 1])), "rise by at most 1"),
        (lambda net: net.decode(points()[0], batch=torch.zeros(4, dtype=torch.int64)), "integers of shape"),
        (
            lambda net: net.decode(points()[0], batch=torch.zeros(5, dtype=torch.int64), lengths=torch.tensor([5])),
            "give one of them",
        ),
        (lambda net: net.decode(points(), constraint=Tour(), max_steps=2), "can't end after max_steps=2 choices"),
        (lambda net: net.decode(points(), "sample", 2, constraint=Triangles(), max_steps=4), "raise max_steps|NaN"),
        (lambda net: net.decode(points(), constraint=Tour), "constraint must be a function such as"),
        (lambda net: net.loss(points(), ended([[0, 1, 0]] * 3), constraint=Tour()), "row 0 of the batch break the con"),
        (lambda net: net.loss(points(), None), "targets must be a tensor of shape"),
        (lambda net: net.loss(points(), torch.zeros(3, 2, dtype=torch.uint8)), "signed integers|must end with -1"),
        (lambda net: network(stop=False).loss(points(), torch.full((3, 2), -1)), "at least one choice"),
        (lambda net: PointerAttention(4)(torch.rand(2, 3, 4), torch.rand(4, 5, 4)), "one batch size, got 2 and 4"),
        (lambda net: PointerAttention(4)(torch.rand(2, 3, 4), torch.rand(1, 5, 4)), "one batch size, got 2 and 1"),
        (lambda net: PointerNetwork(2, 16, "gru"), "encoder must be one of lstm, bilstm, set, deepsets"),
        (lambda net: PointerNetwork(2, 15, "bilstm"), "hidden_size must be even"),
        (lambda net: PointerNetwork(2, 15, "set"), "multiple of 4"),
        (lambda net: PointerNetwork(0), "in_features must be a whole number"),
        (lambda net: PointerNetwork(2, 8, torch.nn.LSTM(8, 8)).double().decode(points()), "encoder"),
        (lambda net: Subset(0), "k must be a whole number"),
        (lambda net: PointerAttention(4, kind="cosine"), "kind must be one of additive, dot, bilinear"),
        (lambda net: PointerAttention(4, clip=-1.0), "clip must be a positive number"),
        (lambda net: PointerAttention(4)(torch.rand(1, 2, 4), torch.rand(1, 0, 4)), "keys must not be empty"),
        (
            lambda net: PointerAttention(4)(
                torch.rand(2, 2, 4), torch.rand(2, 3, 4), torch.tensor([[True] * 3, [False] * 3])
            ),
            "excludes all keys of row 1",
        ),
        (lambda net: PointerAttention(4)(torch.rand(1, 2, 4), torch.rand(1, 3, 4), torch.ones(1, 3)), "must be a bool"),
        (
            lambda net: PointerAttention(4)(torch.rand(1, 2, 4), torch.rand(1, 3, 4), torch.ones(1, 2).bool()),
            "mask must have shape",
        ),
        (lambda net: PointerAttention(4)(torch.rand(1, 2, 5), torch.rand(1, 3, 4)), r"queries must have shape"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(network())


def test_half_precision_sums_steps_in_float32():
    torch.manual_seed(0)
    network = PointerNetwork(2, 16).bfloat16()
    x, g = torch.rand(1, 40, 2).bfloat16(), torch.Generator().manual_seed(0)
    found = network.decode(x, "sample", 4, constraint=Tour(), generator=g)
    again = network.log_prob(x, found.sequences, constraint=Tour())
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, found.log_probs, atol=0.3, rtol=0)
    assert len(again.flatten().unique()) == 4


@pytest.mark.usefixtures("unchecked")
def test_targets_are_checked_whatever_counts_as_equal():
    network, x = PointerNetwork(2, 8), torch.rand(1, 5, 2)
    for equivalent in (None, "rotations", "triangles"):
        for wrong in (torch.tensor([[0, 1, 2.9, -1]]), torch.tensor([[0, 1, 2, -100]]), torch.tensor([[0, 1, 5, -1]])):
            with pytest.raises(InputError, match="targets must"):
                network.loss(x, wrong, equivalent=equivalent)
    with pytest.raises(InputError, match="lengths must be integers"):
        network.log_prob(x, torch.tensor([[0, -1]]), torch.tensor([True]))


def test_log_probabilities_of_nothing():
    network = PointerNetwork(2, 8)
    assert network.log_prob(torch.rand(0, 3, 2), torch.zeros(0, 4).long(), constraint=Tour()).shape == (0,)
    assert network.log_prob(torch.rand(3, 3, 2), torch.zeros(3, 0).long(), constraint=Tour()).tolist() == [0, 0, 0]


@pytest.mark.usefixtures("unchecked")
def test_arguments_are_named_as_they_were_given():
    with pytest.raises(InputError, match="attention must be one of"):
        PointerNetwork(2, 8, attention="cosine")
    with pytest.raises(InputError, match=r"got a tensor of shape \(3,\)$"):
        PointerNetwork(2, 8).decode(torch.rand(3, 5, 2), torch.tensor([5, 4, 3]))
