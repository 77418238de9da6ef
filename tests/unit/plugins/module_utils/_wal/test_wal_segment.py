# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is taken for a WAL segment only when its pages say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import LONG_TAIL, PAGE, SHORT_HEADER
from ansible_collections.dbre.recovery.plugins.module_utils._wal.segment import Owner, begins, why_not

SIZE = 1 << 20
OWNER = Owner(7711487094474521737, SIZE)
NAME = "000000020000000000000005"


def segment(number: int = 5, timeline: int = 2, identifier: int = OWNER.system_identifier, pages: int = 128) -> bytes:
    """A segment whose first ``pages`` pages are written, as behind a switch of WAL."""
    written = []
    for page in range(pages):
        head = SHORT_HEADER.pack(0xD110, 2 if page == 0 else 0, timeline, number * SIZE + page * PAGE, 0)
        head += LONG_TAIL.pack(identifier, SIZE, PAGE) if page == 0 else b""
        written.append(head.ljust(PAGE, b"x"))
    return b"".join(written).ljust(SIZE, b"\0")


@pytest.mark.parametrize("data", [segment(), segment(pages=3), segment(timeline=1)])
def test_a_whole_segment_is_taken(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(data)
    assert why_not(path, NAME, OWNER) == ""
    assert begins(path, 5, OWNER)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (segment(number=4), "does not begin as segment"),
        (segment(identifier=7), "does not begin as segment"),
        (segment(timeline=3), "of timeline 3"),
        (segment()[:-PAGE], "bytes instead of"),
        (b"", "0 bytes instead of"),
        (segment()[: 64 * PAGE] + segment(number=2)[64 * PAGE :], "page at 0/580000 .* says that it is 0/280000"),
        (segment(pages=3)[: 5 * PAGE] + segment()[5 * PAGE :], "a page of zeros before its end"),
    ],
)
def test_a_file_that_holds_something_else_is_not(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / NAME
    path.write_bytes(data)
    reason = why_not(path, NAME, OWNER)
    assert reason
    assert re.search(words, reason)


def test_a_file_that_is_not_there_is_not(tmp_path: Path) -> None:
    assert "cannot be read" in why_not(tmp_path / NAME, NAME, OWNER)
    assert not begins(tmp_path / NAME, 5, OWNER)
