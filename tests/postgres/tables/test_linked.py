"""Tables that production still has, linked by foreign keys: their rows come back together."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    orphans,
    outgoing_keys,
    source_of,
)
from ansible_collections.dbre.recovery.tests.postgres.tables.conftest import installed_major

CHAIN = "customers, orders, lines"
LONG = [
    f'"{name}{letter}"'
    for name, letters in {
        "measurements_of_the_northern_district_heating_pipe_system_": "ab",
        "измерения_северного_района_сети_": "аб",
    }.items()
    for letter in letters
]
ANEW = [
    "DROP SCHEMA public CASCADE",
    "CREATE SCHEMA public",
    "GRANT ALL ON SCHEMA public TO PUBLIC",
    "CREATE TABLE customers (id int PRIMARY KEY, name text UNIQUE)",
    "CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers ON DELETE CASCADE)",
    "CREATE TABLE lines (id bigserial PRIMARY KEY, order_id int NOT NULL REFERENCES orders, note text)",
    "INSERT INTO customers VALUES (1, 'new')",
    "INSERT INTO orders VALUES (1, 1)",
    "INSERT INTO lines (order_id) VALUES (1)",
]


def lost(answer: dict[str, Any]) -> list[tuple[str, int]]:
    """Rows that are not back: the table, and how many."""
    left = answer["result"]["left_to_do"]
    return [(entry["object"], entry["rows"]) for entry in left if entry["lost"] and entry["type"] == "rows"]


@pytest.mark.parametrize("load", ["merge", "replace"])
@pytest.mark.parametrize(
    ("damage", "relations"),
    [
        ("TRUNCATE orders CASCADE", "lines, orders, events_new"),
        ("DELETE FROM customers WHERE id > 30", CHAIN),
        ("TRUNCATE staff, teams", "staff, teams"),
    ],
)
def test_children_come_back_with_their_parents(linked: Any, damage: str, relations: str, load: str) -> None:
    production = linked.production
    contents = production.contents("linked")
    production.sql("linked", damage)
    answer = linked.recover("linked", relations=[relations], load=load)
    assert lost(answer) == []
    linked.production.sql("linked", *(item["command"] for item in linked.remove("linked")["kept"]))
    linked.remove("linked")
    assert production.contents("linked") == contents


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_a_schema_that_was_reset_gets_its_rows_back(linked: Any, load: str) -> None:
    production = linked.production
    contents = production.contents("linked")
    owner = production.sql("linked", "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'customers'::regclass")
    production.sql("linked", *ANEW)
    production.sql("linked", *(f"ALTER TABLE {table} OWNER TO {owner}" for table in ("customers", "orders", "lines")))
    answer = linked.recover("linked", relations=[CHAIN], load=load)
    assert lost(answer) == []
    counts = [production.sql("linked", f"SELECT count(*) FROM {name.strip()}") for name in CHAIN.split(",")]
    assert counts == [100, 1000, 5000]
    if load == "merge":
        assert {name: item["differing"] for name, item in answer["result"]["merged"].items()} == {
            "public.customers": 1,
            "public.orders": 1,
            "public.lines": 1,
        }
        # The command beside the rows that differ, as it is printed.
        production.sql(
            "linked", *(entry["command"] for entry in answer["result"]["left_to_do"] if entry["type"] == "rows")
        )
    after = production.contents("linked")
    assert {name: after[name] for name in ("customers", "orders", "lines")} == {
        name: contents[name] for name in ("customers", "orders", "lines")
    }


def test_what_does_not_fit_is_counted_and_kept_and_goes_back_by_its_command(linked: Any) -> None:
    production = linked.production
    contents = production.contents("linked")
    production.sql(
        "linked",
        "DELETE FROM customers WHERE id > 98",
        "DELETE FROM customers WHERE id = 50",
        "INSERT INTO customers VALUES (1050, 'Customer 50')",
        "DELETE FROM lines WHERE id = 1",
        "ALTER TABLE lines ADD CONSTRAINT id_is_high CHECK (id > 1 AND note <> '%')",
    )
    # The parents that were named are back but for one, whose name another has; those of the others are not.
    answer = linked.recover("linked", relations=["customers, orders, lines"], load="merge")
    merged = answer["result"]["merged"]
    assert merged["public.customers"]["not_fitting"] == 1
    assert merged["public.orders"]["not_fitting"] == 10
    assert merged["public.lines"]["not_fitting"] == 51
    assert lost(answer) == [("public.customers", 1), ("public.orders", 10), ("public.lines", 1), ("public.lines", 50)]
    reasons = [entry["reason"] for entry in answer["result"]["left_to_do"] if entry["lost"]]
    assert "unique index customers_name_key" in reasons[0]
    assert "foreign key orders_customer_fkey on public.orders" in reasons[1]
    assert "constraint id_is_high" in reasons[2]
    assert "recovered_test.lines_not_fitting" in reasons[2]

    production.sql("linked", "DELETE FROM customers WHERE id = 1050", "ALTER TABLE lines DROP CONSTRAINT id_is_high")
    production.sql("linked", *(entry["command"] for entry in answer["result"]["left_to_do"] if entry["lost"]))
    production.sql("linked", *(item["command"] for item in linked.remove("linked")["kept"]))
    linked.remove("linked")
    assert production.contents("linked") == contents


def test_rows_whose_parents_were_not_asked_for_are_lost_and_named(linked: Any) -> None:
    production = linked.production
    production.sql("linked", "TRUNCATE orders CASCADE")
    answer = linked.recover("linked", relations=["lines, events"], load="merge")
    assert sorted(lost(answer)) == [("public.events", 235), ("public.lines", 5000)]
    assert production.sql("linked", "SELECT count(*) FROM lines") == 0
    assert production.sql("linked", "SELECT count(*) FROM recovered_test.lines_not_fitting") == 5000


def test_a_partition_s_own_foreign_key_counts(linked: Any) -> None:
    production = linked.production
    production.sql("linked", "TRUNCATE orders, lines, events")
    answer = linked.recover("linked", relations=["events"], load="merge")
    assert lost(answer) == [("public.events", 235)]
    assert production.sql("linked", "SELECT count(*) FROM events_old") == 365


def test_a_tree_of_inheritance_gets_the_rows_of_each_table_named(linked: Any) -> None:
    production = linked.production
    contents = production.contents("linked")
    production.sql("linked", "DELETE FROM base WHERE id > 3")
    answer = linked.recover("linked", relations=["base, child"], load="merge")
    assert {name: item["inserted"] for name, item in answer["result"]["merged"].items()} == {
        "public.base": 7,
        "public.child": 26,
    }
    linked.remove("linked")
    assert production.contents("linked") == contents


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_names_that_begin_alike_and_names_of_ours_do_not_meet(linked: Any, load: str) -> None:
    production = linked.production
    names = [*LONG, "a", "a_recovered"]
    contents = production.contents("linked")
    production.sql("linked", *(f"DELETE FROM {name} WHERE id > 2" for name in names))
    production.sql("linked", *(f"INSERT INTO {name} VALUES (1000)" for name in names))
    answer = linked.recover("linked", relations=names, load=load)
    assert [item["rows"] for item in sorted(answer["result"]["relations"], key=lambda item: item["rows"])] == (
        [8, 18, 28, 38, 48, 58] if load == "merge" else [10, 20, 30, 40, 50, 60]
    )
    production.sql("linked", *(f"DELETE FROM {name} WHERE id = 1000" for name in names))
    after = production.contents("linked")
    assert {name: after[name] for name in contents} == contents


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_triggers_that_fire_always_do_not_notice_us(linked: Any, load: str) -> None:
    production = linked.production
    makes = [
        f"CREATE TRIGGER {state}_{event} AFTER INSERT OR DELETE ON {table} FOR EACH {event} EXECUTE FUNCTION note()"
        for table in ("orders", "lines", "events")
        for state, event in (("always", "row"), ("replica", "statement"))
    ]
    makes += [
        f"ALTER TABLE {table} ENABLE {state} TRIGGER {state}_{event}"
        for table in ("orders", "lines", "events")
        for state, event in (("always", "row"), ("replica", "statement"))
    ]
    damage = ["TRUNCATE orders, lines, events, audit"]
    production.sql("linked", *makes, *damage)
    definition = production.definition("linked")
    answer = linked.recover("linked", relations=["orders, lines, events"], load=load)
    assert lost(answer) == []
    assert production.sql("linked", "SELECT count(*) FROM lines") == 5000
    assert production.sql("linked", "SELECT count(*) FROM audit") == 0
    production.sql("linked", "DELETE FROM lines WHERE id = 1")
    assert production.sql("linked", "SELECT string_agg(what, ', ') FROM audit") == "DELETE on lines"
    for item in linked.remove("linked")["kept"]:
        production.sql("linked", item["command"])
    linked.remove("linked")
    assert production.definition("linked") == definition


def test_rules_that_act_always_are_refused_with_the_command_that_helps(linked: Any) -> None:
    production = linked.production
    production.sql(
        "linked",
        "CREATE RULE note AS ON INSERT TO lines DO ALSO INSERT INTO audit (what) VALUES ('rule')",
        "ALTER TABLE lines ENABLE ALWAYS RULE note",
        "TRUNCATE lines",
    )
    message = linked.refused("linked", relations=["lines"], load="merge")
    assert '"note" (ENABLE ALWAYS)' in message
    production.sql("linked", message.split("incident id: ")[1])
    linked.recover("linked", relations=["lines"], load="merge")
    assert production.sql("linked", "SELECT count(*) FROM lines") == 5000
    assert production.sql("linked", "SELECT count(*) FROM audit") == 0


KEYS = {
    "simple": (
        "CREATE TABLE rooms (house int, number int, PRIMARY KEY (house, number))",
        "INSERT INTO rooms VALUES (1, 1), (1, 2)",
        "house int, number int",
        "(house, number) REFERENCES rooms",
        ["1, 1", "1, 3", "2, 1", "1, NULL", "NULL, 3", "NULL, NULL"],
    ),
    "full": (
        "CREATE TABLE rooms (house int, number int, PRIMARY KEY (house, number))",
        "INSERT INTO rooms VALUES (1, 1), (1, 2)",
        "house int, number int",
        "(house, number) REFERENCES rooms MATCH FULL",
        ["1, 1", "1, 3", "2, 1", "1, NULL", "NULL, 3", "NULL, NULL"],
    ),
    "periods": (
        (
            "CREATE EXTENSION btree_gist;"
            "CREATE TABLE rooms (house int, during int4range, PRIMARY KEY (house, during WITHOUT OVERLAPS))"
        ),
        "INSERT INTO rooms VALUES (1, '[1,5)'), (1, '[5,9)'), (1, '[10,20)'), (2, '[1,100)')",
        "house int, during int4range",
        "(house, PERIOD during) REFERENCES rooms",
        ["1, '[2,7)'", "1, '[8,12)'", "1, '[10,20)'", "1, '[10,21)'", "2, '[2,7)'", "3, '[2,7)'", "NULL, '[2,7)'"],
    ),
}


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "periods" or installed_major() >= 18])
def test_a_row_fits_where_the_server_says_that_it_does(linked: Any, kind: str) -> None:
    parent, parents, columns, key, values = KEYS[kind]
    production = linked.production
    production.sql("linked", parent, parents, f"CREATE TABLE stays ({columns}, FOREIGN KEY {key})")
    refused = []
    for row in values:
        try:
            production.sql("linked", f"INSERT INTO stays VALUES ({row})")
        except psycopg2.errors.ForeignKeyViolation:
            refused.append(row)
    assert 0 < len(refused) < len(values)
    production.sql("linked", "TRUNCATE stays")
    connection = production.connect("linked")
    oid = production.sql("linked", "SELECT 'stays'::regclass::oid::int8")
    with connection, connection.cursor() as cursor:
        (found,) = outgoing_keys(connection, [oid])
        cursor.execute("SET session_replication_role = replica")
        for row in values:
            cursor.execute(f"INSERT INTO stays VALUES ({row})")
            cursor.execute(f"SELECT count(*) FROM {source_of(found)} f WHERE {orphans(found)}")
            assert cursor.fetchone() == (int(row in refused),), row
            cursor.execute("DELETE FROM stays")
    connection.close()


@pytest.mark.skipif(installed_major() < 18, reason="keys with periods are of PostgreSQL 18")
def test_a_stay_for_which_the_room_is_there_only_in_part_does_not_fit(linked: Any) -> None:
    parent, parents, columns, key, _values = KEYS["periods"]
    production = linked.production
    production.sql(
        "linked",
        parent,
        parents,
        f"CREATE TABLE stays (id int PRIMARY KEY, {columns}, FOREIGN KEY {key})",
        "INSERT INTO stays VALUES (1, 1, '[2,7)'), (2, 1, '[11,12)')",
    )
    owner = production.sql("linked", "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'customers'::regclass")
    production.sql("linked", *(f"ALTER TABLE {table} OWNER TO {owner}" for table in ("rooms", "stays")))
    linked.take_side()
    production.sql("linked", "DELETE FROM stays", "DELETE FROM rooms WHERE during = '[5,9)'")
    answer = linked.recover("linked", relations=["stays"], load="merge")
    assert lost(answer) == [("public.stays", 1)]
    assert production.sql("linked", "SELECT id FROM stays") == 2
