# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of a drill: the verdict of the recovery itself, which nothing that is found afterwards makes better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident import verdict
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.files import read_json, to_json
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.page import render_html

_SHOWN = 5


@dataclass(frozen=True)
class Drilled:
    """What the steps of a drill have found; what did not come about is empty.

    ``run`` has the exit status ``rc`` of the recovery. ``failed`` is why the drill itself could not go on. With
    ``kept`` the copy stays, as was asked.
    """

    copy: Mapping[str, Any] = field(default_factory=dict)
    damage: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)
    removed: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""
    kept: bool = False


def read_drill(folder: Path) -> dict[str, Any]:
    """Where the drill with the record in ``folder`` has its copy; empty where there was no such drill."""
    return dict(read_json(folder / "drill.json") or {})


def begin(folder: Path, drill: Mapping[str, Any]) -> None:
    """Note where the copy will be, so that it is found when the drill is killed; an earlier try's record is kept aside.

    Raises IncidentError where a real incident has the id.
    """
    if folder.exists() and not read_drill(folder):
        raise IncidentError(
            f"{folder} is the record of an incident, and no drill's. Nothing was touched. Give the drill another id "
            "(dr_incident_id), or leave it out."
        )
    if folder.exists():
        number = next(n for n in count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{number}"))
    folder.mkdir(mode=0o700, parents=True)
    write_atomically(folder / "drill.json", to_json(dict(drill)))


def doubts(drilled: Drilled) -> list[str]:
    """All that keeps a drill from being a success, in words; what could not be looked at is among it."""
    found = [drilled.failed] if drilled.failed else []
    if "rc" not in drilled.run:
        found.append("no recovery was run")
    elif drilled.run["rc"] != 0:
        found.append(f"the recovery ended with {drilled.run['rc']}")
    comparison = drilled.comparison
    if not comparison:
        found.append("the copy was not compared with what it was before the damage")
    elif comparison["equal"] is not True:
        different = list(comparison["different"])
        more = [f"{len(different) - _SHOWN} more"] if len(different) > _SHOWN else []
        found += [f"the copy is not as it was: {', '.join(different[:_SHOWN] + more)}"] if different else []
        if comparison["lost"]:
            found.append(f"{comparison['lost']} of {counted(comparison['written'], 'commit')} are lost")
    isolation = drilled.copy.get("isolation") or []
    found += [f"the copy was not isolated: {item['setting']}" for item in isolation if item["ok"] is not True]
    if drilled.copy and not isolation:
        found.append("the isolation of the copy was not read back")
    if not drilled.kept:
        found += _left(drilled)
    return found


def untouched(drilled: Drilled) -> bool:
    """Whether it was seen that nothing of production was touched."""
    isolation = drilled.copy.get("isolation") or []
    same = drilled.kept or (drilled.removed.get("repository") or {}).get("unchanged") is True
    return bool(isolation) and all(item["ok"] is True for item in isolation) and same


def _left(drilled: Drilled) -> list[str]:
    """What speaks against the copy being gone without a trace."""
    if not drilled.removed:
        return ["the copy was not removed, or nobody could see that it was"]
    found = list(drilled.removed["left"])
    if drilled.copy and drilled.removed["repository"].get("unchanged") is None:
        found.append("production's archive could not be compared with what it was")
    return found


def lines(drilled: Drilled) -> list[dict[str, str]]:
    """What a reader of the report wants to know of the drill: ``[{what, found}]``."""
    damage, comparison, found = drilled.damage, drilled.comparison, {}
    if damage:
        found["Damage"] = f"{damage['kind']} of {', '.join(damage['tables'])}: {counted(damage['rows'], 'row')}"
        if damage["kind"] == "crash":
            found["Damage"] = f"the primary was killed while {counted(damage['written'], 'row')} were committed to it"
    found["Before and after"] = "not compared"
    if comparison:
        found["Before and after"] = "equal, in every row and definition" if comparison["equal"] else "different"
        back = comparison["written"] - comparison["lost"]
        found["Commits made before the damage"] = f"{back} of {comparison['written']} are back"
        if comparison.get("old_primary"):
            found["Old primary"] = f"it {comparison['old_primary']}"
    read = drilled.copy.get("isolation") or []
    found["Isolation"] = f"{counted(len(read), 'setting')} read back from the copy"
    if drilled.kept:
        found["Clean-up"] = "the copy stays, as was asked"
    else:
        repository = drilled.removed.get("repository") or {}
        same = f"timelines {', '.join(repository.get('before') or [])}, before and after"
        found["Production's archive"] = same if repository.get("unchanged") else "not known to be unchanged"
        found["Clean-up"] = "not clean" if _left(drilled) else "nothing is left"
    return [{"what": what, "found": text} for what, text in found.items()]


def judge(folder: Path, drilled: Drilled) -> dict[str, Any]:
    """Bring what the drill has found into the report of its recovery, and write both anew; the report.

    ``folder`` is that of the record. Where no recovery has begun the report has the verdict alone.
    """
    found = doubts(drilled)
    report = read_json(folder / "report.json")
    complete = report is not None
    report = report or {"id": folder.name, "verdict": verdict.NOT_RECOVERED, "missing": [], "unproved": [], "drill": {}}
    judged = report["verdict"]
    if judged == verdict.PROVED and found:
        judged = verdict.IN_PART
    unproved = [*report["unproved"], *(one for one in found if one not in report["unproved"])]
    headline = verdict.headline(judged, report["missing"], unproved)
    if judged == verdict.NOT_RECOVERED:
        loud = [drilled.failed.rstrip(". "), *(drilled.removed.get("left") or [])]
        headline = ": ".join([headline, "; ".join(filter(None, loud))] if any(loud) else [headline])
    report.update(
        verdict=judged,
        headline=headline,
        unproved=unproved,
        drill={
            **(report["drill"] or {}),
            "lines": lines(drilled),
            "comparison": drilled.comparison,
            "doubts": found,
            "untouched": untouched(drilled),
        },
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not drilled.kept:
        # Advice on what is gone would lead nowhere.
        report.update(left_to_do=[], kept=[])
        _note_removed(folder)
    write_atomically(folder / "report.json", to_json(report))
    if complete:
        write_atomically(folder / "report.html", render_html(report))
    return dict(report)


def _note_removed(folder: Path) -> None:
    """So that no later incident names what was made beside the copy as overdue."""
    record = read_json(folder / "record.json")
    if record and record.get("side"):
        record["side"]["removed"] = record["side"]["removed"] or record["ended"] or record["started"]
        write_atomically(folder / "record.json", to_json(record))
