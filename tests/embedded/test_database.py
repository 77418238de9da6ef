"""A bad migration: the whole database as it was takes the place of the damaged one, while an application writes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import CONTROL, Shop
from runs import run_killed_in
from test_undo import transact, undo, undoing

ROWS = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM"


class Writer:
    """An application that commits one row after the other, begins again when its session was ended, and keeps a log."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.committed: dict[int, set[int]] = {}  # numbers, by the OID of the database that they were committed in
        self.longest = 0.0  # seconds without a commit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        connection: Any = None
        number, last = 0, time.monotonic()
        while not self._stop.wait(0.02):
            number += 1
            try:
                if connection is None:
                    connection = psycopg2.connect(
                        host=str(self.shop.socket_dir), port=self.shop.port, user=self.shop.superuser, dbname="shop"
                    )
                    connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO public.visits VALUES (%s) "
                        "RETURNING (SELECT oid::int8 FROM pg_database WHERE datname = current_database())",
                        (number,),
                    )
                    self.committed.setdefault(cursor.fetchone()[0], set()).add(number)
                self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()
            except psycopg2.Error:
                connection = None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(30)


def databases(shop: Shop) -> set[str]:
    return {row[0] for row in shop.query(CONTROL, "SELECT datname FROM pg_database WHERE datname LIKE '%shop%'")}


def oid(shop: Shop, name: str) -> int:
    return int(shop.query(CONTROL, f"SELECT oid::int8 FROM pg_database WHERE datname = '{name}'")[0][0])


def state(shop: Shop) -> list[Any]:
    """What the migration changes, and what a database has of its own."""
    columns = "SELECT attrelid::regclass::text, attname, atttypid::regtype::text FROM pg_attribute"
    columns += " WHERE attrelid IN ('public.orders'::regclass, 'public.lines'::regclass) AND attnum > 0"
    settings = (
        "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
    )
    own = "SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text, shobj_description(oid, 'pg_database')"
    queries = (
        f"{ROWS} public.orders t",
        f"{ROWS} public.lines t",
        f"{columns} AND NOT attisdropped ORDER BY 1, 2",
        f"{settings} WHERE datname = 'shop' ORDER BY 1",
        f"{own} FROM pg_database WHERE datname = 'shop'",
        "SELECT pubname FROM pg_publication",
        "SELECT convert_from(lo_get(4711), 'UTF8')",
    )
    return [shop.query("shop", query) for query in queries]


@contextlib.contextmanager
def held(shop: Shop) -> Iterator[None]:
    """Somebody's open transaction that keeps the database from getting another name, and from nothing else."""
    where = {"host": str(shop.socket_dir), "port": shop.port, "user": shop.superuser, "dbname": CONTROL}
    connection = psycopg2.connect(**where)
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER ROLE clerk IN DATABASE shop SET work_mem = '6MB'")
        yield
    finally:
        connection.close()


