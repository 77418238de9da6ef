"""Applications that are kept from writing can write again when the run has ended, however it ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from conftest import CONTROL, PLAYBOOK, SUPERUSER, Shop
from runs import everything, run, run_killed_in


def interrupt(child: subprocess.Popen[str]) -> None:
    """Ctrl-C, and again as long as nothing seems to happen."""
    for _again in range(6):
        os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
            return


WAYS = {"read_only": "read-only", "pgbouncer_pause": "paused in PgBouncer"}
# Of how a run may end, what does not let Ansible carry out "always".
ENDS: dict[str, Callable[[subprocess.Popen[str]], None]] = {
    "Ctrl-C": interrupt,
    "SIGTERM": lambda child: os.kill(child.pid, signal.SIGTERM),
    "SIGKILL of all": everything,
}


def writable(shop: Shop) -> bool:
    try:
        shop.query("shop", "CREATE TABLE public.probe (i int)")
        shop.query("shop", "DROP TABLE public.probe")
    except psycopg2.errors.ReadOnlySqlTransaction:
        return False
    return True


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def comment(shop: Shop) -> Any:
    return shop.query(CONTROL, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'")


def note(shop: Shop, incident: str) -> dict[str, Any]:
    path = shop.folder / "incidents" / incident / "evidence" / "containment.json"
    return dict(json.loads(path.read_text()))


def end_in(shop: Shop, incident: str, phase: str, how: str, **given: Any) -> str:
    events = shop.folder / "incidents" / incident / "events.jsonl"
    given = {"dr_tables": "public.orders", "dr_incident_id": incident, **given}
    return run_killed_in(shop.recovery(**given), events, phase, 0.3, shop.environment, ENDS.get(how))


def told_by_the_host_alone(shop: Shop, incident: str) -> None:
    """A controller that has no record of it names it all the same, by the marker on the host."""
    marker = shop.folder / "side" / incident / "marker.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "created": "2026-01-02T03:04:05+00:00"}))
    elsewhere = {"dr_incident_id": "beside-it", "dr_report_dir": str(shop.folder / "elsewhere")}
    plan = shop.recover("--check", dr_tables="public.orders", **elsewhere)
    words = " ".join(plan.output.split())
    assert f"side instance {shop.folder}/side/{incident} on production (without a record here; the command is" in words
    assert f"pg_ctl -D {shop.folder}/side/{incident}/data -m immediate stop; rm -r " in words


def told_when_it_has_expired(shop: Shop, incident: str) -> None:
    """A later run names what is kept, with a command that removes it; one in time says nothing."""
    record = shop.folder / "incidents" / incident / "record.json"
    state = json.loads(record.read_text())
    assert datetime.fromisoformat(state["side"]["expires"]) - datetime.now(timezone.utc) > timedelta(days=6.9)
    given = {"dr_tables": "public.orders", "dr_incident_id": "beside-it"}
    state["side"]["expires"] = "2026-01-02T03:04:05.000+00:00"
    record.write_text(json.dumps(state))
    plan = shop.recover("--check", **given)
    words = " ".join(plan.output.split())
    assert f"incident {incident} was to keep side instance {shop.folder}/side/{incident} on production until" in words
    (command,) = [line.strip() for line in plan.output.splitlines() if "dr_abandon" in line]
    told_by_the_host_alone(shop, incident)
    done = shop.obey(command)
    assert done.rc == 0, done.output
    assert f"{incident} on production: removed" in " ".join(done.output.split())


# The phases in which something is under way while applications are kept from writing. Two are enough for each change.
SHORT = {("locate", "Ctrl-C", "pgbouncer_pause"), ("recover", "SIGKILL of all", "read_only")}
MATRIX = [
    pytest.param(*case, marks=[] if case in SHORT else pytest.mark.whole)
    for case in itertools.product(
        ("contain", "locate", "restore", "prove", "recover", "verify"), (*ENDS, "closed terminal"), WAYS
    )
]


@pytest.mark.parametrize(("phase", "how", "method"), MATRIX)
def test_a_run_that_ends_in_the_middle_lets_applications_write(shop: Shop, phase: str, how: str, method: str) -> None:
    incident = re.sub("[^a-z_]+", "-", f"{phase}-{how}-{method}".lower())
    shop.drop_orders()
    with shop.pgbouncer() if method == "pgbouncer_pause" else contextlib.nullcontext():
        said = end_in(shop, incident, phase, how, dr_contain=method)
        assert f"shop is {WAYS[method]} until this run ends" in " ".join(said.split()) or phase == "contain"
        assert within(30, lambda: writable(shop) if method == "read_only" else not shop.is_paused()), said
    # In the beginning of "contain" the step may only come to it while the end of its run is noticed.
    assert within(10, lambda: comment(shop) == [(None,)])
    if (shop.folder / "incidents" / incident / "evidence" / "containment.json").exists():
        assert within(5, lambda: note(shop, incident)["active"] is False)
        # Once everything is back, the run does it itself, before it compares.
        whom = ["the process that waited for the end of the run", *(["the run"] if phase == "verify" else [])]
        assert note(shop, incident)["undone_by"] in whom

    if (phase, how) == ("prove", "SIGTERM"):
        told_when_it_has_expired(shop, incident)
    if phase == "recover":
        looked = shop.abandon("--check", dr_incident_id=incident)
        assert looked.rc == 0, looked.output
        assert "would be given up" in " ".join(looked.output.split())
    done = shop.abandon(dr_incident_id=incident)
    assert done.rc == 0, done.output
    words = " ".join(done.output.split())
    assert f"{shop.folder}/side/{incident} on production: " in words
    before = (phase, how) == ("prove", "SIGTERM")
    assert f"{incident} on production: {'was removed before' if before else 'removed'}" in words or phase in (
        "contain",
        "locate",
        "restore",
    )
    assert shop.query("shop", "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recovered%'") == []
    assert "undone" in " ".join(shop.report(incident)["containment"]["lines"]) or phase == "contain"
    assert shop.report(incident)["message"] == "It was given up (dr-abandon)."
    assert phase in ("contain", "locate") or shop.report(incident)["side"]["removed"] is not None


def test_an_incident_without_a_record_here_is_refused_with_what_to_name(shop: Shop) -> None:
    refused = shop.abandon(dr_incident_id="nobodys")
    assert refused.rc != 0
    words = " ".join(refused.output.split())
    assert "there is no record of incident nobodys in" in words
    assert "dr-release lets applications write again without a record" in words
    path = shop.folder / "incidents" / "half" / "record.json"
    path.parent.mkdir()
    path.write_text('{"id": ')
    refused = shop.abandon(dr_incident_id="half")
    assert f"{path} is no valid JSON" in " ".join(refused.output.split())


@pytest.mark.whole
def test_only_what_was_found_where_the_record_says_is_called_removed(shop: Shop) -> None:
    """A dump's side instance, given up with an inventory that calls other hosts primary, and while it is elsewhere."""
    dump, side = shop.folder / "shop.dump", shop.folder / "side" / "dumped"
    server = ["-h", shop.socket_dir, "-p", shop.port, "-U", SUPERUSER]
    shop.run(shop.program("pg_dump"), *server, "-Fc", "-f", dump, "shop")
    shop.drop_orders()
    end_in(shop, "dumped", "prove", "SIGKILL of all", dr_source="dump", dr_dump=str(dump))

    inventory = json.loads(shop.inventory_file.read_text())
    servers = inventory["all"]["children"].pop("primary")
    inventory["all"]["children"] |= {"servers": servers, "primary": {"hosts": {"another": {}}}}
    others = shop.folder / "others.json"
    others.write_text(json.dumps(inventory))
    command = ["ansible-playbook", "-i", str(others), str(PLAYBOOK.with_name("dr-abandon.yml"))]
    command += ["-e", f"dr_incident_id=dumped dr_report_dir={shop.folder}/incidents"]
    refused = run(command, shop.environment)
    assert refused.rc != 0
    words = " ".join(refused.output.split())
    assert "Incident dumped is about production, which is none of the hosts of primary. Nothing was touched." in words
    assert "-e dr_primary=production" in words

    side.rename(f"{side}.moved")
    missed = shop.abandon(dr_incident_id="dumped")
    assert missed.rc != 0
    assert f"Nothing was found at {side} on production, where the record" in " ".join(missed.output.split())
    side.with_name("dumped.moved").rename(side)
    done = run([*command, "-e", "dr_primary=production"], shop.environment)
    assert done.rc == 0, done.output
    assert f"Incident dumped is given up. {side} on production: removed." in " ".join(done.output.split())


