# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the search is asked, what was read of WAL, and what it says a transaction did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import rows_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import ClassRow
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import History, Removal
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Database, Known
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, CommitLog, format_time

Relation = tuple[int, int, int]
# The graver first: a transaction that did several is called by the first of them.
KIND_OF = {
    "schema": "drop_schema",
    "drop": "drop_table",
    "truncate": "truncate",
    "column": "drop_column",
    "delete": "delete",
    "update": "update",
    "ddl": "ddl",
}
KINDS = (*KIND_OF.values(), "drop_database")


class MoreWal(Exception):
    """The answer may lie in, or depend on, WAL older than what was read."""


@dataclass(frozen=True)
class Request:
    """What the user asked for. No ``kinds``: the drop of what is gone, or the damage to what is there."""

    database: str
    relations: tuple[tuple[str, str], ...] = ()
    schemas: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: Optional[int] = None
    until: Optional[int] = None
    min_rows: int = 1000
    since_lsn: Optional[int] = None
    until_lsn: Optional[int] = None
    target: Optional[tuple[str, str]] = None
    """What tells the transaction without a search: ``target_lsn``, ``target_time`` or ``target_xid``, and its value."""
    together: tuple[str, ...] = ()
    """Transactions that are meant with that of ``target_xid``; the target is just before the first of them all."""

    def wants(self, kind: str, auto: bool = True) -> bool:
        """Whether to look for a kind; ``auto`` is the answer where the user named none."""
        return kind in self.kinds if self.kinds else auto

    def in_window(self, commit: Commit) -> bool:
        """Whether a transaction committed in the window the user named."""
        ended = (self.until is None or commit.time <= self.until) and (
            self.until_lsn is None or commit.lsn < self.until_lsn
        )
        return ended and not self.is_older(commit)

    def is_older(self, commit: Commit) -> bool:
        """Whether a transaction committed before the window the user named."""
        return (self.since is not None and commit.time < self.since) or (
            self.since_lsn is not None and commit.lsn < self.since_lsn
        )


@dataclass(frozen=True)
class Harm:
    """What one transaction did to one relation, under the name of just before it.

    ``damage`` is a key of KIND_OF. Where only a name is known, there is no damage and the OID is 0. ``rows`` went with
    it; ``estimated`` says that statistics tell so. ``file`` held them. ``maker`` is the transaction that gave the
    relation what the catalogue said of it.
    """

    oid: int
    schema: Optional[str]
    name: Optional[str]
    kind: Optional[str]
    damage: str
    rows: Optional[int] = None
    estimated: bool = False
    columns: tuple[str, ...] = ()
    file: Optional[Relation] = None
    maker: Optional[int] = None

    def as_dict(self, asked: bool) -> dict[str, Any]:
        """The relation as it stands in results."""
        found = {
            "schema": self.schema,
            "name": self.name,
            "oid": self.oid or None,
            "kind": self.kind,
            "damage": self.damage or None,
            "rows": self.rows,
            "rows_estimated": self.estimated,
            "asked": asked,
        }
        return {**found, "columns": list(self.columns)} if self.columns else found

    def text(self) -> str:
        """The relation and its rows, for messages."""
        name = quoted(self.schema, self.name) if self.name is not None else f"the relation with OID {self.oid}"
        if self.columns:
            return f"{name} (column {', '.join(self.columns)})"
        return name if self.kind in ("v", "S") else f"{name} ({rows_text(self.rows, self.estimated, self.kind)})"


def quoted(schema: Optional[str], name: str) -> str:
    """A relation's name for people; a schema that is not known shows as a question mark."""
    return display_name(schema, name) if schema is not None else f"?.{display_name(None, name)}"


