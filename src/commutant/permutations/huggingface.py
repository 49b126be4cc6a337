"""Pointers to the tokens of a Hugging Face encoder."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError
from ._pointer_attention import Scoring
from ._pointer_constraints import Constraint
from ._pointer_decoder import PointerDecoder, PointerMemory
from ._pointer_encoders import InitialState
from ._pointer_network import check_complete
from ._pointer_search import Decoding, Strategy, decode


class TokenPointer(nn.Module):
    """Head that writes a sequence of token positions, on any encoder that returns `last_hidden_state`.

    Use it for answers that are places of the input: the order of shuffled sentences, a chain of mentions, the spans of
    an extraction. For one span, a linear layer (`AutoModelForQuestionAnswering`) is simpler.

    Args:
        model: Encoder, such as `AutoModel.from_pretrained(...)`.
        hidden_size: Width of the decoder; by default that of the model.
        attention: Form of the scores, as in `PointerAttention`.
        stop: Whether sequences end by a stop.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> head = TokenPointer(BertModel(BertConfig(vocab_size=50, **sizes)))
        >>> tokens = torch.randint(50, (2, 9))
        >>> head.loss(torch.tensor([[3, 1, -1], [4, -1, -1]]), input_ids=tokens).shape
        torch.Size([])
    """

    def __init__(
        self, model: nn.Module, hidden_size: int | None = None, attention: Scoring = "additive", stop: bool = True
    ) -> None:
        super().__init__()
        features = getattr(getattr(model, "config", None), "hidden_size", None)
        if features is None:
            raise InputError(
                f"model must have config.hidden_size, as Hugging Face encoders do; got {type(model).__name__}"
            )
        hidden_size = features if hidden_size is None else hidden_size
        whole("hidden_size", hidden_size)
        self.model = model
        self.project = nn.Linear(features, hidden_size)
        self.initial = InitialState(hidden_size)
        self.decoder = PointerDecoder(hidden_size, attention=attention, stop=stop)

    def encode(self, **inputs: Any) -> PointerMemory:
        """Return the encoded tokens.

        Args:
            inputs: Arguments of the model, such as `input_ids` and `attention_mask`; the decoder points at tokens of
                mask one only.
        """
        out = self.model(**inputs)
        hidden = getattr(out, "last_hidden_state", None)
        if not isinstance(hidden, Tensor) or hidden.dim() != 3:
            raise InputError(f"{type(self.model).__name__} returns no last_hidden_state (batch, tokens, features)")
        mask = inputs.get("attention_mask")
        valid = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()
        if valid.shape != hidden.shape[:2] or not bool(valid.any(1).all()):
            raise InputError(
                f"attention_mask must have shape {tuple(hidden.shape[:2])} and at least one token in each row, got "
                f"shape {tuple(valid.shape)}"
            )
        keys = self.project(hidden)
        return PointerMemory(keys, keys, valid, self.initial(keys, valid))

    def forward(self, targets: Int[Tensor, "batch *sequences steps"], **inputs: Any) -> Float[Tensor, "..."]:
        """Return the scores of all tokens at each step, `(batch, ..., steps, tokens + 1)`, with the stop last.

        Args:
            targets: Positions of tokens, -1 for the stop and after it.
            inputs: Arguments of the model.
        """
        return self.decoder(self.encode(**inputs), targets)

    def loss(self, targets: Int[Tensor, "batch steps"], **inputs: Any) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a step, in nats.

        Args:
            targets: Positions of tokens, each row with its stop, `(batch, steps)`.
            inputs: Arguments of the model.
        """
        check_complete(self.decoder, targets)
        steps = self.decoder.step_log_probs(self.encode(**inputs), targets)
        return -steps.sum() / self.decoder.counted(targets).sum()

    def decode(
        self,
        strategy: Strategy = "greedy",
        width: int = 10,
        constraint: Constraint | None = None,
        max_steps: int | None = None,
        generator: torch.Generator | None = None,
        **inputs: Any,
    ) -> Decoding:
        """Return probable sequences of token positions, with the most probable first.

        Args:
            strategy: `"greedy"`, `"beam"` or `"sample"`.
            width: Number of hypotheses of the beam, or of samples.
            constraint: Choices that may follow, as in `PointerNetwork.decode`.
            max_steps: Largest number of choices, without the stop.
            generator: Random generator of the samples.
            inputs: Arguments of the model.
        """
        return decode(self.decoder, self.encode(**inputs), strategy, width, constraint, max_steps, generator)