def obey(shop: Shop, incident: str, said: str) -> Any:
    """Run the command that a run told to let applications write again."""
    (command,) = set(re.findall(r"ansible-playbook .*dr_release.*", said))
    assert f"dr_incident_id={incident}" in command
    return shop.obey(command)


def leave_contained(shop: Shop, incident: str) -> None:
    """As after a controller that went away: the marker of a run in the database, and nobody who waits for its end."""
    shop.query(CONTROL, "ALTER DATABASE shop SET default_transaction_read_only = on")
    run_of = {"host": "ops9", "pid": 1, "start": "another boot 1", "at": time.time()}
    if incident.startswith("here"):
        run_of["host"] = socket.gethostname()
    marker = {"previous": None, "since": time.time(), "lifting": False, "holders": {incident: run_of}}
    shop.query(CONTROL, f"COMMENT ON DATABASE shop IS $x$[dbre.containment {json.dumps(marker)}]$x$")


def test_a_later_run_undoes_what_a_dead_one_left_and_says_so(shop: Shop) -> None:
    leave_contained(shop, "here-before")
    shop.drop_orders()
    plan = shop.recover("--check", dr_tables="public.orders", dr_incident_id="later")
    assert plan.rc == 0, plan.output
    words = " ".join(plan.output.split())
    assert "shop is read-only now, for incident here-before, since" in words
    assert "its run has ended, so that is undone" in words
    assert not writable(shop), "check mode changes nothing"
    done = shop.recover(dr_tables="public.orders", dr_incident_id="later")
    assert done.rc == 0, done.output
    assert writable(shop)
    assert "for incident here-before" in " ".join(shop.report("later")["containment"]["lines"])


