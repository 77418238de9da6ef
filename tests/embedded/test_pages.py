"""What somebody sees whose table lost pages on disk, and who brings their rows back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import ROOT
from runs import run, run_killed_in
from test_find_corruption import find


def flip(shop: Any, relation: str, *blocks: int) -> None:
    """Damage pages of a relation (SQL) on disk, of which the server has nothing in its memory."""
    ((data, path),) = shop.query(
        "shop", f"SELECT current_setting('data_directory'), pg_relation_filepath({relation}::regclass)"
    )
    shop.query("shop", "CHECKPOINT")
    shop.stop()
    shop.start()
    with (Path(data) / path).open("r+b") as file:
        for block in blocks:
            # Of the header, so that it is seen without data checksums, too.
            file.seek(8192 * block + 14)
            file.write(b"\xff\xff")


def repairing(shop: Any, incident: str, **variables: Any) -> list[str]:
    given = {"dr_database": "shop", "dr_confirm": True, "dr_report_dir": str(shop.folder / "incidents")}
    given.update({"dr_incident_id": incident, "dr_strategy": "pages", **variables})
    playbook = str(ROOT / "playbooks" / "dr-corruption.yml")
    return ["ansible-playbook", "-i", str(shop.inventory_file), playbook, "-e", json.dumps(given)]


def repair(shop: Any, incident: str, **variables: Any) -> Any:
    return run(repairing(shop, incident, **variables), shop.environment)


def contents(shop: Any, table: str) -> Any:
    return shop.query("shop", f"SELECT count(*), sum(hashtext(format('%s', o))) FROM public.{table} o")


QUIET = "SET session_replication_role = replica; "


def test_rows_of_damaged_pages_come_back_and_nothing_else_changes(shop: Any) -> None:
    shop.query("shop", "UPDATE public.orders SET what = 'later ' || id WHERE id % 7 = 0")
    shop.query(
        "shop", "CREATE INDEX orders_what ON public.orders (what); ALTER TABLE public.orders CLUSTER ON orders_what"
    )
    trap = "CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$; "
    trap += "CREATE TRIGGER trap BEFORE INSERT OR DELETE ON public.lines EXECUTE FUNCTION public.trap()"
    shop.query("shop", trap)
    before = contents(shop, "orders"), contents(shop, "lines")
    flip(shop, "'public.orders'", 1, 3)
    flip(shop, "'public.lines'", 2)
    with pytest.raises(psycopg2.Error, match="invalid page in block 1"):
        contents(shop, "orders")

    wrong = repair(shop, "wrong", dr_tables="public.none")
    assert wrong.rc == 2
    assert "is said above: See which tables get back the rows of their pages" in wrong.output, wrong.output
    assert "no page of a table is damaged in public.none. What was found: table public." in wrong.output

    plan = repair(shop, "pages", dr_confirm="plan")
    assert plan.rc == 0, plan.output
    assert "cannot read all pages of public.orders, public.lines" in " ".join(plan.output.split())
    # Until it is carried out somebody deletes a row, which does not come back, and changes one.
    shop.query("shop", f"{QUIET}DELETE FROM public.lines WHERE id = 1")
    shop.query("shop", f"{QUIET}UPDATE public.orders SET what = 'new' WHERE id = 1")
    digest = re.findall(r"dr_confirm=(plan-[0-9a-f]+)", plan.output)[-1]
    done = repair(shop, "pages", dr_confirm=digest)
    assert done.rc == 0, done.output
    assert "Recovered and proved" in done.output
    shop.query("shop", f"{QUIET}INSERT INTO public.lines VALUES (1, 1)")
    shop.query("shop", f"{QUIET}UPDATE public.orders SET what = 'order 1' WHERE id = 1 AND what = 'new'")
    assert (contents(shop, "orders"), contents(shop, "lines")) == before
    sorted_by = "SELECT indexrelid::regclass::text FROM pg_index WHERE indisclustered"
    assert shop.query("shop", sorted_by) == [("orders_what",)]
    assert "no damage was found" in find(shop).output


@pytest.mark.whole  # tests/postgres/tables/test_damaged_pages.py shows what it is refused for, on two versions
def test_a_page_that_is_damaged_later_is_not_given_up(shop: Any) -> None:
    before = contents(shop, "orders")
    flip(shop, "'public.orders'", 1)
    run_killed_in(
        repairing(shop, "more"), shop.folder / "incidents" / "more" / "events.jsonl", "restore", 0.3, shop.environment
    )
    flip(shop, "'public.orders'", 3)
    refused = repair(shop, "more")
    assert refused.rc != 0
    assert "more damaged pages than those that were found (1): invalid page in block 3" in refused.output
    assert shop.abandon(dr_incident_id="more").rc == 0
    assert repair(shop, "again").rc == 0
    assert contents(shop, "orders") == before


@pytest.mark.whole  # as other recoveries that are killed; the rows go back in one transaction
def test_a_repair_of_pages_killed_in_the_middle_goes_on(shop: Any) -> None:
    before = contents(shop, "orders")
    flip(shop, "'public.orders'", 0, 2)
    events = shop.folder / "incidents" / "killed" / "events.jsonl"
    for phase in ("restore", "recover"):
        run_killed_in(repairing(shop, "killed"), events, phase, 0.8, shop.environment)
    done = repair(shop, "killed")
    assert done.rc == 0, done.output
    assert contents(shop, "orders") == before


@pytest.mark.whole  # the advice of its refusals
@pytest.mark.parametrize("what", ["toast", "keyless"])
def test_what_no_page_brings_back_comes_back_as_the_refusal_says(shop: Any, what: str) -> None:
    long = "(SELECT string_agg(md5(o.id::text || n), '') FROM generate_series(1, 200) n)"
    shop.query("shop", f"UPDATE public.orders o SET what = {long} WHERE id <= 40")
    if what == "keyless":
        shop.query("shop", "ALTER TABLE public.orders DROP CONSTRAINT orders_pkey CASCADE")
    before = contents(shop, "orders")
    toast = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'public.orders'::regclass)"
    flip(shop, "'public.orders'" if what == "keyless" else toast, 3)
    refused = repair(shop, what)
    assert refused.rc != 0
    options = re.findall(r"-e (dr_[a-z_]+)=([^\s\"]+)", " ".join(refused.output.split()).partition("Bring ")[2])
    given = {name: value.strip("'\"").rstrip(";") for name, value in options if name != "dr_incident_id"}
    assert {"dr_strategy", "dr_target_lsn", "dr_tables"} <= set(given)
    done = repair(shop, f"{what}_whole", **given)
    assert done.rc == 0, done.output
    assert contents(shop, "orders") == before
