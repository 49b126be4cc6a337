"""Grammars, their fit, and enumeration in the order of probability."""

import itertools
import math
from fractions import Fraction

import pytest

from commutant import InputError
from commutant.programs import DSL, BaseType, Grammar, GraphMachine, Primitive, enumerate_programs, parse
from commutant.programs._grammar import Request
from commutant.programs._types import TypeVariable

NUMBER = BaseType("number")
FLAG = BaseType("flag")
MIXED = DSL(
    [
        Primitive("one", NUMBER, 1),
        Primitive("yes", FLAG, True),
        Primitive("not", FLAG >> FLAG, lambda a: not a),
        Primitive("less", NUMBER >> (NUMBER >> FLAG), lambda a, b: a < b),
        Primitive("if", FLAG >> (NUMBER >> (NUMBER >> NUMBER)), lambda c, a, b: a if c else b),
        Primitive("twice", (NUMBER >> NUMBER) >> (NUMBER >> NUMBER), lambda f, x: f(f(x))),
    ],
    NUMBER,
)


def sized(dsl, size, kind=None):
    """Return all programs without lambdas of a size as text, by brute force."""
    kind = kind or dsl.request
    out = []
    for p in dsl.primitives:
        arguments, result = [], p.type
        while hasattr(result, "argument"):
            arguments.append(result.argument)
            result = result.result
        if result != kind:
            continue
        for sizes in itertools.product(range(1, size), repeat=len(arguments)):
            if sum(sizes) == size - 1:
                for parts in itertools.product(*(sized(dsl, s, a) for s, a in zip(sizes, arguments, strict=True))):
                    out.append(f"({' '.join([p.name, *parts])})" if parts else p.name)
    return out


@pytest.mark.parametrize("size", [1, 4, 5, 6])
def test_every_program_of_a_size_is_enumerated(size):
    dsl = GraphMachine().dsl
    wanted = set(sized(dsl, size))
    cost = size * math.log(len(dsl.primitives))
    found = [str(p) for p in enumerate_programs(dsl, max_cost=cost + 1e-9)]
    assert len(found) == len(set(found))
    assert wanted == {t for t in found if t.count("(") + t.count(" identity") + (t == "identity") and _size(t) == size}


def _size(text):
    return len(text.replace("(", " ").replace(")", " ").split())


@pytest.mark.parametrize("bigrams", [False, True])
@pytest.mark.parametrize("weights", ["equal", "fitted"])
def test_probabilities_do_not_increase_and_nothing_comes_twice(bigrams, weights):
    start = [MIXED.parse("(if (less one one) one one)"), MIXED.parse("(twice (lam (if yes one $0)) one)")]
    grammar = Grammar.fitted(start, bigrams=bigrams) if weights == "fitted" else Grammar(MIXED, bigrams=bigrams)
    found = list(itertools.islice(enumerate_programs(grammar), 2000))
    costs = [grammar.cost(p) for p in found]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(costs))
    assert len({str(p) for p in found}) == len(found)
    for program in found[:200]:
        assert MIXED.program(program.term).term == program.term
        assert math.isclose(grammar.probability(program), math.exp(-grammar.cost(program)), rel_tol=1e-9)


def test_probabilities_of_a_request_sum_to_one():
    grammar = Grammar.fitted([MIXED.parse("(if (not yes) one one)")], bigrams=True)
    for request in (grammar.start, Request(FLAG), Request(NUMBER, (FLAG, NUMBER), ("if", 1))):
        total = math.fsum(math.exp(-p.cost) for p in grammar.productions(request))
        assert abs(total - 1) < 1e-9


def test_the_mass_of_all_programs_approaches_one():
    dsl = DSL([Primitive("one", NUMBER, 1), Primitive("double", NUMBER >> NUMBER, lambda a: 2 * a)], NUMBER)
    grammar = Grammar(dsl)
    assert math.fsum(grammar.probability(p) for p in itertools.islice(enumerate_programs(grammar), 40)) > 1 - 1e-9


def test_weights_are_uses_over_possible_uses():
    dsl = DSL([Primitive("one", NUMBER, 1), Primitive("double", NUMBER >> NUMBER, lambda a: 2 * a)], NUMBER)
    programs = [dsl.parse("(double (double one))"), dsl.parse("one")]  # four chances, two each
    fit = Grammar.fitted(programs, pseudo_count=1.0)
    assert fit.weights == pytest.approx({"one": 3 / 5, "double": 3 / 5})
    fit = Grammar.fitted([dsl.parse("(double (double (double one)))")], pseudo_count=1.0)
    assert fit.weights == pytest.approx({"one": 2 / 5, "double": 4 / 5})
    near = Grammar.fitted([dsl.parse("(double (double (double one)))")], max_ratio=math.exp(0.5))
    assert near.weights["double"] / near.weights["one"] == pytest.approx(math.exp(0.5))
    assert near.weights["double"] * near.weights["one"] == pytest.approx(8 / 25)


def test_bigrams_know_the_function_around():
    dsl = GraphMachine().dsl
    text = "(push (add (connect (push (add (connect (push (add (connect identity)))))))))"
    grammar = Grammar.fitted([dsl.parse(text)] * 20, pseudo_count=0.01, bigrams=True)
    assert [str(p) for p in itertools.islice(enumerate_programs(grammar), 3)] == [
        "(push (add (connect identity)))",
        "(push (add (connect (push (add (connect identity))))))",
        "(push (add (connect (push (add (connect (push (add (connect identity)))))))))",
    ]


