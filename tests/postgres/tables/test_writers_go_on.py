"""How long those who work with production wait while a recovery changes tables that they use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.concurrent_index import build_index
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import Build
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import parse_toc

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

# Seconds; and of all that the recovery's load takes, which tells how busy the machine is, the part that may be waited.
LONGEST = 1.0
PART = 0.25
ROWS = 400000


class Work(threading.Thread):
    """A session of the application: does one small thing after another, and remembers which took longest."""

    def __init__(self, production: Any, work: Callable[[Any, int], None]) -> None:
        super().__init__()
        self._connection = production.connect("shop")
        self._work = work
        self._ends = threading.Event()
        self.longest = 0.0
        self.done = 0

    def run(self) -> None:
        with self._connection.cursor() as cursor:
            while not self._ends.is_set():
                began = time.monotonic()
                self._work(cursor, self.done)
                self.longest = max(self.longest, time.monotonic() - began)
                self.done += 1
                time.sleep(0.002)
        self._connection.close()

    def end(self) -> None:
        self._ends.set()
        self.join()


def write(cursor: Any, number: int) -> None:
    # One transaction.
    cursor.execute(
        "INSERT INTO parcels (id, customer, note) VALUES (%s, 1, 'new'); "
        "UPDATE parcels SET weight = weight + 1 WHERE id = 7",
        (1000000 + number,),
    )


def read(cursor: Any, number: int) -> None:
    cursor.execute("SELECT sum(weight) FROM parcels WHERE id < 100")


PARCELS = [
    "CREATE TABLE parcels (id int PRIMARY KEY, customer int REFERENCES customers, note text, weight int, sent date)",
    f"INSERT INTO parcels SELECT g, 1 + g % 100, 'parcel ' || g, 0, 'today' FROM generate_series(1, {ROWS}) g",
    "CREATE INDEX parcels_customer ON parcels (customer)",
    "CREATE INDEX parcels_sent ON parcels (sent, note)",
    "CREATE TABLE labels (id int PRIMARY KEY, parcel int REFERENCES parcels)",
    f"INSERT INTO labels SELECT g, g FROM generate_series(1, {ROWS // 4}) g",
    "CREATE INDEX labels_parcel ON labels (parcel)",
    "ANALYZE parcels",
]


def test_writers_go_on_while_rows_are_exchanged(shop: Any) -> None:
    production = shop.production
    production.sql("shop", *PARCELS, "INSERT INTO keyless SELECT v FROM keyless UNION ALL SELECT NULL")
    shop.take_side()
    before = production.contents("shop")
    production.sql(
        "shop",
        "UPDATE parcels SET note = 'damaged' WHERE id % 200 = 0",
        f"DELETE FROM parcels WHERE id > {ROWS - 1000}",
        "INSERT INTO parcels SELECT g, 1 FROM generate_series(900001, 900500) g",
        # Rows that are not told apart by a key; and values that two rows cannot get back one after the other.
        "DELETE FROM keyless WHERE v = 3",
        "INSERT INTO keyless VALUES (5), (11), (NULL)",
        *(
            f"UPDATE orders SET code = '{code}' WHERE id = {key}"
            for key, code in ((1, "x"), (2, "code 1"), (1, "code 2"))
        ),
    )
    damaged = production.contents("shop")
    writer, reader = Work(production, write), Work(production, read)
    for session in (writer, reader):
        session.start()
    answer = shop.recover("shop", relations=["parcels, keyless, orders"], load="replace")
    for session in (writer, reader):
        session.end()
    # On a slow server, and if all rows were others.
    waits = [(item["object"], item["whom"], item["most_seconds"] > ROWS / 20000) for item in answer["plan"]["waits"]]
    assert ("public.parcels", "writers", True) in waits
    kept = "recovered_test.parcels_replaced"
    # What was written until then is in what was put aside, and what came later is in the table; nothing is lost.
    written = "SELECT count(*) FROM (SELECT id FROM {} WHERE id >= 1000000) AS w"
    counts = [production.sql("shop", written.format(name)) for name in (kept, "parcels")]
    assert sum(counts) == writer.done > counts[0] > 0
    assert [production.sql("shop", f"SELECT weight FROM {name} WHERE id = 7") for name in (kept, "parcels")] == counts
    replaced = {item["name"]: item["replaced"]["rows"] for item in answer["result"]["relations"]}
    assert replaced == {"parcels": ROWS - 500 + counts[0], "keyless": 22, "orders": 150000}
    assert production.sql("shop", f"SELECT count(*) FROM {kept}") == replaced["parcels"]
    assert production.sql("shop", f"SELECT count(*) FROM {kept} WHERE note = 'damaged'") == ROWS / 200 - 5
    production.sql("shop", "DELETE FROM parcels WHERE id >= 1000000", "UPDATE parcels SET weight = 0 WHERE id = 7")
    after = production.contents("shop")
    assert {name: after[name] for name in before} == before
    assert [after[f"recovered_test.{name}_replaced"] for name in ("keyless", "orders")] == [
        damaged[name] for name in ("keyless", "orders")
    ]
    assert max(writer.longest, reader.longest) < max(LONGEST, PART * answer["result"]["seconds"]["load"])


def test_readers_go_on_while_the_rows_of_a_check_are_looked_at(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE SCHEMA rules",
        # Slow enough to be noticed.
        "CREATE FUNCTION rules.fits(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS "
        "$$ BEGIN RETURN v > 0 AND md5(repeat(v::text, 2000)) IS NOT NULL; END $$",
        "CREATE TABLE parcels (id int PRIMARY KEY, customer int, note text, weight int DEFAULT 1)",
        "INSERT INTO parcels SELECT g, 1, 'x', g FROM generate_series(1, 100000) g",
        *(f"ALTER TABLE parcels ADD CONSTRAINT {name} CHECK (rules.fits({name}))" for name in ("weight", "id")),
    )
    shop.take_side()
    production.sql("shop", "DROP SCHEMA rules CASCADE", "UPDATE parcels SET weight = -weight WHERE id IN (3, 4)")
    writer, reader = Work(production, write), Work(production, read)
    for session in (writer, reader):
        session.start()
    result = shop.recover("shop", schemas=["rules"])["result"]
    for session in (writer, reader):
        session.end()
    assert [(entry["object"], entry["rows"]) for entry in result["left_to_do"]] == [("weight on public.parcels", 2)]
    valid = "SELECT string_agg(conname, ',') FROM pg_constraint WHERE contype = 'c' AND convalidated "
    assert production.sql("shop", f"{valid} AND conrelid = 'parcels'::regclass") == "id"
    with pytest.raises(psycopg2.errors.CheckViolation):
        production.sql("shop", "INSERT INTO parcels VALUES (0, 1)")
    production.sql("shop", "UPDATE parcels SET weight = 1 WHERE id < 5", result["left_to_do"][0]["command"])
    assert max(writer.longest, reader.longest) < max(LONGEST, PART * result["seconds"]["validate"])


def test_killed_after_the_rows_were_exchanged_it_still_keeps_those_of_before(shop: Any) -> None:
    production = shop.production
    before = production.contents("shop")
    production.sql("shop", "UPDATE orders SET total = 0 WHERE id % 10 = 0", "DELETE FROM orders WHERE id > 149000")
    damaged = production.contents("shop")["orders"]
    blocker = production.connect("shop")
    driver = shop.start_recovery("shop", relations=["orders"], load="replace")
    with blocker.cursor() as cursor:
        aside = None
        while aside is None and driver.poll() is None:
            cursor.execute("SELECT to_regclass('recovered_test.orders_aside')")
            (aside,) = cursor.fetchone()
        # Nothing but the last step reads it.
        cursor.execute("BEGIN; LOCK TABLE recovered_test.orders_aside IN ACCESS EXCLUSIVE MODE")
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'recovered_test.orders_aside'::regclass"
        )
        count = 0
        while not count and driver.poll() is None:
            cursor.execute(waiting)
            (count,) = cursor.fetchone()
        driver.kill()
        driver.communicate()
        cursor.execute("ROLLBACK")
    blocker.close()
    shop.recover("shop", relations=["orders"], load="replace")
    after = production.contents("shop")
    assert (after["orders"], after["recovered_test.orders_replaced"]) == (before["orders"], damaged)
    assert not [name for name in after if name.endswith(("_aside", "_since"))]


INDEXES = """
SELECT string_agg(c.relname || CASE WHEN i.indisvalid THEN '' ELSE ' (broken)' END, ' ' ORDER BY c.relname)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = 'parcels'::regclass
"""


def test_writers_go_on_while_an_index_of_a_table_that_was_not_lost_is_built(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        *PARCELS,
        "CREATE SCHEMA rules",
        "CREATE FUNCTION rules.spelt(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)'",
        "CREATE INDEX parcels_spelt ON parcels (rules.spelt(note), weight)",
        "ALTER INDEX parcels_spelt ALTER COLUMN 1 SET STATISTICS 500",
        "COMMENT ON INDEX parcels_spelt IS 'by its spelling'",
        "ALTER TABLE parcels CLUSTER ON parcels_spelt",
        "CREATE UNIQUE INDEX parcels_once ON parcels (rules.spelt(note))",
    )
    shop.take_side()
    definition = production.definition("shop")
    production.sql("shop", "DROP SCHEMA rules CASCADE")
    others = [Work(production, work) for work in (write, read)]
    for work in others:
        work.start()
    answer = shop.recover("shop", schemas=["rules"])
    for work in others:
        work.end()

    limit = max(LONGEST, PART * answer["result"]["seconds"]["validate"])
    assert [round(work.longest, 2) for work in others if work.longest > limit] == []
    assert not [wait for wait in answer["plan"]["waits"] if "index" in wait["why"]]
    # Rows with equal notes were written meanwhile.
    entry = next(item for item in answer["result"]["left_to_do"] if item["type"] == "index")
    assert entry["object"] == "public.parcels_once"
    assert "could not create unique index" in entry["reason"]
    assert "CREATE UNIQUE INDEX CONCURRENTLY parcels_once ON public.parcels" in entry["command"]
    assert production.sql("shop", INDEXES) == "parcels_customer parcels_pkey parcels_sent parcels_spelt"
    # As a run leaves one that was killed while it built it.
    production.sql("shop", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'parcels_spelt'::regclass")
    production.sql("shop", "DELETE FROM parcels WHERE note = 'new'", entry["command"])
    again = shop.recover("shop", schemas=["rules"], plan=answer["plan"])
    assert again["result"]["left_to_do"] == []
    assert production.sql("shop", INDEXES) == "parcels_customer parcels_once parcels_pkey parcels_sent parcels_spelt"
    shop.remove("shop")
    assert production.definition("shop") == definition


ENTRY = "3237; 1259 16426 INDEX public tags_code postgres"


def test_an_index_that_others_keep_from_being_built_and_dropped_is_left_to_do(shop: Any) -> None:
    production = shop.production
    production.sql("postgres", "CREATE DATABASE tags")
    production.sql("tags", "CREATE TABLE tags (code int)", "INSERT INTO tags VALUES (1)")
    definition = "CREATE UNIQUE INDEX tags_code ON public.tags USING btree (code)"
    build = Build(parse_toc(ENTRY)[0], "public.tags_code", "public.tags", False, definition, "", "", False, ())
    ours, reader = production.connect("tags"), production.connect("tags")
    with ours.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '3s'")
    ours.autocommit = False
    with reader.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '1min'")
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM tags")
        for _run in range(2):
            reason = build_index(ours, build, "100ms")
            assert reason is not None
            assert "run DROP INDEX CONCURRENTLY public.tags_code; before" in reason
        cursor.execute("COMMIT; BEGIN; INSERT INTO tags VALUES (2)")
        # The server finds that each waits for the other, and ends ours.
        found: list[Any] = []
        building = threading.Thread(target=lambda: found.append(build_index(ours, build, "1min")))
        building.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('virtualxid', 'transactionid')"
        count = 0
        while not count and building.is_alive():
            cursor.execute(waiting)
            (count,) = cursor.fetchone()
        cursor.execute("LOCK TABLE tags IN SHARE UPDATE EXCLUSIVE MODE; COMMIT")
        building.join()
        assert found == [None]
    valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = 'tags_code'::regclass"
    assert production.sql("tags", valid) is True
    for connection in (ours, reader):
        connection.close()


# Compressed it fits into an index, and takes a while to compare.
LONG = "repeat('x', 100000) || {}"


def test_writers_go_on_while_keys_of_a_table_that_was_not_lost_are_built(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE parcels (id int PRIMARY KEY, customer int, note text, weight int, shape text, lane int)",
        f"INSERT INTO parcels SELECT g, 1, 'x', 0, {LONG.format('g')}, g FROM generate_series(1, 2500) g",
        "ALTER TABLE parcels ADD CONSTRAINT parcels_lane UNIQUE (shape, lane)",
        "ALTER TABLE parcels ADD CONSTRAINT parcels_late UNIQUE (lane) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE parcels CLUSTER ON parcels_lane",
        "COMMENT ON CONSTRAINT parcels_lane ON parcels IS 'one in each lane'",
        "CREATE TABLE slips (id int NOT NULL UNIQUE, code text CONSTRAINT slips_pkey PRIMARY KEY)",
        "INSERT INTO slips SELECT g, g FROM generate_series(1, 100) g",
        "ALTER TABLE slips REPLICA IDENTITY USING INDEX slips_pkey",
        "CREATE TABLE labels (shape text, lane int, code text CONSTRAINT labels_code REFERENCES slips, "
        "CONSTRAINT labels_lane FOREIGN KEY (shape, lane) REFERENCES parcels (shape, lane))",
        "COMMENT ON CONSTRAINT labels_lane ON labels IS 'where it is'",
        "INSERT INTO labels SELECT shape, lane, id FROM parcels WHERE id < 100",
    )
    shop.take_side()
    definition = production.definition("shop")
    production.sql(
        "shop",
        "ALTER TABLE parcels DROP COLUMN lane CASCADE",
        "ALTER TABLE slips DROP COLUMN code CASCADE",
        "INSERT INTO slips VALUES (101)",
    )
    others = [Work(production, work) for work in (write, read)]
    for work in others:
        work.start()
    answer = shop.recover("shop", relations=["parcels", "slips"])
    for work in others:
        work.end()

    limit = max(LONGEST, PART * answer["result"]["seconds"]["validate"])
    assert [round(work.longest, 2) for work in others if work.longest > limit] == []
    assert not [wait for wait in answer["plan"]["waits"] if "build" in wait["why"]]
    lost = {item["object"]: item for item in answer["result"]["left_to_do"] if item["lost"]}
    column, key = "code on public.slips", "slips_pkey on public.slips"
    assert set(lost) == {column, key, "labels_code on public.labels"}
    assert "code is not NOT NULL" in lost[key]["reason"]
    commands = lost[key]["command"].split("\n")
    # The index, as a run leaves it that was killed before it made the key.
    production.sql("shop", "DELETE FROM slips WHERE id = 101", lost[column]["command"], commands[0])
    again = shop.recover("shop", relations=["parcels", "slips"], plan=answer["plan"])
    assert {item["object"] for item in again["result"]["left_to_do"] if item["lost"]} == {column}
    shop.remove("shop")
    # Columns that come back are the last ones.
    lines = [
        sorted(line.strip(" ,") for line in text.split("\n")) for text in (production.definition("shop"), definition)
    ]
    assert lines[0] == lines[1]


SPELT = """
CREATE FUNCTION rules.spelt(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
-- Slow enough to be noticed.
$$ BEGIN PERFORM md5(repeat(v, 10000)); RETURN upper(v); END $$
"""


def test_writers_go_on_while_indexes_and_keys_of_a_partitioned_table_that_was_not_lost_are_built(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE SCHEMA rules",
        "CREATE TABLE rules.depots (place text PRIMARY KEY, number int)",
        f"INSERT INTO rules.depots SELECT {LONG.format('g')}, g FROM generate_series(0, 9) g",
        SPELT,
        "CREATE TABLE parcels (id int, customer int, note text, weight int DEFAULT 1, place text) "
        "PARTITION BY RANGE (id)",
        "CREATE TABLE parcels_old PARTITION OF parcels FOR VALUES FROM (0) TO (10000)",
        "CREATE TABLE parcels_mid PARTITION OF parcels FOR VALUES FROM (10000) TO (20000) PARTITION BY LIST (weight)",
        "CREATE TABLE parcels_new PARTITION OF parcels DEFAULT",
        "CREATE TABLE parcels_one PARTITION OF parcels_mid DEFAULT",
        # Compressed once.
        "INSERT INTO parcels SELECT g, 1, g, 1, place FROM generate_series(1, 20000) g "
        "JOIN rules.depots ON number = g % 10",
        "CREATE INDEX parcels_spelt ON parcels (rules.spelt(note))",
        "COMMENT ON INDEX parcels_spelt IS 'by its spelling'",
        "ALTER TABLE parcels ADD CONSTRAINT parcels_place FOREIGN KEY (place) REFERENCES rules.depots",
        "COMMENT ON CONSTRAINT parcels_place ON parcels IS 'where it lies'",
    )
    shop.take_side()
    definition = production.definition("shop")
    later = "CREATE TABLE parcels_later PARTITION OF parcels FOR VALUES FROM (50000) TO (60000)"
    stray = "UPDATE parcels SET place = 'nowhere' WHERE id = 15000"
    production.sql("shop", "DROP SCHEMA rules CASCADE", later, stray)
    others = [Work(production, work) for work in (write, read)]
    for work in others:
        work.start()
    answer = shop.recover("shop", schemas=["rules"])
    for work in others:
        work.end()

    limit = max(LONGEST, PART * answer["result"]["seconds"]["validate"])
    assert [round(work.longest, 2) for work in others if work.longest > limit] == []
    assert answer["plan"]["waits"] == []
    # What came after the incident.
    left_to_do = {(item["type"], item["object"]): item for item in answer["result"]["left_to_do"]}
    assert left_to_do.pop(("foreign key", "parcels_place on public.parcels_one"))["rows"] == 1
    assert "lack it: public.parcels_later." in left_to_do["index", "public.parcels_spelt"]["reason"]
    assert {(*key, item["lost"]) for key, item in left_to_do.items()} == {
        ("foreign key", "parcels_place on public.parcels", True),
        ("comment", "public CONSTRAINT parcels_place ON parcels postgres", True),
        ("index", "public.parcels_spelt", True),
    }
    production.sql(
        "shop",
        "UPDATE parcels SET place = (SELECT place FROM parcels WHERE id = 10) WHERE id = 15000",
        "CREATE INDEX CONCURRENTLY later_spelt ON parcels_later (rules.spelt(note))",
        "ALTER INDEX parcels_spelt ATTACH PARTITION later_spelt",
    )
    assert shop.recover("shop", schemas=["rules"], plan=answer["plan"])["result"]["left_to_do"] == []
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    unchecked = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated OR contype = 'f' AND conparentid = 0 "
    assert production.sql("shop", invalid) == 0
    assert production.sql("shop", f"{unchecked} AND conrelid::regclass::text ~ 'parcels_'") == 0
    production.sql("shop", "DROP TABLE parcels_later")
    shop.remove("shop")
    assert production.definition("shop") == definition
