# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a containment leaves where it was set, so that whoever comes after a killed run can undo it.

Others may write there, too: every value is looked at before it is used, and the worst that a made-up one leads to is
what whoever made it up could have done himself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

READ_ONLY = "default_transaction_read_only"
# Stands at the end of the database's comment, where whoever looks at the database sees it. Only a superuser could keep
# a setting of our own.
MARKER = "dbre.containment"
MARKED = re.compile(r"(?:\A|\n)\[" + re.escape(MARKER) + r" (.*)\]\Z", re.DOTALL)
# What parse_bool() of PostgreSQL takes (src/backend/utils/adt/bool.c): words and their beginnings.
_BOOLEANS = {word[:length] for word in ("true", "false", "yes", "no") for length in range(1, 6)} | {
    *("on", "off", "of", "1", "0")
}
_HOLDER = re.compile(r"[A-Za-z0-9_-]{0,40}")
_MOST_HOLDERS = 20


class Run(TypedDict):
    """The ansible-playbook that contains for an incident, and when it said so (seconds since 1970)."""

    host: str
    pid: int
    start: str
    at: float


class Marker(TypedDict):
    """``previous`` is what was there before, ``since`` when it was set (seconds since 1970), None before that.

    ``holders`` are the incidents that it is there for, with their runs. The last one that lets go lifts it.
    """

    previous: Any
    since: Optional[float]
    lifting: bool
    holders: dict[str, Run]


def run_of(given: Any) -> Run:
    """A run as it was read or given, each value of the type that it has to be; raises ValueError when it is none."""
    run = given or {}
    host, pid, start, at = (run.get(key) for key in ("host", "pid", "start", "at"))
    return {"host": str(host or "")[:253], "pid": int(pid or 0), "start": str(start or "")[:80], "at": float(at or 0)}


def parse_marker(text: str) -> Marker:
    """A marker from its JSON; raises ValueError when it is none that this collection has written."""
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("holders"), dict):
        raise ValueError("no holders")
    holders = {name: run_of(run) for name, run in found["holders"].items() if _HOLDER.fullmatch(name)}
    since, previous = found["since"], found["previous"]
    if len(holders) != len(found["holders"]) or len(holders) > _MOST_HOLDERS:
        raise ValueError("not the name of an incident")
    if not isinstance(found["lifting"], bool) or not (since is None or 0 <= float(since) < 1e11):
        raise ValueError("no time")
    return {
        "previous": previous,
        "since": None if since is None else float(since),
        "lifting": found["lifting"],
        "holders": holders,
    }


def read_marker(comment: Optional[str]) -> Optional[Marker]:
    """The marker at the end of a database's comment; None when there is none. RecoveryError when it is not ours."""
    found = MARKED.search(comment or "")
    if found is None:
        return None
    try:
        marker = parse_marker(found[1])
        previous = marker["previous"]
        if previous is not None and str(previous).lower() not in _BOOLEANS:
            raise ValueError("not a boolean")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecoveryError(
            f"the comment of the database ends with {found[0].strip()[:300]!r}, which this module has not written, so "
            f"the earlier value of {READ_ONLY} is not known. Nothing was changed. Set {READ_ONLY} as it should be and "
            "remove that from the comment: COMMENT ON DATABASE ... IS '...'"
        ) from error
    return marker


def with_marker(comment: Optional[str], marker: Optional[Mapping[str, Any]]) -> Optional[str]:
    """The comment with ``marker`` at its end, or without one; None when nothing is left."""
    plain = MARKED.sub("", comment or "")
    if marker is None:
        return plain or None
    return f"{plain}{chr(10) if plain else ''}[{MARKER} {json.dumps(marker)}]"


def others(marker: Marker, incident: Optional[str]) -> dict[str, Run]:
    """Holders besides ``incident``; nobody when everybody is meant (None)."""
    return {} if incident is None else {name: run for name, run in marker["holders"].items() if name != incident}


def told(holders: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Holders as results have them, the first one first."""
    named: Iterable[tuple[str, Run]] = sorted(holders.items(), key=lambda item: item[1]["at"])
    return [{"incident": name, **run, "at": iso(run["at"])} for name, run in named]


def iso(seconds: Optional[float]) -> Optional[str]:
    """Seconds since 1970 as an ISO-8601 time in UTC."""
    return (
        datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
        if seconds is not None and 0 < seconds < 1e11
        else None
    )
