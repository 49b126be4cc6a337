"""Library learning: costs, equal programs, and agreement with Stitch."""

import functools
import itertools
import random

import pytest

from commutant import InputError
from commutant.programs import (
    DSL,
    BaseType,
    Grammar,
    GraphMachine,
    Primitive,
    TieMachine,
    compress,
    enumerate_programs,
    search_states,
)
from commutant.programs._abstraction import Corpus, best_abstraction, pattern_of, rewritten, saving
from commutant.programs._terms import parse
from commutant.programs._types import TypeVariable

NUMBER = BaseType("number")
HIGHER = DSL(
    [
        Primitive("one", NUMBER, 1),
        Primitive("add", NUMBER >> (NUMBER >> NUMBER), lambda a, b: a + b),
        Primitive("twice", (NUMBER >> NUMBER) >> (NUMBER >> NUMBER), lambda f, x: f(f(x))),
    ],
    NUMBER >> NUMBER,
)
ARITIES = {"identity": 0, "next_port": 1, "push": 1, "pop": 1, "add": 1, "connect": 1, "func": 2}
ARITIES["if_positions_equal"] = 5


def drawn(rng, depth):
    name = rng.choice(list(ARITIES)[1:6] if depth > 3 else list(ARITIES)) if depth else "identity"
    parts = [drawn(rng, depth - 1) for _ in range(ARITIES[name])]
    return f"({' '.join([name, *parts])})" if parts else name


@functools.cache
def corpora():
    """Return sets of programs: ties, random ones, functions with variables."""
    machine = GraphMachine()
    out = {"ties": [f.program for f in itertools.islice(search_states(TieMachine(6), max_cost=6), 60)]}
    for seed in range(3):
        rng = random.Random(seed)
        out[f"random-{seed}"] = [machine.dsl.parse(drawn(rng, 8)) for _ in range(25)]
    programs = list(itertools.islice(enumerate_programs(HIGHER), 2000))
    for seed in range(3):
        out[f"variables-{seed}"] = random.Random(seed).sample(programs, 30)
    return out


CORPORA = ["ties", *(f"{kind}-{seed}" for kind in ("random", "variables") for seed in range(3))]


@pytest.mark.parametrize("arity", [0, 1, 2])
@pytest.mark.parametrize("name", CORPORA)
def test_programs_stay_the_same_and_get_shorter(name, arity):
    programs = corpora()[name]
    result = compress(programs, 3, max_arity=arity, method="python")
    assert result.cost_after < result.cost_before
    for before, after in zip(programs, result.programs, strict=True):
        assert result.dsl.inline(after.term) == before.dsl.inline(before.term)
        assert after.mass == before.mass
    library = sum(_body_cost(body) for body in result.abstractions.values())
    assert result.cost_after + library < result.cost_before


def _body_cost(term):
    text = str(term)
    return 100 * (text.replace("(lam", "").count(" ") + 1 - text.count("$"))


@pytest.mark.parametrize("arity", [0, 1, 2])
@pytest.mark.parametrize("name", CORPORA)
def test_costs_are_those_of_stitch(name, arity):
    pytest.importorskip("stitch_core")
    ours = compress(corpora()[name], 3, max_arity=arity, method="python")
    theirs = compress(corpora()[name], 3, max_arity=arity, method="stitch")
    assert (ours.cost_before, ours.cost_after) == (theirs.cost_before, theirs.cost_after)
    for a, b in zip(ours.programs, theirs.programs, strict=True):
        assert ours.dsl.inline(a.term) == theirs.dsl.inline(b.term)


@pytest.mark.parametrize("seed", range(6))
def test_the_abstraction_is_the_best_of_all(seed):
    """Slow reference: every subterm with every choice of arguments among its own subterms, at most two.

    As in Stitch, an argument must not be the same at all matches.
    """
    rng = random.Random(seed)
    programs = [parse(drawn(rng, 4)) for _ in range(5)]
    corpus = Corpus(programs)
    best = best_abstraction(corpus, 2, set())
    found = best[1] if best else 0
    wanted = 0
    for term in {str(t): t for p in programs for t in _parts(p)}.values():
        for body in _bodies(term):
            function = parse(body)
            pattern = pattern_of(corpus, function)
            programs_of = [r for r in corpus.roots if corpus.reachable(r) & set(pattern.matches)]
            columns = list(zip(*(arguments for _, arguments in pattern.matches.values()), strict=True))
            constant = any(len(set(c)) == 1 for c in columns) or len(set(columns)) < len(columns)
            if len(programs_of) >= 2 and not constant:
                wanted = max(wanted, saving(corpus, pattern)[0] - pattern.cost)
    assert found == wanted


