"""Networks of the experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """Blocks `x + down(relu(up(norm(x))))`, with a shared norm and head.

    Args:
        inputs: Number of inputs, and width of the stream.
        hidden: Width inside the blocks.
        blocks: Number of blocks.
        classes: Number of classes.
    """

    def __init__(self, inputs: int, hidden: int, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, inputs)
        self.blocks = nn.ModuleList(_Block(inputs, hidden) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(inputs), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of inputs `(batch, inputs)`.

        Args:
            x: Inputs.
        """
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())  # type: ignore[no-any-return]


def normed_mlp(inputs: int, hidden: int, classes: int = 10) -> nn.Sequential:
    """Build an MLP with two hidden layers and batch norms.

    Args:
        inputs: Number of inputs.
        hidden: Width of the hidden layers.
        classes: Number of classes.
    """
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes),
    )  # fmt: skip


class ResNet(nn.Module):
    """Residual network with pre-activation on images of 32 x 32 pixels, in three stages.

    Args:
        width: Channels of the first stage; each stage has twice as many as the one before.
        blocks: Blocks of each stage.
        classes: Number of classes.
    """

    def __init__(self, width: int, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Convolutions(width << max(0, stage - (not i)), width << stage, 1 + (stage > 0 and not i))
                            for i in range(blocks)))
            for stage in range(3)
        )  # fmt: skip
        self.norm, self.head = nn.BatchNorm2d(4 * width), nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of images `(batch, 3, 32, 32)`.

        Args:
            x: Images.
        """
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class _Convolutions(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x) + self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())  # type: ignore[no-any-return]


def decoder(vocabulary: int, width: int, layers: int, context: int) -> nn.Module:
    """Build a Llama decoder of Hugging Face.

    Args:
        vocabulary: Number of tokens.
        width: Width of the residual stream.
        layers: Number of layers.
        context: Longest text.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=width // 32, max_position_embeddings=context, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def next_token_loss(output: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next tokens, in nats.

    Args:
        output: Logits `(batch, length, vocabulary)`.
        tokens: Tokens `(batch, length)`.
    """
    return nn.functional.cross_entropy(output[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def accuracies(nested: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Return the accuracy at each budget of the menu of a sorted network.

    Args:
        nested: Sorted network in evaluation mode.
        inputs: Inputs.
        classes: Classes.
    """
    found = []
    with torch.no_grad():
        for budget in nested.menu:  # type: ignore[union-attr]
            with nested.budget(**budget):  # type: ignore[operator]
                right = [(nested(x).argmax(1) == y).sum()
                         for x, y in zip(inputs.split(1000), classes.split(1000), strict=True)]  # fmt: skip
            found.append(float(sum(right)) / len(classes))
    return torch.tensor(found)
