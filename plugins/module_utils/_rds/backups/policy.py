# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tier of the backup policy means on RDS. Pure functions.

The same table as on servers drives it (``_policy/tiers.py``); what RDS cannot do is refused or told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import DAY, resolve

# "Working with backups" and "Restoring to a specified time" in the RDS user guide.
SHORTEST_RETENTION, LONGEST_RETENTION = 1, 35
WINDOW_MINUTES = 30
# Transaction logs are uploaded every five minutes; nothing newer survives the loss of the storage.
ACHIEVABLE_RPO = 300

# man systemd.time, "Calendar events". Only what is needed here: RDS knows a time of the day, and copies a distance.
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SHORTHANDS = {
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::\d{2}(?:\.\d+)?)?")
_DATE = re.compile(r"(?:[\d*,./~]+-)?[\d*,./]+[-~][\d*,./~]+")


def _fields(calendar: str) -> list[str]:
    return _SHORTHANDS.get(calendar.strip().lower(), calendar).split()


def time_of_day(calendar: str) -> Optional[tuple[int, int]]:
    """Hour and minute in UTC of a calendar time of systemd; None where there is not exactly one.

    A time without a zone is taken for UTC, which is all that RDS knows.
    """
    times = [field for field in _fields(calendar) if ":" in field]
    rest = [field for field in _fields(calendar) if ":" not in field and not _is_day(field)]
    if rest and [field.upper() for field in rest] != ["UTC"]:
        return None
    if not times:
        # A date alone means midnight.
        return (0, 0) if _fields(calendar) and not rest else None
    found = _TIME.fullmatch(times[0])
    return (int(found.group(1)), int(found.group(2))) if found and len(times) == 1 else None


def _is_day(field: str) -> bool:
    return bool(_DATE.fullmatch(field)) or bool(_weekdays(field))


def _weekdays(field: str) -> set[int]:
    """Days of ``Mon``, ``Mon,Wed`` or ``Mon..Fri`` (0 is Monday); none when it names no weekdays."""
    found: set[int] = set()
    for part in field.lower().rstrip(",").split(","):
        ends = [end[:3] for end in re.split(r"\.\.|-", part)]
        if len(ends) > 2 or not set(ends) <= set(_WEEKDAYS):
            return set()
        first, last = _WEEKDAYS.index(ends[0]), _WEEKDAYS.index(ends[-1])
        found |= {day % 7 for day in range(first, last + 1 if last >= first else last + 8)}
    return found


def longest_distance(calendar: str) -> int:
    """Longest time between two elapses in seconds, in whole days: by weekdays where it names some, else one day.

    That is a day also for what elapses more often, and for days of the month: a copy too many is no harm.
    """
    days = sorted(day for field in _fields(calendar) for day in _weekdays(field))
    gaps = [later - earlier for earlier, later in zip(days, [*days[1:], days[0] + 7])] if days else [1]
    return max(gaps) * DAY


def backup_window(calendar: str) -> Optional[str]:
    """The window of RDS that begins at the calendar's time of the day; None where it has not exactly one."""
    found = time_of_day(calendar)
    if found is None:
        return None
    begin = found[0] * 60 + found[1]
    end = (begin + WINDOW_MINUTES) % 1440
    return f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"


def rds_policy(tier: str, tiers: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of a database on RDS, from its tier and its own fields over it.

    ``backup_retention_period`` in days; ``preferred_backup_window`` or None; ``copy_every`` in seconds, the longest
    time between two full backups; ``copy_count``, how many copies reach back as far as ``window``; ``rpo`` and
    ``rpo_achievable`` in seconds; ``notes``, what is not as the tier promises. Raises RecoveryError for what RDS cannot
    do.
    """
    policy = resolve(tier, tiers, overrides)
    seconds = policy["seconds"]
    days = max(math.ceil(seconds["window"] / DAY), SHORTEST_RETENTION)
    if days > LONGEST_RETENTION:
        raise RecoveryError(
            f"window {policy['window']} of tier {tier!r} is {days} days, and automated backups of RDS reach back "
            f"{LONGEST_RETENTION} days at most. Nothing was changed. Set window to {LONGEST_RETENTION}d "
            f"(backup_policy: {{window: {LONGEST_RETENTION}d}}) and keep what must be older as copies of snapshots: "
            f"rds_backup_copies, with max_age {policy['window']}."
        )
    calendar = str((policy.get("schedule") or {}).get("full") or "")
    if not calendar:
        raise RecoveryError(
            f"tier {tier!r} has no schedule.full, from which the backup window and the distance of copies are taken. "
            "Nothing was changed. Set it in backup_policy or backup_tiers, such as schedule: {full: '*-*-* 01:00'}."
        )
    notes = []
    if seconds["rpo"] < ACHIEVABLE_RPO:
        notes.append(
            f"rpo of tier {tier!r} is {policy['rpo']}, and RDS can be restored to about {ACHIEVABLE_RPO // 60} minutes "
            "ago at best. A standby (Multi-AZ) or Aurora's storage loses less when a machine fails."
        )
    window = backup_window(calendar)
    if window is None:
        notes.append(
            f"schedule.full '{calendar}' has no single time of the day in UTC: the backup window stays as it is."
        )
    every = longest_distance(calendar)
    return {
        "tier": tier,
        "backup_retention_period": days,
        "preferred_backup_window": window,
        "copy_every": every,
        # One more than fits in, since the oldest goes as soon as a new one has come.
        "copy_count": math.ceil(seconds["window"] / every) + 1,
        "rpo": seconds["rpo"],
        "rpo_achievable": ACHIEVABLE_RPO,
        "notes": notes,
    }
