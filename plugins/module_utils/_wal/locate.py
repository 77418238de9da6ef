# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was read of WAL to the transaction that did the damage. Pure: nothing here reads anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import ClassRow
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import History, Removal
from ansible_collections.dbre.recovery.plugins.module_utils._wal.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Database, Known
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, CommitLog, Running, format_time

KINDS = ("drop_table", "drop_schema", "drop_database", "truncate", "delete", "update", "ddl")
NAMED_KINDS = "rpmfvS"  # what the name of a relation can mean to a user: no index, TOAST table or composite type
LISTED = 50  # candidates in a result


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

    def wants(self, kind: str, auto: bool) -> bool:
        """Whether to look for a kind; ``auto`` is the answer where the user named none."""
        return kind in self.kinds if self.kinds else auto

    def in_window(self, commit: Commit) -> bool:
        """Whether a transaction committed in the time the user named."""
        return (self.since is None or commit.time >= self.since) and (self.until is None or commit.time <= self.until)


@dataclass(frozen=True)
class Candidate:
    """A transaction that may be the damage. ``lsn`` is where replay must stop to be just before it."""

    kind: str
    commit: Commit
    lsn: int
    relations: tuple[dict[str, Any], ...] = ()
    rows: Optional[int] = None
    note: str = ""

    def as_dict(self, database: str) -> dict[str, Any]:
        """The candidate as it stands in results."""
        return {
            "kind": self.kind,
            "database": database,
            "xid": self.commit.xid,
            "lsn": format_lsn(self.lsn),
            "commit_lsn": format_lsn(self.commit.lsn),
            "commit_time": self.commit.commit_time,
            "rows": self.rows,
            "relations": [dict(relation) for relation in self.relations],
            "prepared": self.commit.prepared,
            "subxacts": list(self.commit.subxacts),
            "note": self.note,
        }

    def line(self) -> str:
        """One line for an error message."""
        rows = f", {self.rows} rows" if self.rows is not None else ""
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.kind} by transaction {self.commit.xid} at {format_lsn(self.lsn)}, "
            f"{self.commit.commit_time}{rows}{note}"
        )


@dataclass
class Evidence:
    """What was read of WAL, and what production has now."""

    commits: CommitLog
    start: int
    end: int
    complete: bool
    classes: History[ClassRow]
    namespaces: History[tuple[int, bytes]]
    database: Database
    rows: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    row_commits: dict[int, Commit] = field(default_factory=dict)
    running: Optional[Running] = None
    maintenance: frozenset[int] = frozenset()

    def text(self, name: bytes) -> str:
        """A name of this database as text."""
        return self.database.text(name)

    def schema_name(self, oid: int, lsn: int) -> Optional[str]:
        """What a schema was called just before ``lsn``."""
        told, row = self.namespaces.before(oid, lsn)
        if told:
            return self.text(row[1]) if row is not None else None
        return self.database.namespaces.get(oid)

    def relation(self, removal: Removal[ClassRow]) -> dict[str, Any]:
        """A removed relation under the name it had before the transaction."""
        row = removal.row
        return {
            "schema": self.schema_name(row.namespace, removal.commit.lsn),
            "name": self.text(row.name),
            "oid": row.oid,
            "kind": row.kind,
        }

    def window(self) -> str:
        """The WAL that was read, for messages."""
        times = ""
        if len(self.commits):
            times = f" ({format_time(self.commits.times[0])} to {format_time(self.commits.times[-1])})"
        return f"{format_lsn(self.start)} to {format_lsn(self.end)}{times}"


def quoted(schema: Optional[str], name: str) -> str:
    """A relation's name for people; a schema that is not known shows as a question mark."""
    return display_name(schema, name) if schema is not None else f"?.{display_name(None, name)}"


# Drops


def relation_drops(evidence: Evidence, request: Request) -> list[Candidate]:
    """Every transaction that removed a table, view, sequence or the like, with all that it removed, oldest first."""
    by_commit: dict[int, list[Removal[ClassRow]]] = {}
    for removal in evidence.classes.removals():
        if removal.row.kind in NAMED_KINDS:
            by_commit.setdefault(removal.commit.lsn, []).append(removal)
    return [
        Candidate("drop_table", removals[0].commit, lsn, tuple(evidence.relation(removal) for removal in removals))
        for lsn, removals in sorted(by_commit.items())
        if request.in_window(removals[0].commit)
    ]


