# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Code that the owner of a table put there stays his own, whatever we do with the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import take_fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.presence import presence

TABLES = [
    "checked",
    "written",
    "typed",
    "constant",
    "colored",
    "computed",
    "indexed",
    "parted",
    "keyed",
    "triggered",
    "secured",
    "child",
]


@pytest.fixture
def mallory(world: Any) -> Iterator[Any]:
    """A schema of a role that owns nothing else, and its copy; afterwards the role is what it was."""
    world.begin("mallory")
    yield world
    assert_stayed_its_own(world)


def assert_stayed_its_own(world: Any) -> None:
    """No rights for the role, nothing written outside its schema, and its code run as nobody but itself."""
    who = "SELECT array_agg(DISTINCT who || ': ' || place) FROM m.seen WHERE who <> 'dbre_mallory'"
    for server in (world.production, world.side):
        assert server.sql("mallory", who) is None
        assert not server.sql(
            "mallory", "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'dbre_mallory'"
        )
        assert server.sql("mallory", "SELECT coins FROM treasure") == 100
        assert not (server.data / "stolen").exists()


def as_mallory(world: Any, *statements: str) -> list[str]:
    """What the role itself sees and does, in a session of its own."""
    command = [
        "-qXAt",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "dbre_mallory",
        "-cSET dbre.quiet = on",
        *(f"-c{text}" for text in statements),
    ]
    return str(world.production.program("psql", *command, database="mallory")).split()


def counts(world: Any) -> dict[str, int]:
    return {name: int(as_mallory(world, f"SELECT count(*) FROM m.{name}")[0]) for name in TABLES}


def test_a_fingerprint_is_taken_as_the_owner(mallory: Any) -> None:
    params = {**mallory.params, "login_db": "mallory"}
    if "login_user" in params:
        # Which hides rows from all but superusers.
        as_mallory(mallory, "ALTER TABLE m.secured NO FORCE ROW LEVEL SECURITY")
    connection = connect(params)
    try:
        found = take_fingerprint(connection, [], ["m"], max_of="v")
    finally:
        connection.close()
    assert {name: found[f"m.{name}"]["rows"] for name in TABLES} == dict.fromkeys(TABLES, 3)
    assert found["m.colored"]["max"] == "blue"


def test_whether_a_table_has_rows_is_looked_at_as_the_owner(mallory: Any) -> None:
    params = {**mallory.params, "login_db": "mallory"}
    if "login_user" in params:
        as_mallory(mallory, "ALTER TABLE m.secured NO FORCE ROW LEVEL SECURITY")
    as_mallory(mallory, "DELETE FROM m.colored")
    connection = connect(params)
    try:
        seen = presence(connection, [{"schema": "m", "name": name} for name in (*TABLES, "gone")])
    finally:
        connection.close()
    assert [name for name, found in seen.items() if not found["filled"]] == ["m.colored", "m.gone"]
    assert [name for name, found in seen.items() if not found["exists"]] == ["m.gone"]


def test_lost_tables_come_back_as_their_owner(mallory: Any) -> None:
    as_mallory(mallory, f"DROP TABLE {', '.join(f'm.{name}' for name in TABLES)} CASCADE")
    answer = mallory.recover("mallory", relations=[f"m.{name}" for name in TABLES])
    assert counts(mallory) == dict.fromkeys(TABLES, 3)
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []
    assert answer["result"]["difference"] == []
    # It did run, as its owner.
    assert int(as_mallory(mallory, "SELECT count(DISTINCT place) FROM m.seen")[0]) > 5


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_rows_are_put_back_as_their_owner(mallory: Any, load: str) -> None:
    if "login_user" in mallory.params:
        as_mallory(mallory, "ALTER TABLE m.secured NO FORCE ROW LEVEL SECURITY")
    tables = [name for name in TABLES if name != "keyed"]
    as_mallory(mallory, *(f"DELETE FROM m.{name} WHERE id > 1" for name in reversed(tables)))
    answer = mallory.recover("mallory", relations=[f"m.{name}" for name in tables], load=load)
    assert counts(mallory) == dict.fromkeys(TABLES, 3)
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []


def test_a_copy_beside_runs_nothing_of_the_owner(mallory: Any) -> None:
    as_mallory(mallory, *(f"DELETE FROM m.{name} WHERE id > 1" for name in reversed(TABLES)))
    mallory.recover("mallory", relations=[f"m.{name}" for name in TABLES], load="beside")
    for name in TABLES:
        assert mallory.production.sql("mallory", f"SELECT count(*) FROM recovered_test.{name}") == 3


def test_what_went_from_tables_that_are_there_comes_back_as_their_owner(mallory: Any) -> None:
    """Columns, checks that went with a function, a partition, and keys, all of which are checked on rows there."""
    as_mallory(
        mallory,
        "ALTER TABLE m.indexed DROP COLUMN v CASCADE",
        "ALTER TABLE m.typed DROP COLUMN v",
        "ALTER TABLE m.triggered DROP COLUMN v",
        "DROP TABLE m.parted_b, m.keyed_a",
        "DROP TABLE m.checked CASCADE",
    )
    tables = ["indexed", "typed", "triggered", "parted_b", "keyed_a", "checked"]
    mallory.recover("mallory", relations=[f"m.{name}" for name in tables])
    assert counts(mallory) == dict.fromkeys(TABLES, 3)
    keys = "SELECT conname FROM pg_constraint WHERE conrelid = 'm.child'::regclass AND contype = 'f' AND convalidated"
    assert as_mallory(mallory, keys) == ["child_parent_fkey"]
    for name in ("indexed", "typed", "triggered"):
        assert as_mallory(mallory, f"SELECT count(v) FROM m.{name}") == ["3"]


def test_who_reaches_for_the_cage_itself_is_named(mallory: Any) -> None:
    """Statistics on the view that answers us, of which the planning of our own query would run a part as us."""
    reach = (
        "CREATE FUNCTION m.reach() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE (SELECT "
        "format('CREATE STATISTICS m.reached ON (1 + m.one(''reach'')), (answer::text) FROM %s', oid::regclass) "
        "FROM pg_class WHERE relname = 'done'); END $$"
    )
    one = (
        "CREATE OR REPLACE FUNCTION m.one(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ "
        "BEGIN PERFORM m.try('SELECT m.reach()'); RETURN m.attack(place); END $$"
    )
    as_mallory(mallory, reach, one)
    connection = connect({**mallory.params, "login_db": "mallory"})
    try:
        with pytest.raises(RecoveryError, match="code of role dbre_mallory tampered"):
            take_fingerprint(connection, [{"schema": "m", "name": "indexed"}], [])
    finally:
        connection.close()
