# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the archive has all WAL from the oldest kept backup to now, across timelines. Pure functions.

A segment is found, still to come, being uploaded, or lost; only what is lost fails.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    parse_history,
    parse_segment_name,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import segment_size
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, finding

# Parallel processes store segments out of order: one that is missing may come as long as none behind it is older.
TO_COME = 120  # seconds
CLOCKS = 300  # seconds that the clocks of two hosts may differ
_STORED = re.compile(r"([0-9A-F]{24})-([0-9a-f]{40})(?:\.(?:gz|lz4|zst|bz2))?\Z")
_UPLOADING = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}\S*\.pgbackrest\.tmp\Z")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history\Z")


@dataclass
class Stored:
    """What a recursive repo-ls listing of an archive says, by the names of segments."""

    times: dict[str, Optional[float]] = field(default_factory=dict)
    uploading: set[str] = field(default_factory=set)
    duplicates: set[str] = field(default_factory=set)
    histories: set[int] = field(default_factory=set)


def stored(listing: Mapping[str, Mapping[str, Any]]) -> Stored:
    """Sort out a listing {path: {type, size, time}}; an empty file is no segment."""
    found = Stored()
    contents: dict[str, set[str]] = defaultdict(set)
    for path, entry in listing.items():
        name = path.rsplit("/", 1)[-1]
        segment, uploading, history = _STORED.match(name), _UPLOADING.match(name), _HISTORY.match(name)
        if segment and entry.get("size") != 0:
            found.times[segment[1]] = entry.get("time")
            contents[segment[1]].add(segment[2])
        elif uploading:
            found.uploading.add(uploading[1])
        elif history and entry.get("size") != 0:
            found.histories.add(int(history[1], 16))
    found.duplicates = {name for name, sums in contents.items() if len(sums) > 1}
    return found


@dataclass
class Continuity:
    """Names of segments by their state, and the way through timelines from the first to the last."""

    first: str = ""
    last: str = ""
    timelines: list[int] = field(default_factory=list)
    found: int = 0
    to_come: list[str] = field(default_factory=list)
    uploading: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    expired: int = 0
    findings: list[Finding] = field(default_factory=list)


def newest_timeline(have: Stored) -> int:
    """The timeline that a restore to the end of the archive comes to; 0 where nothing is archived."""
    return max([*(int(name[:8], 16) for name in have.times), *have.histories], default=0)


def way(have: Stored, texts: Mapping[int, str]) -> Timelines:
    """Timelines that lead to the newest; ``texts`` are the history files by timeline. Raises RecoveryError."""
    newest = newest_timeline(have)
    return parse_history(texts[newest], newest) if newest in texts else Timelines(newest)


def continuity(
    backups: Sequence[Mapping[str, Any]],
    have: Stored,
    texts: Mapping[int, str],
    repo: int,
    *,
    now: float,
    waiting: Collection[str] = (),
    thinned: bool = False,
) -> Continuity:
    """Look for every segment that backups of one archive need: each its own, and all from the oldest to now.

    ``waiting`` are segments that the server has yet to archive (``.ready``). ``thinned``: retention lets WAL between
    older backups expire, so that all of it may be gone.
    """
    result = Continuity(findings=in_future(have, repo, now))
    online = [one for one in backups if one["archive_start"]]
    if not online:
        return result
    size = segment_size(online[0])
    try:
        timelines = way(have, texts)
    except RecoveryError as error:
        name = f"{newest_timeline(have):08X}.history"
        result.findings.append(finding("WAL_HISTORY_UNREADABLE", repo, name, error.msg))
        return result
    oldest = min(int(one["archive_start"][:8], 16) for one in online)
    if timelines.current > oldest and timelines.current not in texts:
        name = f"{timelines.current:08X}.history"
        text = f"timeline {timelines.current} has WAL, and nothing says where it left timeline {oldest}"
        result.findings.append(finding("WAL_HISTORY_MISSING", repo, name, text))
    needed = set()
    for one in online:
        needed |= set(_between(one["archive_start"], one["archive_stop"], size))
    path = _path(online, have, timelines, size)
    if path:
        result.first, result.last = path[0], path[-1]
        result.timelines = sorted({int(name[:8], 16) for name in path})
    expired = _expired(online, path, have, size) if thinned else set()
    result.expired = len(expired)
    _sort(result, (needed | set(path)) - expired, path, have, now, waiting)
    for name in sorted(have.duplicates & (needed | set(path))):
        text = f"WAL segment {name} is there with two contents: did two servers archive into one stanza?"
        result.findings.append(finding("WAL_DUPLICATE", repo, name, text))
    for first, last in ranges(result.lost, size):
        text = (
            f"WAL {first if first == last else f'{first} to {last}'} is missing from the archive of repository {repo}"
        )
        lame = [one["label"] for one in online if one["archive_start"][8:] <= last[8:]]
        text += f". No restore that begins before it comes past it: {', '.join(lame[-5:])}"
        result.findings.append(finding("WAL_LOST", repo, first if first == last else f"{first}..{last}", text))
    return result


