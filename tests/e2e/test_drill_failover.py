"""A drill of dr-primary-failure: a copy and its standby as units of the recovery host, beside production's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CONFIG, PLAYBOOK, STANZA, Site
from runs import Run, run

__all__: list[str] = []
UNITS = (
    "ls /run/systemd/system /etc/systemd/system | grep dbre-drill; systemctl list-units --all | grep dbre-drill; true"
)
OWN = "systemctl show 'postgresql*' -p Id,ActiveState,ActiveEnterTimestamp,InvocationID --no-pager"


COPY = f"/var/lib/postgresql/dbre-recovery/drill-{STANZA}"


def drill(shop: Site, incident: str) -> Run:
    for _turn in range(2):
        shop.wait_for_commits(1)
        shop.sql("SELECT pg_switch_wal()")
    shop.primary.run(f"pgbackrest --config={CONFIG} --stanza={STANZA} check")
    command = shop.command(dr_scenario="primary_failure", dr_tables="public.orders", dr_incident_id=incident)
    given = json.loads(command[-1])
    given.pop("dr_confirm")
    command[command.index(PLAYBOOK)] = "dbre.recovery.dr_drill"
    return run([*command[:-1], json.dumps(given)])


def timelines(shop: Site) -> set[str]:
    return {Path(name).name[:8] for name in shop.archive_files()}


@pytest.mark.both_sites
@pytest.mark.whole
def test_the_standby_of_a_copy_takes_its_place_while_production_lives_on(shop: Site) -> None:
    production, before = shop.settings(), timelines(shop)
    units = shop.side.run(OWN, user="root")

    done = drill(shop, "drill-failover")

    assert done.rc == 0, done.output
    report = json.loads((shop.reports / "drill-failover" / "report.json").read_text())
    assert report["verdict"] == "proved"
    comparison = report["drill"]["comparison"]
    assert comparison["equal"] is True
    assert comparison["written"] >= 50
    assert comparison["lost"] == 0
    assert comparison["old_primary"] == "is shut off, its unit masked"
    # Nothing is left, and what is the host's own was left alone.
    assert shop.side.run(UNITS, user="root").strip() == ""
    assert shop.side_instances() == ""
    assert shop.side.run(OWN, user="root") == units
    assert shop.settings() == production
    assert timelines(shop) == before
    shop.wait_for_commits(5)


@pytest.mark.whole
def test_a_drill_whose_standby_dies_too_is_not_green_and_leaves_nothing(shop: Site) -> None:
    shop.side.run(
        f"nohup sh -c 'until [ -e {COPY}/before.json ]; do sleep 0.1; done;"
        f" systemctl kill --signal=SIGKILL dbre-drill-{STANZA}-standby' > /dev/null 2>&1 &",
        user="root",
    )
    before = timelines(shop)

    done = drill(shop, "drill-dies")

    assert done.rc != 0
    assert "Production was not touched." in done.output, done.output
    report = json.loads((shop.reports / "drill-dies" / "report.json").read_text())
    assert report["verdict"] == "not_recovered"
    assert shop.side.run(UNITS, user="root").strip() == ""
    assert shop.side_instances() == ""
    assert timelines(shop) == before
