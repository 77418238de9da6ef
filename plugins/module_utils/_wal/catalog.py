# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow catalogue rows through WAL: pages and their changes in, the rows before and after each change out.

The row that a DELETE removes is not in its record. It is known from the image of its page, which the first change after
a checkpoint puts into WAL (full_page_writes), and from what was inserted and updated on that page since.
Formats: PostgreSQL 15 to 18, src/include/access/heapam_xlog.h, access/htup_details.h, storage/bufpage.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import RM_HEAP, RM_HEAP2, Block, Record

OPERATION = 0x70
INSERT, DELETE, UPDATE, HOT_UPDATE, INPLACE = 0x00, 0x10, 0x20, 0x40, 0x70
MULTI_INSERT = 0x50
PREFIX_FROM_OLD, SUFFIX_FROM_OLD = 0x20, 0x40
INIT_PAGE = 0x80
TUPLE_HEADER = 23
LINE_POINTERS = 24
LINE_NORMAL = 1


@dataclass(frozen=True)
class Change:
    """A row of a catalogue before and after one record; None where there is none.

    ``unknown`` says why a row cannot be known although there is one.
    """

    lsn: int
    xid: int
    relation: tuple[int, int, int]
    operation: str
    block: int
    offset: int
    old: Optional[bytes] = None
    new: Optional[bytes] = None
    unknown: str = ""


class Page:
    """Rows of one page by offset, as bytes after the tuple's header. Those of an image are read when asked for."""

    def __init__(self, image: Optional[bytes] = None, whole: bool = True, why: str = "") -> None:
        self._image = image
        self._whole = whole
        self._why = why
        self._rows: dict[int, bytes] = {}
        self._lost: dict[int, str] = {}

    def row(self, offset: int) -> tuple[Optional[bytes], str]:
        """The row at a line pointer, or None and why it is not known."""
        if offset in self._lost:
            return None, self._lost[offset]
        if offset not in self._rows:
            found = row_of_page(self._image, offset) if self._image is not None else None
            if found is None:
                return None, "its page holds no row there" if self._whole else self._why
            self._rows[offset] = found
        return self._rows[offset], ""

    def put(self, offset: int, row: bytes) -> None:
        """Set the row at a line pointer."""
        self._rows[offset] = row
        self._lost.pop(offset, None)

    def lose(self, offset: int, why: str) -> None:
        """From now on the row at a line pointer is not known; those beside it are."""
        self._lost[offset] = why


BEFORE_RANGE = "the image of its page lies before the WAL that was read"


def row_of_page(page: bytes, offset: int) -> Optional[bytes]:
    """The row at line pointer ``offset`` (from 1) of a heap page, without the tuple's header; None when it has none."""
    (lower,) = struct.unpack_from("=H", page, 12)
    if not 1 <= offset <= (lower - LINE_POINTERS) // 4:
        return None
    (pointer,) = struct.unpack_from("=I", page, LINE_POINTERS + 4 * (offset - 1))
    start, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
    if state != LINE_NORMAL or length < TUPLE_HEADER:
        return None
    return page[start + page[start + 22] : start + length]


