"""Pointers to tokens of a Hugging Face encoder."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import BertConfig, BertModel

from commutant import InputError
from commutant.permutations import Subset, Tour
from commutant.permutations.huggingface import TokenPointer


@pytest.fixture
def head():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return TokenPointer(BertModel(config))


def test_padding_tokens_have_no_influence_and_are_never_chosen(head):
    head.eval()
    tokens, mask = torch.randint(5, 40, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    targets = torch.tensor([[6, 2, -1], [3, 0, -1]])
    scores = head(targets, input_ids=tokens, attention_mask=mask)
    assert scores.shape == (2, 3, 8)
    assert bool(scores[1, :, 4:7].isinf().all())
    alone = head(targets[1:], input_ids=tokens[1:, :4])
    assert torch.allclose(scores[1][:, [0, 1, 2, 3, 7]], alone[0], atol=1e-5)
    found = head.decode("beam", 4, constraint=Tour(), input_ids=tokens, attention_mask=mask)
    assert sorted(found.best[1, :4].tolist()) == [0, 1, 2, 3]
    assert found.best[1, 4] == -1


def test_the_head_learns_to_find_tokens(head):
    """The positions of the two tokens below 7, in increasing order of the tokens."""
    optimizer, generator = torch.optim.Adam(head.parameters(), 3e-3), torch.Generator().manual_seed(0)

    def drawn(count):
        tokens = torch.randint(7, 40, (count, 8), generator=generator)
        places = torch.rand(count, 8, generator=generator).argsort(1)[:, :2]
        tokens.scatter_(1, places, torch.tensor([5, 6]).expand(count, -1))
        return tokens, torch.nn.functional.pad(places, (0, 1), value=-1)

    for _ in range(150):
        tokens, targets = drawn(64)
        optimizer.zero_grad()
        head.loss(targets, input_ids=tokens).backward()
        optimizer.step()
    tokens, targets = drawn(100)
    found = head.eval().decode(constraint=Subset(2), input_ids=tokens).best
    assert (found == targets).all(1).double().mean() > 0.9


@pytest.mark.usefixtures("unchecked")
def test_refused(head):
    tokens = torch.randint(5, 40, (2, 5))
    with pytest.raises(InputError, match=r"model must have config\.hidden_size"):
        TokenPointer(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="at least one token in each row"):
        head.decode(input_ids=tokens, attention_mask=torch.zeros(2, 5))
    with pytest.raises(InputError, match="must end with -1"):
        head.loss(torch.tensor([[0, 1]] * 2), input_ids=tokens)
    mask = torch.tensor([[1, 1, 0, 0, 0]] * 2)
    with pytest.raises(InputError, match="must not point at padding"):
        head.loss(torch.tensor([[3, -1]] * 2), input_ids=tokens, attention_mask=mask)


def test_only_candidates_are_chosen_and_others_still_count_for_the_start(head):
    head.eval()
    tokens, mask = torch.randint(5, 40, (2, 7)), torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    candidates = torch.tensor([[0, 1, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1, 0]], dtype=torch.bool)
    given = {"input_ids": tokens, "attention_mask": mask}
    for found in (
        head.decode("beam", 6, constraint=Tour(), candidates=candidates, **given),
        head.decode("sample", 6, candidates=candidates, **given),
    ):
        chosen = found.sequences
        assert bool(
            (candidates[:, None].expand(2, chosen.shape[1], -1).gather(2, chosen.clamp(min=0)) | (chosen < 0)).all()
        )
    best = head.decode("beam", 6, constraint=Tour(), candidates=candidates, **given)
    assert sorted(best.best[0, :4].tolist()) == [-1, 1, 3, 6]
    assert sorted(best.best[1, :3].tolist()) == [-1, 0, 3]  # place 5 is padding
    targets = torch.tensor([[6, 3, -1], [3, -1, -1]])
    memory, all_ = head.encode(candidates=candidates, **given), head.encode(**given)
    assert torch.equal(memory.state[0], all_.state[0])
    scores, free = head(targets, candidates=candidates, **given), head(targets, **given)
    open_ = torch.nn.functional.pad(candidates & mask.bool(), (0, 1), value=True)[:, None].expand_as(scores)
    assert torch.equal(scores[open_], free[open_])
    assert bool(scores[~open_].isneginf().all())
    log_prob = head.log_prob(targets, candidates=candidates, **given)
    torch.testing.assert_close(head.loss(targets, candidates=candidates, **given), -log_prob.sum() / 5)


def test_probabilities_over_all_sequences_of_candidates_add_up(head):
    head.eval()
    tokens, candidates = torch.randint(5, 40, (1, 6)), torch.tensor([[True, False, True, False, False, True]])
    orders = torch.tensor([[*p, -1] for p in itertools.permutations((0, 2, 5))])[None]
    found = head.log_prob(orders, candidates=candidates, constraint=Tour(), input_ids=tokens).detach()
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)
    polygon = torch.tensor([[0, 2, 5, 0, -1]])
    one = head.loss(polygon, candidates=candidates, equivalent="rotations", input_ids=tokens).detach()
    turned = torch.tensor([[[0, 2, 5, 0, -1], [2, 5, 0, 2, -1], [5, 0, 2, 5, -1]]])
    total = head.log_prob(turned, candidates=candidates, input_ids=tokens).logsumexp(1).detach()
    assert float(one) == pytest.approx(-float(total) / 5, abs=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_wrong_candidates_are_refused(head):
    tokens = torch.randint(5, 40, (2, 5))
    targets = torch.tensor([[3, -1]] * 2)
    only = torch.tensor([[True, True, False, False, False]] * 2)
    with pytest.raises(InputError, match="must not point at padding, nor at elements that are no candidates"):
        head.loss(targets, candidates=only, input_ids=tokens)
    for wrong in (only.long(), only[0], only[:, :3]):
        with pytest.raises(InputError, match=r"candidates must be a boolean tensor of shape \(2, 5\)"):
            head.decode(candidates=wrong, input_ids=tokens)
    with pytest.raises(InputError, match="row 1 of the batch has no candidate"):
        head.decode(candidates=only & torch.tensor([[True], [False]]), input_ids=tokens)
    with pytest.raises(InputError, match="can't be combined"):
        head.loss(targets, constraint=Tour(), equivalent="rotations", input_ids=tokens)


@pytest.mark.usefixtures("unchecked")
def test_candidates_of_another_kind_are_refused(head):
    tokens = torch.randint(5, 40, (2, 5))
    for wrong in ([[True] * 5] * 2, torch.ones(2, 5).bool().numpy()):
        with pytest.raises(InputError, match="candidates must be a boolean tensor"):
            head.decode(candidates=wrong, input_ids=tokens)
