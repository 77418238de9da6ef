# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tablespaces of a cluster's other server on this host, into which replay on a side instance must not write.

A tablespace that only WAL makes is made at its own place: no backup set has it, so that nothing can be mapped. Where
production is on the same host, that is its place, and its files.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


def system_identifier(data: str) -> int:
    """Of a data directory: the first field of ControlFileData (src/include/catalog/pg_control.h)."""
    with open(os.path.join(data, "global", "pg_control"), "rb") as file:
        return int(struct.unpack("=Q", file.read(8))[0])


def tablespaces_here(cluster: int, data_directories: Iterable[str]) -> list[dict[str, Any]]:
    """``{name, oid, location}`` of the tablespaces that servers of a cluster on this host use now."""
    found = []
    for data in sorted(data_directories):
        with suppress(OSError, struct.error):
            if system_identifier(data) != cluster:
                continue
            links = os.path.join(data, "pg_tblspc")
            for oid in filter(str.isdigit, os.listdir(links)):
                location = os.path.realpath(os.path.join(links, oid))
                found.append({"name": f"with OID {oid}", "oid": int(oid), "location": location})
    return found
