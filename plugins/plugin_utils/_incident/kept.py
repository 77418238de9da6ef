# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an incident has beside production (a side instance, a standby that is held back), and what is overdue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import moment

# From then on every later run names it.
KEPT_FOR = timedelta(days=7)


class Side(TypedDict):
    """``side`` in the record: from before anything is made, so that what a killed run left is known, too."""

    expires: str
    removed: str | None
    abandon: str


class Overdue(TypedDict):
    """What another incident has kept for longer than it meant to."""

    incident: str
    what: str
    expires: str
    abandon: str


def makes_something(phase: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a phase makes what has to be removed again. A standby is held back before there is a plan."""
    return phase == "restore" or (phase == "plan" and parameters.get("source") == "standby")


def new_side(now: str, abandon: str) -> Side:
    """For a phase that begins now; ``abandon`` is the command that gives the incident up."""
    expires = (datetime.fromisoformat(now) + KEPT_FOR).isoformat(timespec="milliseconds")
    return {"expires": expires, "removed": None, "abandon": abandon}


def overdue(directory: Path, incident_id: str, now: str, plan: Mapping[str, Any] | None = None) -> list[Overdue]:
    """What other incidents still keep although it has expired, the oldest first.

    They have a record in this folder, or are what this incident's ``plan`` saw beside its own side instance: of that,
    the record may be with another controller, or gone.
    """
    found = _unrecorded(directory, incident_id, now, plan or {})
    for path in directory.glob("*/record.json"):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            side: Side = state["side"]
            late = side["removed"] is None and datetime.fromisoformat(side["expires"]) <= datetime.fromisoformat(now)
            name, abandon = str(state["id"]), str(side["abandon"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another program's file, or of a version that did not keep this
        # A restored database that has taken over is beside nothing.
        if late and name != incident_id and not (path.parent / "evidence" / "switch.json").exists():
            what = _what(path.parent)
            found.append({"incident": name, "what": what, "expires": side["expires"], "abandon": abandon})
    return sorted(found, key=lambda item: item["expires"])


def _unrecorded(directory: Path, incident_id: str, now: str, plan: Mapping[str, Any]) -> list[Overdue]:
    found: list[Overdue] = []
    for item in (plan.get("restore_plan") or {}).get("beside") or []:
        expires = datetime.fromisoformat(item["created"]) + KEPT_FOR
        known = item["incident"] == incident_id or (directory / item["incident"] / "record.json").exists()
        if known or expires > datetime.fromisoformat(now):
            continue
        host = plan.get("side_host")
        where = f" on {host}" if host else ""
        shell = f"; the command is for a shell{where}" if host else ""
        what = f"side instance {item['path']}{where} (without a record here{shell})"
        until = expires.isoformat(timespec="milliseconds")
        found.append({"incident": item["incident"], "what": what, "expires": until, "abandon": item["remove"]})
    return found


def _what(folder: Path) -> str:
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "what was made for it"
    restore, host = plan.get("restore_plan") or {}, plan.get("side_host")
    name = restore.get("path") or (restore.get("rds") or {}).get("target_identifier")
    if not name:
        return f"standby {host}, held back" if host else "what was restored for it"
    return f"side instance {name}" + (f" on {host}" if host else "")


def overdue_line(item: Overdue) -> str:
    """One sentence, without the command."""
    return f"incident {item['incident']} was to keep {item['what']} until {moment(item['expires'])}, and still does"


def overdue_to_do(item: Overdue) -> dict[str, str]:
    """The same as a thing left to do."""
    what = f"Give up what incident {item['incident']} keeps: {item['what']}"
    why = f"It was to be there until {moment(item['expires'])}, and nobody has removed it."
    return {"what": what, "why": why, "command": item["abandon"]}