def ends_before(have: Stored, there: Stored, repo: int, other: int, now: float) -> list[Finding]:
    """A finding where an archive ends before another repository's; every segment is stored in all of them."""
    newest = max(have.times, default="")
    more = sorted(name for name in there.times if name > newest and name not in have.uploading)
    if not more or now - min(there.times[name] or 0.0 for name in more) < TO_COME:
        return []
    text = (
        f"the archive of repository {repo} ends with {newest or 'nothing'}; repository {other} has {len(more)} more, "
        f"to {more[-1]}. Nothing behind that end can be restored from repository {repo}"
    )
    return [finding("WAL_LOST", repo, f"{more[0]}..{more[-1]}" if more[1:] else more[0], text)]


def strange_timeline(have: Stored, production: Optional[int], repo: int) -> list[Finding]:
    """A finding where an archive has a newer timeline than the ``production`` that was asked: a restore follows it."""
    newest = newest_timeline(have)
    if production is None or newest <= production:
        return []
    text = (
        f"the archive of repository {repo} has timeline {newest}, and production is on {production}: another server, "
        "restored or promoted beside it, archives there, or it is that one which is production. A restore to the end "
        f"of the archive leads to timeline {newest}"
    )
    return [finding("TIMELINE_DIFFERS", repo, f"{newest:08X}", text)]


def in_future(have: Stored, repo: int, now: float) -> list[Finding]:
    """A finding where WAL was stored later than ``now``: what is yet to come and what is lost cannot be told apart."""
    name, newest = max(((name, time or 0.0) for name, time in have.times.items()), key=itemgetter(1), default=("", 0.0))
    if newest - now <= CLOCKS:
        return []
    text = f"WAL segment {name} was stored {newest - now:.0f} s after this host's now"
    return [finding("BACKUP_IN_FUTURE", repo, name, text)]


def _between(first: str, last: Optional[str], size: int) -> list[str]:
    timeline, begin = parse_segment_name(first, size)
    end = parse_segment_name(last or first, size)[1]
    return [segment_name(timeline, number, size) for number in range(begin, end + 1)]


def _path(backups: Iterable[Mapping[str, Any]], have: Stored, timelines: Timelines, size: int) -> list[str]:
    """Names from the start of the oldest backup that is on the way to the newest segment on it."""

    def on_way(name: str) -> bool:
        timeline, number = parse_segment_name(name, size)
        return timelines.of_segment(number, size) == timeline or timelines.at(number * size) == timeline

    starts = [parse_segment_name(one["archive_start"], size)[1] for one in backups if on_way(one["archive_start"])]
    ends = [parse_segment_name(name, size)[1] for name in have.times if on_way(name)]
    if not starts or not ends:
        return []
    return [segment_name(timelines.of_segment(n, size), n, size) for n in range(min(starts), max(ends) + 1)]


def _expired(backups: Iterable[Mapping[str, Any]], path: Sequence[str], have: Stored, size: int) -> set[str]:
    """Names between two backups of the way that are gone without exception."""
    stops = sorted((parse_segment_name(one["archive_stop"], size)[1], one["archive_start"]) for one in backups)
    numbers = {name: parse_segment_name(name, size)[1] for name in path}
    gone: set[str] = set()
    for (stop, _start), (_stop, start) in zip(stops, stops[1:]):
        begin = parse_segment_name(start, size)[1]
        between = {name for name, number in numbers.items() if stop < number < begin}
        if between and not between & have.times.keys():
            gone |= between
    return gone


def _sort(
    result: Continuity,
    needed: Iterable[str],
    path: Sequence[str],
    have: Stored,
    now: float,
    waiting: Collection[str],
) -> None:
    """Put every name that is needed into its state."""
    behind: dict[str, float] = {}  # of the path, when the oldest segment behind a place was stored
    oldest = float("inf")
    for name in reversed(path):
        behind[name] = oldest
        if name in have.times:
            oldest = min(oldest, have.times[name] or 0.0)
    for name in sorted(needed, key=lambda one: (one[8:], one[:8])):
        if name in have.times:
            result.found += 1
        elif name in have.uploading or name in waiting:
            result.uploading.append(name)
        elif now - behind.get(name, 0.0) < TO_COME:
            result.to_come.append(name)
        else:
            result.lost.append(name)


def ranges(names: Sequence[str], size: int) -> list[tuple[str, str]]:
    """Names in ranges without gaps, each of one timeline."""
    found: list[list[str]] = []
    for name in sorted(names):
        timeline, number = parse_segment_name(name, size)
        if found and parse_segment_name(found[-1][-1], size) == (timeline, number - 1):
            found[-1].append(name)
        else:
            found.append([name])
    return [(one[0], one[-1]) for one in found]