@pytest.fixture
def beside(shop: Shop) -> Iterator[Shop]:
    """A shop whose databases of any name are gone afterwards."""
    yield shop
    for name in databases(shop) - {"shop"}:
        shop.query(CONTROL, f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_migration_is_gone_with_the_database_it_was_in_and_all_that_came_later_is_listed(beside: Shop) -> None:
    shop = beside
    shop.query("shop", "CREATE TABLE public.visits (n int PRIMARY KEY)")
    shop.query("shop", "SELECT lo_from_bytea(4711, 'a contract')")
    shop.query("shop", "CREATE PUBLICATION everything FOR ALL TABLES")
    shop.query("shop", "ALTER DATABASE shop SET work_mem = '5MB'")
    shop.query("shop", "ALTER ROLE clerk IN DATABASE shop SET lock_timeout = '3s'")
    shop.query("shop", "ALTER DATABASE shop CONNECTION LIMIT 33")
    shop.query("shop", "GRANT CREATE ON DATABASE shop TO clerk")
    shop.query("shop", "COMMENT ON DATABASE shop IS 'of all stores'")
    before = state(shop)
    migration = (
        "ALTER TABLE public.orders DROP COLUMN what",
        "ALTER TABLE public.lines ALTER order_id TYPE bigint",
        "DELETE FROM public.lines WHERE id > 2000",
    )
    damaged, writer, words = oid(shop, "shop"), Writer(shop), {"dr_strategy": "database", "dr_incident_id": "moved"}
    with writer.working():
        xid = transact(shop, *migration)
        shop.query("shop", "INSERT INTO public.orders SELECT g FROM generate_series(10001, 10005) g")
        shop.query(CONTROL, "ALTER DATABASE shop SET work_mem = '9MB'")

        not_there = undo(shop, "--check", dr_target_xid=xid, dr_database="shopp", **words)
        assert not_there.rc != 0
        assert "has no database 'shopp'. Similar: shop." in not_there.output, not_there.output

        planned = undo(shop, "--check", dr_target_xid=xid, **words)
        assert planned.rc == 0, planned.output
        told = " ".join(planned.output.split())
        assert "the damaged one is kept as shop_damaged_moved" in told
        assert "ALL ARE ENDED ONCE" in told
        assert "public.orders: 5 inserted" in told
        assert "publication everything: comes back as it was" in told
        assert "dr_strategy=rows: NOT ENOUGH: it takes back rows only" in told
        assert "public.orders column dropped: what" in told
        assert "dr_strategy=tables: RECOMMENDED" in told
        assert databases(shop) == {"shop"}

        events = shop.folder / "incidents" / "moved" / "events.jsonl"
        begun = undoing(shop, dr_target_xid=xid, dr_contain="read_only", **words)
        with held(shop):
            run_killed_in(begun, events, "recover", 0.5, shop.environment)
            given_up = shop.abandon(dr_incident_id="moved")
        assert given_up.rc == 0, given_up.output
        assert databases(shop) == {"shop"}, given_up.output
        assert oid(shop, "shop") == damaged
        run_killed_in(begun, events, "verify", 0, shop.environment)
        too_late = shop.abandon(dr_incident_id="moved")
        assert too_late.rc == 2, too_late.output
        assert "the recovered database has the name shop already" in " ".join(too_late.output.split())
        assert "tasks_from=exchange_back" in too_late.output
        assert oid(shop, "shop_damaged_moved") == damaged
        done = undo(shop, dr_target_xid=xid, dr_contain="read_only", **words)
        assert done.rc == 2, done.output
        assert databases(shop) == {"shop", "shop_damaged_moved"}
        assert oid(shop, "shop_damaged_moved") == damaged
        assert state(shop) == before
    assert shop.query("shop", "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recovered%'") == []
    assert writer.committed.keys() == {damaged, oid(shop, "shop")}

    report = shop.report("moved")
    assert report["verdict"] == "in_part"
    assert report["unproved"] == []
    later = json.loads((shop.folder / "incidents" / "moved" / "evidence" / "later.json").read_text())
    kept = {int(row[0]) for row in shop.query("shop_damaged_moved", "SELECT n FROM public.visits")}
    assert writer.committed[damaged] <= kept
    rows = {item["table"]: item for item in later["tables"]}
    came_back = {int(row[0]) for row in shop.query("shop", "SELECT n FROM public.visits")}
    since = kept - (came_back - writer.committed[oid(shop, "shop")])
    assert rows["public.visits"]["inserted"] == len(since)
    assert rows["public.orders"]["inserted"] == 5
    assert later["count"] == len(since) + 1
    (listed,) = later["listed_in"]
    # With the one that was undone; what all databases share has not gone back.
    lines = [json.loads(line) for line in Path(listed).read_text().splitlines()]
    assert len([one for one in lines if one["database"] is not None]) == later["count"] + 1
    assert [item["what"] for item in report["missing"]] == [
        "database property setting work_mem of shop",
        f"what {later['count']:,} later transactions did",
    ]
    (command,) = [item["command"] for item in report["left_to_do"] if "setting work_mem" in item["what"]]
    shop.query(CONTROL, command)
    assert shop.query("shop", "SHOW work_mem") == [("9MB",)]

    again = undo(shop, dr_target_xid=xid, **words)
    assert "has ended already" in again.output, again.output
    assert oid(shop, "shop_damaged_moved") == damaged

    (back,) = [item for item in report["left_to_do"] if "Take the exchange back" in item["what"]]
    for _twice in range(2):
        taken = shop.obey(back["command"])
        assert taken.rc == 0, taken.output
        assert databases(shop) == {"shop", "shop_recovered_moved"}
        assert oid(shop, "shop") == damaged
    assert shop.query("shop", "SHOW default_transaction_read_only") == [("off",)]
    (remove,) = [item for item in report["kept"] if "shop_damaged_moved" in item["what"]]
    shop.query(CONTROL, "ALTER DATABASE shop_recovered_moved RENAME TO shop_damaged_moved")
    shop.query(CONTROL, remove["command"])
    assert databases(shop) == {"shop"}


@pytest.mark.whole
def test_a_database_that_cannot_be_renamed_is_refused_before_anything_is_restored(beside: Shop) -> None:
    (lsn,) = beside.query("shop", "SELECT pg_current_wal_insert_lsn()::text")[0]
    beside.query("shop", "DELETE FROM public.lines")
    asked = {"dr_target_lsn": lsn, "dr_strategy": "database", "dr_incident_id": "taken"}
    planned = undo(beside, "--check", **asked)
    assert planned.rc == 0, planned.output
    # Of a position nobody knows which transaction was the damage: all that follows is later.
    assert "public.lines: 3,000 deleted" in planned.output
    assert "dr_strategy=rows: NOT ENOUGH: no transaction was named" in " ".join(planned.output.split())

    beside.query(CONTROL, "CREATE DATABASE shop_damaged_taken")
    refused = undo(beside, **asked)
    assert refused.rc != 0
    assert "has one of that name already" in " ".join(refused.output.split())

    asked["dr_incident_id"] = "held"
    beside.query("shop", "BEGIN; DELETE FROM public.orders WHERE id > 3000; PREPARE TRANSACTION 'half done'")
    refused = undo(beside, **asked)
    assert refused.rc != 0
    assert "ROLLBACK PREPARED 'half done'" in " ".join(refused.output.split())
    beside.query("shop", "ROLLBACK PREPARED 'half done'")
    assert databases(beside) == {"shop", "shop_damaged_taken"}
