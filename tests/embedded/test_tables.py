"""A bad migration: the tables that it damaged are as they were, all else is as it is, while an application writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import CONTROL, Shop
from runs import run_killed_in
from test_database import ROWS, Writer
from test_undo import transact, undo, undoing

KEPT = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(damaged|replaced|recovered)_' ORDER BY 1"
# Of a role that may do nothing: its code notes whom it runs as.
HOSTILE = (
    "CREATE TABLE public.seen (who text)",
    "GRANT ALL ON public.seen TO clerk",
    """CREATE FUNCTION public.spy(n int) RETURNS int LANGUAGE plpgsql AS
       $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN n; END $$""",
    "ALTER FUNCTION public.spy OWNER TO clerk",
    """CREATE FUNCTION public.spying() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN PERFORM public.spy(1); RETURN NEW; END $$""",
    "ALTER FUNCTION public.spying OWNER TO clerk",
    "CREATE TABLE public.prices (id int PRIMARY KEY CHECK (public.spy(id) > 0), n int DEFAULT public.spy(7))",
    "INSERT INTO public.prices SELECT g, g FROM generate_series(1, 100) g",
    "CREATE TRIGGER spying BEFORE INSERT OR UPDATE ON public.prices FOR EACH ROW EXECUTE FUNCTION public.spying()",
    "GRANT CREATE ON SCHEMA public TO clerk",
    "ALTER TABLE public.prices OWNER TO clerk",
)
OTHERS = (
    "CREATE TABLE public.visits (n int PRIMARY KEY)",
    "CREATE TABLE public.people (id int PRIMARY KEY)",
    "INSERT INTO public.people SELECT generate_series(1, 5)",
    "CREATE TABLE public.totals (id int PRIMARY KEY, person int REFERENCES public.people, sum int)",
    "INSERT INTO public.totals SELECT g, 1 + g % 5, g FROM generate_series(1, 200) g",
    "CREATE VIEW public.sums AS SELECT id, sum FROM public.totals",
    "CREATE INDEX ON public.orders (what)",
    "COMMENT ON COLUMN public.orders.what IS 'as they said it'",
)
NAMES = ("orders", "lines", "prices")
MIGRATION = (
    "ALTER TABLE public.orders DROP COLUMN what",
    "ALTER TABLE public.lines ALTER order_id TYPE bigint",
    "DELETE FROM public.lines WHERE id > 2000",
    "ALTER TABLE public.prices DROP COLUMN n",
    "DROP TABLE public.totals CASCADE",
)


def definition(shop: Shop) -> str:
    """All that pg_dump tells of the tables that the migration touches, and of those beside them."""
    names = ("orders", "lines", "prices", "totals", "sums", "people")
    tables = [f"--table=public.{name}" for name in names]
    where = ["--host", shop.socket_dir, "--port", shop.port, "--username", shop.superuser, "--schema-only"]
    done = shop.run(shop.program("pg_dump"), *where, *tables, "shop")
    return "\n".join(line for line in str(done).splitlines() if not line.startswith("\\"))


def state(shop: Shop) -> list[Any]:
    return [shop.query("shop", f"{ROWS} public.{name} t") for name in (*NAMES, "totals", "sums")]


@pytest.fixture
def hostile(shop: Shop) -> Iterator[Shop]:
    for statement in (*HOSTILE, *OTHERS):
        shop.query("shop", statement)
    shop.query("shop", "TRUNCATE public.seen")
    yield shop
    shop.query(CONTROL, "DROP DATABASE shop WITH (FORCE)")


def test_what_a_migration_damaged_is_as_it_was_and_what_others_wrote_since_is_there(hostile: Shop) -> None:
    shop = hostile
    before, defined = state(shop), definition(shop)
    writer, words = Writer(shop), {"dr_strategy": "tables", "dr_incident_id": "migrated"}
    with writer.working():
        xid = transact(shop, *MIGRATION)
        transact(
            shop, "ALTER TABLE public.orders ADD COLUMN note text", "INSERT INTO public.orders VALUES (9001, 'new')"
        )
        shop.query("shop", "INSERT INTO public.people VALUES (6)")
        damaged = [shop.query("shop", f"{ROWS} public.{name} t") for name in NAMES]

        planned = undo(shop, "--check", dr_target_xid=xid, **words)
        assert planned.rc == 0, planned.output
        told = " ".join(planned.output.split())
        assert (
            "public.lines, public.orders, public.people, public.prices, public.sums, public.totals as they were" in told
        )
        assert "public.people: something of the definition changed, which may be only a foreign key" in told
        assert "public.orders: 1 inserted" in told
        assert "public.visits" not in told
        assert "dr_strategy=rows: NOT ENOUGH: it takes back rows only" in told
        assert "dr_strategy=tables: RECOMMENDED" in told
        assert shop.query("shop", KEPT) == []

        events = shop.folder / "incidents" / "migrated" / "events.jsonl"
        begun = undoing(shop, dr_target_xid=xid, **words)
        run_killed_in(begun, events, "recover", 0.5, shop.environment)
        # Whatever the step on the host has come to, it is the one state or the other.
        assert [shop.query("shop", f"{ROWS} public.{name} t") for name in NAMES] in (damaged, before[:3])
        run_killed_in(begun, events, "verify", 0, shop.environment)
        given_up = shop.abandon(dr_incident_id="migrated")
        assert given_up.rc != 0, given_up.output
        assert "the recovered tables have their places already" in " ".join(given_up.output.split())
        assert "tasks_from=tables_back" in given_up.output
        done = undo(shop, dr_target_xid=xid, **words)
        assert done.rc == 2, done.output
        assert state(shop) == before
        assert definition(shop) == defined
        assert {row[0] for row in shop.query("shop", "SELECT id FROM public.people")} == {1, 2, 3, 4, 5, 6}
    written = {int(row[0]) for row in shop.query("shop", "SELECT n FROM public.visits")}
    assert set().union(*writer.committed.values()) <= written
    assert shop.query("shop", "SELECT DISTINCT who FROM public.seen WHERE who <> 'clerk'") == []
    assert shop.query("shop", "SELECT note FROM damaged_migrated.orders WHERE id = 9001") == [("new",)]

    report = shop.report("migrated")
    assert report["verdict"] == "in_part"
    assert report["unproved"] == []
    assert [item["what"] for item in report["missing"]] == ["what 1 later transaction did"]
    later = json.loads((shop.folder / "incidents" / "migrated" / "evidence" / "later.json").read_text())
    assert [(item["table"], item["inserted"]) for item in later["tables"]] == [("public.orders", 1)]

    (back,) = [item for item in report["left_to_do"] if "Take the exchange back" in item["what"]]
    for _twice in range(2):
        taken = shop.obey(back["command"])
        assert taken.rc == 0, taken.output
        assert [shop.query("shop", f"{ROWS} public.{name} t") for name in NAMES] == damaged
    assert shop.query("shop", "SELECT to_regclass('public.totals'), to_regclass('public.sums')") == [(None, None)]
    assert shop.query("shop", KEPT) == [("recovered_migrated",), ("replaced_migrated",)]
    assert shop.query("shop", "SELECT DISTINCT who FROM public.seen WHERE who <> 'clerk'") == []


@pytest.mark.whole  # as the one above, of what its tables are not
def test_partitions_that_were_emptied_come_back_with_the_table_that_is_named(shop: Shop) -> None:
    for statement in (
        "CREATE TABLE public.readings (at int, what text) PARTITION BY RANGE (at)",
        "CREATE TABLE public.readings_1 PARTITION OF public.readings FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE public.readings_2 PARTITION OF public.readings FOR VALUES FROM (100) TO (200)",
        "INSERT INTO public.readings SELECT g, 'read' FROM generate_series(1, 150) g",
    ):
        shop.query("shop", statement)
    xid = transact(shop, "TRUNCATE public.readings")
    shop.query("shop", "INSERT INTO public.readings VALUES (7, 'later')")
    words = {"dr_target_xid": xid, "dr_strategy": "tables"}
    refused = undo(shop, "--check", **words)
    assert "public.readings_1 is a partition of public.readings, which would stay: name that one" in refused.output
    done = undo(shop, dr_tables="public.readings", dr_incident_id="emptied", **words)
    assert "Recovered in part: missing what 1 later transaction did." in " ".join(done.output.split()), done.output
    assert shop.query("shop", "SELECT count(*) FROM public.readings WHERE what = 'read'") == [(150,)]
    assert shop.query("shop", "SELECT at, what FROM damaged_emptied.readings") == [(7, "later")]
