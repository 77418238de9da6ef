# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the rows that transactions changed, out of the WAL that a scan has read."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Relation, Scan, Stretch, only
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    Commit,
    changed_filenodes,
    count_inserts,
    count_rows,
    count_rows_of_files,
)

ONE_BY_ONE = 12  # files from which on all rows are read once instead of one file after the other


class RowCounts:
    """Rows by file and transaction, of what a scan has read so far."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    def rows(self, files: Mapping[Relation, int], least: int) -> Counter[tuple[Relation, int, str]]:
        """Rows deleted and updated in these files in all WAL read, by (file, position of the commit, kind).

        A file had rows up to the position that stands with it. Transactions with fewer rows than ``least`` in all
        files together may be left out.
        """
        total: Counter[tuple[Relation, int, str]] = Counter()
        for stretch in self._scan.stretches:
            lacking = [one for one, until in files.items() if one not in stretch.rows and stretch.start <= until]
            if lacking:
                read = functools.partial(self._count, stretch, lacking)
                for (relation, xid, kind), count in self._committed(
                    stretch, self._scan.steady(stretch.first, stretch.end, read)
                ):
                    stretch.rows.setdefault(relation, Counter())[xid, kind] += count
                for relation in lacking:
                    stretch.rows.setdefault(relation, Counter())
                _leave_small(stretch, least)
            for relation in files:
                for (lsn, kind), count in stretch.rows.get(relation, {}).items():
                    total[relation, lsn, kind] += count
        return total

    def _committed(
        self, stretch: Stretch, rows: Counter[tuple[Relation, int, str]]
    ) -> Iterable[tuple[tuple[Relation, int, str], int]]:
        """The counts of transactions that committed, by the positions of their commits."""
        positions = self._scan.positions({xid for _relation, xid, _kind in rows}, stretch)
        for (relation, xid, kind), count in rows.items():
            if xid in positions:
                yield (relation, positions[xid], kind), count

    def _count(self, stretch: Stretch, relations: list[Relation]) -> Counter[tuple[Relation, int, str]]:
        rows: Counter[tuple[Relation, int, str]] = Counter()
        if len(relations) >= ONE_BY_ONE:
            wanted = set(relations)
            for piece in self._scan.source.waldump(stretch.start, stretch.end, "--rmgr=Heap"):
                found: Counter[tuple[Relation, int, str]] = Counter()
                count_rows_of_files(piece, found)
                rows.update({key: count for key, count in found.items() if key[0] in wanted})
            return rows
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            counts = pool.map(functools.partial(self._count_file, stretch), relations)
        for relation, count in zip(relations, counts):
            rows.update({(relation, xid, kind): number for (xid, kind), number in count.items()})
        return rows

    def _count_file(self, stretch: Stretch, relation: Relation) -> Counter[tuple[int, str]]:
        rows: Counter[tuple[int, str]] = Counter()
        for piece in self._scan.source.waldump(stretch.start, stretch.end, only(relation), "--rmgr=Heap"):
            count_rows(piece, rows)
        return rows

    def rows_of(self, commit: Commit) -> Counter[tuple[Relation, str]]:
        """Rows that a transaction, its subtransactions included, deleted and updated, by (file, kind)."""
        total: Counter[tuple[Relation, str]] = Counter()
        for stretch in self._scan.span(commit):
            for (relation, _xid, kind), count in self._scan.steady(
                stretch.first, stretch.end, functools.partial(self._count_of, stretch, commit)
            ).items():
                total[relation, kind] += count
        return total

    def _count_of(self, stretch: Stretch, commit: Commit) -> Counter[tuple[Relation, int, str]]:
        xids = {commit.xid, *commit.subxacts}
        rows: Counter[tuple[Relation, int, str]] = Counter()
        passes = [[f"--xid={xid}"] for xid in sorted(xids)] if len(xids) < ONE_BY_ONE else [[]]
        for options in passes:
            for piece in self._scan.source.waldump(stretch.start, stretch.end, "--rmgr=Heap", *options):
                found: Counter[tuple[Relation, int, str]] = Counter()
                count_rows_of_files(piece, found)
                rows.update({key: count for key, count in found.items() if key[1] in xids})
        return rows

    def rows_held(self, relation: Relation, made: int, until: int) -> int:
        """Rows that a file, made by the commit at ``made``, held just before the commit at ``until``.

        What committed transactions inserted less what they deleted: for files that were filled row by row.
        """
        held = 0
        for stretch in self._scan.stretches:
            if stretch.start > until:
                continue
            rows = self._scan.steady(
                stretch.first, stretch.end, functools.partial(self._count_inserts, stretch, relation)
            )
            rows.subtract(
                {xid: n for (xid, kind), n in self._count_file(stretch, relation).items() if kind == "delete"}
            )
            positions = self._scan.positions(rows, stretch)
            held += sum(count for xid, count in rows.items() if made <= positions.get(xid, 0) < until)
        return held

    def _count_inserts(self, stretch: Stretch, relation: Relation) -> Counter[int]:
        rows: Counter[int] = Counter()
        for piece in self._scan.source.waldump(
            stretch.start, stretch.end, only(relation), "--rmgr=Heap", "--rmgr=Heap2"
        ):
            count_inserts(piece, rows)
        return rows

    def touched(self, commit: Commit) -> set[int]:
        """Filenodes of the relations of which a transaction, its subtransactions included, changed rows."""
        found: set[int] = set()
        for stretch in self._scan.span(commit):
            for xid in (commit.xid, *commit.subxacts):
                found |= self._scan.steady(stretch.first, stretch.end, functools.partial(self._touched, stretch, xid))
        return found

    def _touched(self, stretch: Stretch, xid: int) -> set[int]:
        options = (f"--xid={xid}", "--rmgr=Heap", "--rmgr=Heap2")
        return {
            filenode
            for piece in self._scan.source.waldump(stretch.start, stretch.end, *options)
            for filenode in changed_filenodes(piece)
        }


def _leave_small(stretch: Stretch, least: int) -> None:
    """Forget transactions that changed few rows, unless they may have changed more in older WAL."""
    rows: Counter[int] = Counter()
    for counts in stretch.rows.values():
        for (lsn, _kind), count in counts.items():
            rows[lsn] += count
    running = stretch.running
    if running is None:
        return
    for counts in stretch.rows.values():
        for key in [key for key in counts if rows[key[0]] < least and key[0] > running.lsn]:
            if stretch.commits.has(key[0]) and stretch.commits.at(key[0]).xid not in running.xids:
                del counts[key]
