# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a moment by restores where no log tells it: at each, look whether what was lost is there. Pure.

Each restore halves the time that is left. Restores go to a whole second, so one second is as near as this can come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import target_at

# What a restore, a look and a deletion usually take on RDS. Measured times of earlier runs are better.
MINUTES_EACH = 30.0
PRECISION = 60.0


@dataclass(frozen=True)
class Tried:
    """What one restore showed: whether what was lost is there, and how many rows where that was counted."""

    time: datetime
    present: bool
    rows: Optional[int] = None


@dataclass(frozen=True)
class Window:
    """It was there at ``after`` and gone at ``before``. Whether ``after`` was looked at, and what was there."""

    after: datetime
    before: datetime
    seen: bool = False
    rows: Optional[int] = None

    def seconds(self) -> float:
        return (self.before - self.after).total_seconds()


def whole_second(moment: datetime) -> datetime:
    """The moment without its fraction, as a restore takes it."""
    return moment.replace(microsecond=0)


def narrow(after: datetime, before: datetime, tried: Sequence[Tried]) -> Window:
    """The window that what was tried leaves. Raises RecoveryError when it contradicts itself."""
    # What is gone at a moment is gone at the next whole second too.
    before = whole_second(before + timedelta(microseconds=999999))
    window = Window(whole_second(after), before)
    if window.after >= before:
        raise RecoveryError(
            f"the window is empty: there at {after.isoformat()}, gone at {before.isoformat()}. Nothing was changed. "
            "Give a later dr_until or an earlier dr_since."
        )
    for one in sorted(tried, key=lambda item: item.time):
        if one.present and one.time >= window.after:
            window = Window(one.time, window.before, True, one.rows)
    gone = [one.time for one in tried if not one.present]
    if gone and min(gone) <= window.after:
        raise RecoveryError(
            f"it was gone at {min(gone).isoformat()} and there at {window.after.isoformat()}: "
            + (
                "it was made anew or came back in between, so there is more than one incident"
                if window.seen
                else "the incident is older than the window"
            )
            + ". Nothing was changed. Give a window (dr_since, dr_until) that holds only the one that matters.",
            after=window.after.isoformat(),
            before=min(gone).isoformat(),
        )
    return Window(window.after, min([window.before, *gone]), window.seen, window.rows)


def next_moment(window: Window, precision: float) -> Optional[datetime]:
    """The second to restore to next; None when the window is narrow enough."""
    if window.seconds() <= max(precision, 1.0):
        return None
    return whole_second(window.after + timedelta(seconds=window.seconds() / 2))


def restores_left(seconds: float, precision: float) -> int:
    """The most restores that narrow ``seconds`` down to ``precision``: each halves, to a whole second."""
    count, left = 0, ceil(seconds)
    while left > max(precision, 1.0):
        left = ceil(left / 2)
        count += 1
    return count


def plan_bisect(
    after: datetime, before: datetime, precision: float = PRECISION, minutes_each: float = MINUTES_EACH
) -> dict[str, Any]:
    """What a bisect of the window costs: ``{restores, minutes_each, minutes, instance_hours, text}``."""
    seconds = max((before - after).total_seconds(), 0.0)
    restores = restores_left(seconds, precision)
    minutes = restores * minutes_each
    hours = round(minutes / 60, 1)
    return {
        "restores": restores,
        "minutes_each": minutes_each,
        "minutes": minutes,
        "instance_hours": hours,
        "text": (
            f"finding it by restores, between {after.isoformat()} and {before.isoformat()} to {precision:g} seconds, "
            f"takes at most {restores} restores one after the other: at {minutes_each:g} minutes each {hours:g} hours, "
            "and as many hours of an instance like the source, with its storage, on the bill"
        ),
    }


def step(
    after: str,
    before: str,
    tried: Sequence[Mapping[str, Any]],
    precision: float = PRECISION,
    minutes_each: float = MINUTES_EACH,
) -> dict[str, Any]:
    """Where a bisect stands, from what was tried so far (``{time, present, rows}``): what to try next, or the target.

    The same input gives the same answer, so a loop that was killed goes on where it was.
    """
    looks = [
        Tried(parse_time(str(item["time"]), "time"), bool(item["present"]), _rows(item.get("rows"))) for item in tried
    ]
    window = narrow(parse_time(after, "after"), parse_time(before, "before"), looks)
    following = next_moment(window, precision)
    plan = plan_bisect(window.after, window.before, precision, minutes_each)
    result: dict[str, Any] = {
        "after": window.after.isoformat(),
        "before": window.before.isoformat(),
        "seconds": window.seconds(),
        "done": following is None,
        "next": following.isoformat() if following else None,
        "restores": plan["restores"] if following else 0,
        "instance_hours": plan["instance_hours"] if following else 0.0,
        "text": plan["text"],
        "target": None,
        "precision_seconds": window.seconds(),
        "lost_at_most": (
            f"Rows committed after {window.after.isoformat()} and before the incident are not in the restore: those of "
            f"at most {window.seconds():g} s, since it was gone at {window.before.isoformat()}."
        ),
        "seen": window.seen,
        "rows": window.rows,
        "method": "bisect",
    }
    if following is None:
        result["text"] = f"found by {len(looks)} restores: {result['lost_at_most']}"
        result["target"] = target_at(
            window.after,
            f"there at {window.after.isoformat()}, gone at {window.before.isoformat()} ({len(looks)} restores)",
        )
    return result


def _rows(count: Any) -> Optional[int]:
    return None if count is None else int(count)
