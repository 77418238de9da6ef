# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which records of a stretch of WAL concern one catalogue file, out of what pg_waldump prints of it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator
from typing import NamedTuple

# rmgr: Heap  len (rec/tot): 54/ 54, tx: 739, lsn: 0/01952760, prev 0/01952728, desc: DELETE off 1 ...,
# blkref #0: rel 1663/5/1259 blk 0 FPW
_ENTRY = re.compile(
    rb"rmgr: (XLOG|Heap2?) +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), "
    rb"lsn: ([0-9A-F]+)/([0-9A-F]+), prev [0-9A-F/]+, desc: ([A-Z_]+)([^\n]*)"
)
OPERATIONS = ("INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "DELETE", "INPLACE", "")
TELLING = frozenset(("INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "INPLACE"))
_NONE = 0xFFFFFFFF


class Entry(NamedTuple):
    """One record; ``tells`` is whether it may hold rows of its ``blocks``, by an image or in itself."""

    lsn: int
    total: int
    xid: int
    operation: str
    tells: bool
    blocks: Collection[int]


class Index:
    """The records of one file in the order of WAL, 30 bytes each, for noise may have made millions of them."""

    def __init__(self, relation: tuple[int, int, int]) -> None:
        self._block = re.compile(rb"rel %d/%d/%d blk (\d+)" % relation)
        self._lsns, self._totals, self._xids = array("Q"), array("I"), array("I")
        self._operations, self._tells = bytearray(), bytearray()
        self._blocks = (array("I"), array("I"))
        self._many: dict[int, tuple[int, ...]] = {}

    def add(self, text: bytes) -> None:
        """Take up whole lines of pg_waldump's text."""
        for rmgr, total, xid, high, low, word, rest in _ENTRY.findall(text):
            operation = word.decode() if rmgr != b"XLOG" and word.decode() in OPERATIONS else ""
            tells = operation in TELLING or b" FPW" in rest
            if not tells and not operation:
                continue
            blocks = tuple(map(int, self._block.findall(rest)))
            if len(blocks) > 2:
                self._many[len(self._lsns)] = blocks
            first, second = (*blocks, _NONE, _NONE)[:2]
            self._lsns.append(int(high, 16) << 32 | int(low, 16))
            self._totals.append(int(total))
            self._xids.append(int(xid))
            self._operations.append(OPERATIONS.index(operation))
            self._tells.append(tells)
            self._blocks[0].append(first)
            self._blocks[1].append(second)

    def transactions(self, operations: Collection[str]) -> set[int]:
        """Transactions that did one of ``operations``."""
        codes = {OPERATIONS.index(operation) for operation in operations}
        return {xid for xid, code in zip(self._xids, self._operations) if code in codes}

    def backwards(self) -> Iterator[Entry]:
        """The records, the newest first."""
        for at in range(len(self._lsns) - 1, -1, -1):
            blocks = self._many.get(at) or (self._blocks[0][at], self._blocks[1][at])
            yield Entry(
                self._lsns[at],
                self._totals[at],
                self._xids[at],
                OPERATIONS[self._operations[at]],
                bool(self._tells[at]),
                blocks,
            )
