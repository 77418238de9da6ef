# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import (
    missing_segments,
    newest_backup,
    segment_size,
    segments_between,
)

MIB = 1024 * 1024
HASH = "a" * 40


def backup(label: str, start: str, lsn: str | None = None, repo: int = 1) -> dict[str, Any]:
    found = {"label": label, "archive_start": start, "start_lsn": lsn, "repo": repo}
    return {**found, "database_id": 1, "stop_time": f"2026-11-25T0{label[-1]}:00:00+00:00"}


def test_a_segment_that_was_dropped_is_named() -> None:
    listing = [f"0000000100000000000000{n:02X}-{HASH}.zst" for n in (1, 2, 4)]
    listing += ["000000010000000000000001.00000028.backup", f"000000020000000000000003-{HASH}"]
    missing = missing_segments(listing, "000000010000000000000001", "000000010000000000000004", 16 * MIB)
    assert missing == ["000000010000000000000003"]


def test_names_go_on_where_the_numbers_of_a_directory_end() -> None:
    names = segments_between("0000000100000000000000FE", "000000010000000100000001", 16 * MIB)
    assert names == [
        f"00000001{rest}" for rest in ("00000000000000FE", "00000000000000FF", "0000000100000000", "0000000100000001")
    ]
    assert len(segments_between("00000001000000000000003F", "000000010000000100000000", 64 * MIB)) == 2


@pytest.mark.parametrize(
    ("lsn", "name", "size"),
    [
        ("0/2000028", "000000010000000000000002", 16),
        ("0/1200028", "000000010000000000000012", 1),
        ("5/44000028", "000000010000000500000011", 64),
        (None, "000000010000000000000002", 16),
    ],
)
def test_the_size_of_a_segment_is_known_from_a_backup(lsn: str | None, name: str, size: int) -> None:
    assert segment_size(backup("B1", name, lsn)) == size * MIB


def test_only_backups_of_the_repository_and_the_cluster_of_now_count() -> None:
    facts = {
        "databases": [{"repo": 1, "id": 1}, {"repo": 2, "id": 1}],
        "backups": [
            backup("B1", "000000010000000000000002"),
            backup("B2", "000000010000000000000005"),
            backup("B3", "000000010000000000000007", repo=2),
            {**backup("B4", "000000010000000000000009"), "database_id": 0},
        ],
    }
    newest = newest_backup(facts, 1)
    assert newest is not None
    assert newest["label"] == "B2"
    assert newest_backup(facts, 3) is None
