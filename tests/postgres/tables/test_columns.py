"""Columns that went from tables that are still there come back with their data."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import pytest

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

LOSSES = {
    "DROP COLUMN": (
        ["CREATE TABLE a (id int PRIMARY KEY, v text NOT NULL, w int)"],
        "ALTER TABLE a DROP COLUMN v",
        "g::text",
    ),
    # IS NOT NULL is false of each of its values.
    "DROP COLUMN of a composite type": (
        ["CREATE TYPE b AS (x int, y text)", "CREATE TABLE a (id int PRIMARY KEY, v b NOT NULL, w int)"],
        "ALTER TABLE a DROP COLUMN v",
        "ROW(g, NULL)::b",
    ),
    "DROP TYPE CASCADE": (
        ["CREATE TYPE b AS ENUM ('x', 'y')", "CREATE TABLE a (id int PRIMARY KEY, v b NOT NULL DEFAULT 'x', w int)"],
        "DROP TYPE b CASCADE",
        "('{x,y}'::b[])[1 + g % 2]",
    ),
    "DROP DOMAIN CASCADE": (
        ["CREATE DOMAIN b AS int CHECK (VALUE > 0)", "CREATE TABLE a (id int PRIMARY KEY, v b[], w int)"],
        "DROP DOMAIN b CASCADE",
        "ARRAY[g, g]::b[]",
    ),
    "DROP EXTENSION CASCADE": (
        ["CREATE EXTENSION hstore", "CREATE TABLE a (id int PRIMARY KEY, v hstore, w int)"],
        "DROP EXTENSION hstore CASCADE",
        "hstore('a', g::text)",
    ),
}
ALL = "SELECT md5(string_agg((id, v, w)::text, '|' ORDER BY id)) FROM a"


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_column_is_back_with_its_data(shop: Any, how: str) -> None:
    before, damage, values = LOSSES[how]
    production = shop.production
    production.sql(
        "shop",
        *before,
        f"INSERT INTO a SELECT g, {values}, g FROM generate_series(1, 12000) g",
        "CREATE INDEX a_v ON a (v)",
        "CREATE VIEW a_view AS SELECT id, v FROM a",
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON a FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
    )
    shop.take_side()
    was = production.sql("shop", ALL)
    production.sql("shop", "DROP VIEW a_view", damage)

    answer = shop.recover("shop", relations=["a"])

    assert [item["action"] for item in answer["plan"]["relations"]] == ["columns"]
    (entry,) = answer["result"]["left_to_do"]
    assert (entry["type"], entry["object"], entry["lost"]) == ("order of columns", "public.a", False)
    assert "the order is now id, w, v" in entry["reason"]
    assert production.sql("shop", ALL) == was
    assert production.sql("shop", "SELECT to_regclass('a_v') IS NOT NULL")
    assert shop.recover("shop", relations=["a"])["result"]["changed"] is False
    shop.remove("shop")
    assert production.sql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'recovered'") == 0


def test_what_else_went_from_the_table_is_back_and_what_it_hangs_on(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE EXTENSION citext",
        "CREATE EXTENSION pg_trgm",
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2'",
        "CREATE TABLE other (id int, name text)",
        "CREATE INDEX other_name ON other USING gin (name gin_trgm_ops)",
        "CREATE TABLE a (id int PRIMARY KEY, w int DEFAULT f(3) CHECK (f(w) > 0), name text, v citext UNIQUE)",
        "INSERT INTO a SELECT g, g, g, 'V' || g FROM generate_series(1, 100) g",
        "CREATE INDEX a_name ON a USING gin (name gin_trgm_ops)",
        "CREATE INDEX a_w ON a (w)",
        "CREATE INDEX a_f ON a (f(w))",
        "CREATE POLICY a_policy ON a USING (f(w) > 0)",
        "CREATE STATISTICS a_statistics ON f(w), id FROM a",
        "CREATE VIEW a_view AS SELECT f(w), similarity(name, 'a') FROM a",
        "COMMENT ON COLUMN a.v IS 'value, 100%s'",
        "GRANT SELECT (v) ON a TO dbre_reader WITH GRANT OPTION",
        "ALTER TABLE a ALTER v SET STATISTICS 50, ALTER v SET STORAGE EXTERNAL, ALTER v SET (n_distinct = 7)",
    )
    shop.take_side()
    was = production.definition("shop")
    production.sql(
        "shop", "BEGIN; DROP INDEX a_w; DROP FUNCTION f(int) CASCADE; DROP EXTENSION citext, pg_trgm CASCADE; COMMIT"
    )

    result = shop.recover("shop", relations=["a"])["result"]

    assert [entry["object"] for entry in result["left_to_do"] if entry["lost"]] == []
    assert result["difference"] == []
    shop.remove("shop")
    assert sorted(production.definition("shop").splitlines()) == sorted(was.splitlines())


def test_what_production_wrote_meanwhile_stays(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, v text)",
        "INSERT INTO a SELECT g, 'old' FROM generate_series(1, 100) g",
    )
    shop.take_side()
    production.sql("shop", "ALTER TABLE a DROP COLUMN v", "DELETE FROM a WHERE id > 90", "INSERT INTO a VALUES (1000)")
    recovery = shop.start_recovery("shop", relations=["a"])
    while recovery.poll() is None:  # as soon as there is a column again, somebody writes to it
        with contextlib.suppress(psycopg2.errors.UndefinedColumn):
            production.sql("shop", "UPDATE a SET v = 'new' WHERE id <= 5")
            break
    result = shop.finish(recovery)["result"]
    assert production.sql("shop", "SELECT count(*) FROM a WHERE v = 'old'") == 85
    assert production.sql("shop", "SELECT count(*) FROM a WHERE v = 'new'") == 5
    assert production.sql("shop", "SELECT count(*) FROM a") == 91
    (table,) = result["relations"]
    assert table["rows"] + table["own_values"] == 90
    assert table["checksum_side"] == table["checksum_production"] != "0"
    (entry,) = result["left_to_do"]
    assert (entry["object"], entry["rows"], entry["lost"]) == ("public.a", 10, False)


def test_rows_that_went_with_the_column_are_lost_where_rows_were_asked_for(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x'), (2, 'y')")
    shop.take_side()
    production.sql("shop", "BEGIN; DELETE FROM a WHERE id = 2; ALTER TABLE a DROP COLUMN v; COMMIT")
    (entry,) = shop.recover("shop", relations=["a"], load="merge")["result"]["left_to_do"]
    assert (entry["object"], entry["rows"], entry["lost"]) == ("public.a", 1, True)


def test_without_a_key_a_copy_of_the_table_is_kept(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "CREATE TABLE a (id int, v text)", "INSERT INTO a VALUES (1, 'one'), (2, 'two')")
    shop.take_side()
    production.sql("shop", "ALTER TABLE a DROP COLUMN v")
    result = shop.recover("shop", relations=["a"])["result"]
    (entry,) = (entry for entry in result["left_to_do"] if entry["type"] == "table column")
    assert (entry["object"], entry["lost"]) == ("v on public.a", True)
    assert production.sql("shop", "SELECT string_agg(v, ',' ORDER BY id) FROM recovered_test.a") == "one,two"
    assert [item["object"] for item in shop.remove("shop")["kept"]] == ["recovered_test.a"]
