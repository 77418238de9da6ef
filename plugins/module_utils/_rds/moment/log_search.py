# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Candidates from the entries of a server log, and what the log says of whether their transactions committed. Pure.

A log says when a statement began (log_statement, pgAudit) or ended (log_min_duration_statement). That its transaction
committed is there only when BEGIN, COMMIT and ROLLBACK are logged too; that it failed is there always.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import parse_relation_list
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.server_log import Entry
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.statements import (
    RELATION_KINDS,
    Control,
    Damage,
    Token,
    control,
    damage,
    makes,
    split,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import Candidate, Subject, Wanted

_SAID = re.compile(
    r"(?:duration: (?P<ms>[\d.]+) ms)?\s*(?:(?P<how>statement|execute)(?P<prepared> [^\n]*?)?: (?P<text>.*))?",
    re.DOTALL,
)
_CHANGES = re.compile(r"\b(?:create|drop|truncate|delete|update|merge|alter|do)\b", re.IGNORECASE)
_CONTROL = re.compile(r"\b(?:begin|start|commit|end|rollback|abort|savepoint|release|prepare)\b", re.IGNORECASE)
_WAITING = re.compile(r"process \d+ (?:still waiting for|acquired) ")
_GONE = ("disconnection:", "terminating connection", "connection to client lost")


@dataclass
class _Session:
    """One server process: its transaction as far as the log shows it, and its last statement."""

    explicit: bool = False
    aborted: bool = False
    pending: list[Candidate] = field(default_factory=list)
    savepoints: list[tuple[str, int]] = field(default_factory=list)
    # Of the last statement: its texts (that of a DO block, those that pgAudit saw inside), how it came, what it did.
    texts: list[str] = field(default_factory=list)
    simple: bool = False
    audited: Optional[str] = None
    last: list[Candidate] = field(default_factory=list)
    ended: list[Candidate] = field(default_factory=list)
    # What the statements of the transaction that is open, or else the last one, have made anew.
    remade: list[tuple[Candidate, Subject]] = field(default_factory=list)
    error: Optional[Entry] = None
    waiting: Optional[Entry] = None


@dataclass(frozen=True)
class _Seen:
    """A statement in the log. ``took`` are seconds when it was logged at its end."""

    entry: Entry
    text: str
    took: Optional[float] = None
    simple: bool = True

    def began(self) -> datetime:
        return self.entry.time - timedelta(seconds=self.took or 0)


class LogSearch:
    """Goes through the entries of one instance's log, oldest first."""

    def __init__(self, wanted: Wanted, instance: str) -> None:
        self.wanted = wanted
        self.instance = instance
        self.candidates: list[Candidate] = []
        # When something of a wanted name was made, as far as the log shows it.
        self.made: dict[Subject, datetime] = {}
        self.statements = 0
        # Most statements of a busy log name nothing that is wanted; those are not read further.
        names = [re.escape(name.replace('"', '""')) for name in wanted.names()]
        self._names = re.compile("|".join([*names, "cascade", "owned"]), re.IGNORECASE)
        self._sessions: dict[int, _Session] = {}
        self._prepared: dict[str, list[Candidate]] = {}

    def search(self, entries: Iterable[Entry]) -> list[Candidate]:
        """Candidates in the order of the log."""
        for entry in entries:
            self.feed(entry)
        for session in self._sessions.values():
            self._settle_error(session, None)
            for one in session.pending:
                if one.outcome == "unknown" and session.explicit:
                    one.outcome = "rolled_back" if session.aborted else "open"
        return self.candidates

    def feed(self, entry: Entry) -> None:
        """Take one entry."""
        session = self._sessions.setdefault(entry.pid, _Session())
        if entry.severity == "STATEMENT":
            self._statement_line(session, entry)
        elif entry.severity in ("ERROR", "FATAL", "PANIC"):
            self._settle_error(session, None)
            session.error = entry
            session.aborted = session.aborted or session.explicit
            if entry.severity != "ERROR":
                self._gone(session)
        elif entry.severity == "LOG":
            self._settle_error(session, None)
            session.waiting = None
            self._log_line(session, entry)

    def _log_line(self, session: _Session, entry: Entry) -> None:
        message = entry.message
        if message.startswith("AUDIT: "):
            self._audit(session, entry)
        elif message.startswith("connection "):  # a new session whose process has an old one's number
            self._sessions[entry.pid] = _Session()
        elif message.startswith(_GONE):
            self._gone(session)
        elif _WAITING.match(message):
            session.waiting = entry
            for one in session.last:
                one.not_before = max(one.not_before, entry.time)
        else:
            match = _SAID.match(message)
            if match is None:
                return
            if match.group("how"):
                took = float(match.group("ms")) / 1000 if match.group("ms") else None
                fetch = (match.group("prepared") or "").startswith(" fetch from ")
                if not fetch:
                    self._statement(session, _Seen(entry, match.group("text"), took, match.group("how") == "statement"))
            elif match.group("ms") and session.simple and not session.explicit:
                # In the extended protocol the commit comes after this line, at Sync.
                self._over(session.last, entry)

    @staticmethod
    def _over(candidates: Iterable[Candidate], entry: Entry) -> None:
        end = entry.time + timedelta(seconds=entry.resolution)
        for one in candidates:
            one.not_after = one.not_after or end

    # Statements

    def _statement(self, session: _Session, seen: _Seen) -> None:
        session.texts, session.audited = [_flat(seen.text)], None
        session.last, session.ended, session.simple = [], [], seen.simple
        if not session.explicit:
            session.remade = []
        self.statements += 1
        if not self._worth(seen.text):
            return
        for part in split(seen.text):
            does = control(part)
            if does is not None:
                self._control(session, does, seen.entry)
                continue
            for harm in damage(part):
                self._found(session, harm, seen)
            self._makes(session, part, seen)
        if seen.took is not None and seen.simple and not session.explicit:
            self._over(session.last, seen.entry)

    def _makes(self, session: _Session, part: Sequence[Token], seen: _Seen) -> None:
        """Note what a statement makes, and what it had been missing by until then."""
        if (seen.entry.database or self.wanted.database) != self.wanted.database:
            return
        subjects = [subject for name in makes(part) for subject in self.wanted.named(name)]
        self.made.update(dict.fromkeys(subjects, seen.began()))
        # While another transaction is open, what it removes is there for this one.
        others = [
            one for other in self._sessions.values() if other.explicit and other is not session for one in other.pending
        ]
        for one in self.candidates if subjects else []:
            for subject in set(one.subjects).intersection(subjects) - one.remade:
                if all(one is not other for other in others):
                    one.remade.add(subject)
                    session.remade.append((one, subject))

    @staticmethod
    def _unmake(session: _Session) -> None:
        """What was made is undone."""
        for one, subject in session.remade:
            one.remade.discard(subject)
        session.remade = []

    def _worth(self, text: str) -> bool:
        return bool(_CONTROL.search(text) or (_CHANGES.search(text) and self._names.search(text)))

    def _found(self, session: _Session, harm: Damage, seen: _Seen) -> None:
        entry = seen.entry
        subjects = self.wanted.hit(harm, entry.database or None)
        if not subjects:
            return
        for one in session.last:
            if one.kind == harm.kind and set(one.subjects) == set(subjects):
                one.subjects.update({subject: sure for subject, sure in subjects.items() if sure == "high"})
                return
        one = Candidate(
            harm.kind,
            subjects,
            seen.began(),
            "log",
            seen.text,
            entry.resolution,
            whole=harm.whole,
            if_exists=harm.if_exists,
            pid=entry.pid,
            user=entry.user or None,
            database=entry.database or None,
            instance=self.instance,
            xid=entry.xid,
        )
        one.note(harm.note if harm.kind in ("rename", "drop_column") else _hidden(harm))
        session.last.append(one)
        session.pending.append(one)
        self.candidates.append(one)

    # Transactions

    def _control(self, session: _Session, does: Control, entry: Entry) -> None:
        if does.verb == "begin":
            for one in session.pending:  # what came before was a transaction of its own, and is over
                if one.outcome == "unknown":
                    one.outcome = "committed"
                    one.not_after = one.not_after or entry.time + timedelta(seconds=entry.resolution)
            self._end(session)
            session.explicit = True
        elif does.verb == "commit":
            self._resolve(session, "rolled_back" if session.aborted else "committed", entry)
        elif does.verb == "rollback":
            self._resolve(session, "rolled_back", entry)
        elif does.verb == "savepoint":
            session.savepoints.append((does.name, len(session.pending)))
        elif does.verb == "rollback_to":
            self._rollback_to(session, does.name)
        elif does.verb == "prepare_transaction":
            self._prepared[does.name] = session.pending
            session.ended = session.pending
            self._end(session)
        elif does.verb in ("commit_prepared", "rollback_prepared"):
            session.ended = self._prepared.pop(does.name, [])
            outcome = "committed" if does.verb == "commit_prepared" else "rolled_back"
            self._mark(session.ended, outcome, entry, True)

    @staticmethod
    def _end(session: _Session) -> None:
        session.pending, session.savepoints, session.explicit, session.aborted = [], [], False, False

    def _resolve(self, session: _Session, outcome: str, entry: Entry) -> None:
        # A COMMIT whose BEGIN was not seen may be one without a transaction: it says nothing of when.
        self._mark(session.pending, outcome, entry, session.explicit)
        session.ended = session.pending
        if outcome == "rolled_back":
            self._unmake(session)
        self._end(session)

    @staticmethod
    def _mark(candidates: Iterable[Candidate], outcome: str, entry: Entry, dated: bool) -> None:
        for one in candidates:
            if one.outcome not in ("unknown", "open"):
                continue
            one.outcome = outcome
            if dated and outcome == "committed":
                one.not_before = max(one.not_before, entry.time)
                one.resolution = entry.resolution
                one.commit_logged = True

    @staticmethod
    def _rollback_to(session: _Session, name: str) -> None:
        session.aborted = False
        marks = [at for savepoint, at in session.savepoints if savepoint == name]
        if marks:
            for one in session.pending[marks[-1] :]:
                one.outcome = "rolled_back"

    def _gone(self, session: _Session) -> None:
        """The session is over: what it had not committed is undone."""
        if session.explicit:
            for one in session.pending:
                if one.outcome == "unknown":
                    one.outcome = "rolled_back"
            self._unmake(session)
            self._end(session)

    # Errors

    def _statement_line(self, session: _Session, entry: Entry) -> None:
        """The text that PostgreSQL adds to an error, or to a message about a wait."""
        if session.error is not None:
            self._settle_error(session, entry.message)
        elif session.waiting is not None:
            waited, session.waiting = session.waiting, None
            if _flat(entry.message) not in session.texts:  # no log_statement: this is all that shows it
                self._statement(session, _Seen(waited, entry.message))

    def _settle_error(self, session: _Session, text: Optional[str]) -> None:
        """Whose error it was: the last statement's when its text says so; else it may have undone that one too."""
        error, session.error = session.error, None
        if error is None:
            return
        if text is not None and _flat(text) in session.texts:
            for one in session.last:
                one.outcome = "failed"
            for one in session.ended:
                one.outcome = "rolled_back"
            self._unmake(session)
            return
        for one in session.last:
            if one.outcome == "unknown" and not session.explicit:
                one.note(
                    f"the same session had an error at {error.time.isoformat()}; if both were in one transaction, "
                    "this was undone"
                )

    # pgAudit

    def _audit(self, session: _Session, entry: Entry) -> None:
        record = audit_record(entry.message)
        if record is None:
            return
        if session.audited not in (None, record.statement_id):
            session.texts, session.last, session.ended = [], [], []
        session.audited = record.statement_id
        seen = _Seen(entry, record.text)
        repeated = _flat(record.text) in session.texts
        session.texts.append(_flat(record.text))
        self.statements += 1
        harms: list[Damage] = []
        for part in split(record.text) if self._worth(record.text) else []:
            does = control(part)
            if does is None:
                harms += damage(part)
                self._makes(session, part, seen)
            elif not repeated:
                self._control(session, does, entry)
        for harm in record.precise(harms):
            self._found(session, harm, seen)


@dataclass(frozen=True)
class AuditRecord:
    """One record of pgAudit."""

    statement_id: str
    command: str
    object_type: str
    schema: Optional[str]
    name: Optional[str]
    text: str

    def precise(self, harms: list[Damage]) -> list[Damage]:
        """What the statement takes, with the object that pgAudit names in full."""
        if self.name is None:
            return harms
        named = (self.schema, self.name)
        found: list[Damage] = []
        for harm in harms:
            bare = (None, self.name) in harm.names
            names = tuple(named if bare and name == (None, self.name) else name for name in harm.names)
            found.append(Damage(harm.kind, names, harm.whole, harm.cascade, harm.if_exists, harm.note))
        if any(named in harm.names for harm in found):
            return found
        kind = self.command.split(" ")[0].lower()
        if kind == "drop" and self.object_type.lower() in RELATION_KINDS:
            found.append(Damage("drop_table", (named,)))
        elif kind in ("truncate", "delete", "update"):
            found.append(Damage(kind, (named,), whole=kind == "truncate"))
        return found


def audit_record(message: str) -> Optional[AuditRecord]:
    """A message of pgAudit ("Format" in its README: CSV after AUDIT:); None when it has no statement."""
    # One record is one line for the reader, whether pgAudit quoted its newlines or not.
    row = next(csv.reader([message.partition("AUDIT: ")[2].replace("\n", "\v")]), [])
    row = [cell.replace("\v", "\n") for cell in row]
    if len(row) < 8:
        return None
    schema, name = _object(row[6])
    counted = len(row) == 10 and row[9].isdigit()  # pgaudit.log_rows
    # A statement that was not quoted falls apart at its commas.
    text = row[7] if len(row) <= 9 or counted else ",".join(row[7:-1])
    return AuditRecord(row[1], row[4], row[5], schema, name, text)


def _object(text: str) -> tuple[Optional[str], Optional[str]]:
    if "." not in text:
        return None, None
    try:
        (relation,) = parse_relation_list(text)
    except (RecoveryError, ValueError):
        return None, None
    return relation["schema"], relation["name"]


def _hidden(harm: Damage) -> str:
    if harm.kind != "hidden":
        return ""
    if harm.cascade:
        return "CASCADE from an object that is no relation"
    return harm.note if harm.whole else "inside a DO block"


def _flat(text: str) -> str:
    return " ".join(text.split())
