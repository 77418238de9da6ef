# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables belong together, in which order, and what our own tables are called."""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import MAX_BYTES, derived_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import linked, parents_first, silence


def test_tables_that_foreign_keys_link_belong_together():
    assert linked([1, 2, 3, 4, 5], [(3, 1), (5, 3), (2, 99), (4, 4)]) == [[1, 3, 5], [2], [4]]


def test_parents_come_first_and_circles_are_no_hindrance():
    assert parents_first([1, 2, 3], [(1, 2), (2, 3), (3, 99), (3, 3)]) == [3, 2, 1]
    assert parents_first([1, 2, 3, 4], [(1, 2), (2, 1), (2, 3), (4, 1)]) == [3, 1, 2, 4]


def test_triggers_get_back_the_state_they_had():
    triggers = [{"schema": "s", "table": "t", "name": "a", "enabled": state} for state in ("A", "R")]
    assert silence(triggers)[1] == [
        'ALTER TABLE ONLY "s"."t" ENABLE ALWAYS TRIGGER "a"',
        'ALTER TABLE ONLY "s"."t" ENABLE REPLICA TRIGGER "a"',
    ]


def test_names_of_our_tables_fit_and_do_not_meet():
    assert derived_name("orders", "_differs") == "orders_differs"
    assert derived_name("orders", "_differs", {"orders_differs"}) != "orders_differs"
    names = ["a" * 50 + letter * 13 for letter in "xy"] + ["ы" * 30 + letter for letter in "аб"] + ["\udcff" * 60]
    derived = {derived_name(name, "_before_exchange") for name in names}
    assert len(derived) == len(names)
    for name in derived:
        assert len(name.encode(errors="surrogateescape")) <= MAX_BYTES
        assert name.endswith("_before_exchange")