@dataclass(frozen=True)
class Candidate:
    """A transaction that may be the damage. ``lsn`` is where replay must stop to be just before it.

    ``asked`` are its harms to what was asked for, ``others`` what else it did. ``ours`` is the incident of this
    collection whose mark it carries. ``also`` are later transactions that are meant with it, in order.
    """

    kind: str
    commit: Commit
    lsn: int
    asked: tuple[Harm, ...] = ()
    others: tuple[Harm, ...] = ()
    note: str = ""
    ours: Optional[str] = None
    also: tuple[Commit, ...] = ()

    @property
    def rows(self) -> Optional[int]:
        """Rows that it deleted or updated; None for other kinds."""
        counted = [harm.rows or 0 for harm in (*self.asked, *self.others) if harm.damage == self.kind]
        return sum(counted) if self.kind in ("delete", "update") else None

    @property
    def is_empty(self) -> bool:
        """Whether no row went with what was asked for: it was dropped or truncated when it surely had none."""
        return bool(self.asked) and all(
            harm.damage in ("drop", "truncate") and harm.kind in ("r", "p") and harm.rows == 0 and not harm.estimated
            for harm in self.asked
        )

    def as_dict(self, database: str) -> dict[str, Any]:
        """The candidate as it stands in results."""
        relations = [harm.as_dict(True) for harm in self.asked] + [harm.as_dict(False) for harm in self.others]
        return {
            "kind": self.kind,
            "database": database,
            "xid": self.commit.xid,
            "lsn": format_lsn(self.lsn),
            "commit_lsn": format_lsn(self.commit.lsn),
            "commit_time": self.commit.commit_time,
            "rows": self.rows,
            "relations": relations,
            "prepared": self.commit.prepared,
            "subxacts": list(self.commit.subxacts),
            "note": self.note,
            "ours": self.ours is not None,
            "also": [
                {
                    "xid": one.xid,
                    "lsn": format_lsn(one.lsn),
                    "commit_time": one.commit_time,
                    "subxacts": list(one.subxacts),
                }
                for one in self.also
            ],
        }

    def line(self) -> str:
        """One line for a message, with the option that chooses it."""
        what = ", ".join(harm.text() for harm in self.asked[:5])
        if len(self.asked) > 5:
            what += f" and {len(self.asked) - 5} more"
        if self.others:
            what += f", with {len(self.others)} more that it hit"
        ours = f", by the recovery {self.ours} of this collection itself" if self.ours is not None else ""
        note = f" ({self.note})" if self.note else ""
        kind = self.kind.replace("_", " ").upper()
        return (
            f"{kind} {what} by transaction {self.commit.xid} at {self.commit.commit_time}, "
            f"LSN {format_lsn(self.lsn)}{ours}{note}: -e dr_target_xid={self.commit.xid}"
        )


@dataclass
class Evidence:
    """What was read of WAL, and what production has now.

    ``rows`` are counted by (file, position of the commit, kind); ``columns`` are (commit, OID of the relation, name) of
    dropped ones; ``unaccounted`` the OIDs that commits say were dropped and no row tells of; ``ours`` the incident by
    position of the commit. ``predates`` says of a transaction whether it is older than all WAL there is,
    ``rows_held`` what a file held, from the commit that made it to another.
    """

    commits: CommitLog
    start: int
    end: int
    complete: bool
    classes: History[ClassRow]
    namespaces: History[tuple[int, bytes]]
    database: Database
    columns: list[tuple[Commit, int, str]] = field(default_factory=list)
    unaccounted: dict[int, set[int]] = field(default_factory=dict)
    ours: dict[int, str] = field(default_factory=dict)
    rows: Counter[tuple[Relation, int, str]] = field(default_factory=Counter)
    maintenance: frozenset[int] = frozenset()
    predates: Callable[[Optional[int]], bool] = lambda _xid: False
    rows_held: Callable[[Relation, int, int], int] = lambda _file, _made, _until: 0

    def schema_name(self, oid: int, lsn: int) -> Optional[str]:
        """What a schema was called just before ``lsn``."""
        told, row = self.namespaces.before(oid, lsn)
        if told:
            return self.database.text(row[1]) if row is not None else None
        return self.database.namespaces.get(oid)

    def schema_then(self, known: Known, lsn: int) -> Optional[str]:
        """What the schema of a relation that production has was called just before ``lsn``."""
        return self.schema_name(known.namespace, lsn) if known.namespace else known.schema

    def file(self, row: ClassRow) -> Optional[Relation]:
        """The file of a relation; None for one without storage or whose file the map of catalogues names."""
        if not row.filenode:
            return None
        return row.tablespace or self.database.tablespace, self.database.oid, row.filenode

    def drop(self, removal: Removal[ClassRow]) -> Harm:
        """A removed relation under the name it had before the transaction."""
        row = removal.row
        schema = self.schema_name(row.namespace, removal.commit.lsn)
        rows = row.rows if row.kind in "rm" else None
        name = self.database.text(row.name)
        file = self.file(row)
        return Harm(row.oid, schema, name, row.kind, "drop", rows, rows is not None, file=file, maker=removal.maker)

    def candidate(self, commit: Commit, asked: Iterable[Harm], kind: str = "", note: str = "") -> Candidate:
        """The transaction that did these harms to what was asked for."""
        harms = tuple(asked)
        damages = {harm.damage for harm in harms}
        kind = kind or next((name for damage, name in KIND_OF.items() if damage in damages), "drop_table")
        return Candidate(kind, commit, commit.lsn, harms, (), note, self.ours.get(commit.lsn))

    def window(self) -> str:
        """The WAL that was read, for messages."""
        times = ""
        if len(self.commits):
            times = f" ({format_time(self.commits.times[0])} to {format_time(self.commits.times[-1])})"
        return f"{format_lsn(self.start)} to {format_lsn(self.end)}{times}"
