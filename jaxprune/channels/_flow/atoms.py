"""Identities of channels, joined as a program couples them.

Every index of every axis of every array in a program has a *row* of atoms. An atom is
a boolean unknown, "is removed"; an index is removed if any atom of its row is:

    removed(index) = removed(a_1) or ... or removed(a_k)

Most rows hold one atom. A reshape of a channel axis to (heads, features) gives every
channel the row (head atom, feature atom), so that a head or a feature can go and the
array stays rectangular.

Three facts are recorded about atoms: two are equal (union-find), one equals the row of
others (it is bound), one may never be removed (it is pinned, for a reason). All of them
only restrict what can be removed, so whatever order they arrive in, an assignment that
satisfies them removes the same indices everywhere. Everything is vectorised over rows.
"""

from typing import NamedTuple

import numpy as np


class Fixed(NamedTuple):
    """An axis of which nothing can be removed; `atom` is pinned for the reason."""

    atom: int


Axis = Fixed | np.ndarray
"""What is known of an axis: nothing can go, or its rows, int64 of shape (size, k)."""


class Atoms:
    """A growing set of atoms. Atom 0 is never removed, and fills up short rows."""

    def __init__(self):
        self._capacity = 4096
        self._parent = np.arange(self._capacity)
        self._reason = np.full(self._capacity, -1)
        self._terms = np.zeros((self._capacity, 2), np.int64)
        self._bound = np.zeros(self._capacity, bool)
        self._any_bound = False
        self._count = 1
        self._fixed: dict[str, Fixed] = {}
        self.reasons = ["it never shrinks"]
        self._reason[0] = 0

    def fresh(self, size: int) -> np.ndarray:
        """Returns `size` new rows of one atom each, shape (size, 1)."""
        start, self._count = self._count, self._count + size
        while self._count > self._capacity:
            self._grow()
        return np.arange(start, self._count)[:, None]

    def _grow(self):
        more = np.arange(self._capacity, 2 * self._capacity)
        self._parent = np.concatenate([self._parent, more])
        self._reason = np.concatenate([self._reason, np.full(len(more), -1)])
        self._terms = np.concatenate([self._terms, np.zeros((len(more), 2), np.int64)])
        self._bound = np.concatenate([self._bound, np.zeros(len(more), bool)])
        self._capacity *= 2

    @property
    def count(self) -> int:
        """The number of atoms; they are numbered from 0."""
        return self._count

    def fixed(self, why: str) -> Fixed:
        """Returns an axis of which nothing can be removed because of `why`."""
        if why not in self._fixed:
            atom = int(self.fresh(1)[0, 0])
            self._reason[atom] = self._add_reason(why)
            self._fixed[why] = Fixed(atom)
        return self._fixed[why]

    def _add_reason(self, why: str) -> int:
        self.reasons.append(why)
        return len(self.reasons) - 1

    def _find(self, atoms):
        roots = self._parent[atoms]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[atoms] = roots
        return roots

    def _expand(self, rows):
        """Follows equalities and bindings; pinned atoms stay."""
        rows = self._find(rows)
        while self._any_bound and self._bound[rows].any():
            bound = self._bound[rows][..., None]
            alone = np.stack([rows, np.zeros_like(rows)], axis=-1)
            rows = np.where(bound, self._terms[rows], alone)
            rows = self._find(rows.reshape(len(rows), -1))
        return rows

    def resolve(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows in unbound, unpinned representatives, 0 where none is left.

        Equal rows of the result are removed together; the width may differ.
        """
        rows = self._expand(rows)
        rows = np.where(self._reason[rows] >= 0, 0, rows)
        return rows if rows.shape[1] == 1 else _tidy(rows)

    def why(self, axis: Axis) -> np.ndarray:
        """For every row the number of the reason that pins it, -1 if nothing does.

        An index is pinned if each atom of its row is.
        """
        if isinstance(axis, Fixed):
            return self._reason[[axis.atom]]
        rows = self._expand(axis)
        reason = self._reason[rows]
        return np.where((reason < 0).any(axis=1), -1, reason.max(axis=1))

    def pin(self, axis: Axis, why: str) -> None:
        """Declares that no index of the axis is ever removed."""
        if isinstance(axis, Fixed):
            return
        atoms = np.unique(self.resolve(axis))
        atoms = atoms[atoms > 0]
        if len(atoms):
            self._reason[atoms] = self._add_reason(why)

    def unify(self, x: Axis, y: Axis, why: str) -> Axis:
        """Declares that the same indices are removed of both axes.

        Args:
          x: an axis.
          y: another, of the same size.
          why: recorded as the reason, where one of them cannot shrink.

        Returns:
          The axis that both now are.
        """
        if x is y:
            return x
        for stays, goes in ((x, y), (y, x)):
            if isinstance(stays, Fixed):
                if not isinstance(goes, Fixed):
                    cause = self.reasons[self._reason[stays.atom]]
                    self.pin(goes, f"{why} joins it with {cause}")
                return stays
        assert isinstance(x, np.ndarray)
        assert isinstance(y, np.ndarray)
        if x.shape == y.shape and np.array_equal(x, y):
            return x
        a, b = self.resolve(x), self.resolve(y)
        if a.shape[1] == b.shape[1] == 1:
            self._unify_singles(a[:, 0], b[:, 0], x, y)
        else:
            self._unify_rows(a, b, x, y)
        return x

    def _unify_singles(self, a, b, x, y):
        for these, others, source in ((a, b, x), (b, a, y)):
            stuck = (these == 0) & (others > 0)
            if stuck.any():
                self._reason[others[stuck]] = np.maximum(self.why(source)[stuck], 0)
        free = (a > 0) & (b > 0)
        self._join(a[free], b[free])

    def _join(self, a, b):
        """Makes unbound, unpinned roots equal, pair by pair.

        Each pass hangs larger roots under smaller ones. Where a root is to hang under
        several, one assignment wins and a later pass sees to the others.
        """
        while True:
            a, b = self._find(a), self._find(b)
            differ = a != b
            if not differ.any():
                return
            a, b = a[differ], b[differ]
            self._parent[np.maximum(a, b)] = np.minimum(a, b)

    def _unify_rows(self, a, b, x, y):
        if self._bind_all(a, b) or self._bind_all(b, a):
            return
        for i in range(len(a)):
            row_x = self.resolve(x[i : i + 1])[0]
            row_y = self.resolve(y[i : i + 1])[0]
            self._unify_row(row_x, row_y, x[i : i + 1], y[i : i + 1])

    def _bind_all(self, singles, rows) -> bool:
        """Binds distinct free atoms to rows that do not contain them, all at once."""
        if singles.shape[1] != 1 or not (rows > 0).any(axis=1).all():
            return False
        atoms = singles[:, 0]
        if (atoms == 0).any() or len(np.unique(atoms)) < len(atoms):
            return False
        if np.isin(rows, atoms).any():
            return False
        self._bind(atoms, rows)
        return True

    def _bind(self, atoms, rows):
        self._any_bound = True
        while rows.shape[1] > 2:
            rest = self.fresh(len(rows))
            self._terms[rest[:, 0]] = rows[:, -2:]
            self._bound[rest[:, 0]] = True
            rows = np.concatenate([rows[:, :-2], rest], axis=1)
        self._terms[atoms] = rows
        self._bound[atoms] = True

    def _unify_row(self, row_x, row_y, x, y):
        s = [atom for atom in row_x if atom > 0 and atom not in row_y]
        t = [atom for atom in row_y if atom > 0 and atom not in row_x]
        if not s and not t:
            return
        if not s or not t:
            reason = self.why(y if s else x)[0]
            self._reason[np.array(s or t)] = max(reason, 0)
        elif len(s) == len(t):
            self._join(np.array(s), np.array(t))
        elif len(s) == 1 or len(t) == 1:
            (atom,), row = (s, t) if len(s) == 1 else (t, s)
            self._bind(np.array([atom]), np.array([row]))
        else:
            every = np.array(s + t)
            self._join(every[1:], np.repeat(every[:1], len(every) - 1))


def _tidy(rows):
    """Drops repeated atoms of a row, then columns that no row needs."""
    for j in range(1, rows.shape[1]):
        repeated = (rows[:, :j] == rows[:, j : j + 1]).any(axis=1)
        rows[:, j] = np.where(repeated, 0, rows[:, j])
    order = np.argsort(rows == 0, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    return rows[:, : max(1, int((rows > 0).sum(axis=1).max(initial=0)))]


def product(axes: list[Axis], sizes: list[int]) -> Axis:
    """Returns the axis that merging axes makes, in row-major order.

    An index of the merged axis is removed if the index of any of the axes is.
    """
    if all(isinstance(axis, Fixed) for axis in axes):
        return axes[0]
    columns, before, total = [], 1, int(np.prod(sizes))
    for axis, size in zip(axes, sizes, strict=True):
        after = total // (before * size)
        if isinstance(axis, Fixed):
            columns.append(np.full((total, 1), axis.atom))
        else:
            columns.append(np.tile(np.repeat(axis, after, axis=0), (before, 1)))
        before *= size
    return np.concatenate(columns, axis=1)


def rows(axis: Axis, size: int) -> np.ndarray:
    """Returns an axis as rows, also one of which nothing can be removed."""
    return np.full((size, 1), axis.atom) if isinstance(axis, Fixed) else axis


def concatenate(axes: list[Axis], sizes: list[int]) -> Axis:
    """Returns the axis that joining axes end to end makes."""
    if all(isinstance(axis, Fixed) for axis in axes):
        return axes[0]
    parts = [rows(axis, size) for axis, size in zip(axes, sizes, strict=True)]
    width = max(part.shape[1] for part in parts)
    parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
    return np.concatenate(parts)
