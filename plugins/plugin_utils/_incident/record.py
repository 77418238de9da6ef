# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The incident record: a folder on the controller that outlives any run of a playbook.

``record.json``   what is known of the runs and phases; the one source of truth, replaced atomically at each call
``events.jsonl``  its phases, one JSON object a line, for people and log collectors
``plan.json``     the plan that was shown; once it is confirmed it stays, unless what it describes has changed
``evidence/``     one JSON file for each key of the collected data
``report.json``, ``report.html``  written when a run ends
``lock``          the run that is working on the incident
"""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import incident_record, restore_plan
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import clean, mask_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.digest import plan_digest
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.files import read_json, to_json
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.history import (
    PHASES,
    done_phases,
    finished_phases,
    past_seconds,
    past_strategies,
    phase_seconds,
    recovered_before,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.kept import makes_something, new_side, overdue
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import RunLock, this_run
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.page import render_html
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import build_report
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.values import merge
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.verdict import needs_side_instance

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
_DATA_KEY = re.compile(r"[A-Za-z0-9_]{1,60}")
# What only says which part of the recovered instance is taken, and how: correctable until production is touched.
_CORRECTABLE = frozenset(["tables", "schemas", "load", "scope"])
# How applications are kept from writing meanwhile is no part of what is recovered: each run may choose.
_FREE = frozenset(["contain"])


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def check_id(incident_id: str) -> str:
    """``incident_id`` when it can name a folder and end a PostgreSQL identifier; else IncidentError."""
    if not _ID.fullmatch(incident_id):
        raise IncidentError(
            f"incident id {incident_id!r} cannot be used: it names a folder and ends names in PostgreSQL, so it is "
            "made of 1 to 40 letters, digits, underscores and dashes, the first no dash. Nothing was touched."
        )
    return incident_id


def operator() -> str:
    """Who runs this: the operating system user, and behind sudo the person who called it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"  # a container user without an entry in passwd


