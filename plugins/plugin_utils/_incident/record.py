# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The incident record: a folder on the controller that outlives any run of a playbook.

``record.json``   what is known of the runs and phases; the one source of truth, replaced atomically at each call
``events.jsonl``  its phases, one JSON object a line, for people and log collectors
``plan.json``     the plan that was shown and confirmed, written once
``evidence/``     one JSON file for each key of the collected data
``report.json``, ``report.html``  written when a run ends
``lock``          the run that is working on the incident
"""

from __future__ import annotations

import getpass
import json
import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import RunLock, this_run
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import build_report, render_html
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.values import clean, mask_text, merge

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
_DATA_KEY = re.compile(r"[A-Za-z0-9_]{1,60}")
_PAST_RUNS = 5


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def seconds_between(start: str, end: str) -> float:
    """Seconds from ``start`` to ``end``, both ISO 8601 with offset."""
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


def check_id(incident_id: str) -> str:
    """``incident_id`` when it can name a folder and end a PostgreSQL identifier; else IncidentError."""
    if not _ID.fullmatch(incident_id):
        raise IncidentError(
            f"incident id {incident_id!r} cannot be used: it names a folder and ends names in PostgreSQL, so it is "
            "made of 1 to 40 letters, digits, underscores and dashes, the first no dash. Nothing was touched."
        )
    return incident_id


def write_atomically(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` so that either the old or the new text is there whenever the machine dies."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def operator() -> str:
    """Who runs this: the operating system user, and behind sudo the person who called it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"  # a container user without an entry in passwd


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """What ``path`` holds; None when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise IncidentError(
            f"{path} is no valid JSON ({error}). It is never written half: restore it, or use another incident id."
        ) from error


def phase_seconds(events: list[dict[str, Any]], until: str) -> dict[str, float]:
    """Seconds spent in each phase, all its events added up; a phase still running counts up to ``until``."""
    seconds: dict[str, float] = {}
    for event in events:
        spent = seconds_between(event["start"], event["end"] or until)
        seconds[event["phase"]] = round(seconds.get(event["phase"], 0.0) + spent, 3)
    return seconds


def finished_phases(events: list[dict[str, Any]]) -> list[str]:
    """Names of the phases whose last event ended well, in the order they were first begun."""
    last = {event["phase"]: event["outcome"] for event in events}
    return [phase for phase, outcome in last.items() if outcome == "ok"]


def past_seconds(directory: Path, scenario: str, incident_id: str) -> dict[str, float] | None:
    """Usual seconds of each phase: medians over the newest reports of this scenario that ended well in one go."""
    reports = []
    for path in directory.glob("*/report.json"):
        if path.parent.name == incident_id:
            continue
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["scenario"] == scenario and report["outcome"] == "done" and report["runs"] == 1:
                reports.append(
                    (str(report["ended"]), {str(name): float(value) for name, value in report["seconds"].items()})
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # another program's file, or an older format: no past to learn from
    newest = [seconds for _ended, seconds in sorted(reports, key=lambda item: item[0])[-_PAST_RUNS:]]
    phases = {phase: None for seconds in newest for phase in seconds}
    return {
        phase: round(statistics.median([run[phase] for run in newest if phase in run]), 1) for phase in phases
    } or None


class IncidentRecord:
    """The record of one incident, below ``directory``. With ``check_mode`` nothing is ever written."""

    def __init__(
        self,
        directory: str,
        incident_id: str,
        *,
        scenario: str = "",
        parameters: Mapping[str, Any] | None = None,
        check_mode: bool = False,
        host: str = "localhost",
        now: Callable[[], str] = utc_now,
        run: Callable[[], dict[str, Any]] = this_run,
    ) -> None:
        self.id = check_id(incident_id)
        self.directory = Path(directory).expanduser().absolute()
        self.path = self.directory / self.id
        self.scenario = scenario
        self.parameters = clean(dict(parameters or {}))
        self.check_mode = check_mode
        self.host = host
        self.now = now
        self.run = run
        self.lock = RunLock(self.path / "lock")
        self.state: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.report: dict[str, Any] = {}

    # What a task can ask for. Each returns the record as it is afterwards, and whether something was written.

    def open(self) -> tuple[dict[str, Any], bool]:
        """Begin the incident, or take it up again where an earlier run left it."""
        if self.check_mode:
            self._load()
            self._refuse_other()
            self.state = self.state or self._fresh()
            return self._result(past=True), False
        for folder in (self.directory, self.path, self.path / "evidence"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.lock.guard():
            self._load()
            self._refuse_other()
            if self.state.get("outcome") == "done":
                return self._result(past=True), False
            self.lock.take(self.run())
            self._remove_halves()
            now = self.now()
            if self.state:
                self._end_running_phase("interrupted", now)
                if self.state["runs"][-1]["outcome"] == "running":
                    self.state["runs"][-1].update(ended=now, outcome="interrupted")
            else:
                self.state = self._fresh(now)
            self.state.update(outcome="running", message=None, ended=None)
            me = self.run()
            self.state["runs"].append(
                {"started": now, "ended": None, "outcome": "running", "operator": operator(), "host": me["host"]}
            )
            self._save()
            return self._result(past=True), True

    def planned(self, data: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Keep the plan: all data collected so far. Once there is a plan it stays, and ``data`` is not looked at."""
        with self._working():
            if read_json(self.path / "plan.json") is not None:
                return self._result(past=True), False
            self._merge(data)
            plan = {"planned_at": self.now(), **self.data}
            if self.check_mode:
                return {**self._result(past=True), "plan": plan}, False
            write_atomically(self.path / "plan.json", to_json(plan))
            self._save()
            return self._result(past=True), True

    def phase(self, name: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """End the running phase well and start phase ``name``; the phase that already runs just goes on."""
        with self._working():
            self._merge(data)
            running = self._running_event()
            if running is None or running["phase"] != name:
                now = self.now()
                self._end_running_phase("ok", now)
                self.state["events"].append(
                    {"phase": name, "step": None, "host": self.host, "start": now, "end": None, "outcome": "running"}
                )
            self._save()
            return self._result(), not self.check_mode

    def end(
        self, outcome: str, data: Mapping[str, Any], message: str | None, step: str | None
    ) -> tuple[dict[str, Any], bool]:
        """End the run (``outcome`` is done or failed) and write the report. A failed incident can be opened again."""
        with self._working():
            self._merge(data)
            now = self.now()
            running = self._running_event()
            if running is not None:
                running["step"] = step
            self._end_running_phase("ok" if outcome == "done" else "failed", now)
            for run in self.state["runs"][-1:]:
                run.update(ended=now, outcome=outcome)
            self.state.update(outcome=outcome, message=mask_text(message) if message else None, ended=now)
            if not self.check_mode:
                # The report first: a run killed between the two finds the incident open and writes both again.
                self.report = build_report(self.state, self.data, read_json(self.path / "plan.json"), self._seconds())
                write_atomically(self.path / "report.json", to_json(self.report))
                write_atomically(self.path / "report.html", render_html(self.report))
                self._save()
                self.lock.release()
            return self._result(), not self.check_mode

    # How it is done.

    def _fresh(self, now: str | None = None) -> dict[str, Any]:
        return {
            "id": self.id,
            "scenario": self.scenario,
            "parameters": self.parameters,
            "started": now or self.now(),
            "ended": None,
            "outcome": "running",
            "message": None,
            "runs": [],
            "events": [],
        }

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The files read and guarded, once sure that this run has opened the incident; in check mode only read."""
        if self.check_mode:
            self._load()
            self.state = self.state or self._fresh()
            yield
            return
        if not (self.path / "record.json").is_file():
            raise IncidentError(
                f"there is no incident {self.id} in {self.directory}: open it first (state=open). Nothing was touched."
            )
        with self.lock.guard():
            self._load()
            if self.state["outcome"] != "running" or not self.lock.is_held_by(self.run()):
                raise IncidentError(
                    f"incident {self.id} in {self.path} is not open for this run (it is {self.state['outcome']}): "
                    "open it first (state=open). Nothing was touched."
                )
            yield

    def _load(self) -> None:
        self.state = read_json(self.path / "record.json") or {}
        evidence = self.path / "evidence"
        self.data = (
            {path.stem: read_json(path) for path in sorted(evidence.glob("*.json"))} if evidence.is_dir() else {}
        )

    def _refuse_other(self) -> None:
        """Raise IncidentError when the incident on disk is about something else."""
        if not self.state:
            return
        differences = []
        if self.state["scenario"] != self.scenario:
            differences.append(f"scenario was {self.state['scenario']}, now {self.scenario}")
        known = self.state["parameters"]
        for name in sorted(known.keys() | self.parameters.keys()):
            before, now = (json.dumps(side.get(name), ensure_ascii=False) for side in (known, self.parameters))
            if before != now:
                differences.append(f"{name} was {before}, now {now}")
        if differences:
            raise IncidentError(
                f"incident {self.id} in {self.path} is about something else: {'; '.join(differences)}. "
                "Nothing was touched. Give the same values to go on with it, or another id for another incident."
            )

    def _remove_halves(self) -> None:
        for folder in (self.path, self.path / "evidence"):
            for half in folder.glob(".*.tmp"):
                half.unlink()

    def _merge(self, data: Mapping[str, Any]) -> None:
        for key, value in clean(dict(data)).items():
            if not _DATA_KEY.fullmatch(key):
                raise IncidentError(
                    f"data key {key!r} cannot name an evidence file: use up to 60 letters, digits and underscores."
                )
            merged = merge(self.data.get(key), value)
            if key in self.data and merged == self.data[key]:
                continue
            self.data[key] = merged
            if not self.check_mode:
                write_atomically(self.path / "evidence" / f"{key}.json", to_json(merged))

    def _running_event(self) -> dict[str, Any] | None:
        events = self.state["events"]
        return events[-1] if events and events[-1]["end"] is None else None

    def _end_running_phase(self, outcome: str, now: str) -> None:
        event = self._running_event()
        if event is not None:
            event.update(end=now, outcome=outcome)

    def _seconds(self) -> dict[str, float]:
        return phase_seconds(self.state["events"], self.state["ended"] or self.now())

    def _save(self) -> None:
        if self.check_mode:
            return
        write_atomically(self.path / "record.json", to_json(self.state))
        lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in self.state["events"])
        write_atomically(self.path / "events.jsonl", "".join(lines))

    def _result(self, past: bool = False) -> dict[str, Any]:
        running = self._running_event()
        record = {
            "id": self.id,
            "path": str(self.path),
            "scenario": self.state["scenario"],
            "parameters": self.state["parameters"],
            "started": self.state["started"],
            "resumed": len(self.state["runs"]) > 1,
            "closed": self.state["outcome"] == "done",
            "outcome": self.state["outcome"],
            "plan": read_json(self.path / "plan.json"),
            "finished_phases": finished_phases(self.state["events"]),
            "phase": running["phase"] if running else None,
            "seconds": self._seconds(),
            "data": self.data,
        }
        if past:
            record["past_seconds"] = past_seconds(self.directory, self.state["scenario"], self.id)
        return record
