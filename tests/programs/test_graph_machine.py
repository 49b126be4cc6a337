"""Identities of the graph language, its states, and the search over them."""

import itertools
import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import UNARY, nested, reference, texts, written

from commutant import InputError
from commutant.programs import (
    DSL,
    BudgetExceeded,
    Grammar,
    GraphMachine,
    PortGraph,
    TieMachine,
    enumerate_programs,
    search_states,
)
from commutant.programs._terms import parse

T = GraphMachine.request
PREFIX = st.lists(st.sampled_from(UNARY), max_size=25)
LEAN = st.lists(st.sampled_from(["push", "add", "connect", "next_port", "pop", "move"]), max_size=25)
MACHINES = st.sampled_from([1, 2, 3, 10]).map(GraphMachine)


def equal_after(machine, prefix, left, right):
    """Check that two programs with a hole do the same after any prefix and before any rest."""
    for rest in ("identity", "(push (add (connect identity)))", "(next_port (connect (move identity)))"):
        states = [machine.run(written(prefix, text.replace("F", rest))) for text in (left, right)]
        assert states[0] == states[1]


@given(MACHINES, LEAN)
def test_ports_go_round(machine, prefix):
    equal_after(machine, prefix, "(next_port (prev_port F))", "F")
    equal_after(machine, prefix, "(prev_port (next_port F))", "F")
    equal_after(machine, prefix, written(["next_port"] * machine.max_conn, "F"), "F")


@given(MACHINES, LEAN)
def test_actions_that_repeat_change_nothing(machine, prefix):
    equal_after(machine, prefix, "(add (add F))", "(add F)")
    equal_after(machine, prefix, "(connect (connect F))", "(connect F)")
    state = machine.run(written(prefix))
    if not state.graph.isolated:
        equal_after(machine, prefix, "(push (pop F))", "F")
    if (state.position, state.port) not in state.graph.links:
        equal_after(machine, prefix, "(move F)", "F")


@given(MACHINES, LEAN, texts(), texts(), texts())
def test_sub_programs_and_conditionals(machine, prefix, f, g, h):
    equal_after(machine, prefix, "(func identity F)", "F")
    equal_after(machine, prefix, f"(if_positions_equal {f} {f} {g} {h} F)", written_then(g, "F"))
    equal_after(machine, prefix, f"(if_positions_equal {f} {g} {h} {h} F)", written_then(h, "F"))
    before = machine.run(written(prefix))
    after = machine.run(written(prefix, f"(func {f} identity)"))
    assert (after.position, after.port, after.stack) == (before.position, before.port, before.stack)


def written_then(text, rest):
    return f"(if_positions_equal identity identity {text} identity {rest})"


@given(MACHINES, texts(depth=8))
def test_states_stay_valid(machine, text):
    state = machine.run(text)
    graph = state.graph
    ids = sorted([*graph.nodes, *(e for e, *_ in graph.edges)])
    assert ids == list(range(graph.elements))
    ends = [(n, p) for _, a, b, p in graph.edges for n in (a, b)]
    assert len(set(ends)) == len(ends)
    assert all(a != b and 0 <= p < machine.max_conn for _, a, b, p in graph.edges)
    parts = list(nx.connected_components(graph.to_networkx()))
    assert len(parts) <= 2
    if len(parts) == 2:
        assert {state.position} in parts
        assert graph.isolated
    assert state.position in graph.nodes
    assert set(state.stack) <= set(graph.nodes)
    output = machine.output(state)
    if output is not None:
        degrees = dict(output.to_networkx().degree())
        assert nx.is_connected(output.to_networkx())
        assert max(degrees.values()) <= machine.max_conn


@given(MACHINES, texts(depth=8))
def test_the_machine_agrees_with_recursion(machine, text):
    assert machine.run(text) == reference(nested(text), machine.start(), machine)


@given(MACHINES, PREFIX, PREFIX)
def test_equal_fingerprints_have_equal_futures(machine, left, right):
    a, b = machine.run(written(left)), machine.run(written(right))
    rng = random.Random(0)
    if machine.fingerprint(a) == machine.fingerprint(b):
        for _ in range(20):
            text = written(rng.choices(UNARY, k=10))
            outputs = [machine.output(machine.run(text, s)) for s in (a, b)]
            keys = [None if o is None else machine.key(o) for o in outputs]
            assert keys[0] == keys[1]


@given(LEAN, st.integers(0, 9))
def test_fingerprints_forget_rotation_of_ports(prefix, turn):
    machine = GraphMachine(10)
    twin = ["next_port"] * turn + prefix
    assert machine.fingerprint(machine.run(written(prefix))) == machine.fingerprint(machine.run(written(twin)))


