"""What the playbook tells people to do, done as it says, leads to recovery."""

from __future__ import annotations

import re
import time
from typing import Any

import psycopg2
import pytest
from conftest import CONTROL, Shop


def drop(shop: Shop, table: str) -> str:
    """Drop a table; the number of the transaction."""
    connection = shop.connect("shop")
    connection.autocommit = False
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {table} CASCADE")
        cursor.execute("SELECT pg_current_xact_id()::text")
        (xid,) = cursor.fetchone()
    connection.close()
    return str(xid)


def side_files(shop: Shop, incident: str) -> str:
    """What identifies the restored copy on disk: another restore makes other files."""
    return shop.run("stat", "-c", "%i %W", shop.folder / "side" / incident / "data" / "PG_VERSION", check=False)


@pytest.mark.whole
def test_what_a_role_that_is_gone_had_is_given_back_by_the_command_in_the_report(shop: Shop) -> None:
    shop.query(CONTROL, "CREATE ROLE temp_clerk")
    shop.query("shop", "GRANT SELECT ON public.orders TO temp_clerk")
    drop(shop, "public.orders")
    shop.query(CONTROL, "DROP ROLE temp_clerk")
    in_part = shop.recover(dr_tables="public.orders", dr_incident_id="role")
    assert in_part.rc == 2, in_part.output
    assert "Recovered in part: missing" in in_part.output
    assert shop.count("public.orders") == 3000
    left = [item["command"] for item in shop.report("role")["left_to_do"] if "CREATE ROLE" in (item["command"] or "")]
    for command in left:
        shop.query("shop", command)
    assert shop.query("shop", "SELECT has_table_privilege('temp_clerk', 'public.orders', 'SELECT')") == [(True,)]
    shop.query("shop", "DROP OWNED BY temp_clerk")
    shop.query(CONTROL, "DROP ROLE temp_clerk")


