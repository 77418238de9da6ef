# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each transaction changed, under the names of its time. Pure: nothing here reads anything.

Rewriting a table, its index or a materialized view gives it another file. TRUNCATE leaves the new one empty; VACUUM
FULL, CLUSTER, REPACK, REFRESH and ALTER TABLE swap files with a transient relation (see damage.truncates()). Of these,
ALTER TABLE also changes rows of the catalogues that say what the table is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, number, rows_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal import damage
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import ClassRow
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Evidence, Harm, Request, quoted
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import Step
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import LARGE_OBJECTS
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import FIRST_USER_OID
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit

Relation = tuple[int, int, int]

KINDS = damage.NAMED_KINDS + "iIc"
TOAST = "pg_toast"  # of indexes on what belongs to tables
NOUNS = {
    "r": "table",
    "p": "partitioned table",
    "m": "materialized view",
    "f": "foreign table",
    "v": "view",
    "S": "sequence",
    "i": "index",
    "I": "partitioned index",
    "c": "composite type",
}
# What a change is called, and whether rows or values went with it: True, False, or None where WAL does not tell.
LOSES: dict[str, Optional[bool]] = {
    "dropped": True,
    "truncated": True,
    "column dropped": True,
    "deleted": True,
    "updated": True,
    "rewritten by a change of its definition": None,
    "rewritten": None,
    "attribute dropped": None,
    "changed": None,
    "inserted": False,
    "created": False,
    "definition changed": False,
    "rewritten, the same rows": False,
    "refreshed": False,
    "rebuilt": False,
    "set anew": False,
    "renamed": False,
    "moved to another schema": False,
    "moved to another tablespace": False,
    "made logged or unlogged": False,
    "schema created": False,
    "schema dropped": False,
    "schema renamed": False,
    "changed or removed": True,
    "made": False,
}
COPIES = (
    *("rewritten by a change of its definition", "rewritten, the same rows", "rewritten", "refreshed"),
    *("made logged or unlogged", "moved to another tablespace"),
)
SHOWN = 30  # changes of one transaction in the text
ROWS = {"delete": "deleted", "update": "updated", "insert": "inserted"}


@dataclass(frozen=True)
class Change:
    """What one transaction did to one relation or schema: ``what`` is a key of LOSES, ``kind`` its relkind or n.

    Large objects are one change together, of kind L, for WAL does not tell which.
    """

    what: str
    schema: Optional[str]
    name: Optional[str]
    kind: str
    oid: int
    rows: Optional[int] = None
    estimated: bool = False
    detail: str = ""

    @property
    def loses(self) -> Optional[bool]:
        """Whether rows or values that were there are not any more."""
        if self.kind == "m" and self.what in ROWS.values():
            return False  # REFRESH ... CONCURRENTLY: nobody else changes rows of it
        if self.what == "dropped":
            return self.kind in "rpmf" and (self.rows != 0 or self.estimated) and self.kind not in "mf"
        return False if self.what == "truncated" and self.rows == 0 and not self.estimated else LOSES[self.what]

    def as_dict(self) -> dict[str, Any]:
        """The change as it stands in results."""
        return {
            "what": self.what,
            "schema": self.schema,
            "name": self.name,
            "kind": self.kind,
            "oid": self.oid or None,
            "rows": self.rows,
            "rows_estimated": self.estimated,
            "detail": self.detail,
            "loses": self.loses,
        }

    def text(self) -> str:
        """The change in words."""
        if self.kind == "n":
            return f"{self.what} {quoted(None, self.name or '')[2:]}{self.detail}"
        if self.kind == LARGE_OBJECTS:
            return f"{self.name} {self.what}"
        name = quoted(self.schema, self.name) if self.name is not None else f"OID {self.oid}"
        counted = self.rows is not None and self.what in ("dropped", "truncated", *ROWS.values())
        rows = f" ({rows_text(self.rows, self.estimated, self.kind)})" if counted and self.kind in "rpm" else ""
        return f"{NOUNS.get(self.kind, 'relation')} {name} {self.what}{self.detail}{rows}"


