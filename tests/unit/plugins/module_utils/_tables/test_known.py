"""What differs because it was left to do is told from what differs for no known reason."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._tables.known import without_known
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left


def differs(relation: str, what: str) -> dict[str, Any]:
    return {"relation": relation, "property": what, "recovered": [1], "production": []}


def test_a_trigger_left_to_do_explains_the_triggers_of_its_table_only():
    entries = [left("trigger", "touch on app.t", "its function is gone")]
    found = [differs("app.t", "triggers"), differs("app.t", "columns"), differs("app.u", "triggers")]
    assert without_known(found, entries, {}) == found[1:]


def test_an_index_is_known_by_the_table_it_belongs_to():
    entries = [left("index", "app.t_v", "its name is taken")]
    found = [differs("app.t", "indexes"), differs("app.u", "indexes")]
    assert without_known(found, entries, {"app.t_v": "app.t"}) == found[1:]


def test_nothing_left_to_do_explains_rows_or_checksums():
    entries = [left("table column", "v on app.t", "its type is gone"), left("table", "app.t", "unlogged")]
    found = [differs("app.t", "rows"), differs("app.t", "checksum")]
    assert without_known(found, entries, {}) == found


def test_a_key_left_to_do_shows_on_both_tables():
    entries = [left("foreign key", "k on app.lines", "the other table is gone")]
    assert without_known([differs("app.lines", "constraints"), differs("app.t", "referenced_by")], entries, {}) == []


def test_a_key_of_a_table_that_a_migration_put_in_its_place_is_known_by_the_server_s_word_for_it():
    entries = [left("table constraint", "orders_pkey on app.orders", "it belonged to something that was made anew")]
    assert without_known([differs("app.orders", "constraints")], entries, {}) == []
