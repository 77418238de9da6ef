# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import (
    BEFORE_RANGE,
    HOT_UPDATE,
    OPERATION,
    UPDATE,
    Change,
    Row,
    Trace,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import class_row, namespace_row
from ansible_collections.dbre.recovery.plugins.module_utils._wal.compression import (
    Damaged,
    lz4_decompress,
    pglz_decompress,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import RM_HEAP, parse_record

DATA = Path(__file__).parent / "data"
MAJORS = pytest.mark.parametrize("major", [15, 17])


def changes(
    major: int, name: str, skip: int = 0, keep: Callable[[Change], bool] = lambda _change: True
) -> list[Change]:
    """What all changes of a catalogue but the first ``skip`` records say, in the order of WAL."""
    recorded: dict[str, Any] = json.loads((DATA / f"catalog-{major}.json").read_text())
    traces = [Trace(tuple(relation), keep) for relation in recorded["files"][name]]
    records = [parse_record(bytes.fromhex(one["hex"]), one["lsn"]) for one in recorded["records"][name]]
    for record in reversed(records[skip:]):
        for trace in traces:
            trace.apply(record, True)
    kept = [change for trace in traces for change in trace.kept.values()]
    return sorted(kept, key=lambda change: (change.lsn, change.offset))


def data(row: Optional[Row]) -> bytes:
    """The row, or nothing where there is none or it is not known."""
    return (row.data if row is not None else None) or b""


@MAJORS
def test_dropped_rows_have_their_names(major: int) -> None:
    """Images in the recording are plain, then pglz, then lz4; one drop after each."""
    dropped = [data(one.old) for one in changes(major, "pg_class") if one.operation == "DELETE"]
    gone = [class_row(row, major) for row in dropped if row]
    assert [(row.name, row.kind, row.persistence) for row in gone if row.kind == "r"][-4:] == [
        (b"noise", "r", "t"),
        (b"orders", "r", "p"),
        (b"orders", "r", "p"),
        (b"Order Lines", "r", "p"),
    ]


@MAJORS
def test_a_rewrite_swaps_files(major: int) -> None:
    rows = [
        (class_row(data(one.old), major), class_row(data(one.new), major))
        for one in changes(major, "pg_class")
        if one.operation == "UPDATE" and data(one.old) and data(one.new)
    ]
    moved = [(old.name, old.filenode, new.filenode) for old, new in rows if old.filenode != new.filenode]
    orders = [(old, new) for name, old, new in moved if name == b"orders"]
    assert len(orders) == 2
    assert orders[0][1] == orders[1][0]
    transient = [(old, new) for name, old, new in moved if name.startswith(b"pg_temp_")]
    assert (orders[1][1], orders[1][0]) in transient


@MAJORS
def test_a_changed_visibility_map_is_not_taken_for_the_page_of_the_old_row(major: int) -> None:
    """Minor releases of 2026 write the map's page with the record, behind those of the heap, with its image."""
    recorded: dict[str, Any] = json.loads((DATA / f"catalog-{major}.json").read_text())
    seen = 0
    for one in recorded["records"]["pg_class"]:
        record = parse_record(bytes.fromhex(one["hex"]), one["lsn"])
        updated = record.rmid == RM_HEAP and record.info & OPERATION in (UPDATE, HOT_UPDATE)
        if not updated or len(record.blocks) != 1 or record.blocks[0].image is None:
            continue
        heap = record.blocks[0]
        plain, mapped = Trace(heap.relation, lambda _change: True), Trace(heap.relation, lambda _change: True)
        plain.apply(record, True)
        visibility = replace(heap, fork=2, number=0, image=bytes(len(heap.image)))
        mapped.apply(replace(record, blocks=(heap, visibility)), True)
        ((expected,), (found,)) = plain.kept.values(), mapped.kept.values()
        assert data(found.old) == data(expected.old) != b""
        assert found.block == expected.block
        seen += 1
    assert seen


@MAJORS
def test_a_dropped_schema_has_its_name(major: int) -> None:
    (gone,) = (one for one in changes(major, "pg_namespace") if one.operation == "DELETE" and data(one.old))
    assert namespace_row(data(gone.old))[1] == b"Sales"


@MAJORS
def test_what_is_not_wanted_is_forgotten_as_soon_as_it_is_known(major: int) -> None:
    """Noise that is made and removed leaves nothing behind."""

    def keep(change: Change) -> bool:
        return class_row(data(change.old) or data(change.new), major).persistence != "t"

    kept = changes(major, "pg_class", keep=keep)
    assert kept
    assert len(kept) < len(changes(major, "pg_class"))
    assert not [one for one in kept if not one.unknown and not keep(one)]


@MAJORS
def test_without_the_image_of_its_page_a_row_is_not_guessed(major: int) -> None:
    recorded = json.loads((DATA / f"catalog-{major}.json").read_text())["records"]["pg_class"]
    without = [parse_record(bytes.fromhex(one["hex"]), one["lsn"]) for one in recorded]
    last = max(index for index, one in enumerate(without) if any(block.image for block in one.blocks))
    dropped = [one for one in changes(major, "pg_class", skip=last + 1) if one.operation == "DELETE"]
    assert [(data(one.old), one.unknown) for one in dropped] == [(b"", BEFORE_RANGE)] * len(dropped)


@MAJORS
def test_damaged_records_are_refused(major: int) -> None:
    recorded = json.loads((DATA / f"catalog-{major}.json").read_text())["records"]["pg_class"]
    record = bytes.fromhex(recorded[0]["hex"])
    with pytest.raises(Damaged):
        parse_record(record[:-1], 0)
    with pytest.raises(Damaged):
        parse_record(record[:24] + b"\x7f" + record[25:], 0)


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
