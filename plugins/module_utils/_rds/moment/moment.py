# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which statement did the damage, and the latest moment before it that a restore can be asked for. Pure.

RDS replays WAL up to ``RestoreTime``, a whole second, everything committed at that moment included (PostgreSQL's
recovery_target_time with recovery_target_inclusive). A transaction commits after each of its statements was logged, so
a restore to the second in which one began never holds what it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import RecoveryTarget, recovery_target
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.statements import Damage, Name, mentions

# What makes a relation missing. Everything else leaves it there, and harms what is in it.
REMOVES = frozenset({"drop_table", "drop_schema", "drop_database", "rename", "hidden"})
CONFIDENCE = ("low", "medium", "high")
SHOWN = 300  # characters of a statement in a result
LISTED = 20  # candidates in a message
# Within this many seconds after a statement began, a commit that the database knows of is taken for its own.
NEAR = 60


@dataclass(frozen=True)
class Subject:
    """What was lost: a relation (both names), a whole schema (no relation), or the database (neither)."""

    schema: Optional[str] = None
    name: Optional[str] = None

    def label(self, database: str) -> str:
        """The subject for people."""
        if self.name is not None:
            return display_name(self.schema, self.name)
        if self.schema is not None:
            return f"schema {display_name(None, self.schema)}"
        return f"database {display_name(None, database)}"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    database: str
    subjects: tuple[Subject, ...]

    @classmethod
    def of(cls, database: str, relations: Iterable[Mapping[str, str]], schemas: Iterable[str]) -> Wanted:
        """From parsed names; the whole database when none are named."""
        subjects = [Subject(item["schema"], item["name"]) for item in relations]
        subjects += [Subject(schema) for schema in schemas]
        return cls(database, tuple(dict.fromkeys(subjects)) or (Subject(),))

    def names(self) -> list[str]:
        """Every name that a statement of interest could hold."""
        found = [self.database]
        for subject in self.subjects:
            found += [name for name in (subject.name, subject.schema) if name is not None]
        return list(dict.fromkeys(found))

    def named(self, name: Name) -> list[Subject]:
        """Subjects that a name in a statement can mean."""
        schema, bare = name
        return [
            one
            for one in self.subjects
            if (one.name == bare and schema in (None, one.schema))
            or (one.name is None and schema is None and one.schema == bare)
        ]

    def hit(self, damage: Damage, database: Optional[str]) -> dict[Subject, str]:
        """Subjects that a statement run in ``database`` can have damaged, each with the confidence that it did.

        high: named with its schema. medium: named without (search_path is not in a log), or the database is not known.
        low: it can have gone with something else.
        """
        if damage.kind == "drop_database":
            names = {name for _schema, name in damage.names}
            return dict.fromkeys(self.subjects, "high") if self.database in names else {}
        if database is not None and database != self.database:
            return {}
        found: dict[Subject, str] = {}
        for subject in self.subjects:
            confidence = _concerns(damage, subject)
            if confidence:
                found[subject] = "medium" if confidence == "high" and database is None else confidence
        return found


def _concerns(damage: Damage, subject: Subject) -> str:
    """How sure it is that a statement in the right database damaged ``subject``; empty for not at all."""
    if subject.schema is None:
        return ""
    if damage.kind == "drop_schema" or (damage.kind == "rename" and not damage.whole):
        if (None, subject.schema) in damage.names:
            return "high"
    elif subject.name is None:
        if any(schema == subject.schema for schema, _name in damage.names):
            return "high"
    elif (subject.schema, subject.name) in damage.names:
        return "high"
    elif (None, subject.name) in damage.names:
        return "medium"
    if damage.kind == "hidden":
        body = damage.note if not damage.whole else ""
        if body:
            return "low" if mentions(body, subject.name or subject.schema) else ""
        return "low"
    return "low" if damage.cascade else ""


