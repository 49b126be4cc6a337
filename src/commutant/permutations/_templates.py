"""Programs of local rules on bits (templates), executed exactly by the infinite-width predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ._tangent_kernel import PermutationNTK

_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Template:
    """A rule that sets bits of the next state when bits of the state have given values.

    Args:
        when: Values of named bits, 0 or 1.
        then: Names of the bits that are set in the next state.
    """

    when: Mapping[str, int]
    then: Sequence[str]


class TemplateProgram:
    """A synchronous program of local rules, run by an infinite-width predictor trained on one example per template.

    The templates are orthonormal training inputs; the image of each is the set of bits that it sets. A state is encoded
    as the normalized indicator of the templates that match it. For each bit, hits are the matching templates that set
    it, and misses are the other templates that set it. The output is $\\mu_1$ times the number of hits plus $\\mu_0$
    times the number of misses, and counts as one above 1e-10. A bit that no matching template sets is zero in the next
    state.

    Args:
        bits: Names of all bits of a state.
        templates: Rules of the program.

    Raises:
        InputError: For unknown bits or no template. `run` raises it if the misses of a bit outweigh its hits.

    Example:
        >>> swap = TemplateProgram(["a", "b"], [Template({"a": 1}, ["b"]), Template({"b": 1}, ["a"])])
        >>> swap.step({"a": 1, "b": 0})
        {'a': 0, 'b': 1}
    """

    def __init__(self, bits: Sequence[str], templates: Sequence[Template]) -> None:
        for name, given in (("bits", bits), ("templates", templates)):
            if not isinstance(given, Sequence):
                raise InputError(f"{name} must be a list, got {type(given).__name__}")
        self.bits, self.templates = tuple(bits), tuple(templates)
        for template in self.templates:
            if not isinstance(template, Template):
                raise InputError(f"templates must be Template objects, got {type(template).__name__}")
            if not isinstance(template.when, Mapping):
                raise InputError(f"when must map names of bits to values, got {template.when!r}")
            if isinstance(template.then, str):
                raise InputError(f"then must be a list of names of bits, got {template.then!r}")
        if not self.templates:
            raise InputError("templates must hold at least one template, got none")
        if len(set(self.bits)) != len(self.bits):
            raise InputError(f"bits must have different names, got {list(self.bits)}")
        at = {bit: i for i, bit in enumerate(self.bits)}
        unknown = {bit for t in self.templates for bit in (*t.when, *t.then) if bit not in at}
        if unknown:
            raise InputError(f"templates must use names in bits, got unknown bits: {', '.join(sorted(unknown))}")
        wrong = [value for t in self.templates for value in t.when.values() if value not in (0, 1)]
        if wrong:
            raise InputError(f"when must compare bits with 0 or 1, got {wrong[0]!r}")
        self._law = PermutationNTK(len(self.templates))
        self._care = torch.zeros(len(self.templates), len(self.bits), dtype=torch.bool)
        self._value = torch.zeros_like(self._care)
        self._image = torch.zeros(len(self.templates), len(self.bits), dtype=torch.float64)
        for row, template in enumerate(self.templates):
            for bit, value in template.when.items():
                self._care[row, at[bit]], self._value[row, at[bit]] = True, bool(value)
            for bit in template.then:
                self._image[row, at[bit]] = 1.0

    def run(self, states: Tensor, steps: int) -> Tensor:
        """Run a batch of states and return the states after the last step, `(batch, bits)`.

        Args:
            states: States of 0 and 1, `(batch, bits)`.
            steps: Number of steps.

        Raises:
            InputError: For states that are not binary, or if the misses of a bit outweigh its hits.
        """
        if not isinstance(states, Tensor):
            raise InputError(f"states must be a tensor (batch, {len(self.bits)}), got {type(states).__name__}")
        whole("steps", steps, 0)
        if states.ndim != 2 or states.shape[1] != len(self.bits):
            raise InputError(f"states must have shape (batch, {len(self.bits)}), got {tuple(states.shape)}")
        if bool(((states != 0) & (states != 1)).any()):
            raise InputError(f"states must be 0 or 1, got {states[(states != 0) & (states != 1)][0].item()}")
        state = states.bool()
        for _ in range(steps):
            matches = ~((state[:, None] ^ self._value) & self._care).any(-1)
            hits = matches.double() @ self._image
            count = matches.sum(1)
            table = [self._means(n) for n in range(int(count.max()) + 1)] if len(count) else [(0.0, 0.0)]
            means = torch.tensor(table, dtype=torch.float64)[count]
            misses = self._image.sum(0) - hits
            state = means[:, :1] * hits + means[:, 1:] * misses > _TOLERANCE
            lost = (hits > 0) & ~state
            if bool(lost.any()):
                bit = self.bits[int(lost.any(0).nonzero()[0])]
                raise InputError(
                    f"bit {bit} is set by a template, but outweighed by the other templates that set it and do not "
                    f"match; split the bit, so that each part has fewer templates"
                )
        return state.to(torch.uint8)

    def step(self, state: Mapping[str, int]) -> dict[str, int]:
        """Run one step of one state.

        Args:
            state: Value of every bit, 0 or 1, by name.

        Returns:
            The next state, by name.
        """
        if not isinstance(state, Mapping):
            raise InputError(f"state must map the names of bits to 0 and 1, got {type(state).__name__}")
        missing = set(self.bits) - set(state)
        if missing:
            raise InputError(f"state must hold every bit, but lacks the bits {', '.join(sorted(missing))}")
        unknown = set(state) - set(self.bits)
        if unknown:
            raise InputError(
                f"state must hold bits of the program, got unknown bits {', '.join(sorted(map(str, unknown)))}"
            )
        wrong = next((bit for bit in self.bits if state[bit] not in (0, 1)), None)
        if wrong is not None:
            raise InputError(f"state must hold values 0 or 1, got {wrong} = {state[wrong]!r}")
        row = torch.tensor([[int(state[bit]) for bit in self.bits]])
        return dict(zip(self.bits, self.run(row, 1)[0].tolist(), strict=True))

    def _means(self, n: int) -> tuple[float, float]:
        if n == 0:
            return 0.0, 0.0
        one, zero = self._law.mean(n)
        return one, 0.0 if n == self._law.k else zero


def addition(bits: int) -> TemplateProgram:
    """Build a program that adds two binary numbers p and q.

    After 2 m steps on m bits, p holds the sum modulo $2^m$, and `overflow` the last carry. The bits are `p0, p1, ...`
    and `q0, q1, ...`, least significant first. In each step, a bit that is set in only one of p and q goes to p. A bit
    that is set in both goes to the next higher bit of q as a carry.

    Args:
        bits: Number m of bits of p and of q.

    Example:
        >>> program = addition(3)
        >>> state = dict.fromkeys(program.bits, 0) | {"p0": 1, "p1": 1, "q0": 1}  # 3 + 1
        >>> for _ in range(6):
        ...     state = program.step(state)
        >>> [state[f"p{i}"] for i in range(3)]
        [0, 0, 1]
    """
    whole("bits", bits)
    rules = []
    for i in range(bits):
        p, q = f"p{i}", f"q{i}"
        carry = f"q{i + 1}" if i + 1 < bits else "overflow"
        rules += [Template({p: 0, q: 1}, [p]), Template({p: 1, q: 0}, [p]), Template({p: 1, q: 1}, [carry])]
    rules.append(Template({"overflow": 1}, ["overflow"]))
    names = [f"{letter}{i}" for letter in "pq" for i in range(bits)]
    return TemplateProgram([*names, "overflow"], rules)


def multiplication(bits: int) -> TemplateProgram:
    """Build a program that multiplies two binary numbers p and q.

    After m (2 m + 1) steps on m bits, r holds the product, with 2 m bits. The bits are `p0, p1, ...` (2 m bits, of
    which the upper half is zero) and `q0, q1, ...`, least significant first. Set `t0`, which starts the clock. Once per
    round of the clock, p is added to r if `q0` is set, with carries in c; then p shifts up and q down by one bit.

    Args:
        bits: Number m of bits of each factor.

    Example:
        >>> program = multiplication(2)
        >>> state = dict.fromkeys(program.bits, 0) | {"t0": 1, "p0": 1, "p1": 1, "q1": 1}  # 3 * 2
        >>> for _ in range(10):
        ...     state = program.step(state)
        >>> [state[f"r{i}"] for i in range(4)]
        [0, 1, 1, 0]
    """
    whole("bits", bits)
    wide, rules = 2 * bits, []
    for i in range(wide):
        r, c, p = f"r{i}", f"c{i}", f"p{i}"
        carry, above = ([f"c{i + 1}"], [f"p{i + 1}"]) if i + 1 < wide else ([], [])
        rules += [Template({r: 0, c: 1}, [r]), Template({r: 1, c: 0}, [r]), Template({r: 1, c: 1}, carry)]
        rules += [Template({"t0": 1, "q0": 1, p: 1}, [c])]
        rules += [Template({"t0": 0, p: 1}, [p]), Template({"t0": 1, p: 1}, above)]
    for j in range(bits):
        below = [f"q{j - 1}"] if j else []
        rules += [Template({"t0": 0, f"q{j}": 1}, [f"q{j}"]), Template({"t0": 1, f"q{j}": 1}, below)]
    rules += [Template({f"t{k}": 1}, [f"t{(k + 1) % (wide + 1)}"]) for k in range(wide + 1)]
    names = [
        f"{letter}{i}" for letter, count in (("p", wide), ("q", bits), ("r", wide), ("c", wide)) for i in range(count)
    ]
    return TemplateProgram([*names, *(f"t{k}" for k in range(wide + 1))], rules)
