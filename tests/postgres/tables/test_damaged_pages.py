"""Rows of pages that production cannot read come back from the pages of the same numbers, and nothing else changes."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.page_rows import keep_sound
from test_writers_go_on import Work

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

PAGE = 8192
# A column that is in no index, for that alone may answer once autovacuum was there.
READ = "SELECT count(doc) FROM orders"


def flip(shop: Any, table: str, *blocks: int) -> dict[str, Any]:
    """Damage pages on disk, of which the server has nothing in its memory; what a recovery is told of them."""
    production = shop.production
    path = production.sql("shop", f"SELECT pg_relation_filepath('{table}')")
    oid = production.sql("shop", f"SELECT '{table}'::regclass::oid::int8")
    production.stop("fast")
    with (production.data / path).open("r+b") as file:
        for block in blocks:
            # Of the header, so that it is seen without data checksums, too.
            file.seek(PAGE * block + 14)
            file.write(b"\xff\xff")
    production.start()
    return {"oid": int(oid), "blocks": list(blocks), "path": path, "lsn": "0/1"}


def test_the_rows_come_back_while_production_works_with_all_others(shop: Any) -> None:
    production = shop.production
    shop.take_side()
    before, definition = production.contents("shop"), production.definition("shop")
    pages = [flip(shop, "orders", 0, 7, 8, 500), flip(shop, "lines", 2)]
    with pytest.raises(psycopg2.Error, match="invalid page in block 0"):
        production.sql("shop", READ)
    # By an index, to rows of pages that can be read.
    last = production.sql("shop", "SELECT max(id) FROM orders")

    def write(cursor: Any, number: int) -> None:
        cursor.execute("UPDATE orders SET customer = 1 + %s %% 100 WHERE id = %s", (number, last - number))

    writer = Work(production, write)
    writer.start()
    # Deleted since, and not on a damaged page: it stays deleted.
    production.sql("shop", f"SET session_replication_role = replica; DELETE FROM orders WHERE id = {last - 60000}")
    answer = shop.recover("shop", relations=["orders", "lines"], load="merge", damaged_pages=pages)
    writer.end()
    merged = {item["name"]: item["merged"] for item in answer["result"]["relations"]}
    lost = production.sql("shop", "SELECT count(*) FROM orders") + 1
    assert lost == 150000
    assert 0 < merged["orders"]["inserted"] < 1000
    assert [entry for entry in answer["result"]["left_to_do"] if entry["lost"]] == []
    assert production.sql("shop", f"SELECT customer FROM orders WHERE id = {last}") == 1
    production.sql(
        "shop",
        "INSERT INTO orders (id, customer, code, doc, total) "
        "SELECT g, 1 + g % 100, 'code ' || g, '{\"g\": 1}', g / 3.0 "
        f"FROM (SELECT {last} - 60000 AS g) AS one",
        f"UPDATE orders SET customer = 1 + id % 100 WHERE id > {last} - {writer.done}",
    )
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == before


@pytest.mark.parametrize("when", ["damaged", "written anew", "sound"])
def test_what_is_not_as_it_was_found_is_left_alone(shop: Any, when: str) -> None:
    production = shop.production
    shop.take_side()
    before = production.contents("shop")
    if when == "sound":
        # As where the server had the page in its memory, and has written it since.
        pages = {**flip(shop, "orders"), "blocks": [3]}
        production.sql("shop", "DELETE FROM orders WHERE id = 300 AND ctid >= '(3,0)' AND ctid < '(4,0)'")
        gone = 150000 - production.sql("shop", "SELECT count(*) FROM orders")
        answer = shop.recover("shop", relations=["orders"], load="merge", damaged_pages=[pages])
        assert answer["result"]["relations"][0]["merged"]["inserted"] == 0
        assert production.sql("shop", "SELECT count(*) FROM orders") == 150000 - gone
        return
    pages = flip(shop, "orders", 3)
    if when == "damaged":
        flip(shop, "orders", 9)
        said = shop.refused("shop", relations=["orders"], load="merge", damaged_pages=[pages])
        assert "more damaged pages than those that were found (3): invalid page in block 9" in said
        with pytest.raises(psycopg2.Error, match="invalid page in block 3"):
            production.sql("shop", READ)
        pages["blocks"] = [3, 9]
    else:
        moved = {**pages, "path": "base/1/1"}
        said = shop.refused("shop", relations=["orders"], load="merge", damaged_pages=[moved])
        assert "was written anew since its pages were looked at" in said
    shop.remove("shop")
    shop.recover("shop", relations=["orders"], load="merge", damaged_pages=[pages])
    shop.remove("shop")
    assert production.contents("shop") == before


def spoil_on_disk(shop: Any, path: str, block: int) -> None:
    """Damage a page that the server has in its memory."""
    shop.production.sql("shop", f"SELECT FROM orders WHERE ctid = '({block},1)'", "CHECKPOINT")
    with (shop.production.data / path).open("r+b") as file:
        file.seek(PAGE * block + 14)
        file.write(b"\xff\xff")


def test_a_page_that_only_the_servers_memory_has_sound_is_not_lost_with_it(shop: Any) -> None:
    production = shop.production
    shop.take_side()
    before = production.contents("shop")
    pages = {**flip(shop, "orders"), "blocks": [3]}
    spoil_on_disk(shop, pages["path"], 3)
    answer = shop.recover("shop", relations=["orders"], load="merge", damaged_pages=[pages])
    assert answer["result"]["relations"][0]["merged"]["inserted"] == 0
    production.stop("immediate")
    production.start()
    shop.remove("shop")
    assert production.contents("shop") == before


def test_such_a_page_is_written_before_it_may_be_forgotten(shop: Any) -> None:
    production = shop.production
    path = production.sql("shop", "SELECT pg_relation_filepath('orders')")
    spoil_on_disk(shop, path, 3)
    connection = production.connect("shop")
    keep_sound(connection, "orders", [3])
    connection.close()
    production.sql("shop", "CHECKPOINT")
    with (production.data / path).open("rb") as file:
        file.seek(PAGE * 3 + 14)
        assert file.read(2) != b"\xff\xff"


def test_nothing_that_the_owner_wrote_runs_as_a_superuser(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE seen (by text)",
        "GRANT INSERT ON seen TO PUBLIC",
        "CREATE FUNCTION note() RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (current_user)'",
        "CREATE FUNCTION peep(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM public.note(); RETURN $1; END $$",
        "ALTER TABLE orders OWNER TO dbre_mallory; ALTER FUNCTION peep OWNER TO dbre_mallory",
        "SET max_parallel_maintenance_workers = 0; CREATE INDEX peeped ON orders ((peep('x') || code)); TRUNCATE seen",
    )
    shop.take_side()
    pages = flip(shop, "orders", 3)
    said = shop.refused("shop", relations=["orders"], load="merge", damaged_pages=[pages])
    assert "what its owner wrote would run as a superuser" in said
    assert "-e dr_strategy=tables -e dr_target_lsn=0/1" in said
    assert production.sql("shop", "SELECT count(*) FROM seen WHERE by <> 'dbre_mallory'") == 0
