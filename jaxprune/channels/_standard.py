"""Networks behind norms of the dense count, as standard smaller networks.

With d' of d channels left, a norm of a graph of `norms="dense-count"` divides by d. A
standard module of width d' divides by d', so that

    x / sqrt(sum x^2 / d + e) g = x / sqrt(sum x^2 / d' + e d / d') g sqrt(d / d')

The factor goes into the scale g; the constant e is part of the user's program, and is
returned.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core as jex

from jaxprune import tree as jtree
from jaxprune.base._protocols import Masks, Params
from jaxprune.channels._flow import equations
from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._flow.evaluate import Evaluation
from jaxprune.channels._flow.flow import DENSE_COUNT, Frame, Site
from jaxprune.channels._graph import ChannelGraph, check_graph
from jaxprune.channels._masks import read_masks, removed_atoms
from jaxprune.channels._primitives.sums import Mean, means, share


class StandardForm(NamedTuple):
    """Parameters of a standard smaller network.

    Attributes:
      params: the smaller parameters.
      epsilons: the constant that the norm must add to its mean of squares, by the name
        of the leaf that is its scale; norms that lost no channel are not named.
    """

    params: Params
    epsilons: dict[str, float]


def standard_form(
    graph: ChannelGraph, masks: Mapping[str, Any] | Masks, params: Params
) -> StandardForm:
    """Return smaller parameters for the same architecture at a smaller width.

        g' = g sqrt(d / d'),    e' = e d / d'

    for every RMS norm x / sqrt(mean(x^2) + e) g, with d' of d channels left; all other
    leaves are those of `graph.compact`. A module whose norms divide by their own width
    then computes what `graph.masked` computes. Scales may be stored less a constant, as
    in (1 + g) of Gemma. Other constants that a program derives from sizes, such as one
    over the root of the number of features of a head, are not touched: leave the groups
    that they depend on whole.

    Args:
      graph: traced with `norms="dense-count"`.
      masks: as for `graph.compact`.
      params: the parameters that were traced.

    Returns:
      The parameters, and the constant e' of every norm that lost channels.

    Raises:
      ValueError: if the graph was traced with other norms, or a norm that lost channels
        has no such form: a layer norm subtracts a mean, which a smaller width takes
        over fewer channels; a norm without a scale has no place for the factor.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> def rms(x, scale, eps):
      ...     return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + eps) * scale
      >>> def network(params, x, eps=1e-2):
      ...     return rms(x @ params["w1"], params["scale"], eps) @ params["w2"]
      >>> params = {"scale": jnp.ones(4), "w1": jnp.eye(3, 4), "w2": jnp.ones((4, 2))}
      >>> x = jnp.array([[1.0, 2.0, 3.0]])
      >>> graph = trace_channels(network, params, x, norms="dense-count")
      >>> masks = {"w1:1": np.array([True, False, False, True])}
      >>> small = standard_form(graph, masks, params)
      >>> np.round(small.params["scale"] ** 2, 5).tolist()
      [2.0, 2.0]
      >>> round(small.epsilons["scale"], 6)
      0.02
      >>> y = network(small.params, x, small.epsilons["scale"])
      >>> bool(jnp.allclose(y, graph.masked(masks)(params, x)))
      True
    """
    call = "standard_form"
    check_graph(call, graph)
    if graph.norms != DENSE_COUNT:
        raise ValueError(
            f"`{call}(graph)`: the graph must be traced with `norms='dense-count'`, "
            f"this one with {graph.norms!r}. Trace it so; the masks fit."
        )
    leaves_of(graph, params, f"{call}(graph, masks, params)")
    read = read_masks(call, graph, masks)
    (small,) = graph.compact(read, params).trees
    traced = graph._traced
    run = Evaluation(traced.program, removed_atoms(graph, read), small=True)
    walk = _walk(traced)
    named, scaled, epsilons = jtree.named_leaves(small), {}, {}
    for site, mean in means(traced.program.frame):
        ratio = share(run, mean)
        if ratio == 1:
            continue
        norm = _standard_norm(walk, site)
        for leaf, offset in norm.scales:
            name = traced.names[leaf]
            epsilon = norm.inside / ratio or norm.outside / math.sqrt(ratio)
            scale = (named[name] + offset) / math.sqrt(ratio) - offset
            scaled[name] = scale.astype(named[name].dtype)
            epsilons[name] = epsilon
    return StandardForm(jtree.replace(small, scaled), epsilons)


class _Norm:
    """What becomes of a mean: the constants added, the scales, other uses.

    Attributes:
      inside: the constant added to the mean.
      outside: the constant added to its root.
      scales: leaves that multiply the result, with the constants added to them.
      other: another use than that of a norm with a scale, in words.
    """

    def __init__(self):
        self.inside = self.outside = 0.0
        self.scales: set[tuple[int, float]] = set()
        self.other = ""


class _Form(NamedTuple):
    """What is known of an array.

    Attributes:
      kind: `leaf`, a view of one; `mean`, the mean of a norm; `root`, its root;
        `factor`, proportional to one over the root; `standard`, that times a scale.
      leaf: the number of the leaf.
      norm: the norm.
      offset: what was added to the leaf.
    """

    kind: str
    leaf: int = -1
    norm: Any = None
    offset: float = 0.0


_VIEWS = equations.SAME | equations.ALIKE
_VIEWS |= {"broadcast_in_dim", "reshape", "squeeze", "transpose", "slice"}
_CALLS = equations.CALLS | equations.OWN_DERIVATIVE


class _Walk:
    """Follows means to the scales that multiply what they normalise.

    Attributes:
      norms: by the frame and the number of the equation that takes the mean.
      uses: how often each leaf is used, views of it aside.
      folds: how often as the scale of a norm.
    """

    def __init__(self):
        self.norms: dict[tuple[int, int], _Norm] = {}
        self.uses: dict[int, int] = {}
        self.folds: dict[int, int] = {}

    def run(self, frame: Frame, args: Sequence[_Form | None]) -> list[_Form | None]:
        """Walk through a frame; returns what is known of its results."""
        known = dict(zip(frame.jaxpr.invars, args, strict=False))
        for index, equation in enumerate(frame.jaxpr.eqns):
            operands = [
                None if isinstance(atom, jex.Literal) else known.get(atom)
                for atom in equation.invars
            ]
            outs = self._step(Site(frame, index), operands)
            known.update(zip(equation.outvars, outs, strict=False))
        return [
            None if isinstance(atom, jex.Literal) else known.get(atom)
            for atom in frame.jaxpr.outvars
        ]

    def _step(self, site: Site, operands) -> Sequence[_Form | None]:
        if isinstance(site.note, Mean):
            norm = self.norms.setdefault((id(site.frame), site.index), _Norm())
            return [_Form("mean", norm=norm)]
        if site.name in _CALLS and site.index in site.frame.children:
            return self.run(site.children[0], operands)
        if site.name == "scan" and site.index in site.frame.children:
            return self._scan(site, operands)
        if site.name in _VIEWS:
            return operands
        made = self._made(site, operands)
        if made is None:
            for form in operands:
                self._use(form, site)
        return [made] * len(site.equation.outvars)

    def _scan(self, site: Site, operands) -> list[_Form | None]:
        """Walk through the body once; nothing is known of what is carried."""
        parts = equations.scan_parts(site.params)
        carried = range(parts.consts, parts.consts + parts.carry)
        for i in carried:
            self._use(operands[i], site)
        args = [None if i in carried else form for i, form in enumerate(operands)]
        for form in self.run(site.children[0], args):
            self._use(form, site)
        return [None] * len(site.equation.outvars)

    def _made(self, site: Site, operands) -> _Form | None:
        """Return what an equation of a norm makes; None if it belongs to none."""
        kinds = [form.kind if form else "" for form in operands]
        known = next((form for form in operands if form), None)
        if known is None:
            return None
        number = None if kinds.count("") != 1 else _number(site, kinds.index(""))
        if site.name == "add" and number is not None:
            return _added(known, number)
        if known.kind == "mean" and site.name in ("sqrt", "rsqrt", "pow"):
            power = {"sqrt": 0.5, "rsqrt": -0.5}.get(site.name, number)
            kind = {0.5: "root", -0.5: "factor"}.get(power or 0.0)
            return known._replace(kind=kind) if kind else None
        if site.name == "div" and kinds in (["", "root"], ["factor", ""]):
            return known._replace(kind="factor")
        if site.name == "mul" and kinds in (["", "factor"], ["factor", ""]):
            return known
        if site.name == "mul" and sorted(kinds) == ["factor", "leaf"]:
            return self._fold(*sorted(operands, key=lambda form: form.kind))
        return None

    def _fold(self, factor: _Form, leaf: _Form) -> _Form:
        """Note a scale; what it makes is as a standard network computes it."""
        factor.norm.scales.add((leaf.leaf, leaf.offset))
        for count in (self.uses, self.folds):
            count[leaf.leaf] = count.get(leaf.leaf, 0) + 1
        return _Form("standard")

    def _use(self, form: _Form | None, site: Site) -> None:
        """Note that an array is used otherwise than in a norm with a scale."""
        if form is None or form.kind == "standard":
            return
        if form.kind == "leaf":
            self.uses[form.leaf] = self.uses.get(form.leaf, 0) + 1
        else:
            form.norm.other = form.norm.other or f"`{site.name}` reads its {form.kind}"


def _number(site: Site, operand: int) -> float | None:
    """Return the one number that an operand holds, None if it is none."""
    atom = site.equation.invars[operand]
    if isinstance(atom, jex.Literal):
        array = atom.val
    else:
        constant = site.operand(operand).constant
        array = None if constant is None else constant.value()
    known = array is not None and np.size(array) == 1
    return float(np.asarray(array).astype(np.float64).item()) if known else None


def _added(form: _Form, number: float) -> _Form | None:
    """Return what adding a constant makes: the one of a norm, or of a scale."""
    if form.kind == "leaf" and not form.offset:
        return form._replace(offset=number)
    if form.kind == "mean" and not form.norm.inside:
        form.norm.inside = number
        return form
    if form.kind == "root" and not form.norm.outside:
        form.norm.outside = number
        return form
    return None


def _walk(traced: Any) -> _Walk:
    walk = _Walk()
    leaves = [_Form("leaf", leaf=i) for i in range(len(traced.names))]
    walk.run(traced.program.frame, leaves)
    return walk


def _standard_norm(walk: _Walk, site: Site) -> _Norm:
    """Return the norm that a mean is of; refuse one that has no standard form."""
    norm = walk.norms.get((id(site.frame), site.index))
    why = "it is taken where it cannot be followed" if norm is None else norm.other
    if norm is not None and not why:
        if not norm.scales:
            why = "no scale multiplies the result"
        elif norm.inside and norm.outside:
            why = "constants are added to it and to its root"
        elif any(walk.uses[leaf] != walk.folds[leaf] for leaf, _ in norm.scales):
            why = "the scale is used elsewhere too"
    if norm is None or why:
        place = str(site.equation.source_info.name_stack)
        raise ValueError(
            f"`standard_form(graph, masks)`: the mean that `{site.name}` takes"
            f"{f' in {place}' if place else ''} must be that of an RMS norm with a "
            f"scale, to lose channels, but {why}. Keep its channels; or trace with "
            "`norms='renormalise'`, and train on what that computes."
        )
    return norm
