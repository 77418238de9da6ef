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

Row = TypeVar("Row")


@dataclass(frozen=True)
class Step(Generic[Row]):
    """A committed change of one catalogue row; ``old`` None: it was made, ``new`` None: it is gone."""

    commit: Commit
    change: Change
    old: Optional[Row]
    new: Optional[Row]


@dataclass(frozen=True)
class Removal(Generic[Row]):
    """A row that a transaction found (``row``) and left removed."""

    commit: Commit
    change: Change
    oid: int
    row: Row


class History(Generic[Row]):
    """Rows of one catalogue by OID, as far as WAL was read. ``undecided`` are changes of rows that are not known."""

    def __init__(
        self,
        changes: Iterable[Change],
        commits: dict[int, Commit],
        decode: Callable[[bytes], Row],
        oid_of: Callable[[Row], int],
    ) -> None:
        self.steps: dict[int, list[Step[Row]]] = defaultdict(list)
        self.undecided: list[tuple[Commit, Change]] = []
        for change in changes:
            commit = commits.get(change.xid)
            if commit is None or change.operation == "INPLACE":
                continue
            old = decode(change.old) if change.old is not None else None
            new = decode(change.new) if change.new is not None else None
            row = old if old is not None else new
            if change.unknown or row is None:
                self.undecided.append((commit, change))
            else:
                self.steps[oid_of(row)].append(Step(commit, change, old, new))

    def before(self, oid: int, lsn: int) -> tuple[bool, Optional[Row]]:
        """(whether WAL tells, the row as the transactions that committed before ``lsn`` left it)."""
        steps = self.steps.get(oid)
        if not steps:
            return False, None
        for step in steps:
            if step.commit.lsn >= lsn:
                return True, step.old
        return True, steps[-1].new

    def removals(self) -> list[Removal[Row]]:
        """Rows removed by transactions that had not made them themselves, in the order of the commits."""
        found = []
        for oid, steps in self.steps.items():
            if steps[-1].new is None:
                commit = steps[-1].commit
                row = next(step.old for step in steps if step.commit.lsn == commit.lsn)
                if row is not None:
                    found.append(Removal(commit, steps[-1].change, oid, row))
        return sorted(found, key=lambda removal: (removal.commit.lsn, removal.change.lsn))
