"""Arrays on meshes with explicit axes, where an operation must state its result."""

from collections.abc import Iterable

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
