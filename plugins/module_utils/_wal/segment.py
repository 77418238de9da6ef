# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file holds the WAL segment that its name says, proved by the headers of its pages.

A name proves nothing: a server keeps older files under the names of segments to come, to be written over. Formats:
PostgreSQL 13 to 18, src/include/access/xlog_internal.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import (
    LONG_HEADER_SIZE,
    LONG_TAIL,
    PAGE,
    SHORT_HEADER,
    page_header,
)


@dataclass(frozen=True)
class Owner:
    """Whose WAL it must be: the server's system identifier, and the size of its segments in bytes."""

    system_identifier: int
    segment_size: int


def is_of_server(head: bytes, segment: int, owner: Owner) -> bool:
    """Whether the first bytes of a file are those of a segment, by its number, of this server's WAL."""
    if len(head) < LONG_HEADER_SIZE:
        return False
    system_identifier, segment_size, _page_size = LONG_TAIL.unpack_from(head, SHORT_HEADER.size)
    address = page_header(head)[3]
    return (address, segment_size, system_identifier) == (
        segment * owner.segment_size,
        owner.segment_size,
        owner.system_identifier,
    )


def begins(path: Path, segment: int, owner: Owner) -> bool:
    """Whether a file begins as the segment of that number does; False where there is no file."""
    try:
        with path.open("rb") as file:
            return is_of_server(file.read(LONG_HEADER_SIZE), segment, owner)
    except FileNotFoundError:
        return False


def why_not(path: Path, name: str, owner: Owner) -> str:
    """Why the file is not the whole segment ``name`` of this server's WAL; empty when it is.

    Every page must say that it is at its place, on the segment's timeline or an ancestor of it. Behind a switch of WAL
    there are only zeros. A segment that is still written to holds older pages at its end, and so is none.
    """
    timeline, segment = parse_segment_name(name, owner.segment_size)
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if len(data) != owner.segment_size:
        return f"{path} has {len(data)} bytes instead of {owner.segment_size}"
    if not is_of_server(data, segment, owner):
        return f"{path} does not begin as segment {name} of the server with system identifier {owner.system_identifier}"
    for at in range(0, len(data), PAGE):
        _magic, _info, written_on, address, _remaining = page_header(data[at : at + SHORT_HEADER.size])
        if not any(data[at : at + SHORT_HEADER.size]):
            return "" if not any(data[at:]) else f"{path} has a page of zeros before its end"
        if address != segment * owner.segment_size + at or written_on > timeline:
            return (
                f"the page at {format_lsn(segment * owner.segment_size + at)} of {path} says that it is "
                f"{format_lsn(address)} of timeline {written_on}"
            )
    return ""
