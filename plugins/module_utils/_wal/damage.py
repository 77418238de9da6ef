# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What transactions did to relations, out of the evidence: dropped, truncated, emptied, overwritten, altered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import ClassRow
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Evidence, Harm, Relation, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import Step
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Database, Known

NAMED_KINDS = "rpmfvS"  # what the name of a relation can mean to a user: no index, TOAST table or composite type

Harms = dict[int, list[Harm]]  # by position of the commit


def family(database: Database, relation: Known) -> list[Known]:
    """A relation with all partitions and children (INHERITS) below it, in which its statements change rows as well."""
    children: dict[int, list[Known]] = {}
    for known in database.relations.values():
        for parent in known.parents:
            children.setdefault(parent, []).append(known)
    found = {relation.oid: relation}
    waiting = [relation.oid]
    while waiting:
        for known in children.get(waiting.pop(), []):
            if known.oid not in found:
                found[known.oid] = known
                waiting.append(known.oid)
    return list(found.values())


def drops(evidence: Evidence, request: Request) -> Harms:
    """Every table, view, sequence or the like that a transaction removed."""
    found: Harms = defaultdict(list)
    for removal in evidence.classes.removals():
        if removal.row.kind in NAMED_KINDS and request.in_window(removal.commit):
            found[removal.commit.lsn].append(evidence.drop(removal))
    return found


def truncates(evidence: Evidence, request: Request) -> Harms:
    """Every table that a transaction gave an empty file.

    So do VACUUM FULL, CLUSTER, REPACK, REFRESH and ALTER TABLE, but those swap files with a transient relation, which
    then has the old one; and SET TABLESPACE, which changes the tablespace.
    """
    swapped: dict[tuple[int, int], set[int]] = defaultdict(set)
    for oid, steps in evidence.classes.steps.items():
        for step in steps:
            if step.new is not None:
                swapped[step.commit.lsn, step.new.filenode].add(oid)
    found: Harms = defaultdict(list)
    for oid, steps in evidence.classes.steps.items():
        for step in steps:
            if (
                _new_file(step)
                and step.old is not None
                and next(other for other in steps if other.commit.lsn == step.commit.lsn).old is not None
                and not swapped[step.commit.lsn, step.old.filenode] - {oid}
                and request.in_window(step.commit)
                and oid not in {harm.oid for harm in found[step.commit.lsn]}
            ):
                old = step.old
                found[step.commit.lsn].append(
                    Harm(
                        oid,
                        evidence.schema_name(old.namespace, step.commit.lsn),
                        evidence.database.text(old.name),
                        old.kind,
                        "truncate",
                        old.rows,
                        old.rows is not None,
                        file=evidence.file(old),
                    )
                )
    return {lsn: harms for lsn, harms in found.items() if harms}


def _new_file(step: Step[ClassRow]) -> bool:
    """Whether a table that was there got another file in the same tablespace."""
    return (
        step.old is not None
        and step.new is not None
        and step.new.kind == "r"
        and bool(step.new.filenode)
        and step.old.filenode != step.new.filenode
        and step.old.tablespace == step.new.tablespace
    )


def dropped_columns(evidence: Evidence, request: Request) -> Harms:
    """Every column that a transaction took from a table that it left in place."""
    removed = {(removal.commit.lsn, removal.oid) for removal in evidence.classes.removals()}
    columns: dict[tuple[int, int], list[str]] = defaultdict(list)
    for commit, oid, name in evidence.columns:
        if request.in_window(commit) and (commit.lsn, oid) not in removed:
            columns[commit.lsn, oid].append(name)
    found: Harms = defaultdict(list)
    for (lsn, oid), names in columns.items():
        told, row = evidence.classes.before(oid, lsn)
        known = evidence.database.relations.get(oid)
        if told and row is not None and row.kind in "rpc":
            schema, name, kind = evidence.schema_name(row.namespace, lsn), evidence.database.text(row.name), row.kind
        elif not told and known is not None and known.kind in "rpc":
            schema, name, kind = known.schema, known.name, known.kind
        else:
            continue
        found[lsn].append(Harm(oid, schema, name, kind, "column", columns=tuple(names)))
    return found


