# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One grammar for moments, wherever a user may write one."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
EXAMPLE = "2026-01-31 14:05:00+00:00 (or Z), or +05:30 for a clock that is so far ahead of UTC"
_TIME = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)[ Tt](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?"
    r"\s*([Zz]|([+-])(\d\d)(?::?(\d\d))?)?\s*"
)


def parse_time(text: str, option: str) -> datetime:
    """Moment, in UTC, of an ISO 8601 text with date, time and a numeric UTC offset; ``option`` names it in errors.

    Seconds and their fraction may be left out. Without an offset it would mean different moments on different hosts.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise RecoveryError(
            f"{option}: {text!r} is no time. Nothing was changed. Write date, time and UTC offset, such as {EXAMPLE}."
        )
    year, month, day, hour, minute, second, fraction, zone, sign, zone_hours, zone_minutes = match.groups()
    if zone is None:
        raise RecoveryError(
            f"{option}: {text!r} has no UTC offset, so it means different moments on different hosts. "
            f"Nothing was changed. Add a numeric one, such as {EXAMPLE}."
        )
    offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    try:
        clock = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=timezone.utc)
        clock += timedelta(microseconds=int((fraction or "0").ljust(6, "0")))
        return clock + offset if sign == "-" else clock - offset
    except (ValueError, OverflowError) as error:
        raise RecoveryError(
            f"{option}: {text!r} is no time ({error}). Nothing was changed. Write one such as {EXAMPLE}."
        ) from None


def microseconds_of(moment: datetime) -> int:
    """Microseconds since 1970 (UTC), exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def seconds_lost(reached: str, until: str) -> Optional[float]:
    """Seconds of commits that are gone: from the last moment that was reached to ``until``, never below 0.

    Both are ISO 8601 texts as of parse_time(), which raises RecoveryError; None where ``reached`` is empty, not known.
    """
    if not reached:
        return None
    lost = parse_time(until, "until") - parse_time(reached, "reached")
    return max(0.0, round(lost.total_seconds(), 3))
