"""Pointer network: a set or sequence in, a sequence of its positions out."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import check_features, one_of, whole
from .._errors import InputError
from ._pointer_attention import Scoring
from ._pointer_constraints import Constraint
from ._pointer_decoder import PointerDecoder, PointerMemory, check_targets
from ._pointer_encoders import Encoding, pointer_encoder
from ._pointer_losses import rotation_log_prob, triangle_log_prob
from ._pointer_search import Decoding, Strategy, decode

Equivalent: TypeAlias = Literal["rotations", "triangles"]
_SUMMED = {"rotations": rotation_log_prob, "triangles": triangle_log_prob}


class PointerNetwork(nn.Module):
    """Network that reads n elements and writes a sequence of their indices, for any n with one set of weights.

    Elements are embedded linearly; an encoder and an LSTM decoder with `PointerAttention` follow. Sequences end with
    -1, the stop, which also pads them. Batches may be ragged: give `lengths`, or elements in one tensor with PyG's
    `batch` vector.

    Use it where the answer is a list of positions: an order, a polygon, a path, a span. Exact solvers are better where
    they exist (`algebra.convex_hull`, `algebra.shortest_hamiltonian_path`, OR-Tools). Where each element is either in
    the answer or not, a classifier of elements is simpler.

    The LSTM encoders read an order, so that reordering the elements changes the result. With the encoders `"set"` and
    `"deepsets"` the network is permutation-equivariant.

    Args:
        in_features: Features of an element.
        hidden_size: Width of embedding, encoder and decoder.
        encoder: `"lstm"` as in the paper, `"bilstm"`, `"set"` (Transformer without positions), `"deepsets"`, or a
            module from embedded elements `(batch, n, hidden)` and validity `(batch, n)` to encoded elements and the
            initial state of the decoder, `(h, c)`, each `(batch, hidden)`.
        attention: Form of the scores, as in `PointerAttention`.
        stop: Whether sequences end by a stop; without it, they have one entry per element.
        clip: Bound of the scores, or None.

    Shapes:
        elements `(batch, n, in_features)`, targets `(batch, steps)` -> scores `(batch, steps, n + 1)`

    Example:
        >>> network = PointerNetwork(2, 16)
        >>> points = torch.rand(4, 7, 2)
        >>> loss = network.loss(points, torch.tensor([[0, 2, 5, -1]]).expand(4, -1))
        >>> from commutant.permutations import Tour
        >>> network.decode(points, "beam", width=3, constraint=Tour()).best.shape
        torch.Size([4, 8])

    Reference:
        Vinyals, Fortunato and Jaitly, "Pointer Networks", NeurIPS 2015.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int = 256,
        encoder: Encoding | nn.Module = "lstm",
        attention: Scoring = "additive",
        stop: bool = True,
        clip: float | None = None,
    ) -> None:
        super().__init__()
        whole("in_features", in_features)
        whole("hidden_size", hidden_size)
        if not isinstance(encoder, nn.Module):
            one_of("encoder", encoder, ("lstm", "bilstm", "set", "deepsets"))  # names the argument of this class
            encoder = pointer_encoder(encoder, hidden_size)
        self.in_features, self.hidden_size = in_features, hidden_size
        self.embedding = nn.Linear(in_features, hidden_size)
        self.encoder = encoder
        self.decoder = PointerDecoder(hidden_size, attention=attention, stop=stop, clip=clip)

    def encode(
        self,
        x: Float[Tensor, "batch n features"] | Float[Tensor, "elements features"],
        lengths: Int[Tensor, " batch"] | None = None,
        batch: Int[Tensor, " elements"] | None = None,
    ) -> PointerMemory:
        """Return the encoded elements, which serve `log_prob` and `decode` of the decoder.

        Args:
            x: Elements, `(batch, n, in_features)`, or `(elements, in_features)` with `batch`.
            lengths: Number of elements of each set, `(batch,)`; by default all n.
            batch: Index of the set of each element, sorted, `(elements,)`. Targets and sequences still count the
                elements of each set from 0.
        """
        dense, valid = _dense(x, lengths, batch, self.in_features, self.embedding.weight)
        embedded = self.embedding(dense)
        keys, state = _encoded(self.encoder, embedded, valid)
        return PointerMemory(keys, embedded, valid, state)

    def forward(
        self,
        x: Float[Tensor, "batch n features"] | Float[Tensor, "elements features"],
        targets: Int[Tensor, "batch *sequences steps"],
        lengths: Int[Tensor, " batch"] | None = None,
        batch: Int[Tensor, " elements"] | None = None,
    ) -> Float[Tensor, "batch *sequences steps choices"]:
        """Return the scores of all choices at each step, given the targets of the steps before (teacher forcing).

        Args:
            x: Elements, as in `encode`.
            targets: Indices, -1 for the stop and after it, `(batch, steps)` or `(batch, sequences, steps)`.
            lengths: Number of elements of each set, as in `encode`.
            batch: Index of the set of each element, as in `encode`.

        Returns:
            Scores, `(batch, ..., steps, n + 1)` with the stop last, or `(batch, ..., steps, n)` without a stop.
        """
        return self.decoder(self.encode(x, lengths, batch), targets)

    def log_prob(
        self,
        x: Float[Tensor, "batch n features"] | Float[Tensor, "elements features"],
        targets: Int[Tensor, "batch *sequences steps"],
        lengths: Int[Tensor, " batch"] | None = None,
        batch: Int[Tensor, " elements"] | None = None,
        constraint: Constraint | None = None,
    ) -> Float[Tensor, "batch *sequences"]:
        """Return the log probability of each sequence, `(batch,)` or `(batch, sequences)`.

        A sequence without -1 counts as the start of a longer one.

        Args:
            x: Elements, as in `encode`.
            targets: Sequences, as in `forward`.
            lengths: Number of elements of each set, as in `encode`.
            batch: Index of the set of each element, as in `encode`.
            constraint: Choices that count; probabilities are normalized over them.
        """
        return self.decoder.step_log_probs(self.encode(x, lengths, batch), targets, constraint).sum(-1)

    def loss(
        self,
        x: Float[Tensor, "batch n features"] | Float[Tensor, "elements features"],
        targets: Int[Tensor, "batch steps"],
        lengths: Int[Tensor, " batch"] | None = None,
        batch: Int[Tensor, " elements"] | None = None,
        constraint: Constraint | None = None,
        equivalent: Equivalent | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a step, in nats; steps after the stop do not count.

        Where an answer can be written in several ways, `equivalent` sums their probabilities, so that the network need
        not guess which way was chosen. A set encoder needs it if the chosen way depends on the order of the input, for
        instance for polygons that start at the vertex of the smallest index.

        Args:
            x: Elements, as in `encode`.
            targets: Sequences, each with its stop, `(batch, steps)`.
            lengths: Number of elements of each set, as in `encode`.
            batch: Index of the set of each element, as in `encode`.
            constraint: Choices that count; probabilities are normalized over them.
            equivalent: `"rotations"` for polygons that may start at any vertex; `"triangles"` for triangles in any
                order, where each slot counts the probability of any triangle that is still missing. None for the
                given sequence alone.
        """
        check_loss(self.decoder, targets, constraint, equivalent)
        return pointer_loss(self.decoder, self.encode(x, lengths, batch), targets, constraint, equivalent)

    def decode(
        self,
        x: Float[Tensor, "batch n features"] | Float[Tensor, "elements features"],
        strategy: Strategy = "greedy",
        width: int = 10,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        batch: Int[Tensor, " elements"] | None = None,
        constraint: Constraint | None = None,
        max_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoding:
        """Return probable sequences, with the most probable first.

        A wider beam may return a less probable sequence than a narrow one, but never a less probable one than greedy
        search, whose result it keeps.

        Args:
            x: Elements, as in `encode`.
            strategy: `"greedy"`, `"beam"` or `"sample"`.
            width: Number of hypotheses of the beam, or of samples.
            lengths: Number of elements of each set, as in `encode`.
            batch: Index of the set of each element, as in `encode`.
            constraint: Choices that may follow the choices so far: `Tour()`, `ClosedPolygon()`, `Triangles()`,
                `Subset(k)`, or a function as in `Constraint`. Log probabilities are normalized over them.
            max_steps: Largest number of choices, without the stop; by default that of the constraint, n without a
                stop, and 2 n + 1 otherwise.
            generator: Random generator of the samples.
        """
        memory = self.encode(x, lengths, batch)
        return decode(self.decoder, memory, strategy, width, constraint, max_steps, generator)


def check_loss(
    decoder: PointerDecoder, targets: Tensor, constraint: Constraint | None, equivalent: Equivalent | None
) -> None:
    """Check, before elements are encoded, that each target sequence has its stop, if the decoder has one."""
    one_of("equivalent", equivalent, (None, "rotations", "triangles"))
    if equivalent is not None and constraint is not None:
        raise InputError("constraint and equivalent can't be combined; leave one of them out")
    if not isinstance(targets, Tensor) or targets.dim() != 2:
        given = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise InputError(f"targets must be a tensor of shape (batch, steps), got {given}")
    if decoder.stops and not torch.compiler.is_compiling() and not bool((targets[..., -1:] < 0).all()):
        raise InputError(
            "targets must end with -1, the stop, in every row; append a column of -1, or make the network with "
            "stop=False"
        )


def pointer_loss(
    decoder: PointerDecoder,
    memory: PointerMemory,
    targets: Tensor,
    constraint: Constraint | None = None,
    equivalent: Equivalent | None = None,
) -> Tensor:
    """Return the mean cross-entropy of a step.

    Args:
        decoder: Decoder.
        memory: Encoded sets.
        targets: Sequences, `(batch, steps)`, as `check_loss` wants them.
        constraint: Constraint that the sequences have to obey, or None.
        equivalent: Sequences that mean the same, or None.
    """
    check_targets(memory, targets)
    if equivalent is None:
        log_probs = decoder.step_log_probs(memory, targets, constraint).sum(-1)
    else:
        log_probs = _SUMMED[equivalent](decoder, memory, targets.long())
    steps = decoder.counted(targets).sum()
    if not torch.compiler.is_compiling():
        if not bool(steps):
            raise InputError(f"targets must hold at least one choice, got shape {tuple(targets.shape)} without any")
        broken = torch.isneginf(log_probs) if constraint is not None else torch.zeros(())
        if bool(broken.any()):
            raise InputError(f"the targets of row {int(broken.nonzero()[0, 0])} of the batch break the constraint")
    return -log_probs.sum() / steps


def _dense(
    x: Tensor, lengths: Tensor | None, batch: Tensor | None, features: int, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return padded elements and which positions are valid, `(batch, n, features)` and `(batch, n)`."""
    check_features("x", x, weight)
    expected = (2 if batch is not None else 3, features)
    if (x.dim(), x.shape[-1] if x.dim() else 0) != expected:
        form = f"(elements, {features}) with batch" if batch is not None else f"(batch, n, {features})"
        raise InputError(f"x must have shape {form}, got {tuple(x.shape)}")
    if batch is not None:
        if lengths is not None:
            raise InputError("lengths and batch both tell the sets of the elements; give one of them")
        return _from_batch(x, batch)
    if not x.shape[1]:
        raise InputError(f"x must have at least one element per set, got shape {tuple(x.shape)}")
    place = torch.arange(x.shape[1], device=x.device)
    if lengths is None:
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    whole = isinstance(lengths, Tensor) and not lengths.is_floating_point() and lengths.dtype != torch.bool
    if not isinstance(lengths, Tensor) or not whole or lengths.shape != x.shape[:1]:
        given = f"{lengths.dtype} {tuple(lengths.shape)}" if isinstance(lengths, Tensor) else repr(lengths)
        raise InputError(f"lengths must be integers of shape ({len(x)},), got {given}")
    if len(lengths) and not (int(lengths.min()) >= 1 and int(lengths.max()) <= x.shape[1]):
        raise InputError(
            f"lengths must lie in 1..{x.shape[1]}, got {int(lengths.min())} to {int(lengths.max())}; drop empty sets"
        )
    valid = place < lengths.to(x.device)[:, None]
    return x.masked_fill(~valid[..., None], 0), valid


def _from_batch(x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return padded elements of a PyG batch."""
    if not isinstance(batch, Tensor) or batch.dtype not in (torch.int64, torch.int32) or batch.shape != x.shape[:1]:
        given = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else repr(batch)
        raise InputError(f"batch must be integers of shape ({len(x)},), got {given}")
    if not len(batch) or int(batch[0]) != 0 or not bool((batch.diff() >= 0).all() & (batch.diff() <= 1).all()):
        raise InputError(
            "batch must start at 0 and rise by at most 1 from element to element, so that no set is empty; sort the "
            "elements by set and drop empty sets"
        )
    counts = torch.bincount(batch)
    start = counts.cumsum(0) - counts
    valid = torch.arange(int(counts.max()), device=x.device) < counts[:, None]
    dense = x.new_zeros(len(counts), valid.shape[1], x.shape[1])
    dense = dense.index_put((batch, torch.arange(len(x), device=x.device) - start[batch]), x)
    return dense, valid


def _encoded(encoder: nn.Module, embedded: Tensor, valid: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the encoded elements and the initial state, after a check of what an encoder returns."""
    if not len(embedded):
        return embedded, (embedded.new_zeros(0, embedded.shape[2]), embedded.new_zeros(0, embedded.shape[2]))
    try:
        found = encoder(embedded, valid)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:
        shapes = f"(x {tuple(embedded.shape)}, valid {tuple(valid.shape)})"
        raise InputError(f"the encoder fails on {shapes}: {error}".splitlines()[0]) from error
    expected = tuple(embedded.shape)
    state = (expected[0], expected[2])
    if (
        isinstance(found, tuple)
        and len(found) == 2
        and isinstance(found[0], Tensor)
        and tuple(found[0].shape) == expected
        and isinstance(found[1], tuple)
        and [tuple(s.shape) for s in found[1]] == [state, state]
    ):
        return found[0], (found[1][0], found[1][1])
    raise InputError(
        f"the encoder must return encoded elements of shape {expected} and a state (h, c), each of shape {state}; see "
        "PointerNetwork"
    )
