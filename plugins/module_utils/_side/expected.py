# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a restore will take on this host, by what restore tests here have measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from statistics import median
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, duration, size

NEWEST = 5  # tests that count


def history_of(state_path: str, stanza: str) -> Mapping[str, Any]:
    """The history of a stanza's restore tests on this host; empty where there is none that can be read."""
    with (
        suppress(OSError, ValueError),
        open(os.path.join(state_path, f"verification-{stanza}.json"), encoding="utf-8") as file,
    ):
        found = json.load(file)
        if isinstance(found, dict):
            return found
    return {}


def expected(history: Mapping[str, Any], repo: int, restored: int, replayed: int) -> Optional[dict[str, Any]]:
    """``{seconds: {restore, replay}, bytes_per_second: {restore, replay}, tests}`` for so many bytes of a repository.

    None where no test of that repository has measured a restore. A replay that was never long enough to be measured is
    left out.
    """
    speeds: dict[str, list[float]] = {"restore": [], "replay": []}
    for attempt in history.get("attempts") or []:
        if isinstance(attempt, Mapping) and attempt.get("repo") == repo:
            for phase, value in (attempt.get("bytes_per_second") or {}).items():
                if phase in speeds and isinstance(value, (int, float)) and value > 0:
                    speeds[phase].append(value)
    if not speeds["restore"]:
        return None
    usual = {phase: median(values[-NEWEST:]) for phase, values in speeds.items() if values}
    much = {"restore": restored, "replay": replayed}
    return {
        "seconds": {phase: round(much[phase] / speed, 1) for phase, speed in usual.items()},
        "bytes_per_second": {phase: round(speed) for phase, speed in usual.items()},
        "tests": len(speeds["restore"][-NEWEST:]),
    }


def expected_shown(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    parts = [
        f"{phase} {duration(seconds)} at {size(found['bytes_per_second'][phase])}/s"
        for phase, seconds in found["seconds"].items()
    ]
    by = counted(found["tests"], "restore test")
    return [f"{', '.join(parts)}, as {by} of this repository on this host measured"]
