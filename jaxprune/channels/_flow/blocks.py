"""Residual branches of a program: where they are, what only they need, and without.

A block is an addition `x + f(x)` of which one summand is computed from the other. The
network without it has `x` in its place, and everything that only `f` needed is dead.
Places in a program are paths: the numbers of the equations, from the outermost jaxpr
to the one that holds the addition. Calls, checkpoints and scans are entered.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import equations
from jaxprune.channels._flow.equations import Called, Parameters

Path = tuple[int, ...]

_PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


class RawBlock(NamedTuple):
    """A residual branch.

    Attributes:
      path: the place of the addition.
      identity: the operand that stays.
      layers: how often a scan runs it, once for each layer; 1 outside of scans.
      dead: the places of what only the branch needs; all below them belongs to it.
      leaves: the numbers of the leaves that only the branch reads.
      products: how many products with matrices the branch computes.
    """

    path: Path
    identity: int
    layers: int
    dead: frozenset[Path]
    leaves: tuple[int, ...]
    products: int


class _Found(NamedTuple):
    """A block, while the jaxprs around it are walked: arguments that only it reads."""

    block: RawBlock
    unread: frozenset[int]


def find(jaxpr: Any, leaves: int) -> list[RawBlock]:
    """Return the residual branches of a program whose first arguments are leaves.

    Counted are branches that hold a product with a leaf that they alone read.
    """
    active = [i >= leaves for i in range(len(jaxpr.invars))]
    found = []
    for block, unread in _find(jaxpr, active, ()):
        own = tuple(sorted(i for i in unread if i < leaves))
        if own and block.products:
            found.append(block._replace(leaves=own))
    return found


def named(found: Sequence[RawBlock], jaxpr: Any, names: Sequence[str]):
    """Return blocks by name: the folder of their largest leaves, or the first of these.

    Args:
      found: the blocks.
      jaxpr: the program.
      names: the names of its leaves.
    """
    heads = []
    for block in found:
        ranks = {i: len(jaxpr.invars[i].aval.shape) for i in block.leaves}
        most = [names[i] for i in block.leaves if ranks[i] == max(ranks.values())]
        parts = itertools.takewhile(
            lambda keys: len(set(keys)) == 1,
            zip(*(name.split("/")[:-1] for name in most), strict=False),
        )
        heads.append(("/".join(keys[0] for keys in parts), min(most)))
    folders = [folder for folder, _ in heads]
    blocks: dict[str, RawBlock] = {}
    for block, (folder, leaf) in zip(found, heads, strict=True):
        alone = folder and folders.count(folder) == 1
        name = unique = f"{folder if alone else leaf}:block"
        while unique in blocks:
            unique = f"{name}#{2 + sum(n.startswith(name + '#') for n in blocks)}"
        blocks[unique] = block
    return blocks


def _inner(equation: Any) -> Called | None:
    """Return the jaxpr that an equation calls, if it is one that is entered."""
    if equation.primitive.name in equations.CALLS:
        return equations.body(Parameters(equation.params))
    if equation.primitive.name == "scan":
        return equations.called(equation.params["jaxpr"])
    return None


def _variables(atoms) -> list[tuple[int, Any]]:
    return [(i, a) for i, a in enumerate(atoms) if not isinstance(a, jex.Literal)]


def _find(jaxpr, active: Sequence[bool], prefix: Path) -> Iterator[_Found]:
    """Yield the blocks of a jaxpr; `active` arguments depend on inputs."""
    users = _users(jaxpr)
    moves = {v for v, is_active in zip(jaxpr.invars, active, strict=True) if is_active}
    above = {v: 1 << i for i, v in enumerate(jaxpr.invars)}
    bits, trunk = len(jaxpr.invars), {v: above[v] for v in jaxpr.invars}
    for index, equation in enumerate(jaxpr.eqns):
        operands = _variables(equation.invars)
        ancestors = 1 << bits
        own, bits = ancestors, bits + 1
        for _, variable in operands:
            ancestors |= above.get(variable, 0)
        passes = own
        if any(variable in moves for _, variable in operands):
            moves.update(equation.outvars)
            if _is_same(equation):
                passes |= trunk.get(operands[0][1], 0)
            identity = _identity(equation, above, trunk)
            if identity is not None:
                passes |= trunk[equation.invars[identity]]
                path = (*prefix, index)
                yield _closed(jaxpr, users, path, identity)
            yield from _below(jaxpr, users, index, moves, prefix)
        for variable in equation.outvars:
            above[variable], trunk[variable] = ancestors, passes


def _is_same(equation) -> bool:
    """Whether an equation has one operand, and returns it."""
    same = equation.primitive.name in equations.SAME | equations.ALIKE
    return same and len(equation.invars) == 1


def _identity(equation, above, trunk) -> int | None:
    """Return the summand from whose trunk the other is computed, if one is."""
    if equation.primitive.name not in ("add", "add_any"):
        return None
    if len(_variables(equation.invars)) < 2:
        return None
    out = equation.outvars[0].aval
    kinds = {(atom.aval.shape, atom.aval.dtype) for atom in equation.invars}
    if kinds != {(out.shape, out.dtype)}:
        return None
    for identity in (0, 1):
        stays, goes = equation.invars[identity], equation.invars[1 - identity]
        mixed = trunk.get(goes, 0) & above.get(stays, 0)
        if trunk.get(stays, 0) & above.get(goes, 0) and not mixed:
            return identity
    return None


def _below(jaxpr, users, index: int, moves, prefix: Path) -> Iterator[_Found]:
    """Yield the blocks of a jaxpr that an equation calls.

    Those of a scan have as many layers as it has steps, if they read a slice of their
    parameters at each; otherwise they are one, which goes at all steps.
    """
    equation = jaxpr.eqns[index]
    inner = _inner(equation)
    if inner is None:
        return
    active = [not isinstance(a, jex.Literal) and a in moves for a in equation.invars]
    sliced, length = len(active), 1
    if equation.primitive.name == "scan":
        parts = equations.scan_parts(Parameters(equation.params))
        sliced, length = parts.consts + parts.carry, equation.params["length"]
        active[parts.consts : sliced] = [True] * parts.carry
    for block, unread in _find(inner.jaxpr, active, (*prefix, index)):
        stacked = any(i >= sliced and not active[i] for i in unread)
        if stacked and block.layers > 1:
            continue  # Stacks of stacks: no mask says which of them goes.
        layers = length if stacked else block.layers
        dead, arguments = _closure(jaxpr, users, {(index, i) for i in unread})
        paths = block.dead | {(*prefix, i) for i in dead}
        yield _Found(block._replace(dead=paths, layers=layers), arguments)


def _users(jaxpr) -> dict[Any, set[tuple[int, int]]]:
    """Return where every variable is read; results are read behind the last one."""
    users: dict[Any, set[tuple[int, int]]] = {}
    ends = [*(e.invars for e in jaxpr.eqns), jaxpr.outvars]
    for index, atoms in enumerate(ends):
        for i, variable in _variables(atoms):
            users.setdefault(variable, set()).add((index, i))
    return users


def _closed(jaxpr, users, path: Path, identity: int) -> _Found:
    """Return the block of an addition in this jaxpr."""
    index = path[-1]
    dead, arguments = _closure(jaxpr, users, {(index, 1 - identity)})
    products = sum(_count_products(jaxpr.eqns[i]) for i in dead)
    places = frozenset((*path[:-1], i) for i in dead)
    return _Found(RawBlock(path, identity, 1, places, (), products), arguments)


def _closure(jaxpr, users, dead_uses: set[tuple[int, int]]):
    """Return the equations and the arguments that nothing needs without some uses."""
    made = {v: i for i, e in enumerate(jaxpr.eqns) for v in e.outvars}
    numbers = {v: i for i, v in enumerate(jaxpr.invars)}
    dead_uses, dead, arguments = set(dead_uses), set(), set()
    waiting = [jaxpr.eqns[i].invars[n] for i, n in dead_uses]
    while waiting:
        variable = waiting.pop()
        if isinstance(variable, jex.Literal) or users[variable] - dead_uses:
            continue
        if variable in numbers:
            arguments.add(numbers[variable])
        index = made.get(variable)
        if index is None or index in dead or jaxpr.eqns[index].effects:
            continue
        if any(users.get(out, set()) - dead_uses for out in jaxpr.eqns[index].outvars):
            continue
        dead.add(index)
        for i, operand in _variables(jaxpr.eqns[index].invars):
            dead_uses.add((index, i))
            waiting.append(operand)
    return dead, frozenset(arguments)


def _count_products(equation) -> int:
    """Return the number of products that an equation computes, or calls."""
    if equation.primitive.name in _PRODUCTS:
        return 1
    inner = jex.jaxprs_in_params(equation.params)
    return sum(
        _count_products(e) for j in inner for e in equations.called(j).jaxpr.eqns
    )


# Programs without blocks.


class Edit(NamedTuple):
    """What becomes of one addition.

    Attributes:
      identity: the operand that stays.
      gate: what multiplies the other one; None if it goes. Where `layered`, one for
        each layer: an array, or NumPy booleans, True where the branch goes.
      layered: whether there is one for each step of the scan around.
    """

    identity: int
    gate: Any
    layered: bool

    @property
    def is_mask(self) -> bool:
        """Whether it says of each layer whether the branch goes."""
        return self.layered and isinstance(self.gate, np.ndarray)


Edits = Mapping[Path, Edit]


def run(program: Called, args: Sequence[Any], edits: Edits, prefix: Path = ()) -> list:
    """Evaluate a jaxpr in which branches are left out, or multiplied by gates."""
    jaxpr, consts = program
    arrays = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom):
        return atom.val if isinstance(atom, jex.Literal) else arrays[atom]

    for index, equation in enumerate(jaxpr.eqns):
        operands = [read(atom) for atom in equation.invars]
        place = str(equation.source_info.name_stack)
        with jax.named_scope(place) if place else contextlib.nullcontext():
            outs = _step(equation, operands, edits, (*prefix, index))
        arrays.update(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation, operands, edits: Edits, path: Path) -> Sequence[Any]:
    if path in edits:
        stays = operands[edits[path].identity]
        gate, branch = edits[path].gate, operands[1 - edits[path].identity]
        return [stays if gate is None else stays + gate.astype(branch.dtype) * branch]
    below = {p: edit for p, edit in edits.items() if p[: len(path)] == path}
    inner = _inner(equation) if below else None
    if inner is None:
        return equations.bind(equation, operands)
    if equation.primitive.name == "scan":
        return _scan(equation, inner, operands, below, path)

    def function(*args):
        return run(inner, args, below, path)

    if "policy" in equation.params:
        keep = {name: equation.params[name] for name in ("prevent_cse", "policy")}
        return jax.checkpoint(function, **keep)(*operands)
    return function(*operands)


def _scan(equation, inner: Called, operands, below: Edits, path: Path) -> list:
    """Run a scan in parts, of layers that keep the same branches."""
    params = equation.params
    parts = equations.scan_parts(Parameters(params))
    consts, rest = operands[: parts.consts], list(operands[parts.consts :])
    carry, slices, stacked = rest[: parts.carry], rest[parts.carry :], {}
    runs = _runs(below, params["length"])
    for start, stop in reversed(runs) if params["reverse"] else runs:
        here, gates = _edits_at(below, start, stop)

        def step(carry, now, here=here):
            xs, gates = now
            edits = {
                place: Edit(edit.identity, gates.get(place, edit.gate), False)
                for place, edit in here.items()
            }
            outs = run(inner, [*consts, *carry, *xs], edits, path)
            return outs[: parts.carry], outs[parts.carry :]

        xs = [jax.lax.slice_in_dim(x, start, stop) for x in slices]
        if len(inner.jaxpr.outvars) == parts.carry and _idle(step, carry, (xs, gates)):
            continue
        carry, stacked[start] = jax.lax.scan(
            step,
            carry,
            (xs, gates),
            length=stop - start,
            reverse=params["reverse"],
            unroll=params["unroll"] if len(runs) == 1 else 1,
        )
    outs = zip(*(stacked[start] for start in sorted(stacked)), strict=True)
    return [*carry, *(jnp.concatenate(each) for each in outs)]


def _runs(below: Edits, length: int) -> list[tuple[int, int]]:
    """Return the longest runs of layers that keep the same branches."""
    masks = [edit.gate for edit in below.values() if edit.is_mask]
    cuts = {int(i) + 1 for m in masks for i in np.flatnonzero(m[1:] != m[:-1])}
    bounds = [0, *sorted(cuts), length]
    return list(itertools.pairwise(bounds))


def _edits_at(below: Edits, start: int, stop: int) -> tuple[dict[Path, Edit], dict]:
    """Return what becomes of the additions in a run of layers, and their gates."""
    here, gates = {}, {}
    for place, edit in below.items():
        if edit.is_mask:
            if edit.gate[start]:
                here[place] = edit._replace(gate=None)
            continue
        here[place] = edit
        if edit.layered:
            gates[place] = edit.gate[start:stop]
    return here, gates


def _idle(step, carry, slices) -> bool:
    """Whether a step of a scan returns what it is given."""
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), slices)
    made = equations.called(jax.make_jaxpr(step)(carry, first)).jaxpr
    return _passed(made)[: len(carry)] == list(range(len(carry)))


def _passed(jaxpr) -> list[int | None]:
    """Return for every result the number of the argument that it is, None for none."""
    origins: dict[Any, int | None] = {
        variable: i for i, variable in enumerate(jaxpr.invars)
    }
    for equation in jaxpr.eqns:
        inner = None if equation.primitive.name == "scan" else _inner(equation)
        if inner is None:
            continue
        for out, i in zip(equation.outvars, _passed(inner.jaxpr), strict=True):
            given = None if i is None else equation.invars[i]
            if given is not None and not isinstance(given, jex.Literal):
                origins[out] = origins.get(given)
    return [
        None if isinstance(out, jex.Literal) else origins.get(out)
        for out in jaxpr.outvars
    ]
