# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether all of each relation is on disk, of a server to which nobody writes: what leads to a page proves it.

To the server a file that was cut off, or emptied, is a shorter one, and zeros are a new page: it reads past both, and
neither page checksums nor amcheck say anything. Rows are missed by the indexes and the visibility map of their table,
pages of an index by its other pages.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text, spans
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.index_pages import (
    METHODS,
    leads_to,
    places_and_uppers,
    rows_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.page_checks import is_new, page_fault
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import Layout, Listing

RELATIONS = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, m.amname AS method,
       c.relpersistence = 'u' AS unlogged, pg_catalog.pg_relation_filepath(c.oid) AS path,
       c.relpages::int8 AS pages, c.reltuples::float8 AS rows, i.indrelid::int8 AS "table",
       coalesce(i.indisvalid AND i.indisready AND i.indislive, false) AS usable, i.indpred IS NOT NULL AS partial
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't', 'i', 'S') AND c.relpersistence <> 't'
  AND (c.relkind IN ('i', 'S') OR m.amname = 'heap') AND pg_catalog.pg_relation_filepath(c.oid) IS NOT NULL
ORDER BY c.oid
"""
_SENSELESS = (struct.error, IndexError, ValueError)  # from a page that only looks like one
_PAGES = 128  # read at a time
_TOLD = 20  # ranges of blocks that are told of one relation
_MAP_AT = 24  # where the bits of a visibility map's page begin: two for each block, the lower one for "all visible"
# A server takes up to so many blocks for a table at once (MAX_BUFFERS_TO_EXTEND_BY, since PostgreSQL 16). Those that
# nothing was ever put into are counted, and are not in WAL.
_AT_ONCE = 64


class Missing(NamedTuple):
    """``proof`` is how it is known: ``file``, ``rows``, or None where only a count speaks for it."""

    schema: str
    name: str
    proof: Optional[str]
    why: str


def chunks_of(layout: Layout, path: str) -> Iterator[bytes]:
    """Whole pages of a relation in their order, many at a time, as far as the server reaches them."""
    size = layout.block_size
    for segment in itertools.count():
        try:
            descriptor = os.open(os.path.join(layout.data, f"{path}.{segment}" if segment else path), os.O_RDONLY)
        except FileNotFoundError:
            return
        number = 0
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            while chunk := opened.read(size * _PAGES):
                whole = len(chunk) // size
                number += whole
                yield chunk[: whole * size]
        if number < layout.segment_blocks:
            return


def pages_of(layout: Layout, path: str) -> Iterator[bytes]:
    """Pages of a relation, one by one."""
    size = layout.block_size
    for chunk in chunks_of(layout, path):
        for begin in range(0, len(chunk), size):
            yield chunk[begin : begin + size]


def all_visible(layout: Layout, path: str) -> bytes:
    """Bits of a table's visibility map, two for each block from the lowest on; empty where it has none."""
    return b"".join(page[_MAP_AT:] for page in pages_of(layout, f"{path}_vm"))


class Rows(NamedTuple):
    """Of each block of a table how many line pointers it has, and the blocks that are new."""

    places: array[int]
    new: list[int]


def rows_on_disk(layout: Layout, path: str) -> Rows:
    """What a table's blocks have places for."""
    places, new = array("H"), []
    for chunk in chunks_of(layout, path):
        first = len(places)
        filled, uppers = places_and_uppers(chunk, layout.block_size)
        places.extend(filled)
        if 0 in uppers:
            new += [first + number for number, upper in enumerate(uppers) if upper == 0]
    return Rows(places, new)


def missed_by_index(there: Rows, pages: Iterable[bytes]) -> set[int]:
    """Blocks of a table to whose rows a B-tree leads, and which do not have them."""
    places, blocks = there.places, len(there.places)
    lost: set[int] = set()
    for number, page in enumerate(pages):
        # What is wrong with a page of the index itself is told of the index.
        with contextlib.suppress(*_SENSELESS):
            if number and not is_new(page):
                lost.update(block for block, row in zip(*rows_of(page)) if block >= blocks or row > places[block])
    return lost


