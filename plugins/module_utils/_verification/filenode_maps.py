# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps by which a session finds pg_class and its like (PostgreSQL: src/backend/utils/cache/relmapper.c).

They are no pages, and have a checksum whether the cluster has data checksums or not. A session that is there does not
read them again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import Layout

MAP = "pg_filenode.map"
_MAGIC = 0x592717
_LONG = 524  # bytes, of which the last four are the checksum; before PostgreSQL 16 there were 512, eight from the end
_LOOKS, _BETWEEN = 3, 0.3  # how often, and seconds: before PostgreSQL 16 it is written over in place
_CASTAGNOLI = 0x82F63B78


def crc32c(data: bytes) -> int:
    """The checksum that PostgreSQL has in its control files and WAL."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _bit in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def is_sound(data: bytes) -> bool:
    """Whether the bytes of a map are what the server would take."""
    at = _LONG - 4 if len(data) >= _LONG else 504
    if len(data) < at + 4 or int.from_bytes(data[:4], "little") != _MAGIC:
        return False
    return crc32c(data[:at]) == int.from_bytes(data[at : at + 4], "little")


def filenode_maps(layout: Layout, databases: Collection[int]) -> Iterator[tuple[str, int]]:
    """(path below the data directory, OID of the database) of all maps of these databases."""
    data = Path(layout.data)
    for space in (data / "base", *sorted(data.glob(f"pg_tblspc/*/PG_{layout.major}_*"))):
        for oid in sorted(databases):
            if (space / str(oid) / MAP).exists():
                yield str((space / str(oid) / MAP).relative_to(data)), oid


def map_is_damaged(layout: Layout, path: str) -> bool:
    """Whether the server would refuse a map, each time that it is read."""
    for look in range(_LOOKS):
        try:
            if is_sound(Path(layout.data, path).read_bytes()):
                return False
        except FileNotFoundError:  # of a database that was dropped
            return False
        except OSError:
            return True
        if look + 1 < _LOOKS:
            time.sleep(_BETWEEN)
    return True