def files_of(evidence: Evidence, members: Collection[Known]) -> dict[Relation, tuple[Known, int]]:
    """{file: (relation, up to where it held rows)} of all files that the relations had, as far as WAL was read."""
    found: dict[Relation, tuple[Known, int]] = {}

    def note(file: Relation, known: Known, until: int) -> None:
        if file not in found or found[file][1] < until:
            found[file] = (known, until)

    for known in members:
        if known.filenode:
            note((known.tablespace, evidence.database.oid, known.filenode), known, evidence.end)
        for step in evidence.classes.steps.get(known.oid, []):
            for row in (step.old, step.new):
                file = evidence.file(row) if row is not None else None
                if file is not None:
                    open_steps = row is step.new and bool(evidence.classes.undecided)
                    note(file, known, evidence.end if open_steps else step.commit.lsn)
    return found


def changed_rows(
    evidence: Evidence, rows: Mapping[tuple[Relation, str], int], files: Mapping[Relation, Known]
) -> list[Harm]:
    """What one transaction deleted and updated, by relation."""
    counts: Counter[tuple[int, str]] = Counter()
    known = {}
    for (file, kind), count in rows.items():
        if file in files:
            known[files[file].oid] = files[file]
            counts[files[file].oid, kind] += count
    return [
        Harm(oid, known[oid].schema, known[oid].name, known[oid].kind, kind, count)
        for (oid, kind), count in sorted(counts.items())
    ]


def row_changes(evidence: Evidence, request: Request, members: Collection[Known]) -> Harms:
    """What transactions deleted and updated of the relations, where together it is at least ``min_rows`` of a kind."""
    files = {file: known for file, (known, _until) in files_of(evidence, members).items()}
    by_commit: dict[int, Counter[tuple[Relation, str]]] = defaultdict(Counter)
    for (file, lsn, kind), count in evidence.rows.items():
        by_commit[lsn][file, kind] += count
    found: Harms = {}
    for lsn, rows in sorted(by_commit.items()):
        harms = changed_rows(evidence, rows, files)
        total: Counter[str] = Counter()
        for harm in harms:
            total[harm.damage] += harm.rows or 0
        harms = [one for one in harms if total[one.damage] >= request.min_rows and request.wants(one.damage)]
        if harms and request.in_window(evidence.commits.at(lsn)):
            found[lsn] = harms
    return found


def changed_definitions(evidence: Evidence, request: Request, members: Collection[Known]) -> Harms:
    """Transactions that changed the definition of one of the relations.

    Each sends a relcache message for its OID. So do ANALYZE and VACUUM, which are told by having changed nothing else
    than statistics.
    """
    oids = {known.oid: known for known in members}
    found: Harms = {}
    for commit in evidence.commits.with_messages():
        touched = commit.relcache.intersection(oids)
        if touched and commit.lsn not in evidence.maintenance and request.in_window(commit):
            found[commit.lsn] = [
                Harm(oid, oids[oid].schema, oids[oid].name, oids[oid].kind, "ddl") for oid in sorted(touched)
            ]
    return found


def with_rows(evidence: Evidence, lsn: int, harm: Harm) -> Harm:
    """The harm with the rows that went with it counted in WAL, where statistics do not tell and WAL has them all."""
    if harm.rows is not None or harm.damage not in ("drop", "truncate") or harm.file is None or harm.kind != "r":
        return harm
    steps = evidence.classes.steps.get(harm.oid, [])
    made = next((one for one in steps if one.new is not None and evidence.file(one.new) == harm.file), None)
    # A table that was there may have been rewritten, in whole pages; only a new one is filled row by row.
    if made is None or made.old is not None:
        return harm
    return replace(harm, rows=evidence.rows_held(harm.file, made.commit.lsn, lsn))