@dataclass
class Candidate:
    """A statement that may be the damage.

    ``not_before``: its transaction did not commit earlier. ``not_after``: nor later, where that is known. ``commit`` is
    the exact time of the commit, from the database. ``outcome`` is unknown, committed, failed, rolled_back or open.
    ``remade`` are subjects that the log shows there again later, so that something else has made them missing since.
    """

    kind: str
    subjects: dict[Subject, str]
    started: datetime
    source: str
    statement: str = ""
    resolution: float = 0.0
    not_before: datetime = datetime.min.replace(tzinfo=timezone.utc)
    not_after: Optional[datetime] = None
    commit: Optional[datetime] = None
    commit_logged: bool = False
    outcome: str = "unknown"
    whole: bool = True
    if_exists: bool = False
    pid: Optional[int] = None
    user: Optional[str] = None
    database: Optional[str] = None
    instance: Optional[str] = None
    xid: int = 0
    rows: Optional[int] = None
    notes: list[str] = field(default_factory=list)
    remade: set[Subject] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.not_before = max(self.not_before, self.started)

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text and text not in self.notes:
            self.notes.append(text)

    def rank(self, subject: Subject) -> int:
        """3: it took everything; 2: a WHERE limits it; 1: it may have nothing to do with the subject."""
        if self.subjects.get(subject, "low") == "low":
            return 1
        return 3 if self.whole or self.kind == "rename" else 2

    def target(self) -> datetime:
        """The latest whole second of which it is certain that what this did had not committed."""
        if self.commit is None:
            return self.not_before.replace(microsecond=0)
        # What commits in the very moment of the target is replayed.
        return (self.commit - timedelta(microseconds=1)).replace(microsecond=0)

    def precision(self) -> float:
        """Seconds from the target to what is known of the commit: its time, its latest, or else what was logged."""
        if self.commit is not None:
            end = self.commit
        else:
            end = self.not_after or self.not_before + timedelta(seconds=self.resolution)
        return round(max((end - self.target()).total_seconds(), 0.0), 6)

    def bounded(self) -> bool:
        """Whether it is known when it had committed at the latest."""
        return self.commit is not None or self.not_after is not None or self.commit_logged

    def who(self) -> str:
        """The session, for messages."""
        parts = [f"session {self.pid}" if self.pid else "", f"user {self.user}" if self.user else ""]
        parts += [f"on {self.instance}" if self.instance else "", f"transaction {self.xid}" if self.xid else ""]
        return " ".join(part for part in parts if part)

    def as_dict(self, database: str) -> dict[str, Any]:
        """The candidate as it stands in results."""
        relations = [
            {"schema": subject.schema, "name": subject.name} for subject in self.subjects if subject.name is not None
        ]
        return {
            "kind": self.kind,
            "source": self.source,
            "subjects": [subject.label(database) for subject in self.subjects],
            "relations": relations,
            "confidence": max(self.subjects.values(), key=CONFIDENCE.index, default="low"),
            "outcome": self.outcome,
            "started": self.started.isoformat(),
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "commit_time": self.commit.isoformat() if self.commit else None,
            "target": self.target().isoformat(),
            "precision_seconds": self.precision(),
            "pid": self.pid,
            "user": self.user,
            "database": self.database,
            "instance": self.instance,
            "xid": self.xid or None,
            "rows": self.rows,
            "statement": self.statement[:SHOWN],
            "notes": list(self.notes),
        }

    def line(self, database: str, offered: bool = True) -> str:
        """One line for an error message, with the command that chooses it where it is ``offered``."""
        what = ", ".join(subject.label(database) for subject in self.subjects)
        extra = [self.outcome, self.who(), *self.notes]
        shown = " ".join(self.statement.split())[:120]
        when = self.commit or self.not_before
        return (
            f"{self.kind} of {what} at {when.isoformat()} ({'; '.join(text for text in extra if text)})"
            f"{f': {shown}' if shown else ''}"
            + (f" -> -e dr_target_time={self.target().isoformat()}" if offered else "")
        )


