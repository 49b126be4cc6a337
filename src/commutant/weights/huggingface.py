"""Sorted networks of Hugging Face models: exports with a smaller configuration, training, self-speculative decoding."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .._checks import whole
from .._errors import InputError, require
from ..parameters import as_arguments, evaluating
from .sorted_networks import Budget, SortedModule, Value, check_nested

_MOST_FIELDS = 12


def extract_pretrained(nested: SortedModule, budget: Mapping[str, Value]) -> Any:
    """Return a sub-network as a model with a smaller configuration, for `save_pretrained` and `from_pretrained`.

    The numbers of the configuration that must change are found by trial: the model that the configuration builds has
    the shapes of the sub-network, and computes the same numbers with its weights.

    Args:
        nested: Sorted network of a Hugging Face model.
        budget: Budget of its menu.

    Returns:
        A model of the same class, in evaluation mode.

    Raises:
        InputError: The model is none of Hugging Face's, or no configuration describes the sub-network; use
            `SortedModule.extract`, which needs none.
    """
    model = _pretrained(nested)
    small = nested.extract(budget)
    wanted = {k: v.shape for k, v in small.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        for config in _configurations(nested, nested.menu.named(budget)):
            made = type(model)(copy.deepcopy(config))
            if {k: v.shape for k, v in made.state_dict().items()} != wanted:
                continue
            made = made.to(next(small.parameters()).device, next(small.parameters()).dtype)
            made.load_state_dict(small.state_dict())
            if _equal(nested, made, small):
                if getattr(model, "generation_config", None) is not None:
                    made.generation_config = copy.deepcopy(model.generation_config)
                return made.eval()
    raise InputError(
        f"no configuration of {type(model).__name__} describes the sub-network {nested.menu.named(budget)}, as when "
        "layers have different sizes; use extract, which needs none"
    )


def _pretrained(nested: SortedModule) -> Any:
    """Return the Hugging Face model of a sorted network.

    Raises:
        InputError: It is another module.
    """
    check_nested(nested)
    kind = require("transformers", "hf").PreTrainedModel
    if not isinstance(nested.module, kind):
        raise InputError(f"the network must be a model of transformers, got {type(nested.module).__name__}")
    return nested.module


def _configurations(nested: SortedModule, budget: Budget) -> Iterator[Any]:
    """Yield configurations in which some numbers are those of a sub-network, likely ones first."""
    model: Any = nested.module
    widths, gone = nested.left_by(budget)
    changes: dict[int, set[int]] = {}
    for own in nested.dims.values():
        for blocks in own.blocks.values():
            changes.setdefault(len(blocks), set()).add(sum(name not in gone for name in blocks))
    for group, k in widths.items():
        n = nested.spec.sizes[group]
        changes.setdefault(n, set()).add(k)
        for key, axis in nested.spec.uses(group):
            size = nested.spec.axes[key][axis].size
            changes.setdefault(size, set()).add(size // n * k)
        for inner in (g for g, own in nested.spec.parents.items() if own == (group,)):
            total = n * nested.spec.sizes[inner]
            changes.setdefault(total, set()).add(total // n * k)
    config = model.config
    fields = [
        (name, value, new)
        for name, value in vars(config).items()
        if type(value) is int and not name.endswith("_id") and name != "num_labels"
        for new in sorted(changes.get(value, ()))
        if new != value
    ][:_MOST_FIELDS]
    heads = getattr(config, "num_attention_heads", None)
    if heads and hasattr(config, "hidden_size") and not hasattr(config, "head_dim"):
        fields.append(("head_dim", 0, config.hidden_size // heads))  # else computed from the number of heads
    for count in range(len(fields) + 1):
        for chosen in combinations(fields, count):
            if len({name for name, _, _ in chosen}) < count:
                continue
            made = copy.deepcopy(config)
            for name, value, new in chosen:
                setattr(made, name, new)
                if "layer" in name:
                    for other, listed in vars(made).items():  # one entry a layer
                        if isinstance(listed, list) and len(listed) == value:
                            setattr(made, other, listed[:new])
            yield made


def _equal(nested: SortedModule, first: Any, second: Any) -> bool:
    """Return whether two models compute equal numbers on the example."""
    args, kwargs = as_arguments(nested.example_inputs)
    found = []
    for model in (first, second):
        with torch.no_grad(), evaluating(model):
            output = model(*args, **kwargs)
        chosen = nested.outputs(output) if nested.outputs else output
        found.append([x for x in pytree.tree_leaves(chosen) if isinstance(x, Tensor)])
    return len(found[0]) == len(found[1]) and all(map(torch.equal, *found))


class SelfSpeculative:
    """Greedy decoding of a causal language model, which is drafted by a sub-network and checked by the full model.

    The sub-network shares the weights of the model. It writes a few tokens, one pass of the full model checks them, and
    those up to the first difference are kept. So the text is that of greedy decoding with the full model alone, apart
    from ties that rounding decides.

    Args:
        nested: Sorted network of a Hugging Face causal language model.
        draft: Budget of its menu.

    Raises:
        InputError: The model can't generate, or the menu lacks the budget.
    """

    def __init__(self, nested: SortedModule, draft: Mapping[str, Value]) -> None:
        self.model = _pretrained(nested)
        if not self.model.can_generate():
            raise InputError(f"{type(self.model).__name__} can't generate text; use a model such as LlamaForCausalLM")
        budget = nested.menu.named(draft)
        self.draft = nested.extract(budget, share=True).eval()
        own = {len(blocks): kept for d in nested.dims.values() for blocks in d.blocks.values()
               for kept in [sum(name not in nested.left_by(budget)[1] for name in blocks)]}  # fmt: skip
        layers = getattr(self.draft.config, "num_hidden_layers", None)
        if layers in own:  # caches hold as many layers
            self.draft.config.num_hidden_layers = own[layers]

    @torch.no_grad()
    def generate(self, input_ids: Tensor, *, window: int = 4, **options: Any) -> Tensor:
        """Return the tokens of greedy decoding with the full model, the prompt included.

        Args:
            input_ids: Prompt, `(1, length)`.
            window: Number of tokens of the first draft. It grows by two after a draft that was right, and else
                shrinks by one.
            options: Keyword arguments of the model's `generate`, such as `max_new_tokens`.

        Raises:
            InputError: There are several prompts, or the options ask for sampling or for beams.
        """
        whole("window", window)
        if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or len(input_ids) != 1:
            got = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
            raise InputError(f"speculative decoding takes one prompt (1, length), got {got}")
        settings = options.get("generation_config") or self.model.generation_config
        beams = options.get("num_beams") or getattr(settings, "num_beams", None) or 1
        if options.get("do_sample") or beams != 1:
            raise InputError("speculative decoding is greedy: leave out do_sample, and set num_beams to 1")
        draft = self.draft.generation_config
        draft.num_assistant_tokens, draft.num_assistant_tokens_schedule = window, "heuristic"
        draft.assistant_confidence_threshold = 0.0  # drafts do not end early
        with evaluating(self.model):
            return self.model.generate(input_ids, assistant_model=self.draft, do_sample=False, **options)


class SortedTrainerMixin:
    """Mixin for `transformers.Trainer` that draws a sub-network for each micro-batch.

    Put it before `Trainer` among the bases, and give the trainer the plain model. With gradient accumulation, a step
    takes the mean over several sub-networks. Evaluation runs the full model.

    Attributes:
        nested: Sorted network of the trainer's model; set it before training.

    Example:
        >>> from transformers import Trainer
        >>> class SortedTrainer(SortedTrainerMixin, Trainer):
        ...     pass
    """

    nested: SortedModule

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a sub-network drawn at random in training, and of the full model in evaluation.

        Args:
            model: Model, possibly wrapped.
            inputs: Batch.
            args: Further arguments of the trainer.
            kwargs: Further arguments of the trainer.

        Raises:
            InputError: `nested` is missing.
        """
        if not isinstance(getattr(self, "nested", None), SortedModule):
            raise InputError("set trainer.nested = SortedModule(model, ...) before training")
        with self.nested.applied(self.nested.draw() if model.training else None):
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
