"""Partitioned tables some of whose rows are on another server, where nobody asked to change any."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill.damage import KINDS, DrilledCopy
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

THERE = "SELECT count(*) FROM there"


@pytest.fixture
def far(shop: Any) -> Any:
    """Readings of which old ones are in another database, as the owner of all may read and write them."""
    production = shop.production
    production.sql(
        "postgres", "CREATE TABLE there (at int, what text)", "INSERT INTO there SELECT generate_series(1, 9)"
    )
    production.sql(
        "shop",
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw "
        f"OPTIONS (host '{shop.root}', port '{production.port}', dbname 'postgres')",
        "CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false')",
        "GRANT USAGE ON FOREIGN SERVER far TO dbre_owner",
        "CREATE TABLE readings (at int, what text) PARTITION BY RANGE (at)",
        "CREATE FOREIGN TABLE readings_old PARTITION OF readings FOR VALUES FROM (0) TO (10) SERVER far "
        "OPTIONS (table_name 'there')",
        "CREATE TABLE readings_new PARTITION OF readings FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (at)",
        "CREATE TABLE readings_1 PARTITION OF readings_new FOR VALUES FROM (10) TO (50)",
        "CREATE TABLE readings_2 PARTITION OF readings_new FOR VALUES FROM (50) TO (100)",
        "INSERT INTO readings SELECT g, 'new' FROM generate_series(10, 99) g",
        *(f"ALTER TABLE readings{part} OWNER TO dbre_owner" for part in ("", "_new", "_1", "_2")),
        "ALTER FOREIGN TABLE readings_old OWNER TO dbre_owner",
    )
    shop.take_side()
    return shop


@pytest.mark.parametrize("load", ["replace", "beside"])
def test_rows_on_another_server_stay_as_they_are_and_are_told(far: Any, load: str) -> None:
    production = far.production
    production.sql("shop", "DELETE FROM readings WHERE at > 20")
    production.sql("postgres", "INSERT INTO there SELECT generate_series(1, 3)")
    answer = far.recover("shop", relations=["readings"], load=load)
    assert production.sql("postgres", THERE) == 12
    left = answer["result"]["left_to_do"]
    (told,) = [item for item in left if item["object"] == "public.readings_old"]
    assert told["lost"]
    assert "on another server" in told["reason"]
    if load == "beside":
        for item in left:
            if "puts them all in the place" in item["reason"]:
                production.sql("shop", item["command"])
    assert production.sql("shop", "SELECT count(*) FROM readings_new") == 90
    assert production.sql("postgres", THERE) == 12


def test_a_dropped_tree_is_back_with_its_foreign_partition(far: Any) -> None:
    production = far.production
    production.sql("shop", "DROP TABLE readings")
    answer = far.recover("shop", relations=["readings"], load="replace")
    assert [item for item in answer["result"]["left_to_do"] if item["lost"]] == []
    assert production.sql("shop", "SELECT count(*) FROM readings") == 99


def test_a_partition_that_became_a_foreign_table_is_not_written_to(far: Any) -> None:
    production = far.production
    production.sql("shop", "DELETE FROM readings WHERE at > 20")
    production.sql("postgres", "CREATE TABLE moved (at int, what text)", "INSERT INTO moved VALUES (60, 'moved')")
    production.sql(
        "shop",
        "DROP TABLE readings_2",
        "CREATE FOREIGN TABLE readings_2 PARTITION OF readings_new FOR VALUES FROM (50) TO (100) SERVER far "
        "OPTIONS (table_name 'moved')",
    )
    answer = far.recover("shop", relations=["readings"], load="replace")
    assert production.sql("postgres", "SELECT at FROM moved") == 60
    assert production.sql("shop", "SELECT count(*) FROM readings_1") == 40
    assert {"public.readings_old", "public.readings_2"} <= {item["object"] for item in answer["result"]["left_to_do"]}


def test_a_drill_empties_and_changes_nothing_that_is_not_in_the_copy(far: Any) -> None:
    production = far.production
    production.sql("shop", "CREATE TABLE wide (at int, what text)", "CREATE TABLE near () INHERITS (wide)")
    production.sql("shop", "CREATE FOREIGN TABLE off () INHERITS (wide) SERVER far OPTIONS (table_name 'there')")
    connection = production.connect("shop")
    for name in ("readings", "wide"):
        found = find_relations(connection, [{"schema": "public", "name": name}])
        for kind in KINDS:
            if kind == "drop":
                DrilledCopy.require_local(connection, found, kind)
                continue
            with pytest.raises(RecoveryError, match=f"public.{name} cannot be drilled on this way"):
                DrilledCopy.require_local(connection, found, kind)
    DrilledCopy.require_local(connection, find_relations(connection, [{"schema": "public", "name": "near"}]), "delete")
    connection.close()
