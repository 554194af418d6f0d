"""What channels are for, read off the program.

    heads          batch axes of a product of queries and keys, whose softmax weighs
                   values; of grouped queries those that only queries have
    kv_heads       of grouped queries those that keys and values have too
    head_features  axes over which queries and keys are contracted, and those of values
    width          the residual stream: axes of additions x + f(x) that norms sum over,
                   or that no convolution touches
    mlp            axes that products with weights make and other products read
    experts        axes that a router chooses from, `top_k` or `argmax`
    channels       all others: channels of convolutions, states of recurrences

Names of parameters say nothing here. A softmax is an exponential on the way from the
product of two activations to the product that weighs values.
"""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import blocks, equations
from jaxprune.channels._flow.atoms import Axis
from jaxprune.channels._flow.flow import Flow, Frame, Site, Value
from jaxprune.channels._flow.grouping import Place, Positions, RawGroup

HEADS, KV_HEADS, HEAD_FEATURES = "heads", "kv_heads", "head_features"
MLP, WIDTH, EXPERTS, CHANNELS = "mlp", "width", "experts", "channels"
ROLES = (HEADS, KV_HEADS, HEAD_FEATURES, MLP, WIDTH, EXPERTS, CHANNELS)
"""What channels can be for."""

Scores = tuple[int, bool]  # The number of a product of activations; if exponentiated.


@dataclasses.dataclass
class _Attention:
    """Axes of one attention, of its scores and of the product with the values."""

    batch: list[Axis]
    free: list[Axis]
    features: list[Axis]


@dataclasses.dataclass
class _Seen:
    """Axes of the program by what happens to them."""

    scores: list[_Attention] = dataclasses.field(default_factory=list)
    attentions: list[_Attention] = dataclasses.field(default_factory=list)
    residual: list[Axis] = dataclasses.field(default_factory=list)
    summed: list[Axis] = dataclasses.field(default_factory=list)
    convolved: list[Axis] = dataclasses.field(default_factory=list)
    carried: list[Axis] = dataclasses.field(default_factory=list)
    made: list[Axis] = dataclasses.field(default_factory=list)
    read: list[Axis] = dataclasses.field(default_factory=list)


class _Walk:
    """One trip through the frames of a program, which notes what happens to axes."""

    def __init__(self, additions: Set[blocks.Path]):
        self.seen = _Seen()
        self._additions = additions

    def run(self, frame: Frame, args: Sequence[frozenset[Scores]], prefix=()) -> list:
        """Follow scores through a frame; return which of them the results are of."""
        scores: dict[Any, frozenset[Scores]] = dict(
            zip(frame.jaxpr.invars, args, strict=True)
        )

        def of(atom) -> frozenset[Scores]:
            none = frozenset()
            return none if isinstance(atom, jex.Literal) else scores.get(atom, none)

        for index, equation in enumerate(frame.jaxpr.eqns):
            if index in frame.opaque:
                continue
            given = [of(atom) for atom in equation.invars]
            site, path = Site(frame, index), (*prefix, index)
            if path in self._additions:
                self.seen.residual += site.result().axes
            outs = self._step(site, given, path)
            scores.update(zip(equation.outvars, outs, strict=True))
        return [of(atom) for atom in frame.jaxpr.outvars]

    def _step(self, site: Site, given, path) -> list[frozenset[Scores]]:
        count = len(site.equation.outvars)
        if site.index in site.frame.children:
            return self._called(site, given, path)
        if site.name == "dot_general":
            return [self._product(site, given)]
        if site.name == "conv_general_dilated":
            self._convolution(site)
            return [frozenset()] * count
        if site.name == "reduce_sum":
            gone = site.params["axes"]
            # A norm of images sums over positions too, and is none of a stream.
            self.seen.summed += [site.operand(0).axes[d] for d in gone if len(gone) < 2]
        found = frozenset().union(*given)
        if site.name in ("exp", "exp2"):
            found = frozenset((number, True) for number, _ in found)
        return [found] * count

    def _called(self, site: Site, given, path) -> list[frozenset[Scores]]:
        outs: list[frozenset[Scores]] = []
        for frame in site.children:
            count = len(frame.jaxpr.invars)
            here = given[-count:] if count <= len(given) else []
            here = here if len(here) == count else [frozenset()] * count
            outs = self.run(frame, here, path)
        if site.name in ("scan", "while"):
            self._loop(site)
        return outs

    def _loop(self, site: Site) -> None:
        carried = site.equation.outvars
        if site.name == "scan":
            carried = carried[: equations.scan_parts(site.params).carry]
        for i in range(len(carried)):
            self.seen.carried += site.result(i).axes

    def _convolution(self, site: Site) -> None:
        numbers = site.params["dimension_numbers"]
        for value, spec in zip(
            (site.operand(0), site.operand(1), site.result()), numbers, strict=True
        ):
            self.seen.convolved += [value.axes[d] for d in spec[:2]]

    def _product(self, site: Site, given) -> frozenset[Scores]:
        """Note a product with a leaf; of two activations it makes or reads scores."""
        operands = [site.operand(0), site.operand(1)]
        contracts, batches = site.params["dimension_numbers"]
        bound = [(*contracts[n], *batches[n]) for n in (0, 1)]
        free = [
            [axis for d, axis in enumerate(value.axes) if d not in bound[n]]
            for n, value in enumerate(operands)
        ]
        for n, value in enumerate(operands):
            if value.source is not None:
                self.seen.made += free[n]
                self.seen.read += [value.axes[d] for d in contracts[n]]
        if any(_is_weight(value) for value in operands):
            return frozenset()
        for n in (0, 1):
            for number, softmax in given[n] - given[1 - n]:
                if softmax:
                    scores = self.seen.scores[number]
                    features = [*scores.features, *free[1 - n]]
                    found = dataclasses.replace(scores, features=features)
                    self.seen.attentions.append(found)
        one = operands[0]
        self.seen.scores.append(
            _Attention(
                batch=[one.axes[d] for d in batches[0]],
                free=[*free[0], *free[1]],
                features=[one.axes[d] for d in contracts[0]],
            )
        )
        return frozenset({(len(self.seen.scores) - 1, False)})


