"""Terms, types, evaluation, and what languages refuse."""

import copy
import pickle
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commutant import InputError
from commutant.programs import DSL, BaseType, BudgetExceeded, GraphMachine, Primitive
from commutant.programs._normal import beta_normal
from commutant.programs._terms import Apply, Lambda, Name, Variable, parse, size, write
from commutant.programs._types import TypeVariable

NUMBER, LIST = BaseType("number"), BaseType("list")
ARITHMETIC = DSL(
    [
        Primitive("one", NUMBER, 1),
        Primitive("add", NUMBER >> (NUMBER >> NUMBER), lambda a, b: a + b),
        Primitive("twice", (NUMBER >> NUMBER) >> (NUMBER >> NUMBER), lambda f, x: f(f(x))),
        Primitive("map", (NUMBER >> NUMBER) >> (LIST >> LIST), lambda f, xs: [f(x) for x in xs]),
        Primitive("numbers", LIST, [1, 2, 3]),
    ],
    NUMBER,
)


def terms():
    leaf = st.one_of(st.sampled_from(["f", "g", "one"]).map(Name), st.integers(0, 3).map(Variable))
    return st.recursive(leaf, lambda t: st.one_of(st.builds(Lambda, t), st.builds(Apply, t, t)), max_leaves=12)


@given(terms())
def test_a_term_is_read_as_it_is_written(term):
    assert parse(write(term)) == term
    assert write(parse(write(term))) == write(term)
    assert hash(parse(write(term))) == hash(term)
    assert pickle.loads(pickle.dumps(term)) == copy.deepcopy(term) == term


def test_deep_terms_do_not_recurse():
    term = Name("identity")
    for _ in range(20_000):
        term = Apply(Name("push"), term)
    dsl = GraphMachine().dsl
    program = dsl.parse(write(term))
    assert program.size == program.mass == 20_001
    assert pickle.loads(pickle.dumps(program.term)) == term
    assert len(GraphMachine().run(program, budget=20_001).stack) == 20_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("one", 1),
        ("(add one (add one one))", 3),
        ("(twice (lam (add $0 $0)) one)", 4),
        ("(twice (add one) one)", 3),
        ("((lam (add $0 $0)) (add one one))", 4),
        ("(twice (twice (lam (add one $0))) one)", 5),
        ("((lam ((lam (add $0 (add $1 $1))) one)) (add one one))", 5),
    ],
)
def test_values(text, value):
    assert ARITHMETIC.parse(text).evaluate() == value
    assert ARITHMETIC.evaluate(ARITHMETIC.inline(parse(text))) == value


def test_functions_as_programs_take_inputs(unchecked):
    dsl = DSL(ARITHMETIC.primitives, NUMBER >> (NUMBER >> NUMBER))
    assert dsl.parse("(lam (lam (add $1 (add $0 $0))))").evaluate(10, 1) == 12
    assert dsl.parse("add").evaluate(2, 3) == 5
    with pytest.raises(InputError, match="needs 2 inputs, got 1"):
        dsl.parse("add").evaluate(2)
    polymorphic = [*ARITHMETIC.primitives, Primitive("id", TypeVariable("a") >> TypeVariable("a"), lambda x: x)]
    higher = DSL(polymorphic, (NUMBER >> NUMBER) >> (NUMBER >> NUMBER))
    assert higher.parse("id").evaluate(lambda x: x + 1, 3) == 4
    assert DSL(iter(ARITHMETIC.primitives), NUMBER).parse("one").evaluate() == 1
    lists = DSL(ARITHMETIC.primitives, LIST)
    assert lists.parse("(map (lam (add $0 one)) numbers)").evaluate() == [2, 3, 4]
    assert lists.parse("(map (add one) (map (twice (add one)) numbers))").evaluate() == [4, 5, 6]


def test_polymorphic_functions_have_types():
    a, b = TypeVariable("a"), TypeVariable("b")
    dsl = DSL(
        [
            Primitive("pair", a >> (b >> a), lambda x, y: x),
            Primitive("one", NUMBER, 1),
            Primitive("numbers", LIST, [1]),
        ],
        NUMBER,
    )
    assert str(dsl.parse("(pair one numbers)").evaluate()) == "1"
    with pytest.raises(InputError, match="must have type number, got list"):
        dsl.parse("(pair numbers one)")