@dataclass(frozen=True)
class Transaction:
    """One committed transaction with all that it changed. ``ours`` is the incident of this collection it belongs to."""

    commit: Commit
    changes: tuple[Change, ...]
    ours: Optional[str] = None

    @property
    def loses(self) -> Optional[bool]:
        """Whether it took rows or values away; None where WAL does not tell."""
        answers = {change.loses for change in self.changes}
        return True if True in answers else None if None in answers else False

    def as_dict(self, database: str) -> dict[str, Any]:
        """The transaction as it stands in results."""
        return {
            "database": database,
            "xid": self.commit.xid,
            "lsn": format_lsn(self.commit.lsn),
            "commit_time": self.commit.commit_time,
            "prepared": self.commit.prepared,
            "changes": [change.as_dict() for change in self.changes],
            "loses": self.loses,
            "ours": self.ours,
        }

    def lines(self) -> list[str]:
        """The transaction for people: when and which, then a line for each change, what was lost first."""
        word = {True: "rows or values went with it", None: "values may have changed", False: "nothing was lost"}
        ours = f", by the recovery {self.ours} of this collection" if self.ours is not None else ""
        head = f"{self.commit.commit_time}  transaction {self.commit.xid}  LSN {format_lsn(self.commit.lsn)}  "
        ordered = sorted(
            self.changes, key=lambda change: (change.loses is False, change.loses is None, -(change.rows or 0))
        )
        lines = [f"    {change.text()}" for change in ordered[:SHOWN]]
        if len(ordered) > SHOWN:
            lines.append(f"    and {counted(len(ordered) - SHOWN, 'change')} more{_sums(ordered[SHOWN:])}")
        return [f"{head}{word[self.loses]}{ours}", *lines]


def _sums(changes: Sequence[Change]) -> str:
    """The rows in changes that are not shown one by one, in words."""
    sums: Counter[str] = Counter()
    for change in changes:
        if change.what in ROWS.values():
            sums[change.what] += change.rows or 0
    return "".join(f", {rows_text(count, False)} {what}" for what, count in sorted(sums.items()))


def rows_by_table(found: Iterable[Transaction]) -> list[dict[str, Any]]:
    """Rows that transactions changed, and how many did, by table in the order of their names: the newest of each."""
    totals: dict[int, Counter[str]] = defaultdict(Counter)
    names: dict[int, tuple[Optional[str], Optional[str]]] = {}
    for one in found:
        for change in one.changes:
            if change.what in ROWS.values():
                totals[change.oid][change.what] += change.rows or 0
                names[change.oid] = change.schema, change.name
        for oid in {change.oid for change in one.changes if change.what in ROWS.values()}:
            totals[oid]["transactions"] += 1
    counted_by = (*ROWS.values(), "transactions")
    tables = [
        {"schema": names[oid][0], "name": names[oid][1], "oid": oid, **{what: count[what] for what in counted_by}}
        for oid, count in totals.items()
    ]
    return sorted(tables, key=lambda item: (str(item["schema"]), str(item["name"])))


def told_one_by_one(found: Sequence[Transaction], most: int, xids: Collection[int] = ()) -> list[Transaction]:
    """Of all transactions those with at most ``most`` changes together, the oldest first.

    The first one and ``xids`` are among them whatever they did: the window of who asks for one begins with it. Of the
    others those go first that did more than change rows, then those that changed most rows.
    """
    if sum(len(one.changes) for one in found) <= most:
        return list(found)

    def weight(one: Transaction) -> tuple[bool, int]:
        only_rows = all(change.what in ROWS.values() for change in one.changes)
        return only_rows, -sum(change.rows or 0 for change in one.changes) if only_rows else 0

    chosen = [one for at, one in enumerate(found) if at == 0 or one.commit.xid in xids]
    left = most - sum(len(one.changes) for one in chosen)
    for one in sorted((one for one in found if one not in chosen), key=weight):
        if len(one.changes) > left:
            break
        left -= len(one.changes)
        chosen.append(one)
    return sorted(chosen, key=lambda one: one.commit.lsn)


