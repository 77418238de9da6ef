# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._verification.continuity import (
    TO_COME,
    Continuity,
    continuity,
    ranges,
    stored,
    strange_timeline,
)

MIB = 1024 * 1024
SIZE = 16 * MIB
NOW = 1_000_000.0
OLD = NOW - 10 * TO_COME
SUM, OTHER = "a" * 40, "b" * 40


def wal(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}00000000{number:08X}"


def backup(label: str, start: int, stop: int | None = None, timeline: int = 1) -> dict[str, Any]:
    lsn = f"0/{start * SIZE + 40:X}"
    return {
        "label": label,
        "archive_start": wal(start, timeline),
        "archive_stop": wal(start if stop is None else stop, timeline),
        "start_lsn": lsn,
    }


def listing(names: Iterable[str], time: float = OLD) -> dict[str, dict[str, Any]]:
    return {f"{name[:16]}/{name}-{SUM}.zst": {"type": "file", "size": 100, "time": time} for name in names}


def look(
    backups: list[dict[str, Any]],
    files: dict[str, dict[str, Any]],
    texts: dict[int, str] | None = None,
    **asked: Any,
) -> Continuity:
    texts = texts or {}
    for timeline in texts:
        files[f"{timeline:08X}.history"] = {"type": "file", "size": 40, "time": OLD}
    return continuity(backups, stored(files), texts, 1, now=NOW, **asked)


def codes(result: Continuity) -> list[tuple[str, str]]:
    return [(item["code"], item["subject"]) for item in result.findings]


def test_all_of_it_is_found() -> None:
    result = look([backup("A", 2), backup("B", 5)], listing(wal(n) for n in range(1, 9)))
    assert (result.first, result.last, result.found) == (wal(2), wal(8), 7)
    assert (result.findings, result.lost, result.to_come, result.uploading) == ([], [], [], [])


def test_a_segment_missing_in_the_middle_is_lost_and_names_the_backups_that_cannot_pass() -> None:
    result = look([backup("A", 2), backup("B", 6)], listing(wal(n) for n in (2, 3, 6, 7)))
    assert codes(result) == [("WAL_LOST", f"{wal(4)}..{wal(5)}")]
    assert result.findings[0]["message"].endswith("comes past it: A")


def test_one_behind_which_all_is_new_is_still_to_come() -> None:
    files = {**listing(wal(n) for n in (2, 3)), **listing([wal(5), wal(6)], NOW - 5)}
    result = look([backup("A", 2)], files)
    assert (result.to_come, result.lost) == ([wal(4)], [])
    files.update(listing([wal(6)], OLD))
    assert look([backup("A", 2)], files).lost == [wal(4)]


def test_where_the_clock_is_behind_nothing_is_taken_for_still_to_come() -> None:
    files = {**listing(wal(n) for n in (2, 3)), **listing([wal(5), wal(6)], NOW + 3600)}
    assert codes(look([backup("A", 2)], files)) == [("BACKUP_IN_FUTURE", wal(5))]
    # Clocks of two hosts differ a little.
    assert codes(look([backup("A", 2)], listing((wal(n) for n in (2, 3)), NOW + 60))) == []


def test_a_timeline_newer_than_productions_is_another_servers() -> None:
    have = stored({**listing([wal(2)]), "00000002.history": {"type": "file", "size": 40}})
    assert [item["code"] for item in strange_timeline(have, 1, 1)] == ["TIMELINE_DIFFERS"]
    # Production was promoted and has archived nothing since; or nobody asked it.
    assert [strange_timeline(have, one, 1) for one in (2, 3, None)] == [[], [], []]


def test_what_a_timeline_that_was_left_has_does_not_make_a_segment_late() -> None:
    """Timeline 1 went on to 9; 2 left it in 4, and its 5 is on its way while 6 is there."""
    files = {**listing([wal(n) for n in range(2, 10)] + [wal(4, 2)]), **listing([wal(6, 2)], NOW - 5)}
    result = look([backup("A", 2)], files, {2: f"1\t0/{4 * SIZE + 100:X}\tno recovery target specified\n"})
    assert (result.to_come, result.lost, result.findings) == ([wal(5, 2)], [], [])


@pytest.mark.parametrize("where", ["server", "repository"])
def test_one_that_is_on_its_way_is_not_lost(where: str) -> None:
    files = listing(wal(n) for n in (2, 3, 5))
    if where == "repository":
        files[f"{wal(4)[:16]}/{wal(4)}-{OTHER}.gz.pgbackrest.tmp"] = {"type": "file", "size": 0, "time": NOW}
    result = look([backup("A", 2)], files, waiting=[wal(4)] if where == "server" else [])
    assert (result.uploading, result.lost, result.findings) == ([wal(4)], [], [])


