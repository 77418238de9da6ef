# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow catalogue rows through WAL, backwards: changes of pages in, the rows before and after each change out.

The row that a DELETE removes is not in its record. It is in the image of its page, which the first change after a
checkpoint puts into WAL (full_page_writes), or in the record that inserted or updated it, whichever is met first on the
way back. Nothing but what is still looked for is kept.
Formats: PostgreSQL 15 to 18, src/include/access/heapam_xlog.h, access/htup_details.h, storage/bufpage.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
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
BEFORE_RANGE = "the image of its page lies before the WAL that was read"
NO_ROW = "its page holds no row there"


class Row:
    """A catalogue row, without the tuple's header: known, or still to be met in older WAL.

    ``maker`` is the transaction that wrote this version of it; ``why`` says why a row is not known.
    """

    __slots__ = ("_of", "_waiting", "_why", "data", "maker")

    def __init__(self, data: Optional[bytes] = None, maker: Optional[int] = None, why: str = "") -> None:
        self.data = data
        self.maker = maker
        self._why = why
        self._of: Optional[Row] = None
        self._waiting: list[Callable[[bytes], None]] = []

    @property
    def why(self) -> str:
        """Why the row is not known; empty when it is."""
        if self.data is not None:
            return ""
        return self._why or (self._of.why if self._of is not None else BEFORE_RANGE)

    def learn(self, data: Optional[bytes], maker: Optional[int]) -> None:
        """Take up what WAL tells of the row; the first that it told, being the newest, counts."""
        if self.maker is None:
            self.maker = maker
        if data is not None and self.data is None:
            self.data = data
            for use in self._waiting:
                use(data)
            self._waiting.clear()

    def lose(self, why: str) -> None:
        """Older WAL will not tell it, or not from here."""
        self._why = why

    def then(self, use: Callable[[bytes], None]) -> None:
        """Call ``use`` with the row as soon as it is known."""
        if self.data is not None:
            use(self.data)
        else:
            self._waiting.append(use)

    def made_of(self, old: Row, make: Callable[[bytes], bytes]) -> None:
        """The row follows from an older version."""
        self._of = old
        old.then(lambda data: self.learn(make(data), self.maker))


@dataclass
class Change:
    """A row of a catalogue before and after one record; None where there is none."""

    lsn: int
    xid: int
    operation: str
    block: int
    offset: int
    old: Optional[Row] = None
    new: Optional[Row] = None

    @property
    def unknown(self) -> str:
        """Why a row cannot be known although there is one; empty when all are."""
        return next((row.why for row in (self.old, self.new) if row is not None and row.data is None), "")


def row_of_page(page: bytes, offset: int) -> Optional[tuple[bytes, int]]:
    """(row without the tuple's header, xmin) at line pointer ``offset``, from 1, of a heap page; None for no row."""
    (lower,) = struct.unpack_from("=H", page, 12)
    if not 1 <= offset <= (lower - LINE_POINTERS) // 4:
        return None
    (pointer,) = struct.unpack_from("=I", page, LINE_POINTERS + 4 * (offset - 1))
    start, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
    if state != LINE_NORMAL or length < TUPLE_HEADER:
        return None
    (xmin,) = struct.unpack_from("=I", page, start)
    return page[start + page[start + 22] : start + length], xmin


