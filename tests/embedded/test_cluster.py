"""A whole cluster goes back to before a migration over two databases, on a production in one folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import CONTROL, ROOT, Shop
from runs import run, run_killed_in

PLAYBOOK = ROOT / "playbooks" / "dr-corruption.yml"


def going_back(shop: Shop, *words: str, **variables: Any) -> list[str]:
    given = {"dr_database": "shop", "dr_confirm": True, "dr_report_dir": str(shop.folder / "incidents"), **variables}
    return ["ansible-playbook", "-i", str(shop.inventory_file), str(PLAYBOOK), "-e", json.dumps(given), *words]


def go_back(shop: Shop, *words: str, **variables: Any) -> Any:
    return run(going_back(shop, *words, **variables), shop.environment)


class Writers:
    """One writer a database, each with a log of its own of what was committed to it."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.over = shop, threading.Event()
        self.committed: dict[str, list[int]] = {"shop": [], "stock": []}

    def write(self, database: str) -> None:
        number = 0
        while not self.over.is_set():
            try:
                connection = self.shop.connect(database)
                with connection.cursor() as cursor:
                    while not self.over.wait(0.2):  # all that they write is read in WAL
                        number += 1
                        cursor.execute("INSERT INTO public.log VALUES (%s)", (number,))
                        self.committed[database].append(number)
            except psycopg2.Error:
                self.over.wait(0.2)  # the server is exchanged


@contextmanager
def writing(shop: Shop) -> Iterator[Writers]:
    writers = Writers(shop)
    threads = [threading.Thread(target=writers.write, args=(name,)) for name in writers.committed]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        writers.over.set()
        for thread in threads:
            thread.join()


def logged(shop: Shop, database: str) -> set[int]:
    return {number for (number,) in shop.query(database, "SELECT n FROM public.log")}


def account_for(shop: Shop, writers: Writers, counted: dict[str, list[int]], later: dict[str, Any]) -> None:
    """By the log of the writers: what was committed before is there, what came later is there or listed, each once."""
    for database, numbers in counted.items():
        assert set(numbers) <= logged(shop, database)
        tables = [item for item in later["tables"] if (item["database"], item["table"]) == (database, "public.log")]
        rows = sum(item["inserted"] for item in tables)
        # The server may commit what a writer is not told any more, once for each time that it was stopped.
        acknowledged = len(writers.committed[database])
        assert acknowledged <= len(logged(shop, database)) + rows <= acknowledged + 2
    listed = [json.loads(line) for path in later["listed_in"] for line in Path(path).read_text().splitlines()]
    # All of them, and the damage itself.
    assert len({(one["database"], one["lsn"]) for one in listed}) == later["count"] - len(later["databases"]) + 1


@pytest.fixture
def stock(shop: Shop) -> Iterator[Shop]:
    shop.query(CONTROL, "CREATE DATABASE stock")
    shop.query("stock", "CREATE TABLE public.items AS SELECT g AS id FROM generate_series(1, 500) g")
    for database in ("shop", "stock"):
        shop.query(database, "CREATE TABLE public.log (n int)")
    yield shop
    shop.query(CONTROL, "DROP DATABASE stock WITH (FORCE)")


def backed_up(shop: Shop) -> set[str]:
    info = shop.pgbackrest("info", "--output=json")
    return {backup["label"] for backup in json.loads(info)[0]["backup"]}


def migrate(shop: Shop) -> int:
    """A bad migration over both; the number of its first transaction."""
    statements = (
        "ALTER TABLE public.orders DROP COLUMN what; DELETE FROM public.lines; SELECT pg_current_xact_id()::text"
    )
    first = int(shop.query("shop", statements)[0][0])
    shop.query("stock", "DROP TABLE public.items")
    return first


