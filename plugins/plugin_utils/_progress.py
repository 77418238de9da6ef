# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import duration, number, size

FIRST_POLL = 5.0
SHORTEST_PAUSE = 3.0
LONGEST_PAUSE = 60.0


def pause_after(elapsed: float) -> float:
    """Seconds until the next look: 3 in the first minute, growing to 60; a long restore must not fill the screen."""
    return min(max(SHORTEST_PAUSE, elapsed / 20), LONGEST_PAUSE)


class Progress:
    """Turns what a module writes to its progress file into lines, and tells the time left from the lines before."""

    def __init__(self) -> None:
        self.shown = ""
        self.first: tuple[str, float, float] | None = None

    def line(self, text: str, now: float) -> str | None:
        """A line to print for file content ``text`` read at ``now`` (seconds); None when it says nothing new.

        ``text`` is one JSON object ``{"at", "what", "done", "total", "unit"}``; ``total`` is null when it is not known.
        """
        try:
            seen = json.loads(text)
            what, done, total = str(seen["what"]), float(seen["done"]), float(seen.get("total") or 0)
        except (ValueError, KeyError, TypeError):
            return None
        if text == self.shown:
            return None
        self.shown = text
        unit = str(seen.get("unit") or "")
        line = f"  {what}: {_amount(done, unit)}"
        if total > 0:
            whole = _amount(total, unit)
            same_unit = line.rpartition(" ")[2] == whole.rpartition(" ")[2]
            line = f"{line.rpartition(' ')[0] if same_unit else line} of {whole} ({min(100, int(100 * done / total))}%)"
        if self.first is None or self.first[0] != what or done < self.first[2]:
            self.first = (what, now, done)
        elif total > done > self.first[2] and now > self.first[1]:
            left = (total - done) * (now - self.first[1]) / (done - self.first[2])
            line += f", about {duration(max(1, round(left)))} left"
        return line


def _amount(value: float, unit: str) -> str:
    return size(value) if unit == "bytes" else f"{number(value)} {unit}".strip()


def progress_file(module: str, args: Mapping[str, Any]) -> str | None:
    """Path, on its host, of the file that a call of ``module`` (its short name) writes its progress to; None for none.

    A module for RDS, which works in no directory, gets one of its own unless it is given one.
    """
    if args.get("progress_file"):
        return str(args["progress_file"])
    if module.startswith("rds_"):
        # Not below remote_tmp, which need not exist yet; nobody can guess the name.
        return f"/tmp/.dbre-recovery-{uuid.uuid4().hex}.json"
    folder = args.get("path") or args.get("dump") or args.get("globals")
    if not folder:
        return None
    # A data directory must be empty for a standby to come into it.
    return f"{str(folder).rstrip('/')}{'.restoring' if module == 'pgbackrest_standby' else '/progress.json'}"
