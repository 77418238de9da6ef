"""What the damage made in the place of what was there: rows with other keys, tables and columns of the same names."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)


def damage(shop: Any, *statements: str) -> int:
    """Statements in one transaction, and its number."""
    return int(shop.production.sql("shop", "; ".join([*statements, "SELECT pg_current_xact_id()::text"])))


def entries(answer: dict[str, Any], kind: str = "") -> list[dict[str, Any]]:
    return [entry for entry in answer["result"]["left_to_do"] if entry["lost"] and kind in entry["type"]]


def test_rows_that_the_damage_gave_other_keys_are_not_called_recovered_while_they_are_there_twice(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE seats (id int, room int, PRIMARY KEY (id, room)) PARTITION BY LIST (room)",
        "CREATE TABLE seats_1 PARTITION OF seats FOR VALUES IN (1)",
        "CREATE TABLE seats_2 PARTITION OF seats FOR VALUES IN (2)",
        "INSERT INTO seats SELECT g, 1 + g % 2 FROM generate_series(1, 1000) g",
        "CREATE TABLE clients AS SELECT * FROM customers; ALTER TABLE clients ADD PRIMARY KEY (id)",
    )
    shop.take_side()
    contents = production.contents("shop")
    xid = damage(shop, "UPDATE seats SET room = 2", "UPDATE clients SET id = id + 1000 WHERE id > 90")
    # Whoever has written a row since wants it.
    production.sql("shop", "UPDATE clients SET name = 'another' WHERE id = 1100", "INSERT INTO seats VALUES (9999, 2)")

    answer = shop.recover("shop", relations=["seats, clients"], load="merge", xids=[xid])

    found = entries(answer, "removal")
    assert {(entry["object"], entry["rows"]) for entry in found} == {("public.seats", 500), ("public.clients", 9)}
    production.sql("shop", *(entry["command"] for entry in found))
    production.sql("shop", "DELETE FROM seats WHERE id = 9999", "DELETE FROM clients WHERE id = 1100")
    after = production.contents("shop")
    assert {name: after[name] for name in contents} == contents
    assert production.sql("shop", "SELECT count(*) FROM recovered_test.seats_taken") == 500


def test_a_table_and_a_column_made_anew_tell_what_they_lack_beside_rows(shop: Any) -> None:
    production = shop.production
    made = "CREATE TABLE notes (id int PRIMARY KEY, t text)"
    production.sql(
        "shop",
        made,
        "INSERT INTO notes SELECT g, 'note' FROM generate_series(1, 10) g",
        "GRANT SELECT, UPDATE (t) ON notes TO dbre_reader",
        "COMMENT ON TABLE notes IS 'what was said'",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE notes FORCE ROW LEVEL SECURITY",
        "ALTER TABLE notes REPLICA IDENTITY FULL",
        "COMMENT ON COLUMN lines.t IS 'free text'",
    )
    shop.take_side()
    definition = production.definition("shop")
    xid = damage(shop, "DROP TABLE notes", made, "ALTER TABLE lines DROP t", "ALTER TABLE lines ADD t text")

    answer = shop.recover("shop", relations=["notes, lines"], load="merge", xids=[xid])

    found = entries(answer)
    assert {(entry["type"], entry["object"], entry["rows"]) for entry in found} == {
        ("comment", "public.notes", None),
        ("comments", "public.lines", None),
        ("force row security", "public.notes", None),
        ("grants", "public.notes", None),
        ("replica identity", "public.notes", None),
        ("row security", "public.notes", None),
        # Its values: no row was written when the column went.
        ("rows", "public.lines", 2000),
    }
    # What is as it was is not spoken of.
    assert not [entry for entry in answer["result"]["left_to_do"] if "pkey" in entry["object"]]
    production.sql("shop", *(entry["command"] for entry in found if entry["command"]))
    production.sql("shop", "COMMENT ON COLUMN lines.t IS 'free text'")
    production.sql("shop", *(item["command"] for item in shop.remove("shop")["kept"]))
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.sql("shop", "SELECT count(*) FROM lines WHERE t IS NULL") == 0


def test_children_and_partitions_are_tied_to_their_parents_as_they_were(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TABLE base (id int PRIMARY KEY)",
        "CREATE TABLE child (v text) INHERITS (base)",
        # The partitions come before their parents in the order of names, too.
        *(
            statement.format(t=table, a=first)
            for table, first in (("visits", "a_visits"), ("calls", "calls_a"))
            for statement in (
                "CREATE TABLE {t} (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
                "CREATE TABLE {a} PARTITION OF {t} FOR VALUES FROM (1) TO (10) PARTITION BY RANGE (id)",
                "CREATE TABLE {a}_1 PARTITION OF {a} FOR VALUES FROM (1) TO (1000)",
                "CREATE TABLE {t}_rest PARTITION OF {t} DEFAULT",
                "INSERT INTO {t} SELECT g, g FROM generate_series(1, 20) g",
                "CREATE TRIGGER noted AFTER UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION noted()",
                "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON {t} DEFERRABLE FOR EACH ROW EXECUTE FUNCTION noted()",
                "ALTER TABLE {a} DISABLE TRIGGER noted",
                "ALTER TABLE ONLY {a} ENABLE REPLICA TRIGGER noted",
                "ALTER TABLE {a}_1 ENABLE ALWAYS TRIGGER later",
                "COMMENT ON TRIGGER noted ON {a}_1 IS 'not now'",
            )
        ),
    )
    shop.take_side()
    definition = production.definition("shop")
    damage(
        shop,
        "ALTER TABLE child NO INHERIT base",
        "DROP TABLE base",
        "ALTER TABLE visits DETACH PARTITION a_visits",
        "DROP TABLE a_visits",
        "DROP TABLE calls",
    )

    answer = shop.recover("shop", relations=["base, a_visits, calls"])

    assert answer["result"]["difference"] == []
    (link,) = entries(answer)
    assert (link["type"], link["object"]) == ("inheritance", "public.base on public.child")
    shop.remove("shop")
    production.sql("shop", link["command"])

    def triggers(text: str) -> list[str]:
        return [line for line in text.splitlines() if "TRIGGER" in line]

    assert triggers(production.definition("shop")) == triggers(definition)
    assert production.sql("shop", "SELECT count(*) FROM pg_inherits WHERE inhrelid = 'child'::regclass") == 1


def test_a_column_whose_collation_went_with_it_comes_back_with_its_values(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE SCHEMA words",
        "CREATE COLLATION words.bytewise (LOCALE = 'C')",
        "CREATE TABLE names (id int PRIMARY KEY, name text COLLATE words.bytewise UNIQUE)",
        "INSERT INTO names SELECT g, 'name ' || g FROM generate_series(1, 100) g",
    )
    shop.take_side()
    contents, definition = production.contents("shop"), production.definition("shop")
    xid = damage(shop, "DROP SCHEMA words CASCADE")

    answer = shop.recover("shop", schemas=["words"], relations=["names"], xids=[xid])

    assert answer["result"]["difference"] == []
    assert entries(answer) == []
    shop.remove("shop")
    assert production.contents("shop") == contents
    assert production.definition("shop") == definition