def undecided_drops(evidence: Evidence, request: Request, after: int) -> list[Candidate]:
    """Transactions after ``after`` that removed relations of which WAL read so far does not tell the names."""
    reasons: dict[int, str] = {}
    commits: dict[int, Commit] = {}
    for commit, change in evidence.classes.undecided:
        if change.operation == "DELETE":
            reasons[commit.lsn], commits[commit.lsn] = change.unknown, commit
    decided = {oid for oid, steps in evidence.classes.steps.items() if steps[-1].new is None}
    missing: dict[int, list[int]] = {}
    for commit in evidence.commits.with_dropped():
        lost = [oid for database, oid in commit.dropped if database == evidence.database.oid and oid not in decided]
        if lost:
            missing[commit.lsn], commits[commit.lsn] = sorted(lost), commit
    return [
        Candidate(
            "drop_table",
            commit,
            lsn,
            tuple({"schema": None, "name": None, "oid": oid, "kind": None} for oid in missing.get(lsn, [])),
            note=reasons.get(lsn, "it began before the WAL that was read"),
        )
        for lsn, commit in sorted(commits.items())
        if lsn > after and request.in_window(commit)
    ]


def newest(candidates: Iterable[Candidate]) -> Optional[Candidate]:
    """The candidate that committed last."""
    return max(candidates, key=lambda candidate: candidate.commit.lsn, default=None)


def settle_drops(evidence: Evidence, request: Request, found: list[Candidate], what: str) -> None:
    """See that no newer drop than the newest found can be the one: ask for more WAL, or say that it cannot be known."""
    last = newest(found)
    open_ones = undecided_drops(evidence, request, last.lsn if last else 0)
    if not evidence.complete and (last is None or open_ones):
        raise MoreWal
    if open_ones:
        raise RecoveryError(
            f"cannot tell whether {what} was dropped by one of {len(open_ones)} transactions: "
            + "; ".join(f"{one.line()}, dropped OIDs {[r['oid'] for r in one.relations]}" for one in open_ones[:5])
            + ". Nothing was changed. Choose one with target_xid or target_lsn (dr_target_xid, dr_target_lsn) and look "
            "at the table in the side instance.",
            candidates=[one.as_dict(evidence.database.name) for one in open_ones[-LISTED:]],
        )


def has(candidate: Candidate, schema: Optional[str], name: str) -> bool:
    """Whether a candidate concerns the relation of that name."""
    return any((relation["schema"], relation["name"]) == (schema, name) for relation in candidate.relations)


def drops_of_relation(evidence: Evidence, request: Request, schema: str, name: str) -> list[Candidate]:
    """Transactions that dropped the relation of that name, oldest first; settled that there is no newer one."""
    drops = relation_drops(evidence, request)
    found = [candidate for candidate in drops if has(candidate, schema, name)]
    last = newest(found)
    if not evidence.complete and any(has(one, None, name) for one in drops if last is None or one.lsn > last.lsn):
        raise MoreWal
    settle_drops(evidence, request, found, quoted(schema, name))
    return [asked_first(candidate, [(schema, name)]) for candidate in found]


def asked_first(candidate: Candidate, asked: list[tuple[str, str]]) -> Candidate:
    """The candidate with the relations that were asked for before those that went with them."""
    relations = sorted(candidate.relations, key=lambda relation: (relation["schema"], relation["name"]) not in asked)
    return Candidate(candidate.kind, candidate.commit, candidate.lsn, tuple(relations), candidate.rows, candidate.note)


def drops_of_schema(evidence: Evidence, request: Request, schema: str) -> list[Candidate]:
    """Transactions that dropped the schema of that name, or tables in it when it is still there, oldest first."""
    drops = {candidate.lsn: candidate for candidate in relation_drops(evidence, request)}
    found = []
    for removal in evidence.namespaces.removals():
        if evidence.text(removal.row[1]) == schema and request.in_window(removal.commit):
            lsn = removal.commit.lsn
            relations = drops[lsn].relations if lsn in drops else ()
            inside = tuple(relation for relation in relations if relation["schema"] == schema)
            found.append(Candidate("drop_schema", removal.commit, lsn, inside))
    if not evidence.complete and (not found or undecided_schema(evidence, found[-1].lsn)):
        raise MoreWal
    if found and undecided_drops(evidence, request, found[-1].lsn - 1) and not evidence.complete:
        raise MoreWal
    return found


