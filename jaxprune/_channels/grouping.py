"""From identities to groups: channels of one kind, used in the same places."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprune._channels.flow import Flow, Value

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
    """Returns the rows of every axis of every leaf in representatives."""
    return {
        (i, d): flow.atoms.resolve(axis)
        for i, value in enumerate(args)
        for d, axis in enumerate(value.axes)
        if isinstance(axis, np.ndarray)
    }


def raw_groups(flow: Flow, rows: dict[Place, np.ndarray]) -> list[RawGroup]:
    """Collects channels of one kind, in program order.

    Channels are of one kind if they lie on the same axes, with the same number of
    indices on each, and no index belongs to two of them (as to a head and a feature).
    """
    places = list(rows)
    homes: dict[int, list[tuple[int, int]]] = {}
    for number, place in enumerate(places):
        atoms, counts = np.unique(rows[place], return_counts=True)
        for atom, count in zip(atoms.tolist(), counts.tolist(), strict=True):
            homes.setdefault(atom, []).append((number, count))
    homes.pop(0, None)
    kinds: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for atom, home in homes.items():
        kinds.setdefault(tuple(home), []).append(atom)
    groups = []
    for home, atoms in kinds.items():
        ordered = sorted((places[n] for n, _ in home), key=lambda p: _rank(flow, p))
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
    """Producers first, in the order in which the program meets them."""
    leaf, axis = place
    return place not in flow.makers, flow.first_use.get(leaf, 1 << 60), leaf, axis


def _first(rows, atom) -> int:
    return int((rows == atom).any(axis=1).argmax())


def _in_order(rows, atoms) -> np.ndarray:
    values, first = np.unique(rows.ravel(), return_index=True)
    position = dict(zip(values.tolist(), first.tolist(), strict=True))
    return np.array(sorted(atoms, key=position.__getitem__))


def channel_of(rows: np.ndarray, atoms: np.ndarray, count: int) -> np.ndarray:
    """For every row the position in `atoms` of the atom that it holds, -1 for none."""
    number = np.full(count, -1, np.int32)
    number[atoms] = np.arange(len(atoms))
    return number[rows].max(axis=1)
