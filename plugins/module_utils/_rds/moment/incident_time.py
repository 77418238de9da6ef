# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for the moment of an incident on RDS: which evidence is looked at, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.evidence import Database, reading
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.server_log import RDS_PREFIX, LogReader
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.statements import damage, split
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.bisect import plan_bisect
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.log_search import LogSearch
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.logged_source import Source
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.logs import (
    CloudWatchReader,
    FileReader,
    group_name,
    log_files,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import (
    LISTED,
    Candidate,
    State,
    Subject,
    Wanted,
    choose,
    exact,
    listed,
    lost_at_most,
    target_at,
    target_before,
)

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

LOOK_BACK = timedelta(hours=24)
NO_DATABASE = "3D000"  # SQLSTATE invalid_catalog_name


@dataclass(frozen=True)
class Asked:
    """Whose moment is looked for, where and when; ``target_time`` is one that somebody knows."""

    database: str
    db_instance_identifier: Optional[str] = None
    db_cluster_identifier: Optional[str] = None
    relations: Sequence[str] = ()
    schemas: Sequence[str] = ()
    since: Optional[str] = None
    until: Optional[str] = None
    target_time: Optional[str] = None


class Search:
    """Looks for the moment of one incident."""

    def __init__(
        self, rds: Rds, logs: Callable[[], Any], login: Login, asked: Asked, progress: Progress, now: datetime
    ) -> None:
        """``login`` leads to the database; without a host to the one that AWS tells."""
        self.rds = rds
        self.login = login
        self.asked = asked
        self.progress = progress
        self.now = now
        self._logs = logs
        self.until = parse_time(asked.until, "until") if asked.until else now
        self.since = parse_time(asked.since, "since") if asked.since else self.until - LOOK_BACK
        if self.since >= self.until:
            raise RecoveryError(
                f"since {self.since.isoformat()} is not before until {self.until.isoformat()}. Nothing was changed."
            )
        self.wanted = Wanted.of(asked.database, parse_relation_list(asked.relations), parse_schema_list(asked.schemas))
        self.evidence: list[dict[str, Any]] = []
        self.states: dict[Subject, State] = {}
        self.settings: dict[str, str] = {}
        self.read: dict[str, Any] = {"instances": [], "files": 0, "bytes": 0, "events": 0, "lines": 0, "statements": 0}

    def _say(self, source: str, text: str) -> None:
        self.evidence.append({"source": source, "text": text})

    def find(self) -> dict[str, Any]:
        """The target just before the incident, how precise it is, and on what evidence."""
        source = Source.read(self.rds, self.asked.db_instance_identifier, self.asked.db_cluster_identifier)
        if self.asked.target_time:
            return self._given(self.asked.target_time)
        database = self._database(source)
        try:
            with reading():
                known = self._known(database) if database else []
            candidates = self._in_log(source)
            with reading():
                self._sharpen(candidates, database)
        finally:
            if database:
                database.close()
        for one in candidates:
            # What the log shows open at the end of the window was not, if that is some time ago.
            if one.outcome == "open" and one.source == "log" and self.until < self.now:
                one.outcome = "unknown"
        candidates = [one for one in exact(candidates, known) if self._in_window(one)]
        chosen, unknown = choose(self.wanted, candidates, self.states)
        if chosen is None or unknown:
            raise self._nothing(source, unknown, chosen, candidates)
        if source.engine.startswith("aurora"):
            self._say("aws", "Aurora restores its storage, not WAL, to the second; look at what the restore holds")
        method = "commit_timestamp" if chosen.commit else chosen.source
        lost = lost_at_most(chosen)
        return {
            "target": target_before(chosen, self.wanted),
            "precision_seconds": chosen.precision(),
            "lost_at_most": lost,
            "lost": {"seconds": chosen.precision(), "why": lost},
            "method": method,
            "incident": self._incident(chosen, method, lost),
            "candidates": listed(candidates, self.wanted.database),
            "evidence": self.evidence,
            "looked_at": self._looked_at(),
        }

    def _in_window(self, one: Candidate) -> bool:
        # The log cuts off the fraction of its second.
        latest = one.commit or one.not_before + timedelta(seconds=one.resolution)
        return self.since <= latest and one.started <= self.until

    def _looked_at(self) -> dict[str, Any]:
        return {"since": self.since.isoformat(), "until": self.until.isoformat(), **self.read}

    def _incident(self, one: Candidate, method: str, lost: str) -> dict[str, Any]:
        words = {
            "log": "the server's log",
            "activity": "the session that is still open",
            "commit_timestamp": "the database's commit timestamps",
        }
        shown = one.as_dict(self.wanted.database)
        return {
            **{
                key: shown[key] for key in ("kind", "relations", "rows", "pid", "user", "statement", "notes", "outcome")
            },
            "xid": one.xid or None,
            "database": self.wanted.database,
            "commit_time": (one.commit or one.not_before).isoformat(),
            "found_by": words[method],
            "precision": lost,
        }

    # The operator's own moment

    def _given(self, text: str) -> dict[str, Any]:
        moment = parse_time(text, "target_time")
        whole = moment.replace(microsecond=0)
        if moment > self.now:
            raise RecoveryError(
                f"target_time {moment.isoformat()} is in the future (it is {self.now.isoformat()} now). Nothing was "
                "changed. Name the last moment before the damage."
            )
        cut = "" if whole == moment else f" RDS restores to whole seconds, so it is {whole.isoformat()}."
        lost = (
            f"Rows committed after {whole.isoformat()} are not in the restore, and what was committed up to then is. "
            f"How near that is to the incident is what whoever gave it knows.{cut}"
        )
        self._say("operator", f"target_time {text}")
        return {
            "target": target_at(whole, "the moment that was given (target_time)"),
            "precision_seconds": 1.0,
            "lost_at_most": lost,
            "lost": {"seconds": None, "why": lost},
            "method": "operator",
            "incident": {
                "kind": "explicit",
                "database": self.wanted.database,
                "relations": [
                    {"schema": one.schema, "name": one.name} for one in self.wanted.subjects if one.name is not None
                ],
                "rows": None,
                "xid": None,
                "commit_time": None,
                "found_by": "whoever gave the moment",
                "precision": lost,
            },
            "candidates": [],
            "evidence": self.evidence,
            "looked_at": self._looked_at(),
        }

    # The database

    def _database(self, source: Source) -> Optional[Database]:
        """The database that was damaged, or the one to connect to when it is gone; None when neither is reached."""
        login = self.login.copy()
        if not login.get("login_host") and not login.get("login_unix_socket"):
            login["login_host"], login["login_port"] = source.host, source.port
        refused = ""
        for name in dict.fromkeys([self.wanted.database, login.get("login_db") or "postgres"]):
            try:
                found = Database(connect(login, name, application_name="dbre.recovery moment"))
            except RecoveryError as error:
                if refused == "" and self._is_gone(error):
                    refused = error.msg
                    self.states = dict.fromkeys(self.wanted.subjects, State(False))
                    self._say("database", f"database {self.wanted.database} does not exist")
                    continue
                self._say("database", f"not looked at: {error.msg}")
                return None
            self.settings = found.settings
            return found
        return None

    def _is_gone(self, error: RecoveryError) -> bool:
        # libpq gives no SQLSTATE for a connection that was refused.
        return error.details.get("sqlstate") == NO_DATABASE or f'"{self.wanted.database}" does not exist' in error.msg

    def _known(self, database: Database) -> list[Candidate]:
        """What the database knows: what there is now, and changes with exact commit times."""
        found: list[Candidate] = []
        if not self.states:
            for subject in self.wanted.subjects:
                found += self._subject(database, subject)
        shown = ", ".join(f"{name}={text}" for name, text in sorted(self.settings.items()) if name != "log_line_prefix")
        self._say("settings", shown)
        if not database.keeps_times:
            self._say("commit_timestamp", "track_commit_timestamp is off, so the database does not know commit times")
        self._statistics(database)
        for text in database.refused:
            self._say("database", f"could not read {text}")
        return found

    def _subject(self, database: Database, subject: Subject) -> list[Candidate]:
        label = subject.label(self.wanted.database)
        if subject.schema is None:
            self.states[subject] = State(True)
            self._say("database", f"{label} exists")
            return []
        if subject.name is None:
            oids = database.relations_of(subject.schema)
            self.states[subject] = State(database.has_schema(subject.schema))
            relations = [item for item in (database.relation_by_oid(row["oid"]) for row in oids) if item]
        else:
            one = database.relation(subject.schema, subject.name)
            relations = [one] if one else []
            created = one["created"] if one else None
            self.states[subject] = State(one is not None, created)
            if created is not None:
                self._say("commit_timestamp", f"{label} was created at {created.isoformat()}")
        if not self.states[subject].present:
            self._say("database", f"{label} does not exist")
        found = []
        for relation in relations:
            counts = database.counts(relation["oid"])
            name = Subject(relation["schema"], relation["name"]).label(self.wanted.database)
            if counts:
                self._say(
                    "statistics",
                    f"{name}: {counts['n_tup_ins']} rows inserted, {counts['n_tup_upd']} updated, "
                    f"{counts['n_tup_del']} deleted since {database.stats_reset() or 'statistics began'}",
                )
            for change in relation["changes"]:
                self._say(
                    "commit_timestamp",
                    f"{name}: transaction {change['xid']} committed at {change['commit']}: {change['text']}",
                )
                found.append(_of_change(subject, change))
        return found

    def _statistics(self, database: Database) -> None:
        statements = database.statements(self.wanted.database)
        if statements is None:
            return
        for row in statements:
            if self._hits(row["query"], self.wanted.database):
                text = " ".join(row["query"].split())[:200]
                self._say("pg_stat_statements", f"{row['calls']} calls by {row['user']}, without a time: {text}")

    def _hits(self, query: str, database: Optional[str]) -> list[tuple[Any, dict[Subject, str]]]:
        """What a statement can have damaged of what is wanted."""
        harms = [harm for part in split(query) for harm in damage(part)]
        return [(harm, subjects) for harm in harms if (subjects := self.wanted.hit(harm, database))]

    def _sharpen(self, candidates: list[Candidate], database: Optional[Database]) -> None:
        """Add what open sessions tell, and the commit times of transactions whose number is in the log."""
        if database is None:
            return
        for one in candidates:
            commit = database.commit_time(one.xid)
            if commit is not None:
                one.commit, one.outcome = commit, "committed"
        if not database.facts["reads_all"]:
            self._say(
                "activity",
                f"role {database.facts['user']} sees only its own sessions' statements; GRANT pg_monitor TO "
                f"{database.facts['user']} shows all",
            )
        for row in database.activity():
            for harm, subjects in self._hits(row["query"], row["database"]):
                one = _of_session(harm, subjects, row)
                self._say("activity", f"{one.who()}, {row['state']}: {' '.join(row['query'].split())[:200]}")
                same = [
                    other
                    for other in candidates
                    if (other.pid, other.kind) == (one.pid, one.kind)
                    and abs((other.started - one.started).total_seconds()) <= 2
                ]
                if same:
                    same[0].not_before = max(same[0].not_before, one.started)
                    same[0].not_after = one.not_after
                    if one.outcome != "unknown":
                        same[0].outcome, same[0].source = one.outcome, "activity"
                else:
                    candidates.append(one)

    # The log

    def _in_log(self, source: Source) -> list[Candidate]:
        prefix = self.settings.get("log_line_prefix") or self._parameter(source, "log_line_prefix") or RDS_PREFIX
        if source.exported:
            found = self._in_cloudwatch(source, prefix)
            if found is not None:
                return found
        found = []
        for instance in source.instances:
            found += self._in_files(instance, prefix)
        return found

    def _parameter(self, source: Source, name: str) -> Optional[str]:
        if not source.parameter_group:
            return None
        try:
            return source.parameter(self.rds, name)
        except ClientError as error:
            self._say("settings", f"parameter group {source.parameter_group} cannot be read: {error_text(error)}")
            return None

    def _in_cloudwatch(self, source: Source, prefix: str) -> Optional[list[Candidate]]:
        group = group_name(source.identifier, source.cluster)
        reader = CloudWatchReader(self._logs(), group, self.progress)
        names = [one.name or one.schema or self.wanted.database for one in self.wanted.subjects]
        try:
            streams = reader.streams(names, self.since, self.until)
        except ClientError as error:
            if error_code(error) not in ("ResourceNotFoundException", "AccessDeniedException", "AccessDenied"):
                raise
            self._say("cloudwatch", f"log group {group} cannot be read, log files instead: {error_text(error)}")
            return None
        found: list[Candidate] = []
        for stream, lines in streams.items():
            log = LogReader(prefix, database=self.wanted.database)
            search = LogSearch(self.wanted, stream)
            found += search.search(log.entries(lines))
            self._count(stream, log, search)
        self.read["events"] = reader.events
        self._say("cloudwatch", f"log group {group}: {reader.events} events read, {len(found)} statements of interest")
        return found

    def _in_files(self, instance: str, prefix: str) -> list[Candidate]:
        files = log_files(self.rds, instance, self.since, self.until)
        reader = FileReader(self.rds, self.progress, sum(file.size for file in files))
        log = LogReader(prefix, database=self.wanted.database)
        search = LogSearch(self.wanted, instance)
        found = search.search(log.entries(reader.lines(files)))
        self._count(instance, log, search)
        self.read["files"] += len(files)
        self.read["bytes"] += reader.bytes
        self._say(
            "log",
            f"{instance}: {len(files)} files"
            + (f" from {files[0].name} to {files[-1].name}" if files else " written in that time")
            + f", {log.lines} lines, {search.statements} statements, {len(found)} of interest"
            + (f"; {log.unread} lines were not understood" if log.unread else "")
            + (f"; AWS cut {reader.cut} lines" if reader.cut else "")
            + (f"; gone while reading: {', '.join(reader.vanished)}" if reader.vanished else ""),
        )
        return found

    def _count(self, instance: str, log: LogReader, search: LogSearch) -> None:
        for subject, moment in search.made.items():
            if subject in self.states:
                self.states[subject] = replace(self.states[subject], made=moment)
        self.read["instances"].append(instance)
        self.read["lines"] += log.lines
        self.read["statements"] += search.statements

    # Nothing

    def _nothing(
        self, source: Source, unknown: list[Subject], chosen: Optional[Candidate], candidates: list[Candidate]
    ) -> RecoveryError:
        names = ", ".join(one.label(self.wanted.database) for one in unknown)
        looked = "; ".join(f"{item['source']}: {item['text']}" for item in self.evidence)
        undone = [one for one in candidates if one.outcome in ("failed", "rolled_back")]
        rest = [one for one in candidates if one not in undone and any(subject in one.subjects for subject in unknown)]
        maybe = [one for one in rest if all(one.rank(subject) == 1 for subject in unknown)]
        gone = {subject for subject in unknown if subject in self.states and not self.states[subject].present}
        anew = [one for one in rest if one not in maybe and one.remade & gone]
        undone_too = [one for one in rest if one not in maybe and one not in anew]
        more = ""
        if undone:
            last = undone[-1].not_before.isoformat()
            more += f" {len(undone)} statements failed or were rolled back, the last at {last}."
        if undone_too:
            more += " Seen, but it is there now and nothing shows that it was made anew after that:\n"
            more += "\n".join(one.line(self.wanted.database) for one in undone_too[-LISTED:]) + "\n"
        if anew:
            more += (
                " Seen, but the log shows it made anew after that, so that something else took it since (unless what "
                "was made without a schema's name is in another schema: then give the second of its drop as "
                "dr_target_time):\n"
            )
            more += "\n".join(one.line(self.wanted.database, offered=False) for one in anew[-LISTED:]) + "\n"
        if maybe:
            more += " Perhaps it was one of these, which do not name it:\n"
            more += "\n".join(one.line(self.wanted.database) for one in maybe[-LISTED:]) + "\n"
        if chosen is not None:
            more += f" Of the rest it is clear: {chosen.line(self.wanted.database)}."
        plan = plan_bisect(self.since, self.until)
        return RecoveryError(
            f"nothing tells when {names} of {source.identifier} was damaged between {self.since.isoformat()} and "
            f"{self.until.isoformat()}. Nothing was changed. Looked at: {looked}.{more} What a function or a DO block "
            "does is not in the log unless pgAudit is on. If it was earlier, give dr_since. If you know the moment, "
            "give it: -e dr_target_time=2026-11-25T03:12:00+00:00. The way that remains is "
            f"{plan['text']}. So that the next one is found to the second: {source.advice()}",
            candidates=listed(candidates, self.wanted.database),
            evidence=self.evidence,
            bisect={**plan, "after": self.since.isoformat(), "before": self.until.isoformat()},
        )


def _of_change(subject: Subject, change: Mapping[str, Any]) -> Candidate:
    one = Candidate(
        change["kind"],
        {subject: "high" if change["sure"] else "low"},
        change["commit"],
        "commit_timestamp",
        commit=change["commit"],
        outcome="committed",
        # An UPDATE of part of the rows is one among others.
        whole=change["kind"] != "update",
        xid=change["xid"],
        rows=change["rows"],
    )
    one.note(change["text"])
    return one


def _of_session(harm: Any, subjects: dict[Subject, str], row: Mapping[str, Any]) -> Candidate:
    state = str(row["state"] or "")
    one = Candidate(
        harm.kind,
        subjects,
        row["query_start"],
        "activity",
        row["query"],
        # A session is idle once its transaction is over.
        not_after=row["state_change"] if state == "idle" else None,
        outcome="unknown" if state == "idle" else "failed" if "aborted" in state else "open",
        whole=harm.whole,
        if_exists=harm.if_exists,
        pid=row["pid"],
        user=row["user"],
        database=row["database"],
        xid=int(row["xid"] or 0),
    )
    one.note(harm.note if harm.kind in ("rename", "drop_column") else "")
    return one