def _is_weight(value: Value) -> bool:
    return value.source is not None or value.constant is not None


class _Groups:
    """Which groups lie on axes, and where their members are."""

    def __init__(self, flow: Flow, rows: Mapping[Place, np.ndarray], raw, where):
        self._flow, self._where = flow, where
        self.places = {n: set(group.places) for n, group in enumerate(raw)}
        self.leaves = {n: {i for i, _ in group.places} for n, group in enumerate(raw)}
        self.lengths = {
            n: sum(
                int((where.group[rows[place]] == n).any(axis=1).sum())
                for place in group.places
            )
            for n, group in enumerate(raw)
        }

    def on(self, axes: Sequence[Axis]) -> set[int]:
        """Return the numbers of the groups that have channels on one of the axes."""
        found: set[int] = set()
        for axis in axes:
            if isinstance(axis, np.ndarray):
                rows = self._flow.atoms.resolve(axis)
                found.update(np.unique(self._where.group[rows]).tolist())
        return found - {-1}


def roles(
    flow: Flow,
    frame: Frame,
    leaves: int,
    rows: Mapping[Place, np.ndarray],
    raw: Sequence[RawGroup],
    where: Positions,
) -> list[str]:
    """Return the role of every group.

    Args:
      flow: what is known of the program.
      frame: its outermost jaxpr.
      leaves: how many of its first arguments are leaves.
      rows: the rows of every axis of every leaf.
      raw: the groups.
      where: where every atom stands in them.
    """
    additions = {block.path for block in blocks.find(frame.jaxpr, leaves)}
    walk = _Walk(additions)
    walk.run(frame, [frozenset()] * len(frame.jaxpr.invars))
    seen, groups = walk.seen, _Groups(flow, rows, raw, where)
    found: dict[int, str] = {}
    for number in _hidden(seen, groups):
        found[number] = MLP
    for number in _residual(seen, groups):
        found[number] = WIDTH
    for attention in seen.attentions:
        found.update(_of_attention(attention, groups))
    for number in groups.on([route.axis for route in flow.routes]):
        found[number] = EXPERTS
    return [found.get(n, CHANNELS) for n in range(len(raw))]


def _residual(seen: _Seen, groups: _Groups) -> set[int]:
    """Return groups of the residual stream."""
    found = groups.on(seen.residual)
    return (found & groups.on(seen.summed)) | (found - groups.on(seen.convolved))


def _hidden(seen: _Seen, groups: _Groups) -> set[int]:
    """Return groups that products make and read, once for each run."""
    found = groups.on(seen.made) & groups.on(seen.read)
    found -= groups.on(seen.convolved) | groups.on(seen.carried)
    # A leaf that makes and reads the same channels is recurrent.
    return {n for n in found if len(groups.places[n]) == len(groups.leaves[n])}


def _of_attention(attention: _Attention, groups: _Groups) -> dict[int, str]:
    """Return the roles of the groups of one attention.

    Queries that share their keys are a free axis of the scores, as positions are; their
    channels lie on the leaves that the features lie on, or the other heads.
    """
    features = groups.on(attention.features)
    shared = groups.on(attention.batch) - features
    near = set[int]().union(*(groups.leaves[n] for n in features | shared))
    free = groups.on(attention.free) - features - shared
    heads = shared | {n for n in free if groups.leaves[n] & near}
    lengths = {groups.lengths[n] for n in heads}
    found = dict.fromkeys(features, HEAD_FEATURES)
    for n in heads:  # Those of keys and values lie on more leaves, or more of them.
        grouped = len(lengths) > 1 and groups.lengths[n] == max(lengths)
        found[n] = KV_HEADS if grouped else HEADS
    return found