def _accepted(validate: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """What the validator of a contract makes of it; IncidentError where it refuses."""
    try:
        return dict(validate(*given))
    except RecoveryError as error:
        raise IncidentError(error.msg) from error


class IncidentRecord:
    """The record of one incident, below ``directory``. With ``check_mode`` nothing is ever written."""

    def __init__(
        self,
        directory: str,
        incident_id: str,
        *,
        scenario: str = "",
        parameters: Mapping[str, Any] | None = None,
        milestones: Sequence[str] = (),
        check_mode: bool = False,
        host: str = "localhost",
        drill: Mapping[str, Any] | None = None,
        now: Callable[[], str] = utc_now,
        run: Callable[[], dict[str, Any]] = this_run,
    ) -> None:
        self.id = check_id(incident_id)
        self.directory = Path(directory).expanduser().absolute()
        self.path = self.directory / self.id
        self.scenario = scenario
        self.parameters = clean(dict(parameters or {}))
        self.milestones = list(milestones)
        self.check_mode = check_mode
        self.host = host
        self.drill = clean(dict(drill)) if drill else None
        self.now = now
        self.run = run
        self.lock = RunLock(self.path / "lock")
        self._file = self.path / "record.json"
        self.state: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.report: dict[str, Any] = {}

    # What a task can ask for. Each returns the record as it is afterwards, and whether something was written.

    def read(self) -> tuple[dict[str, Any], bool]:
        """What is known of an incident that somebody has opened; nothing is written."""
        self._load()
        if not self.state:
            raise IncidentError(f"there is no record of incident {self.id} in {self.directory}. Nothing was touched.")
        return {**self._result(), "parameters": self.state["parameters"]}, False

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
            if self._valid_plan() is None:
                self._discard_plan()
            if self.state:
                self._end_running_phase("interrupted", now)
                if self.state["runs"][-1]["outcome"] == "running":
                    self.state["runs"][-1].update(ended=now, outcome="interrupted")
            else:
                self.state = self._fresh(now)
            self.state.update(outcome="running", message=None, ended=None, parameters=self.parameters)
            self.state["milestones"] = self.milestones
            me = self.run()
            self.state["runs"].append(
                {"started": now, "ended": None, "outcome": "running", "operator": operator(), "host": me["host"]}
            )
            self._save()
            return self._result(past=True), True

    def planned(self, data: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Keep the plan: all data collected so far, each subject of ``data`` as it is now.

        A plan that was confirmed stays, unless ``data`` has another target: then it is older than the world it
        describes, and has to be confirmed anew. What keeps applications from writing (``in_force``) is as it is, in
        each run, and makes no plan another one.
        """
        data = dict(data)
        seen = {key: data.pop(key) for key in ("in_force",) if key in data}
        with self._working():
            self._merge(seen, replace=True)
            plan = self._valid_plan(corrected=self.check_mode)
            if plan is not None and not (data and self._other_target(plan, data)):
                return self._with(plan), False
            before = plan or {}
            if data.get("restore_plan"):
                _accepted(restore_plan, data["restore_plan"])
            if not self.check_mode:
                self._discard_plan()
            self._merge(data, replace=True)
            plan = {"planned_at": self.now(), **self.data}
            if before:
                plan["instead_of"] = {key: before.get(key) for key in ("planned_at", "target")}
            if self.check_mode:
                return self._with(plan), False
            write_atomically(self.path / "plan.json", to_json(plan))
            self._save()
            return self._result(past=True), True

    def phase(
        self, name: str, data: Mapping[str, Any], keep: Mapping[str, str] | None = None, abandon: str = ""
    ) -> tuple[dict[str, Any], bool]:
        """End the running phase well and start phase ``name``; the phase that already runs just goes on.

        ``keep`` says under which names of Ansible's variables the phase will have found what, by subject; whoever ends
        it looks there. A phase that has nothing left to do is left alone. ``abandon`` is the command that gives up what
        the phase makes.
        """
        self._load()
        if self.state and name in self._done_phases():
            return self._result(), False
        with self._working():
            self._merge(data)
            running = self._running_event()
            if running is None or running["phase"] != name:
                now = self.now()
                self._end_running_phase("ok", now)
                self.state["events"].append(
                    {"phase": name, "step": None, "host": self.host, "start": now, "end": None, "outcome": "running"}
                )
                self.state["keep"] = dict(keep or {})
                if makes_something(name, self.state["parameters"]):
                    self.state["side"] = {**new_side(now, abandon), **self._kept_since()}
            self._save()
            return self._result(), not self.check_mode

    def wait(self) -> tuple[dict[str, Any], bool]:
        """End the run after its plan, and leave the incident to the one that confirms it."""
        with self._working():
            now = self.now()
            self._end_running_phase("ok", now)
            self.state["runs"][-1].update(ended=now, outcome="planned")
            self._save()
            self.lock.release()
            return self._result(), True

    def abandoned(self, message: str) -> tuple[dict[str, Any], bool]:
        """Note that what was made for the incident is removed; one that has ended well stays ended, and as it was."""
        if not self.check_mode:
            with self.lock.guard():
                self._load()
                if self.state["outcome"] == "done":
                    self._note_removed()
                    self._write_report()
                    self._save()
                    return self._result(), True
        return self.end("failed", {"removed": True}, message, None)

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
                self._write_report()
                self._save()
                self.lock.release()
            return self._result(), not self.check_mode

    # How it is done.

    def _write_report(self) -> None:
        plan = read_json(self.path / "plan.json")
        late = overdue(self.directory, self.id, self.now(), plan)
        self.report = build_report(self.state, self.data, plan, self._seconds(), late)
        write_atomically(self.path / "report.json", to_json(self.report))
        write_atomically(self.path / "report.html", render_html(self.report))

    def _kept_since(self) -> dict[str, Any]:
        """When what an earlier run made, and nobody has removed, expires."""
        side = self.state.get("side") or {}
        return {"expires": side["expires"]} if side and side["removed"] is None else {}

    def _note_removed(self) -> None:
        if self.state.get("side"):
            self.state["side"]["removed"] = self.state["side"]["removed"] or self.now()

    def _fresh(self, now: str | None = None) -> dict[str, Any]:
        begun: dict[str, Any] = {"id": self.id, "scenario": self.scenario, "parameters": self.parameters}
        begun.update(milestones=self.milestones, started=now or self.now(), ended=None, outcome="running")
        if self.drill:
            begun["drill"] = self.drill
        return _accepted(incident_record, {**begun, "message": None, "runs": [], "events": []}, self._file)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The files read and guarded, once sure that this run has opened the incident; in check mode only read."""
        if self.check_mode:
            self._load()
            self.state = self.state or self._fresh()
            yield
            return
        if not self._file.is_file():
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
        found = read_json(self._file)
        self.state = {} if found is None else _accepted(incident_record, found, self._file)
        evidence = self.path / "evidence"
        self.data = (
            {path.stem: read_json(path) for path in sorted(evidence.glob("*.json"))} if evidence.is_dir() else {}
        )

    def _corrected(self) -> dict[str, str]:
        """Parameters that are not what they were, by name, each with what it was and is."""
        known = self.state.get("parameters") or {}
        found = {}
        for name in sorted((known.keys() | self.parameters.keys()) - _FREE):
            before, now = (json.dumps(side.get(name), ensure_ascii=False) for side in (known, self.parameters))
            if before != now:
                found[name] = f"{name} was {before}, now {now}"
        return found

    def _refuse_other(self) -> None:
        """Raise IncidentError when the incident on disk is about something else.

        Before anything was carried out everything can be corrected; before production was touched, what is taken from
        the recovered instance. What is restored is of use for that, too.
        """
        if not self.state:
            return
        begun = {event["phase"] for event in self.state["events"]}
        differences = self._corrected()
        if not begun & {"contain", "locate", "restore", "recover"}:
            differences = {}
        elif "recover" not in begun:
            differences = {name: text for name, text in differences.items() if name not in _CORRECTABLE}
        words = list(differences.values())
        if self.state["scenario"] != self.scenario:
            words.insert(0, f"scenario was {self.state['scenario']}, now {self.scenario}")
        if words:
            raise IncidentError(
                f"incident {self.id} in {self.path} is about something else: {'; '.join(words)}. Nothing was touched. "
                "Give the same values to go on with it, or another id (dr_incident_id) for another incident."
            )

    def _valid_plan(self, corrected: bool = True) -> Any:
        """The plan that was confirmed and is of these parameters; None when one has to be made."""
        if "confirmation" not in self.data or (corrected and self._corrected()):
            return None
        return read_json(self.path / "plan.json")

    def _discard_plan(self) -> None:
        for path in (self.path / "plan.json", self.path / "evidence" / "confirmation.json"):
            path.unlink(missing_ok=True)
        self.data.pop("confirmation", None)

    @staticmethod
    def _other_target(plan: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
        """Whether ``data`` leads somewhere else than the plan does."""
        before, now = plan.get("target") or {}, data.get("target") or {}
        return any(str(before.get(key)) != str(now.get(key)) for key in ("type", "value", "timeline"))

    def _remove_halves(self) -> None:
        for folder in (self.path, self.path / "evidence"):
            for half in folder.glob(".*.tmp"):
                half.unlink()

    def _with(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The record with a plan that need not be on disk."""
        record = {**self._result(past=True), "plan": plan}
        return {**record, "digest": plan_digest(record)}

    def _merge(self, data: Mapping[str, Any], replace: bool = False) -> None:
        data = dict(data)
        if data.pop("removed", False):
            self._note_removed()
        if data.get("instance") and self.state.get("side"):
            data["instance"] = {**data["instance"], "expires": self.state["side"]["expires"]}
        for key, value in clean(data).items():
            if not _DATA_KEY.fullmatch(key):
                raise IncidentError(
                    f"data key {key!r} cannot name an evidence file: use up to 60 letters, digits and underscores."
                )
            merged = value if replace else merge(self.data.get(key), value)
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

    def _done_phases(self) -> list[str]:
        if self.state["outcome"] == "done":
            return list(PHASES)
        return done_phases(self.state["events"], self.state.get("milestones") or [])

    def _save(self) -> None:
        if self.check_mode:
            return
        write_atomically(self._file, to_json(self.state))
        lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in self.state["events"])
        write_atomically(self.path / "events.jsonl", "".join(lines))

    def _result(self, past: bool = False) -> dict[str, Any]:
        running = self._running_event()
        closed = self.state["outcome"] == "done"
        report = self.report or (read_json(self.path / "report.json") if closed else None) or {}
        record = {
            "id": self.id,
            "path": str(self.path),
            "scenario": self.state["scenario"],
            "parameters": self.parameters if self.check_mode else self.state["parameters"],
            "started": self.state["started"],
            "resumed": len(self.state["runs"]) > 1,
            "closed": closed,
            "outcome": self.state["outcome"],
            "plan": self._valid_plan() if self.check_mode else read_json(self.path / "plan.json"),
            "verdict": report.get("verdict"),
            "headline": report.get("headline"),
            "finished_phases": finished_phases(self.state["events"]),
            "done_phases": self._done_phases(),
            "keep": (self.state.get("keep") or {}) if running else {},
            "phase": running["phase"] if running else None,
            "seconds": self._seconds(),
            "data": self.data,
            "needs_side_instance": needs_side_instance(self.data),
            "side": self.state.get("side"),
            "host": self.state["events"][0]["host"] if self.state["events"] else None,
        }
        record["digest"] = plan_digest(record)
        if past:
            of_it = self.directory, self.state["scenario"], self.id
            record["past_seconds"] = past_seconds(*of_it, (self.state["parameters"] or {}).get("strategy"))
            record["past_strategies"] = past_strategies(*of_it)
            record["overdue"] = overdue(self.directory, self.id, self.now(), record.get("plan") or self.data)
            record["recovered_before"] = recovered_before(self.directory, self.data.get("incident") or {}, self.id)
        return record