@pytest.mark.whole
def test_an_explicit_time_names_the_target_and_its_plan_is_carried_out_by_a_second_run(shop: Shop) -> None:
    time.sleep(1.1)
    moment = shop.query("shop", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00')")[0][0]
    time.sleep(1.1)
    drop(shop, "public.lines")
    given = {"dr_tables": "public.lines", "dr_target_time": moment, "dr_load": "", "dr_min_rows": ""}
    planned = shop.recover("--tags", "plan", dr_confirm="", **given)
    assert planned.rc == 0, planned.output
    assert shop.query("shop", "SELECT to_regclass('public.lines') IS NULL")[0][0]
    told = re.search(r"-e dr_incident_id=(\S+) -e dr_confirm=(plan-[0-9a-f]+)", planned.output)
    assert told is not None, planned.output
    run = shop.recover(dr_confirm=told[2], dr_incident_id=told[1], **given)
    assert run.rc == 0, run.output
    assert shop.count("public.lines") == 3000
    assert side_files(shop, told[1]) == ""


def test_a_misspelt_table_is_corrected_under_the_same_id_and_the_restored_copy_is_used_again(shop: Shop) -> None:
    shop.query("shop", 'CREATE TABLE public."Lines" (id int)')
    given: dict[str, Any] = {"dr_target_xid": drop(shop, "public.lines"), "dr_incident_id": "misspelt"}
    early = shop.recover(dr_tables="public.linse", **given)
    assert early.rc != 0
    assert "linse" in early.output
    assert "public.lines" in early.output
    assert side_files(shop, "misspelt") == ""  # WAL tells that it was not there, so nothing was restored
    late = shop.recover(dr_schemas="pulbic", **given)
    assert late.rc != 0
    assert "pulbic" in late.output
    restored = side_files(shop, "misspelt")
    assert restored
    doubtful = shop.recover(dr_tables="Lines", **given)
    assert doubtful.rc != 0
    assert 'has "public"."Lines" and "public"."lines".' in doubtful.output.replace('\\"', '"')
    mended = shop.recover(dr_tables='["public.lines"]', dr_keep_side_instance=True, **given)
    assert mended.rc == 0, mended.output
    assert shop.count("public.lines") == 3000
    assert side_files(shop, "misspelt") == restored
    report = shop.report("misspelt")
    assert report["verdict"] == "proved"
    protection, removal = [item["command"] for item in report["left_to_do"]]
    removed = shop.obey(removal)
    assert removed.rc == 0, removed.output
    assert "What incident misspelt kept beside production is given up." in " ".join(removed.output.split())
    assert side_files(shop, "misspelt") == ""
    report = shop.report("misspelt")
    assert (report["verdict"], len(report["left_to_do"])) == ("proved", 1)
    protected = shop.obey(protection)
    assert protected.rc == 0, protected.output
    with pytest.raises(psycopg2.Error, match="dbre.allow_drop"):
        drop(shop, "public.lines")


@pytest.mark.whole
def test_a_plan_older_than_what_happened_since_is_made_anew_and_shown(shop: Shop) -> None:
    first = drop(shop, "public.lines")
    refused = shop.recover(dr_tables="public.linse", dr_target_xid=first, dr_incident_id="twice")
    assert refused.rc != 0
    shop.query("shop", "CREATE TABLE public.lines AS SELECT i AS id FROM generate_series(1, 7) i")
    second = drop(shop, "public.lines")
    again = shop.recover(dr_tables="public.lines", dr_target_xid=second, dr_incident_id="twice")
    assert again.rc == 0, again.output
    assert again.output.count("Plan of incident twice") == 1
    assert f"transaction {second}" in again.output
    assert shop.count("public.lines") == 7


def test_a_copy_beside_is_told_as_a_recovery_in_part_each_time_and_removed_by_one_command(shop: Shop) -> None:
    shop.query("shop", "CREATE TABLE public.prices AS SELECT i AS id FROM generate_series(1, 500) i")
    shop.query("shop", "TRUNCATE public.prices")
    beside = shop.recover(dr_tables="public.prices", dr_incident_id="beside")
    assert beside.rc == 2, beside.output
    assert "Recovered in part: missing" in beside.output
    assert shop.report("beside")["headline"] in " ".join(beside.output.split())
    assert shop.count("recovered_beside.prices") == 500
    again = shop.recover(dr_tables="public.prices", dr_incident_id="beside")
    assert again.rc == 2
    assert "Incident beside has ended already." in again.output
    assert "running this again with the same dr_incident_id changes nothing" in " ".join(again.output.split())
    assert again.changed == 0
    shop.query("shop", shop.report("beside")["kept"][-1]["command"])
    assert shop.query("shop", "SELECT nspname FROM pg_namespace WHERE nspname ~ '^recovered_'") == []


@pytest.mark.whole
def test_a_merge_without_a_key_is_refused_before_the_restore_and_its_rows_come_by_the_commands_of_a_copy(
    shop: Shop,
) -> None:
    shop.query("shop", "CREATE TABLE public.readings (at timestamptz, v int)")
    shop.query("shop", "INSERT INTO public.readings SELECT now(), g FROM generate_series(1, 2000) g")
    shop.query("shop", "DELETE FROM public.readings WHERE v > 500")
    given = {"dr_tables": "public.readings", "dr_incident_id": "keyless"}
    early = shop.recover(dr_load="merge", **given)
    assert early.rc == 2, early.output
    assert "public.readings on production cannot be merged" in early.output
    assert "Run the same command with -e dr_load=beside" in " ".join(early.output.split())
    assert not (shop.folder / "side" / "keyless").exists()

    shop.query("shop", "INSERT INTO public.readings VALUES (now(), 3000)")
    beside = shop.recover(dr_load="beside", **given)
    assert "Recovered in part" in beside.output, beside.output
    commands = [str(item["command"]) for item in shop.report("keyless")["left_to_do"]]
    shop.query("shop", next(command for command in commands if "INSERT INTO" in command))
    # Whoever has no key takes all rows as they were, those of now are kept beside.
    assert shop.query("shop", "SELECT count(*) FROM public.readings WHERE v BETWEEN 501 AND 2000") == [(1500,)]


@pytest.mark.whole
def test_an_event_trigger_that_fires_always_is_refused_before_the_restore_and_then_in_the_plan(shop: Shop) -> None:
    shop.query("shop", "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    shop.query("shop", "CREATE EVENT TRIGGER noticed ON ddl_command_end EXECUTE FUNCTION f()")
    shop.query("shop", "ALTER EVENT TRIGGER noticed ENABLE ALWAYS")
    given = {"dr_target_xid": drop(shop, "public.lines"), "dr_incident_id": "noticed", "dr_tables": "public.lines"}
    if int(shop.query("shop", "SHOW server_version_num")[0][0]) < 170000:
        refused = shop.recover(**given)
        assert refused.rc != 0
        assert "Plan of incident" not in refused.output
        assert side_files(shop, "noticed") == ""
        assert 'ALTER EVENT TRIGGER "noticed" ENABLE; Then run again' in refused.output.replace("\\", "")
        shop.query("shop", 'ALTER EVENT TRIGGER "noticed" ENABLE')
    planned = shop.recover("--check", **given)
    assert planned.rc == 0, planned.output
    assert "event trigger noticed" in planned.output
    assert "connections: takes at most" in planned.output