@dataclass(frozen=True)
class State:
    """What there is now of a subject.

    ``created``: when it was made, where the database knows it. ``made``: when the log shows a CREATE or RENAME that can
    have made it (or have found it there).
    """

    present: bool
    created: Optional[datetime] = None
    made: Optional[datetime] = None


def exact(candidates: Sequence[Candidate], known: Iterable[Candidate]) -> list[Candidate]:
    """Statements with the commit times that the database knows, and what it knows beside them.

    A commit is taken for a statement's own when it is of the same kind, the next one after it, and not later than the
    statement can have ended (or within a minute, where that is not known).
    """
    found = list(candidates)
    for fact in sorted(known, key=lambda one: one.commit or one.started):
        commit = fact.commit
        own = [
            one
            for one in candidates
            if commit is not None
            and one.commit is None
            and one.kind == ("update" if fact.kind == "written" else fact.kind)
            and set(one.subjects) & set(fact.subjects)
            and one.outcome in ("unknown", "committed")
            and one.not_before <= commit
            and commit <= (one.not_after or one.not_before + timedelta(seconds=NEAR))
        ]
        if own:
            statement = max(own, key=lambda one: one.not_before)
            statement.commit, statement.outcome = commit, "committed"
            statement.xid = statement.xid or fact.xid
            statement.rows = fact.rows if statement.rows is None else statement.rows
        else:
            found.append(fact)
    return sorted(found, key=lambda one: one.commit or one.not_before)


def pool(subject: Subject, candidates: Iterable[Candidate], state: Optional[State]) -> list[Candidate]:
    """Candidates that can be the damage to ``subject``, oldest first; those that cannot have lasted are left out."""

    def possible(one: Candidate) -> bool:
        removes = one.kind in REMOVES
        if state is None:
            return True
        if not state.present:
            return removes and subject not in one.remade
        # What is there was made after its predecessor was removed, and was harmed after that. A removal after which
        # nothing was made did not last: it was rolled back.
        when = one.commit or one.not_before + timedelta(seconds=one.resolution)
        if removes:
            made = state.created or state.made
            return one.kind != "rename" and made is not None and one.not_before <= made
        return state.created is None or when >= state.created

    found = [
        one
        for one in candidates
        if subject in one.subjects and one.outcome not in ("failed", "rolled_back") and possible(one)
    ]
    return sorted(found, key=lambda one: one.commit or one.not_before)


def clear_one(subject: Subject, found: Sequence[Candidate], state: Optional[State]) -> Optional[Candidate]:
    """The one of ``found`` (from ``pool``) that did it; None when that is not clear."""
    best = max(one.rank(subject) for one in found)
    strongest = [one for one in found if one.rank(subject) == best]
    last = strongest[-1]
    if len(strongest) == 1:
        return last
    # A drop that succeeded found the relation there, so none before it is the loss. IF EXISTS succeeds on nothing.
    if state is not None and not state.present and last.kind != "rename" and not last.if_exists:
        return last
    return None


def choose(
    wanted: Wanted, candidates: Sequence[Candidate], states: Mapping[Subject, State]
) -> tuple[Optional[Candidate], list[Subject]]:
    """The earliest of the statements that did the damage, and the subjects for which nothing was found.

    Raises RecoveryError where it is not clear which, where nothing has committed, or where nothing was lost.
    """
    chosen: list[Candidate] = []
    unknown: list[Subject] = []
    for subject in wanted.subjects:
        state = states.get(subject)
        found = pool(subject, candidates, state)
        _refuse_open(wanted, subject, state, candidates)
        if all(one.rank(subject) < 2 for one in found):
            unknown.append(subject)
            continue
        one = clear_one(subject, found, state)
        if one is None:
            raise _unclear(wanted, subject, found, candidates)
        if one.kind == "rename":
            raise RecoveryError(
                f"{subject.label(wanted.database)} was not dropped: {'; '.join(one.notes)} at "
                f"{one.not_before.isoformat()} ({one.who()}): {one.statement[:SHOWN]}. Nothing was changed. Rename or "
                "move it back; no restore is needed. If it was damaged afterwards, ask for it by its new name.",
                candidates=listed(candidates, wanted.database),
            )
        chosen.append(one)
    return min(chosen, key=lambda one: one.target(), default=None), unknown


