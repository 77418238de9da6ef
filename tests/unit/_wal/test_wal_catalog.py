# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import (
    BEFORE_RANGE,
    Catalog,
    Change,
    class_row,
    namespace_row,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import (
    Damaged,
    lz4_decompress,
    parse_record,
    pglz_decompress,
)

DATA = Path(__file__).parent / "data"
MAJORS = pytest.mark.parametrize("major", [15, 17])


def changes(major: int, name: str, skip: int = 0) -> list[Change]:
    recorded: dict[str, Any] = json.loads((DATA / f"catalog-{major}.json").read_text())
    catalog = Catalog(tuple(relation) for relation in recorded["files"][name])
    records = [parse_record(bytes.fromhex(one["hex"]), one["lsn"]) for one in recorded["records"][name]]
    return [change for record in records[skip:] for change in catalog.apply(record)]


@MAJORS
def test_dropped_rows_have_their_names(major: int) -> None:
    """Images in the recording are plain, then pglz, then lz4; one drop after each."""
    gone = [class_row(one.old, major) for one in changes(major, "pg_class") if one.operation == "DELETE" and one.old]
    assert [(row.name, row.kind, row.persistence) for row in gone if row.kind == "r"][-4:] == [
        (b"noise", "r", "t"),
        (b"orders", "r", "p"),
        (b"orders", "r", "p"),
        (b"Order Lines", "r", "p"),
    ]


@MAJORS
def test_a_rewrite_swaps_files(major: int) -> None:
    rows = [
        (class_row(one.old, major), class_row(one.new, major))
        for one in changes(major, "pg_class")
        if one.operation == "UPDATE" and one.old and one.new
    ]
    moved = [(old.name, old.filenode, new.filenode) for old, new in rows if old.filenode != new.filenode]
    orders = [(old, new) for name, old, new in moved if name == b"orders"]
    assert len(orders) == 2
    assert orders[0][1] == orders[1][0]
    transient = [(old, new) for name, old, new in moved if name.startswith(b"pg_temp_")]
    assert (orders[1][1], orders[1][0]) in transient


@MAJORS
def test_a_dropped_schema_has_its_name(major: int) -> None:
    (gone,) = (one for one in changes(major, "pg_namespace") if one.operation == "DELETE" and one.old)
    assert namespace_row(gone.old or b"")[1] == b"Sales"


@MAJORS
def test_without_the_image_of_its_page_a_row_is_not_guessed(major: int) -> None:
    recorded = json.loads((DATA / f"catalog-{major}.json").read_text())["records"]["pg_class"]
    without = [parse_record(bytes.fromhex(one["hex"]), one["lsn"]) for one in recorded]
    last = max(index for index, one in enumerate(without) if any(block.image for block in one.blocks))
    dropped = [one for one in changes(major, "pg_class", skip=last + 1) if one.operation == "DELETE"]
    assert [(one.old, one.unknown) for one in dropped] == [(None, BEFORE_RANGE)] * len(dropped)


@MAJORS
def test_damaged_records_are_refused(major: int) -> None:
    recorded = json.loads((DATA / f"catalog-{major}.json").read_text())["records"]["pg_class"]
    data = bytes.fromhex(recorded[0]["hex"])
    with pytest.raises(Damaged):
        parse_record(data[:-1], 0)
    with pytest.raises(Damaged):
        parse_record(data[:24] + b"\x7f" + data[25:], 0)


def test_pglz() -> None:
    # Three literals, then a tag of length 3 + 6 and distance 3, overlapping itself.
    assert pglz_decompress(bytes([0b00001000]) + b"abc" + bytes([0x06, 0x03]), 12) == b"abcabcabcabc"
    # Length 18 is followed by a byte to add.
    assert pglz_decompress(bytes([0b00000010]) + b"x" + bytes([0x0F, 0x01, 200]), 219) == b"x" * 219
    for broken in (bytes([0b00000001, 0x00]), bytes([0b00000001, 0x00, 0x09]), b"\x00ab"):
        with pytest.raises(Damaged):
            pglz_decompress(broken, 12)


def test_lz4() -> None:
    assert lz4_decompress(bytes([0x35]) + b"abc" + bytes([0x03, 0x00, 0x00]), 12) == b"abcabcabcabc"
    assert lz4_decompress(bytes([0x1F]) + b"x" + bytes([0x01, 0x00, 255, 10, 0x10]) + b"y", 286) == b"x" * 285 + b"y"
    with pytest.raises(Damaged):
        lz4_decompress(bytes([0x35]) + b"abc", 12)