def test_an_empty_file_is_no_segment() -> None:
    files = listing(wal(n) for n in (2, 3, 4))
    files[f"{wal(3)[:16]}/{wal(3)}-{SUM}.zst"]["size"] = 0
    assert look([backup("A", 2)], files).lost == [wal(3)]


def test_two_contents_of_one_segment_are_found() -> None:
    files = listing(wal(n) for n in (2, 3, 4))
    files[f"{wal(3)[:16]}/{wal(3)}-{OTHER}.zst"] = {"type": "file", "size": 100, "time": OLD}
    assert codes(look([backup("A", 2)], files)) == [("WAL_DUPLICATE", wal(3))]


HISTORY = f"1\t0/{4 * SIZE + 100:X}\tno recovery target specified\n"


def test_the_way_goes_over_timelines() -> None:
    """The segment in which timeline 1 ended is needed of timeline 2 only; what timeline 1 has behind it is not."""
    names = [wal(2), wal(3), wal(4, 2), wal(5, 2)]
    result = look([backup("A", 2)], listing(names), {2: HISTORY})
    assert (result.timelines, result.found, result.findings) == ([1, 2], 4, [])
    result = look([backup("A", 2)], listing([wal(2), wal(4, 2), wal(5, 2)]), {2: HISTORY})
    assert codes(result) == [("WAL_LOST", wal(3))]
    result = look([backup("A", 2)], listing([wal(2), wal(3), wal(4), wal(5, 2)]), {2: HISTORY})
    assert codes(result) == [("WAL_LOST", wal(4, 2))]


def test_a_server_that_was_promoted_just_now_has_nothing_to_show_on_its_timeline() -> None:
    result = look([backup("A", 2)], listing([wal(2), wal(3)]), {2: HISTORY})
    assert (result.last, result.findings) == (wal(3), [])


def test_without_a_history_nobody_knows_the_way() -> None:
    files = listing([wal(2), wal(3), wal(4, 2), wal(5, 2)])
    assert ("WAL_HISTORY_MISSING", "00000002.history") in codes(look([backup("A", 2)], files))
    # A stanza that was made when the server was on timeline 2 needs none.
    assert look([backup("A", 4, timeline=2)], files).findings == []


def test_a_history_that_says_nothing_leaves_it_open() -> None:
    files = listing([wal(2), wal(4, 2)])
    assert codes(look([backup("A", 2)], files, {2: "garbage\n"})) == [("WAL_HISTORY_UNREADABLE", "00000002.history")]


def test_a_backup_of_a_timeline_that_was_left_needs_its_own_wal_only() -> None:
    """B was taken on timeline 2, which a restore to an earlier moment of timeline 1 then left for timeline 3."""
    texts = {3: f"1\t0/{3 * SIZE + 100:X}\tbefore LSN\n"}
    names = [wal(2), wal(3, 3), wal(4, 3), wal(6, 2), wal(7, 2)]
    backups = [backup("A", 2), backup("B", 6, 7, timeline=2)]
    assert look(backups, listing(names), dict(texts)).findings == []
    assert codes(look(backups, listing(names[:-1]), dict(texts))) == [("WAL_LOST", wal(7, 2))]


def test_wal_between_older_backups_may_expire_only_where_the_policy_lets_it() -> None:
    backups = [backup("A", 2, 3), backup("B", 6), backup("C", 9)]
    files = listing(wal(n) for n in (2, 3, 6, 7, 8, 9, 10))
    assert codes(look(backups, files)) == [("WAL_LOST", f"{wal(4)}..{wal(5)}")]
    result = look(backups, files, thinned=True)
    assert (result.findings, result.expired) == ([], 2)
    # Some of it is there, so it did not expire.
    assert codes(look(backups, {**files, **listing([wal(5)])}, thinned=True)) == [("WAL_LOST", wal(4))]
    # Behind the newest backup nothing expires, nor what a backup itself needs.
    assert codes(look(backups, listing(wal(n) for n in (2, 6, 7, 8, 9, 11)), thinned=True)) == [
        ("WAL_LOST", f"{wal(3)}"),
        ("WAL_LOST", wal(10)),
    ]


def test_of_a_stopped_server_no_wal_is_needed() -> None:
    assert look([{**backup("A", 2), "archive_start": None, "archive_stop": None}], {}).findings == []


def test_an_archive_without_any_wal_is_lost() -> None:
    assert codes(look([backup("A", 2, 3)], {})) == [("WAL_LOST", f"{wal(2)}..{wal(3)}")]


def test_ranges_end_where_a_timeline_does() -> None:
    assert ranges([wal(3), wal(4), wal(5, 2)], SIZE) == [(wal(3), wal(4)), (wal(5, 2), wal(5, 2))]