def test_fingerprints_tell_states_apart():
    machine = GraphMachine(4)
    states = [
        machine.run(written(p))
        for p in (
            [],
            ["push"],
            ["push", "add"],
            ["push", "add", "connect"],
            ["push", "add", "connect", "next_port"],
            ["push", "add", "connect", "move"],
            ["push", "add", "connect", "push"],
        )
    ]
    assert len({machine.fingerprint(s) for s in states}) == len(states)


def test_graphs_by_mass():
    found = list(search_states(GraphMachine(10), max_cost=11))
    assert [f.mass for f in found] == [4, 7, 10, 11, 11]
    graphs = [nx.Graph(f.output.to_networkx()) for f in found]
    known = [nx.path_graph(2), nx.path_graph(3), nx.path_graph(4), nx.cycle_graph(3), nx.star_graph(3)]
    for graph in known:
        assert sum(nx.is_isomorphic(graph, g) for g in graphs) == 1


@pytest.mark.deep
def test_graphs_of_mass_13():
    found = list(search_states(GraphMachine(10), max_cost=13))
    assert [f.mass for f in found] == [4, 7, 10, 11, 11, 13]


@pytest.mark.parametrize("machine", [GraphMachine(2), GraphMachine(1), TieMachine(3), TieMachine(4), TieMachine(1)])
def test_the_search_finds_what_all_programs_find(machine, deep):
    """Every output of a program by brute force is found, with the same least mass."""
    limit = (7 if isinstance(machine, GraphMachine) else 6) if deep else 5
    least = {}
    for program in itertools.takewhile(
        lambda p: p.size <= limit, enumerate_programs(machine.dsl)
    ):  # equal weights: in the order of size
        output = machine.output(machine.run(program))
        if output is not None:
            least.setdefault(machine.key(output), program.size)
    found = {machine.key(f.output): f.mass for f in search_states(machine, max_cost=limit)}
    assert found == least


def test_programs_of_a_search_make_its_outputs():
    machine = GraphMachine(3)
    for found in search_states(machine, max_applications=20_000):
        output = machine.output(machine.run(found.program))
        assert machine.key(output) == machine.key(found.output)
        assert found.cost == found.mass == found.program.size


def test_a_search_with_a_library_takes_its_functions_as_steps():
    machine = GraphMachine(10)
    grown = {
        "grow": parse("(lam (push (add (connect $0))))"),
        "leaf": parse("(grow identity)"),
        "wrong": parse("(lam (func $0 (push $0)))"),
    }
    dsl = machine.dsl.extended(grown)
    found = list(search_states(machine, dsl, max_cost=5))
    assert str(found[0].program) == "leaf"
    assert found[0].mass == 4
    assert len(found) == 3
    assert not any("wrong" in str(f.program) for f in found)
    for f in found:
        assert machine.key(machine.output(machine.run(f.program))) == machine.key(f.output)
        plain = machine.dsl.program(dsl.inline(f.program.term))
        assert machine.run(plain) == machine.run(f.program)


def cheapest(machine, dsl, limit):
    """Return the least size of each output by brute force over the programs of a language."""
    least = {}
    for program in itertools.takewhile(lambda p: p.size <= limit, enumerate_programs(dsl)):
        output = machine.output(machine.run(program))
        if output is not None:
            least.setdefault(machine.key(output), program.size)
    return least


@pytest.mark.parametrize(
    ("ports", "library", "limit"),
    [
        (4, {"back": "(lam (prev_port (connect $0)))", "grow": "(lam (push (add (connect $0))))"}, 5),
        (3, {"leaf": "(push (add (connect (push identity))))"}, 5),  # ends programs: conditionals go on after it
        (3, {"twig": "(func (push (add (connect identity))))"}, 5),  # continues with an argument that it does not name
    ],
)
def test_a_search_with_a_library_is_complete(ports, library, limit, deep):
    machine = GraphMachine(ports)
    dsl = machine.dsl.extended({name: parse(text) for name, text in library.items()})
    limit += deep
    found = {machine.key(f.output): f.cost for f in search_states(machine, dsl, max_cost=limit)}
    assert found == cheapest(machine, dsl, limit)


def test_a_mirrored_library_has_other_futures():
    """The third node of this program closes a double edge only because ports have a direction."""
    machine = GraphMachine(4)
    library = {"back": "(lam (prev_port (connect $0)))", "grow": "(lam (push (add (connect $0))))"}
    dsl = machine.dsl.extended({name: parse(text) for name, text in library.items()})
    program = dsl.parse("(grow (prev_port (grow (pop (back identity)))))")
    wanted = machine.key(machine.output(machine.run(program)))
    assert wanted in {machine.key(f.output) for f in search_states(machine, dsl, max_cost=program.size)}


