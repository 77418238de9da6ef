# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server has the other's WAL is told by where their timelines parted, and never by a number."""

from __future__ import annotations

from typing import Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import (
    AHEAD,
    BEHIND,
    DIVERGED,
    SAME,
    follows_from,
    foreign_histories,
    position,
    relate,
    timelines_of,
)

# As PostgreSQL 17 wrote them.
TWO = "1\t0/5000148\tno recovery target specified\n"
TWO_ELSEWHERE = "1\t0/50000D8\tno recovery target specified\n"
THREE = f"{TWO}\n2\t0/7000000\tbefore 2026-11-23 21:38:07.5+00\n"


@pytest.mark.parametrize(
    ("one", "other", "kind", "fork"),
    [
        ((1, None, "0/3000060"), (1, None, "0/3000060"), SAME, None),
        ((1, None, "0/3000060"), (1, None, "0/3000100"), BEHIND, None),
        ((1, None, "0/3000100"), (1, None, "0/3000060"), AHEAD, None),
        # A standby that had not come to the promotion goes on from where it is.
        ((1, None, "0/5000148"), (2, TWO, "0/6000000"), BEHIND, "0/5000148"),
        ((1, None, "0/5000000"), (3, THREE, "0/7000000"), BEHIND, "0/5000148"),
        # An old primary that wrote on after the standby was promoted.
        ((1, None, "0/5000200"), (2, TWO, "0/5000200"), DIVERGED, "0/5000148"),
        ((1, None, "0/5000200"), (2, TWO, "0/5000148"), AHEAD, "0/5000148"),
        # Two that were promoted apart, both to timeline 2.
        ((2, TWO, "0/6000000"), (2, TWO_ELSEWHERE, "0/6000000"), DIVERGED, "0/50000D8"),
        ((2, TWO, "0/6000000"), (2, TWO, "0/6000100"), BEHIND, None),
        ((3, THREE, "0/7000010"), (2, TWO, "0/7000010"), DIVERGED, "0/7000000"),
        # A higher number is no later one.
        ((3, THREE, "0/6000000"), (2, TWO, "0/6000010"), BEHIND, "0/7000000"),
    ],
)
def test_whose_wal_has_all_of_whose(
    one: tuple[int, Optional[str], str], other: tuple[int, Optional[str], str], kind: str, fork: Optional[str]
) -> None:
    found = relate(position(*one), position(*other))
    assert found.kind == kind
    assert found.fork == (None if fork is None else position(1, None, fork).lsn)
    turned = {SAME: SAME, DIVERGED: DIVERGED, AHEAD: BEHIND, BEHIND: AHEAD}
    assert relate(position(*other), position(*one)).kind == turned[kind]


def test_a_number_without_its_history_tells_nothing() -> None:
    with pytest.raises(RecoveryError, match=r"00000002\.history"):
        timelines_of(2, "")


def test_a_server_that_was_promoted_is_known_by_where_it_left() -> None:
    standby = position(1, None, "0/5000148")
    assert follows_from(timelines_of(2, TWO), standby)
    assert follows_from(timelines_of(3, THREE), standby)
    # Promoted from more than this standby has, and not promoted at all.
    assert not follows_from(timelines_of(2, TWO), position(1, None, "0/50000D8"))
    assert not follows_from(timelines_of(1, None), standby)


@pytest.mark.parametrize(
    ("histories", "current", "found"),
    [
        ({}, (1, None, "0/5000000"), []),
        ({2: TWO}, (2, TWO, "0/6000000"), []),
        ({2: TWO, 3: THREE}, (3, THREE, "0/8000000"), []),
        # What somebody else put into the archive: a future one, and one in the place of our own.
        ({2: TWO}, (1, None, "0/6000000"), [(2, "0/5000148")]),
        ({2: TWO_ELSEWHERE}, (2, TWO, "0/6000000"), [(2, "0/50000D8")]),
        ({2: TWO_ELSEWHERE, 3: THREE}, (3, THREE, "0/8000000"), [(2, "0/50000D8")]),
    ],
)
def test_a_history_file_that_is_not_ours_is_named(
    histories: dict[int, str], current: tuple[int, Optional[str], str], found: list[tuple[int, str]]
) -> None:
    named = foreign_histories(histories, position(*current))
    assert named == [(timeline, position(1, None, fork).lsn) for timeline, fork in found]
