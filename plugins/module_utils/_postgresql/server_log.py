# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's server log as text (``log_destination`` stderr) into entries. Pure.

Sources: PostgreSQL documentation, 20.8.3 (log_line_prefix); ``log_line_prefix()`` and ``append_with_tabs()`` in
src/backend/utils/error/elog.c: each line of an entry after its first begins with a tab.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# What RDS and Aurora log with unless the parameter group says otherwise.
RDS_PREFIX = "%t:%r:%u@%d:[%p]:"
# Longer statements are bulk loads; what they do stands in their beginning.
LONGEST_MESSAGE = 1_000_000

_STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_ZONE = r"(?:[A-Za-z]{1,6}|[+-]\d\d(?::?\d\d)?)"
_ESCAPES = {
    "a": r".*?",
    "b": r".*?",
    "c": r"(?:(?P<session>[0-9a-f]+\.[0-9a-f]+))",
    "d": r"(?P<database>.*?)",
    "e": r"[0-9A-Z]{5}",
    "h": r".*?",
    "i": r".*?",
    "l": r"\d+",
    "L": r".*?",
    "m": rf"(?P<time>{_STAMP}\.\d{{3}} {_ZONE})",
    "n": r"(?P<epoch>\d+\.\d{3})",
    "p": r"(?P<pid>\d+)",
    "P": r"\d*",
    "Q": r"-?\d+",
    "r": r".*?",
    "s": rf"(?:{_STAMP} {_ZONE})?",
    "t": rf"(?P<time>{_STAMP} {_ZONE})",
    "u": r"(?P<user>.*?)",
    "v": r"[\d/]*",
    "x": r"(?P<xid>\d+)",
}
_ESCAPE = re.compile(r"%(-?\d+)?([a-zA-Z%])")
_SEVERITY = (
    r"(?P<severity>DEBUG\d?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|STATEMENT|DETAIL|HINT|CONTEXT|QUERY|LOCATION"
    r"|BACKTRACE):\s\s?(?P<message>.*)"
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?")


@dataclass(frozen=True)
class Entry:
    """One entry of the log. ``time`` is cut off to ``resolution`` seconds: it was then or less than that later."""

    time: datetime
    resolution: float
    severity: str
    message: str
    pid: int
    user: Optional[str] = None
    database: Optional[str] = None
    xid: int = 0


class LinePrefix:
    """Reads lines that were written with one value of ``log_line_prefix``.

    ``database`` is the one that is asked about. Names may hold what stands between them: ``a@b@shop`` as ``%u@%d`` is
    user ``a@b`` in database ``shop`` (where Kerberos or a directory names the users), not ``a`` in ``b@shop``.
    """

    def __init__(self, prefix: str, database: Optional[str] = None) -> None:
        self.prefix = prefix
        names = {letter for _padding, letter in _ESCAPE.findall(prefix)}
        if not names & {"t", "m", "n"} or not names & {"p", "c"}:
            raise RecoveryError(
                f"log_line_prefix {prefix!r} has no time (%t, %m or %n) or no process (%p or %c), so the log does not "
                f"say when a statement ran. RDS' own is {RDS_PREFIX!r}."
            )
        self._any = self._compiled(_ESCAPES["d"])
        self._database = database if "d" in names else None
        self._asked = self._compiled(rf"(?P<database>{re.escape(database)})") if database else self._any

    def _compiled(self, database: str) -> re.Pattern[str]:
        """A line's pattern in which ``%d`` is ``database``."""
        escapes = {**_ESCAPES, "d": database}
        seen: set[str] = set()
        sides = [self._pattern(side, escapes, seen) for side in self.prefix.split("%q", 1)]
        # Processes that are no sessions stop at %q.
        middle = f"(?:{sides[1]})?" if len(sides) == 2 else ""
        return re.compile(sides[0] + middle + _SEVERITY, re.DOTALL)

    @staticmethod
    def _pattern(text: str, escapes: Mapping[str, str], seen: set[str]) -> str:
        parts: list[str] = []
        at = 0
        for found in _ESCAPE.finditer(text):
            parts.append(re.escape(text[at : found.start()]))
            at = found.end()
            padding, letter = found.groups()
            pattern = re.escape("%") if letter == "%" else escapes.get(letter, "")
            if letter in seen:  # a group can have its name once
                pattern = re.sub(r"\(\?P<\w+>", "(?:", pattern)
            seen.add(letter)
            parts.append(rf"\s*{pattern}\s*" if padding else pattern)
        return "".join([*parts, re.escape(text[at:])])

    def entry(self, line: str) -> Optional[Entry]:
        """The entry that begins with this line; None when none does."""
        match = self._any.match(line)
        if match is None:
            return None
        if self._database and match["database"] != self._database and match["database"].endswith(self._database):
            asked = self._asked.match(line)
            # A statement's text may look like a prefix: what is read of it ends at the same place.
            if asked is not None and asked.start("message") == match.start("message"):
                match = asked
        found = match.groupdict()
        if found.get("epoch"):
            time, resolution = datetime.fromtimestamp(float(found["epoch"]), timezone.utc), 0.001
        else:
            time, resolution = _moment(found["time"])
        pid = found.get("pid") or str(int(found["session"].split(".")[1], 16))
        return Entry(
            time,
            resolution,
            found["severity"],
            found["message"],
            int(pid),
            found.get("user"),
            found.get("database"),
            int(found.get("xid") or 0),
        )


def _moment(text: str) -> tuple[datetime, float]:
    day, clock, zone = text.split(" ")
    clock, point, fraction = clock.partition(".")
    stamp, milliseconds = f"{day} {clock}", point + fraction
    offset = _OFFSET.fullmatch(zone)
    if offset:
        sign, hours, minutes = offset.groups()
        shift = timedelta(hours=int(hours), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    elif zone.upper() in ("UTC", "GMT", "Z"):
        shift = timedelta()
    else:
        raise RecoveryError(
            f"the server logs in the time zone {zone}, which is no certain offset from UTC. RDS logs in UTC. Give the "
            "moment yourself (dr_target_time)."
        )
    moment = datetime.fromisoformat(stamp + milliseconds).replace(tzinfo=timezone(shift))
    return moment.astimezone(timezone.utc), 0.001 if milliseconds else 1.0


def begins_entry(line: str) -> bool:
    """Whether a line can be the first of an entry, whatever the prefix; for text that was cut into pieces."""
    return re.match(rf"\D{{0,3}}{_STAMP}", line) is not None


class LogReader:
    """Puts lines together to entries, and counts those that belong to none (``unread``)."""

    def __init__(self, *prefixes: str, database: Optional[str] = None) -> None:
        unique = list(dict.fromkeys([*prefixes, RDS_PREFIX]))
        self._prefixes = [LinePrefix(prefix, database) for prefix in unique]
        self.lines = 0
        self.unread = 0

    def _first(self, line: str) -> Optional[Entry]:
        for index, prefix in enumerate(self._prefixes):
            entry = prefix.entry(line)
            if entry is not None:
                if index:  # the setting was changed meanwhile: what fits now is tried first from here on
                    self._prefixes.insert(0, self._prefixes.pop(index))
                return entry
        return None

    def entries(self, lines: Iterable[str]) -> Iterator[Entry]:
        """Entries of lines without their newlines, in their order."""
        entry: Optional[Entry] = None
        more: list[str] = []
        length = 0
        for line in lines:
            self.lines += 1
            if line.startswith("\t"):
                if entry is None:
                    self.unread += 1
                elif length < LONGEST_MESSAGE:
                    more.append(line[1:])
                    length += len(line)
                continue
            following = self._first(line)
            if following is None:
                self.unread += bool(line.strip())
                continue
            if entry is not None:
                yield _whole(entry, more)
            entry, more, length = following, [], len(line)
        if entry is not None:
            yield _whole(entry, more)


def _whole(entry: Entry, more: list[str]) -> Entry:
    return replace(entry, message="\n".join([entry.message, *more])) if more else entry
