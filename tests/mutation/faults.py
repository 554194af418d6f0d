"""Which faults there are: slips found in the syntax tree, and those written by hand."""

import ast
import itertools
from collections.abc import Iterator
from typing import NamedTuple


class Fault(NamedTuple):
    """One replacement in the source of a module.

    Attributes:
      kind: which slip it is.
      start: the first character that is replaced.
      stop: the first one after those.
      new: what stands there instead.
      line: the line, for messages.
    """

    kind: str
    start: int
    stop: int
    new: str
    line: int


# Slips that no test once saw: module, old, new. A pattern that no longer stands in the
# module is reported.
BY_HAND = (
    ("methods/_weights", "jax.lax.stop_gradient", "(lambda x: x)"),
    ("methods/_keep_probabilities", "free |= valid & ~", "free |= valid & False & ~"),
    ("masks/_counts", "_ROUNDING * size, 0.25", "0 * size, 0.25"),
    ("masks/_from_scores", "[math.prod(shape)] * (number or 1)", "[math.prod(shape)]"),
    ("methods/_dsa", "jnp.round(", "jnp.floor("),
)

_COMPARISONS = {
    **{ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">=")},
    **{ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "==")},
    **{ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is")},
}
_OPERATORS = {
    **{ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/")},
    **{ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"), ast.Pow: ("**", "*")},
    **{ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")},
}
_NAMES = {
    **{"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"},
    **{"floor": "ceil", "ceil": "floor", "round": "floor", "any": "all", "all": "any"},
    **{"argmin": "argmax", "argmax": "argmin", "sum": "mean", "mean": "sum"},
    **{"zeros_like": "ones_like", "ones_like": "zeros_like"},
}
_NOT_RUN = ("annotation", "returns", "decorator_list", "args")
# Calls that a slip leaves out: the first argument stands for them.
_DROPPED = {"stop_gradient", "abs", "sqrt", "clip", "square", "psum", "pmean"}


def of(source: str) -> list[Fault]:
    """Every fault that can be planted in a module, in the order of its lines."""
    tree = ast.parse(source)
    starts = list(itertools.accumulate(map(len, source.splitlines(True)), initial=0))
    # Offsets of the syntax tree count bytes; the library is not all ASCII.
    lines = source.splitlines(True)

    def at(line, column):
        text = lines[line - 1].encode()[:column].decode()
        return starts[line - 1] + len(text)

    found = []
    for node in _code(tree):
        for kind, start, stop, new in _slips(node, source, at):
            found.append(Fault(kind, start, stop, new, node.lineno))
    return sorted(found, key=lambda fault: fault.start)


def spread(faults: list[Fault], number: int) -> list[Fault]:
    """A part of them: of every kind in turn, and over the whole module."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    turns = itertools.zip_longest(*(_shuffled(group) for group in kinds.values()))
    chosen = [fault for turn in turns for fault in turn if fault is not None]
    return sorted(chosen[:number], key=lambda fault: fault.start)


def _shuffled(group: list[Fault]) -> list[Fault]:
    """First the middle one, then those that halve what is left, and so on."""
    queue, order = [(0, len(group))], []
    while queue:
        low, high = queue.pop(0)
        if low < high:
            middle = (low + high) // 2
            order.append(group[middle])
            queue += [(low, middle), (middle + 1, high)]
    return order


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what runs: no annotations, messages, docstrings or defaults."""
    for name, value in ast.iter_fields(tree):
        if name in _NOT_RUN and not isinstance(tree, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert)
            if not isinstance(child, ast.AST) or skipped:
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from _code(child)


def _slips(node, source, at):
    """`(kind, start, stop, new)` of the faults of one node."""

    def span(x):
        return at(x.lineno, x.col_offset), at(x.end_lineno, x.end_col_offset)

    def between(left, right, old, new):
        stop = span(left)[1]
        start = source.find(old, stop, span(right)[0])
        return [] if start < 0 else [(start, start + len(old), new)]

    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        swap = _COMPARISONS.get(type(node.ops[0]))
        for each in between(node.left, node.comparators[0], *swap) if swap else ():
            yield "comparison", *each
    elif isinstance(node, ast.BinOp):
        swap = _OPERATORS.get(type(node.op))
        for each in between(node.left, node.right, *swap) if swap else ():
            yield "operator", *each
    elif isinstance(node, ast.UnaryOp):
        start = span(node)[0]
        yield "sign", start, span(node.operand)[0], ""
    elif isinstance(node, ast.Call):
        yield from _call(node, source, span)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        new = {0: "1", 1: "2"}.get(node.value, f"(1.25 * {node.value})")
        if type(node.value) is int and node.value > 1:
            new = str(node.value + 1)
        yield "constant", *span(node), new
    elif isinstance(node, ast.IfExp):
        start, stop = span(node.test)
        yield "branch", start, stop, f"not ({source[start:stop]})"


def _call(node, source, span):
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    text = lambda x: source[slice(*span(x))]
    if name in _NAMES:
        stop = span(node.func)[1]
        yield "name", stop - len(name), stop, _NAMES[name]
    if name in _DROPPED and node.args:
        yield "dropped", *span(node), f"({text(node.args[0])})"
    if name == "where" and len(node.args) == 3:
        _, yes, no = node.args
        yield "where", span(yes)[0], span(no)[1], f"{text(no)}, {text(yes)}"