def undecided_schema(evidence: Evidence, after: int) -> bool:
    """Whether a schema that is not known was removed after ``after``."""
    return any(commit.lsn > after and change.operation == "DELETE" for commit, change in evidence.namespaces.undecided)


# Damage to relations that are still there


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


def filenodes(evidence: Evidence, members: list[Known]) -> set[tuple[int, int, int]]:
    """All files (tablespace, database, filenode) that the relations kept their rows in, as far as WAL was read."""
    database = evidence.database
    found = {(known.tablespace, database.oid, known.filenode) for known in members if known.filenode}
    for known in members:
        for step in evidence.classes.steps.get(known.oid, []):
            for row in (step.old, step.new):
                if row is not None and row.filenode:
                    found.add((row.tablespace or database.tablespace, database.oid, row.filenode))
    return found


def truncates(evidence: Evidence, request: Request, members: list[Known]) -> list[Candidate]:
    """Transactions that truncated one of the relations.

    TRUNCATE gives a relation a new, empty file. So do VACUUM FULL, CLUSTER and ALTER TABLE, but those swap files with a
    transient relation, which then has the old one; and SET TABLESPACE, which changes the tablespace.
    """
    found: dict[int, Candidate] = {}
    for known in members:
        steps = evidence.classes.steps.get(known.oid, [])
        for step in steps:
            if step.old is None or step.new is None or step.old.filenode == step.new.filenode or not step.new.filenode:
                continue
            made_there = next(other for other in steps if other.commit.lsn == step.commit.lsn).old is None
            moved = step.old.tablespace != step.new.tablespace
            if made_there or moved or _swapped(evidence, known.oid, step.old.filenode, step.commit.lsn):
                continue
            if request.in_window(step.commit):
                relation = {"schema": known.schema, "name": known.name, "oid": known.oid, "kind": known.kind}
                earlier = found.get(step.commit.lsn)
                relations = (*earlier.relations, relation) if earlier else (relation,)
                found[step.commit.lsn] = Candidate("truncate", step.commit, step.commit.lsn, relations)
    return [found[lsn] for lsn in sorted(found)]


def _swapped(evidence: Evidence, oid: int, filenode: int, commit: int) -> bool:
    """Whether in one transaction another relation took over a relation's file."""
    return any(
        step.new is not None and step.new.filenode == filenode
        for other, steps in evidence.classes.steps.items()
        if other != oid
        for step in steps
        if step.commit.lsn == commit
    )


def row_changes(evidence: Evidence, request: Request, members: list[Known]) -> list[Candidate]:
    """Transactions that deleted or updated at least ``min_rows`` rows of the relations, oldest first."""
    counts: dict[tuple[int, str], Counter[int]] = {}
    owner = {}
    for known in members:
        for _tablespace, _database, filenode in filenodes(evidence, [known]):
            owner[filenode] = known.oid
    for (filenode, xid, kind), rows in evidence.rows.items():
        commit = evidence.row_commits.get(xid)
        if commit is not None and filenode in owner:
            counts.setdefault((commit.lsn, kind), Counter())[owner[filenode]] += rows
    commits = {commit.lsn: commit for commit in evidence.row_commits.values()}
    by_oid = {known.oid: known for known in members}
    found = []
    for (lsn, kind), oids in sorted(counts.items()):
        if sum(oids.values()) >= request.min_rows and request.in_window(commits[lsn]) and request.wants(kind, True):
            relations = tuple(
                {"schema": known.schema, "name": known.name, "oid": oid, "kind": known.kind}
                for oid, known in by_oid.items()
                if oid in oids
            )
            found.append(Candidate(kind, commits[lsn], lsn, relations, sum(oids.values())))
    return found


def schema_changes(evidence: Evidence, request: Request, members: list[Known]) -> list[Candidate]:
    """Transactions that changed the definition of one of the relations, oldest first.

    Each sends a relcache message for its OID. So do ANALYZE and VACUUM, which are told by having changed nothing else
    than statistics.
    """
    oids = {known.oid: known for known in members}
    found = []
    for commit in evidence.commits.with_messages():
        touched = commit.relcache.intersection(oids)
        if touched and commit.lsn not in evidence.maintenance and request.in_window(commit):
            relations = tuple(
                {"schema": oids[oid].schema, "name": oids[oid].name, "oid": oid, "kind": oids[oid].kind}
                for oid in sorted(touched)
            )
            found.append(Candidate("ddl", commit, commit.lsn, relations))
    return found


