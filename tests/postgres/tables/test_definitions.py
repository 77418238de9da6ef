"""What comes back is what was there: all definitions of the database as text, and all rows."""

from __future__ import annotations

from typing import Any

import pytest

DAMAGE = {
    "table": (["DROP TABLE app.orders CASCADE"], {"relations": ["app.orders"]}),
    "partitioned table": (["DROP TABLE app.events CASCADE"], {"relations": ["app.events"]}),
    "one partition": (["DROP TABLE app.events_01 CASCADE"], {"relations": ["app.events_01"]}),
    "a tree of partitions, named by its root": (["DROP TABLE app.events_02 CASCADE"], {"relations": ["app.events"]}),
    "inheritance parent": (["DROP TABLE app.base CASCADE"], {"relations": ["app.base"]}),
    "odd name": (
        ['DROP TABLE "Weird ""schema"" . X"."Weird ""quote"" . Name"'],
        {"relations": ['"Weird ""schema"" . X"."Weird ""quote"" . Name"']},
    ),
    "several": (
        ["DROP TABLE app.in_space, app.nothing, app.scratch, app.uses_shared, app.child", "DROP FOREIGN TABLE app.far"],
        {"relations": "app.in_space, app.nothing,app.scratch, app.uses_shared, app.child, app.far"},
    ),
    "view": (["DROP VIEW app.order_totals CASCADE"], {"relations": ["app.order_totals"]}),
    "sequence": (["DROP SEQUENCE app.shared_seq CASCADE"], {"relations": ["app.shared_seq"]}),
    "schema": (["DROP SCHEMA app CASCADE"], {"schemas": ["app"]}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_definitions_and_rows_are_back(torture: Any, what: str) -> None:
    statements, asked = DAMAGE[what]
    production = torture.production
    definition, contents = production.definition("torture"), production.contents("torture")
    production.sql("torture", *statements)
    assert production.definition("torture") != definition

    answer = torture.recover("torture", **asked)

    assert answer["result"]["difference"] == []
    assert [reason for reason in torture.finish_left("torture", answer) if "unlogged" not in reason] == []
    assert torture.remove("torture")["kept"] == []
    assert production.definition("torture") == definition
    assert production.contents("torture") == contents


def test_a_whole_database_is_back(torture: Any) -> None:
    production = torture.production
    production.sql(
        "torture",
        "SELECT lo_from_bytea(4242, 'large')",
        "ALTER LARGE OBJECT 4242 OWNER TO dbre_owner",
        "COMMENT ON DATABASE torture IS 'all of it'",
        "ALTER DATABASE torture SET work_mem = '7MB'",
        "ALTER ROLE dbre_reader IN DATABASE torture SET search_path = app",
        "GRANT CREATE ON DATABASE torture TO dbre_reader",
        "ALTER DATABASE torture OWNER TO dbre_owner",
    )
    torture.take_side()
    definition, contents = production.definition("torture"), production.contents("torture")
    production.sql("postgres", "DROP DATABASE torture WITH (FORCE)")

    answer = torture.recover("torture")

    assert answer["plan"]["staging_database"] == "recovered_test"
    assert answer["result"]["difference"] == []
    again = torture.recover("torture")
    assert again["result"]["changed"] is False
    assert again["result"]["left_to_do"] == answer["result"]["left_to_do"]
    assert [reason for reason in torture.finish_left("torture", answer) if "unlogged" not in reason] == []
    torture.remove("torture")
    assert production.definition("torture") == definition
    assert production.contents("torture") == contents
    assert bytes(production.sql("torture", "SELECT lo_get(4242)")) == b"large"
    assert production.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'recovered'") == 0


def test_an_instance_restored_from_a_dump_has_oids_of_its_own(torture: Any) -> None:
    production, side = torture.production, torture.side
    definition, contents = production.definition("torture"), production.contents("torture")
    dump = str(torture.root / "torture.dump")
    # pg_restore fills materialized views without the rows that row security hides, or rather fails.
    side.sql("torture", "ALTER TABLE app.orders DISABLE ROW LEVEL SECURITY")
    side.program("pg_dump", "-Fc", "-f", dump, database="torture")
    side.sql("postgres", "DROP DATABASE torture", "CREATE TABLE shifts_oids ()")
    side.program("pg_restore", "--create", "-d", "postgres", dump)
    side.sql("torture", "ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY")
    production.sql("torture", "DROP TABLE app.orders CASCADE")

    instance = {**torture.params["instance"], "source": "dump", "own_oids": True}
    answer = torture.recover("torture", relations=["app.orders"], params={**torture.params, "instance": instance})

    assert torture.finish_left("torture", answer) == []
    torture.remove("torture")
    assert production.definition("torture") == definition
    assert production.contents("torture") == contents
