# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup policies: what a tier promises, how it is kept, and whether it can be. Pure functions.

One table drives schedules, retention and archiving; no number of it is written anywhere else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# rpo: what may be lost at most. rto: how long it may take until the data is back. window: how far back a restore must
# reach. archive_timeout: seconds after which a quiet server archives an unfinished segment. schedule and restore_test:
# systemd's OnCalendar. retention: pgBackRest's repo-retention-*. grace: how much later than usual a backup may end
# before there is an alert; severity: of the alerts. controls: what restore tests are evidence for, such as
# ISO 27001 A.8.13 or SOC 2 A1.2.
TIERS: dict[str, dict[str, Any]] = {
    "critical": {
        "rpo": "1m",
        "rto": "1h",
        "window": "21d",
        "archive_timeout": 60,
        "schedule": {"full": "Sun *-*-* 01:00", "diff": "Mon..Sat *-*-* 01:00", "incr": "*-*-* *:30"},
        "retention": {"full": 4, "full-type": "count", "diff": 14},
        "restore_test": "*-*-* 04:00",
        "grace": "30m",
        "severity": "critical",
    },
    "standard": {
        "rpo": "4h",
        "rto": "4h",
        "window": "7d",
        "archive_timeout": 900,
        "schedule": {"full": "*-*-* 01:00", "incr": "*-*-* *:30"},
        "retention": {"full": 8, "full-type": "count"},
        "restore_test": "Sun *-*-* 04:00",
        "grace": "2h",
        "severity": "warning",
    },
    "low": {
        "rpo": "24h",
        "rto": "24h",
        "window": "3d",
        "archive_timeout": 3600,
        "schedule": {"full": "*-*-* 01:00"},
        "retention": {"full": 4, "full-type": "count"},
        "restore_test": "*-*-01 04:00",
        "grace": "6h",
        "severity": "info",
    },
}
# What a tier of the user's may leave out.
USUAL: dict[str, Any] = {"grace": "2h", "severity": "warning", "controls": []}
SEVERITIES = ("critical", "warning", "info")
DURATIONS = ("rpo", "rto", "window", "grace")
FIELDS = frozenset([*TIERS["critical"], "controls"])
TYPES = ("full", "diff", "incr")
RETENTION = frozenset(["full", "full-type", "diff", "archive", "archive-type"])
DAY = 86400
# How many elapses of a schedule are looked at to find the longest time between two.
ITERATIONS = 40
_ELAPSE = re.compile(r"(?:Next elapse|Iter(?:\.|ation) #\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, dictionaries key by key; a key set to None is left out."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            base[key] = _merge(base[key], value)
        elif value is None:
            base.pop(key, None)
        else:
            base[key] = copy.deepcopy(value)
    return base


def resolve(tier: str, tiers: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of a host: its tier's row of the table, with the host's own fields over it.

    ``tiers`` are rows of the user's, laid over those of the same name or new. Raises RecoveryError for what is not
    known.
    """
    table = _merge(copy.deepcopy(TIERS), tiers)
    if tier not in table:
        raise RecoveryError(
            f"backup_tier {tier!r} is no tier. There are {', '.join(sorted(table))}; backup_tiers can hold more. "
            "Nothing was changed."
        )
    policy = _merge({**USUAL, **table[tier]}, overrides)
    for where, fields, known in (
        ("", policy, FIELDS),
        ("schedule.", policy.get("schedule") or {}, frozenset(TYPES)),
        ("retention.", policy.get("retention") or {}, RETENTION),
    ):
        unknown = sorted(set(fields) - known)
        if unknown:
            raise RecoveryError(
                f"a backup policy has no field {where}{unknown[0]}; {where or 'its fields '}: "
                f"{', '.join(sorted(known))}. Nothing was changed. Correct backup_tiers or backup_policy."
            )
    missing = sorted(FIELDS - set(policy))
    if missing:
        raise RecoveryError(
            f"tier {tier!r} lacks {', '.join(missing)}. Nothing was changed. Complete it in backup_tiers, or start "
            f"from a tier there is by giving only what differs in backup_policy."
        )
    if policy["severity"] not in SEVERITIES:
        raise RecoveryError(
            f"severity {policy['severity']!r} of tier {tier!r} is none of {', '.join(SEVERITIES)}. Nothing was "
            "changed. Correct backup_tiers or backup_policy."
        )
    seconds = {name: parse_age(policy[name]) for name in DURATIONS}
    return {"tier": tier, **policy, "seconds": seconds}


def elapses(text: str) -> list[datetime]:
    """Moments in ``systemd-analyze calendar --iterations=N`` printed with TZ=UTC, oldest first."""
    return [datetime.strptime(found, "%Y-%m-%d %H:%M:%S") for found in _ELAPSE.findall(text)]


def longest_gap(text: str) -> float:
    """Longest time between two elapses, in seconds; infinite where there are not two."""
    moments = elapses(text)
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(moments, moments[1:])]
    return max(gaps) if gaps else float("inf")


def faults(policy: Mapping[str, Any], gaps: Mapping[str, float]) -> list[str]:
    """Why a policy cannot keep what it promises. ``gaps``: seconds between two backups of each type, at the longest."""
    found = []
    seconds, retention = policy["seconds"], policy["retention"]
    timeout = int(policy["archive_timeout"])
    if not 0 < timeout <= seconds["rpo"]:
        found.append(
            f"archive_timeout {timeout} lets a quiet server lose up to {timeout or 'any number of'} s, and rpo is "
            f"{policy['rpo']}: set archive_timeout to at most {seconds['rpo']}"
        )
    for kind, gap in gaps.items():
        if gap == float("inf"):
            found.append(
                f"schedule.{kind} '{policy['schedule'].get(kind)}' elapses once at most: set it to a repeated time"
            )
    if "full" not in gaps:
        return [*found, "there is no schedule.full, and every backup needs a full one to build on"]
    window = _kept(retention.get("full"), str(retention.get("full-type", "count")), gaps["full"])
    if window < seconds["window"]:
        unit = "days" if retention.get("full-type") == "time" else "full backups"
        found.append(
            f"retention.full {retention.get('full')} {unit} with a full backup every {_days(gaps['full'])} reaches "
            f"back {_days(window)} at worst, and window is {policy['window']}: keep "
            f"{_least(seconds['window'], str(retention.get('full-type', 'count')), gaps['full'])} {unit}"
        )
    if retention.get("archive") is not None:
        kind = str(retention.get("archive-type", "full"))
        reach = _kept(retention["archive"], "count", gaps.get(kind, float("inf")))
        if reach < seconds["window"]:
            found.append(
                f"retention.archive {retention['archive']} (of type {kind}) keeps the WAL between backups for "
                f"{_days(reach)} at worst, and window is {policy['window']}: leave retention.archive out, or keep "
                f"{_least(seconds['window'], 'count', gaps.get(kind, gaps['full']))}"
            )
    return found


def _kept(count: Any, kind: str, gap: float) -> float:
    """Seconds that a retention reaches back just before a new backup lets the oldest expire."""
    number = int(count or 0)
    return number * DAY if kind == "time" else max(number - 1, 0) * gap


def _least(window: float, kind: str, gap: float) -> int:
    """The least retention that reaches back ``window`` seconds."""
    return int(-(-window // DAY)) if kind == "time" else int(-(-window // gap)) + 1


def _days(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    return f"{seconds / DAY:.3g} d" if seconds >= DAY else f"{seconds / 3600:.3g} h"


def refuse(policy: Mapping[str, Any], reasons: list[str], host: str) -> RecoveryError:
    """The error for a policy that cannot be kept."""
    return RecoveryError(
        f"the backup policy of {host} (tier {policy['tier']}) cannot be kept: {'; '.join(reasons)}. Nothing was "
        "changed. Correct backup_policy (or backup_tiers) and run again.",
        reasons=reasons,
    )
