# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any


def size(count: Any) -> str:
    """A number of bytes for people, in decimal units as disks and pgBackRest's documentation have them: ``4.1 GB``."""
    try:
        value = float(count)
    except (TypeError, ValueError):
        return "unknown"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


def duration(seconds: Any) -> str:
    """A number of seconds for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    try:
        value = float(seconds)
    except (TypeError, ValueError):
        return "unknown"
    if abs(value) < 10:
        return f"{value:.1f} s".replace(".0 s", " s")
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        large, small, units = 60, 1, ("min", "s")
    elif whole < 86400:
        large, small, units = 3600, 60, ("h", "min")
    else:
        large, small, units = 86400, 3600, ("d", "h")
    rest = whole % large // small
    return f"{whole // large} {units[0]}" + (f" {rest} {units[1]}" if rest else "")


def number(value: Any) -> str:
    """A count with thousands apart: ``6,000,000``."""
    try:
        return f"{int(value):,}"
    except (TypeError, ValueError):
        return "unknown"


def counted(count: Any, noun: str, nouns: str = "") -> str:
    """``1 table``, ``2 tables``."""
    return f"{number(count)} {noun if count == 1 else nouns or noun + 's'}"


def rows_that(count: Any) -> str:
    """``1 row``, ``2 rows``, and ``some rows`` where nobody could count them."""
    return "some rows" if count is None else counted(count, "row")


# A label of pg_restore's table of contents: schema, type, name and owner.
_LABEL = re.compile(r"(?P<schema>\S+) (?P<type>[A-Z]+(?: [A-Z]+)*) (?P<name>.+) \S+")


def thing(kind: Any, name: Any) -> str:
    """What is lost or left to do, as people say it: ``table public.orders``, ``privileges on table public.orders``."""
    if kind != "acl":
        return f"{kind or ''} {name or ''}".strip()
    label = _LABEL.fullmatch(str(name))
    if label is None:
        return f"privileges on {name}"
    schema = "" if label["schema"] == "-" else f"{label['schema']}."
    return f"privileges on {label['type'].lower()} {schema}{label['name']}"


_ROWS_UNKNOWN = {
    "p": "they are in its partitions",
    "f": "another database holds them",
}


def rows_text(rows: Any, estimated: bool = False, kind: Any = None) -> str:
    """How many rows a relation of ``kind`` (relkind) lost, and where nobody knows, why; also of an empty one."""
    if rows is None:
        why = _ROWS_UNKNOWN.get(str(kind))
        return f"rows unknown: {why}" if why else "rows unknown until it is restored: no ANALYZE had counted them"
    return ("about " if estimated else "") + counted(rows, "row")


def moment(text: Any) -> str:
    """A time for people: ``2026-11-23 21:30:07+00:00``. What is no time comes back as it is.

    ``text`` is ISO 8601 or, as pgBackRest gives it, seconds since 1970.
    """
    try:
        if isinstance(text, (int, float)) and not isinstance(text, bool):
            return datetime.fromtimestamp(text, timezone.utc).isoformat(" ", "seconds")
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return str(text)


def seconds_since(earlier: Any, later: Any) -> float | None:
    """Seconds between two ISO 8601 times with offset; None when one is missing or has no offset."""
    try:
        start, end = (datetime.fromisoformat(str(text).replace("Z", "+00:00")) for text in (earlier, later))
        return (end - start).total_seconds()
    except (TypeError, ValueError):
        return None


def relation_name(relation: Any) -> str:
    """``schema.name`` of a relation, each part quoted where SQL needs it."""
    if not isinstance(relation, dict):
        return str(relation)
    parts = [str(relation[key]) for key in ("schema", "name") if relation.get(key)]
    return ".".join(_quoted(part) for part in parts)


def _quoted(part: str) -> str:
    plain = part.replace("_", "a").isalnum() and part.isascii() and part == part.lower() and not part[0].isdigit()
    return part if plain else '"' + part.replace('"', '""') + '"'