def test_going_on_after_the_end_of_a_library_function():
    machine = GraphMachine(10)
    tree = written(["push", "add", "connect", "next_port"] * 3 + ["push", "add", "connect", "push", "next_port"])
    dsl = machine.dsl.extended({"leaf": parse(tree)})
    program = dsl.parse("(if_positions_equal identity identity leaf identity (add (connect identity)))")
    found = list(search_states(machine, dsl, max_cost=program.size))
    assert machine.key(machine.output(machine.run(program))) in {machine.key(f.output) for f in found}
    for f in found:
        assert f.program.size == f.cost
        assert machine.key(machine.output(machine.run(f.program))) == machine.key(f.output)


def test_the_limit_of_costs_is_inclusive():
    machine = GraphMachine(10)
    grammar = Grammar(machine.dsl)
    program = machine.dsl.parse("(push (add (connect (next_port (add (connect identity))))))")
    assert len(list(search_states(machine, grammar, max_cost=grammar.cost(program)))) == 2


def test_a_search_with_a_grammar_is_in_the_order_of_probability():
    machine = GraphMachine(10)
    weights = {"push": 4.0, "add": 4.0, "connect": 4.0, "next_port": 4.0, "func": 0.1, "prev_port": 0.2, "move": 0.2}
    grammar = Grammar(machine.dsl, weights)
    found = list(search_states(machine, grammar, max_applications=30_000))
    assert all(a.cost <= b.cost for a, b in itertools.pairwise(found))
    for f in found:
        assert f.cost == pytest.approx(grammar.cost(f.program))
    assert len(found) > len(list(search_states(machine, max_applications=30_000)))


def test_the_order_of_applications_is_reproducible():
    runs = [[(str(f.program), f.applications) for f in search_states(GraphMachine(), max_cost=10)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_graphs_come_from_networkx_and_go_there():
    graph = PortGraph.from_networkx(nx.cycle_graph(5))
    assert nx.is_isomorphic(nx.Graph(graph.to_networkx()), nx.cycle_graph(5))
    assert (
        graph.certificate
        == PortGraph.from_networkx(nx.relabel_nodes(nx.cycle_graph(5), {0: 7, 1: 2, 2: 1})).certificate
    )
    data = graph.to_data()
    assert data.num_nodes == 5
    assert data.edge_index.shape == (2, 10)
    assert sorted(data.edge_id.tolist()) == sorted([5, 6, 7, 8, 9] * 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GraphMachine(0), "max_conn must be a whole number of at least 1, got 0"),
        (lambda: GraphMachine().run("(rotate identity)"), "no function 'rotate'"),
        (lambda: GraphMachine().run("push"), "must have type T, got T -> T"),
        (lambda: GraphMachine().run(TieMachine(3).dsl.parse("(rotate identity)")), "no primitive of a graph machine"),
        (lambda: GraphMachine().run(written(["push"] * 20), budget=20), "runs more than 20 primitives"),
        (lambda: GraphMachine().run("identity", budget=0), "budget must be"),
        (lambda: search_states(GraphMachine(), max_cost=float("nan")), "max_cost must be a number"),
        (lambda: search_states(GraphMachine(), max_applications=0), "max_applications must be"),
        (lambda: search_states(GraphMachine(), DSL(GraphMachine().dsl.primitives, T >> T)), "must be one"),
        (lambda: GraphMachine().run(5), "must be a Program, a term or text"),
        (lambda: search_states(GraphMachine(), TieMachine(3).dsl), "must be one of the language of the graph machine"),
        (lambda: search_states(GraphMachine(), Grammar(GraphMachine().dsl, bigrams=True)), "without bigrams"),
        (lambda: PortGraph.from_networkx(nx.DiGraph([(0, 1)])), "expected an undirected networkx graph"),
        (lambda: PortGraph.from_networkx(nx.Graph()), "at least one node"),
        (lambda: PortGraph.from_networkx(nx.Graph([(0, 0)])), "no self-loops"),
    ],
)
def test_what_is_refused(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_nested_conditionals_run_out_of_their_budget():
    text = "identity"
    for _ in range(14):
        text = f"(if_positions_equal {text} {text} identity identity identity)" if len(text) < 10**6 else text
    with pytest.raises(BudgetExceeded):
        GraphMachine().run(text, budget=5000)
