# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The committed life of catalogue rows: what a relation or schema was called at any moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, Generic, Optional, TypeVar

from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import Change
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit

Data = TypeVar("Data")


@dataclass(frozen=True)
class Step(Generic[Data]):
    """A committed change of one catalogue row; ``old`` None: it was made, ``new`` None: it is gone."""

    commit: Commit
    change: Change
    old: Optional[Data]
    new: Optional[Data]


@dataclass(frozen=True)
class Removal(Generic[Data]):
    """A row that a transaction found (``row``) and left removed; ``maker`` wrote that version of the row."""

    commit: Commit
    change: Change
    oid: int
    row: Data
    maker: Optional[int]


class History(Generic[Data]):
    """Rows of one catalogue by OID, as far as WAL was read. ``undecided`` are changes of rows that are not known."""

    def __init__(
        self,
        changes: Iterable[tuple[Commit, Change]],
        decode: Callable[[bytes], Data],
        oid_of: Callable[[Data], int],
    ) -> None:
        self.steps: dict[int, list[Step[Data]]] = defaultdict(list)
        self.undecided: list[tuple[Commit, Change]] = []
        for commit, change in sorted(changes, key=lambda one: (one[1].lsn, one[1].offset)):
            if change.operation == "INPLACE":
                continue
            if change.unknown:
                self.undecided.append((commit, change))
                continue
            old, new = (
                decode(row.data) if row is not None and row.data is not None else None
                for row in (change.old, change.new)
            )
            row = old if old is not None else new
            if row is not None and old != new:
                self.steps[oid_of(row)].append(Step(commit, change, old, new))

    def before(self, oid: int, lsn: int) -> tuple[bool, Optional[Data]]:
        """(whether WAL tells, the row as the transactions that committed before ``lsn`` left it)."""
        steps = self.steps.get(oid)
        if not steps:
            return False, None
        for step in steps:
            if step.commit.lsn >= lsn:
                return True, step.old
        return True, steps[-1].new

    def removals(self) -> list[Removal[Data]]:
        """Rows removed by transactions that had not made them themselves, in the order of the commits."""
        found = []
        for oid, steps in self.steps.items():
            if steps[-1].new is None:
                commit = steps[-1].commit
                first = next(step for step in steps if step.commit.lsn == commit.lsn)
                if first.old is not None:
                    maker = first.change.old.maker if first.change.old is not None else None
                    found.append(Removal(commit, steps[-1].change, oid, first.old, maker))
        return sorted(found, key=lambda removal: (removal.commit.lsn, removal.change.lsn))
