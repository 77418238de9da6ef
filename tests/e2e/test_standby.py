"""What a user sees of dr-table-drop with dr_source=standby, on real hosts."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from conftest import STANZA, Site
from runs import run as run_command

pytestmark = pytest.mark.parametrize("site", ["with_a_standby"], indirect=True, scope="session")


def restores(site: Site) -> str:
    """How often pgBackRest has restored anything, on both hosts."""
    count = f"cat /var/log/pgbackrest/{STANZA}-restore.log* 2>/dev/null | grep -c 'restore command begin' || true"
    return site.primary.run(count) + site.side.run(count)


def standby_state(site: Site) -> str:
    """In recovery, delay, target, archive_mode, paused, timeline, and how it follows."""
    return site.sql_on(
        site.side,
        "SELECT pg_is_in_recovery(), current_setting('recovery_min_apply_delay'), "
        " current_setting('recovery_target_lsn'), current_setting('archive_mode'), pg_is_wal_replay_paused(),"
        " (SELECT timeline_id FROM pg_control_checkpoint()),"
        " (SELECT status FROM pg_stat_wal_receiver) = 'streaming' OR wait_event = 'RecoveryApplyDelay'"
        " FROM pg_stat_activity WHERE backend_type = 'startup'",
    )


FOLLOWS = "t|1h||on|f|1|t"


def test_a_dropped_table_is_back_from_the_delayed_standby_without_a_restore(shop: Site) -> None:
    definitions, before = shop.definitions(), restores(shop)
    shop.sql("DROP TABLE public.orders CASCADE")
    shop.wait_for_commits(50, "events")

    checked = shop.recover("--check", dr_tables="public.orders", dr_source="standby", dr_confirm=False)
    assert checked.rc == 0, checked.output
    assert "it replays the incident in" in checked.output
    assert standby_state(shop) == FOLLOWS

    run = shop.recover(dr_tables="public.orders", dr_source="standby", dr_incident_id="delayed")

    assert run.rc == 0, run.output
    shop.wait_for_commits(20)
    shop.stop_writer()
    assert shop.committed("orders") <= shop.present("orders")
    assert shop.committed("events") <= shop.present("events")
    assert shop.definitions() == definitions
    assert standby_state(shop) == FOLLOWS
    assert restores(shop) == before
    assert len(run.tasks) <= 41, "\n".join(run.tasks)
    report = json.loads((shop.reports / "delayed" / "report.json").read_text())
    assert (report["verdict"], report["instance"]["source"], report["backup"]) == ("proved", "standby", None)
    assert report["rpo"]["transactions"] == 0


@pytest.mark.parametrize("phase", ["restore", "report"])
def test_killed_in_a_phase_and_run_again_the_standby_follows_as_if_never_killed(shop: Site, phase: str) -> None:
    definitions = shop.definitions()
    shop.sql("DROP TABLE public.orders CASCADE")
    given = {"dr_tables": "public.orders", "dr_source": "standby", "dr_incident_id": f"standby-{phase}"}

    shop.recover_killed_in(phase, 2 if phase == "restore" else 0.5, **given)
    run = shop.recover(**given)

    assert run.rc == 0, run.output
    shop.wait_for_commits(5)
    shop.stop_writer()
    assert shop.committed("orders") <= shop.present("orders")
    assert shop.definitions() == definitions
    assert standby_state(shop) == FOLLOWS


def test_a_plan_that_is_not_confirmed_leaves_the_standby_held_and_the_command_lets_it_follow(shop: Site) -> None:
    shop.sql("DROP TABLE public.prices")

    run = shop.recover(dr_tables="prices", dr_source="standby", dr_confirm=False, dr_incident_id="asked")

    assert run.rc != 0
    assert "stays paused" in run.output
    assert standby_state(shop).split("|")[4] == "t"
    told = r"ansible-playbook -i \S+ dbre\.recovery\.dr_abandon -e dr_incident_id=asked -e dr_report_dir=[^\s)]+"
    (command,) = set(re.findall(told, run.output))
    given_up = run_command(shlex.split(command))
    assert given_up.rc == 0, given_up.output
    assert standby_state(shop) == FOLLOWS
