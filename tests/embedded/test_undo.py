"""One transaction's rows are undone on a production in one folder, and what came later stays."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from conftest import ROOT, Shop
from runs import run, run_killed_in

PLAYBOOK = ROOT / "playbooks" / "dr-corruption.yml"


def undoing(shop: Shop, *words: str, **variables: Any) -> list[str]:
    given = {"dr_database": "shop", "dr_confirm": True, "dr_report_dir": str(shop.folder / "incidents"), **variables}
    return ["ansible-playbook", "-i", str(shop.inventory_file), str(PLAYBOOK), "-e", json.dumps(given), *words]


def undo(shop: Shop, *words: str, **variables: Any) -> Any:
    return run(undoing(shop, *words, **variables), shop.environment)


def transact(shop: Shop, *statements: str) -> int:
    """Statements in one transaction, and its number."""
    return int(shop.query("shop", "; ".join([*statements, "SELECT pg_current_xact_id()::text"]))[0][0])


def number(shop: Shop, query: str) -> int:
    return int(shop.query("shop", f"SELECT count(*) FROM {query}")[0][0])


def test_an_update_without_where_is_undone_but_for_what_was_changed_since(shop: Shop) -> None:
    shop.query("shop", "CREATE TABLE public.other (id int PRIMARY KEY)")
    xid = transact(shop, "UPDATE public.orders SET what = 'x'", "DELETE FROM public.lines WHERE id > 2990")
    shop.query("shop", "UPDATE public.orders SET what = 'later' WHERE id <= 7")
    shop.query("shop", "INSERT INTO public.other SELECT generate_series(1, 5)")

    planned = undo(shop, "--check", dr_target_xid=xid, dr_incident_id="undone")
    assert planned.rc == 0, planned.output
    assert "public.orders: update, 3,000 rows" in planned.output
    assert "1 later transaction changed the same tables" in planned.output
    assert "dr_strategy=rows: RECOMMENDED, the smallest that suffices" in " ".join(planned.output.split())
    assert shop.count("public.lines") == 2990

    events = shop.folder / "incidents" / "undone" / "events.jsonl"
    begun = undoing(shop, dr_target_xid=xid, dr_incident_id="undone")
    run_killed_in(begun, events, "recover", 0, shop.environment)
    given_up = shop.abandon(dr_incident_id="undone")
    assert given_up.rc == 0, given_up.output
    words = " ".join(given_up.output.split())
    assert "/side/undone on production: removed. What was loaded aside: removed." in words
    assert shop.query("shop", "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recovered%'") == []

    undone = undo(shop, dr_target_xid=xid, dr_incident_id="undone")
    assert undone.rc == 2, undone.output
    assert "equal in rows" not in undone.output
    assert "Recovered in part: missing 7 rows of public.orders" in undone.output
    assert number(shop, "public.orders WHERE what = 'order ' || id") == 2993
    assert number(shop, "public.orders WHERE what = 'later'") == 7
    assert shop.count("public.lines") == 3000
    assert shop.count("public.other") == 5

    # Kept before anything moved, and only its hashes are in the record.
    kept = json.loads((shop.folder / "incidents" / "undone" / "evidence" / "server_evidence.json").read_text())
    assert {"controldata.txt", "statistics.json", "log.txt", "wal.txt"} <= {one["name"] for one in kept["files"]}
    sums = subprocess.run(["sha256sum", f"{kept['path']}/SHA256SUMS"], capture_output=True, text=True, check=True)
    assert sums.stdout.split()[0] == kept["sha256"]

    report = shop.report("undone")
    assert report["verdict"] == "in_part"
    assert report["unproved"] == []
    (conflicts,) = [item for item in report["left_to_do"] if "orders" in item["what"]]
    assert number(shop, f"({conflicts['command'].rstrip(';')}) q") == 7
    (back,) = [item for item in report["left_to_do"] if "Take the undo back" in item["what"]]
    taken = shop.obey(back["command"])
    assert taken.rc == 0, taken.output
    assert number(shop, "public.orders WHERE what = 'x'") == 2993
    assert shop.count("public.lines") == 2990


def test_killed_it_goes_on_and_what_only_points_to_a_row_that_stays_goes_back(shop: Shop) -> None:
    for statement in (
        "CREATE TABLE public.rooms (id int PRIMARY KEY, code text UNIQUE)",
        "INSERT INTO public.rooms SELECT g, 'room' || g FROM generate_series(1, 20) g",
        "CREATE TABLE public.stays (id int PRIMARY KEY, room int REFERENCES public.rooms, note text, day int UNIQUE)",
        "INSERT INTO public.stays SELECT g, g, 'fine', g FROM generate_series(1, 20) g",
    ):
        shop.query("shop", statement)
    xid = transact(
        shop, "UPDATE public.rooms SET code = 'x' || id", "UPDATE public.stays SET note = 'wrong', day = day + 100"
    )
    shop.query("shop", "INSERT INTO public.rooms VALUES (100, 'room3')")
    given = {"dr_target_xid": xid, "dr_incident_id": "goes-on"}
    events = shop.folder / "incidents" / "goes-on" / "events.jsonl"
    run_killed_in(undoing(shop, **given), events, "recover", 0, shop.environment)

    undone = undo(shop, **given)
    assert "Recovered in part: missing 1 row of public.rooms." in " ".join(undone.output.split()), undone.output
    assert shop.query("shop", "SELECT id, code FROM public.rooms WHERE code <> 'room' || id ORDER BY 1") == [
        (3, "x3"),
        (100, "room3"),
    ]
    assert number(shop, "public.stays WHERE note = 'fine' AND day = id") == 20
    (missing,) = shop.report("goes-on")["missing"]
    assert "a unique key: production has another row with the same values" in missing["why"]


def test_a_transaction_that_did_more_than_to_change_rows_is_refused_with_the_way_that_works(shop: Shop) -> None:
    xid = transact(shop, "UPDATE public.orders SET what = 'x'", "ALTER TABLE public.orders ADD more int")
    refused = undo(shop, dr_target_xid=xid)
    assert refused.rc != 0
    assert "did not only change rows" in refused.output
    assert f"dr_target_xid={xid}" in refused.output

    # Known before anything is restored, from the catalogue.
    shop.query("shop", "CREATE TABLE public.notes (what text)")
    xid = transact(shop, "INSERT INTO public.notes VALUES ('x')", "UPDATE public.orders SET what = 'x'")
    refused = undo(shop, "--check", dr_target_xid=xid)
    assert refused.rc != 0
    assert "public.notes on production: no primary key" in " ".join(refused.output.split())
    assert "with -e dr_tables=public.orders, or put all" in " ".join(refused.output.split())


def test_without_a_transaction_it_says_how_to_find_it(shop: Shop) -> None:
    refused = undo(shop)
    assert refused.rc != 0
    assert "dbre.recovery.what_happened" in refused.output


@pytest.mark.whole  # a minute and more, for what only its size shows
def test_a_million_rows_come_back_in_one_transaction_and_go_again(shop: Shop) -> None:
    shop.query("shop", "CREATE TABLE public.owners (id int PRIMARY KEY)")
    shop.query("shop", "INSERT INTO public.owners SELECT generate_series(1, 1000)")
    shop.query("shop", "CREATE TABLE public.audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)")
    shop.query(
        "shop",
        "CREATE TABLE public.big (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "owner int NOT NULL REFERENCES public.owners, amount numeric NOT NULL CHECK (amount > 0), "
        "twice numeric GENERATED ALWAYS AS (amount * 2) STORED, note text)",
    )
    shop.query("shop", "CREATE TABLE public.parts (big bigint PRIMARY KEY REFERENCES public.big)")
    shop.query(
        "shop",
        "CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := 'changed'; "
        "RETURN NEW; END$$; CREATE TRIGGER noted BEFORE UPDATE ON public.big FOR EACH ROW EXECUTE FUNCTION "
        "public.noted(); ALTER TABLE public.big ENABLE ALWAYS TRIGGER noted",
    )
    shop.query(
        "shop",
        "CREATE FUNCTION public.audited() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.audit (what) "
        "SELECT 'update of big'; RETURN NULL; END$$; CREATE TRIGGER audited AFTER UPDATE ON public.big "
        "EXECUTE FUNCTION public.audited()",
    )
    shop.query(
        "shop",
        "INSERT INTO public.big (owner, amount, note) SELECT 1 + i % 1000, i, 'note ' || i "
        "FROM generate_series(1, 1000000) i; INSERT INTO public.parts SELECT generate_series(1, 1000)",
    )
    shop.backup()

    def state(where: str = "true") -> Any:
        rows = f"SELECT count(*), sum(hashtextextended(b::text, 0)::numeric) FROM public.big b WHERE {where}"
        return shop.query("shop", rows)[0]

    kept, changed = "id % 250 <> 0", "id % 250 = 0"
    before = state(kept)
    xid = transact(shop, "UPDATE public.big SET amount = amount + 1")
    shop.query("shop", f"UPDATE public.big SET amount = 7 WHERE {changed}")
    damaged, later = state(), state(changed)
    audit = shop.query("shop", "SELECT id, what FROM public.audit ORDER BY 1")
    assert state(kept) != before

    undone = undo(shop, dr_target_xid=xid, dr_incident_id="million")
    assert undone.rc == 2, undone.output
    assert "Recovered in part: missing 4,000 rows of public.big" in " ".join(undone.output.split())
    assert state(kept) == before
    assert state(changed) == later, "what was changed since is as it was left"
    assert shop.query("shop", "SELECT id, what FROM public.audit ORDER BY 1") == audit[1:], "its own row is gone"
    writers = f"SELECT count(DISTINCT xmin::text) FROM public.big WHERE {kept}"
    assert shop.query("shop", writers) == [(1,)]

    (back,) = [item for item in shop.report("million")["left_to_do"] if "Take the undo back" in item["what"]]
    taken = shop.obey(back["command"])
    assert taken.rc == 0, taken.output
    assert state() == damaged
    assert shop.query("shop", "SELECT id, what FROM public.audit ORDER BY 1") == audit


@pytest.mark.whole
def test_several_transactions_are_taken_back_together_and_what_others_did_between_stays(shop: Shop) -> None:
    shop.query("shop", "CREATE TABLE public.prices (id int PRIMARY KEY, cents int NOT NULL)")
    shop.query("shop", "INSERT INTO public.prices SELECT i, 100 + i FROM generate_series(1, 100) i")
    prices = "SELECT id, cents FROM public.prices ORDER BY id"
    before = dict(shop.query("shop", prices))
    in_subtransaction = "DO $$BEGIN DELETE FROM public.lines; EXCEPTION WHEN division_by_zero THEN NULL; END$$"
    first = transact(shop, "UPDATE public.prices SET cents = 1 WHERE id <= 50", in_subtransaction)
    shop.query("shop", "UPDATE public.prices SET cents = 2 WHERE id = 10")  # comes between, and is taken over
    shop.query("shop", "UPDATE public.prices SET cents = 3 WHERE id = 90")  # of a row that only the second one has
    second = transact(
        shop,
        "UPDATE public.prices SET cents = cents + 1000 WHERE id <= 20 OR id = 90",
        "DELETE FROM public.prices WHERE id = 30",
        "INSERT INTO public.prices VALUES (200, 7)",
    )
    shop.query("shop", "UPDATE public.prices SET cents = 4 WHERE id = 40")
    damaged = dict(shop.query("shop", prices))

    refused = undo(shop, dr_target_xid=f"{first},{second}", dr_strategy="tables")
    assert refused.rc != 0
    assert "dr_strategy=rows, which takes several" in " ".join(refused.output.split())

    # In whatever order they are named; what somebody approves names both.
    planned = undo(shop, "--check", dr_target_xid=f"{second},{first}", dr_incident_id="both")
    shown = " ".join(planned.output.split())
    assert f"transaction {first}, committed" in shown
    assert f"and with it transaction {second}, committed" in shown
    undone = undo(shop, dr_target_xid=f"{second}, {first}", dr_incident_id="both")
    words = " ".join(undone.output.split())
    assert "Recovered in part: missing 2 rows of public.prices" in words, undone.output
    assert shop.count("public.lines") == 3000
    assert dict(shop.query("shop", prices)) == {**before, 10: 1002, 40: 4, 90: 3}
    reasons = {item["why"].split(". They are in")[0] for item in shop.report("both")["left_to_do"]}
    assert {
        "1 row stayed as they are: another transaction changed it between those that are taken back",
        "1 row stayed as they are: changed since",
    } <= reasons

    (back,) = [item for item in shop.report("both")["left_to_do"] if "Take the undo back" in item["what"]]
    taken = shop.obey(back["command"])
    assert taken.rc == 0, taken.output
    assert dict(shop.query("shop", prices)) == damaged
    assert shop.count("public.lines") == 0


@pytest.mark.whole  # as the one with several, with what cannot be
def test_several_with_columns_changed_between_are_refused_and_a_table_made_between_is_no_obstacle(shop: Shop) -> None:
    shop.query("shop", "CREATE TABLE public.prices (id int PRIMARY KEY, cents int NOT NULL)")
    shop.query("shop", "INSERT INTO public.prices SELECT i, 100 + i FROM generate_series(1, 100) i")
    first = transact(shop, "UPDATE public.prices SET cents = 1 WHERE id <= 50")
    # A table that only the second one has, made in between, is no obstacle.
    shop.query("shop", "CREATE TABLE public.added (id int PRIMARY KEY, what text)")
    shop.query("shop", "INSERT INTO public.added SELECT i, 'a' FROM generate_series(1, 10) i")
    second = transact(shop, "UPDATE public.added SET what = 'b'", "UPDATE public.prices SET cents = 2 WHERE id > 90")
    undone = undo(shop, dr_target_xid=f"{first},{second}", dr_incident_id="made")
    assert undone.rc == 0, undone.output
    assert number(shop, "public.prices WHERE cents = 100 + id") == 100
    assert number(shop, "public.added WHERE what = 'a'") == 10

    first = transact(shop, "UPDATE public.prices SET cents = 1 WHERE id <= 50")
    shop.query("shop", "ALTER TABLE public.prices ADD COLUMN more int DEFAULT 7")
    second = transact(shop, "UPDATE public.prices SET more = 8 WHERE id > 50")
    refused = undo(shop, dr_target_xid=f"{first},{second}", dr_incident_id="altered")
    assert refused.rc != 0
    words = " ".join(refused.output.split())
    assert "the columns of public.prices were changed between the transactions" in words
    assert number(shop, "public.prices WHERE cents = 1") == 50
    given_up = shop.abandon(dr_incident_id="altered")
    assert given_up.rc == 0, given_up.output