def missed_by_map(there: Rows, bits: bytes) -> set[int]:
    """Blocks that the visibility map says hold rows that everybody sees, and which are new, or not there."""
    blocks = len(there.places)
    found = {block for block in there.new if block // 4 < len(bits) and bits[block // 4] >> block % 4 * 2 & 1}
    for at in range(blocks // 4, len(bits)):
        if bits[at]:
            found |= {at * 4 + one for one in range(4) if at * 4 + one >= blocks and bits[at] >> one * 2 & 1}
    return found


def missed_by_links(method: str, pages: Iterable[bytes]) -> tuple[set[int], set[int]]:
    """Blocks of an index to which other pages of it lead, and which are new, or not there; and those that are none."""
    wanted, new, senseless, blocks = {0}, set(), set(), 0
    for number, page in enumerate(pages):
        blocks = number + 1
        if is_new(page) and not any(page):
            new.add(number)
            continue
        try:
            if page_fault(page, number, False):
                senseless.add(number)
            else:
                wanted.update(leads_to(method, page, number))
        except _SENSELESS:
            senseless.add(number)
    return {one for one in wanted if one >= blocks or one in new}, senseless


def relations(session: Any) -> list[dict[str, Any]]:
    """The relations of a database that have files, for missing()."""
    return rows(session, RELATIONS)


def missing(listed: Sequence[Mapping[str, Any]], layout: Layout) -> list[Missing]:
    """What is not on disk of a database's relations. All that was written must be there (CHECKPOINT).

    Sessions may read meanwhile: what they then write are hints, and no row that an index leads to goes with them.
    """
    indexes: dict[int, list[Mapping[str, Any]]] = {}
    for one in listed:
        if one["kind"] == "i" and one["method"] == "btree" and one["usable"]:
            indexes.setdefault(one["table"], []).append(one)
    found: list[Missing] = []
    files = Listing(layout)
    for one in listed:
        # The smallest index of all rows says as much as all of them.
        known = sorted(indexes.get(one["oid"], []), key=lambda index: (index["partial"], index["pages"]))
        found += [Missing(one["schema"], one["name"], *fault) for fault in _faults(layout, files, one, known[:1])]
    return found


def _faults(
    layout: Layout, files: Listing, one: Mapping[str, Any], known: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Optional[str], str]]:
    on_disk = files.blocks(one["path"])
    if on_disk is None:
        yield "file", "its file is missing"
        return
    if on_disk[1]:
        yield "file", f"a segment of it is missing or cut off after {on_disk[0]} blocks, and later ones are there"
    if one["unlogged"]:  # empty after every restore
        return
    if one["kind"] == "S" or one["method"] in METHODS:
        lost, senseless = missed_by_links(one["method"] or "", pages_of(layout, one["path"]))
        if senseless:
            yield "file", f"what is in its {_blocks(senseless)} is no page of such an index"
        if lost:
            yield "file", f"other pages lead to its {_blocks(lost)}, {_emptied(lost, on_disk[0])}"
    elif one["kind"] in ("r", "m", "t"):
        yield from _of_table(layout, one, known)


def _of_table(
    layout: Layout, one: Mapping[str, Any], known: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Optional[str], str]]:
    there = rows_on_disk(layout, one["path"])
    blocks = len(there.places)
    for index in known:
        lost = missed_by_index(there, pages_of(layout, index["path"]))
        if lost:
            yield "rows", f"index {index['name']} leads to rows in its {_blocks(lost)}, which are not there"
            return
    lost = missed_by_map(there, all_visible(layout, one["path"]))
    if lost:
        yield "rows", f"its visibility map says that there are rows in {_blocks(lost)}, {_emptied(lost, blocks)}"
    elif not any(not index["partial"] for index in known):
        last = next((number for number in range(blocks - 1, -1, -1) if there.places[number]), -1)
        within = [number for number in there.new if number < last]
        if within:
            why = f"there is nothing in its {_blocks(within)}, between others with rows"
            yield None, f"{why}, and it has no B-tree of all its rows that would tell whether that is as it was"
        elif one["pages"] - blocks > _AT_ONCE or (last < 0 and one["pages"] > 0 and one["rows"] > 0):
            counted = f"the last VACUUM or ANALYZE counted {one['pages']} blocks and {one['rows']:.0f} rows"
            why = f"{counted}, of which {blocks} blocks are there"
            yield None, f"{why}, and it has no B-tree of all its rows that would tell whether that is as it was"


def _blocks(lost: Collection[int]) -> str:
    ranges = spans(lost)[:_TOLD]
    told = [one for one in lost if one <= ranges[-1][1]]
    return f"block{'s' if len(lost) > 1 else ''} {blocks_text(told, len(lost) - len(told))}"


def _emptied(lost: Iterable[int], blocks: int) -> str:
    return "where there are only zeros" if max(lost) < blocks else f"of which its file has {blocks}"