def listed(candidates: Sequence[Candidate], database: str) -> list[dict[str, Any]]:
    """Candidates for a result."""
    return [one.as_dict(database) for one in candidates]


def _refuse_open(wanted: Wanted, subject: Subject, state: Optional[State], candidates: Sequence[Candidate]) -> None:
    """Nothing is lost as long as the transaction is open: say so instead of restoring."""
    still = [one for one in candidates if one.outcome == "open" and one.rank(subject) > 1]
    if still and (state is None or state.present):
        one = still[-1]
        raise RecoveryError(
            f"{one.kind} of {subject.label(wanted.database)} has not committed: {one.who()} still has its transaction "
            f"open ({one.statement[:SHOWN]}). Nothing is lost yet, and nothing was changed. End it without COMMIT: "
            f"SELECT pg_terminate_backend({one.pid}); and no restore is needed.",
            candidates=listed(candidates, wanted.database),
        )


def _unclear(
    wanted: Wanted, subject: Subject, found: Sequence[Candidate], candidates: Sequence[Candidate]
) -> RecoveryError:
    best = max(one.rank(subject) for one in found)
    lines = [one.line(wanted.database) for one in found if one.rank(subject) == best]
    more = f" ({len(lines) - LISTED} older ones are in candidates)" if len(lines) > LISTED else ""
    return RecoveryError(
        f"what damaged {subject.label(wanted.database)} is not clear: {len(lines)} statements can have done it. "
        "Nothing was changed. Choose one by its moment, or narrow the time (dr_since, dr_until):\n"
        + "\n".join(lines[-LISTED:])
        + more,
        candidates=listed(candidates, wanted.database),
    )


def target_before(one: Candidate, wanted: Wanted) -> RecoveryTarget:
    """The recovery target just before a candidate, as ``rds_restore`` takes it."""
    shown = " ".join(one.statement.split())[:120]
    when = f"committed at {one.commit.isoformat()}" if one.commit else f"seen at {one.not_before.isoformat()}"
    return target_at(
        one.target(),
        f"the last whole second before {one.kind} of "
        + ", ".join(subject.label(wanted.database) for subject in one.subjects)
        + f", {when}"
        + (f" ({one.who()})" if one.who() else "")
        + (f": {shown}" if shown else ""),
        one.xid or None,
        one.commit,
    )


def target_at(
    moment: datetime, reason: str, xid: Optional[int] = None, commit: Optional[datetime] = None
) -> RecoveryTarget:
    """A recovery target at a whole second."""
    return recovery_target(
        {
            "type": "time",
            "value": moment.isoformat(),
            "exclusive": False,
            "timeline": None,
            "xid": xid,
            "commit_time": commit.isoformat() if commit else None,
            "reason": reason,
        }
    )


def lost_at_most(one: Candidate) -> str:
    """What of the time before the incident is not in the restore, in words."""
    seconds = f"{one.precision():.6f}".rstrip("0").rstrip(".")
    begin = f"Rows committed after {one.target().isoformat()} and before the incident are not in the restore: "
    if one.commit is not None:
        return f"{begin}those of {seconds} s, since the incident committed at {one.commit.isoformat()}."
    if one.bounded():
        return f"{begin}those of at most {seconds} s."
    longer = (
        "its transaction stayed open, rows committed meanwhile"
        if one.kind in ("delete", "update")
        else "it waited for its lock, rows written while it waited"
    )
    return (
        f"{begin}those of at most {seconds} s up to the beginning of the statement. When it committed is not in "
        f"the log: if {longer} are missing too."
    )
