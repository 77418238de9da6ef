# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long production waits, by the size of a table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.waits import (
    Wait,
    built,
    checked,
    exchanged,
    seconds_of,
)


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


def test_writers_wait_for_what_is_exchanged_for_silenced_triggers_and_for_deferrable_keys() -> None:
    relations: list[dict[str, Any]] = [
        {"oid": 1, "action": "replace", "silenced_triggers": [], "late_keys": []},
        {"oid": 2, "action": "merge", "silenced_triggers": [{"name": "always"}], "late_keys": []},
        {"oid": 3, "action": "merge", "silenced_triggers": [], "late_keys": []},
        {"oid": 5, "action": "merge", "silenced_triggers": [], "late_keys": ["unique index late"]},
        {"oid": 4, "action": "place", "silenced_triggers": [], "late_keys": []},
    ]
    assert [wait.table for wait in exchanged(relations)] == [1, 2, 5]


def item(objid: int, catalog: str, name: str, **more: Any) -> dict[str, Any]:
    defaults = {"contype": None, "index_of": None, "relation": None, "identity": f"{name} of it"}
    classid = {"pg_class": 1259, "pg_constraint": 2606}.get(catalog, 0)
    return {"classid": classid, "objid": objid, "catalog": catalog, "names": ["app", name], **defaults, **more}


def test_an_index_or_key_of_a_table_that_was_not_lost_is_waited_for_once() -> None:
    objects = [
        item(10, "pg_class", "lost", relation=10),
        item(11, "pg_class", "lost_pkey", index_of=10),
        item(21, "pg_class", "by_day", index_of=20),
        item(22, "pg_class", "one_code", index_of=20),
        item(23, "pg_constraint", "one_code", relation=20, contype="u"),
        item(24, "pg_constraint", "is_high", relation=20, contype="c"),
        item(25, "pg_proc", "fits"),
        item(32, "pg_class", "one_at_a_time", index_of=30),
        item(33, "pg_constraint", "one_at_a_time", relation=30, contype="x"),
    ]
    assert [(wait.table, wait.whom, wait.why, wait.of) for wait in built(objects)] == [
        (20, "writers", "to build index by_day of it", (1259, 21)),
        (20, "readers and writers", "to build one_code of it", (2606, 23)),
        (30, "readers and writers", "to build one_at_a_time of it", (2606, 33)),
    ]


def test_both_ends_of_a_foreign_key_between_partitioned_tables_wait_while_its_rows_are_looked_at() -> None:
    objects = [item(10, "pg_class", "lost", relation=10)]
    objects += [item(number, "pg_constraint", "fk", relation=20, contype="f") for number in (1, 2)]
    of_trees = [{"oid": 1, "relation": 20, "other": 10}, {"oid": 2, "relation": 20, "other": 30}]
    assert [(wait.table, wait.size_of) for wait in checked(objects, of_trees)] == [(20, 20), (20, 20), (30, 20)]
