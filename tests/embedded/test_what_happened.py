"""What somebody sees who asks what happened."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from conftest import ROOT
from runs import run


@contextlib.contextmanager
def holding(shop: Any) -> Iterator[None]:
    """Somebody's transaction that changes a table, and goes on."""
    connection = psycopg2.connect(host=str(shop.socket_dir), port=shop.port, user=shop.superuser, dbname="shop")
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE public.orders")
        yield
    finally:
        connection.close()


def ask(shop: Any, *words: str) -> Any:
    playbook = str(ROOT / "playbooks" / "what-happened.yml")
    return run(["ansible-playbook", "-i", str(shop.inventory_file), playbook, *words], shop.environment)


@pytest.mark.whole
def test_what_a_migration_did_is_told_and_its_number_leads_to_the_recovery(shop: Any) -> None:
    shop.query("shop", "UPDATE public.orders SET what = 'sold'")
    shop.query("shop", "DROP TABLE public.lines")

    told = ask(shop, "-e", "dr_database=shop", "--check")

    assert told.rc == 0, told.output
    assert "table public.orders updated (3,000 rows)" in told.output
    assert "pg_toast" not in told.output
    # About that many, when autovacuum has counted them.
    assert re.search(r"table public\.lines dropped \((about )?3,000 rows\)", told.output)
    at = [line for line in told.output.splitlines() if "rows or values went with it" in line][-1]
    number = at.split("transaction ")[1].split()[0]
    recovered = shop.recover(dr_tables="public.lines", dr_target_xid=number, dr_incident_id="told")
    assert recovered.rc == 0, recovered.output
    assert shop.count("public.lines") == 3000


def test_what_a_change_did_is_one_command_which_the_snapshot_before_it_has_printed(shop: Any) -> None:
    playbook = str(ROOT / "playbooks" / "snapshot-before-change.yml")
    words = ["-i", str(shop.inventory_file), playbook, "-e", "change='release 4.2'"]
    before = run(["ansible-playbook", *words], shop.environment)
    assert before.rc == 0, before.output
    shop.query("shop", "CREATE FUNCTION public.total() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    shop.query("shop", "ALTER TABLE public.orders DROP COLUMN what")
    shop.query("shop", "GRANT SELECT ON public.lines TO clerk")
    shop.query("shop", "DELETE FROM public.lines WHERE id <= 7")

    name = before.output.split("dr_change=")[1].split()[0]
    told = ask(shop, "-e", "dr_database=shop", "-e", f"dr_change={name}", "-e", "dr_min_rows=1")

    assert told.rc == 0, told.output
    assert "table public.orders column dropped: what" in told.output
    assert "table public.lines deleted (7 rows)" in told.output
    assert "FUNCTION public.total() made" in told.output
    assert "TABLE public.orders changed" in told.output
    assert re.search(r'"    -    what text', told.output)
    assert "ACL public.TABLE lines made" in told.output

    # Who holds a table keeps nobody from the restore point, nor others from the table.
    # Nor does a name that is longer than that of a restore point may be.
    words[-1] = "change='release 4.3: orders by month, lines by week, and what is older than ten years goes'"
    with holding(shop):
        again = run(["ansible-playbook", *words], shop.environment)
    assert again.rc == 0, again.output
    assert "NOT KEPT are the definitions of shop: pg_dump failed" in again.output
    name = again.output.split("dr_change=")[1].split()[0]
    told = ask(shop, "-e", "dr_database=shop", "-e", f"dr_change={name}", "-e", "dr_min_rows=1")
    assert told.rc == 0, told.output
    assert "Definitions cannot be compared, for they could not be kept" in told.output

    unknown = ask(shop, "-e", "dr_database=shop", "-e", "dr_change=before_release_4_3")
    assert unknown.rc == 2, unknown.output
    assert "There are: before_release_4_2_" in unknown.output


def test_without_a_database_it_says_which_word_to_give(shop: Any) -> None:
    told = ask(shop)
    assert told.rc != 0
    assert "dr_database" in told.output
