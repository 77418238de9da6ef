# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the pages of an index lead: to rows of its table, and to other pages of its own. Pure functions over bytes.

To the server a page that is full of zeros is a new one, and a file that was cut off is a shorter one. Only what leads
there tells that something was there. Layouts are those of PostgreSQL 13 to 18 on little-endian machines; each function
names its source.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Optional

NOWHERE = 0xFFFFFFFF  # InvalidBlockNumber
_ITEMS_AT = 24  # SizeOfPageHeaderData; where what the page holds begins
_ITEM_TID = struct.Struct("<HHHH")  # block's upper and lower half, offset, t_info
_TID = struct.Struct("<HHH")
_BTREE = struct.Struct("<IIIH")  # btpo_prev, btpo_next, btpo_level, btpo_flags
_BTREE_LEAF, _BTREE_NOT_IN_USE = 0x01, 0x04 | 0x08 | 0x10  # deleted, meta, half-dead
_IN_USE = 0x8000  # the lower bit of lp_flags, which LP_NORMAL has, and LP_DEAD with the upper one
_ALTERNATIVE, _POSTING, _COUNT = 0x2000, 0x2000, 0x0FFF  # INDEX_ALT_TID_MASK, BT_IS_POSTING, BT_OFFSET_MASK
_GIN = struct.Struct("<IHH")  # rightlink, maxoff, flags
_GIN_DATA, _GIN_LEAF, _GIN_LIST, _GIN_NOT_IN_USE = 0x01, 0x02, 0x10, 0x04 | 0x08
_GIN_TREE = 0xFFFF  # GIN_TREE_POSTING
_GIST = struct.Struct("<QIH")  # nsn, rightlink, flags
_GIST_LEAF, _GIST_DELETED, _GIST_FOLLOW_RIGHT = 0x01, 0x02, 0x08
_SPGIST_NO_INNER = 0x01 | 0x02 | 0x04  # meta, deleted, leaf
_HASH_META = struct.Struct("<IIdHHHHIIIIIII98I")  # hashm_magic to hashm_spares
_HASH_IN_USE = 0x01 | 0x02  # overflow, bucket
_BRIN_META = struct.Struct("<IIII")  # magic, version, pagesPerRange, lastRevmapPage
_BRIN_REVMAP = 0xF092

METHODS = ("btree", "hash", "gist", "gin", "brin", "spgist")


def places_and_uppers(pages: bytes, size: int) -> tuple[list[int], list[int]]:
    """Of each of some pages of a table how many rows it has, or had, a place for, and its pd_upper: 0 of a new one.

    The places are what PageGetMaxOffsetNumber tells, 0 of a new one.
    """
    halves, step = memoryview(pages).cast("H"), size >> 1
    places = [(lower - _ITEMS_AT) >> 2 if lower > _ITEMS_AT else 0 for lower in halves[6::step].tolist()]
    return places, halves[7::step].tolist()


def _special(page: bytes) -> int:
    return page[16] | page[17] << 8


def _items(page: bytes, first: int = 1) -> Iterator[int]:
    """Where the items of a page begin (ItemIdData: 15 bits of lp_off, 2 of lp_flags)."""
    end = page[12] | page[13] << 8
    for (item,) in struct.iter_unpack("<I", page[_ITEMS_AT + 4 * (first - 1) : end]):
        if item >> 15 & 3:
            yield item & 0x7FFF


def rows_of(page: bytes) -> tuple[Sequence[int], Sequence[int]]:
    """Blocks, and numbers within them, of all rows of the table that a page of a B-tree leads to.

    src/include/access/nbtree.h: on a leaf the first item is the high key, unless it is the rightmost one; a posting
    list has many rows.
    """
    _previous, following, _level, flags = _BTREE.unpack_from(page, _special(page))
    if not flags & _BTREE_LEAF or flags & _BTREE_NOT_IN_USE:
        return (), ()
    halves = memoryview(page).cast("H")  # items begin at multiples of eight
    alike = _alike(page, halves, bool(following))
    if alike is not None:
        return alike
    blocks, numbers = [], []
    for at in _items(page, 2 if following else 1):
        first = at >> 1
        offset = halves[first + 2]
        if not halves[first + 3] & _ALTERNATIVE:
            blocks.append(halves[first] << 16 | halves[first + 1])
            numbers.append(offset)
        elif offset & _POSTING:
            begin = at + (halves[first] << 16 | halves[first + 1])
            for high, low, number in _TID.iter_unpack(page[begin : begin + _TID.size * (offset & _COUNT)]):
                blocks.append(high << 16 | low)
                numbers.append(number)
    return blocks, numbers


def _alike(page: bytes, halves: memoryview, high_key: bool) -> Optional[tuple[list[int], list[int]]]:
    """rows_of a leaf whose items are all of one size and lead to one row each; None of any other.

    That are keys of a fixed width, by far the most; their items lie side by side, in whatever order. They are a
    twentieth of the work item by item.
    """
    end, upper, special = (page[at] | page[at + 1] << 8 for at in (12, 14, 16))
    count = (end - _ITEMS_AT) // 4
    pointers = halves[_ITEMS_AT >> 1 : end >> 1].tolist()
    sizes = set(pointers[1::2])  # 15 bits of lp_len, and the upper one of lp_flags
    if len(sizes) != 1 or min(pointers[::2]) < _IN_USE:
        return None
    size = sizes.pop()
    step = size >> 2  # in halves: lp_len is in bytes and shifted by one
    if size & 1 or step < _ITEM_TID.size >> 1 or count * 2 * step != special - upper:
        return None
    columns = [halves[(upper >> 1) + column : special >> 1 : step].tolist() for column in range(4)]
    if high_key:
        place = ((pointers[0] & ~_IN_USE) - upper) // (2 * step)
        for column in columns:
            del column[place]
    upper_halves, lower_halves, numbers, infos = columns
    if any(info & _ALTERNATIVE for info in set(infos)):
        return None
    if any(upper_halves):
        return [high << 16 | low for high, low in zip(upper_halves, lower_halves)], numbers
    return lower_halves, numbers


