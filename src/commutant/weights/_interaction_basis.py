"""Interaction bases: coordinates of activations that do not depend on how a network is parameterized."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import safetensors.torch
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .._checks import check_generator, one_of, positive, whole
from .._errors import InputError
from ._activation_moments import Moments, counted, slopes_of, summed
from ._basis import Basis, interaction, neurons, principal
from ._given import batches_of, check_module
from ._interactions import ablated, edges_of
from ._sections import OUTPUT, Places, Trace, chunks, depends, influences_other_rows, pulled_back

Kind: TypeAlias = Literal["local", "global", "pca", "neuron"]


class InteractionBasis:
    r"""Basis of the activations of any network that its parameterization does not change (Bushnaq et al. 2024).

    Activations are whitened, then turned to the principal axes of the derivatives of what comes after. Two networks
    that differ by an invertible linear map between two layers have the same strengths and the same interactions; PCA
    does not have this property. No training is needed: one pass over the data, and one more for each section whose
    derivatives have no closed form. Sections of a linear layer and an elementwise activation have one,
    $M = W^T (\mathbb{E}[\phi' \phi'^T] \circ C C^T) W$; whether a section is of this kind is tested on every batch.

    The basis says which directions matter to the next section and which directions of both interact. It assumes that
    features are a Cartesian basis, and finds nothing beyond PCA in language models, according to its authors.

    Args:
        model: Network.
        sections: Names of modules in the order in which they run, each called once. Their inputs are the places where
            bases are made, and a section lasts until the next of them; the last one until the output of the model.
        kind: `"local"` uses the derivatives of the next section, in the coordinates of the place after it. `"global"`
            uses those of the output of the model. `"pca"` has the principal axes of the activations, `"neuron"` the
            activations themselves, both centered.
        outputs: Function that selects a tensor from the output of the model; by default the tensor, or its `logits`.
        rtol: Smallest part of the largest eigenvalue that counts as more than zero.
        sources: Number of random sums of outputs, for sections without a closed form; by default all outputs are
            derived, at the cost of one backward pass for each coordinate and position. With sums, the derivatives are
            unbiased.
        generator: Random generator of the sums.

    Attributes:
        bases: Basis at each place, by the name of the module that reads it, and `"output"`: the output as it is.
        closed: Names of the sections whose derivatives have a closed form.

    Raises:
        InputError: If a module is called twice, or not at all, or reads several activations; or if a later section
            reads an activation around the ones before, which then do not determine it.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = InteractionBasis(model, ["0", "2", "4"]).fit([torch.randn(200, 4)])
        >>> found.transform(torch.randn(5, 4), "0").shape
        torch.Size([5, 4])

    Reference:
        Bushnaq et al., "The Local Interaction Basis", 2024; "Using Degeneracy in the Loss Landscape for Mechanistic
        Interpretability", 2024.
    """

    def __init__(
        self,
        model: nn.Module,
        sections: Sequence[str],
        kind: Kind = "local",
        *,
        outputs: Callable[[Any], Tensor] | None = None,
        rtol: int | float = 1e-10,
        sources: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_module(model, "model")
        one_of("kind", kind, get_args(Kind))
        positive("rtol", rtol)
        if sources is not None:
            whole("sources", sources)
        check_generator(generator)
        self.places = Places(model, sections, outputs)
        self.kind, self.rtol, self.sources, self.generator = kind, float(rtol), sources, generator
        self.bases: dict[str, Basis] = {}
        self.closed: tuple[str, ...] = ()

    @property
    def model(self) -> nn.Module:
        """Network whose activations are described."""
        return self.places.model

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the modules at whose inputs bases are made."""
        return self.places.names

    def fit(self, batches: Iterable[Any], group: torch.distributed.ProcessGroup | None = None) -> InteractionBasis:
        """Make the bases from data, and return the object itself.

        Args:
            batches: Batches of data that can be read several times: tensors, tuples whose first entry is the input, or
                mappings of keywords. Tokens that an `attention_mask` hides do not count.
            group: Processes that hold parts of the data; sums are added up over them.

        Raises:
            InputError: If there is no data, or activations are not finite.
        """
        batches = batches_of(batches)
        if iter(batches) is batches:
            raise InputError("batches are read several times; give a list or a DataLoader, not an iterator")
        moments = self._moments(batches, group)
        places, last = self.places, len(self.places.names)
        self.closed = tuple(n for n, m in zip(places.names, moments, strict=False) if m.slopes is not None)
        self.bases = {OUTPUT: neurons(moments[last])}
        whole_ = self._global(batches, group, moments) if self.kind == "global" else None
        for place in reversed(range(last)):
            own, name = moments[place], places.names[place]
            if self.kind == "neuron":
                self.bases[name] = neurons(own)
            elif self.kind == "pca":
                self.bases[name] = principal(own, self.rtol)
            else:
                after = self.bases[(*places.names, OUTPUT)[place + 1]].directions
                matrix = whole_[place] if whole_ is not None else self._local(place, own, after, batches, group)
                self.bases[name] = interaction(own, matrix, self.rtol)
            if not len(self.bases[name].strengths):
                warnings.warn(
                    f"nothing that {name!r} reads varies and reaches the output: no coordinates", stacklevel=2
                )
        return self

    def transform(self, activations: Float[Tensor, "*batch features"], section: str) -> Float[Tensor, "*batch k"]:
        """Return activations in the coordinates of a place, in the dtype of the activations.

        Args:
            activations: What the module reads, with features last, `(*batch, features)`.
            section: Name of the module.
        """
        basis = self._at(section, activations, "features")
        return ((activations.double() - basis.mean) @ basis.directions).to(activations.dtype)

    def inverse_transform(self, coordinates: Float[Tensor, "*batch k"], section: str) -> Float[Tensor, "*batch d"]:
        """Return the activations of coordinates, exactly so far as they vary and matter.

        Args:
            coordinates: Coordinates, `(*batch, coordinates)`.
            section: Name of the module.
        """
        basis = self._at(section, coordinates, "coordinates")
        return (basis.mean + coordinates.double() @ basis.inverse).to(coordinates.dtype)

    def edges(self, batches: Iterable[Any]) -> dict[str, Float[Tensor, "outputs inputs"]]:
        r"""Return how strongly the coordinates at each place act on those at the next one.

        $E_{ij}$ is the mean over the data of $(\sum_s \partial \hat f^{l+1}_{i,t} / \partial \hat f^l_{j,s} \cdot
        \hat f^l_{j,s})^2$, summed over output positions t; s are input positions. For a linear section it is
        $\hat W_{ij}^2 \Lambda_j$. Like the basis, it is invariant under invertible changes of the activations, up to
        the choice within blocks of equal strength.

        Args:
            batches: Batches of data, as for `fit`. A part of the data gives good estimates.

        Returns:
            One matrix for each section, by the name of its module, `(coordinates after, coordinates before)`.
        """
        self._fitted()
        return edges_of(self, batches)

    def ablate(
        self,
        nodes: Mapping[str, int | Bool[Tensor, " coordinates"]] | None = None,
        edges: Mapping[str, Bool[Tensor, "outputs inputs"]] | None = None,
    ) -> contextlib.AbstractContextManager[nn.Module]:
        """Return a context in which the model, in evaluation mode, runs without some coordinates or interactions.

        A removed coordinate has its mean. Without an interaction, an output coordinate is computed as if the input
        coordinate had its mean, which takes one forward pass for each set of outputs with the same inputs.

        Args:
            nodes: Number of first coordinates to keep, or which to keep, `(coordinates,)`, by the name of a section.
            edges: Interactions to keep, `(coordinates after, coordinates before)`, by the name of a section.
        """
        self._fitted()
        return ablated(self, nodes, edges)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bases to a safetensors file.

        Args:
            path: Path of the file.
        """
        self._fitted()
        tensors = {
            f"{name}/{part}": getattr(basis, part).contiguous()
            for name, basis in self.bases.items()
            for part in Basis.__dataclass_fields__
        }
        about = {"sections": json.dumps(self.sections), "kind": self.kind, "closed": json.dumps(self.closed)}
        Path(path).write_bytes(safetensors.torch.save(tensors, {"commutant": "interaction-basis", **about}))

    def load(self, path: str | os.PathLike[str]) -> InteractionBasis:
        """Read the bases from a file that was written for the same sections, and return the object itself.

        Args:
            path: Path of the file.

        Raises:
            InputError: If the file is of other sections or another kind.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{os.fspath(path)!r} can't be read: {error}") from None
        given = json.loads(about.get("sections", "null")), about.get("kind")
        if given != (list(self.sections), self.kind):
            raise InputError(
                f"{os.fspath(path)!r} holds bases of kind {given[1]} at {given[0]}, expected {self.kind} at "
                f"{list(self.sections)}"
            )
        parts = Basis.__dataclass_fields__
        self.bases = {n: Basis(**{p: tensors[f"{n}/{p}"] for p in parts}) for n in (OUTPUT, *reversed(self.sections))}
        self.closed = tuple(json.loads(about["closed"]))
        return self

    def _fitted(self) -> None:
        if not self.bases:
            raise InputError("there are no bases yet; call fit(batches) or load(path) first")

    def _at(self, section: str, x: Tensor, axis: str) -> Basis:
        self._fitted()
        one_of("section", section, self.bases)
        basis = self.bases[section]
        wanted = basis.directions.shape[axis == "coordinates"]
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.dim() or x.shape[-1] != wanted:
            given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"expected floating-point (*batch, {wanted}) {axis} of {section!r}, got {given}")
        return Basis(*(getattr(basis, part).to(x.device) for part in Basis.__dataclass_fields__))

    def _moments(self, batches: Iterable[Any], group: Any) -> list[Moments]:
        """Return the moments of all places, and of the slopes of sections that have them."""
        places, moments = self.places, list[Moments]()
        for batch, trace in self._traced(batches):
            rows = [places.rows(i, x) for i, x in enumerate(trace.arrivals)]
            if not moments:
                self._check_bypass(batch, trace)
                moments = [Moments(r.shape[-1]) for r in rows]
            for place, (own, r) in enumerate(zip(moments, rows, strict=True)):
                own.add(counted(r, trace.valid))
                own.add_slopes(slopes_of(trace, place))
        for own in moments:
            own.sum_over(group)
        fewest, widest = min(m.count for m in moments), max(len(m.mean) for m in moments)
        if fewest < 5 * widest:
            warnings.warn(
                f"{int(fewest)} rows of data for {widest} features: means and derivatives are uncertain; give at least "
                f"{5 * widest}",
                stacklevel=3,
            )
        return moments

    def _traces(self, batches: Iterable[Any], cut: bool = True) -> Iterable[Trace]:
        return (trace for _, trace in self._traced(batches, cut))

    def _traced(self, batches: Iterable[Any], cut: bool = True) -> Iterable[tuple[Any, Trace]]:
        empty = True
        for batch in batches:
            trace, empty = self.places.trace(batch, cut), False
            if not trace.reads[0].numel():
                raise InputError("a batch without any sample was given")
            yield batch, trace
        if empty:
            raise InputError("no batch was given")

    def _check_bypass(self, batch: Any, trace: Trace) -> None:
        """Check that each section depends on the place before it alone."""
        names = (*self.places.names, OUTPUT)
        if self.kind == "local" and self.places.bypassed(batch, trace):
            raise InputError(
                f"what {names[1]!r} reads depends on more than what {names[0]!r} reads, as with a skip connection; "
                'choose modules that read all of the stream, or kind="global"'
            )
        for place, start in enumerate(trace.reads):
            for later in range(place + 2, len(names)) if self.kind == "local" else ():
                if depends(trace.arrivals[later], start):
                    raise InputError(
                        f"what {names[later]!r} reads depends on {names[place]!r} around {names[later - 1]!r}, as "
                        'with a skip connection; choose modules that read all of the stream, or kind="global"'
                    )

    def _local(self, place: int, own: Moments, after: Tensor, batches: Iterable[Any], group: Any) -> Tensor:
        """Return the mean of $J^T C C^T J$ for the derivatives J of a section, `(features, features)`."""
        if own.slopes is not None:
            weight = self.places.modules[place].weight.detach().double()  # type: ignore[operator,union-attr]
            inner = own.slopes / own.count * (after @ after.T).to(own.slopes)
            return weight.mT @ inner.to(weight) @ weight
        total = torch.zeros(len(own.mean), len(own.mean), dtype=torch.float64)
        for trace in self._traces(batches):
            (found,) = self._squares(trace, place + 1, [place], after)
            total += found
        return summed(total, group) / own.count

    def _global(self, batches: Iterable[Any], group: Any, moments: Sequence[Moments]) -> list[Tensor]:
        """Return the mean of $J^T J$ for the derivatives J of the output by each place."""
        last = len(self.places.names)
        totals = [torch.zeros(len(m.mean), len(m.mean), dtype=torch.float64) for m in moments[:last]]
        for trace in self._traces(batches, cut=False):
            for total, part in zip(totals, self._squares(trace, last, range(last), None), strict=True):
                total += part
        return [summed(t, group) / m.count for t, m in zip(totals, moments, strict=False)]

    def _squares(self, trace: Trace, target: int, places: Sequence[int], after: Tensor | None) -> list[Tensor]:
        """Return the sums of squares of the derivatives of an activation by others, over outputs and positions."""
        arrival, starts = trace.arrivals[target], [trace.reads[p] for p in places]
        widths = [self.places.rows(p, s).shape[-1] for p, s in zip(places, starts, strict=True)]
        totals = [torch.zeros(w, w, dtype=torch.float64) for w in widths]
        for weights in output_sums(self.places, trace, target, starts[0], after, self.sources, self.generator):
            for total, place, found in zip(totals, places, pulled_back(arrival, starts, weights), strict=True):
                rows = torch.stack([counted(self.places.rows(place, g), trace.valid) for g in found]).flatten(0, 1)
                total += (rows.double().mT @ rows.double()).cpu()
        return totals


