# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.page_checks import page_checksum, page_fault
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import (
    means_of,
    newest_clean,
    place_of,
    result_of,
    same_relation,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import (
    Layout,
    Listing,
    data_files,
)

# Page 0 of a table with one row (42), by PostgreSQL 15 with data checksums.
HEADER = bytes.fromhex("00000000a0ed8b01") + b"\0\0" + bytes.fromhex("00001c00e01f002004200000000000") + b"\0"
PAGE = HEADER + bytes.fromhex("e09f3800") + bytes(8192 - len(HEADER) - 4)


def signed(page: bytes, block: int) -> bytes:
    return page[:8] + page_checksum(page, block).to_bytes(2, "little") + page[10:]


def test_a_page_belongs_to_its_block() -> None:
    page = signed(PAGE, 7)
    assert page_fault(page, 7, True) is None
    assert page_fault(page, 8, True) == "checksum"
    assert page_fault(page, 8, False) is None


@pytest.mark.parametrize("at", [0, 11, 28, 4000, 8191])
def test_every_bit_counts(at: int) -> None:
    page = bytearray(signed(PAGE, 3))
    page[at] ^= 1
    assert page_fault(bytes(page), 3, True) is not None


def test_new_pages_are_sound_when_they_are_empty() -> None:
    assert page_fault(bytes(8192), 3, True) is None
    assert page_fault(bytes(8191) + b"\1", 3, True) == "header"


def test_without_checksums_the_header_still_has_to_make_sense() -> None:
    page = bytearray(PAGE)
    page[14:16] = (9000).to_bytes(2, "little")
    assert page_fault(bytes(page), 0, False) == "header"


def test_files_of_relations_are_those_with_numbers_alone(tmp_path: Path) -> None:
    names = ("base/5/1259", "base/5/1259_fsm", "base/5/1259_vm", "base/5/t3_99", "base/5/16384.2", "base/5/16385_init")
    for name in (*names, "base/6/1259", "global/1262", "global/pg_control", "pg_tblspc/9/PG_15_1/5/70"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = data_files(Layout(str(tmp_path), 15, 8192, 100, True), [5])
    assert [(str(one.file.relative_to(tmp_path)), one.path, one.first) for one in found] == [
        ("global/1262", "global/1262", 0),
        ("base/5/1259", "base/5/1259", 0),
        ("base/5/16384.2", "base/5/16384", 200),
        ("base/5/16385_init", "base/5/16385", 0),
        ("pg_tblspc/9/PG_15_1/5/70", "pg_tblspc/9/PG_15_1/5/70", 0),
    ]


def test_what_lies_behind_a_short_segment_is_out_of_the_servers_reach(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path), 15, 8192, 2, True)
    assert Listing(layout).blocks("7") is None
    # What a VACUUM cut off leaves empty segments behind.
    for sizes, expected in (((2, 2, 1, 0), (5, False)), ((2, 1, 2), (3, True)), ((2, None, 2), (2, True))):
        for segment, blocks in enumerate(sizes):
            file = tmp_path / (f"7.{segment}" if segment else "7")
            file.unlink(missing_ok=True)
            if blocks is not None:
                file.write_bytes(bytes(blocks * 8192))
        (tmp_path / "7_vm").touch()
        assert Listing(layout).blocks("7") == expected


def row(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"oid": 20000, "schema": "public", "name": "a", "kind": "r", "method": "heap"}
    return {**found, "persistence": "p", "owner": 20000, "toasted": None, **changes}


@pytest.mark.parametrize(
    ("changes", "kind", "means"),
    [
        ({}, "table", "rows"),
        ({"persistence": "u"}, "table", "empty"),
        ({"kind": "t"}, "toast", "rows"),
        ({"kind": "i"}, "index", "rebuild"),
        ({"kind": "m"}, "materialized view", "refresh"),
        ({"kind": "S"}, "sequence", "restore"),
        ({"oid": 1259, "schema": "pg_catalog"}, "catalogue", "restore"),
        ({"oid": 2662, "kind": "i"}, "catalogue index", "rebuild"),
    ],
)
def test_the_smallest_means(changes: dict[str, Any], kind: str, means: str) -> None:
    place = place_of(row(**changes))
    assert (place["kind"], means_of(place)) == (kind, means)


def test_blocks_are_told_as_ranges() -> None:
    assert blocks_text([9, 3, 8, 7]) == "3, 7-9"
    assert blocks_text([3], 5) == "3 and 5 more"


def test_segments_belong_to_their_relation() -> None:
    assert same_relation("base/5/16384", "base/5/16384.3")
    assert not same_relation("base/5/16384", "base/5/163845")


def backup(label: str, error: Any, database_id: int = 2) -> dict[str, Any]:
    found = {"label": label, "error": error, "stop_time": label, "database_id": database_id}
    return {**found, "repo": 1, "type": "full", "stop_lsn": "0/1"}


def test_the_newest_backup_without_the_damage_is_of_this_cluster_and_judged_by_its_files() -> None:
    facts = {
        "repositories": [{"repo": 1}],
        "databases": [{"repo": 1, "id": 1}, {"repo": 1, "id": 2}],
        "backups": [
            backup("1-old-cluster", False, 1),
            backup("2-clean", False),
            backup("3-other-file", True),
            backup("4-damaged", True),
            backup("5-unknown", None),
        ],
    }

    def errors_of(one: Any) -> list[str]:
        if one["label"] == "5-unknown":
            raise RecoveryError("gone")
        return {"3-other-file": ["base/5/99"], "4-damaged": ["base/5/16384.1"]}[one["label"]]

    found = newest_clean(facts, ["base/5/16384"], errors_of)
    assert found["clean"]["label"] == "3-other-file"
    assert (found["damaged"], found["unknown"]) == (["4-damaged"], ["5-unknown"])
    assert newest_clean({**facts, "backups": facts["backups"][3:]}, ["base/5/16384"], errors_of)["clean"] is None


def test_an_index_that_is_damaged_and_of_a_changed_collation_is_rebuilt_once_and_nothing_else_is_unsound() -> None:
    index = {"oid": 20001, "schema": "public", "name": "i", "unique": False, "path": "base/5/20001"}
    collation = {"database": "shop", "what": "database shop", "recorded": "1", "actual": "2"}
    collation.update(indexes=[index], partitioned=[])
    only = result_of([], [collation], [], None, lambda _one: [])
    assert (only["sound"], only["damages"], len(only["indexes"])) == (False, [], 1)
    assert "no damage" in only["text"][0]
    place = place_of(row(oid=20001, kind="i", name="i"))
    damage: Any = {"database": "shop", "place": place, "path": "base/5/20001", "blocks": [1], "more": 0}
    damage.update(faults=["checksum"], messages=["refused"])
    both = result_of([damage], [collation], [], None, lambda _one: [])
    assert [one["oid"] for one in both["indexes"]] == [20001]
