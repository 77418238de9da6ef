# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read single WAL records byte by byte (PostgreSQL 15 to 18: src/include/access/xlogrecord.h, xlog_internal.h).

pg_waldump finds records fast but does not print what is in a row. The few records whose rows are needed are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.compression import (
    Damaged,
    Unavailable,
    lz4_decompress,
    pglz_decompress,
    zstd_decompress,
)

PAGE = 8192
SHORT_HEADER = struct.Struct("=HHIQI4x")  # magic, info, timeline, address, bytes left of a record begun earlier
LONG_TAIL = struct.Struct("=QII")  # system identifier, segment size, page size
LONG_HEADER_SIZE = SHORT_HEADER.size + LONG_TAIL.size
PAGE_CONTINUES_RECORD = 0x0001
RECORD_HEADER = struct.Struct("=IIQBB2xI")  # total length, xid, previous record, info, resource manager, crc

RM_XLOG, RM_RELMAP, RM_HEAP2, RM_HEAP = 0, 7, 9, 10

HAS_IMAGE, HAS_DATA, WILL_INIT, SAME_RELATION = 0x10, 0x20, 0x40, 0x80
IMAGE_HAS_HOLE, IMAGE_PGLZ, IMAGE_LZ4, IMAGE_ZSTD = 0x01, 0x04, 0x08, 0x10
ID_DATA_SHORT, ID_DATA_LONG, ID_ORIGIN, ID_TOPLEVEL_XID = 255, 254, 253, 252
MAX_BLOCK_ID = 32


@dataclass(frozen=True)
class Block:
    """One page that a record changed. ``image`` is the page after the change, where the record holds it whole."""

    relation: tuple[int, int, int]
    fork: int
    number: int
    will_init: bool
    data: bytes
    image: Optional[bytes] = None
    unreadable: str = ""


@dataclass(frozen=True)
class Record:
    """One WAL record, taken apart as far as it is the same for all resource managers."""

    lsn: int
    xid: int
    rmid: int
    info: int
    blocks: tuple[Block, ...] = field(repr=False)
    main: bytes = field(repr=False)


def align(position: int) -> int:
    """The next multiple of eight, where records begin."""
    return (position + 7) & ~7


def page_header(page: bytes) -> tuple[int, int, int, int, int]:
    """(magic, info, timeline, address, remaining length) at the beginning of a WAL page."""
    magic, info, timeline, address, remaining = SHORT_HEADER.unpack_from(page)
    return magic, info, timeline, address, remaining