def _parts(term):
    from commutant.programs._terms import Apply, subterms

    return [t for t in subterms(term) if isinstance(t, Apply)]


def _bodies(term):
    """Return functions that the subterm is a call of, with up to two of its parts as arguments."""
    text = str(term)
    parts = sorted({str(t) for t in _all(term)} - {text}, key=len)
    out = [text]
    for a in parts:
        out.append(f"(lam {text.replace(a, '$0')})" if _whole(text, a) else text)
    for a, b in itertools.permutations(parts, 2):
        if a not in b and b not in a and _whole(text, a) and _whole(text, b):
            out.append(f"(lam (lam {text.replace(a, '$1').replace(b, '$0')}))")
    return [b for b in out if "(lam" not in b.replace("(lam", "", 2)]


def _all(term):
    from commutant.programs._terms import subterms

    return list(subterms(term))


def _whole(text, part):
    """Return whether a part occurs only as whole words, so that replacing its text replaces the term."""
    return part.startswith("(") or text.replace("(", " ").replace(")", " ").split().count(part) == text.count(part)


def test_an_argument_may_occur_twice():
    arguments = ("(add $0 (add one $0))", "(add one (twice (add one) $0))")
    programs = [HIGHER.parse(f"(lam (add {a} {a}))") for a in arguments]
    result = compress(programs, 1, method="python")
    assert [str(b) for b in result.abstractions.values()] == ["(lam (add $0 $0))"]
    assert str(result.programs[0]) == "(lam (fn_0 (add $0 (add one $0))))"


def test_arguments_do_not_use_variables_of_the_body():
    """`$0` below the function's own lambda is no argument."""
    texts = ["(lam (twice (lam (add $0 one)) $0))", "(lam (twice (lam (add $1 one)) $0))"]
    result = compress([HIGHER.parse(t) for t in texts], 2, method="python")
    for text, after in zip(texts, result.programs, strict=True):
        assert str(result.dsl.inline(after.term)) == text


def test_programs_use_the_library_that_they_have():
    dsl = GraphMachine().dsl.extended({"grow": parse("(lam (push (add (connect $0))))")})
    programs = [
        dsl.parse(t)
        for t in (
            "(push (add (connect (next_port (push (add (connect (pop identity))))))))",
            "(next_port (push (add (connect (pop identity)))))",
        )
    ]
    result = compress(programs, 2, method="python")
    assert all("(push (add" not in str(p) for p in result.programs)
    bodies = [str(b) for b in {**dsl.library, **result.abstractions}.values()]
    assert len(set(bodies)) == len(bodies)
    again = compress(result.programs, 2, method="python")
    assert set(again.dsl.library) >= set(result.dsl.library)
    assert again.cost_after <= result.cost_after


def test_matches_of_a_function_with_swapped_arguments():
    corpus = Corpus([parse("(push (add (add one two) (move three)))")])
    pattern = pattern_of(corpus, parse("(lam (lam (push (add $0 (move $1)))))"))
    assert [str(t) for t in rewritten(corpus, pattern, "f")] == ["(f three (add one two))"]
    assert not pattern_of(corpus, parse("(lam (lam (add $0 one)))")).matches


def test_what_is_refused(unchecked, monkeypatch):
    program = GraphMachine().dsl.parse("identity")
    for arguments, words in (
        (([],), "at least one program"),
        (([program, TieMachine(3).dsl.parse("identity")],), "of one language"),
        ((["identity"],), "of one language"),
        (([program], 0), "n must be a whole number"),
    ):
        with pytest.raises(InputError, match=words):
            compress(*arguments)
    with pytest.raises(InputError, match="max_arity must be"):
        compress([program], max_arity=-1)
    assert compress(program).abstractions == {}
    with pytest.raises(InputError, match="method must be one of"):
        compress([program], method="dreamcoder")
    monkeypatch.setattr("commutant.programs._library.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package stitch-core"):
        compress([program], method="stitch")
    assert compress([program]).abstractions == {}


def test_languages_of_equal_names_are_not_mixed():
    machine = GraphMachine()
    one, other = (machine.dsl.extended({"f": parse(t)}) for t in ("(lam (push $0))", "(lam (pop $0))"))
    with pytest.raises(InputError, match="of one language"):
        compress([one.parse("(f identity)"), other.parse("(f identity)")])
    assert one.parse("(f identity)") != other.parse("(f identity)")
    assert one.parse("(f identity)") == GraphMachine().dsl.extended(one.library).parse("(f identity)")
    assert compress([one.parse("(f identity)"), GraphMachine().dsl.extended(one.library).parse("identity")])