def leads_to(method: str, page: bytes, block: int) -> Iterator[int]:
    """Blocks of an index that must be there, and hold something, as one of its pages says. ``method``: METHODS."""
    if method == "btree":
        yield from _btree(page, block)
    elif method == "gin":
        yield from _gin(page, block)
    elif method == "gist":
        yield from _gist(page)
    elif method == "spgist":
        yield from _spgist(page, block)
    elif method == "hash":
        yield from _hash(page, block)
    elif method == "brin":
        yield from _brin(page, block)


def _btree(page: bytes, block: int) -> Iterator[int]:
    """src/include/access/nbtree.h; block 0 names the root, 0 where there is none."""
    if block == 0:
        _magic, _version, root = struct.unpack_from("<III", page, _ITEMS_AT)
        if root:
            yield root
        return
    _previous, following, _level, flags = _BTREE.unpack_from(page, _special(page))
    if flags & _BTREE_NOT_IN_USE:
        return
    if following:
        yield following
    if not flags & _BTREE_LEAF:
        for at in _items(page, 2 if following else 1):
            high, low, _offset, _info = _ITEM_TID.unpack_from(page, at)
            yield high << 16 | low


def _gin(page: bytes, block: int) -> Iterator[int]:
    """src/include/access/ginblock.h; the root is block 1."""
    if block == 0:
        yield 1
        yield from (one for one in struct.unpack_from("<II", page, _ITEMS_AT) if one != NOWHERE)  # the pending list
        return
    right, count, flags = _GIN.unpack_from(page, _special(page))
    if flags & _GIN_NOT_IN_USE:
        return
    if right != NOWHERE:
        yield right
    if flags & _GIN_LIST:
        return
    if flags & _GIN_DATA:
        if not flags & _GIN_LEAF:  # PostingItem: the child's block, and a TID
            for at in range(32, 32 + 10 * count, 10):
                high, low = struct.unpack_from("<HH", page, at)
                yield high << 16 | low
        return
    for at in _items(page):
        high, low, offset, _info = _ITEM_TID.unpack_from(page, at)
        if not flags & _GIN_LEAF or offset == _GIN_TREE:
            yield high << 16 | low


def _gist(page: bytes) -> Iterator[int]:
    """src/include/access/gist.h; the root is block 0."""
    _nsn, right, flags = _GIST.unpack_from(page, _special(page))
    if flags & _GIST_DELETED:
        return
    if flags & _GIST_FOLLOW_RIGHT and right != NOWHERE:
        yield right
    if not flags & _GIST_LEAF:
        for at in _items(page):
            high, low, _offset, _info = _ITEM_TID.unpack_from(page, at)
            yield high << 16 | low


def _spgist(page: bytes, block: int) -> Iterator[int]:
    """src/include/access/spgist_private.h; the roots are blocks 1 and 2."""
    if block == 0:
        yield from (1, 2)
        return
    (flags,) = struct.unpack_from("<H", page, _special(page))
    if flags & _SPGIST_NO_INNER:
        return
    for at in _items(page):
        bits, _size = struct.unpack_from("<IH", page, at)
        if bits & 3:  # no live tuple
            continue
        node = at + 8 + (bits >> 16)
        for _number in range(bits >> 3 & 0x1FFF):
            high, low, _offset, info = _ITEM_TID.unpack_from(page, node)
            if high << 16 | low != NOWHERE:
                yield high << 16 | low
            node += info & 0x1FFF


def _hash(page: bytes, block: int) -> Iterator[int]:
    """src/include/access/hash.h: all buckets there are have a page, at once; further ones are linked."""
    if block:
        _previous, following, _bucket, flags = _BTREE.unpack_from(page, _special(page))
        if flags & _HASH_IN_USE and following != NOWHERE:
            yield following
        return
    meta = _HASH_META.unpack_from(page, _ITEMS_AT)
    last, maps, spares = meta[7], meta[12], meta[14:]
    for bucket in range(last + 1):
        yield bucket + 1 + (spares[_hash_spare(bucket + 1) - 1] if bucket else 0)
    yield from struct.unpack_from(f"<{maps}I", page, _ITEMS_AT + _HASH_META.size)


def _hash_spare(buckets: int) -> int:
    """_hash_spareindex in src/backend/access/hash/hashutil.c: from the tenth group on, each is made in four phases."""
    group = (buckets - 1).bit_length()
    return group if group < 10 else 10 + (group - 10 << 2) + (buckets - 1 >> group - 3 & 3)


def _brin(page: bytes, block: int) -> Iterator[int]:
    """src/include/access/brin_page.h: the map of ranges follows block 0, and leads to the summaries."""
    if block == 0:
        yield from range(1, _BRIN_META.unpack_from(page, _ITEMS_AT)[3] + 1)
        return
    special = _special(page)
    if struct.unpack_from("<H", page, len(page) - 2)[0] != _BRIN_REVMAP:
        return
    for high, low, number in _TID.iter_unpack(page[_ITEMS_AT : special - (special - _ITEMS_AT) % _TID.size]):
        if number:
            yield high << 16 | low
