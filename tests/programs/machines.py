"""Random programs of machines, and their slow reference evaluation."""

from hypothesis import strategies as st

from commutant.programs import GraphMachine

UNARY = ["next_port", "prev_port", "move", "push", "pop", "add", "connect"]


def written(names, end="identity"):
    """Return the program that takes actions one after the other, as text."""
    return "".join(f"({name} " for name in names) + end + ")" * len(names)


def texts(depth=5, unary=UNARY, conditional=True):
    """Return a strategy of programs of a machine."""
    leaf = st.just("identity")

    def larger(inner):
        ways = [
            st.builds(lambda a, f: f"({a} {f})", st.sampled_from(unary), inner),
            st.builds(lambda names, f: written(names, f), st.lists(st.sampled_from(unary), max_size=8), inner),
            st.builds(lambda f, g: f"(func {f} {g})", inner, inner),
        ]
        if conditional:
            ways.append(st.builds("(if_positions_equal {} {} {} {} {})".format, inner, inner, inner, inner, inner))
        return st.one_of(ways)

    return st.recursive(leaf, larger, max_leaves=depth)


def reference(term, state, machine=None):
    """Return the state after a term of the graph language, by recursion over its text as nested tuples."""
    machine = machine or GraphMachine()
    if term == "identity":
        return state
    name, *parts = term
    if name == "func":
        after = reference(parts[0], state, machine)
        nodes = {n for _, a, b, _ in after.graph.edges for n in (a, b)}
        isolated = len(after.graph.nodes) > 1 and len(nodes) < len(after.graph.nodes)
        kept = state if isolated else type(state)(after.graph, state.position, state.port, state.stack)
        return reference(parts[1], kept, machine)
    if name == "if_positions_equal":
        f, g, h, k, then = parts
        same = reference(f, state, machine).position == reference(g, state, machine).position
        return reference(then, reference(h if same else k, state, machine), machine)
    return reference(parts[0], machine.actions[name](state), machine)


def nested(text):
    """Return an s-expression as nested tuples."""
    stack = [[]]
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            stack.append([])
        elif word == ")":
            done = tuple(stack.pop())
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    return stack[0][0]
