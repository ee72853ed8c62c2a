"""Rows of a file that cannot be used: they are left out, counted, and named in one warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cvxnn._messages import warn
from cvxnn.preference.row_checks import EmptyTextError


class UnusedRows:
    """Rows that were left out, by the reason.

    Parameters
    ----------
    source : str
        Name of the file.
    holds, lacks : str
        What a row does that is used, and what rows do that are left out, such as "states a
        preference" and "state no preference".
    """

    def __init__(self, source: str, holds: str, lacks: str) -> None:
        self.source, self.holds, self.lacks = source, holds, lacks
        self._counts: Counter[str] = Counter()
        self._places: dict[str, str] = {}

    def add(self, reason: str, where: str) -> None:
        """Count a row.

        Parameters
        ----------
        reason : str
            What the row has, such as "a tie".
        where : str
            Its place.
        """
        self._counts[reason] += 1
        self._places.setdefault(reason, where)

    @contextmanager
    def empty_texts(self, where: str) -> Iterator[None]:
        """Leave a row out if a text in it is empty.

        Parameters
        ----------
        where : str
            Its place.
        """
        try:
            yield
        except EmptyTextError:
            self.add("an empty text", where)

    def report(self, n_used: int) -> None:
        """Warn of the rows that were left out.

        Parameters
        ----------
        n_used : int
            Number of the other rows.

        Raises
        ------
        ValueError
            If there are no others.
        """
        unused = self._counts.total()
        reasons = ", ".join(
            f"{n} with {reason} (first: {self._places[reason]})"
            for reason, n in self._counts.items()
        )
        total = n_used + unused
        if not n_used:
            raise ValueError(
                f"{self.source}: none of {total} rows {self.holds}: {reasons or 'empty'}"
            )
        if unused:
            warn(
                f"{self.source}: left out {unused} of {total} rows that {self.lacks}: {reasons}",
            )