def test_a_library_function_is_its_definition():
    dsl = ARITHMETIC.extended({"double": parse("(lam (add $0 $0))"), "four": parse("(double (double one))")})
    program = dsl.parse("(twice double four)")
    assert program.evaluate() == 16
    assert (program.size, program.mass) == (3, ARITHMETIC.program(dsl.inline(program.term)).size)
    assert str(dsl.inline(parse("(double one)"))) == "(add one one)"


@given(terms())
def test_normal_forms_are_normal(term):
    closed = Lambda(Lambda(Lambda(Lambda(term))))
    try:
        ARITHMETIC.extended({}).infer(parse(write(closed).replace("f", "twice").replace("g", "add")))
    except InputError:
        return  # only typed terms have one
    normal = beta_normal(closed)
    assert beta_normal(normal) == normal
    assert "((lam" not in write(normal)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be one expression, got 0"),
        ("one one", "must be one expression, got 2"),
        ("(add one", "missing '\\)'"),
        ("add one)", "unexpected '\\)'"),
        ("()", "empty parentheses"),
        ("(lam)", "'lam' must have one body"),
        ("(lam one one)", "'lam' must have one body"),
        ("$x", "a variable must be \\$ and a number"),
        ("two", "no function 'two'"),
        ("$0", "\\$0 is not bound"),
        ("(add one)", "must have type number, got number -> number"),
        ("(one one)", "has no type"),
        ("(add add one)", "has no type"),
        ("((lam ($0 $0)) (lam ($0 $0)))", "has no type"),
        (3, "must be text, got int"),
    ],
)
def test_what_is_no_program(text, words, unchecked):
    with pytest.raises(InputError, match=words):
        ARITHMETIC.parse(text)


