# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions apart from rows."""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.definitions import (
    definition_differences,
    definitions_of,
)


def test_definitions_are_compared_by_name() -> None:
    recovered = {"public.total()": "a1", "public.v": "b1", "public.same": "c1"}
    production = {"public.total()": "a2", "public.w": "d1", "public.same": "c1"}
    assert definition_differences(recovered, production) == [
        {"relation": "public.total()", "property": "definition", "recovered": "a1", "production": "a2"},
        {"relation": "public.v", "property": "definition", "recovered": "b1", "production": None},
        {"relation": "public.w", "property": "definition", "recovered": None, "production": "d1"},
    ]
    assert definition_differences(recovered, recovered) == []


def test_definitions_of_a_fingerprint_say_nothing_of_rows() -> None:
    whole = {"public.orders": {"kind": "r", "rows": 3, "checksum": "4:9", "max": "3", "indexes": ["i"]}}
    assert definitions_of(whole) == {"public.orders": {"kind": "r", "indexes": ["i"]}}
    assert "rows" in whole["public.orders"]
