# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server log of RDS and Aurora as lines: from the instance's log files, or from CloudWatch Logs.

Both are read as a stream, in the order in which PostgreSQL wrote; a log of hours can be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.server_log import begins_entry
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

# A portion is cut at 1 MB in the middle of a line, and then ends with this (aws-sdk-js#1463).
CUT = "[Your log message was truncated]"
# Lines asked for in a portion: the most AWS gives, and less where it cut.
PORTIONS = (10000, 1000, 100)
# Around a line in CloudWatch Logs that names what was lost: what its session logged before and after.
BEFORE, AFTER = timedelta(seconds=5), timedelta(seconds=120)
LONGEST_PATTERN = 1024  # of a filter pattern


@dataclass(frozen=True)
class LogFile:
    """One log file of an instance; ``written`` is when it was last written to, ``size`` in bytes."""

    instance: str
    name: str
    written: datetime
    size: int


def log_files(rds: Rds, instance: str, since: datetime, until: datetime) -> list[LogFile]:
    """Files of an instance that can hold entries from ``since`` to ``until``, oldest first."""
    listed = rds.all(
        "describe_db_log_files",
        "DescribeDBLogFiles",
        DBInstanceIdentifier=instance,
        FilenameContains="postgresql.log",
        FileLastWritten=int(since.timestamp() * 1000),
    )
    files = sorted(
        (
            LogFile(
                instance,
                item["LogFileName"],
                datetime.fromtimestamp(item["LastWritten"] / 1000, timezone.utc),
                int(item.get("Size") or 0),
            )
            for item in listed
            # With log_destination csvlog the same entries are there a second time.
            if not item["LogFileName"].endswith((".csv", ".json"))
        ),
        key=lambda file: (file.written, file.name),
    )
    # A file begins when the one before it ends.
    return [file for before, file in zip([None, *files], files) if before is None or before.written <= until]


class FileReader:
    """Downloads log files line by line."""

    def __init__(self, rds: Rds, progress: Progress, total: int) -> None:
        self._rds = rds
        self._progress = progress
        self._total = total
        self.bytes = 0
        self.cut = 0
        self.vanished: list[str] = []

    def lines(self, files: Sequence[LogFile]) -> Iterator[str]:
        """Lines of all files, one after the other, without newlines."""
        for file in files:
            yield from self._lines(file)

    def _lines(self, file: LogFile) -> Iterator[str]:
        rest = ""
        for text in self._portions(file):
            self.bytes += len(text.encode())
            self._progress.say(f"log of {file.instance}: {file.name}", self.bytes, self._total, "bytes")
            first = text.split("\n", 1)[0]
            if rest and (begins_entry(first) or first.startswith("\t")):
                yield rest
                rest = ""
            *whole, rest = (rest + text).split("\n")
            yield from whole
        if rest:
            yield rest

    def _portions(self, file: LogFile) -> Iterator[str]:
        marker = "0"
        while True:
            for size in PORTIONS:
                try:
                    page = self._rds.call(
                        "download_db_log_file_portion",
                        DBInstanceIdentifier=file.instance,
                        LogFileName=file.name,
                        Marker=marker,
                        NumberOfLines=size,
                    )
                except ClientError as error:
                    if error_code(error).startswith("DBLogFileNotFound"):  # its time was over
                        self.vanished.append(file.name)
                        return
                    raise
                text = page.get("LogFileData") or ""
                if CUT not in text:
                    break
            self.cut += text.count(CUT)
            yield text
            following = page.get("Marker")
            if not page.get("AdditionalDataPending") or not following or following == marker:
                return
            marker = following


def group_name(identifier: str, cluster: bool) -> str:
    """Log group that RDS exports to."""
    return f"/aws/rds/{'cluster' if cluster else 'instance'}/{identifier}/postgresql"


def filter_pattern(names: Sequence[str]) -> Optional[str]:
    """Filter pattern for lines that can have to do with ``names``, in any case; None when it would be too long.

    See "Supported regular expressions" in the CloudWatch Logs user guide: no groups, no option for case.
    """
    parts = [_any_case(name) for name in [*names, "cascade"]]
    parts.append(rf"{_any_case('drop')}\s+{_any_case('owned')}")
    pattern = f"%{'|'.join(parts)}%"
    return pattern if len(pattern) <= LONGEST_PATTERN else None


def _any_case(word: str) -> str:
    found = []
    for char in word:
        if char.isascii() and char.isalpha():
            found.append(f"[{char.upper()}{char.lower()}]")
        else:
            found.append(char if char.isascii() and (char.isdigit() or char == "_") else ".")
    return "".join(found)


class CloudWatchReader:
    """Finds, in a log group, the lines that name something, and reads what stands around them."""

    def __init__(self, client: Any, group: str, progress: Progress) -> None:
        self._client = client
        self._group = group
        self._progress = progress
        self.events = 0

    def _filtered(self, start: datetime, end: datetime, **arguments: Any) -> Iterator[dict[str, Any]]:
        call = {
            "logGroupName": self._group,
            "startTime": int(start.timestamp() * 1000),
            "endTime": int(end.timestamp() * 1000),
            **arguments,
        }
        while True:
            page = self._client.filter_log_events(**call)
            for event in page.get("events") or []:
                self.events += 1
                yield event
            self._progress.say(f"log group {self._group}", self.events, 0, "events")
            # Pages can be empty; only one without a token is the last.
            if not page.get("nextToken"):
                return
            call["nextToken"] = page["nextToken"]

    def streams(self, names: Sequence[str], since: datetime, until: datetime) -> dict[str, list[str]]:
        """Lines around those that hold one of ``names``, by log stream (an instance of its own each)."""
        pattern = filter_pattern(names)
        if pattern is None:
            return self._collect(self._filtered(since, until))
        spans: dict[str, list[tuple[datetime, datetime]]] = {}
        for event in self._filtered(since, until, filterPattern=pattern):
            at = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
            of_stream = spans.setdefault(event["logStreamName"], [])
            if of_stream and at - BEFORE <= of_stream[-1][1]:
                of_stream[-1] = (of_stream[-1][0], max(of_stream[-1][1], at + AFTER))
            else:
                of_stream.append((at - BEFORE, at + AFTER))
        found: dict[str, list[str]] = {}
        for stream, windows in spans.items():
            for start, end in windows:
                for name, lines in self._collect(self._filtered(start, end, logStreamNames=[stream])).items():
                    found.setdefault(name, []).extend(lines)
        return found

    @staticmethod
    def _collect(events: Iterator[dict[str, Any]]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in events:
            found.setdefault(event["logStreamName"], []).extend(event["message"].rstrip("\n").split("\n"))
        return found
