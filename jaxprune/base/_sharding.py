"""Arrays on meshes with explicit axes, where an operation must state its result."""

import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def replicated(x: jax.Array, axes: Iterable[int] | None = None) -> jax.Array:
    """Return an array of which no explicit axis of a mesh shards the given axes.

    Arrays on automatic or manual axes are returned as they are.

    Args:
      x: an array, traced or not.
      axes: the axes of the array; None for all.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    gone = set(range(x.ndim) if axes is None else axes)
    spec = [None if d in gone else name for d, name in enumerate(sharding.spec)]
    if spec == list(sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*spec)))


def replicated_sharding(x: jax.Array, rank: int) -> NamedSharding | None:
    """Return the sharding of a result that no explicit axis of a mesh shards.

    Args:
      x: an operand, traced or not.
      rank: the number of axes of the result.

    Returns:
      What `out_sharding` takes; None where no axis of the mesh is explicit.
    """
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec(*(None,) * rank))


def fitting(sharding: Any, shape: tuple[int, ...]) -> Any:
    """Return a sharding for a smaller array: its axes that divide evenly stay sharded.

    Args:
      sharding: that of the array before; None, or one without a specification of its
        axes that does not divide the shape, becomes None.
      shape: of the smaller array, with as many axes.

    Examples:
      >>> import jax
      >>> from jax.sharding import PartitionSpec as P
      >>> mesh = jax.sharding.AbstractMesh((2, 4), ("x", "y"))
      >>> fitting(NamedSharding(mesh, P("x", "y")), (6, 6)).spec
      P('x', None)
    """
    if sharding is None:
        return None
    if isinstance(sharding, NamedSharding):
        spec = [*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))]
        for d, names in enumerate(spec):
            if isinstance(names, str | tuple):
                names = names if isinstance(names, tuple) else (names,)
                devices = math.prod(sharding.mesh.shape[name] for name in names)
                spec[d] = spec[d] if shape[d] % devices == 0 else None
        return sharding.update(spec=PartitionSpec(*spec))
    try:
        sharding.shard_shape(shape)
    except ValueError:
        return None
    return sharding


def sharded_like(x: jax.Array, other: jax.Array) -> jax.Array:
    """Return an array with the sharding of another, where its axes divide evenly.

    Args:
      x: an array, traced or not.
      other: an array of as many axes, on the same mesh.
    """
    sharding = jax.typeof(other).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    try:
        sharding.shard_shape(x.shape)
    except ValueError:
        return x
    return jax.sharding.reshard(x, sharding)
