"""Tables that production still has, with rows lost, changed or new."""

from __future__ import annotations

import time
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import patiently
from ansible_collections.dbre.recovery.plugins.module_utils._tables.put_back import UNIQUE_VIOLATION

DAMAGE = [
    "DELETE FROM lines WHERE id > 1500",
    "UPDATE lines SET t = 'changed' WHERE id <= 3",
    "INSERT INTO lines (id, order_id, t) VALUES (900001, 1, 'new')",
    "ALTER TABLE lines ENABLE TRIGGER refuse",
]


def test_beside_leaves_production_alone(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", *DAMAGE)
    damaged = production.contents("shop")
    blocker = production.connect("shop")
    with blocker.cursor() as cursor:
        # As a writer that never ends: a copy beside must not wait for it.
        cursor.execute("BEGIN; LOCK TABLE lines IN SHARE ROW EXCLUSIVE MODE")
        answer = shop.recover("shop", relations=["lines"])
        cursor.execute("ROLLBACK")
    blocker.close()

    after = production.contents("shop")
    assert after.pop("recovered_test.lines") == contents["lines"]
    after.pop("recovered_test.dbre_recovery_journal")
    assert after == damaged
    assert answer["result"]["relations"][0]["rows"] == 2000
    kept = shop.remove("shop")["kept"]
    assert [item["object"] for item in kept] == ["recovered_test.lines"]
    assert "recovered_test.lines" in production.contents("shop")
    production.sql("shop", kept[0]["command"])
    assert "recovered_test" in shop.remove("shop")["removed"]
    assert production.contents("shop") == damaged


def test_the_commands_printed_beside_a_copy_put_it_to_use(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql(
        "shop",
        "CREATE TRIGGER note AFTER DELETE OR INSERT ON orders EXECUTE FUNCTION refuse()",
        "ALTER TABLE orders ENABLE ALWAYS TRIGGER note",
        "UPDATE orders SET total = 0 WHERE id <= 7",
        "ALTER TABLE orders DISABLE TRIGGER note",
        "DELETE FROM orders WHERE id > 149990",
        "ALTER TABLE orders ENABLE ALWAYS TRIGGER note",
        "TRUNCATE keyless",
    )
    damaged = production.contents("shop")
    left = shop.recover("shop", relations=["orders, keyless"])["result"]["left_to_do"]

    assert [(entry["object"], entry["lost"], entry["rows"]) for entry in left] == [
        ("public.keyless", True, None),
        ("public.keyless", False, None),
        ("public.orders", True, 10),
        ("public.orders", False, None),
        ("public.orders", False, None),
    ]
    exchange_keyless, back_keyless, merge, exchange, back = (entry["command"] for entry in left)
    assert "production lacks 10 of them and has 7 with other values" in left[2]["reason"]

    def rows_of(name: str) -> Any:
        return production.contents("shop")[name]

    production.sql("shop", exchange, exchange_keyless)
    assert (rows_of("orders"), rows_of("keyless")) == (contents["orders"], contents["keyless"])
    production.sql("shop", back, back_keyless)
    assert (rows_of("orders"), rows_of("keyless")) == (damaged["orders"], damaged["keyless"])
    production.sql("shop", merge, "ALTER TABLE orders DISABLE TRIGGER note")
    assert production.sql("shop", "SELECT count(*) FROM orders") == 150000
    assert production.sql("shop", "SELECT count(*) FROM orders WHERE total = 0") == 7
    # A parent that lines need, and the copy lacks.
    production.sql(
        "shop", "INSERT INTO orders (id, customer) VALUES (900001, 1)", "INSERT INTO lines (order_id) VALUES (900001)"
    )
    with pytest.raises(psycopg2.Error, match="foreign key lines_order_id_fkey on public.lines would break"):
        production.sql("shop", exchange)
    production.sql("shop", *(item["command"] for item in shop.remove("shop")["kept"]))
    assert "recovered_test" in shop.remove("shop")["removed"]


def test_what_an_unlogged_table_held_is_lost_and_what_it_holds_stays(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)", "INSERT INTO cache VALUES (1), (2)")
    production.sql("shop", "CREATE UNLOGGED TABLE queue (id int PRIMARY KEY)", "INSERT INTO queue VALUES (1)")
    production.sql("shop", *(f"ALTER TABLE {name} OWNER TO dbre_owner" for name in ("cache", "queue")))
    production.sql("shop", "VACUUM ANALYZE cache")
    shop.take_side()
    production.sql("shop", "DROP TABLE cache", "INSERT INTO queue VALUES (7)")
    answer = shop.recover("shop", relations=["cache, queue"], load="replace")
    left = {entry["object"]: entry for entry in answer["result"]["left_to_do"]}
    assert (left["public.cache"]["lost"], left["public.cache"]["rows"]) == (True, 2)
    assert (left["public.queue"]["lost"], left["public.queue"]["rows"]) == (True, None)
    assert "0 rows came back. There were about 2" in left["public.cache"]["reason"]
    assert production.sql("shop", "SELECT count(*) FROM queue") == 2


def test_merge_puts_missing_rows_back_and_lists_the_others(shop: Any) -> None:
    production = shop.production
    production.sql("shop", *DAMAGE, "DELETE FROM customers WHERE id = -1")
    # A parent that is gone, and another row with the same unique code, keep two rows from going back.
    production.sql(
        "shop",
        "ALTER TABLE lines DROP CONSTRAINT lines_order_id_fkey",
        "DELETE FROM orders WHERE id = 1999",
        "ALTER TABLE lines ADD CONSTRAINT lines_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders",
    )
    # Of the rows that the incident changed, the application has written one since.
    incident = production.sql("shop", "SELECT xmin::text::int FROM lines WHERE id = 1")
    production.sql("shop", "UPDATE lines SET t = 'later' WHERE id = 3")
    answer = shop.recover("shop", relations=["lines"], load="merge", xids=[incident])

    merged = answer["result"]["merged"]["public.lines"]
    assert merged["inserted"] == 499
    assert merged["differing"] == 3
    assert merged["damaged"] == 2
    lost = {entry["rows"] for entry in answer["result"]["left_to_do"] if entry["lost"] and "differ" in entry["reason"]}
    assert lost == {2}
    assert merged["not_fitting"] == 1
    assert merged["newer_in_production"] == 1
    assert merged["sample"][0] == ["1"]
    assert production.sql("shop", "SELECT count(*) FROM lines") == 2000
    assert production.sql("shop", "SELECT t FROM lines WHERE id = 1") == "changed"
    listed = "SELECT string_agg(id::text, ',' ORDER BY id) FROM recovered_test."
    assert production.sql("shop", f"{listed}lines_differs") == "1,2,3"
    assert production.sql("shop", f"{listed}lines_not_fitting") == "1999"
    assert production.sql("shop", "SELECT nextval('lines_id_seq')") == 2001


def test_the_commands_of_a_merge_fire_no_trigger_and_know_the_types_of_users(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE DOMAIN cents AS int CHECK (VALUE >= 0)",
        "ALTER DOMAIN cents OWNER TO dbre_owner",
        "CREATE TYPE price AS (amount cents, word text)",
        "CREATE TABLE priced (id int PRIMARY KEY, price price, code text UNIQUE)",
        "INSERT INTO priced SELECT g, ROW(g, 'euro')::price, NULLIF('c' || g, 'c5') FROM generate_series(1, 20) g",
        "CREATE TABLE noted (what text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.noted VALUES (TG_OP); RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON priced FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER note_always AFTER INSERT OR UPDATE OR DELETE ON priced FOR EACH ROW EXECUTE FUNCTION note()",
        "ALTER TABLE priced ENABLE ALWAYS TRIGGER note_always",
        "ALTER TABLE priced OWNER TO dbre_owner",
        "ALTER TABLE noted OWNER TO dbre_owner",
    )
    shop.take_side()
    rows = "SELECT string_agg(p::text, ' ' ORDER BY id) FROM priced p"
    before = production.sql("shop", rows)
    production.sql(
        "shop",
        "DO $$ BEGIN UPDATE priced SET price = ROW(0, 'x')::price WHERE id <= 3; DELETE FROM priced WHERE id = 4; "
        "UPDATE priced SET id = 205 WHERE id = 5; END $$",
    )
    incident = production.sql("shop", "SELECT xmin::text::int FROM priced WHERE id = 1")
    production.sql("shop", "INSERT INTO priced VALUES (100, NULL, 'c4')")
    answer = shop.recover("shop", relations=["priced"], load="merge", xids=[incident])

    production.sql("shop", "DELETE FROM priced WHERE id = 100", "TRUNCATE noted")
    left = answer["result"]["left_to_do"]
    assert [entry["rows"] for entry in left] == [1, 3, 1]
    assert all("what others wrote for this table" in entry["reason"] for entry in left)
    for entry in left:
        production.sql("shop", entry["command"])
    assert production.sql("shop", rows) == before
    assert production.sql("shop", "SELECT count(*) FROM noted") == 0
    always = "SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'priced'::regclass"
    assert production.sql("shop", always) == "OA"


def test_of_a_large_table_that_lost_few_rows_few_travel(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")["orders"]
    production.sql(
        "shop",
        "DELETE FROM orders WHERE id IN (3000, 44444, 44445, 149000) OR id BETWEEN 90001 AND 90006",
        "UPDATE orders SET total = 0 WHERE id = 70000",
        "INSERT INTO orders (id, customer) VALUES (900001, 1), (-5, 1)",
    )
    merged = shop.recover("shop", relations=["orders"], load="merge")["result"]["merged"]["public.orders"]

    assert (merged["inserted"], merged["differing"], merged["newer_in_production"]) == (10, 1, 2)
    assert 10 < merged["copied"] < 1500
    kept = "SELECT total FROM recovered_test.orders_differs WHERE id = 70000"
    production.sql(
        "shop", f"UPDATE orders SET total = ({kept}) WHERE id = 70000", "DELETE FROM orders WHERE id IN (900001, -5)"
    )
    assert production.contents("shop")["orders"] == contents


def test_a_few_rows_lost_here_and_there_in_large_tables_are_back_whatever_their_keys_are(shop: Any) -> None:
    production = shop.production
    keys = {
        "many_small": "(g - 10000)::smallint",
        "many_numbered": "g::counted",
        "many_timed": "timestamptz '2024-03-31 00:30+00' + g * interval '7 minutes'",
        "many_dated": "date '0001-01-01 BC' + g * 30",
        "many_uuid": "md5(g::text)::uuid",
    }
    production.sql("shop", "CREATE DOMAIN counted AS int")
    for name, key in keys.items():
        production.sql(
            "shop",
            f"CREATE TABLE {name} AS SELECT {key} AS k, g, repeat('x', g % 50) AS t FROM generate_series(1, 20000) g",
            f"ALTER TABLE {name} ADD PRIMARY KEY (k)",
            f"ALTER TABLE {name} OWNER TO dbre_owner",
        )
    contents = production.contents("shop")
    shop.take_side()
    for name in keys:
        last = f"(SELECT k FROM {name} ORDER BY k DESC LIMIT 1)"
        production.sql(
            "shop",
            f"DELETE FROM {name} WHERE g % 4000 = 7 OR g BETWEEN 9000 AND 9100 OR k = {last}",
            f"UPDATE {name} SET t = 'changed' WHERE g IN (77, 12345)",
        )
    answer = shop.recover("shop", relations=list(keys), load="merge")

    assert "error" not in answer, answer["error"]
    for name in keys:
        merged = answer["result"]["merged"][f"public.{name}"]
        assert (merged["inserted"], merged["differing"], merged["not_fitting"]) == (107, 2, 0)
        production.sql("shop", f"UPDATE {name} SET t = repeat('x', g % 50) WHERE t = 'changed'")
        assert production.contents("shop")[name] == contents[name]


def test_merge_into_a_table_whose_keys_are_looked_at_late_leaves_no_row_twice(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE seats (id int PRIMARY KEY DEFERRABLE, place int, room text, span int4range)"
        " PARTITION BY RANGE (id)",
        # Keys of one partition are no affair of the other's rows.
        "CREATE TABLE seats_1 PARTITION OF seats FOR VALUES FROM (1) TO (500)",
        "ALTER TABLE seats_1 ADD CONSTRAINT seats_place UNIQUE (place) DEFERRABLE INITIALLY DEFERRED,"
        " ADD CONSTRAINT seats_span EXCLUDE USING gist (span WITH &&) DEFERRABLE",
        "CREATE TABLE seats_2 PARTITION OF seats FOR VALUES FROM (500) TO (1000)",
        "CREATE UNIQUE INDEX seats_room ON seats_1 (lower(room)) WHERE room IS NOT NULL",
        "INSERT INTO seats SELECT g, g, 'R' || g, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 100) g",
        *(f"ALTER TABLE {name} OWNER TO dbre_owner" for name in ("seats", "seats_1", "seats_2")),
    )
    shop.take_side()
    # Each of the first four takes what a row had that is gone; 14 was made again.
    production.sql(
        "shop",
        "DELETE FROM seats WHERE id BETWEEN 11 AND 60",
        "UPDATE seats SET place = 11 WHERE id = 1",
        "UPDATE seats SET room = 'r12' WHERE id = 2",
        "UPDATE seats SET span = '[134,135)' WHERE id = 3",
        "INSERT INTO seats VALUES (14, 1400), (600, 17)",
    )
    writer = production.connect("shop")
    with writer.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO seats VALUES (400, 15), (16, 1600)")
        driver = shop.start_recovery("shop", relations=["seats"], load="merge")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'"
        deadline = time.monotonic() + 30
        while driver.poll() is None and not production.sql("shop", waiting) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert driver.poll() is None, "nobody saw that a row was not committed yet"
        cursor.execute("COMMIT")
    writer.close()

    answer = shop.finish(driver)
    assert "error" not in answer, answer["error"]
    merged = answer["result"]["merged"]["public.seats"]
    assert merged["not_fitting"] == 4
    listed = "SELECT string_agg(id::text, ',' ORDER BY id) FROM"
    assert production.sql("shop", f"{listed} recovered_test.seats_not_fitting") == "11,12,13,15"
    named = {reason.partition(":")[0] for reason in merged["reasons"]}
    assert named == {"unique index seats_place", "unique index seats_room", "exclusion constraint seats_span"}
    once = "SELECT count(*) = count(DISTINCT id) AND count(*) = count(DISTINCT place) + 1 FROM seats"
    assert production.sql("shop", once)
    assert production.sql("shop", "SELECT count(*) FROM seats") == 98
    assert production.sql("shop", "SELECT place FROM seats WHERE id = 14") == 1400
    # The printed command passes over what still does not fit, and takes what does.
    production.sql("shop", "UPDATE seats SET place = 9999 WHERE id = 400")
    for entry in answer["result"]["left_to_do"]:
        if entry["lost"]:
            production.sql("shop", entry["command"])
    assert production.sql("shop", f"{listed} seats WHERE id IN (11, 12, 13, 15)") == "15"


def test_a_conflict_with_an_index_that_is_being_built_is_tried_again(shop: Any) -> None:
    connection = shop.production.connect("shop")
    connection.autocommit = False
    attempts = []

    def work() -> None:
        attempts.append(1)
        with connection.cursor() as cursor:
            # What the manual warns of: a violation that the next attempt does not meet.
            cursor.execute("INSERT INTO orders (id, customer) VALUES (%s, 1)", (1 if len(attempts) == 1 else 900002,))

    patiently(connection, work, passing=(UNIQUE_VIOLATION,))
    assert len(attempts) == 2
    attempts.clear()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        patiently(connection, work)
    connection.close()


def test_merge_after_truncate_brings_the_sequence_forward(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", "TRUNCATE lines RESTART IDENTITY")
    shop.recover("shop", relations=["lines"], load="merge")
    assert production.sql("shop", "SELECT nextval('lines_id_seq')") == 2001
    shop.remove("shop")
    assert production.contents("shop") == contents


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_sequences_that_number_rows_of_several_tables_are_brought_forward(shop: Any, load: str) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE tree (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY) PARTITION BY HASH (id)",
        "CREATE TABLE branch PARTITION OF tree FOR VALUES WITH (MODULUS 1, REMAINDER 0) PARTITION BY HASH (id)",
        "CREATE TABLE leaf PARTITION OF branch FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "CREATE TABLE first (id serial PRIMARY KEY)",
        "CREATE TABLE second (id int PRIMARY KEY DEFAULT nextval('first_id_seq'))",
        "INSERT INTO tree SELECT FROM generate_series(1, 70)",
        "INSERT INTO second SELECT FROM generate_series(1, 50)",
        *(f"ALTER TABLE {name} OWNER TO dbre_owner" for name in ("tree", "branch", "leaf", "first", "second")),
    )
    shop.take_side()
    production.sql("shop", "TRUNCATE tree, first, second RESTART IDENTITY")
    # WAL names the tables that have files: of a tree its leaves.
    shop.recover("shop", relations=["leaf", "second"], load=load)
    assert production.sql("shop", "SELECT nextval('tree_id_seq')") == 71
    assert production.sql("shop", "SELECT nextval('first_id_seq')") == 51


@pytest.mark.parametrize("load", ["beside", "merge", "replace"])
def test_what_hung_on_a_table_and_went_with_its_rows_is_told_with_what_makes_it_again(shop: Any, load: str) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE INDEX lines_of_order ON lines (order_id)",
        "ALTER TABLE lines ADD CONSTRAINT lines_once UNIQUE (id, order_id), ADD CONSTRAINT lines_some CHECK (id > 0)",
        "CREATE TRIGGER note AFTER INSERT ON lines FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        "ALTER TABLE lines DISABLE TRIGGER note",
        "CREATE STATISTICS of_lines ON id, order_id FROM lines",
        "ALTER TABLE lines ALTER COLUMN t SET DEFAULT 'it''s'",
        "CREATE VIEW late_lines AS SELECT id FROM lines WHERE id > 1000",
    )
    shop.take_side()
    production.sql(
        "shop",
        "BEGIN; DELETE FROM lines WHERE id > 1500; DROP INDEX lines_of_order; DROP VIEW late_lines; "
        "DROP TRIGGER note ON lines; DROP STATISTICS of_lines; ALTER TABLE lines ALTER t DROP DEFAULT, "
        "DROP CONSTRAINT lines_once, DROP CONSTRAINT lines_some; COMMIT",
    )
    answer = shop.recover("shop", relations=["lines"], load=load)
    told = {item["object"]: item for item in answer["result"]["left_to_do"] if item["lost"] and item["type"] != "table"}
    assert sorted(told) == [
        "for public.lines.t",
        "lines_once on public.lines",
        "lines_some on public.lines",
        "note on public.lines",
        "public.late_lines",
        "public.lines_of_order",
        "public.of_lines",
    ]
    assert told["public.late_lines"]["needs_side_instance"]
    assert told["public.lines_of_order"]["command"].startswith(
        "CREATE INDEX CONCURRENTLY lines_of_order ON public.lines "
    )
    # Whoever adds a check runs its functions.
    assert told["lines_some on public.lines"]["command"].startswith("SET ROLE ")
    production.sql("shop", *(item["command"] for item in told.values() if item["command"]))
    assert production.sql("shop", "SELECT count(*) FROM pg_index WHERE indrelid = 'lines'::regclass") == 3
    assert production.sql("shop", "SELECT count(*) FROM pg_trigger WHERE tgname = 'note'") == 1


def test_merge_without_a_primary_key_is_refused(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "DELETE FROM keyless")
    message = shop.refused("shop", relations=["keyless"], load="merge")
    assert "no primary key" in message
    assert "dr_load=beside" in message
    assert production.sql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'recovered'") == 0


def test_replace_exchanges_the_rows_and_keeps_the_old_ones(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    oid = production.sql("shop", "SELECT 'lines'::regclass::oid::int8")
    production.sql("shop", *DAMAGE)
    damaged = production.contents("shop")["lines"]
    production.sql("shop", "SELECT setval('lines_id_seq', 5000)")
    answer = shop.recover("shop", relations=["lines"], load="replace")

    assert answer["result"]["relations"][0]["replaced"] == {"rows": 1501, "table": "recovered_test.lines_replaced"}
    after = production.contents("shop")
    assert after["lines"] == contents["lines"]
    assert after["recovered_test.lines_replaced"] == damaged
    assert production.sql("shop", "SELECT 'lines'::regclass::oid::int8") == oid
    assert production.sql("shop", "SELECT nextval('lines_id_seq')") == 5001
    assert shop.recover("shop", relations=["lines"], load="replace")["result"]["changed"] is False


def test_a_report_that_runs_while_rows_are_exchanged_sees_them_as_they_were_and_waits_for_nothing(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "UPDATE lines SET t = 'damaged'")
    report = production.connect("shop")
    report.autocommit = False
    with report.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM orders")  # its snapshot is from here on, and lines is not locked
        shop.recover("shop", relations=["lines"], load="replace")
        cursor.execute("SELECT count(*), count(*) FILTER (WHERE t = 'damaged') FROM lines")
        rows, damaged = cursor.fetchone()
    report.close()
    assert rows == damaged > 0
    assert production.sql("shop", "SELECT count(*) FROM lines WHERE t = 'damaged'") == 0


def test_replace_of_a_referenced_table(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", "UPDATE orders SET total = 0")
    shop.recover("shop", relations=["orders"], load="replace")
    assert production.contents("shop")["orders"] == contents["orders"]


def test_replace_that_would_break_a_foreign_key_is_refused(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "INSERT INTO orders (id, customer) VALUES (900001, 1)")
    production.sql("shop", "INSERT INTO lines (order_id) VALUES (900001)")
    damaged = production.contents("shop")
    message = shop.refused("shop", relations=["orders"], load="replace")
    assert "lines_order_id_fkey" in message
    assert "900001" in message
    shop.remove("shop")
    assert production.contents("shop") == damaged


def test_replace_of_a_table_with_other_columns_is_refused(shop: Any) -> None:
    shop.production.sql("shop", "ALTER TABLE lines ALTER COLUMN t TYPE varchar")
    message = shop.refused("shop", relations=["lines"], load="replace")
    assert "columns of public.lines" in message
    assert "dr_load=beside" in message


def test_a_table_made_anew_stays_and_what_hung_on_the_old_one_is_listed(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "DROP TABLE orders CASCADE", "CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (7)")
    answer = shop.recover("shop", relations=["orders"])
    relation = answer["plan"]["relations"][0]
    assert (relation["state"], relation["action"]) == ("recreated", "beside")
    left = [entry["object"] for entry in answer["result"]["left_to_do"]]
    assert "lines_order_id_fkey on public.lines" in left
    assert production.sql("shop", "SELECT id FROM orders") == 7
    assert production.sql("shop", "SELECT count(*) FROM recovered_test.orders") == 150000
