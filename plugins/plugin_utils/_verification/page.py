# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``report.html`` of a restore test: what its ``report.json`` says, drawn for a screen, a phone and paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core import units
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.page import STYLE
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import target_text
from jinja2 import ChainableUndefined, Environment

PHASES = {
    "restore": "the files of the backup, or on AWS a copy that is available",
    "replay": "WAL up to the target",
    "ready": "until it lets clients in",
    "checked": "every check",
}


def bars(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases one behind the other: ``{phase, what, seconds, left, width}``, the last two in per cent of all."""
    seconds = report["seconds"]
    whole = sum(seconds.values()) or 1.0
    found, before = [], 0.0
    for phase, what in PHASES.items():
        if phase in seconds:
            spent = float(seconds[phase])
            place = {"left": round(100 * before / whole, 2), "width": round(100 * spent / whole, 2)}
            found.append({"phase": phase, "what": what, "seconds": spent, **place})
            before += spent
    return found


def past(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This test and those before it that measured an RTO, the newest first, each with its part of the longest."""
    tests = [*(report.get("earlier") or []), {name: report[name] for name in ("ended", "verdict", "rto", "rpo")}]
    measured = [one for one in tests if one.get("rto")]
    objective = (report.get("rto") or {}).get("objective")
    longest = max([float(one["rto"]["seconds"]) for one in measured] + [float(objective or 0), 0.1])
    # An objective of hours would leave nothing of tests of seconds to see.
    scale = longest if not objective or longest < 20 * max(one["rto"]["seconds"] for one in measured) else None
    return [
        {**one, "width": round(100 * float(one["rto"]["seconds"]) / scale, 2) if scale else None}
        for one in reversed(measured)
    ]


def page(report: Mapping[str, Any]) -> str:
    """One file that needs nothing else, every value escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined)
    environment.filters.update(
        counted=units.counted,
        duration=units.duration,
        moment=units.moment,
        size=units.size,
        number=units.number,
        target=target_text,
    )
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(r=report, bars=bars(report), past=past(report), style=STYLE)
