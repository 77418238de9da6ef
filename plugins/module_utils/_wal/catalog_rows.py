# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rows of the catalogues say, out of their bytes (PostgreSQL 15 to 18: src/include/catalog)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class ClassRow:
    """What a row of pg_class says of a relation. Names are bytes in the database's encoding.

    ``rows`` is reltuples, what the last VACUUM or ANALYZE counted or estimated; None when there was none. ``columns``
    is relnatts, which counts dropped ones, too; ``security`` are relrowsecurity and relforcerowsecurity.
    """

    oid: int
    name: bytes
    namespace: int
    filenode: int
    tablespace: int
    persistence: str
    kind: str
    rows: Optional[int] = None
    columns: int = 0
    owner: int = 0
    security: bytes = b""


_CLASS_HEAD = struct.Struct("=I64sIIIIIII")


def class_row(row: bytes, major: int) -> ClassRow:
    """Decode a row of pg_class (PostgreSQL 15 to 18: src/include/catalog/pg_class.h; 18 has one more counter)."""
    oid, name, namespace, _type, _of_type, owner, _method, filenode, tablespace = _CLASS_HEAD.unpack_from(row)
    # relpages, reltuples, relallvisible, in 18 relallfrozen, reltoastrelid; then relhasindex, relisshared, and after
    # relchecks relhasrules, relhastriggers, relhassubclass.
    flags = _CLASS_HEAD.size + (20 if major >= 18 else 16)
    persistence, kind = chr(row[flags + 2]), chr(row[flags + 3])
    (columns,) = struct.unpack_from("=h", row, flags + 4)
    _pages, tuples = struct.unpack_from("=if", row, _CLASS_HEAD.size)
    rows = int(tuples) if tuples > 0 else None
    security = row[flags + 11 : flags + 13]
    name = name.rstrip(b"\0")
    return ClassRow(oid, name, namespace, filenode, tablespace, persistence, kind, rows, columns, owner, security)


def namespace_row(row: bytes) -> tuple[int, bytes]:
    """(oid, name) out of a row of pg_namespace."""
    oid, name = struct.unpack_from("=I64s", row)
    return oid, name.rstrip(b"\0")


def database_row(row: bytes) -> tuple[int, bytes, int]:
    """(oid, name, connection limit) out of a row of pg_database; the limit is -2 while a drop is under way."""
    oid, name = struct.unpack_from("=I64s", row)
    (limit,) = struct.unpack_from("=i", row, 80)
    return oid, name.rstrip(b"\0"), limit


_DROPPED_COLUMN = re.compile(rb"\.{8}pg\.dropped\.(\d+)\.{8}\Z")


def attribute_row(row: bytes) -> tuple[int, bytes, bool]:
    """(OID of the relation, name, whether the column is dropped) out of a row of pg_attribute.

    What stands behind the type differs between versions, but DROP COLUMN always gives the type 0 and this name
    (RemoveAttributeById in src/backend/catalog/heap.c).
    """
    relation, name, kind = struct.unpack_from("=I64sI", row)
    name = name.rstrip(b"\0")
    return relation, name, kind == 0 and _DROPPED_COLUMN.match(name) is not None
