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
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import runs_users_code
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

TRUSTING = ["typed", "checked", "constant", "computed", "indexed", "keyed", "parted", "secured", "child", "plain"]


@pytest.fixture
def mallory(world: Any) -> Iterator[Any]:
    """A schema of a role that owns nothing else, and its copy; afterwards the role is what it was."""
    world.begin("mallory")
    yield world
    assert_stayed_its_own(world)


@pytest.fixture
def trusting(world: Any) -> Iterator[Any]:
    """The same, and tables of a superuser that use what the role made."""
    world.begin("trusting")
    yield world
    roles = "SELECT count(*) FROM pg_roles WHERE rolname ~ 'dbre_cage' OR rolname ~ '^recovered'"
    assert world.production.sql("trusting", roles) == 0
    for query in ("FROM pg_proc WHERE proname ~ '^left_'", "FROM pg_class WHERE relname ~ '^left_'"):
        assert world.production.sql("trusting", f"SELECT count(*) {query}") == 0
    assert_stayed_its_own(world, "trusting")


def assert_stayed_its_own(world: Any, database: str = "mallory") -> None:
    """No rights for the role, nothing written outside its schema, and its code run as nobody but itself."""
    who = "SELECT array_agg(DISTINCT who || ': ' || place) FROM m.seen WHERE who <> 'dbre_mallory'"
    for server in (world.production, world.side):
        assert server.sql(database, who) is None
        assert not server.sql(database, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'dbre_mallory'")
        assert server.sql(database, "SELECT coins FROM treasure") == 100
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


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_damaged_tables_are_exchanged_for_those_of_then_as_their_owner(mallory: Any) -> None:
    as_mallory(mallory, *(f"DELETE FROM m.{name} WHERE id > 1" for name in reversed(TABLES)))
    as_mallory(mallory, *(f"ALTER TABLE m.{name} ADD COLUMN made int" for name in TABLES if name != "typed"))
    answer = mallory.recover("mallory", relations=[f"m.{name}" for name in TABLES], load="swap")
    assert counts(mallory) == dict.fromkeys(TABLES, 3)
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []
    assert answer["result"]["difference"] == []


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


# Domains without any code, and all kinds of definitions that hold constants of them.
BARE = """
CREATE DOMAIN m.bare AS text;
CREATE FUNCTION m.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE m.kept (id int PRIMARY KEY, v int, w int, x m.bare[]);
CREATE INDEX kept_index ON m.kept (v) WHERE x <> '{(1)}';
CREATE STATISTICS m.kept_statistics ON (x = '{(2)}'), v FROM m.kept;
ALTER TABLE m.kept ADD CONSTRAINT kept_check CHECK (v > 0 OR x <> '{(3)}');
CREATE TABLE m.gone (id int PRIMARY KEY, v int, x m.bare[] DEFAULT '{(4)}' CHECK (x <> '{(5)}'));
CREATE INDEX gone_index ON m.gone (v) WHERE x <> '{(6)}';
CREATE POLICY gone_policy ON m.gone USING (x <> '{(7)}');
CREATE TRIGGER gone_trigger BEFORE UPDATE ON m.gone FOR EACH ROW WHEN (NEW.x = '{(8)}') EXECUTE FUNCTION m.nothing();
CREATE VIEW m.gone_view AS SELECT id FROM m.gone WHERE x <> '{(9)}';
CREATE RULE gone_rule AS ON INSERT TO m.gone WHERE NEW.x = '{(10)}' DO INSTEAD NOTHING;
CREATE FUNCTION m.gone_function(m.gone, x m.bare[] DEFAULT '{(11)}') RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE m.split (x m.bare[]) PARTITION BY LIST (x);
CREATE TABLE m.split_a PARTITION OF m.split FOR VALUES IN ('{(12)}');
CREATE TABLE m.split_b PARTITION OF m.split FOR VALUES IN ('{(13)}');
CREATE TABLE m.nested (id int PRIMARY KEY, v int, x m.pair);
CREATE INDEX nested_index ON m.nested (v);
INSERT INTO m.kept SELECT g, g, g, '{}' FROM generate_series(1, 3) g;
INSERT INTO m.gone SELECT g, g, '{}' FROM generate_series(1, 3) g;
INSERT INTO m.split VALUES ('{(12)}'), ('{(13)}')
"""
INCIDENT = """
ALTER TABLE m.kept DROP COLUMN v CASCADE; ALTER TABLE m.nested DROP COLUMN v CASCADE;
DROP TABLE m.gone CASCADE; DROP TABLE m.split_b
"""
CAME_BACK = """
SELECT ARRAY[to_regclass('m.kept_index')::text, to_regclass('m.gone_index')::text, to_regclass('m.gone_view')::text,
             (SELECT stxname FROM pg_statistic_ext WHERE stxname = 'kept_statistics'),
             (SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conname ~ '(kept|gone).*check'),
             to_regclass('m.split_b')::text]
"""


def test_code_that_came_after_the_incident_stays_its_owners(mallory: Any) -> None:
    as_mallory(mallory, BARE)
    # Enough to be waited for.
    enough = "UPDATE pg_class SET reltuples = 300000 WHERE oid IN ('m.kept'::regclass, 'm.nested'::regclass)"
    # Which autovacuum would look up.
    quiet = (f"ALTER TABLE m.{name} SET (autovacuum_enabled = off)" for name in ("kept", "nested"))
    mallory.production.sql("mallory", *quiet, enough)
    if "login_user" not in mallory.params:
        # What the owner may not use himself.
        mallory.production.sql(
            "mallory",
            "CREATE SCHEMA kinds",
            "CREATE TYPE kinds.size AS ENUM ('small', 'big')",
            "ALTER TABLE m.gone ADD size kinds.size DEFAULT 'big'",
            "ALTER TABLE m.gone SET TABLESPACE dbre_space",
        )
    mallory.take_side()
    as_mallory(mallory, INCIDENT, "ALTER DOMAIN m.bare ADD CHECK (m.ok('added to a domain')) NOT VALID")

    answer = mallory.recover("mallory", relations=["m.kept", "m.gone", "m.split_b", "m.nested"])

    names = ["m.kept_index", "m.gone_index", "m.gone_view", "kept_statistics", "gone_x_check kept_check", "m.split_b"]
    assert mallory.production.sql("mallory", CAME_BACK) == names
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []
    # Nobody can act as another outside of a transaction, as an index is built that writers need not wait for.
    waits = [(wait["object"], wait["whom"], wait["why"]) for wait in answer["plan"]["waits"]]
    assert sorted(waits) == [(f"m.{name}", "writers", f"to build index m.{name}_index") for name in ("kept", "nested")]


def test_a_type_that_took_the_place_of_another_runs_nothing_as_us(mallory: Any) -> None:
    as_mallory(mallory, BARE)
    mallory.take_side()
    another = "DROP DOMAIN m.bare CASCADE; CREATE TYPE m.bare AS (a m.amount); ALTER TABLE m.kept ADD x m.bare[]"
    as_mallory(mallory, INCIDENT, another)

    mallory.recover("mallory", relations=["m.kept", "m.gone"])


CHOSEN = """
CREATE TABLE m.chosen (x text) PARTITION BY LIST (x);
CREATE TABLE m.chosen_a PARTITION OF m.chosen FOR VALUES IN ('{1}');
CREATE TABLE m.chosen_b PARTITION OF m.chosen FOR VALUES IN ('{2}');
INSERT INTO m.chosen VALUES ('{1}'), ('{2}')
"""


def test_the_bounds_of_a_partition_are_read_as_the_owner_of_a_table_that_was_made_anew(mallory: Any) -> None:
    as_mallory(mallory, CHOSEN)
    mallory.take_side()
    as_mallory(mallory, "DROP TABLE m.chosen_b")
    plan = mallory.recover("mallory", relations=["m.chosen_b"], recover=False)["plan"]
    another = "DROP TABLE m.chosen; CREATE TABLE m.chosen (x m.amount[]) PARTITION BY LIST (x)"
    as_mallory(mallory, another)

    left = mallory.recover("mallory", plan=plan)["result"]["left_to_do"]

    assert [(entry["type"], "different type" in entry["reason"]) for entry in left] == [("table attach", True)]
    assert as_mallory(mallory, "SELECT x FROM m.chosen_b") == ["{2}"]


def of_superuser(world: Any) -> dict[str, int]:
    return {name: as_super(world, f"SELECT count(*) FROM t.{name}") for name in TRUSTING}


def as_super(world: Any, *statements: str) -> Any:
    """What somebody does who trusts; the code of others does nothing then."""
    return world.production.sql("trusting", "SET dbre.silent = on", *statements)


# Who is no superuser recovers nothing of one.
SUPERUSER = pytest.mark.parametrize("world", ["socket"], indirect=True)


@SUPERUSER
def test_a_superusers_tables_that_use_what_others_made_come_back_without_their_code_acting_as_one(
    trusting: Any,
) -> None:
    before = trusting.production.definition("trusting")
    as_super(trusting, f"DROP TABLE {', '.join(f't.{name}' for name in TRUSTING)} CASCADE")

    answer = trusting.recover("trusting", relations=[f"t.{name}" for name in TRUSTING])

    # To check what is there would let others wait for as long as that takes.
    left = [(entry["object"], entry["lost"]) for entry in answer["result"]["left_to_do"]]
    keys = ("child_other_fkey", "child_parent_fkey")
    assert sorted(left) == [*((f"{name} on t.child", False) for name in keys), ("t.stored", True)]
    as_super(trusting, *(entry["command"] for entry in answer["result"]["left_to_do"]))
    assert of_superuser(trusting) == dict.fromkeys(TRUSTING, 3)
    assert answer["result"]["difference"] == []
    trusting.remove("trusting")
    now = set(trusting.production.definition("trusting").splitlines())  # a copy of what was replaced is kept beside
    assert [line for line in before.splitlines() if line not in now] == []


@SUPERUSER
@pytest.mark.parametrize("load", ["merge", "replace"])
def test_rows_of_a_superusers_table_are_put_back_without_code_of_others_acting_as_one(trusting: Any, load: str) -> None:
    before = trusting.production.definition("trusting")
    tables = [name for name in TRUSTING if name not in ("keyed", "parted")]
    as_super(trusting, *(f"DELETE FROM t.{name} WHERE id > 1" for name in reversed(tables)))

    answer = trusting.recover("trusting", relations=[f"t.{name}" for name in tables], load=load)

    assert of_superuser(trusting) == dict.fromkeys(TRUSTING, 3)
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []
    trusting.remove("trusting")
    now = set(trusting.production.definition("trusting").splitlines())  # a copy of what was replaced is kept beside
    assert [line for line in before.splitlines() if line not in now] == []


@SUPERUSER
def test_what_went_from_a_superusers_table_comes_back_without_code_of_others_acting_as_one(trusting: Any) -> None:
    as_super(
        trusting,
        "ALTER TABLE t.indexed DROP COLUMN v CASCADE",
        "ALTER TABLE t.typed DROP COLUMN v, DROP COLUMN x",
        "DROP TABLE t.parted_b, t.keyed_a, t.checked CASCADE",
        "DROP TABLE m.checked CASCADE",
    )
    tables = ["t.indexed", "t.typed", "t.parted_b", "t.keyed_a", "t.checked", "m.checked"]

    trusting.recover("trusting", relations=tables)

    assert as_super(trusting, "SELECT count(v) FROM t.indexed") == 3
    assert as_super(trusting, "SELECT count(v) + count(x) FROM t.typed") == 6
    for name in ("parted_b", "keyed_a", "checked"):
        assert as_super(trusting, f"SELECT count(*) FROM t.{name}") > 0


@SUPERUSER
@pytest.mark.parametrize(
    "what",
    [
        "GRANT ALL ON t.typed TO dbre_mallory",
        "CREATE RULE more AS ON INSERT TO t.typed DO ALSO UPDATE public.treasure SET coins = 0",
        "CREATE TRIGGER more BEFORE INSERT ON t.typed FOR EACH ROW EXECUTE FUNCTION m.fired()",
        "ALTER TABLE t.typed ENABLE ROW LEVEL SECURITY",
    ],
)
@pytest.mark.parametrize("load", ["place", "merge"])
def test_code_that_gives_itself_rights_on_a_superusers_table_gets_none(trusting: Any, load: str, what: str) -> None:
    reach = f"PERFORM m.try('{what}'); RETURN true; END $$"
    as_super(trusting, f"CREATE OR REPLACE FUNCTION m.ok(place text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN {reach}")
    trusting.take_side()
    as_super(trusting, "DROP TABLE t.typed CASCADE" if load == "place" else "DELETE FROM t.child; DELETE FROM t.typed")

    answer = trusting.finish(
        trusting.start_recovery("trusting", relations=["t.typed"], load="beside" if load == "place" else load)
    )

    if "error" in answer:
        assert "changed who may do what with it" in answer["error"]
    else:
        assert as_super(trusting, "SELECT count(*) FROM t.typed") == 3
    reached = ("CREATE RULE more", "CREATE TRIGGER more", "GRANT ALL ON TABLE t.typed", "ALTER TABLE t.typed ENABLE")
    now = trusting.production.definition("trusting").splitlines()
    assert [line for line in now if line.startswith(reached)] == []


def test_a_domain_of_others_may_get_a_check_while_rows_are_written(mallory: Any) -> None:
    as_mallory(mallory, "CREATE DOMAIN m.bare AS text", "CREATE TABLE m.held (id int PRIMARY KEY, v m.bare)")
    connection = connect({**mallory.params, "login_db": "mallory"})
    try:
        oid = mallory.production.sql("mallory", "SELECT 'm.held'::regclass::oid::int8")
        assert runs_users_code(connection, oid)
        assert not runs_users_code(connection, oid, written=False)
    finally:
        connection.close()


@pytest.mark.parametrize("world", ["network"], indirect=True)
def test_a_table_of_the_master_user_comes_back_without_code_of_others_acting_as_him(mallory: Any) -> None:
    # Who is no superuser cannot lend what others own.
    as_mallory(mallory, "GRANT USAGE ON SCHEMA m TO PUBLIC")
    mallory.production.sql(
        "mallory",
        "SET dbre.silent = on",
        "GRANT CREATE ON SCHEMA public TO master",
        "CREATE TABLE public.mine (id int PRIMARY KEY, v m.amount, w text CHECK (m.ok('check of the master user')))",
        "INSERT INTO public.mine SELECT g, g, 'x' FROM generate_series(1, 3) g",
        "ALTER TABLE public.mine OWNER TO master",
    )
    mallory.take_side()
    mallory.production.sql("mallory", "DROP TABLE public.mine")

    answer = mallory.recover("mallory", relations=["public.mine"])

    assert answer["result"]["left_to_do"] == []
    assert mallory.production.sql("mallory", "SET dbre.silent = on", "SELECT count(v) FROM public.mine") == 3
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'mine'"
    assert mallory.production.sql("mallory", owner) == "master"