@dataclass
class Trace:
    """The rows of one catalogue file as WAL is read backwards, record by record.

    ``keep`` is asked with the rows before and after a change, None where there is none or it is not known yet; a change
    is forgotten as soon as the answer is no. ``kept`` are the others, by LSN and offset.
    """

    relation: tuple[int, int, int]
    keep: Callable[[Change], bool]
    kept: dict[tuple[int, int], Change] = field(default_factory=dict)
    _open: dict[int, dict[int, Row]] = field(default_factory=dict)

    def needs(self, blocks: Collection[int]) -> bool:
        """Whether rows of one of these blocks are looked for."""
        return any(block in self._open for block in blocks)

    def apply(self, record: Record, wanted: bool) -> None:
        """Take up one record, the next older one; ``wanted`` is whether its own change matters."""
        blocks = [block for block in record.blocks if block.fork == 0 and block.relation == self.relation]
        for block in blocks:
            self._from_image(block)
        if blocks and record.blocks[0].relation == self.relation and record.blocks[0].fork == 0:
            operation = record.info & OPERATION
            if record.rmid == RM_HEAP2 and operation == MULTI_INSERT:
                self._multi_insert(record, wanted)
            elif record.rmid == RM_HEAP and operation in _HANDLERS:
                _HANDLERS[operation](self, record, wanted)
        for block in blocks:
            if block.will_init:
                for row in self._open.pop(block.number, {}).values():
                    row.lose(NO_ROW)

    def _from_image(self, block: Block) -> None:
        """What is looked for on a page, out of its image, which is taken after the change."""
        if block.image is not None:
            for offset, row in self._open.pop(block.number, {}).items():
                found = row_of_page(block.image, offset)
                if found is None:
                    row.lose(NO_ROW)
                else:
                    row.learn(*found)
        elif block.unreadable:
            for row in self._open.get(block.number, {}).values():
                row.lose(block.unreadable)

    def _row_before(self, block: Block, offset: int) -> Row:
        """The row that a record found and did not write: its page's image still has it, else older WAL tells."""
        if block.image is not None:
            found = row_of_page(block.image, offset)
            return Row(*found) if found is not None else Row(why=NO_ROW)
        row = self._open.setdefault(block.number, {}).setdefault(offset, Row())
        if block.unreadable:
            row.lose(block.unreadable)
        return row

    def _row_after(self, block: Block, offset: int, data: Optional[bytes], maker: int) -> Row:
        """The row that a record wrote."""
        if block.image is not None:
            found = row_of_page(block.image, offset)
            return Row(found[0], maker) if found is not None else Row(why=NO_ROW)
        return Row(data, maker, block.unreadable)

    def _put(self, block: Block, offset: int, row: Row) -> None:
        """A record wrote the row: whoever looks for it has it, or has it when it is known."""
        rows = self._open.get(block.number, {})
        looked_for = rows.pop(offset, None)
        if looked_for is not None:
            if row.data is not None or row.maker is not None:
                looked_for.learn(row.data, row.maker)
            if row.data is None:
                looked_for.made_of(row, lambda data: data)
            if not rows:
                self._open.pop(block.number, None)

    def _note(
        self, record: Record, operation: str, at: tuple[Block, int], old: Optional[Row], new: Optional[Row]
    ) -> None:
        block, offset = at
        change = Change(record.lsn, record.xid, operation, block.number, offset, old, new)
        key = (record.lsn, offset)
        self.kept[key] = change

        def look(_data: bytes) -> None:
            if not self.keep(change):
                self.kept.pop(key, None)

        for row in (old, new):
            if row is not None:
                row.then(look)

    def _insert(self, record: Record, wanted: bool) -> None:
        block = record.blocks[0]
        (offset,) = struct.unpack_from("=H", record.main)
        row = self._row_after(block, offset, _stored_row(block.data) if block.data else None, record.xid)
        self._put(block, offset, row)
        if wanted:
            self._note(record, "INSERT", (block, offset), None, row)

    def _multi_insert(self, record: Record, wanted: bool) -> None:
        block = record.blocks[0]
        (count,) = struct.unpack_from("=H", record.main, 2)
        offsets = tuple(range(1, count + 1))
        if not record.info & INIT_PAGE:
            offsets = struct.unpack_from(f"={count}H", record.main, 4)
        at = 0
        for offset in offsets:
            data = None
            if block.data:
                at += at & 1
                length, _mask2, _mask, header = struct.unpack_from("=HHHB", block.data, at)
                data = block.data[at + 7 + header - TUPLE_HEADER : at + 7 + length]
                at += 7 + length
            row = self._row_after(block, offset, data, record.xid)
            self._put(block, offset, row)
            if wanted:
                self._note(record, "INSERT", (block, offset), None, row)

    def _delete(self, record: Record, wanted: bool) -> None:
        (offset,) = struct.unpack_from("=H", record.main, 4)
        if wanted:
            block = record.blocks[0]
            self._note(record, "DELETE", (block, offset), self._row_before(block, offset), None)

    def _update(self, record: Record, wanted: bool) -> None:
        """The old row is on block 1, or on block 0 when the new one went to the same page.

        Further blocks may be of the visibility map: minor releases of 2026 write its changes with those of the heap.
        """
        _xmax, old_offset, _bits, flags, _new_xmax, new_offset = struct.unpack_from("=IHBBIH", record.main)
        block = record.blocks[0]
        old_block = next((other for other in record.blocks[1:] if other.fork == 0), block)
        if not wanted and new_offset not in self._open.get(block.number, {}):
            return
        new = self._row_after(block, new_offset, None, record.xid)
        # What looks for the new row must not be taken for one that looks for the old row in the same place.
        self._put(block, new_offset, new)
        old = None
        if new.data is None and block.data:
            change = _Delta.of(block.data, flags)
            if change.prefix or change.suffix:
                old = self._row_before(old_block, old_offset)
                new.made_of(old, change.make)
            else:
                new.learn(change.middle, record.xid)
        if wanted:
            old = old or self._row_before(old_block, old_offset)
            self._note(record, "UPDATE", (old_block, old_offset), old, new)

    def _inplace(self, record: Record, wanted: bool) -> None:
        """It writes over a row and leaves the tuple's header, so the transaction that made the row is older."""
        block = record.blocks[0]
        (offset,) = struct.unpack_from("=H", record.main)
        found = row_of_page(block.image, offset) if block.image is not None else None
        data = found[0] if found is not None else block.data or None
        looked_for = self._open.get(block.number, {}).get(offset)
        if looked_for is not None:
            looked_for.learn(data, None)
        if wanted:
            self._note(record, "INPLACE", (block, offset), None, Row(data, why=block.unreadable))


_HANDLERS: dict[int, Callable[[Trace, Record, bool], None]] = {
    INSERT: Trace._insert,
    DELETE: Trace._delete,
    UPDATE: Trace._update,
    HOT_UPDATE: Trace._update,
    INPLACE: Trace._inplace,
}


def _stored_row(data: bytes) -> bytes:
    """The row out of what INSERT stores: five bytes of header, the null bitmap with its padding, the row."""
    return data[5 + data[4] - TUPLE_HEADER :]


@dataclass(frozen=True)
class _Delta:
    """What an UPDATE stores of the new row: how much of the old one's beginning and end stays, and what is between."""

    prefix: int
    suffix: int
    middle: bytes

    @classmethod
    def of(cls, data: bytes, flags: int) -> _Delta:
        at = prefix = suffix = 0
        if flags & PREFIX_FROM_OLD:
            (prefix,) = struct.unpack_from("=H", data, at)
            at += 2
        if flags & SUFFIX_FROM_OLD:
            (suffix,) = struct.unpack_from("=H", data, at)
            at += 2
        return cls(prefix, suffix, _stored_row(data[at:]))

    def make(self, old: bytes) -> bytes:
        """The new row out of the old one."""
        return old[: self.prefix] + self.middle + (old[len(old) - self.suffix :] if self.suffix else b"")
