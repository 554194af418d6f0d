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

from jaxprune.channels._flow.reasons import Reason, Why


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
        self._used = np.zeros(self._capacity, bool)
        self._any_bound = False
        self._count = 1
        self._fixed: dict[Why, Fixed] = {}
        self.reasons = [Why(Reason.SIZE_ONE, "it fills up a short row")]
        self._reason[0] = 0

    def fresh(self, size: int) -> np.ndarray:
        """Return `size` new rows of one atom each, shape (size, 1)."""
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
        self._used = np.concatenate([self._used, np.zeros(len(more), bool)])
        self._capacity *= 2

    @property
    def count(self) -> int:
        """The number of atoms; they are numbered from 0."""
        return self._count

    def fixed(self, why: Why) -> Fixed:
        """Return an axis of which nothing can be removed because of `why`."""
        if why not in self._fixed:
            atom = int(self.fresh(1)[0, 0])
            self._reason[atom] = self._add_reason(why)
            self._fixed[why] = Fixed(atom)
        return self._fixed[why]

    def _add_reason(self, why: Why) -> int:
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
        """Return the rows in unbound, unpinned representatives, 0 where none is left.

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

    def causes(self, axis: Axis) -> list[Why]:
        """Return the reasons that pin any atom of the rows, though not all."""
        numbers = np.unique(self._reason[self._expand(rows(axis, 1))])
        return [self.reasons[number] for number in numbers if number > 0]

    def pin(self, axis: Axis, why: Why) -> None:
        """Declare that no index of the axis is ever removed."""
        if isinstance(axis, Fixed):
            return
        atoms = np.unique(self.resolve(axis))
        atoms = atoms[atoms > 0]
        if len(atoms):
            self._reason[atoms] = self._add_reason(why)

    def use(self, axis: Axis) -> None:
        """Note that an operation uses the entries of an axis, not just moves them."""
        if not isinstance(axis, Fixed):
            self._used[axis] = True

    def used(self) -> np.ndarray:
        """Return for every representative whether an operation uses it."""
        rows = self.resolve(np.flatnonzero(self._used)[:, None])
        used = np.zeros(self._count, bool)
        used[rows.ravel()] = True
        return used

    def unify(self, x: Axis, y: Axis, where: str) -> Axis:
        """Declare that the same indices are removed of both axes.

        Args:
          x: an axis.
          y: another, of the same size.
          where: the operation that says so, for the reason where one cannot shrink.

        Returns:
          The axis that both now are.
        """
        if x is y:
            return x
        for stays, goes in ((x, y), (y, x)):
            if isinstance(stays, Fixed):
                if not isinstance(goes, Fixed):
                    self.pin(goes, self._joined(stays, where))
                return stays
        assert isinstance(x, np.ndarray)
        assert isinstance(y, np.ndarray)
        if x.shape == y.shape and np.array_equal(x, y):
            return x
        rows_x, rows_y = self.resolve(x), self.resolve(y)
        if rows_x.shape[1] == rows_y.shape[1] == 1:
            self._unify_singles(rows_x[:, 0], rows_y[:, 0], x, y)
        elif not self._bind_all(rows_x, rows_y) and not self._bind_all(rows_y, rows_x):
            self._unify_rows(x, y, where)
        return x

    def _joined(self, fixed: Fixed, where: str) -> Why:
        cause = self.reasons[self._reason[fixed.atom]]
        return Why(cause.reason, f"{where} joins it with {cause.text}")

    def _unify_singles(self, atoms_x, atoms_y, x, y):
        """Unifies rows of one atom each: where one side is pinned, so is the other."""
        for these, others, source in ((atoms_x, atoms_y, x), (atoms_y, atoms_x, y)):
            stuck = (these == 0) & (others > 0)
            if stuck.any():
                self._reason[others[stuck]] = self.why(source)[stuck]
        free = (atoms_x > 0) & (atoms_y > 0)
        self._join(atoms_x[free], atoms_y[free])

    def _join(self, these, others):
        """Make unbound, unpinned roots equal, pair by pair.

        Each pass hangs larger roots under smaller ones. Where a root is to hang under
        several, one assignment wins and a later pass sees to the others.
        """
        while True:
            these, others = self._find(these), self._find(others)
            differ = these != others
            if not differ.any():
                return
            these, others = these[differ], others[differ]
            self._parent[np.maximum(these, others)] = np.minimum(these, others)

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

    def _unify_rows(self, x, y, where):
        """Unifies rows one by one.

        Of two rows what they share can be left out where both have more:

            (s or c) = (t or c)   if   s = t

        Rows of which one has nothing more are settled together, at the end.
        """
        one_sided = [
            i
            for i in range(len(x))
            if not self._equate(*self._differences(x[i : i + 1], y[i : i + 1])[:2])
        ]
        while one_sided:
            self._settle_extras(x[one_sided], y[one_sided], where)
            one_sided = [
                i
                for i in one_sided
                if any(self._differences(x[i : i + 1], y[i : i + 1])[:2])
            ]

    def _differences(self, x, y) -> tuple[list[int], list[int], list[int]]:
        """Return the atoms that only one of two rows has, and those of both."""
        (row_x,), (row_y,) = self.resolve(x).tolist(), self.resolve(y).tolist()
        only_x = [atom for atom in row_x if atom > 0 and atom not in row_y]
        only_y = [atom for atom in row_y if atom > 0 and atom not in row_x]
        return only_x, only_y, [atom for atom in row_x if atom > 0 and atom in row_y]

    def _equate(self, only_x: list[int], only_y: list[int]) -> bool:
        """Make the differences of two rows equal; False if one side has none."""
        if not only_x and not only_y:
            return True
        if not only_x or not only_y:
            return False
        if len(only_x) == len(only_y):
            self._join(np.array(only_x), np.array(only_y))
        elif len(only_x) == 1:
            self._bind(np.array(only_x), np.array([only_y]))
        elif len(only_y) == 1:
            self._bind(np.array(only_y), np.array([only_x]))
        else:
            every = np.array(only_x + only_y)
            self._join(every[1:], np.repeat(every[:1], len(every) - 1))
        return True

    def _settle_extras(self, x, y, where):
        """Settles rows of which one side has atoms more than the other.

            (t or c) = c   in all rows that hold t

        holds if t equals an atom that all these rows share, and else if t is pinned.
        """
        shared: dict[int, set[int]] = {}
        reason: dict[int, int] = {}
        for i in range(len(x)):
            only_x, only_y, both = self._differences(x[i : i + 1], y[i : i + 1])
            other = self.why(y[i : i + 1] if only_x else x[i : i + 1])[0]
            for atom in only_x + only_y:
                shared[atom] = shared.get(atom, set(both)) & set(both)
                reason[atom] = max(reason.get(atom, -1), other)
        for atom, partners in shared.items():
            root, *roots = self._find(np.array([atom, *sorted(partners)])).tolist()
            free = [partner for partner in roots if self._reason[partner] < 0]
            if self._reason[root] >= 0:
                continue
            if free:
                self._join(np.array([root]), np.array(free[:1]))
            elif reason[atom] >= 0:
                self._reason[root] = reason[atom]
            else:
                text = f"{where} couples it with others in part only"
                self._reason[root] = self._add_reason(Why(Reason.PARTLY_COUPLED, text))


def _tidy(rows):
    """Drop repeated atoms of a row, then columns that no row needs."""
    for j in range(1, rows.shape[1]):
        repeated = (rows[:, :j] == rows[:, j : j + 1]).any(axis=1)
        rows[:, j] = np.where(repeated, 0, rows[:, j])
    order = np.argsort(rows == 0, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    return rows[:, : max(1, int((rows > 0).sum(axis=1).max(initial=0)))]


def product(axes: list[Axis], sizes: list[int]) -> Axis:
    """Return the axis that merging axes makes, in row-major order.

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
    """Return an axis as rows, also one of which nothing can be removed."""
    return np.full((size, 1), axis.atom) if isinstance(axis, Fixed) else axis


def concatenate(axes: list[Axis], sizes: list[int]) -> Axis:
    """Return the axis that joining axes end to end makes."""
    if all(isinstance(axis, Fixed) for axis in axes):
        return axes[0]
    parts = [rows(axis, size) for axis, size in zip(axes, sizes, strict=True)]
    width = max(part.shape[1] for part in parts)
    parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
    return np.concatenate(parts)
