# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long production waits, by the size of a table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.waits import Wait, built, exchanged, seconds_of


@pytest.mark.parametrize(
    ("size", "count", "few", "seconds"),
    [
        (0, 0, True, (0.0, 0.0)),
        (40_000_000, 400_000, True, (0.4, 20.4)),
        (40_000_000, 400_000, False, (20.4, 20.4)),
        (20_000_000_000, 100_000_000, True, (200.0, 5200.0)),
    ],
)
def test_a_table_is_gone_through_at_least_and_written_whole_at_most(
    size: int, count: int, few: bool, seconds: tuple[float, float]
) -> None:
    assert seconds_of(Wait(1, "writers", "", 20_000, few), size, count) == seconds


def test_writers_wait_for_what_is_exchanged_and_for_triggers_that_are_silenced() -> None:
    relations: list[dict[str, Any]] = [
        {"oid": 1, "action": "replace", "silenced_triggers": []},
        {"oid": 2, "action": "merge", "silenced_triggers": [{"name": "always"}]},
        {"oid": 3, "action": "merge", "silenced_triggers": []},
        {"oid": 4, "action": "place", "silenced_triggers": []},
    ]
    assert [wait.table for wait in exchanged(relations)] == [1, 2]


def test_an_index_of_a_table_that_was_not_lost_is_waited_for_once() -> None:
    def item(objid: int, catalog: str, name: str, **more: Any) -> dict[str, Any]:
        defaults = {"contype": None, "index_of": None, "relation": None, "identity": f"{name} of it"}
        return {"objid": objid, "catalog": catalog, "names": ["app", name], **defaults, **more}

    objects = [
        item(10, "pg_class", "lost", relation=10),
        item(11, "pg_class", "lost_pkey", index_of=10),
        item(21, "pg_class", "by_day", index_of=20),
        item(22, "pg_class", "one_code", index_of=20),
        item(23, "pg_constraint", "one_code", relation=20, contype="u"),
        item(24, "pg_constraint", "is_high", relation=20, contype="c"),
        item(25, "pg_proc", "fits"),
    ]
    assert [(wait.table, wait.whom, wait.why) for wait in built(objects)] == [
        (20, "writers", "to build index by_day of it"),
        (20, "readers and writers", "to build one_code of it"),
    ]