def test_what_a_run_elsewhere_contains_is_told_and_left_and_dr_release_undoes_it(shop: Shop) -> None:
    leave_contained(shop, "elsewhere")
    shop.drop_orders()
    done = shop.recover(dr_tables="public.orders", dr_incident_id="beside-it")
    assert done.rc == 0, done.output
    assert "process 1 on ops9; when it has ended: dr-release with dr_incident_id=elsewhere" in " ".join(
        done.output.split()
    )
    assert not writable(shop)
    assert shop.count("public.orders") == 3000

    looked = shop.release("--check", dr_incident_id="elsewhere")
    assert looked.rc == 0, looked.output
    assert "shop would be no longer read-only (for elsewhere). Nothing was changed." in " ".join(looked.output.split())
    other = shop.release(dr_incident_id="another")
    assert "nothing was found that keeps applications from writing for incident another" in " ".join(
        other.output.split()
    )
    assert not writable(shop)
    released = shop.release()
    assert released.rc == 0, released.output
    assert "shop is no longer read-only (for elsewhere)" in " ".join(released.output.split())
    assert writable(shop)
    assert comment(shop) == [(None,)]
    assert shop.release().changed == 0


@pytest.mark.whole
def test_the_end_of_one_incident_does_not_end_the_containment_of_another(shop: Shop) -> None:
    leave_contained(shop, "elsewhere")
    shop.drop_orders()
    done = shop.recover(dr_tables="public.orders", dr_incident_id="both", dr_contain="read_only")
    assert done.rc == 0, done.output
    assert "still in force for elsewhere" in " ".join(shop.report("both")["containment"]["lines"])
    assert not writable(shop)
    shop.release()
    assert writable(shop)


@pytest.mark.whole
def test_a_person_s_own_setting_is_told_and_is_there_again(shop: Shop) -> None:
    shop.query(CONTROL, "ALTER DATABASE shop SET default_transaction_read_only = on")
    shop.drop_orders()
    done = shop.recover(dr_tables="public.orders", dr_incident_id="mine", dr_contain="read_only")
    assert done.rc == 0, done.output
    assert "shop is read-only now by a setting that no incident has made (on)" in " ".join(done.output.split())
    assert "the database was read-only before, and is again" in " ".join(shop.report("mine")["containment"]["lines"])
    assert not writable(shop)
    assert shop.release().changed == 0
    assert not writable(shop)


def test_when_it_cannot_be_undone_the_report_and_the_last_words_say_how(shop: Shop) -> None:
    shop.drop_orders()
    given = {"dr_tables": "public.orders", "dr_incident_id": "stuck", "dr_contain": "read_only"}
    events = shop.folder / "incidents" / "stuck" / "events.jsonl"

    def spoil(child: subprocess.Popen[str]) -> None:
        """The owner writes a marker of his own over ours, so that nobody knows what was there before."""
        shop.query(CONTROL, "COMMENT ON DATABASE shop IS '[dbre.containment yes]'")
        child.wait(180)

    said = run_killed_in(shop.recovery(**given), events, "locate", 0, shop.environment, spoil)
    assert "COMMENT ON DATABASE" in said
    assert "Applications are still kept from writing. To let them: ansible-playbook" in said
    assert note(shop, "stuck")["active"]
    assert shop.report("stuck")["left_to_do"][0]["what"] == "Let applications write again"
    shop.query(CONTROL, "COMMENT ON DATABASE shop IS NULL")
    released = obey(shop, "stuck", said)
    assert released.rc == 0, released.output
    assert writable(shop)
    assert shop.abandon(dr_incident_id="stuck").rc == 0
