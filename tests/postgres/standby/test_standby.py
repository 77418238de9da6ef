"""A standby as the source of a recovery: what it shows, what it refuses, and that it is a standby again afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn

DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._side.standby_recovery import Asked, ensure_state
params = json.loads(sys.argv[2])
ensure_state(login_of(params), pick(Asked, params), sys.argv[3])
"""


def refused(call: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        call()
    return str(caught.value.msg)


def driver(params: dict[str, Any], state: str) -> subprocess.Popen[bytes]:
    root = next(place for place in sys.path if (Path(place) / "ansible_collections" / "dbre").is_dir())
    return subprocess.Popen([sys.executable, "-c", DRIVER, root, json.dumps(params), state], stderr=subprocess.DEVNULL)


@pytest.fixture
def tables(primary: Any) -> Iterator[None]:
    """Whatever a test drops is there again for the next."""
    yield
    primary.sql("DROP TABLE IF EXISTS lines, orders CASCADE")
    primary.sql(
        "CREATE TABLE orders (id serial PRIMARY KEY, note text)",
        "CREATE TABLE lines (id serial PRIMARY KEY, order_id int REFERENCES orders, note text)",
        "INSERT INTO orders (note) SELECT repeat('x', 200) FROM generate_series(1, 1000)",
        "INSERT INTO lines (order_id) SELECT g FROM generate_series(1, 1000) g",
    )


def is_a_standby_again(standby: Any) -> None:
    """In recovery, following with its delay, nothing of ours left."""
    assert standby.sql("SELECT pg_is_in_recovery()", database="postgres")
    assert standby.sql("SHOW recovery_min_apply_delay", database="postgres") == "1h"
    assert standby.sql("SHOW recovery_target_lsn", database="postgres") == ""
    assert standby.sql("SHOW archive_mode", database="postgres") == "on"
    following = "SELECT coalesce((SELECT status FROM pg_stat_wal_receiver), wait_event) FROM pg_stat_activity"
    following += " WHERE backend_type = 'startup'"
    assert standby.sql(following, database="postgres") in ("streaming", "RecoveryApplyDelay")
    assert "recovery" not in (standby.data / "postgresql.auto.conf").read_text()
    assert not (standby.root / f"{standby.data.name}-held").exists()
    assert standby.sql("SELECT timeline_id FROM pg_control_checkpoint()", database="postgres") == 1


# What it shows


@pytest.mark.usefixtures("tables")
def test_everything_committed_before_the_drop_is_there_and_nothing_after(primary: Any, standby: Any) -> None:
    primary.sql("INSERT INTO orders (note) SELECT 'last' FROM generate_series(1, 7)")
    primary.sql("INSERT INTO other VALUES (1)")
    primary.sql("INSERT INTO other VALUES (0)", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (2)")
    found = primary.find(["orders"])
    standby.has_received()
    params = standby.params("drop", found)

    before = set((primary.root / "repo").rglob("*"))
    assert standby.ensure(params, "targeted", check_mode=True)["plan"]["standby"]["seconds_left"] > 3500
    assert standby.sql("SELECT pg_get_wal_replay_pause_state()", database="postgres") == "not paused"
    result = standby.bring_to(params)

    # The table can be read, though the transaction that drops it has it locked at its COMMIT.
    assert standby.sql("SELECT count(*) || ',' || count(*) FILTER (WHERE note = 'last') FROM orders") == "1007,7"
    assert standby.sql("SELECT count(*) FROM lines") == 1000
    assert standby.sql("SELECT max(id) FROM other") == 1
    position, target = (parse_lsn(lsn) for lsn in (result["instance"]["reached"]["lsn"], found["target"]["value"]))
    assert position < target
    assert result["proof"]["archive_mode"] == "off"
    assert result["instance"]["state"] == "paused"
    isolation = {item["what"]: item["value"] for item in result["instance"]["isolation"]}
    assert isolation == {"in_recovery": True, "archive_mode": "off", "pause_state": "paused"}
    assert not standby.ensure(params, "targeted")["changed"]

    following = standby.let_go(params)["following"]
    assert following["delay_seconds"] == 3600
    is_a_standby_again(standby)
    assert not standby.ensure(params, "released")["changed"]
    new = {path.name for path in set((primary.root / "repo").rglob("*")) - before}
    assert all(name.startswith("00000001") for name in new), "autovacuum fills segments of the primary"


def test_rows_that_were_deleted_are_there(primary: Any, standby: Any) -> None:
    primary.sql("INSERT INTO other SELECT generate_series(100, 199)", "DELETE FROM other WHERE id >= 100")
    primary.sql("INSERT INTO other VALUES (3)")
    found = primary.find(["other"], min_rows=50)
    standby.has_received()
    params = standby.params("delete", found)
    assert standby.bring_to(params)["instance"]["reached"]["lsn"] == found["target"]["value"]
    assert standby.sql("SELECT count(*) FROM other WHERE id >= 100") == 100
    standby.let_go(params)
    primary.sql("TRUNCATE other")


@pytest.mark.usefixtures("tables")
def test_tables_locked_one_after_the_other_while_others_commit_elsewhere(primary: Any, standby: Any) -> None:
    primary.sql("INSERT INTO other VALUES (0)")
    dropping = primary.connect()
    dropping.autocommit = False
    dropping.cursor().execute("SAVEPOINT s; DROP TABLE lines; RELEASE s")
    primary.sql("INSERT INTO other VALUES (10)")
    dropping.cursor().execute("DROP TABLE orders")
    dropping.commit()
    dropping.close()
    found = primary.find(["orders", "lines"])
    standby.has_received()
    params = standby.params("elsewhere", found)
    standby.bring_to(params)
    assert standby.sql("SELECT count(*) FROM orders") == 1000
    assert standby.sql("SELECT count(*) FROM lines") == 1000
    standby.let_go(params)


@pytest.mark.usefixtures("tables")
def test_rows_that_no_position_can_show_are_refused(primary: Any, standby: Any) -> None:
    primary.sql("INSERT INTO other VALUES (0)")
    dropping = primary.connect()
    dropping.autocommit = False
    dropping.cursor().execute("DROP TABLE lines")
    # Committed before its table was locked, and after the other was: no standby can show both.
    primary.sql("INSERT INTO other VALUES (11)")
    dropping.cursor().execute("DROP TABLE other")
    dropping.commit()
    dropping.close()
    primary.sql("CREATE TABLE other (id int)")
    found = primary.find(["lines", "other"], kinds=["drop_table"])
    standby.has_received()
    params = standby.params("between", found)
    message = refused(lambda: standby.bring_to(params))
    assert "as it was at" in message
    assert "dr_source=pgbackrest" in message
    standby.let_go(params)
    is_a_standby_again(standby)


@pytest.mark.usefixtures("tables")
def test_wal_that_was_not_received_comes_from_the_archive(primary: Any, make_standby: Any) -> None:
    standby = make_standby(streaming=False)
    # At the beginning of a WAL file, so that what follows does not fill it.
    primary.sql("SELECT pg_create_restore_point('here')", "SELECT pg_switch_wal()")
    primary.sql(
        "INSERT INTO orders (note) VALUES ('last')", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (4)"
    )
    found = primary.find(["orders"])
    params = standby.params("archived", found)
    plan = standby.ensure(params, "targeted", check_mode=True)["plan"]
    assert (plan["standby"]["wal"], plan["position"]) == ("archive", None)
    assert "nor in the archive" in refused(lambda: standby.bring_to(params))
    primary.archive()
    standby.bring_to(params)
    assert standby.sql("SELECT count(*) FROM orders WHERE note = 'last'") == 1
    standby.let_go(params)


@pytest.mark.usefixtures("tables")
def test_a_second_incident_right_after_the_first_recovers_too(primary: Any, standby: Any) -> None:
    primary.sql(
        "INSERT INTO orders (note) VALUES ('last')", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (5)"
    )
    first = standby.params("first", primary.find(["orders"]))
    standby.has_received()
    standby.bring_to(first)
    standby.let_go(first)
    is_a_standby_again(standby)
    # It was started again, so it waits at the COMMIT of the drop and asks nobody for WAL.
    assert standby.sql("SELECT pg_last_wal_receive_lsn()", database="postgres") is None
    primary.sql(
        "INSERT INTO lines (note) VALUES ('second')", "DROP TABLE lines CASCADE", "INSERT INTO other VALUES (6)"
    )
    found = primary.find(["lines"])
    second = standby.params("second", found)
    plan = standby.ensure(second, "targeted", check_mode=True)["plan"]
    assert (plan["standby"]["wal"], plan["position"]) == ("archive", None)
    primary.archive()
    # The standby begins in WAL that no backup needs any more, and that only it has.
    redo = standby.sql("SELECT redo_wal_file FROM pg_control_checkpoint()", database="postgres")
    expired = list((primary.root / "repo").glob(f"archive/main/*/*/{redo}-*"))
    assert expired
    for path in expired:
        path.rename(primary.root / path.name)
    try:
        standby.bring_to(second)
    finally:
        for path in expired:
            (primary.root / path.name).rename(path)
    assert standby.sql("SELECT count(*) FROM lines WHERE note = 'second'") == 1
    standby.let_go(second)


# What it refuses


@pytest.mark.usefixtures("tables")
def test_a_standby_that_replayed_the_incident_is_refused(primary: Any, make_standby: Any) -> None:
    standby = make_standby(delay="0")
    primary.sql("DROP TABLE orders CASCADE")
    found = primary.find(["orders"])
    end = found["target"]["value"]
    deadline = time.monotonic() + 30
    while not standby.sql(f"SELECT pg_last_wal_replay_lsn() > '{end}'", database="postgres"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    params = standby.params("late", found)
    message = refused(lambda: standby.ensure(params, "targeted", check_mode=True))
    assert "already replayed past the target" in message
    assert end in message
    assert "dr_source=pgbackrest" in message


@pytest.mark.usefixtures("tables")
def test_a_standby_that_replayed_into_the_incident_is_refused(primary: Any, standby: Any) -> None:
    # The delay holds back the COMMIT of the drop, and nothing before it.
    primary.sql("DROP TABLE orders CASCADE")
    found = primary.find(["orders"])
    standby.has_received()
    params = standby.params("inside", found)
    message = refused(lambda: standby.ensure(params, "targeted", check_mode=True))
    assert "inside the transaction that did the damage" in message
    assert "dr_source=pgbackrest" in message


def test_another_server_or_timeline_is_refused(primary: Any, standby: Any) -> None:
    target = {"type": "lsn", "value": "0/5000000", "exclusive": True, "timeline": 1}
    params = standby.params("wrong", {"target": target})
    assert "system identifier" in refused(
        lambda: standby.ensure({**params, "system_identifier": "1"}, "targeted", check_mode=True)
    )
    other = {**target, "timeline": 2}
    assert "timeline" in refused(lambda: standby.ensure({**params, "target": other}, "targeted", check_mode=True))
    inclusive = {**target, "exclusive": False}
    assert "before an LSN" in refused(
        lambda: standby.ensure({**params, "target": inclusive}, "targeted", check_mode=True)
    )
    client = {"host": "127.0.0.1", "user": "nobody here", "passfile": "/nowhere"}
    assert "no role" in refused(lambda: standby.ensure({**params, "client": client}, "targeted", check_mode=True))
    assert "no standby" in refused(lambda: standby.ensure({**params, **primary.login}, "held"))


@pytest.mark.usefixtures("tables")
def test_one_incident_at_a_time(primary: Any, standby: Any) -> None:
    primary.sql("INSERT INTO other VALUES (0)", "DROP TABLE orders CASCADE")
    found = primary.find(["orders"])
    standby.has_received()
    first, second = standby.params("first", found), standby.params("second", found)
    assert standby.ensure(first, "held")["changed"]
    # An incident that came to no target hands the standby on, one that did does not.
    standby.bring_to(second)
    assert "incident second" in refused(lambda: standby.ensure(first, "held"))
    assert not standby.ensure(first, "released")["changed"]
    standby.let_go(second)
    is_a_standby_again(standby)


# What it leaves


def test_a_hold_alone_ends_without_a_restart(standby: Any) -> None:
    params = standby.params("held", {})
    assert standby.ensure(params, "held")["changed"]
    assert not standby.ensure(params, "held")["changed"]
    assert standby.sql("SELECT pg_get_wal_replay_pause_state()", database="postgres") != "not paused"
    assert standby.ensure(params, "released") == {"changed": True, "restart": False}
    standby.ensure(params, "following")
    is_a_standby_again(standby)


@pytest.mark.usefixtures("tables")
def test_a_standby_that_somebody_paused_is_paused_afterwards(primary: Any, standby: Any) -> None:
    standby.sql("SELECT pg_wal_replay_pause()", database="postgres")
    primary.sql("INSERT INTO other VALUES (0)", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (5)")
    found = primary.find(["orders"])
    standby.has_received()
    params = standby.params("paused", found)
    standby.bring_to(params)
    standby.let_go(params)
    is_a_standby_again(standby)
    assert standby.sql("SELECT pg_get_wal_replay_pause_state()", database="postgres") != "not paused"
    assert standby.sql("SELECT to_regclass('orders') IS NOT NULL")


@pytest.mark.parametrize("step", ["held", "targeted", "restarted", "released", "restarted again"])
@pytest.mark.usefixtures("tables")
def test_killed_after_a_step_and_run_again_it_goes_on(primary: Any, standby: Any, step: str) -> None:
    primary.sql("INSERT INTO other VALUES (0)", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (6)")
    found = primary.find(["orders"])
    standby.has_received()
    params = standby.params("killed", found)
    steps = {
        "held": lambda: standby.ensure(params, "held"),
        "targeted": lambda: standby.ensure(params, "targeted"),
        "restarted": standby.restart,
        "paused": lambda: standby.ensure(params, "paused"),
        "released": lambda: standby.ensure(params, "released"),
        "restarted again": standby.restart,
    }
    for name, call in steps.items():
        call()
        if name == step:
            break
    if step not in ("released", "restarted again"):
        standby.bring_to(params)
        assert standby.sql("SELECT count(*) FROM orders") == 1000
    standby.let_go(params)
    is_a_standby_again(standby)


@pytest.mark.parametrize("seconds", [0.15, 0.3])
@pytest.mark.usefixtures("tables")
def test_killed_at_work_it_goes_on(primary: Any, standby: Any, seconds: float) -> None:
    primary.sql("INSERT INTO other VALUES (0)", "DROP TABLE orders CASCADE", "INSERT INTO other VALUES (7)")
    found = primary.find(["orders"])
    standby.has_received()
    params = standby.params("at work", found)
    for state in ("targeted", "released"):
        process = driver(params, state)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if state == "targeted":
            standby.bring_to(params)
            assert standby.sql("SELECT count(*) FROM orders") == 1000
    standby.let_go(params)
    is_a_standby_again(standby)


# The data directory


def test_a_standby_is_restored_once_and_again_only_on_demand(primary: Any, standby: Any) -> None:
    assert standby.ensure_restored()["action"] == "none"
    assert "archive_timeout" not in (standby.data / "postgresql.auto.conf").read_text()
    assert "restore_command" not in (standby.data / "postgresql.auto.conf").read_text()
    (standby.data / "stray").touch()
    done = standby.ensure_restored(rebuild=True)
    assert (done["action"], done["settings"]["max_prepared_transactions"]) == ("delta", 5)
    assert not (standby.data / "stray").exists()
    standby.follow("0", True)
    standby.start()
    assert standby.sql("SELECT pg_is_in_recovery()", database="postgres")


def test_what_somebody_may_need_is_not_overwritten(primary: Any, standby: Any, tmp_path: Path) -> None:
    there = str(primary.data)
    assert "a primary is never overwritten" in refused(lambda: standby.ensure_restored(path=there, rebuild=True))
    assert "holds another cluster" in refused(lambda: standby.ensure_restored(system_identifier="1", rebuild=True))
    (tmp_path / "somebody's").touch()
    assert "holds no PostgreSQL cluster" in refused(lambda: standby.ensure_restored(path=str(tmp_path), rebuild=True))
    standby.stop()
    (standby.data / "standby.signal").unlink()
    assert "not as a standby" in refused(standby.ensure_restored)


def test_a_restore_that_was_killed_goes_on(standby: Any) -> None:
    standby.stop()
    shutil.rmtree(standby.data / "base")
    (standby.data / "global" / "pg_control").unlink()
    Path(f"{standby.data}.restoring").touch()
    assert standby.ensure_restored()["action"] == "delta"
    assert standby.ensure_restored()["action"] == "none"
