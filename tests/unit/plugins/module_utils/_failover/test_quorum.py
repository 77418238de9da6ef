# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether every acknowledged commit can be here is arithmetic over the last known setting, and a promise only then."""

from __future__ import annotations

from typing import Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.quorum import (
    ALL,
    NO_PROMISE,
    NOT_ALL,
    UNKNOWN,
    Synchronous,
    acknowledged,
    exchanged,
    parse_standby_names,
)


@pytest.mark.parametrize(
    ("text", "method", "count", "names"),
    [
        ("db2", "first", 1, ["db2"]),
        ("db2, db3", "first", 1, ["db2", "db3"]),
        ("*", "first", 1, ["*"]),
        ("2 (db2, db3, db4)", "first", 2, ["db2", "db3", "db4"]),
        ("FIRST 1 (db2,db3)", "first", 1, ["db2", "db3"]),
        ("any 2 ( db2 , db3, db4 )", "any", 2, ["db2", "db3", "db4"]),
        ('ANY 1 ("db-2", "a ""b"", (c)")', "any", 1, ["db-2", 'a "b", (c)']),
        ("first 1 (*)", "first", 1, ["*"]),
        ("1, 2", "first", 1, ["1", "2"]),
        ('"any"', "first", 1, ["any"]),
    ],
)
def test_every_form_of_the_setting_is_understood(text: str, method: str, count: int, names: list[str]) -> None:
    assert parse_standby_names(text) == Synchronous(method, count, tuple(names))


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_named_is_asynchronous(text: str) -> None:
    assert parse_standby_names(text) is None


@pytest.mark.parametrize(
    "text", ["any", "ANY (db2)", "ANY 1 db2", "db2 db3", "db2,", ",", "2 (db2", "0 (db2)", "()", "1 ()", "db-2", '"db2']
)
def test_what_postgresql_refuses_is_refused(text: str) -> None:
    with pytest.raises(RecoveryError, match="synchronous_standby_names"):
        parse_standby_names(text)


STANDBYS = {"b": "dbre_b", "c": "dbre_c", "d": "dbre_d"}


@pytest.mark.parametrize(
    ("setting", "reachable", "verdict", "needed"),
    [
        ("", ["b", "c", "d"], NO_PROMISE, 0),
        (None, ["b", "c", "d"], UNKNOWN, 0),
        ("dbre_b", ["b"], ALL, 0),
        ("dbre_b", ["c", "d"], NOT_ALL, 1),
        ("FIRST 1 (dbre_b, dbre_c)", ["b"], NOT_ALL, 1),
        ("FIRST 1 (dbre_b, dbre_c)", ["b", "c"], ALL, 0),
        ("ANY 1 (dbre_b, dbre_c, dbre_d)", ["b", "c"], NOT_ALL, 1),
        ("ANY 1 (dbre_b, dbre_c, dbre_d)", ["b"], NOT_ALL, 2),
        ("ANY 2 (dbre_b, dbre_c, dbre_d)", ["b", "d"], ALL, 0),
        ("ANY 2 (dbre_b, dbre_c, dbre_d)", ["d"], NOT_ALL, 1),
        ("FIRST 3 (dbre_b, dbre_c, dbre_d)", ["d"], ALL, 0),
        ("ANY 1 (DBRE_B)", ["b"], ALL, 0),
        # Somebody whom the inventory does not know may have been the one that waited.
        ("ANY 1 (dbre_b, elsewhere)", ["b"], NOT_ALL, 1),
        ("*", ["b", "c", "d"], ALL, 0),
        ("*", ["b", "c"], NOT_ALL, 1),
        ("ANY 2 (*)", ["b", "c"], ALL, 0),
    ],
)
def test_acknowledged_commits_are_all_here_or_may_not_be(
    setting: Optional[str], reachable: list[str], verdict: str, needed: int
) -> None:
    found = acknowledged(setting, STANDBYS, reachable)
    assert (found.verdict, found.needed) == (verdict, needed)
    assert set(found.absent).isdisjoint(reachable)
    assert bool(found.absent) == (verdict == NOT_ALL)


def test_the_standby_to_bring_back_is_named() -> None:
    assert acknowledged("ANY 1 (dbre_b, elsewhere)", STANDBYS, ["b"]).absent == ("elsewhere",)
    assert acknowledged("dbre_b", STANDBYS, ["c"]).absent == ("b",)


@pytest.mark.parametrize("synchronous_commit", ["off", "local"])
def test_a_commit_that_waited_for_nobody_was_promised_by_nobody(synchronous_commit: str) -> None:
    assert acknowledged("dbre_b", STANDBYS, ["b"], synchronous_commit).verdict == NO_PROMISE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("FIRST 1 (dbre_b, dbre_c)", 'FIRST 1 ("dbre_a", "dbre_c")'),
        ("ANY 2 (dbre_c, DBRE_B, x)", 'ANY 2 ("dbre_c", "dbre_a", "x")'),
        ("dbre_b", 'FIRST 1 ("dbre_a")'),
        ("dbre_c, dbre_d", "dbre_c, dbre_d"),
        ("ANY 1 (*)", "ANY 1 (*)"),
    ],
)
def test_the_one_that_was_promoted_gives_its_place_to_the_old_primary(before: str, after: str) -> None:
    assert exchanged(before, "dbre_b", "dbre_a") == after
