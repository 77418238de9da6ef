"""What a user sees of dr-table-drop, on real hosts."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator

import pytest
from conftest import PORT, SOCKET_DIR, Site
from runs import run_killed_in


@pytest.mark.both_sites
def test_every_row_committed_before_the_drop_is_back_and_nothing_else_is_lost(shop: Site) -> None:
    shop.wait_for_commits(50)
    definitions, settings, archive = shop.definitions(), shop.settings(), shop.archive_files()
    shop.sql("DROP TABLE public.orders CASCADE")
    shop.wait_for_commits(50, "events")

    run = shop.recover(dr_tables="public.orders", dr_incident_id="first")

    assert run.rc == 0, run.output
    shop.wait_for_commits(20)
    shop.stop_writer()
    assert shop.committed("orders") <= shop.present("orders")
    assert shop.committed("events") <= shop.present("events")
    assert shop.definitions() == definitions
    assert shop.settings() == settings
    timeline = shop.sql("SELECT timeline_id FROM pg_control_checkpoint()")
    new = set(shop.archive_files()) - set(archive)
    assert {name.rsplit("/", 1)[-1][:8] for name in new} <= {f"{int(timeline):08X}"}
    assert not any(name.endswith(".history") for name in new)
    assert shop.side_instances() == ""
    assert len(run.tasks) <= 34, "\n".join(run.tasks)
    (relation,) = [r for r in shop.evidence("first", "recovery")["relations"] if r["name"] == "orders"]
    assert relation["checksum_side"] == relation["checksum_production"]
    (offer,) = json.loads((shop.reports / "first" / "report.json").read_text())["left_to_do"]
    assert "postgresql_drop_protection" in offer["command"]
    assert (shop.reports / "first" / "report.html").stat().st_size > 1000


def test_check_mode_prints_the_plan_and_changes_nothing(shop: Site) -> None:
    shop.sql("DROP TABLE public.orders CASCADE")
    shop.life.stop()  # quiet, so that whatever comes into the archive is ours
    settings, archive = shop.settings(), shop.archive_files()

    run = shop.recover("--check", dr_tables="public.orders", dr_incident_id="checked", dr_confirm=False)

    assert run.rc == 0, run.output
    for word in ("drop_table", "orders", "0/"):
        assert word in run.output
    shop.stop_writer()
    assert shop.settings() == settings
    assert shop.archive_files() == archive
    shop.life.start(pause=4, seconds=3000)
    assert not (shop.reports / "checked").exists()
    assert shop.side_instances() == ""
    assert shop.sql("SELECT to_regclass('public.orders') IS NULL") == "t"


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param("plan", marks=pytest.mark.whole),
        pytest.param("contain", marks=pytest.mark.whole),
        pytest.param("locate", marks=pytest.mark.whole),  # this and others: tests/embedded
        "restore",
        pytest.param("prove", marks=pytest.mark.whole),
        pytest.param("recover", marks=pytest.mark.whole),  # as the test of contained sessions does in tests/embedded
        pytest.param("verify", marks=pytest.mark.whole),
        pytest.param("protect", marks=pytest.mark.whole),
        pytest.param("report", marks=pytest.mark.whole),
    ],
)
def test_killed_in_a_phase_and_run_again_it_ends_as_if_never_killed(shop: Site, phase: str) -> None:
    definitions = shop.definitions()
    shop.sql("DROP TABLE public.orders CASCADE")
    settings = shop.settings()
    given = {"dr_tables": "public.orders", "dr_incident_id": f"killed-{phase}", "dr_contain": "read_only"}

    shop.recover_killed_in(phase, 0.5 if phase in ("restore", "recover") else 0.1, **given)
    run = shop.recover(**given)

    assert run.rc == 0, run.output
    shop.wait_for_commits(5)
    shop.stop_writer()
    assert shop.committed("orders") <= shop.present("orders")
    assert shop.definitions() == definitions
    assert shop.settings() == settings
    assert shop.side_instances() == ""
    assert shop.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recovered%'") == ""


# The first ends what the host has of the run; the others are refused until the network is back.
CUT = "systemd-run --on-active=20 systemctl start ssh; systemctl stop ssh.socket ssh; pkill -KILL sshd"


def test_a_dropped_database_is_back_under_its_name(shop: Site) -> None:
    shop.wait_for_commits(20)
    definitions = shop.definitions()
    shop.sql("DROP DATABASE shop WITH (FORCE)", database="postgres")

    run = shop.recover()

    assert run.rc == 0, run.output
    shop.wait_for_commits(5)
    shop.stop_writer()
    assert shop.definitions() == definitions
    assert shop.committed("orders") <= shop.present("orders")
    assert shop.committed("events") <= shop.present("events")


def test_a_dump_is_a_source_too(shop: Site) -> None:
    shop.stop_writer()
    definitions, prices = shop.definitions(), shop.checksum("public.prices")
    dump = shop.primary.run(f"pg_dump -h {SOCKET_DIR} -p {PORT} -d shop -Fc | base64")
    shop.side.run("base64 -d > /var/tmp/shop.dump", stdin=dump)
    shop.sql("DROP TABLE public.prices CASCADE")

    run = shop.recover(dr_tables="prices", dr_source="dump", dr_dump="/var/tmp/shop.dump")

    shop.side.run("rm /var/tmp/shop.dump")
    assert run.rc == 0, run.output
    assert shop.checksum("public.prices") == prices
    assert shop.definitions() == definitions
    assert shop.side_instances() == ""


BOUNCER = "/var/tmp/pgbouncer-shop"


@pytest.fixture
def bouncer(shop: Site) -> Iterator[Site]:
    """A PgBouncer before the shop, on the primary."""
    settings = (
        f"[databases]\nshop = host={SOCKET_DIR} port={PORT} user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = 6460\nquery_wait_timeout = 0\nunix_socket_dir = {BOUNCER}\n"
        "auth_type = any\nadmin_users = postgres\nignore_startup_parameters = options\n"
        f"logfile = {BOUNCER}/log\npidfile = {BOUNCER}/pid\n"
    )
    shop.primary.run(
        f"rm -rf {BOUNCER} && mkdir {BOUNCER} && cat > {BOUNCER}/ini && pgbouncer -q -d {BOUNCER}/ini", stdin=settings
    )
    yield shop
    shop.primary.run(f"kill $(cat {BOUNCER}/pid); rm -rf {BOUNCER}")


@pytest.mark.whole
@pytest.mark.parametrize("method", ["read_only", "pgbouncer_pause"])
@pytest.mark.parametrize("phase", ["contain", "locate", "restore", "prove", "recover", "verify"])
def test_when_the_network_is_back_applications_write_and_the_run_goes_on(
    bouncer: Site, phase: str, method: str
) -> None:
    shop = bouncer
    shop.sql("DROP TABLE public.prices")
    settings = shop.settings()
    incident = f"cut-{phase}-{method.partition('_')[0]}"
    given = {"dr_tables": "public.prices", "dr_incident_id": incident, "dr_contain": method}
    given |= {"pgbouncer_port": 6460, "pgbouncer_socket_dir": BOUNCER} if method == "pgbouncer_pause" else {}
    events = shop.reports / incident / "events.jsonl"

    def cut(_run: object) -> None:
        shop.primary.run(CUT, user="root", check=False)

    said = run_killed_in(shop.command(**given), events, phase, 0.5, kill=cut)
    assert "UNREACHABLE" in said
    # In the first phase the cut may come before anything was contained.
    note = events.with_name("evidence") / "containment.json"
    assert phase == "contain" or note.exists()
    deadline = time.monotonic() + 90
    while note.exists() and json.loads(note.read_text())["active"]:
        assert time.monotonic() < deadline, note.read_text()
        time.sleep(1)
    wait_for_ssh(shop)
    assert shop.settings() == settings
    shop.primary.run(f"timeout 5 psql -X -h {BOUNCER} -p 6460 -d shop -c 'SELECT 1'")

    run = shop.recover(**given)
    assert run.rc == 0, run.output
    assert shop.settings() == settings
    shop.primary.run(f"timeout 5 psql -X -h {BOUNCER} -p 6460 -d shop -c 'SELECT 1'")
    assert shop.side_instances() == ""


def wait_for_ssh(shop: Site) -> None:
    deadline = time.monotonic() + 60
    while "here" not in shop.primary.run("echo here", check=False):
        assert time.monotonic() < deadline, "the network does not come back"
        time.sleep(1)


def test_clients_of_pgbouncer_wait_and_go_on_afterwards(bouncer: Site) -> None:
    bouncer.sql("DROP TABLE public.prices")
    bouncer.primary.run(f"psql -X -h {BOUNCER} -p 6460 -d shop -c 'SELECT 1'")
    # Asks again and again through PgBouncer; whoever waits gets an answer, nobody an error.
    bouncer.primary.run(
        f'nohup bash -c \'for i in $(seq 300); do psql -X -q -A -t -h {BOUNCER} -p 6460 -d shop -c "SELECT now()"'
        " || echo FAILED; sleep 0.1; done'"
        f" > {BOUNCER}/answers 2>&1 < /dev/null & echo $! > {BOUNCER}/asking"
    )

    run = bouncer.recover(
        dr_tables="prices",
        dr_contain="pgbouncer_pause",
        pgbouncer_port=6460,
        pgbouncer_socket_dir=BOUNCER,
        dr_incident_id="paused",
    )

    assert run.rc == 0, run.output
    assert bouncer.evidence("paused", "containment")["method"] == "pgbouncer_pause"
    bouncer.primary.run(f"psql -X -h {BOUNCER} -p 6460 -d shop -c 'SELECT 1'")
    answers = bouncer.primary.run(f"kill $(cat {BOUNCER}/asking); cat {BOUNCER}/answers")
    assert "FAILED" not in answers
    moments = [datetime.datetime.fromisoformat(line) for line in answers.split("\n") if line]
    assert max(later - earlier for earlier, later in zip(moments, moments[1:])) > datetime.timedelta(seconds=0.3), (
        "nobody had to wait"
    )
