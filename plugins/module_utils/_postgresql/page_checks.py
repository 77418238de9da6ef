# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a page of a data file is one that the server would take. Pure functions over bytes.

The server checks a page when it reads it into memory (PostgreSQL: src/backend/storage/page/bufpage.c, PageIsVerified).
The checksum is a variant of FNV-1a that goes through a page in rows of 32 words at once (src/include/storage/
checksum_impl.h). Here the 32 sums are lanes of one number: 64 bits each, so that no product runs into the next.
"""

from __future__ import annotations

import struct
from typing import Optional

_LANES = 32
_PRIME = 16777619
_ROW = 4 * _LANES
# The sums begin with these (checksumBaseOffsets), in the order of the words.
_FIRST = bytes.fromhex(
    "5b1f36e9 b8525960 02ab50aa 1de66d2a 79ff467a 9bb9f8a3 217e7cd2 83e13d2c"
    "f8d4474f e39eb970 42c6ae16 993216fa 7b093b5d 98daff3c f718902a 0b1c9cdb"
    "e58f764b 187636bc 5d7b3bb1 e73de7de 92bec979 cca6c0b2 304a0979 85aa43d4"
    "783125bb 6ca8eaa2 e407eac6 4b5cfc3e 9fbf8c76 15ca20be f2ca9fd3 959bd756"
)
_FLAGS = 0x0007  # PD_VALID_FLAG_BITS
_HEADER = struct.Struct(
    "=QHHHHHH"
)  # pd_lsn, pd_checksum, pd_flags, pd_lower, pd_upper, pd_special, pagesize and version
_CHECKSUM_AT = 8


def _spread(words: bytes) -> int:
    """A row of 32 words as one number: the even ones in its lower lanes, the odd ones in its upper lanes."""
    number = int.from_bytes(words, "little")
    return (number & _EVEN) | ((number >> 32 & _EVEN) << 32 * _LANES)


_EVEN = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * (_LANES // 2), "little")
_LOW = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * _LANES, "little")
_START = _spread(struct.pack(f"<{_LANES}I", *struct.unpack(f">{_LANES}I", _FIRST)))
_SHIFTED = int.from_bytes(b"\xff\x7f\0\0\0\0\0\0" * _LANES, "little")  # what is left of 32 bits after a shift by 17


def page_checksum(page: bytes, block: int) -> int:
    """The checksum that a page of a little-endian server has to have as ``block`` of its relation's fork."""
    whole = page[:_CHECKSUM_AT] + b"\0\0" + page[_CHECKSUM_AT + 2 :]
    sums = _START
    for at in range(0, len(whole), _ROW):
        mixed = sums ^ _spread(whole[at : at + _ROW])
        sums = (mixed * _PRIME & _LOW) ^ (mixed >> 17 & _SHIFTED)
    for _round in range(2):
        sums = (sums * _PRIME & _LOW) ^ (sums >> 17 & _SHIFTED)
    for half in (1024, 512, 256, 128, 64):
        sums = (sums >> half) ^ (sums & ((1 << half) - 1))
    return ((sums ^ block) % 65535) + 1


def is_new(page: bytes) -> bool:
    """Whether the server takes a page for one that never held anything."""
    return bool(_HEADER.unpack_from(page)[4] == 0)


def page_fault(page: bytes, block: int, checksums: bool) -> Optional[str]:
    """What the server would refuse a page for: ``checksum``, ``header``, or None.

    ``block`` is its number in the fork of its relation; ``checksums``: whether the cluster has data checksums.
    """
    _lsn, stored, flags, lower, upper, special, _size = _HEADER.unpack_from(page)
    if upper == 0:  # new
        return None if not any(page) else "header"
    if checksums and stored != page_checksum(page, block):
        return "checksum"
    sound = not flags & ~_FLAGS and lower <= upper <= special <= len(page) and special % 8 == 0
    return None if sound else "header"
