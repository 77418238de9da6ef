"""Rows and tables come back also when something around them changed; what no longer fits is left to do by name."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect

BEFORE = [
    "CREATE SCHEMA app",
    "CREATE TABLE app.parents (id int PRIMARY KEY, code text)",
    "INSERT INTO app.parents SELECT g, 'p' || g FROM generate_series(1, 100) g",
    "CREATE TYPE app.mood AS ENUM ('low', 'high')",
    "CREATE FUNCTION app.check_it(v int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT v >= 0'",
    "CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TABLE app.t (id int PRIMARY KEY, parent int REFERENCES app.parents, mood app.mood DEFAULT 'low', v int)",
    "ALTER TABLE app.t ADD CONSTRAINT t_check CHECK (app.check_it(v))",
    "INSERT INTO app.t SELECT g, g, ('{low,high}'::app.mood[])[1 + g % 2], g FROM generate_series(1, 100) g",
    "CREATE INDEX t_v ON app.t (v)",
    "CREATE TRIGGER t_touch BEFORE UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION app.touch()",
    "CREATE VIEW app.joined AS SELECT t.id, p.code FROM app.t JOIN app.parents p ON p.id = t.parent",
    "CREATE VIEW app.plain AS SELECT id FROM app.t",
    "CREATE PUBLICATION t_publication FOR TABLE app.t, app.parents",
]
# What else changed, and what of the table is left to do; the rest is back.
CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "the referenced table is gone": (["DROP TABLE app.parents CASCADE"], ["t_parent_fkey on app.t", "app.joined"]),
    "the referenced table is called differently": (
        ["ALTER TABLE app.parents RENAME TO persons"],
        ["t_parent_fkey on app.t", "app.joined"],
    ),
    "the referenced column is called differently": (
        ["ALTER TABLE app.parents RENAME id TO number"],
        ["t_parent_fkey on app.t", "app.joined"],
    ),
    "the referenced key is gone": (
        ["ALTER TABLE app.parents DROP CONSTRAINT parents_pkey CASCADE"],
        ["t_parent_fkey on app.t"],
    ),
    "a column of a view is gone": (["ALTER TABLE app.parents DROP COLUMN code"], ["app.joined"]),
    "the function of a trigger is gone": (["DROP FUNCTION app.touch"], ["t_touch on app.t"]),
    "the function of a check is gone": (["DROP FUNCTION app.check_it"], ["t_check on app.t"]),
    "the type of a column is gone": (["DROP TYPE app.mood"], ["app.mood", "mood on app.t", "mood on app.t"]),
    "a label is called differently": (
        ["ALTER TYPE app.mood RENAME VALUE 'low' TO 'deep'"],
        ["mood on app.t"],
    ),
    "the publication is gone": (["DROP PUBLICATION t_publication"], ["app.t in publication t_publication"]),
    "the name of an index is taken": (["CREATE TABLE app.t_v (x int)"], ["app.t_v"]),
    "the name of an index is one of another table": (["CREATE INDEX t_v ON app.parents (code)"], ["app.t_v"]),
    "the name of the key's index is taken": (["CREATE TABLE app.t_pkey (x int)"], ["t_pkey on app.t"]),
}
BACK = "SELECT string_agg((id, parent, v)::text, ',' ORDER BY id) FROM app.t"


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_what_changed_meanwhile_keeps_no_row_away(shop: Any, what: str) -> None:
    changes, left = CHANGES[what]
    production = shop.production
    production.sql("shop", *BEFORE)
    shop.take_side()
    rows = production.sql("shop", BACK)
    production.sql("shop", "DROP TABLE app.t CASCADE", *changes)

    answer = shop.recover("shop", relations=["app.t"])

    assert production.sql("shop", BACK) == rows
    result = answer["result"]
    assert sorted(entry["object"] for entry in result["left_to_do"]) == sorted(left), result["left_to_do"]
    assert all(entry["command"] for entry in result["left_to_do"])
    assert result["difference"] == []
    views = production.sql("shop", "SELECT count(*) FROM app.plain")
    assert views == 100
    assert shop.recover("shop", relations=["app.t"])["result"]["left_to_do"] == result["left_to_do"]
    if "app.mood" in left:
        production.sql("shop", *(entry["command"] for entry in result["left_to_do"]))
        assert production.sql("shop", "SELECT pg_typeof(mood)::text FROM app.t LIMIT 1") == "app.mood"
    shop.remove("shop")


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_the_schema_of_the_table_is_gone_too(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop", "CREATE SCHEMA app", "GRANT USAGE ON SCHEMA app TO dbre_reader", "COMMENT ON SCHEMA app IS 'ours'"
    )
    production.sql("shop", "ALTER TABLE orders SET SCHEMA app", "CREATE TABLE app.other (x int)")
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DROP SCHEMA app CASCADE")
    assert production.definition("shop") != definition

    answer = shop.recover("shop", relations=["app.orders"])

    assert (answer["result"]["left_to_do"], answer["result"]["difference"]) == ([], [])
    shop.remove("shop")
    after = production.contents("shop")
    contents.pop("app.other")
    assert after == contents
    production.sql("shop", "CREATE TABLE app.other (x int)")
    assert production.definition("shop") == definition


@pytest.mark.parametrize("what", ["table", "database"])
@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_tablespace_that_is_gone_too_is_no_reason_to_wait(shop: Any, what: str) -> None:
    production = shop.production
    spaces = ['"Fast one"', "other"]
    here = ["SET allow_in_place_tablespaces = on", *(f"CREATE TABLESPACE {name} LOCATION ''" for name in spaces)]
    production.sql("postgres", *here, "ALTER DATABASE shop SET TABLESPACE other")
    production.sql(
        "shop",
        'CREATE TABLE placed (id int PRIMARY KEY USING INDEX TABLESPACE "Fast one", v int) TABLESPACE "Fast one"',
        'CREATE INDEX placed_v ON placed (v) TABLESPACE "Fast one"',
        "CREATE TABLE elsewhere (id int PRIMARY KEY USING INDEX TABLESPACE dbre_space) TABLESPACE dbre_space",
        "INSERT INTO placed SELECT g, g FROM generate_series(1, 100) g",
    )
    shop.take_side()
    definition = production.definition("shop")
    left = {f'"Fast one" on public.{name}' for name in ("placed", "placed_pkey", "placed_v")}
    if what == "table":
        production.sql("shop", "DROP TABLE public.placed, public.elsewhere")
        gone = spaces[:1]
    else:
        production.sql("postgres", "DROP DATABASE shop")
        gone, left = spaces, {*left, "other on database shop"}
    production.sql("postgres", *(f"DROP TABLESPACE {name}" for name in gone))

    result = shop.recover("shop", relations=["placed", "elsewhere"] if what == "table" else [])["result"]

    assert production.sql("shop", "SELECT sum(v) FROM placed") == 5050
    assert result["difference"] == []
    assert {entry["object"] for entry in result["left_to_do"]} == left
    assert not any(entry["lost"] for entry in result["left_to_do"])
    production.sql("postgres", here[0], *(line for line in here[1:] if any(name in line for name in gone)))
    for entry in result["left_to_do"]:
        production.sql("postgres" if "database" in entry["object"] else "shop", entry["command"])
    shop.remove("shop")
    assert production.definition("shop") == definition


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_role_that_may_read_the_table_is_gone(shop: Any) -> None:
    production = shop.production
    production.sql("shop", 'CREATE ROLE "Gone"', 'GRANT SELECT ON orders TO "Gone", dbre_reader')
    shop.take_side()
    production.sql("shop", "DROP TABLE orders CASCADE", 'DROP ROLE "Gone"')
    (entry,) = shop.recover("shop", relations=["orders"])["result"]["left_to_do"]
    assert entry["type"] == "acl"
    assert production.sql("shop", "SELECT has_table_privilege('dbre_reader', 'orders', 'SELECT')")
    production.sql("shop", *entry["command"].split("\n"))
    assert production.sql("shop", """SELECT has_table_privilege('Gone', 'orders', 'SELECT')""")


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_privileges_that_drop_owned_took_from_what_is_still_there_are_told_and_come_back_by_command(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        'CREATE ROLE "Clerk"',
        "CREATE ROLE helper",
        'CREATE SCHEMA office AUTHORIZATION "Clerk"',
        'CREATE TABLE office.desk AS SELECT 1 AS id; ALTER TABLE office.desk OWNER TO "Clerk"',
        "CREATE TABLE stays (id int, note text, price int); CREATE SEQUENCE numbers",
        "CREATE PROCEDURE p(int) LANGUAGE sql AS ''",
        'GRANT SELECT, INSERT ON stays TO "Clerk", helper; GRANT DELETE ON stays TO "Clerk" WITH GRANT OPTION',
        'GRANT UPDATE (note, price) ON stays TO "Clerk"; GRANT USAGE ON SEQUENCE numbers TO "Clerk"',
        'GRANT EXECUTE ON PROCEDURE p(int) TO "Clerk"; GRANT USAGE ON SCHEMA public TO "Clerk"',
        'GRANT CONNECT ON DATABASE shop TO "Clerk", helper',
        'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "Clerk"',
        'ALTER DEFAULT PRIVILEGES FOR ROLE "Clerk" GRANT INSERT ON TABLES TO helper',
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO helper",
        'SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO "Clerk"',
        'CREATE POLICY alone ON stays AS RESTRICTIVE FOR UPDATE TO "Clerk" USING (id > 1) WITH CHECK (id > 2)',
        'CREATE POLICY shared ON stays TO "Clerk", helper USING (id > 3)',
        "CREATE POLICY all_of_them ON stays USING (true)",
    )
    shop.take_side()
    definition = sorted(production.definition("shop").splitlines())  # privileges stand in the order of their granting
    script = 'SELECT pg_current_xact_id()::text; DROP OWNED BY "Clerk" CASCADE'
    xid = production.program("psql", "-XqAt1", "-c", script, database="shop")
    others = "ALTER DEFAULT PRIVILEGES {} USAGE ON SEQUENCES {} helper"
    production.sql(
        "shop", "REVOKE INSERT ON stays FROM helper", others.format("REVOKE", "FROM")
    )  # by others, and meant
    production.sql("shop", "VACUUM (FREEZE) pg_class")

    answer = shop.recover("shop", schemas=["office"], xids=[int(xid)])

    left = answer["result"]["left_to_do"]
    assert {entry["type"] for entry in left} == {"acl", "policy"}, left
    policies = {entry["object"] for entry in left if entry["type"] == "policy" and entry["lost"]}
    assert policies == {"alone on public.stays", "shared on public.stays"}
    unsure = [entry for entry in left if not entry["lost"]]
    assert [entry["command"] for entry in unsure] == [
        'ALTER DEFAULT PRIVILEGES FOR ROLE "postgres" GRANT USAGE ON SEQUENCES TO "helper";'
    ]
    assert "may be meant" in unsure[0]["reason"]
    assert not [entry for entry in left if "helper on table" in entry["object"]], left
    production.sql("shop", *(entry["command"] for entry in left), "GRANT INSERT ON stays TO helper")
    shop.remove("shop")
    assert sorted(production.definition("shop").splitlines()) == definition


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_role_that_owned_the_table_is_gone_and_made_again(shop: Any) -> None:
    production = shop.production
    production.sql("shop", 'CREATE ROLE "Owner" LOGIN', 'ALTER TABLE orders OWNER TO "Owner"')
    shop.take_side()
    definition = production.definition("shop")
    production.sql("shop", "DROP TABLE orders CASCADE", 'DROP ROLE "Owner"')
    message = shop.refused("shop", relations=["orders"])
    assert 'CREATE ROLE "Owner" LOGIN;' in message
    old_plan = shop.recover("shop", relations=["orders"], recover=False)["plan"]
    production.sql("shop", 'CREATE ROLE "Owner" LOGIN;')
    assert shop.recover("shop", plan=old_plan)["result"]["difference"] == []
    shop.remove("shop")
    assert production.definition("shop") == definition


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_rows_that_break_a_foreign_key_are_counted_as_the_key_compares_them(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE EXTENSION ltree",
        "CREATE EXTENSION citext",
        "CREATE TABLE places (path ltree, name citext, UNIQUE (path, name))",
        "INSERT INTO places VALUES ('a.b', 'one')",
        "CREATE TABLE stays (path ltree, name citext, "
        "CONSTRAINT stays_place FOREIGN KEY (path, name) REFERENCES places (path, name) MATCH FULL)",
        "INSERT INTO stays VALUES ('a.b', 'ONE'), (NULL, NULL)",
    )
    shop.take_side()
    production.sql("shop", "DROP TABLE places CASCADE", "INSERT INTO stays VALUES ('a.c', 'ONE'), ('a.b', NULL)")
    (entry,) = shop.recover("shop", relations=["places"])["result"]["left_to_do"]
    assert (entry["object"], entry["rows"]) == ("stays_place on public.stays", 2)
    assert sorted(entry["sample"]) == [["a.b", ""], ["a.c", "ONE"]]


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_an_index_that_can_tell_rows_apart_no_more_comes_back_for_what_else_it_does(shop: Any) -> None:
    production = shop.production
    for name in ("slips", "tags"):
        production.sql(
            "shop",
            f"CREATE TABLE {name} (id int PRIMARY KEY, code text NOT NULL)",
            f"INSERT INTO {name} VALUES (1, 'one')",
            "CREATE UNIQUE INDEX slips_code ON slips (code)"
            if name == "slips"
            else "ALTER TABLE tags ADD CONSTRAINT tags_code UNIQUE (code)",
            f"ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_code",
        )
    shop.take_side()
    for name in ("slips", "tags"):
        # The row of after has nothing in the column that comes back.
        production.sql("shop", f"ALTER TABLE {name} DROP COLUMN code CASCADE", f"INSERT INTO {name} VALUES (2)")
    answer = shop.recover("shop", relations=["slips", "tags"])
    again = shop.recover("shop", relations=["slips", "tags"], plan=answer["plan"])
    for result in (answer["result"], again["result"]):
        left = {item["object"]: item["command"] for item in result["left_to_do"] if "_code" in item["object"]}
        # That the column is NOT NULL has a name of its own on 18, and is left to do as well.
        left = {name: command for name, command in left.items() if "not_null" not in name}
        assert left == {
            "public.slips_code": "ALTER TABLE ONLY public.slips REPLICA IDENTITY USING INDEX slips_code;",
            "tags_code on public.tags": 'ALTER TABLE ONLY "public"."tags" REPLICA IDENTITY USING INDEX "tags_code";',
        }
    valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text LIKE '%s_code'"
    assert production.sql("shop", valid) == 2


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_copy_made_before_the_drop_does_not_take_the_names_of_constraints(shop: Any) -> None:
    production = shop.production
    shop.take_side()
    production.sql("shop", "CREATE TABLE copy (LIKE orders INCLUDING ALL)", "DROP TABLE orders CASCADE")
    definition = shop.side.definition("shop")
    answer = shop.recover("shop", relations=["orders"])
    assert [entry["object"] for entry in answer["result"]["left_to_do"]] == []
    production.sql("shop", "DROP TABLE copy")
    shop.remove("shop")
    assert production.definition("shop") == definition


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_synchronous_standby_that_is_gone_holds_nothing_up(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", "DROP TABLE orders CASCADE")
    production.sql("shop", "ALTER SYSTEM SET synchronous_standby_names = 'gone'", "SELECT pg_reload_conf()")
    (entry,) = shop.recover("shop", relations=["orders"])["result"]["left_to_do"]
    assert (entry["type"], entry["lost"]) == ("standby", False)
    assert "gone" in entry["reason"]
    shop.remove("shop")
    production.sql("shop", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert production.contents("shop") == contents


def everybody(where: dict[str, Any], user: str) -> list[Any]:
    """Sessions of a role, as many as the server takes."""
    crowd = []
    server = {"host": where["login_unix_socket"], "port": where["login_port"], "dbname": "shop"}
    while True:
        try:
            crowd.append(psycopg2.connect(**server, user=user))
        except psycopg2.OperationalError:
            return crowd


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_the_reserved_connections_are_enough(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", "DROP TABLE orders, lines CASCADE", "CREATE ROLE crowd LOGIN")
    where = {"login_unix_socket": str(shop.root), "login_port": production.port}
    crowd = everybody(where, "crowd")
    answer = shop.recover("shop", relations=["orders", "lines"])
    for connection in crowd:
        connection.close()
    assert answer["result"]["left_to_do"] == []
    assert production.contents("shop")["orders"] == contents["orders"]
    production.sql("shop", "DROP ROLE crowd")


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_a_connection_is_waited_for_where_all_are_taken_for_a_moment(shop: Any) -> None:
    where = {"login_unix_socket": str(shop.root), "login_port": shop.production.port}
    crowd = everybody(where, "postgres")
    leaving = threading.Timer(1.0, crowd[0].close)
    leaving.start()
    try:
        connect(where, "shop").close()
    finally:
        leaving.join()
        for connection in crowd:
            connection.close()