def output_sums(
    places: Places,
    trace: Trace,
    target: int,
    start: Tensor,
    after: Tensor | None,
    sources: int | None,
    generator: torch.Generator | None,
) -> Iterable[Tensor]:
    """Yield the weights of sums of an activation whose derivatives are wanted, `(sums, ...)`, in parts.

    Args:
        places: Places of the network.
        trace: Activations.
        target: Number of the activation.
        start: Activation by which it is derived.
        after: Coordinates of the activation, `(features, coordinates)`, or None for its features.
        sources: Number of random sums, or None for one sum for each coordinate and position.
        generator: Random generator of the sums.
    """
    arrival = trace.arrivals[target]
    together = influences_other_rows(arrival, start)
    rows = places.rows(target, arrival, together)
    batch, positions, width = rows.shape
    columns = torch.eye(width, dtype=rows.dtype) if after is None else after.to(rows.dtype)
    columns = columns.to(rows.device)
    counts = None
    if trace.valid is not None and trace.valid.numel() == batch * positions:
        counts = trace.valid.reshape(batch, positions, 1).to(rows)
    total = positions * columns.shape[1] if sources is None else sources
    for part in chunks(total, start.numel() + arrival.numel()):
        weights = rows.new_zeros(len(part), batch, positions, width)
        if sources is None:
            for row, which in enumerate(part):
                weights[row, :, which // columns.shape[1]] = columns[:, which % columns.shape[1]]
        else:
            shape = (len(part), batch, positions, columns.shape[1])
            signs = torch.randint(2, shape, generator=generator).mul(2).sub(1).to(rows)
            weights = signs @ columns.T / sources**0.5
        yield places.shaped(target, weights if counts is None else weights * counts, arrival)
