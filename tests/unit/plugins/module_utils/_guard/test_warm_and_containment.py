# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import others, read_marker, with_marker
from ansible_collections.dbre.recovery.plugins.module_utils._guard.warm import CHUNK, pieces_of

BLOCK = 8192


@pytest.mark.parametrize("size", [BLOCK, CHUNK - BLOCK, CHUNK, CHUNK + BLOCK, 3 * CHUNK])
def test_the_pieces_of_a_fork_are_all_of_it_and_overlap_nowhere(size: int) -> None:
    pieces = pieces_of({"oid": 1, "schema": "s", "name": "n", "fork": "main", "bytes": size}, BLOCK)
    assert [block for piece in pieces for block in range(piece.first, piece.last + 1)] == list(range(size // BLOCK))
    assert sum(piece.size for piece in pieces) == size
    assert max(piece.size for piece in pieces) <= CHUNK


RUN = {"host": "ops1", "pid": 7, "start": "boot 1", "at": 1e9}
WRITTEN = {"previous": "on", "since": 1e9, "lifting": False, "holders": {"a-1": RUN, "": RUN}}


@pytest.mark.parametrize("comment", [None, "The shop's", "Two\nlines", "[dbre.containment] is a word", "ends with ]"])
def test_a_marker_comes_and_goes_and_leaves_the_comment_as_it_was(comment: Optional[str]) -> None:
    assert read_marker(comment) is None
    marked = with_marker(comment, WRITTEN)
    assert read_marker(marked) == WRITTEN
    changed = with_marker(marked, {**WRITTEN, "lifting": True})
    assert read_marker(changed) == {**WRITTEN, "lifting": True}
    assert with_marker(changed, None) == comment


@pytest.mark.parametrize(
    "wrong",
    [
        {"previous": "on; DROP TABLE t"},
        {"previous": ["on"]},
        {"since": "yesterday"},
        {"since": float("inf")},
        {"since": -1},
        {"since": [1]},
        {"lifting": "yes"},
        {"holders": {"../../etc": RUN}},
        {"holders": {"a": {**RUN, "pid": "x"}}},
        {"holders": {str(i): RUN for i in range(99)}},
        {"holders": ["a"]},
        {"holders": {"a": "me"}},
    ],
    ids=str,
)
def test_a_marker_that_others_made_up_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecoveryError, match="COMMENT ON DATABASE"):
        read_marker(with_marker("x", {**WRITTEN, **wrong}))


def test_the_last_holder_is_the_one_without_others() -> None:
    assert list(others(read_marker(with_marker(None, WRITTEN)) or {}, "a-1")) == [""]  # type: ignore[arg-type]
    assert others(read_marker(with_marker(None, WRITTEN)) or {}, None) == {}  # type: ignore[arg-type]
