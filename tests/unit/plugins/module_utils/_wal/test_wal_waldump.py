# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    CommitLog,
    count_inserts,
    count_rows,
    count_rows_of_files,
    format_time,
    marks,
    parse_commit_rest,
    parse_lines,
    parse_running,
    parse_time,
)

DATA = Path(__file__).parent / "data"
MAJORS = pytest.mark.parametrize("major", [15, 17])


def log_of(major: int) -> CommitLog:
    log = CommitLog()
    log.add((DATA / f"waldump-{major}.txt").read_bytes())
    return log


@MAJORS
def test_every_commit_is_read_and_no_abort(major: int) -> None:
    text = (DATA / f"waldump-{major}.txt").read_text()
    assert len(log_of(major)) == text.count("desc: COMMIT ") + text.count("desc: COMMIT_PREPARED ")


@MAJORS
def test_a_two_phase_commit_has_its_own_position_and_the_transaction_of_prepare(major: int) -> None:
    lines = [line for line in (DATA / f"waldump-{major}.txt").read_text().splitlines() if "PREPARE" in line]
    (prepare,) = (line for line in parse_lines("\n".join(lines).encode()) if line.operation == "PREPARE")
    (second,) = (line for line in parse_lines("\n".join(lines).encode()) if line.operation == "COMMIT_PREPARED")
    commit = log_of(major).by_transaction([prepare.xid])[prepare.xid]
    assert (commit.lsn, commit.prepared) == (second.lsn, True)
    assert len(commit.dropped) == 2
    assert len(commit.files) == 2


@MAJORS
def test_a_subtransaction_is_found_by_its_parents_commit(major: int) -> None:
    log = log_of(major)
    (parent,) = (commit for commit in log.with_dropped() if commit.subxacts)
    (child,) = parent.subxacts
    assert log.by_transaction([child]) == {child: parent}
    assert log.last_before(parent.lsn) == log.get(len(log) - 2)
    assert log.after(log.get(0).lsn) == len(log) - 1


@MAJORS
def test_rows_by_transaction(major: int) -> None:
    rows: Counter[tuple[int, str]] = Counter()
    count_rows((DATA / f"heap-{major}.txt").read_bytes(), rows)
    assert sorted((kind, count) for (_xid, kind), count in rows.items()) == [("delete", 3), ("update", 2)]


@MAJORS
def test_rows_by_file(major: int) -> None:
    rows: Counter[tuple[tuple[int, int, int], int, str]] = Counter()
    count_rows_of_files((DATA / f"heap-{major}.txt").read_bytes(), rows)
    assert sorted((file[0], kind, count) for (file, _xid, kind), count in rows.items()) == [
        (1663, "delete", 3),
        (1663, "update", 2),
    ]


def test_inserted_rows_one_by_one_and_many_at_a_time() -> None:
    head = b"rmgr: Heap  len (rec/tot):     63/    63, tx:        742, lsn: 0/00C32CD0, prev 0/00C32B38, desc: "
    lines = [
        b"INSERT+INIT off: 1, flags: 0x00, blkref #0: rel 1663/16384/16385 blk 0",
        b"INSERT off 2 flags 0x00, blkref #0: rel 1663/16384/16385 blk 0",
        b"MULTI_INSERT 6 tuples flags 0x02, blkref #0: rel 1663/5/1249 blk 64",
        b"MULTI_INSERT+INIT ntuples: 30, flags: 0x02, offsets: [1, 2], blkref #0: rel 1663/5/1249 blk 64",
        b"DELETE off 34 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/1249 blk 64",
    ]
    rows: Counter[int] = Counter()
    count_inserts(b"".join(head + line + b"\n" for line in lines), rows)
    assert rows == {742: 38}


def test_marks_of_our_own_transactions_and_of_nobody_else() -> None:
    head = (
        b"rmgr: LogicalMessage len (rec/tot):     72/    72, tx:        724, lsn: 0/01531638, prev 0/015315E0, desc: "
    )
    payload = b"; payload (8 bytes): 69 6E 63 2D C3 A9 2D 31\n"
    assert marks(head + b'MESSAGE transactional, prefix "dbre.recovery"' + payload) == {724: "inc-\u00e9-1"}
    assert marks(head + b'MESSAGE transactional, prefix "dbre.recovery2"' + payload) == {}
    assert marks(head + b'MESSAGE non-transactional, prefix "dbre.recovery"' + payload) == {}


def test_of_noise_nothing_is_kept_but_its_place() -> None:
    log = CommitLog(lambda _lsn, _rest: False)
    log.add((DATA / "waldump-15.txt").read_bytes())
    full = log_of(15)
    assert len(log) == len(full)
    assert [log.get(at).subxacts for at in range(len(log))] == [full.get(at).subxacts for at in range(len(full))]
    assert list(log.with_dropped()) == []


def test_a_row_that_moved_to_another_partition_was_updated() -> None:
    line = (DATA / "heap-17.txt").read_text().split("\n")
    moved = next(one for one in line if "DELETE" in one).replace("flags: 0x00", "flags: 0x10")
    rows: Counter[tuple[int, str]] = Counter()
    count_rows((moved + "\n" + moved.replace("0x10", "0x08") + "\n").encode(), rows)
    assert [(kind, count) for (_xid, kind), count in rows.items()] == [("update", 1)]


@MAJORS
def test_running_transactions(major: int) -> None:
    lines = parse_lines((DATA / f"waldump-{major}.txt").read_bytes())
    running = [parse_running(line) for line in lines if line.operation == "RUNNING_XACTS"]
    assert running
    assert all(one.next_xid > 700 for one in running)


def test_running_transactions_with_some() -> None:
    text = b"rmgr: Standby     len (rec/tot):     54/    54, tx:          0, lsn: 0/01D76B68, prev 0/01D76B30, desc: "
    text += b"RUNNING_XACTS nextXid 744 latestCompletedXid 742 oldestRunningXid 740; 2 xacts: 740 743; 1 subxacts: 741"
    (line,) = parse_lines(text)
    assert parse_running(line).xids == {740, 741, 743}


def test_a_line_of_another_shape_is_an_error() -> None:
    with pytest.raises(RecoveryError, match="cannot understand"):
        list(parse_lines(b"rmgr: Heap len 54, tx 1\n"))


def test_temporary_files_and_other_statistics_are_left_out() -> None:
    rest = (
        b"; rels: base/5/t3_16400 base/5/16401 pg_tblspc/16999/PG_15_202209061/5/16402; dropped stats: 1/16421/0 2/5/9"
    )
    subxacts, dropped, relcache, files = parse_commit_rest(rest)
    assert (subxacts, dropped, relcache, files) == ((), {(5, 9)}, frozenset(), {(5, 16401), (5, 16402)})


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-23 22:00:00+00", "2026-11-23T22:00:00.000000+00:00"),
        ("2026-11-23T22:00:00.25Z", "2026-11-23T22:00:00.250000+00:00"),
        ("2026-11-24 03:30+05:30", "2026-11-23T22:00:00.000000+00:00"),
        ("2026-11-23 12:30:00 -0930", "2026-11-23T22:00:00.000000+00:00"),
    ],
)
def test_times(text: str, same: str) -> None:
    assert format_time(parse_time(text, "since")) == same


@pytest.mark.parametrize("text", ["2026-11-23 22:00:00", "2026-11-23 22:00:00 CET", "2026-13-23 22:00+00", "now"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(RecoveryError, match="until: .*[+]00"):
        parse_time(text, "until") if "13-23" not in text else parse_time(text[:-3], "until")