def settle_changes(evidence: Evidence, members: list[Known]) -> None:
    """See that the files of the relations, and all rows of the transactions found, are known; else ask for more WAL."""
    if evidence.complete:
        return
    oids = {known.oid for known in members}
    if any(commit.relcache & oids for commit, _change in evidence.classes.undecided):
        raise MoreWal
    running = evidence.running
    if running is None:
        raise MoreWal
    for xid, commit in evidence.row_commits.items():
        if xid in running.xids or commit.xid in running.xids:
            raise MoreWal


def changes_of_relation(evidence: Evidence, request: Request, known: Known) -> list[Candidate]:
    """Everything in the window that did damage of the kinds asked for to a relation that is still there."""
    members = family(evidence.database, known)
    found: list[Candidate] = []
    if request.wants("drop_table", True):
        # Somebody dropped it and made it again.
        found += [one for one in relation_drops(evidence, request) if has(one, known.schema, known.name)]
    if request.wants("truncate", True):
        found += truncates(evidence, request, members)
    if request.wants("delete", True) or request.wants("update", True):
        found += row_changes(evidence, request, members)
    if request.wants("ddl", False):
        found += schema_changes(evidence, request, members)
    unique = {(candidate.commit.lsn, candidate.kind): candidate for candidate in found}
    if not evidence.complete and not unique:
        raise MoreWal
    settle_changes(evidence, members)
    return sorted(unique.values(), key=lambda candidate: candidate.commit.lsn)


# One answer


@dataclass(frozen=True)
class Verdict:
    """The incident, why it is it, and everything else that might have been."""

    incident: Candidate
    reason: str
    candidates: list[Candidate]


def decide(evidence: Evidence, request: Request) -> Verdict:
    """The transaction that did the damage; MoreWal when older WAL may hold it, RecoveryError when there is not one."""
    chosen: list[tuple[str, Candidate]] = []
    candidates: dict[tuple[int, str], Candidate] = {}
    for schema, name in request.relations:
        what = quoted(schema, name)
        found = _of_relation(evidence, request, schema, name)
        candidates.update({(one.lsn, one.kind): one for one in found})
        chosen.append((what, _only(evidence, request, found, what)))
    for schema in request.schemas:
        found = drops_of_schema(evidence, request, schema)
        what = f"schema {display_name(None, schema)}"
        if not found:
            raise nothing_found(evidence, request, what, schema, [])
        candidates.update({(one.lsn, one.kind): one for one in found})
        chosen.append((what, found[-1]))
    first = min((one for _what, one in chosen), key=lambda one: one.lsn)
    return Verdict(first, _reason(evidence, chosen, first), [candidates[key] for key in sorted(candidates)])


def _of_relation(evidence: Evidence, request: Request, schema: str, name: str) -> list[Candidate]:
    known = evidence.database.relation(schema, name)
    what = quoted(schema, name)
    if known is not None:
        found = changes_of_relation(evidence, request, known)
        if not found:
            raise nothing_done(evidence, request, what)
        return found
    if not request.wants("drop_table", True) and not request.wants("drop_schema", True):
        raise RecoveryError(
            f"{what} does not exist in database {evidence.database.name!r}, so only its drop can be looked for, "
            f"and kinds is {', '.join(request.kinds)}. Nothing was changed. Add drop_table to it, or leave it out."
        )
    found = drops_of_relation(evidence, request, schema, name)
    if not found:
        raise nothing_found(evidence, request, what, name, renames(evidence, schema, name))
    return found


def _only(evidence: Evidence, request: Request, found: list[Candidate], what: str) -> Candidate:
    """The one candidate; of drops alone the newest, since that is the one the name last ended with."""
    if len(found) == 1 or all(candidate.kind == "drop_table" for candidate in found):
        return found[-1]
    raise RecoveryError(
        f"{len(found)} transactions may have done the damage to {what} in the WAL from {evidence.window()}: "
        + "; ".join(candidate.line() for candidate in found[-10:])
        + ". Nothing was changed. Choose one with target_xid or target_lsn (dr_target_xid, dr_target_lsn), narrow the "
        "time with since and until (dr_since, dr_until), or name the kinds.",
        candidates=[candidate.as_dict(evidence.database.name) for candidate in found[-LISTED:]],
    )