def lines_by_table(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows by table for people."""
    lines = []
    for item in tables[:SHOWN]:
        counts = ", ".join(f"{number(item[what])} {what}" for what in ROWS.values() if item[what])
        lines.append(f"    {quoted(item['schema'], item['name'])}: {counts}")
    return lines + ([f"    and {counted(len(tables) - SHOWN, 'table')} more"] if len(tables) > SHOWN else [])


@dataclass
class Traces:
    """What was counted in WAL beside the catalogues, by the position of the commit.

    ``rows`` are those inserted, deleted and updated by file; ``altered`` the OIDs of relations of which it changed the
    rows of catalogues that say what a relation is, which is known of commits from ``altered_from`` on. Rows of
    the files ``large_objects`` are those of large objects. ``undecided`` are the OIDs of relations that it changed, and
    how is not in the WAL that was read; ``emptied`` the files that it cut to nothing; ``minimal`` the stretches, from
    one position to another, of wal_level=minimal, which tells neither.
    """

    rows: Mapping[int, Mapping[tuple[Relation, str], int]]
    altered: Mapping[int, Collection[int]]
    altered_from: int = 0
    large_objects: Collection[Relation] = ()
    undecided: Mapping[int, Collection[int]] = field(default_factory=dict)
    emptied: Mapping[int, Collection[Relation]] = field(default_factory=dict)
    minimal: Sequence[tuple[int, int]] = ()

    def alters(self, oid: int, lsn: int) -> Optional[bool]:
        """Whether the transaction that committed there changed what a relation is; None where WAL does not tell."""
        told = lsn >= self.altered_from and not any(first <= lsn < end for first, end in self.minimal)
        return oid in self.altered.get(lsn, ()) if told else None

    def tells_rows(self, made: int, until: int) -> bool:
        """Whether all rows that came between two commits are in WAL."""
        return not any(first <= until and made < end for first, end in self.minimal)


def transactions(evidence: Evidence, request: Request, traces: Traces) -> list[Transaction]:
    """Every transaction in the window that changed a definition, a file, or many rows, the oldest first."""
    found: dict[int, list[Change]] = defaultdict(list)
    emptied = {(lsn, harm.oid): harm for lsn, harms in damage.truncates(evidence, request).items() for harm in harms}
    for oid, lsn, steps in _by_transaction(evidence):
        commit = evidence.commits.at(lsn)
        if request.in_window(commit):
            found[lsn] += _relation(evidence, lsn, steps[0].old, steps[-1].new, emptied.get((lsn, oid)), traces)
    for lsn, harms in damage.dropped_columns(evidence, request).items():
        for harm in harms:
            detail = f": {', '.join(display_name(None, name) for name in harm.columns)}"
            # What uses the type has such an attribute no longer, if anything does.
            what = "attribute dropped" if harm.kind == "c" else "column dropped"
            schema, name, kind = _name(evidence, harm.oid, lsn)
            found[lsn].append(Change(what, schema, name, kind or "r", harm.oid, detail=detail))
    _add_schemas(evidence, request, found)
    _add_unknown(evidence, request, found)
    _add_undecided(evidence, request, traces, found)
    for lsn, oids in traces.altered.items():
        if request.in_window(evidence.commits.at(lsn)):
            told = {change.oid for change in found[lsn]}
            for oid in sorted(set(oids) - told):
                schema, name, kind = _name(evidence, oid, lsn)
                if name is not None and not (kind in "iI" and told):
                    found[lsn].append(Change("definition changed", schema, name, kind, oid))
    files = _files(evidence)
    for lsn, rows in traces.rows.items():
        if request.in_window(evidence.commits.at(lsn)):
            # What was written into a new file of the same rows was there before.
            copied = {change.oid for change in found[lsn] if change.what in COPIES}
            found[lsn] += _rows(evidence, lsn, rows, files, request.min_rows, copied, bool(found[lsn]))
            kinds = {kind for file, kind in rows if file in traces.large_objects}
            if kinds:
                what = "made" if kinds == {"insert"} else "changed or removed"
                found[lsn].append(Change(what, None, "large objects", LARGE_OBJECTS, 0))
    return [
        Transaction(evidence.commits.at(lsn), tuple(found[lsn]), evidence.ours.get(lsn))
        for lsn in sorted(found)
        if found[lsn]
    ]


def _by_transaction(evidence: Evidence) -> list[tuple[int, int, list[Step[ClassRow]]]]:
    """(OID, position of the commit, its steps) for each relation and transaction."""
    found: dict[tuple[int, int], list[Step[ClassRow]]] = defaultdict(list)
    for oid, steps in evidence.classes.steps.items():
        for step in steps:
            found[oid, step.commit.lsn].append(step)
    return [(oid, lsn, steps) for (oid, lsn), steps in found.items()]


def _relation(
    evidence: Evidence,
    lsn: int,
    old: Optional[ClassRow],
    new: Optional[ClassRow],
    emptied: Optional[Harm],
    traces: Traces,
) -> list[Change]:
    """What a transaction made of one relation, of which the catalogue said ``old`` before and ``new`` after it."""
    row = old or new
    if row is None or row.persistence == "t" or row.kind not in KINDS:
        return []
    schema, name = evidence.schema_name(row.namespace, lsn), evidence.database.text(row.name)
    if schema == TOAST:
        return []

    def change(what: str, detail: str = "", rows: Optional[int] = None, estimated: bool = False) -> Change:
        return Change(what, schema, name, row.kind, row.oid, rows, estimated, detail)

    if old is None:
        return [change("created")]
    if new is None:
        file = evidence.file(old)
        harm = _with_rows(
            evidence,
            lsn,
            Harm(row.oid, schema, name, row.kind, "drop", old.rows, old.rows is not None, file=file),
            old,
            traces,
        )
        return [change("dropped", rows=harm.rows, estimated=harm.estimated)]
    found = [change(what, detail) for what, detail in _definition(evidence, lsn, old, new)]
    altered = traces.alters(row.oid, lsn)
    if emptied is not None:
        harm = _with_rows(evidence, lsn, emptied, old, traces)
        return [*found, change("truncated", rows=harm.rows, estimated=harm.estimated)]
    if old.filenode == new.filenode:
        return found
    if row.kind == "r" and evidence.file(new) in traces.emptied.get(lsn, ()):
        # TRUNCATE of a table that the same transaction had given a new file: that one was cut.
        found.append(change("truncated", rows=old.rows, estimated=old.rows is not None))
    moved = old.tablespace != new.tablespace
    if moved:
        found.append(change("moved to another tablespace"))
    # One ALTER TABLE may do that, or make it unlogged, and change values.
    if (not moved and old.persistence == new.persistence) or (altered is not False and row.kind == "r"):
        found.append(change(_new_file(row.kind, altered)))
    return found


def _with_rows(evidence: Evidence, lsn: int, harm: Harm, old: ClassRow, traces: Traces) -> Harm:
    """The harm with the rows that went with it, where WAL tells of all that ever came."""
    if old.persistence != "p":
        return harm
    counted_in_wal = damage.with_rows(evidence, lsn, harm)
    steps = evidence.classes.steps[old.oid]
    if counted_in_wal is not harm and not traces.tells_rows(steps[0].commit.lsn, lsn):
        return replace(harm, rows=None)
    return counted_in_wal


def _definition(evidence: Evidence, lsn: int, old: ClassRow, new: ClassRow) -> Iterator[tuple[str, str]]:
    """(what, detail) of what a row of pg_class says that a relation is called and is."""
    if old.name != new.name:
        yield "renamed", f" to {display_name(None, evidence.database.text(new.name))}"
    if old.namespace != new.namespace:
        yield "moved to another schema", f", {display_name(None, evidence.schema_name(new.namespace, lsn + 1) or '?')}"
    if old.columns < new.columns and new.kind in "rpf":
        yield "definition changed", f", {counted(new.columns - old.columns, 'column')} added"
    if old.owner != new.owner:
        yield "definition changed", ", owner"
    if old.security != new.security:
        yield "definition changed", ", row security"
    if old.persistence != new.persistence:
        yield "made logged or unlogged", ""


def _new_file(kind: str, altered: Optional[bool]) -> str:
    if kind in "iI":
        return "rebuilt"
    if kind in "mS":
        return "refreshed" if kind == "m" else "set anew"
    if altered is None:
        return "rewritten"
    return "rewritten by a change of its definition" if altered else "rewritten, the same rows"


def _name(evidence: Evidence, oid: int, lsn: int) -> tuple[Optional[str], Optional[str], str]:
    """Schema, name and kind of a relation before a transaction; no name for what is not known, or temporary."""
    told, row = evidence.classes.before(oid, lsn)
    if told and row is not None:
        return evidence.schema_name(row.namespace, lsn), evidence.database.text(row.name), row.kind
    known = evidence.database.relations.get(oid)
    if told or known is None:
        return None, None, ""
    return evidence.schema_then(known, lsn), known.name, known.kind


def _add_schemas(evidence: Evidence, request: Request, found: dict[int, list[Change]]) -> None:
    for oid, steps in evidence.namespaces.steps.items():
        for step in steps:
            names = [evidence.database.text(row[1]) if row is not None else None for row in (step.old, step.new)]
            if not request.in_window(step.commit) or any((name or "").startswith("pg_") for name in names):
                continue
            old, new = names
            if old is None:
                found[step.commit.lsn].append(Change("schema created", None, new, "n", oid))
            elif new is None:
                found[step.commit.lsn].append(Change("schema dropped", None, old, "n", oid))
            elif old != new:
                detail = f" to {display_name(None, new)}"
                found[step.commit.lsn].append(Change("schema renamed", None, old, "n", oid, detail=detail))


def _add_unknown(evidence: Evidence, request: Request, found: dict[int, list[Change]]) -> None:
    """Relations that a transaction says it dropped, and of which the WAL that was read has no row."""
    for lsn, oids in evidence.unaccounted.items():
        if request.in_window(evidence.commits.at(lsn)):
            detail = ", whose name is not in the WAL that was read"
            found[lsn] += [Change("dropped", None, None, "r", oid, detail=detail) for oid in sorted(oids)]


def _add_undecided(evidence: Evidence, request: Request, traces: Traces, found: dict[int, list[Change]]) -> None:
    """Relations that a transaction changed, where no WAL that was read has what the catalogue said before it."""
    for lsn, oids in traces.undecided.items():
        if not request.in_window(evidence.commits.at(lsn)):
            continue
        told = {change.oid for change in found[lsn]}
        for oid in sorted(set(oids) - told):
            schema, name, kind = _name(evidence, oid, lsn)
            detail = ", and how is not in the WAL that was read"
            found[lsn].append(Change("changed", schema, name, kind or "r", oid, detail=detail))


def _files(evidence: Evidence) -> dict[Relation, int]:
    """{file: OID} of all files that relations of users have and had in the WAL that was read.

    A catalogue that was written anew (VACUUM FULL) has a file with a number as theirs.
    """
    tables = {oid: known for oid, known in evidence.database.relations.items() if known.filenode}
    files = {(known.tablespace, evidence.database.oid, known.filenode): oid for oid, known in tables.items()}
    for oid, steps in evidence.classes.steps.items():
        for step in steps if oid >= FIRST_USER_OID else ():
            for row in (step.old, step.new):
                file = evidence.file(row) if row is not None else None
                if file is not None:
                    files.setdefault(file, oid)
    return files


def _rows(
    evidence: Evidence,
    lsn: int,
    rows: Mapping[tuple[Relation, str], int],
    files: Mapping[Relation, int],
    least: int,
    copied: Collection[int],
    told: bool,
) -> list[Change]:
    """Rows that a transaction changed, of relations that it did not make itself, where all together are many.

    Of one that is ``told`` of anyway also few that it took away, so that it is not said that nothing was lost.
    """
    counts: Counter[tuple[int, str]] = Counter()
    for (file, kind), count in rows.items():
        if file in files and not (kind == "insert" and files[file] in copied):
            counts[files[file], kind] += count
    found = []
    together: Counter[str] = Counter()
    for (oid, kind), count in sorted(counts.items()):
        schema, name, relkind = _name(evidence, oid, lsn)
        if name is None:
            told, row = evidence.classes.before(oid, lsn + 1)
            if not told or row is None:
                continue
            schema, name = evidence.schema_name(row.namespace, lsn + 1), evidence.database.text(row.name)
            relkind = row.kind
        if relkind in "rm":
            together[ROWS[kind]] += count
            found.append(Change(ROWS[kind], schema, name, relkind, oid, count))
    return [change for change in found if together[change.what] >= least or (told and change.loses)]