def test_partial_applications_have_the_cost_of_their_long_form():
    grammar = Grammar(MIXED)
    assert grammar.cost(MIXED.parse("(twice (if yes one) one)")) == grammar.cost(
        MIXED.parse("(twice (lam (if yes one $0)) one)")
    )


def test_library_functions_of_open_types():
    """In a language with one base type, open type variables stand for it; else the grammar refuses the function."""
    wrap = {"wrap": parse("(lam (lam ($1 (push ($0 identity)))))")}  # (T -> ?a) -> (T -> T) -> ?a
    apply = {"apply": parse("(lam (lam ($1 $0)))")}  # (?a -> ?b) -> ?a -> ?b
    dsl = GraphMachine().dsl.extended({**wrap, **apply})
    program = dsl.parse("(wrap (lam (add $0)) (lam (connect $0)))")
    assert Grammar(dsl).cost(program) > 0
    found = [str(p) for p in itertools.islice(enumerate_programs(dsl), 4000)]
    assert len(set(found)) == 4000
    assert "(apply (lam $0) identity)" in found
    mixed = MIXED.extended(apply)  # of two base types the grammar can't choose one: the function is left out
    assert not any("apply" in str(p) for p in itertools.islice(enumerate_programs(mixed), 500))
    a, b = TypeVariable("a"), TypeVariable("b")
    primitive = DSL([*MIXED.primitives, Primitive("apply", (a >> b) >> (a >> b), lambda f, x: f(x))], NUMBER)
    with pytest.raises(InputError, match="stay open for the result"):
        next(enumerate_programs(primitive))


def test_requests_of_many_arguments_need_room():
    kind = NUMBER
    for _ in range(5):
        kind = NUMBER >> kind
    dsl = DSL(MIXED.primitives, kind)
    with pytest.raises(InputError, match="at most max_scope=4 variables"):
        next(enumerate_programs(dsl))
    assert str(next(enumerate_programs(dsl, max_scope=5))).startswith("(lam (lam (lam (lam (lam ")


def test_grammars_are_equal_whatever_was_asked_of_them():
    one, other = Grammar(MIXED), Grammar(MIXED)
    one.cost(MIXED.parse("one"))
    assert one == other
    huge = Grammar(MIXED, {"one": 1e299, "twice": 1e299})
    assert math.isfinite(huge.cost(MIXED.parse("(twice (lam one) one)")))


def test_functions_in_scope_are_used_and_limited():
    dsl = DSL([*MIXED.primitives], NUMBER >> NUMBER)
    found = [str(p) for p in itertools.islice(enumerate_programs(dsl), 3000)]
    assert {"(lam $0)", "(lam (if yes $0 one))", "(lam (twice (lam $1) $0))"} <= set(found)
    flat = [str(p) for p in itertools.islice(enumerate_programs(dsl, max_scope=1), 3000)]
    assert not any(t.count("(lam") > 1 for t in flat)


def test_costs_that_rounding_makes_zero_do_not_loop():
    dsl = DSL([Primitive("one", NUMBER, 1), Primitive("double", NUMBER >> NUMBER, lambda a: 2 * a)], NUMBER)
    grammar = Grammar(dsl, {"one": float(Fraction(1, 10**300)), "double": 1e30})
    assert [str(p) for p in itertools.islice(enumerate_programs(grammar), 2)] == ["one", "(double one)"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: next(enumerate_programs(DSL([Primitive("f", NUMBER >> NUMBER, abs)], NUMBER))), "no finite program"),
        (lambda: next(enumerate_programs(DSL([Primitive("one", NUMBER, 1)], FLAG))), "no finite program has type flag"),
        (lambda: enumerate_programs(MIXED, max_cost=math.nan), "max_cost must be a number"),
        (lambda: enumerate_programs(MIXED, max_scope=-1), "max_scope must be"),
        (lambda: Grammar(MIXED, {"two": 1.0}), "no function 'two'"),
        (lambda: Grammar(MIXED, {"one": 0.0}), "must be a positive number"),
        (lambda: Grammar(MIXED, {"one": math.inf}), "must be a positive number"),
        (lambda: Grammar(MIXED, {"one": 10**400}), "must be a positive number"),
        (lambda: Grammar(MIXED, None), "expected a DSL and weights"),
        (lambda: Grammar(MIXED, {("if", 0, "yes"): 2.0}), "weights must be by name"),
        (lambda: Grammar(MIXED, {("if", "yes"): 2.0}, bigrams=True), "weights must be by name"),
        (lambda: enumerate_programs("x"), "expected a DSL and weights"),
        (lambda: Grammar.fitted(["x"]), "must be a list of Program objects"),
        (lambda: Grammar.fitted([]), "needs a program or a language"),
        (lambda: Grammar.fitted([], dsl=MIXED, pseudo_count=0), "pseudo_count must be"),
        (lambda: Grammar.fitted([], dsl=MIXED, max_ratio=0.5), "max_ratio must be"),
        (lambda: Grammar(MIXED).cost(GraphMachine().dsl.parse("identity")), "makes no number of the form identity"),
    ],
)
def test_what_is_refused(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
