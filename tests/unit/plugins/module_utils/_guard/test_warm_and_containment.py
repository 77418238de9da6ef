# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import read_marker, with_marker
from ansible_collections.dbre.recovery.plugins.module_utils._guard.warm import CHUNK, pieces_of

BLOCK = 8192


@pytest.mark.parametrize("size", [BLOCK, CHUNK - BLOCK, CHUNK, CHUNK + BLOCK, 3 * CHUNK])
def test_the_pieces_of_a_fork_are_all_of_it_and_overlap_nowhere(size: int) -> None:
    pieces = pieces_of({"oid": 1, "schema": "s", "name": "n", "fork": "main", "bytes": size}, BLOCK)
    assert [block for piece in pieces for block in range(piece.first, piece.last + 1)] == list(range(size // BLOCK))
    assert sum(piece.size for piece in pieces) == size
    assert max(piece.size for piece in pieces) <= CHUNK


@pytest.mark.parametrize("comment", [None, "The shop's", "Two\nlines", "[dbre.containment] is a word", "ends with ]"])
def test_a_marker_comes_and_goes_and_leaves_the_comment_as_it_was(comment: Optional[str]) -> None:
    marker = {"previous": 'o"n', "since": "2026-01-01 00:00:00+00", "lifting": False}
    assert read_marker(comment) is None
    marked = with_marker(comment, marker)
    assert read_marker(marked) == marker
    changed = with_marker(marked, {**marker, "lifting": True})
    assert read_marker(changed) == {**marker, "lifting": True}
    assert with_marker(changed, None) == comment
