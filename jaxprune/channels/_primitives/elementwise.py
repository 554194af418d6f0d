"""Rules of primitives that treat channels alike and apart: one rule for all of them.

The result has the axes of its operands. Operands may have axes of size 1 that are
broadcast, or be scalars.
"""

from collections.abc import Sequence

from jax.extend import core as jex

from jaxprune.channels._flow.flow import Flow, Source, Value, pin_all, rule, shape_of


def words(text: str) -> frozenset[str]:
    """The words of a text, names of primitives for instance."""
    return frozenset(text.split())


ELEMENTWISE = words("""
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
ceil clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq
eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag
integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul mulhi name
ne neg nextafter not or polygamma population_count pow real reduce_precision
regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeros_like
zeta
""")

# f(0) = 0, and f(0, 0) = 0; a product is zero if one factor is.
ZERO_TO_ZERO = words("""
abs add add_any asin asinh atan atanh cbrt ceil convert_element_type copy copy_p erf
erf_inv expm1 floor imag log1p max min name neg real reduce_precision round sign
sin sinh sqrt square stop_gradient sub tan tanh
""")
PRODUCTS = frozenset({"mul", "and"})


@rule(*ELEMENTWISE)
def elementwise(flow: Flow, equation, *values: Value) -> list[Value]:
    """Joins the axes of all operands, axis by axis."""
    shape = equation.outvars[0].aval.shape
    shapes = [shape_of(atom) for atom in equation.invars]
    axes = []
    for d, size in enumerate(shape):
        joined = None
        for value, own in zip(values, shapes, strict=True):
            if not own:
                continue
            if own[d] != size:
                flow.pin(value.axes[d], "broadcasts it")
            elif joined is None:
                joined = value.axes[d]
            else:
                joined = flow.unify(joined, value.axes[d])
        axes.append(flow.fresh(size) if joined is None else joined)
    silent = _silent(equation, values, shapes, shape)
    return [Value(tuple(axes), _source(values, shapes, shape), silent)]


def _silent(equation, values, shapes, shape) -> frozenset[int]:
    """The axes along which the result is zero at removed indices."""
    name, quiet = equation.primitive.name, []
    for atom, value, own in zip(equation.invars, values, shapes, strict=True):
        if isinstance(atom, jex.Literal) and not own and atom.val == 0:
            quiet.append(frozenset(range(len(shape))))
        else:
            quiet.append(
                frozenset(d for d in value.silent if own and own[d] == shape[d])
            )
    if name in PRODUCTS:
        return frozenset.union(*quiet)
    if name == "div" or (name == "integer_pow" and equation.params["y"] > 0):
        return quiet[0]
    if name == "select_n":
        return frozenset.intersection(*quiet[1:])
    if name in ZERO_TO_ZERO:
        return frozenset.intersection(*quiet)
    return frozenset()


def _source(values, shapes, shape) -> Source | None:
    """The leaf of which all operands of full shape are views."""
    full = [v.source for v, own in zip(values, shapes, strict=True) if own == shape]
    if not full or full[0] is None:
        return None
    same = all(s is not None and s.leaf == full[0].leaf for s in full)
    return full[0] if same else None


@rule("bitcast_convert_type")
def bitcast_convert_type(flow: Flow, equation, value: Value) -> Sequence[Value]:
    """Elementwise between types of equal width."""
    if shape_of(equation.invars[0]) != equation.outvars[0].aval.shape:
        return pin_all(flow, equation, value)
    return elementwise(flow, equation, value)


@rule("optimization_barrier", "psum", "psum_invariant", "pmax", "pmin", "pvary")
def each_alike(flow: Flow, equation, *values: Value) -> list[Value]:
    """Every operand passes by itself; sums over named axes are between devices."""
    if any(isinstance(axis, int) for axis in equation.params.get("axes", ())):
        return pin_all(flow, equation, *values)
    return list(values)