def test_an_argument_that_cannot_be_inlined_is_one():
    """`$0` is the same at all matches, but is no closed term."""
    texts = [
        "(lam (add (twice (add one) $0) one))",
        "(lam (add one (twice (add one) $0)))",
        "(lam (twice (add one) $0))",
    ]
    result = compress([HIGHER.parse(t) for t in texts], 1, method="python")
    assert result.cost_after < result.cost_before
    for text, after in zip(texts, result.programs, strict=True):
        assert str(result.dsl.inline(after.term)) == text


@pytest.mark.parametrize(
    "texts",
    [
        ["(lam (add $0 $0))", "(lam (add (add $0 $0) (add $0 $0)))"],  # Stitch panics
        ["(lam (add (add one $0) (add one $0)))", "(lam (add (add one $0) (add (add one $0) one)))"],
    ],
)
@pytest.mark.parametrize("method", ["auto", "python"])
def test_what_stitch_cannot_take(texts, method):
    result = compress([HIGHER.parse(t) for t in texts], 2, method=method)
    for text, after in zip(texts, result.programs, strict=True):
        assert str(result.dsl.inline(after.term)) == text


@pytest.mark.parametrize("name", ["@", "#", "#1", "lambda", "lam_", "new0-0", "fn_0"])
@pytest.mark.parametrize("method", ["auto", "python"])
def test_odd_names(name, method):
    dsl = DSL([*HIGHER.primitives, Primitive(name, NUMBER >> NUMBER, lambda x: x)], NUMBER)
    texts = [f"({name} (add one ({name} (add one one))))", f"(add one ({name} (add one ({name} (add one one)))))"]
    result = compress([dsl.parse(t) for t in texts], 2, method=method)
    assert result.abstractions
    for text, after in zip(texts, result.programs, strict=True):
        assert str(result.dsl.inline(after.term)) == text


@pytest.mark.parametrize("method", ["auto", "python"])
def test_a_function_without_a_type_is_not_learnt(method):
    """The pattern `(pair ($0 one) ($0 flag))` would need a polymorphic argument."""
    flag, a = BaseType("flag"), TypeVariable("a")
    dsl = DSL(
        [
            Primitive("one", NUMBER, 1),
            Primitive("yes", flag, True),
            Primitive("id", a >> a, lambda x: x),
            Primitive("same", a >> a, lambda x: x),
            Primitive("pair", NUMBER >> (flag >> NUMBER), lambda x, y: x),
        ],
        NUMBER,
    )
    texts = ["(pair (id (id one)) (id (id yes)))", "(pair (same (same one)) (same (same yes)))"]
    texts += ["(pair (pair (id one) (id yes)) (id yes))", "(pair (pair (same one) (same yes)) (same yes))"]
    result = compress([dsl.parse(t) for t in texts], 3, method=method)
    for text, after in zip(texts, result.programs, strict=True):
        assert str(result.dsl.inline(after.term)) == text


def test_a_grammar_is_fitted_to_compressed_programs_of_several_types():
    number, numbers = BaseType("number"), BaseType("numbers")
    dsl = DSL(
        [
            Primitive("sum", numbers >> number, sum),
            Primitive("map", (number >> number) >> (numbers >> numbers), lambda f, xs: [f(x) for x in xs]),
            Primitive("tail", numbers >> numbers, lambda xs: xs[1:]),
            Primitive("mul", number >> (number >> number), lambda a, b: a * b),
        ],
        numbers >> number,
    )
    texts = ["(lam (sum (map (lam (mul $0 $0)) $0)))", "(lam (sum (map (lam (mul $0 (mul $0 $0))) (tail $0))))",
             "(lam (sum (tail (map (lam (mul $0 $0)) $0))))"]  # fmt: skip
    open_ = parse("(lam (lam (sum ($1 $0))))")  # (?1 -> numbers) -> ?1 -> number: its result fixes nothing
    learnt = dsl.extended({"fn_1": open_})
    used = [*texts, "(lam (fn_1 (map (lam (mul $0 $0))) $0))"]
    grammar = Grammar.fitted([learnt.parse(t) for t in used])
    plain = Grammar.fitted([dsl.parse(t) for t in (*texts, texts[0])])
    assert grammar.weights == pytest.approx(dict(plain.weights))
    assert str(grammar.derivable(learnt.parse(used[-1]))) == texts[0]
    with pytest.raises(InputError, match=r"fn_1 has type .* which stays open there"):
        grammar.cost(learnt.parse(used[-1]))
    assert [str(p) for p in itertools.islice(enumerate_programs(grammar), 3)]
