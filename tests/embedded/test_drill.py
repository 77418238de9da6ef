"""What somebody sees who drills: it happens in a copy, production stays as it is, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PLAYBOOK, Shop
from runs import Run, run


def drill(shop: Shop, **given: Any) -> Run:
    return run(drill_command(shop, **given), shop.environment)


def drill_command(shop: Shop, **given: Any) -> list[str]:
    variables = {
        "dr_scenario": "table_drop",
        "dr_database": "shop",
        "dr_tables": "public.orders",
        "dr_report_dir": str(shop.folder / "incidents"),
        **given,
    }
    playbook = str(PLAYBOOK.with_name("dr-drill.yml"))
    return ["ansible-playbook", "-i", str(shop.inventory_file), playbook, "-e", json.dumps(variables)]


def archive(shop: Shop) -> None:
    """Have the database of this test in the archive, and WAL behind it."""
    for _turn in range(2):
        shop.query("shop", "UPDATE public.orders SET what = what WHERE id < 10")
        shop.query("shop", "SELECT pg_switch_wal()")
    shop.pgbackrest("check")


def repository(shop: Shop) -> set[str]:
    """Backups, and timelines of the archive; production itself adds segments meanwhile."""
    return (
        {str(path.relative_to(shop.repository)) for path in shop.repository.glob("*/*/*") if path.is_dir()}
        | {path.name for path in shop.repository.rglob("*.history")}
        | {path.name[:8] for path in shop.repository.glob("archive/*/*/*")}
    )


def processes_in(folder: Path) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [str(place)] if str(place.readlink()).startswith(str(folder)) else []
        except OSError:
            continue
    return found


def test_a_table_is_lost_and_recovered_in_a_copy_while_production_lives_on(shop: Shop) -> None:
    archive(shop)
    before, definitions = repository(shop), shop.schema_dump("shop")
    timeline = shop.query("shop", "SELECT timeline_id FROM pg_control_checkpoint()")
    stop, written = threading.Event(), []

    def live() -> None:
        while not stop.wait(0.02):
            number = 10000 + len(written)
            shop.query("shop", "INSERT INTO public.orders VALUES (%s, 'placed during the drill')", number)
            written.append(number)

    life = threading.Thread(target=live)
    life.start()
    try:
        done = drill(shop, dr_incident_id="drill-drop")
    finally:
        stop.set()
        life.join()

    assert done.rc == 0, done.output
    assert "Drill drill-drop: Recovered and proved." in done.output
    # Production: every commit of its own, nothing else.
    assert shop.count("public.orders") == 3000 + len(written)
    assert shop.schema_dump("shop") == definitions
    assert shop.query("shop", "SELECT timeline_id FROM pg_control_checkpoint()") == timeline
    shop.query("shop", "SELECT pg_switch_wal()")
    shop.pgbackrest("check")
    assert repository(shop) == before
    # The report: of a drill, with what was measured.
    report = shop.report("drill-drop")
    assert report["drill"]["of"] == "production"
    assert report["drill"]["comparison"]["equal"] is True
    assert (report["drill"]["comparison"]["written"], report["drill"]["comparison"]["lost"]) == (50, 0)
    assert report["rto"]["seconds"] > 0
    assert report["rto"]["objective_seconds"]
    assert report["rpo"]["seconds"] is not None
    page = (shop.folder / "incidents" / "drill-drop" / "report.html").read_text()
    assert "DRILL" in page
    assert "Production was not touched." in page
    assert processes_in(shop.folder / "side") == []


def test_a_drill_whose_recovery_fails_is_not_green_and_leaves_nothing(shop: Shop) -> None:
    archive(shop)
    before = repository(shop)
    stop = threading.Event()

    def harm() -> None:
        """Take the copy's backup away as soon as its damage is done."""
        place = shop.folder / "side" / "drill-main"
        while not stop.wait(0.05):
            if (place / "before.json").exists():
                shop.run("sh", "-c", f"mv {place}/repository/backup {place}/repository/away 2>/dev/null || true")
                return

    harming = threading.Thread(target=harm)
    harming.start()
    try:
        done = drill(shop, dr_incident_id="drill-fails")
    finally:
        stop.set()
        harming.join()

    assert done.rc != 0
    assert re.search(r"Drill drill-fails: Not recovered.* Production was not touched", done.output), done.output
    report = shop.report("drill-fails")
    assert report["verdict"] == "not_recovered"
    assert "public.orders is not there" in str(report["drill"]["doubts"])
    assert shop.count("public.orders") == 3000
    assert repository(shop) == before
    assert processes_in(shop.folder / "side") == []
    assert not (shop.folder / "side" / "drill-main").exists()


def test_a_scenario_without_a_drill_says_why(shop: Shop) -> None:
    refused = drill(shop, dr_scenario="rds_failover")
    assert refused.rc != 0
    assert "On AWS a copy is a database of its own" in refused.output
    assert "Nothing was touched." in refused.output


def test_a_failover_is_not_drilled_where_nobody_may_fence_a_unit(shop: Shop) -> None:
    refused = drill(shop, dr_scenario="primary_failure", dr_incident_id="drill-rootless")
    assert refused.rc != 0
    assert "needs systemd and root on" in " ".join(refused.output.split())
    assert "Nothing was touched." in refused.output
    assert not (shop.folder / "incidents" / "drill-rootless").exists()
    assert not (shop.folder / "side").exists()


@pytest.mark.whole
def test_rows_that_an_update_made_wrong_in_the_copy_are_taken_back(shop: Shop) -> None:
    # Whoever owns them may have code in them, and may not log in.
    shop.query("shop", "ALTER TABLE public.orders OWNER TO clerk")
    shop.query("shop", "ALTER ROLE clerk NOLOGIN")
    archive(shop)
    done = drill(shop, dr_scenario="corruption", dr_incident_id="drill-update")
    assert done.rc == 0, done.output
    report = shop.report("drill-update")
    assert report["scenario"] == "corruption"
    assert report["drill"]["comparison"]["equal"] is True
    assert shop.query("shop", "SELECT count(*) FROM public.orders WHERE what IS NULL") == [(0,)]
    assert shop.query("shop", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'clerk'") == [(False,)]


@pytest.mark.whole  # as test_pages.py, in a copy
def test_pages_that_were_spoiled_in_the_copy_are_repaired(shop: Shop) -> None:
    archive(shop)
    done = drill(shop, dr_scenario="corruption", dr_damage="pages", dr_incident_id="drill-pages")
    assert done.rc == 0, done.output
    report = shop.report("drill-pages")
    assert report["drill"]["comparison"]["equal"] is True
    assert report["parameters"]["strategy"] == "pages"
    assert "Recovered and proved" in done.output


def test_a_killed_drill_is_in_nobodys_way_once_it_was_given_up(shop: Shop) -> None:
    archive(shop)
    place = shop.folder / "side" / "drill-main"
    command = drill_command(shop, dr_incident_id="drill-killed")
    with subprocess.Popen(
        command, env={**os.environ, **shop.environment}, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        end = time.monotonic() + 120
        while not (place / "marker.json").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)

    other = drill(shop, dr_incident_id="another")
    assert other.rc != 0
    assert "drill drill-killed has its copy at" in other.output
    assert place.exists()
    given_up = shop.abandon(dr_incident_id="drill-killed")
    assert given_up.rc == 0, given_up.output
    assert "Drill drill-killed is given up." in given_up.output
    assert not place.exists()
    assert processes_in(shop.folder / "side") == []
    assert shop.count("public.orders") == 3000
