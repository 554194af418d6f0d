"""From identities to groups: channels of one kind, used in the same places."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprune.channels._flow.flow import Flow, Value

Place = tuple[int, int]  # (leaf, axis)


class RawGroup(NamedTuple):
    """Channels of one kind.

    Attributes:
      atoms: the representative of each channel, in the order of the first place.
      places: (leaf, axis) of all members, the naming one first.
    """

    atoms: np.ndarray
    places: tuple[Place, ...]


def resolved_leaves(flow: Flow, args: Sequence[Value]) -> dict[Place, np.ndarray]:
    """Return the rows of every axis of every leaf in representatives."""
    return {
        (i, d): flow.atoms.resolve(axis)
        for i, value in enumerate(args)
        for d, axis in enumerate(value.axes)
        if isinstance(axis, np.ndarray)
    }


def raw_groups(flow: Flow, rows: dict[Place, np.ndarray]) -> list[RawGroup]:
    """Collect channels of one kind, in program order.

    Channels are of one kind if they lie on the same axes, with the same number of
    indices on each, and no index belongs to two of them (as to a head and a feature).
    """
    places = list(rows)
    groups = []
    for home, atoms in _kinds([rows[place] for place in places], flow.atoms.count):
        ordered = sorted((places[n] for n in home), key=lambda p: _rank(flow, p))
        for part in _factors(rows[ordered[0]], atoms):
            groups.append(RawGroup(_in_order(rows[ordered[0]], part), tuple(ordered)))
    return sorted(
        groups,
        key=lambda g: (
            _rank(flow, g.places[0]),
            _first(rows[g.places[0]], g.atoms[0]),
            int(g.atoms[0]),
        ),
    )


def _kinds(rows, count):
    """Yield the numbers of the rows, and the atoms, of every kind.

    An atom is summed up in 64 bits, mixed from each place and its number of indices
    there; equal sums are one kind.
    """
    present = [np.unique(array, return_counts=True) for array in rows]
    sums = np.zeros(count, np.uint64)
    for number, (atoms, counts) in enumerate(present):
        sums[atoms] += _mixed((number << 32) + counts)
    sums[0] = 0
    (atoms,) = np.nonzero(sums)
    kind_of = np.full(count, -1)
    _, kind_of[atoms] = np.unique(sums[atoms], return_inverse=True)
    homes: dict[int, list[int]] = {}
    for number, (here, _) in enumerate(present):
        for kind in np.unique(kind_of[here]).tolist():
            homes.setdefault(kind, []).append(number)
    order = np.argsort(kind_of[atoms], kind="stable")
    starts = np.searchsorted(kind_of[atoms][order], np.arange(len(homes) + 1))
    for kind, home in sorted(homes.items()):
        if kind >= 0:
            yield home, atoms[order[starts[kind] : starts[kind + 1]]].tolist()


def _mixed(x) -> np.ndarray:
    """Mixes the bits of integers (splitmix64)."""
    x = np.asarray(x).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _factors(rows, atoms) -> list[list[int]]:
    """Parts atoms so that no row holds two atoms of one part."""
    if rows.shape[1] == 1:
        return [atoms]
    met: dict[int, set[int]] = {atom: set() for atom in atoms}
    for row in rows.tolist():
        for atom in row:
            if atom in met:
                met[atom].update(row)
    parts: list[list[int]] = []
    for atom in sorted(atoms):
        others = met[atom] - {atom}
        for part in parts:
            if not others.intersection(part):
                part.append(atom)
                break
        else:
            parts.append([atom])
    return parts


def _rank(flow: Flow, place: Place):
    """Order producers first, as the program meets them."""
    leaf, axis = place
    return place not in flow.producers, flow.first_use.get(leaf, 1 << 60), leaf, axis


def _first(rows, atom) -> int:
    return int((rows == atom).any(axis=1).argmax())


def _in_order(rows, atoms) -> np.ndarray:
    values, first = np.unique(rows.ravel(), return_index=True)
    position = dict(zip(values.tolist(), first.tolist(), strict=True))
    return np.array(sorted(atoms, key=position.__getitem__))


class Positions(NamedTuple):
    """Where every atom stands.

    Attributes:
      group: the number of its group, -1 for none.
      channel: its position in the group.
    """

    group: np.ndarray
    channel: np.ndarray


def positions(groups: Sequence[RawGroup], count: int) -> Positions:
    """Return where each of `count` atoms stands."""
    group, channel = np.full(count, -1), np.full(count, -1, np.int32)
    for number, one in enumerate(groups):
        group[one.atoms] = number
        channel[one.atoms] = np.arange(len(one.atoms))
    return Positions(group, channel)


def channel_of(rows: np.ndarray, where: Positions, group: int) -> np.ndarray:
    """For every row the channel of the group that it holds, -1 for none."""
    return np.where(where.group[rows] == group, where.channel[rows], -1).max(axis=1)
