"""What a user sees whose whole cluster goes back, on hosts where systemd has the server."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from conftest import Site
from runs import Run, run

pytestmark = pytest.mark.whole  # tests/embedded shows the rest, where pg_ctl has it

DAMAGE = "ALTER TABLE public.orders DROP COLUMN note CASCADE; DELETE FROM public.events WHERE id % 2 = 0"


def go_back(site: Site, **given: Any) -> Run:
    variables = {"dr_database": "shop", "dr_report_dir": str(site.reports), "dr_confirm": True, **given}
    return run(
        ["ansible-playbook", "-i", str(site.inventory), "dbre.recovery.dr_corruption", "-e", json.dumps(variables)]
    )


def units(site: Site) -> str:
    """The server's unit, and whether systemd knows that it runs."""
    return site.primary.run(
        "systemctl list-units --no-legend --plain 'postgresql@*' | awk '{print $1, $3, $4}'", user="root"
    )


@pytest.mark.parametrize("way", ["cluster_swap", "cluster_in_place"])
def test_the_cluster_as_it_was_serves_under_its_unit(shop: Site, way: str) -> None:
    incident = way.replace("_", "-")
    shop.wait_for_commits(20)
    definitions, unit = shop.definitions(), units(shop)
    data = shop.sql("SHOW data_directory")
    shop.stop_writer()
    before = shop.present("orders"), shop.present("events")
    xid = shop.sql(f"BEGIN; {DAMAGE}; SELECT pg_current_xact_id(); COMMIT").splitlines()[-1]
    overwrite = {"dr_overwrite": data} if way == "cluster_in_place" else {}
    done = go_back(shop, dr_target_xid=xid, dr_strategy=way, dr_incident_id=incident, **overwrite)
    # What the life beside did since is missing, as asked for.
    failed = re.findall(r"ERROR.*", done.output)
    assert re.search(r"Recovered (and proved|in part: missing what \d+ later transactions did)", done.output), failed
    assert (shop.present("orders"), shop.present("events")) == before
    assert shop.definitions() == definitions
    assert units(shop) == unit
    assert shop.sql("SHOW data_directory") == data
    shop.primary.run(f"systemctl restart {unit.split()[0]}", user="root")
    assert shop.sql("SELECT timeline_id > 1 FROM pg_control_checkpoint()") == "t"

    report = json.loads((shop.reports / incident / "report.json").read_text())
    assert report["unproved"] == []
    offers = {item["what"].split()[0]: item["command"] for item in report["left_to_do"] if item["command"]}
    if way == "cluster_swap":
        taken = run(shlex.split(offers["Take"]))
        assert taken.rc == 0, taken.output
        assert shop.sql("SELECT count(*) FROM public.events WHERE id % 2 = 0") == "0"
        assert units(shop) == unit
    removed = run(shlex.split(offers["Remove"]))
    assert removed.rc == 0, removed.output
    assert shop.primary.run(f"ls -d {data}*").split() == [data]