def test_budgets_end_what_takes_too_long():
    loop = DSL([Primitive("one", NUMBER, 1), *ARITHMETIC.primitives[1:3]], NUMBER)
    text = "(add one one)"
    for _ in range(12):
        text = f"(twice (lam (add $0 {text})) one)"
    assert loop.parse(text).evaluate(budget=10**6) > 0
    with pytest.raises(BudgetExceeded, match="takes more than 1000 steps; raise budget"):
        loop.parse(text).evaluate(budget=1000)
    with pytest.raises(InputError, match="budget must be a whole number"):
        loop.parse("one").evaluate(budget=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DSL([], NUMBER), "needs at least one primitive"),
        (lambda: DSL([Primitive("a b", NUMBER, 1)], NUMBER), "must be a word"),
        (lambda: DSL([Primitive("lam", NUMBER, 1)], NUMBER), "must be a word"),
        (lambda: DSL([Primitive("a\xa0b", NUMBER, 1)], NUMBER), "must be a word"),
        (lambda: DSL([Primitive("one", "number", 1)], NUMBER), "must be a type such as"),
        (lambda: DSL(ARITHMETIC.primitives, TypeVariable("a") >> TypeVariable("a")), "without type variables"),
        (lambda: DSL(None, NUMBER), "must be a list"),
        (lambda: ARITHMETIC.program("one"), "must be a term"),
        (lambda: ARITHMETIC.parse("$" + "1" * 5000), "a variable must be"),
        (lambda: DSL([Primitive("$0", NUMBER, 1)], NUMBER), "must be a word"),
        (lambda: DSL([Primitive("a", NUMBER, 1)] * 2, NUMBER), "two functions are called 'a'"),
        (lambda: DSL([Primitive("f", NUMBER >> NUMBER, 1)], NUMBER), "function as its value"),
        (lambda: ARITHMETIC.extended({"one": parse("one")}), "two functions are called 'one'"),
        (lambda: ARITHMETIC.extended({"f": parse("(f one)")}), "must not call itself"),
        (lambda: ARITHMETIC.extended({"f": parse("(g one)"), "g": parse("f")}), "not defined before it"),
        (lambda: ARITHMETIC.extended({"f": parse("(one one)")}), "has no type"),
        (lambda: ARITHMETIC.extended({"f": parse("$0")}), "not bound"),
        (lambda: DSL("ab", NUMBER), "must be Primitive objects"),
        (lambda: DSL(ARITHMETIC.primitives, "number"), "request must be a type"),
        (lambda: ARITHMETIC.extended({"f g": parse("one")}), "must be a word"),
        (lambda: ARITHMETIC.extended({"f": "one"}), "must be terms"),
    ],
)
def test_what_is_no_language(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_the_mass_is_the_size_of_the_normal_form():
    dsl = ARITHMETIC.extended(
        {
            "dup": parse("(lam (add $0 $0))"),
            "const": parse("(lam (lam $1))"),
            "flip": parse("(lam (lam (lam ($2 $0 $1))))"),
        }
    )
    for text in (
        "one",
        "(dup (dup (add one one)))",
        "(const one (add one one))",
        "(flip add (dup one) one)",
        "(twice dup one)",
        "(twice (lam (dup $0)) (const one one))",
        "((lam (lam (add $0 (add $1 $1)))) (add one one) one)",
    ):
        program = dsl.parse(text)
        assert program.mass == size(dsl.inline(program.term))
    text = "one"
    for _ in range(60):
        text = f"(dup {text})"
    assert dsl.parse(text).mass == 2**61 - 1


def test_types_that_double_are_inferred_while_they_fit_and_else_refused():
    text = "(lam $0)"
    for wanted in ("a -> a", "((a -> a) -> (a -> a) -> b) -> b"):
        kind = str(ARITHMETIC.infer(parse(text)))
        for letter, variable in zip("ab", dict.fromkeys(re.findall(r"\?\d+", kind)), strict=False):
            kind = kind.replace(variable, letter)
        assert kind == wanted
        text = f"((lam (lam ($0 $1 $1))) {text})"
    for _ in range(200):
        text = f"((lam (lam ($0 $1 $1))) {text})"
    with pytest.raises(InputError, match=r"is too large: its type has more than 10000 parts"):
        ARITHMETIC.infer(parse(text))  # 2^200 of them


def test_what_is_nested_too_deeply_is_refused():
    text = "one"
    for _ in range(600):
        text = f"(twice (lam {text}) one)"
    with pytest.raises(BudgetExceeded, match="inside each other"):
        ARITHMETIC.parse(text).evaluate(budget=10**7)
    kind = NUMBER
    for _ in range(3):
        kind = NUMBER >> kind
    with pytest.raises(InputError, match="nested too deeply"):
        DSL(ARITHMETIC.primitives, kind).parse("(lam " * 3000 + "one" + ")" * 3000)


def test_masses_of_functions_of_functions():
    dsl = DSL(
        [
            Primitive("one", NUMBER, 1),
            Primitive("add", NUMBER >> (NUMBER >> NUMBER), lambda a, b: a + b),
            Primitive("call", ((NUMBER >> NUMBER) >> NUMBER) >> NUMBER, lambda f: f(lambda x: x + 1)),
        ],
        (NUMBER >> NUMBER) >> NUMBER,
    )
    assert dsl.parse("(lam ($0 (add one one)))").mass == 3
    assert dsl.parse("(lam (call (lam ($0 ($1 one)))))").mass == 2
    assert dsl.parse("(lam ($0 ($0 one)))").mass == 1


def test_variables_of_a_context_are_not_captured():
    fresh = ARITHMETIC.infer(parse("(lam (lam $1))"))
    found = ARITHMETIC.infer(parse("(lam $1)"), [fresh])
    assert found.result == fresh
    assert found.argument not in {fresh.argument, fresh.result.argument}
    own = ARITHMETIC.infer(parse("(lam $0)"))
    assert ARITHMETIC.infer(parse("((lam $0) $0)"), [own]) == own


def test_languages_of_arrays_are_compared_without_their_truth():
    def language(values):
        return DSL([Primitive("v", NUMBER, values)], NUMBER)

    one = torch.arange(3)
    assert language(one) == language(one)
    assert language(one).parse("v") != language(torch.arange(3)).parse("v")  # equal numbers, but other objects
    assert len({Primitive("v", NUMBER, [1]), Primitive("v", NUMBER, [1])}) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        lambda: DSL([Primitive("f", NUMBER >> int, len)], NUMBER),
        lambda: DSL([Primitive("one", NUMBER, 1)], NUMBER >> (NUMBER >> "number")),
        lambda: DSL([Primitive("one", NUMBER, 1)], NUMBER, ["f"]),
    ],
)
def test_types_and_libraries_of_other_kinds_are_refused(make):
    with pytest.raises(InputError, match="must be a"):
        make()
