"""How long those who work with production wait while a recovery changes tables that they use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

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
