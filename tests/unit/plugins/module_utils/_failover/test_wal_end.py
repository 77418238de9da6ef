# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of WAL is behind the last valid record, wherever pages and segments break it."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import Tail, judge, record_end

MB = 1 << 20
# As pg_waldump 15 printed it; the server had said that it had flushed up to 0/701168.
TEXT = (
    b"rmgr: Heap        len (rec/tot):     80/    80, tx:        726, lsn: 0/007010F0, prev 0/00700F58, desc: INSERT"
    b" off 1\nrmgr: Transaction len (rec/tot):     34/    34, tx:        726, lsn: 0/00701140, prev 0/007010F0, "
    b"desc: COMMIT 2026-11-29 07:45:48.175778 UTC\n"
)
COMPLAINT = "pg_waldump: error: error in WAL record at 0/701140: invalid record length at 0/701168: wanted 24, got 0\n"


@pytest.mark.parametrize(
    ("lsn", "total", "end"),
    [
        (0x701140, 34, 0x701168),
        (0x701140, 40, 0x701168),
        # Up to the end of its page, and around the header of the next one.
        (0x701FE0, 32, 0x702000),
        (0x701FE0, 33, 0x702018 + 8),
        (0x701FE0, 32 + 8168, 0x704000),
        (0x701FE0, 32 + 8168 + 1, 0x704018 + 8),
        # Around the long header of a new segment.
        (0x7FFFE0, 40, 0x800028 + 8),
    ],
)
def test_the_end_of_a_record_is_where_the_next_one_begins(lsn: int, total: int, end: int) -> None:
    assert record_end(lsn, total, MB) == end


def test_a_switch_ends_its_segment() -> None:
    assert record_end(0x61ED28, 24, MB, switch=True) == 0x700000
    assert record_end(0x6FFFE8, 24, MB, switch=True) == 0x700000


@pytest.mark.parametrize("size", [1, 7, 100, 10000])
def test_text_is_understood_in_pieces_of_any_size(size: int) -> None:
    tail = Tail()
    for at in range(0, len(TEXT), size):
        tail.add(TEXT[at : at + size])
    found = judge(tail, COMPLAINT, 1, MB, "pg_wal")
    assert (found.end, found.commits) == (0x701168, 1)
    assert found.last_commit == "2026-11-29T07:45:48.175778+00:00"


@pytest.mark.parametrize(
    "complaint",
    [
        "pg_waldump: error: could not find a valid record after 0/9000000",
        'pg_waldump: error: could not find file "000000010000000000000090": No such file or directory',
    ],
)
def test_a_directory_without_wal_from_there_on_has_no_end(complaint: str) -> None:
    assert judge(Tail(), complaint, 1, MB, "pg_wal").end is None


@pytest.mark.parametrize(
    "complaint",
    [
        'pg_waldump: error: could not open directory "/var/lib/postgresql/17/main/pg_wal": Permission denied',
        'pg_waldump: error: could not read file "000000010000000000000090": Input/output error',
        "",
    ],
)
def test_a_disk_that_cannot_be_read_is_no_end(complaint: str) -> None:
    tail = Tail()
    tail.add(TEXT)
    with pytest.raises(RecoveryError, match="cannot read the WAL in pg_wal"):
        judge(tail, complaint, 1, MB, "pg_wal")