class Reader:
    """Reads records out of segment files; ``path_of`` names the file of a segment by its number."""

    def __init__(self, path_of: Callable[[int], str], segment_size: int) -> None:
        self._path_of = path_of
        self.segment_size = segment_size
        self._open: Optional[tuple[int, BinaryIO]] = None

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _file(self, segment: int) -> BinaryIO:
        if self._open is None or self._open[0] != segment:
            self.close()
            self._open = (segment, Path(self._path_of(segment)).open("rb"))  # noqa: SIM115 - kept for the next record
        return self._open[1]

    def _at(self, lsn: int, length: int) -> bytes:
        file = self._file(lsn // self.segment_size)
        file.seek(lsn % self.segment_size)
        data = file.read(length)
        if len(data) != length:
            raise Damaged(f"the WAL segment ends before {format_lsn(lsn + length)}")
        return data

    def _page(self, address: int) -> tuple[int, int]:
        """(size of the header, remaining length) of the page at ``address``; Damaged when another page is there."""
        _magic, info, _timeline, found, remaining = page_header(self._at(address, SHORT_HEADER.size))
        if found != address:
            raise Damaged(f"the page at {format_lsn(address)} says that it is {format_lsn(found)}")
        size = SHORT_HEADER.size if address % self.segment_size else LONG_HEADER_SIZE
        return size, remaining if info & PAGE_CONTINUES_RECORD else 0

    def first_record(self, segment: int) -> int:
        """LSN of the first record that begins in ``segment`` or, when none does, in a later one."""
        address = segment * self.segment_size
        while True:
            size, remaining = self._page(address)
            if size + remaining <= PAGE:
                lsn = address + align(size + remaining)
                return lsn if lsn % PAGE else lsn + self._page(lsn)[0]
            address += PAGE

    def record(self, lsn: int) -> bytes:
        """The whole record that begins at ``lsn``, without the page headers it runs across."""
        address = lsn - lsn % PAGE
        self._page(address)
        data = self._at(lsn, min(RECORD_HEADER.size, address + PAGE - lsn))
        (total,) = struct.unpack_from("=I", data)
        if total < RECORD_HEADER.size:
            raise Damaged(f"there is no record at {format_lsn(lsn)}")
        parts = []
        missing = total
        position = lsn
        while missing:
            take = min(missing, address + PAGE - position)
            parts.append(self._at(position, take))
            missing -= take
            if missing:
                address += PAGE
                size, remaining = self._page(address)
                if remaining != missing:
                    raise Damaged(f"the record at {format_lsn(lsn)} is not continued at {format_lsn(address)}")
                position = address + size
        return b"".join(parts)


def parse_record(data: bytes, lsn: int) -> Record:
    """Take a record apart: headers of blocks, then their data in the same order, then the main data."""
    total, xid, _previous, info, rmid, _crc = RECORD_HEADER.unpack_from(data)
    if total != len(data):
        raise Damaged(f"the record at {format_lsn(lsn)} has {len(data)} bytes and says {total}")
    try:
        blocks, main = _blocks_and_main(data)
    except struct.error as error:
        raise Damaged(f"the record at {format_lsn(lsn)} ends in its headers ({error})") from None
    return Record(lsn, xid, rmid, info, tuple(blocks), main)


@dataclass
class _Header:
    """Header of a block, and of its page image, as it stands in a record."""

    relation: tuple[int, int, int]
    flags: int
    number: int
    data_length: int
    image_length: int
    hole_offset: int
    hole_length: int
    image_flags: int


def _header(data: bytes, at: int, previous: Optional[tuple[int, int, int]]) -> tuple[_Header, int]:
    """The block header whose id byte lies before ``at``, and the position after it."""
    flags, data_length = struct.unpack_from("=BH", data, at)
    at += 3
    image_length = hole_offset = hole_length = image_flags = 0
    if flags & HAS_IMAGE:
        image_length, hole_offset, image_flags = struct.unpack_from("=HHB", data, at)
        at += 5
        if image_flags & IMAGE_HAS_HOLE:
            if image_flags & (IMAGE_PGLZ | IMAGE_LZ4 | IMAGE_ZSTD):
                (hole_length,) = struct.unpack_from("=H", data, at)
                at += 2
            else:
                hole_length = PAGE - image_length
    if not flags & SAME_RELATION:
        previous = struct.unpack_from("=III", data, at)
        at += 12
    if previous is None:
        raise Damaged("a block header refers to a relation named before it, and there is none")
    (number,) = struct.unpack_from("=I", data, at)
    return _Header(previous, flags, number, data_length, image_length, hole_offset, hole_length, image_flags), at + 4


def _blocks_and_main(data: bytes) -> tuple[list[Block], bytes]:
    at = RECORD_HEADER.size
    headers: list[_Header] = []
    main_length = 0
    body = 0
    while len(data) - at > body:
        kind = data[at]
        at += 1
        if kind == ID_DATA_SHORT:
            main_length = data[at]
            at += 1
            break
        if kind == ID_DATA_LONG:
            (main_length,) = struct.unpack_from("=I", data, at)
            at += 4
            break
        if kind == ID_ORIGIN:
            at += 2
        elif kind == ID_TOPLEVEL_XID:
            at += 4
        elif kind <= MAX_BLOCK_ID:
            header, at = _header(data, at, headers[-1].relation if headers else None)
            headers.append(header)
            body += header.image_length + header.data_length
        else:
            raise Damaged(f"a record holds a part of unknown kind {kind}")
    if at + body + main_length != len(data):
        raise Damaged("the parts of a record do not add up to its length")
    blocks = []
    for header in headers:
        image, unreadable = None, ""
        if header.flags & HAS_IMAGE:
            image, unreadable = _image(data[at : at + header.image_length], header)
            at += header.image_length
        payload = data[at : at + header.data_length]
        at += header.data_length
        fork, will_init = header.flags & 0x0F, bool(header.flags & WILL_INIT)
        blocks.append(Block(header.relation, fork, header.number, will_init, payload, image, unreadable))
    return blocks, data[at : at + main_length]


def _image(data: bytes, header: _Header) -> tuple[Optional[bytes], str]:
    """The whole page out of its stored image, or None and why it cannot be read."""
    stored = PAGE - header.hole_length
    try:
        if header.image_flags & IMAGE_ZSTD:
            data = zstd_decompress(data, stored)
        elif header.image_flags & IMAGE_PGLZ:
            data = pglz_decompress(data, stored)
        elif header.image_flags & IMAGE_LZ4:
            data = lz4_decompress(data, stored)
    except Unavailable as error:
        return None, str(error)
    if len(data) != stored:
        raise Damaged(f"a page image has {len(data)} bytes instead of {stored}")
    return data[: header.hole_offset] + bytes(header.hole_length) + data[header.hole_offset :], ""


def mapped_filenode(record: Record, oid: int) -> Optional[int]:
    """Filenode that a RelMap UPDATE record gives a mapped catalogue (src/backend/utils/cache/relmapper.c)."""
    _database, _tablespace, _size, _magic, count = struct.unpack_from("=IIiii", record.main)
    pairs = struct.iter_unpack("=II", record.main[20 : 20 + 8 * count])
    return next((filenode for mapped, filenode in pairs if mapped == oid), None)


def checked(data: bytes, lsn: int, total: int, xid: int) -> Record:
    """The record at ``lsn``, when it is the one pg_waldump printed there (``total`` bytes, transaction ``xid``)."""
    record = parse_record(data, lsn)
    if len(data) != total or record.xid != xid:
        raise RecoveryError(
            f"the WAL at {format_lsn(lsn)} changed while it was read (transaction {record.xid} instead of {xid}). "
            "Nothing was changed. Run the same command again."
        )
    return record
