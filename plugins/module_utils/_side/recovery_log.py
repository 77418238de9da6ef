# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand the log of a server in recovery, written with lc_messages=C. Pure functions.

The messages are those of src/backend/access/transam/xlogrecovery.c (PostgreSQL 13 and 14: xlog.c) and, between them,
what pgBackRest's archive-get printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional

_STOPPING = re.compile(r"LOG:  (recovery stopping (?:before|after|at) .*)")
_STOPPING_LSN = re.compile(r'WAL location \(LSN\) "([0-9A-F]+/[0-9A-F]+)"')
_TOO_LOW = re.compile(
    r"(\w+) = \d+ is a lower setting than on the (?:primary|master) server,? \(?(?:where )?its value was (\d+)"
)
_NOT_FOUND = re.compile(r"unable to find ([0-9A-F]{24}) in the archive")
_PGBACKREST_ERROR = re.compile(r"ERROR: \[\d+\]:.*(?:\n {8,}.*)*")
_SEVERE = re.compile(r"(?:FATAL|PANIC):  (.*)")
_REDO_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_LAST_TIME = re.compile(r"last completed transaction was at log time (.*)")
# PostgreSQL: report_invalid_page and log_invalid_page in src/backend/access/transam/xlogutils.c
_INVALID_PAGE = re.compile(r"WARNING:  page (\d+) of relation (\S+) (?:is uninitialized|does not exist)")
_INVALID_PAGES = "WARNING:  WAL contains references to invalid pages"
_DATABASE_OF = re.compile(r"(?:base|pg_tblspc/\d+/[^/]+)/(\d+)/")
# What clients are told while the server is not ready says nothing of recovery itself.
_OF_CLIENTS = ("the database system is", "terminating ", "sorry, too many clients", "connection to client lost")


class RecoveryLog(NamedTuple):
    """What the log of one run of the server says."""

    stopping: Optional[str]
    stopping_lsn: Optional[str]
    too_low: dict[str, int]
    target_not_reached: bool
    missing_segment: Optional[str]
    archive_error: Optional[str]
    severe: list[str]
    redo_done: Optional[str]
    last_time: Optional[str]


class InvalidPages(NamedTuple):
    """Pages that WAL changes and that were empty or not there, by what is wrong about it.

    ``ignored`` counts them by the OID of their database, which was not restored; ``needed`` are those of databases that
    were, as (file of the relation, page).
    """

    ignored: dict[int, int]
    needed: list[tuple[str, int]]


def database_of(relation: str) -> int:
    """OID of the database that the file of a relation is in (``base/16384/2619_vm``); 0 for what all share."""
    match = _DATABASE_OF.match(relation)
    return int(match.group(1)) if match else 0


def read_invalid_pages(lines: Iterable[str], is_needed: Callable[[int], bool]) -> InvalidPages:
    """What a server's log says of invalid pages; ``is_needed`` tells whether a database, by its OID, was restored."""
    ignored: dict[int, int] = {}
    needed: list[tuple[str, int]] = []
    for line in lines:
        match = _INVALID_PAGE.search(line) if "WARNING:  page " in line else None
        if match is None:
            continue
        database = database_of(match.group(2))
        if is_needed(database):
            needed.append((match.group(2), int(match.group(1))))
        else:
            ignored[database] = ignored.get(database, 0) + 1
    return InvalidPages(ignored, needed)


def without_invalid_pages(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a log but for those about invalid pages, of which there may be one for each page of a large database."""
    skipping = False
    for line in lines:
        if _INVALID_PAGES in line or ("WARNING:  page " in line and _INVALID_PAGE.search(line)):
            skipping = True
        elif not (skipping and "CONTEXT:  " in line):
            skipping = False
            yield line


def says_that_it_stopped(text: str) -> bool:
    """Whether lines of a log say that replay has stopped, at its target or for a setting that is too low."""
    return bool(_STOPPING.search(text) or _TOO_LOW.search(text))


def read_recovery_log(text: str) -> RecoveryLog:
    """Facts from the log text of one run of the server, oldest line first."""
    stopping = _last(_STOPPING, text)
    in_stopping = _STOPPING_LSN.search(stopping or "")
    severe = [line for line in _SEVERE.findall(text) if not line.startswith(_OF_CLIENTS)]
    too_low: dict[str, int] = {}
    for name, value in _TOO_LOW.findall(text):
        too_low[name] = max(int(value), too_low.get(name, 0))
    # An error that was followed by an answer of the archive has passed.
    answers = [match.end() for match in _NOT_FOUND.finditer(text)]
    errors = _PGBACKREST_ERROR.findall(text, answers[-1] if answers else 0)
    return RecoveryLog(
        stopping=stopping,
        stopping_lsn=in_stopping.group(1) if in_stopping else None,
        too_low=too_low,
        target_not_reached=any("recovery ended before configured recovery target" in line for line in severe),
        missing_segment=_last(_NOT_FOUND, text),
        archive_error=re.sub(r"\s+", " ", errors[-1]) if errors else None,
        severe=severe,
        redo_done=_last(_REDO_DONE, text),
        last_time=_last(_LAST_TIME, text),
    )


def _last(pattern: re.Pattern[str], text: str) -> Optional[str]:
    found = pattern.findall(text)
    return str(found[-1]) if found else None


def explain_end(log: RecoveryLog, host: str, log_path: str) -> str:
    """One message for a server that ended before it paused at its target."""
    where = f"The whole log is {log_path} on {host}. Production was not touched."
    replayed = ""
    if log.redo_done:
        replayed = f" The last WAL position replayed is {log.redo_done}"
        replayed += f", the last transaction of {log.last_time}." if log.last_time else "."
    if log.archive_error:
        return (
            f"replay on {host} stopped because WAL could not be fetched from the repository: "
            f"{log.archive_error.rstrip('.')}.{replayed} Make the repository reachable and run again: replay goes on "
            f"from where it was. {where}"
        )
    if log.target_not_reached:
        missing = f" WAL file {log.missing_segment} is not in the archive." if log.missing_segment else ""
        return (
            f"the archived WAL ended on {host} before the recovery target was reached.{missing}{replayed} Archive the "
            "missing WAL (postgresql_wal_archive on production) and run again, or choose a target that is not later. "
            f"{where}"
        )
    if log.severe:
        return f"PostgreSQL ended on {host} during recovery: {'; '.join(log.severe[-3:])}.{replayed} {where}"
    return (
        f"PostgreSQL ended on {host} during recovery without saying why (killed, or out of memory?).{replayed} "
        f"Run again: replay goes on from its last restart point. {where}"
    )
