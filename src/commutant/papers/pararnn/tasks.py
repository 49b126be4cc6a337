"""Measurements for the claims of the ParaRNN paper on what its blocks learn: synthetic tasks and characters."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...data import CharacterText, TokenTask, associative_recall, character_text, k_hop, keep_nth
from ...evidence import Context, Measurement
from ...sequences import RNNBlock
from ...training import fit


class _Nothing(nn.Module):
    """Identity in place of the recurrence, as a control: the block keeps its convolution over four steps."""

    def forward(self, x: Tensor, h_0: Any = None) -> tuple[Tensor, Any]:
        """Return the input itself."""
        return x, h_0


class TokenModel(nn.Module):
    """Token model: an embedding, blocks, a norm and a linear layer.

    Args:
        vocabulary: Number of tokens.
        width: Width of the embedding.
        blocks: Blocks from `(batch, time, width)` to the same.
        positions: Number of learned positions; 0 for none.
    """

    def __init__(self, vocabulary: int, width: int, blocks: list[nn.Module], positions: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(positions, width)) if positions else None
        self.blocks, self.norm = nn.ModuleList(blocks), nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits `(batch, time, vocabulary)` of tokens `(batch, time)`."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            y = block(x)
            x = y[0] if isinstance(y, tuple) else y
        return self.head(self.norm(x))


def _kept(generator: torch.Generator, count: int, settings: dict[str, Any]) -> TokenTask:
    """Draw the keep-5th task with a target at every step from the fifth on."""
    task = keep_nth(generator, count, length=settings["length"], vocabulary=settings["vocabulary"])
    task.targets[:, 4:] = task.tokens[:, 4:5]
    return task


_TASKS: dict[str, Callable[[torch.Generator, int, dict[str, Any]], TokenTask]] = {
    "keep-5th": _kept,
    "recall": lambda g, n, s: associative_recall(g, n, **s),
    "1-hop": lambda g, n, s: k_hop(g, n, hops=1, **s),
    "2-hop": lambda g, n, s: k_hop(g, n, hops=2, **s),
}


def _task_model(context: Context, task: str, arm: str) -> TokenModel:
    settings, width = context.settings["tasks"][task], context.settings["channels"]
    block = RNNBlock(width, "paragru" if arm == "nothing" else arm, heads=4, mlp_size=0, a_max=0.9)
    if arm == "nothing":
        block.recurrence = _Nothing()  # type: ignore[assignment]
    return TokenModel(settings["vocabulary"], width, [block], settings["length"] if task == "keep-5th" else 0)


def _token_loss(model: nn.Module, task: TokenTask) -> Tensor:
    return nn.functional.cross_entropy(model(task.tokens).flatten(0, 1), task.targets.flatten())


def measure_tasks(context: Context) -> Measurement:
    """Return the accuracy on fresh sequences of each task for ParaGRU, the linear minGRU and no recurrence."""
    settings = context.settings
    arms = [(task, arm) for task in settings["tasks"] for arm in ("paragru", "mingru", "nothing")]

    def measure(task: str, arm: str) -> Measurement:
        draw = lambda g, n: _TASKS[task](g, n, settings["tasks"][task]).to(context.device)  # noqa: E731
        options = {"steps": settings["steps"], "batch_size": settings["batch"], "learning_rate": 1e-2}
        model = context.train(f"{task}-{arm}", partial(_task_model, context, task, arm), draw, _token_loss, **options)
        with torch.no_grad():
            test = draw(context.generator(77), 512)
            counted = test.targets >= 0
            right = (model.eval()(test.tokens).argmax(-1) == test.targets)[counted]
        return {f"{task}-{arm}": float(right.float().mean())}

    return context.arms({f"{task}-{arm}": partial(measure, task, arm) for task, arm in arms})


class AttentionBlock(nn.Module):
    """Causal softmax attention with four heads and a gated MLP, the block of the baseline.

    Args:
        width: Width of the tokens.
        mlp_size: Width of the hidden layer of the MLP.
    """

    def __init__(self, width: int, mlp_size: int) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(width, 2 * mlp_size, bias=False), nn.Linear(mlp_size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed tokens, `(batch, time, width)` like the input."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        up, gate = self.mlp_in(self.mlp_norm(x)).chunk(2, -1)
        return x + self.mlp_out(up * nn.functional.silu(gate))


def _language_model(arm: str, vocabulary: int, width: int, length: int, size: int | None = None) -> TokenModel:
    """Build a model of two blocks of an arm; `size` is the width of its MLP, or of the dense GRU."""
    if arm == "attention":
        blocks: list[nn.Module] = [AttentionBlock(width, size or width) for _ in range(2)]
        return TokenModel(vocabulary, width, blocks, length)
    if arm == "gru":
        hidden = size or width
        dense = nn.GRU(width, hidden, 2, batch_first=True)
        return TokenModel(vocabulary, width, [dense, nn.Linear(hidden, width, bias=False)])
    return TokenModel(vocabulary, width, [RNNBlock(width, arm, heads=4, mlp_size=size) for _ in range(2)])


def equal_parameters(arm: str, vocabulary: int, width: int, length: int) -> TokenModel:
    """Build a language model with as many parameters as the one of ParaGRU, to 1 %.

    Args:
        arm: Name of the block.
        vocabulary: Number of characters.
        width: Width of the embedding.
        length: Length of the sequences.
    """
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    with torch.device("meta"):
        wanted = count(_language_model("paragru", vocabulary, width, length))
        sizes = range(width // 2, 4 * width)
        best = min(sizes, key=lambda s: abs(count(_language_model(arm, vocabulary, width, length, s)) - wanted))
    return _language_model(arm, vocabulary, width, length, best)


LANGUAGE_ARMS = ("paragru", "mingru", "gru", "attention")


def measure_language(context: Context) -> Measurement:
    """Return the cross-entropy of the next character in nats, by steps and seconds, at equal numbers of parameters."""
    settings = context.settings
    text = character_text(settings["text"], context.data_dir)
    return context.arms({arm: partial(_train_language, context, arm, text) for arm in LANGUAGE_ARMS})


def _train_language(context: Context, arm: str, text: CharacterText) -> Measurement:
    settings, length = context.settings, context.settings["length"]
    torch.manual_seed(context.seed * 7_919 + 1)
    model = equal_parameters(arm, len(text.alphabet), settings["channels"], length).to(context.device)
    started, found = time.perf_counter(), {}

    def note(done: int, steps: int, loss: float | None) -> None:
        if loss is not None:
            found[f"{arm}@loss-{done}"], found[f"{arm}@second-{done}"] = loss, time.perf_counter() - started

    fitted = fit(
        model,
        lambda g, n: text.batch(g, n, length + 1).to(context.device),
        lambda m, x: nn.functional.cross_entropy(m(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()),
        steps=settings["steps"], batch_size=settings["batch"], learning_rate=settings["learning_rate"], warmup=20,
        weight_decay=0.01, checkpoint_every=settings["mark"], seed=context.seed, fabric=context.fabric,
        on_progress=note,
    )  # fmt: skip
    found[f"{arm}@seconds"] = time.perf_counter() - started
    found[f"{arm}@parameters"] = float(sum(p.numel() for p in model.parameters()))
    with torch.no_grad():
        rows = [text.batch(context.generator(s), 16, length + 1, "valid").to(context.device) for s in range(8)]
        losses = [nn.functional.cross_entropy(fitted.model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()) for x in rows]
    return {**found, f"{arm}@valid": float(torch.stack(losses).mean())}
