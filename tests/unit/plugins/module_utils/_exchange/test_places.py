# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.places import (
    Facts,
    data_place,
    keep_of,
    moves,
    refuse_swap,
)

DATA = "/pg/15/main"
KEEP = keep_of(DATA, "i7")
PLACE = data_place(DATA, "/pg/side/i7", KEEP)
FACTS = Facts(
    host="db1",
    data=DATA,
    side="/pg",
    devices={DATA: 1, "/pg": 1},
    mounts=(),
    free=1200,
    needed=1000,
    writable=True,
)


def go(there: set[str], to: str) -> set[str]:
    """The paths that are there after all renames, each looked at anew as after a kill."""
    while left := moves(PLACE, there, to):
        old, new = left[0]
        assert old in there
        assert new not in there  # nothing is ever renamed over something
        there = there - {old} | {new}
    return there


def test_directories_change_places_and_back_and_none_is_lost() -> None:
    swapped = go({PLACE["live"], PLACE["incoming"]}, "new")
    assert swapped == {PLACE["live"], PLACE["kept"]}
    assert go(swapped, "new") == swapped
    back = go(swapped, "old")
    assert back == {PLACE["live"], PLACE["taken"]}
    assert go(back, "old") == back


@pytest.mark.parametrize("there", [set(), {PLACE["kept"]}, {PLACE["incoming"]}, {*PLACE.values()}])
def test_what_nobody_of_us_left_so_is_not_touched(there: set[str]) -> None:
    for to in ("new", "old"):
        with pytest.raises(RecoveryError, match="Nothing more was moved"):
            moves(PLACE, there, to)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"free": 1099}, "no room for a second cluster"),
        ({"mounts": [DATA]}, "is a mount point"),
        ({"writable": False}, "may not write in /pg/15"),
        ({"devices": {DATA: 1, "/pg": 2}}, "another file system"),
    ],
)
def test_a_host_on_which_directories_cannot_change_places_is_refused_with_the_way_that_works(
    changes: dict[str, object], why: str
) -> None:
    refuse_swap(FACTS, KEEP, [])
    with pytest.raises(RecoveryError, match=why) as refused:
        refuse_swap(replace(FACTS, **changes), KEEP, [])  # type: ignore[arg-type]
    assert "dr_strategy=cluster_in_place" in refused.value.msg


def test_a_path_too_long_for_a_socket_is_refused_before_the_server_is_stopped() -> None:
    with pytest.raises(RecoveryError, match="dr_incident_id"):
        refuse_swap(FACTS, "/" + "x" * 90, [])
