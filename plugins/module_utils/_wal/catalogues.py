# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogues of one database through all files that they had, and what is kept of their changes."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import Change
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import (
    ClassRow,
    attribute_row,
    class_row,
    namespace_row,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.damage import NAMED_KINDS
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import History
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import mapped_filenode
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Catalogue, Relation, Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Database
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, parse_commit_rest

ROWS = frozenset(("INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "DELETE"))
UPDATES = frozenset(("UPDATE", "HOT_UPDATE"))
MAPPED = {"pg_class": 1259, "pg_attribute": 1249}
PG_NAMESPACE = 2615


class Catalogues:
    """pg_class, pg_namespace and pg_attribute of a database, followed in a scan.

    Temporary tables make most of the changes there are. They are forgotten as soon as they are known for what they are.
    """

    def __init__(self, scan: Scan, database: Database, major: int, kinds: str = NAMED_KINDS) -> None:
        self._scan = scan
        self._major = major
        self._kinds = kinds
        self._at = (database.tablespace, database.oid)
        self._mapped: set[int] = set()
        self._looked: set[tuple[int, str, int]] = set()
        self.unaccounted: dict[int, int] = {}
        # Changes of rows of temporary relations: transaction and place.
        self.temporary: set[tuple[int, int, int]] = set()
        self.classes = Catalogue("pg_class", ROWS, self._keep_class)
        self.namespaces = Catalogue("pg_namespace", ROWS, lambda _change: True)
        self.attributes = Catalogue("pg_attribute", UPDATES, self._keep_attribute)
        scan.catalogues = [self.classes, self.namespaces, self.attributes]
        for catalogue in scan.catalogues:
            scan.follow(catalogue, (*self._at, database.catalogs[catalogue.name]))

    def keep_rest(self, lsn: int, rest: bytes) -> bool:
        """Note which relations a commit says it dropped; whether its text matters beyond that."""
        if b"; dropped stats: " in rest:
            for database, oid in parse_commit_rest(rest)[1]:
                if database == self._at[1]:
                    self.unaccounted[oid] = lsn
        # Rewriting a mapped catalogue makes the file void that backends start from.
        return b"; relcache init file inval " in rest

    def _keep_class(self, change: Change) -> bool:
        old, new = (
            class_row(row.data, self._major) if row is not None and row.data is not None else None
            for row in (change.old, change.new)
        )
        if change.operation == "DELETE" and old is not None:
            self.unaccounted.pop(old.oid, None)
        row = old or new
        if row is not None and row.persistence == "t" and change.operation in ("UPDATE", "HOT_UPDATE"):
            self.temporary.add((change.xid, change.lsn, change.offset))
        return row is None or (row.persistence != "t" and row.kind in self._kinds)

    def _keep_attribute(self, change: Change) -> bool:
        """Whether a column is dropped, or may be: what the row was before may not be known yet."""
        after = change.new.data if change.new is not None else None
        return after is None or attribute_row(after)[2]

    # Files

    def take_up_rewritten(self) -> bool:
        """Follow the files that the catalogues had before they were rewritten (VACUUM FULL); whether there were any."""
        found = False
        while self._take_up_mapped() or self._take_up_namespace():
            found = True
        return found

    def _take_up_mapped(self) -> bool:
        """The map of such catalogues is in WAL, in full, with every change of it.

        What the first change in the WAL read replaced is among the files that its transaction removed.
        """
        updates = [line for line in self._scan.special if line.rmgr == "RelMap" and line.operation == "UPDATE"]
        updates = [one for one in updates if f"database {self._at[1]} " in one.text and one.lsn not in self._mapped]
        commits = self._scan.commits.by_transaction(line.xid for line in updates)
        found = False
        for line in reversed(updates):
            commit = commits.get(line.xid)
            if commit is None:
                continue
            record = self._scan.record(line)
            for catalogue in (self.classes, self.attributes):
                now = (*self._at, mapped_filenode(record, MAPPED[catalogue.name]) or 0)
                if now not in catalogue.traces:
                    found |= self._take_up(catalogue, now, line.lsn)
                looked = (line.lsn, catalogue.name, len(self._scan.stretches))
                if looked not in self._looked and self._scan.wrote_pages(now, line):
                    self._mapped.add(line.lsn)
                    for database, filenode in sorted(commit.files):
                        old = (*self._at, filenode)
                        if database == self._at[1] and old not in catalogue.traces:
                            found |= self._take_up(catalogue, old, line.lsn)
                self._looked.add(looked)
        return found

    def _take_up(self, catalogue: Catalogue, relation: Relation, until: int) -> bool:
        self._scan.follow(catalogue, relation, until)
        return True

    def _take_up_namespace(self) -> bool:
        """pg_namespace is not mapped: its row in pg_class names its files."""
        found = False
        for step in self.class_history().steps.get(PG_NAMESPACE, []):
            for row in (step.old, step.new):
                relation = (*self._at, row.filenode) if row is not None else None
                if relation is not None and relation not in self.namespaces.traces:
                    found |= self._take_up(self.namespaces, relation, step.commit.lsn)
        return found

    # What they say

    def _committed(self, catalogue: Catalogue) -> Iterable[tuple[Commit, Change]]:
        changes = catalogue.changes()
        commits = self._scan.commits.by_transaction({change.xid for change in changes})
        return [(commits[change.xid], change) for change in changes if change.xid in commits]

    def class_history(self) -> History[ClassRow]:
        """The life of the relations."""
        return History(self._committed(self.classes), lambda row: class_row(row, self._major), lambda row: row.oid)

    def namespace_history(self) -> History[tuple[int, bytes]]:
        """The life of the schemas."""
        return History(self._committed(self.namespaces), namespace_row, lambda row: row[0])

    def dropped_columns(self) -> list[tuple[Commit, int, bytes]]:
        """(commit, OID of the relation, name) of columns dropped, as far as the names are known."""
        found = []
        for commit, change in sorted(self._committed(self.attributes), key=lambda one: one[1].lsn):
            old = change.old.data if change.old is not None else None
            new = change.new.data if change.new is not None else None
            if new is not None and attribute_row(new)[2]:
                relation, name, was_dropped = (
                    attribute_row(old) if old is not None else (*attribute_row(new)[:2], False)
                )
                if not was_dropped:
                    found.append((commit, relation, name))
        return found

    def undecided(self) -> dict[int, set[int]]:
        """{position of a commit: OIDs} that it says it dropped, and no row read so far accounts for."""
        found: dict[int, set[int]] = {}
        for oid, lsn in self.unaccounted.items():
            found.setdefault(lsn, set()).add(oid)
        return found