def test_the_cluster_is_swapped_under_writers_and_the_command_of_the_report_takes_it_back(stock: Shop) -> None:
    shop = stock
    shop.backup()  # with it there are as many as retention keeps
    backups = backed_up(shop)
    with writing(shop) as writers:
        while len(writers.committed["stock"]) < 20:
            writers.over.wait(0.05)
        before = shop.schema_dump("shop")
        counted = {name: list(numbers) for name, numbers in writers.committed.items()}
        xid = migrate(shop)
        shop.query("stock", "CREATE FUNCTION public.lost() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        shop.query("stock", "ALTER ROLE clerk SET work_mem = '9MB'")
        planned = go_back(shop, "--check", dr_target_xid=xid, dr_strategy="cluster_swap", dr_incident_id="swap")
        assert planned.rc == 0, planned.output
        assert "stock: transaction" in planned.output
        assert "public.items dropped" in planned.output

        events = shop.folder / "incidents" / "swap" / "events.jsonl"
        begun = going_back(shop, dr_target_xid=xid, dr_strategy="cluster_swap", dr_incident_id="swap")
        run_killed_in(begun, events, "prove", 2.5, shop.environment)
        swapped = go_back(shop, dr_target_xid=xid, dr_strategy="cluster_swap", dr_incident_id="swap")
        assert swapped.rc == 2, swapped.output
    assert "Recovered in part: missing what" in swapped.output
    assert shop.schema_dump("shop") == before
    assert shop.count("public.orders") == 3000
    assert shop.count("public.lines") == 3000
    assert shop.query("stock", "SELECT count(*) FROM public.items") == [(500,)]

    report = shop.report("swap")
    account_for(shop, writers, counted, report["later"])
    assert report["verdict"] == "in_part"
    assert report["unproved"] == []
    assert report["switch"]["outage_seconds"] > 0
    assert report["later"]["others"] == {"stock": {"functions": 1}}
    assert list(report["later"]["shared"].values()) == [["settings of roles and databases"]]
    assert backups < backed_up(shop)  # one of them is of a stretch that was left

    (back,) = [item for item in report["left_to_do"] if "Take the exchange back" in item["what"]]
    taken = shop.obey(back["command"])
    assert taken.rc == 0, taken.output
    assert shop.query("stock", "SELECT to_regclass('public.items')") == [(None,)]
    assert shop.count("public.lines") == 0
    (gone,) = [item for item in report["left_to_do"] if item["what"].startswith("Remove ")]
    removed = shop.obey(gone["command"])
    assert removed.rc == 0, removed.output
    assert not list(shop.folder.glob("data.*"))


def test_the_cluster_is_overwritten_only_by_its_name_and_what_it_had_committed_is_listed(stock: Shop) -> None:
    shop, words = stock, {"dr_strategy": "cluster_in_place", "dr_incident_id": "over"}
    shop.query(CONTROL, "CREATE DATABASE gone")
    gone = shop.query(CONTROL, "SELECT oid::int8 FROM pg_database WHERE datname = 'gone'")[0][0]
    shop.query(CONTROL, "CREATE DATABASE shut ALLOW_CONNECTIONS false")
    shop.backup()  # with it there are as many as retention keeps
    backups = backed_up(shop)
    with writing(shop) as writers:
        while len(writers.committed["stock"]) < 20:
            writers.over.wait(0.05)
        counted = {name: list(numbers) for name, numbers in writers.committed.items()}
        shop.query("shop", "BEGIN; SELECT lo_create(4711); PREPARE TRANSACTION 'it''s open'")
        words["dr_target_xid"] = str(migrate(shop))
        shop.query("shop", "COMMIT PREPARED 'it''s open'")
        shop.query("stock", "BEGIN; SELECT lo_create(4711); PREPARE TRANSACTION 'lost'")
        refused = go_back(shop, **words)
        assert refused.rc == 2, refused.output
        assert f"-e dr_overwrite={shop.data}" in refused.output, refused.output
        assert shop.count("public.lines") == 0
        # After the plan.
        shop.query(CONTROL, "DROP DATABASE gone")
        shop.query(CONTROL, "CREATE DATABASE made")
        shop.query("made", "CREATE TABLE public.new AS SELECT g FROM generate_series(1, 7) g")
        done = go_back(shop, **words, dr_overwrite=str(shop.data))
        assert done.rc == 2, done.output
    assert "Recovered in part: missing what" in done.output
    assert shop.count("public.orders") == 3000
    assert shop.count("public.lines") == 3000
    assert shop.query("stock", "SELECT count(*) FROM public.items") == [(500,)]
    report = shop.report("over")
    assert report["unproved"] == []
    later = report["later"]
    account_for(shop, writers, counted, later)
    assert [(one["what"], one["name"] or one["oid"]) for one in later["databases"]] == [
        ("dropped", gone),
        ("created", "made"),
    ]
    assert ("made", "public.new", 7) in {(one["database"], one["table"], one["inserted"]) for one in later["tables"]}
    assert backups < backed_up(shop)  # all that is left of what was overwritten
    assert set(later["unread"]) >= {
        "shut: not read: it lets nobody in (ALLOW_CONNECTIONS)",
        "stock: lost is prepared and not decided; if that was after the target, it is lost",
    }
    assert shop.query(CONTROL, "SELECT gid FROM pg_prepared_xacts") == [("it's open",)]
    (decide,) = [item for item in report["left_to_do"] if item["what"].startswith("Decide ")]
    shop.run("sh", "-c", decide["command"])
    assert shop.query(CONTROL, "SELECT gid FROM pg_prepared_xacts") == []
    for name in ("gone", "shut"):
        shop.query(CONTROL, f"DROP DATABASE {name}")
    (gone,) = [item for item in report["left_to_do"] if item["what"].startswith("Remove ")]
    removed = shop.obey(gone["command"])
    assert removed.rc == 0, removed.output
    assert not list(shop.folder.glob("data.*"))


@pytest.mark.whole
def test_given_up_while_it_answers_nobody_the_server_serves_again_with_all_that_it_had(stock: Shop) -> None:
    shop, words = stock, {"dr_strategy": "cluster_swap", "dr_incident_id": "closed"}
    words["dr_target_xid"] = str(migrate(shop))
    shop.query("shop", "INSERT INTO public.log VALUES (1)")
    events = shop.folder / "incidents" / "closed" / "events.jsonl"
    run_killed_in(going_back(shop, **words), events, "recover", 0, shop.environment)
    with pytest.raises(psycopg2.OperationalError):
        shop.query(CONTROL, "SELECT 1")
    told = shop.abandon("--check", dr_incident_id="closed")
    assert told.rc == 0, told.output
    given_up = shop.abandon(dr_incident_id="closed")
    assert given_up.rc == 0, given_up.output
    assert logged(shop, "shop") == {1}
    assert shop.count("public.lines") == 0
    assert not list(shop.folder.glob("data.*"))
