# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long phases took, in this incident and in those before it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

_PAST_RUNS = 5
AFTER_RESTORE = ("prove", "recover", "verify")
PHASES = (
    "plan",
    "contain",
    "locate",
    "restore",
    "prove",
    "recover",
    "repoint",
    "verify",
    "protect",
    "rebuild",
    "report",
)


def seconds_between(start: str, end: str) -> float:
    """Seconds from ``start`` to ``end``, both ISO 8601 with offset."""
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


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


def done_phases(events: list[dict[str, Any]], milestones: Sequence[str]) -> list[str]:
    """Names of the phases that a run which goes on leaves out: all from the first after the plan to the last milestone.

    A milestone is a phase that, once it has ended well, makes what came before it past: what was restored is in its
    place then, or has got its name. Until then a run goes through the phases again, and each step looks at the world.
    The plan is not among them: it is looked at in every run.
    """
    finished = finished_phases(events)
    reached = max((PHASES.index(name) for name in milestones if name in finished), default=0)
    return list(PHASES[1 : reached + 1])


def past_seconds(
    directory: Path, scenario: str, incident_id: str, strategy: str | None = None
) -> dict[str, float] | None:
    """Usual seconds of each phase: medians over the newest reports of this scenario that ended well in one go.

    ``strategy`` is the way back, where a scenario has several, which take their own time.
    """
    reports = []
    for report in _other_reports(directory, incident_id):
        try:
            if _compares(report, scenario) and _strategy(report) == strategy:
                reports.append(
                    (str(report["ended"]), {str(name): float(value) for name, value in report["seconds"].items()})
                )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # an older format: no past to learn from
    newest = [seconds for _ended, seconds in sorted(reports, key=lambda item: item[0])[-_PAST_RUNS:]]
    phases = {phase: None for seconds in newest for phase in seconds}
    return {
        phase: round(statistics.median([run[phase] for run in newest if phase in run]), 1) for phase in phases
    } or None


def past_strategies(directory: Path, scenario: str, incident_id: str) -> dict[str, dict[str, float]]:
    """What earlier runs have measured of each way back, as :class:`Facts` of ``_wal/ways.py`` has it."""
    found: dict[str, list[dict[str, float]]] = {}
    for report in sorted(_other_reports(directory, incident_id), key=lambda item: str(item.get("ended"))):
        try:
            strategy = _strategy(report)
            if strategy and _compares(report, scenario):
                seconds = {str(name): float(value) for name, value in report["seconds"].items()}
                after = sum(seconds.get(phase, 0.0) for phase in AFTER_RESTORE)
                run = {"restore": seconds.get("restore", 0.0), "seconds": after}
                loaded = float((report.get("came_back") or {}).get("bytes") or 0)
                if loaded and after:
                    run["bytes_per_second"] = loaded / after
                found.setdefault(strategy, []).append(run)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # an older format: no past to learn from
    return {
        strategy: {
            key: statistics.median([run[key] for run in runs[-_PAST_RUNS:] if key in run])
            for key in {key for run in runs[-_PAST_RUNS:] for key in run}
        }
        for strategy, runs in found.items()
    }


def _compares(report: Mapping[str, Any], scenario: str) -> bool:
    return bool(report["scenario"] == scenario and report["outcome"] == "done" and report["runs"] == 1)


def _strategy(report: Mapping[str, Any]) -> str | None:
    return (report.get("parameters") or {}).get("strategy")


def recovered_before(directory: Path, incident: Mapping[str, Any], incident_id: str) -> str | None:
    """What another incident in this folder has recovered of the same damage: its id and its verdict; the newest."""
    found = []
    for report in _other_reports(directory, incident_id):
        before = report.get("incident")
        same = isinstance(before, Mapping) and all(before.get(key) == incident.get(key) for key in ("lsn", "xid"))
        # A copy that was drilled on has production's positions in WAL, and other transactions there.
        if same and not report.get("drill") and incident.get("lsn") and report.get("verdict") in ("proved", "in_part"):
            found.append((str(report.get("ended")), f"{report.get('id')}: {report.get('headline')}"))
    return max(found)[1] if found else None


def _other_reports(directory: Path, incident_id: str) -> Iterator[dict[str, Any]]:
    for path in directory.glob("*/report.json"):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # another program's file
        if path.parent.name != incident_id and isinstance(report, dict):
            yield report
