"""Indexes and keys that come back on tables which were not lost, whatever is in their way."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.concurrent_index import build_index
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import Build
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import parse_toc

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

PLACES = "OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 bttextcmp(text, text)"
# The indexes go with what their operators stand in, and the foreign key with the index.
TREES = [
    "CREATE SCHEMA rules",
    "CREATE OPERATOR CLASS rules.places FOR TYPE text USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, "
    + PLACES,
    "CREATE TABLE depots (id int, place text) PARTITION BY RANGE (id)",
    "CREATE TABLE stored (depot int, place text) PARTITION BY RANGE (depot)",
    *(
        f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES FROM ({number}) TO ({number + 1})"
        for table in ("depots", "stored")
        for number in range(3)
    ),
    "INSERT INTO depots SELECT g % 3, g FROM generate_series(1, 300) g",
    "INSERT INTO stored SELECT id, place FROM depots",
    "CREATE UNIQUE INDEX depots_place ON depots (id, place rules.places)",
    "COMMENT ON INDEX depots_place IS 'each once'",
    "ALTER TABLE stored ADD CONSTRAINT stored_place FOREIGN KEY (depot, place) REFERENCES depots (id, place)",
    "CREATE TABLE labels (code text)",
    # Read once more, its condition is written in another way.
    "CREATE INDEX labels_code ON labels (code rules.places) WHERE code::varchar IN ('a', 'b')",
    "CREATE INDEX labels_size ON labels (length(code), code rules.places)",
]
# What only a lock lets be built.
BOOKED = [
    "CREATE EXTENSION btree_gist SCHEMA rules",
    "CREATE TABLE booked (room int, at daterange, CONSTRAINT booked_once {})",
    # Enough to be waited for.
    "UPDATE pg_class SET reltuples = 300000 WHERE oid = 'booked'::regclass",
]
ONCE = ["EXCLUDE USING gist (room WITH =, at WITH &&)", "PRIMARY KEY (room, at WITHOUT OVERLAPS)"]
OTHER = "CREATE INDEX labels_size ON labels (length(code))"
BROKEN = "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indexrelid::regclass::text ~ '{}'"
IN_THE_WAY = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase ~ '^waiting'"
WHOLE = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid = to_regclass('depots_place')"


def kill_when(production: Any, driver: subprocess.Popen[str], *queries: str) -> None:
    """Kill a run as soon as all queries say so."""
    deadline = time.monotonic() + 90
    while not all(production.sql("shop", query) for query in queries):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, queries
    driver.kill()
    driver.communicate()


def test_killed_while_it_builds_indexes_and_keys_it_leaves_nothing_behind_when_run_again(shop: Any) -> None:
    production = shop.production
    once = ONCE[production.sql("shop", "SELECT (current_setting('server_version_num')::int >= 180000)::int")]
    production.sql("shop", *TREES, *(statement.format(once) for statement in BOOKED))
    shop.take_side()
    definition = production.definition("shop")
    production.sql("shop", "DROP SCHEMA rules CASCADE")
    plan = shop.recover("shop", schemas=["rules"], recover=False)["plan"]
    waits = [(wait["object"], wait["whom"], wait["why"]) for wait in plan["waits"]]
    assert waits == [("public.booked", "readers and writers", "to build booked_once on public.booked")]
    production.sql("shop", OTHER)
    blocker = production.connect("shop")
    with blocker.cursor() as cursor:
        # Who writes keeps an index from becoming complete.
        cursor.execute("BEGIN; INSERT INTO depots_1 VALUES (1, 'new')")
        driver = shop.start_recovery("shop", plan=plan)
        kill_when(production, driver, BROKEN.format("depots_1"), IN_THE_WAY)
        # Who reads the tree and writes to the table that refers to it keeps only the foreign key away.
        cursor.execute("ROLLBACK; BEGIN; SELECT FROM ONLY depots; LOCK TABLE stored IN ROW EXCLUSIVE MODE")
        driver = shop.start_recovery("shop", plan=plan)
        kill_when(production, driver, WHOLE, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        cursor.execute("ROLLBACK")
    blocker.close()

    (other,) = shop.recover("shop", plan=plan)["result"]["left_to_do"]

    assert other["object"] == "public.labels_size"
    assert "not as it was (CREATE INDEX labels_size ON public.labels USING btree (length(code)))" in other["reason"]
    production.sql("shop", "DROP INDEX labels_size", other["command"])
    assert shop.recover("shop", plan=plan)["result"]["left_to_do"] == []
    assert production.sql("shop", BROKEN.format("")) == 0
    shop.remove("shop")
    dumps = [production.definition("shop"), definition]
    assert dumps[0].count("labels_code") == dumps[1].count("labels_code")
    lines = [[line for line in dump.split("\n") if " labels_code " not in line] for dump in dumps]
    assert lines[0] == lines[1]


ENTRY = "3237; 1259 16426 INDEX public tags_code postgres"


def test_an_index_that_somebody_builds_at_this_moment_is_left_to_him(shop: Any) -> None:
    production = shop.production
    production.sql("postgres", "CREATE DATABASE tags")
    production.sql("tags", "CREATE TABLE tags (code int)", "INSERT INTO tags VALUES (1)")
    definition = "CREATE INDEX tags_code ON public.tags USING btree (code)"
    build = Build(parse_toc(ENTRY)[0], "public.tags_code", "public.tags", False, definition, "", "", False, ())
    ours, writer = production.connect("tags"), production.connect("tags")
    ours.autocommit = False
    with writer.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO tags VALUES (2)")
        statement = definition.replace("INDEX", "INDEX CONCURRENTLY", 1)
        building = threading.Thread(target=production.sql, args=("tags", statement))
        building.start()
        while not production.sql("tags", BROKEN.format("tags_code")):
            assert building.is_alive()
        reason = build_index(ours, build, "10s")
        cursor.execute("COMMIT")
    building.join()
    assert reason is not None
    assert "(role postgres) builds it at this moment. When that has ended, run again" in reason
    assert production.sql("tags", "SELECT indisvalid FROM pg_index WHERE indexrelid = 'tags_code'::regclass") is True
    for connection in (ours, writer):
        connection.close()