def _reason(evidence: Evidence, chosen: list[tuple[str, Candidate]], first: Candidate) -> str:
    """Why the target is where it is; refuses when something asked for did not exist there."""
    prepared = "COMMIT PREPARED" if first.commit.prepared else "COMMIT"
    reason = f"just before the {prepared} of transaction {first.commit.xid} ({first.kind})"
    others = [(what, one) for what, one in chosen if one.commit.lsn != first.commit.lsn]
    for what, one in others:
        for relation in one.relations:
            told, row = evidence.classes.before(relation["oid"], first.commit.lsn)
            asked = quoted(relation["schema"], relation["name"]) == what
            if asked and told and row is None:
                raise RecoveryError(
                    f"{what} was dropped at {format_lsn(one.lsn)} but did not yet exist at {format_lsn(first.lsn)}, "
                    f"where the first of the tables named was lost ({first.line()}). No one target has them all. "
                    "Nothing was changed. Recover them one after the other, with an incident each.",
                    candidates=[candidate.as_dict(evidence.database.name) for _name, candidate in chosen],
                )
    if others:
        later = "; ".join(f"{what} went later, {one.line()}" for what, one in others)
        reason += f", the first of {len(chosen)} losses asked for: {later}"
    return reason


# What to say when there is nothing


def renames(evidence: Evidence, schema: str, name: str) -> list[str]:
    """Sentences about transactions that gave a relation of that name another one, and what became of it."""
    found = []
    for oid, steps in evidence.classes.steps.items():
        for step in steps:
            if step.old is None or step.new is None:
                continue
            old = (evidence.schema_name(step.old.namespace, step.commit.lsn), evidence.text(step.old.name))
            new = (evidence.schema_name(step.new.namespace, step.commit.lsn + 1), evidence.text(step.new.name))
            if old == (schema, name) and new != old:
                sentence = (
                    f"transaction {step.commit.xid} renamed it to {quoted(*new)} at {step.commit.commit_time}"
                    f" ({format_lsn(step.commit.lsn)})"
                )
                last = steps[-1]
                if last.new is None:
                    final = last.old or step.new
                    sentence += (
                        f", and transaction {last.commit.xid} dropped it at {last.commit.commit_time}; ask for "
                        + quoted(evidence.schema_name(final.namespace, last.commit.lsn), evidence.text(final.name))
                    )
                elif oid in evidence.database.relations:
                    now = evidence.database.relations[oid]
                    sentence += f"; it exists now as {quoted(now.schema, now.name)}"
                found.append(sentence)
    return found


def nothing_found(evidence: Evidence, request: Request, what: str, name: str, facts: list[str]) -> RecoveryError:
    """The error for something that neither exists nor was seen dropped."""
    if not evidence.complete:
        raise MoreWal
    drops = relation_drops(evidence, Request(request.database))
    dropped = sorted({quoted(r["schema"], r["name"]) for one in drops for r in one.relations if r["name"] is not None})
    existing = sorted(quoted(known.schema, known.name) for known in evidence.database.relations.values())
    bare = what.removeprefix("schema ")
    parts = [
        (
            f"{what} does not exist in database {evidence.database.name!r}, and no transaction that dropped it was "
            f"found in the WAL from {evidence.window()}."
        )
    ]
    parts += [f"But {fact}." for fact in facts]
    for label, names in (("Dropped in that time", dropped), ("Existing now", existing)):
        similar = get_close_matches(bare, names, 5, 0.6) or [other for other in names if other.split(".")[-1] == name]
        if similar:
            parts.append(f"{label}, with a similar name: {', '.join(similar[:5])}.")
    parts.append(
        "Nothing was changed. Write the name as in SQL, with its schema and with quotes where it has capitals; "
        "or give the moment yourself (dr_target_time, dr_target_lsn, dr_target_xid)."
    )
    return RecoveryError(" ".join(parts), candidates=[one.as_dict(evidence.database.name) for one in drops[-LISTED:]])


def nothing_done(evidence: Evidence, request: Request, what: str) -> RecoveryError:
    """The error for a relation that is there and that nothing in WAL has harmed."""
    kinds = ", ".join(request.kinds) if request.kinds else "dropped, truncated, deleted from or updated"
    return RecoveryError(
        f"{what} exists in database {evidence.database.name!r}, and no transaction in the WAL from {evidence.window()} "
        f"did what was looked for ({kinds}, from {request.min_rows} rows on). Nothing was changed. Look for fewer rows "
        "(dr_min_rows) or earlier (dr_since), or give the moment yourself (dr_target_time, dr_target_lsn, "
        "dr_target_xid).",
        candidates=[],
    )