class Catalog:
    """The pages of some relations (tablespace, database, filenode) as WAL is read, record by record."""

    def __init__(self, relations: Iterable[tuple[int, int, int]]) -> None:
        self._relations = set(relations)
        self._pages: dict[tuple[tuple[int, int, int], int], Page] = {}

    def apply(self, record: Record) -> list[Change]:
        """Take up one record and return the rows that it changed."""
        for block in record.blocks:
            if block.fork == 0 and block.relation in self._relations:
                key = (block.relation, block.number)
                if block.image is not None:
                    self._pages[key] = Page(block.image)
                elif block.unreadable:
                    self._pages[key] = Page(whole=False, why=block.unreadable)
                elif block.will_init:
                    self._pages[key] = Page()
        if not record.blocks or record.blocks[0].fork or record.blocks[0].relation not in self._relations:
            return []
        operation = record.info & OPERATION
        if record.rmid == RM_HEAP2 and operation == MULTI_INSERT:
            return self._multi_insert(record)
        handler = _HANDLERS.get(operation) if record.rmid == RM_HEAP else None
        return [handler(self, record)] if handler else []

    def _page(self, block: Block) -> Page:
        return self._pages.setdefault((block.relation, block.number), Page(whole=False, why=BEFORE_RANGE))

    def _change(self, record: Record, operation: str, offset: int, block: Optional[Block] = None) -> Change:
        at = block or record.blocks[0]
        return Change(record.lsn, record.xid, at.relation, operation, at.number, offset)

    def _new_row(self, block: Block, offset: int, row: Optional[bytes]) -> tuple[Optional[bytes], str]:
        """Set the row unless the page's image, which is taken after the change, has it already."""
        page = self._page(block)
        if block.image is None and row is not None:
            page.put(offset, row)
        return page.row(offset)

    def _insert(self, record: Record) -> Change:
        block = record.blocks[0]
        (offset,) = struct.unpack_from("=H", record.main)
        new, unknown = self._new_row(block, offset, _stored_row(block.data) if block.data else None)
        return replace(self._change(record, "INSERT", offset), new=new, unknown=unknown)

    def _multi_insert(self, record: Record) -> list[Change]:
        block = record.blocks[0]
        (count,) = struct.unpack_from("=H", record.main, 2)
        offsets = tuple(range(1, count + 1))
        if not record.info & INIT_PAGE:
            offsets = struct.unpack_from(f"={count}H", record.main, 4)
        changes = []
        at = 0
        for offset in offsets:
            row = None
            if block.data:
                at += at & 1
                length, _mask2, _mask, header = struct.unpack_from("=HHHB", block.data, at)
                row = block.data[at + 7 + header - TUPLE_HEADER : at + 7 + length]
                at += 7 + length
            new, unknown = self._new_row(block, offset, row)
            changes.append(replace(self._change(record, "INSERT", offset), new=new, unknown=unknown))
        return changes

    def _delete(self, record: Record) -> Change:
        (offset,) = struct.unpack_from("=H", record.main, 4)
        old, unknown = self._page(record.blocks[0]).row(offset)
        return replace(self._change(record, "DELETE", offset), old=old, unknown=unknown)

    def _update(self, record: Record) -> Change:
        """The old row is on block 1, or on block 0 when the new one went to the same page."""
        _xmax, old_offset, _bits, flags, _new_xmax, new_offset = struct.unpack_from("=IHBBIH", record.main)
        block = record.blocks[0]
        old_block = record.blocks[1] if len(record.blocks) > 1 else block
        old, unknown = self._page(old_block).row(old_offset)
        row = None
        if block.image is None:
            row, lacking = _updated_row(block.data, flags, old)
            if row is None:
                self._page(block).lose(new_offset, unknown or lacking)
        new, new_unknown = self._new_row(block, new_offset, row)
        change = self._change(record, "UPDATE", old_offset, old_block)
        return replace(change, old=old, new=new, unknown=unknown or new_unknown)

    def _inplace(self, record: Record) -> Change:
        block = record.blocks[0]
        (offset,) = struct.unpack_from("=H", record.main)
        old, _why = self._page(block).row(offset) if block.image is None else (None, "")
        new, unknown = self._new_row(block, offset, block.data or None)
        return replace(self._change(record, "INPLACE", offset), old=old, new=new, unknown=unknown)


_HANDLERS: dict[int, Callable[[Catalog, Record], Change]] = {
    INSERT: Catalog._insert,
    DELETE: Catalog._delete,
    UPDATE: Catalog._update,
    HOT_UPDATE: Catalog._update,
    INPLACE: Catalog._inplace,
}


def _stored_row(data: bytes) -> bytes:
    """The row out of what INSERT stores: five bytes of header, the null bitmap with its padding, the row."""
    return data[5 + data[4] - TUPLE_HEADER :]


def _updated_row(data: bytes, flags: int, old: Optional[bytes]) -> tuple[Optional[bytes], str]:
    """The new row of an UPDATE that stores only what differs from the old row; None when that is not known."""
    at = prefix = suffix = 0
    if flags & PREFIX_FROM_OLD:
        (prefix,) = struct.unpack_from("=H", data, at)
        at += 2
    if flags & SUFFIX_FROM_OLD:
        (suffix,) = struct.unpack_from("=H", data, at)
        at += 2
    middle = _stored_row(data[at:])
    if not prefix and not suffix:
        return middle, ""
    if old is None:
        return None, "it was made by an update of a row that is not known"
    return old[:prefix] + middle + (old[len(old) - suffix :] if suffix else b""), ""


@dataclass(frozen=True)
class ClassRow:
    """What a row of pg_class says of a relation. Names are bytes in the database's encoding."""

    oid: int
    name: bytes
    namespace: int
    filenode: int
    tablespace: int
    persistence: str
    kind: str


_CLASS_HEAD = struct.Struct("=I64sIIIIIII")


def class_row(row: bytes, major: int) -> ClassRow:
    """Decode a row of pg_class (PostgreSQL 15 to 18: src/include/catalog/pg_class.h; 18 has one more counter)."""
    oid, name, namespace, _type, _of_type, _owner, _method, filenode, tablespace = _CLASS_HEAD.unpack_from(row)
    # relpages, reltuples, relallvisible, in 18 relallfrozen, reltoastrelid; then relhasindex, relisshared.
    flags = _CLASS_HEAD.size + (20 if major >= 18 else 16)
    persistence, kind = chr(row[flags + 2]), chr(row[flags + 3])
    return ClassRow(oid, name.rstrip(b"\0"), namespace, filenode, tablespace, persistence, kind)


def namespace_row(row: bytes) -> tuple[int, bytes]:
    """(oid, name) out of a row of pg_namespace."""
    oid, name = struct.unpack_from("=I64s", row)
    return oid, name.rstrip(b"\0")


def database_row(row: bytes) -> tuple[int, bytes, int]:
    """(oid, name, connection limit) out of a row of pg_database; the limit is -2 while a drop is under way."""
    oid, name = struct.unpack_from("=I64s", row)
    (limit,) = struct.unpack_from("=i", row, 80)
    return oid, name.rstrip(b"\0"), limit
