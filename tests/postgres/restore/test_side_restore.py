"""A side instance as a DBRE would judge it: what is in it, what it touches, and what happens when things go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    parse_history,
    parse_lsn,
    parse_segment_name,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.recovery_log import says_that_it_stopped
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._wal.archiving import ensure_archived

DRIVER = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import SideRestore, Asked
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
params = json.loads(sys.argv[2])
SideRestore(Asked(**params), run).restore()
ensure_state(SideInstance(params["path"]), "promoted", timeout=60)
"""


def archive_listing(production: Any) -> dict[str, tuple[int, int]]:
    """Every file of the repository's archive, history files too, with size and time of change."""
    root = production.repo / "archive"
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def production_state(production: Any) -> list[Any]:
    return [
        production.sql(query)
        for query in (
            "SELECT archived_count || '/' || failed_count FROM pg_stat_archiver",
            "SELECT timeline_id FROM pg_control_checkpoint()",
            "SELECT string_agg(slot_name || ':' || restart_lsn, ',') FROM pg_replication_slots",
            "SELECT md5(string_agg(name || '=' || setting, ',' ORDER BY name)) FROM pg_settings",
        )
    ]


def refused(call: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        call()
    return str(caught.value.msg)


@contextlib.contextmanager
def hidden(path: Path, aside: Path) -> Any:
    shutil.move(str(path), str(aside))
    try:
        yield
    finally:
        shutil.move(str(aside), str(path))


def driver(side: Any) -> subprocess.Popen[bytes]:
    root = next(place for place in sys.path if (Path(place) / "ansible_collections" / "dbre").is_dir())
    return subprocess.Popen([sys.executable, "-c", DRIVER, root, json.dumps(side.params)], stderr=subprocess.DEVNULL)


def wait_for(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


# What is in it


def test_everything_committed_before_the_target_is_there_and_nothing_after(production: Any, make_side: Any) -> None:
    side = make_side("drop")
    plan, changed = side.restore()
    assert changed
    assert plan["databases"] == ["shop"]
    assert [tablespace["name"] for tablespace in plan["tablespaces"]] == ["fast"]

    paused = side.ensure("paused")
    assert paused["proof"]["pause_state"] == "paused"
    assert paused["instance"]["reached"]["lsn"] == production.incidents["drop"]["value"]
    # Raised on production after the backup, raised here in the middle of replay.
    assert paused["settings_raised"] == {"max_connections": 60, "max_prepared_transactions": 8}
    assert not side.ensure("paused")["changed"]

    promoted = side.ensure("promoted")
    assert promoted["proof"]["prepared_rolled_back"] == ["pending"]
    assert promoted["instance"]["state"] == "promoted"
    assert promoted["instance"]["database"] == "shop"
    # Neither the open transaction that drops the table nor the prepared one counts.
    assert side.sql("SELECT count(*) || ',' || min(id) || ',' || max(id) FROM orders") == "3000,1,3000"
    assert side.sql("SELECT count(*) FROM orders WHERE note LIKE '%u'") == 3000
    assert side.sql("SELECT count(*) FROM events") == 500
    assert side.sql("SELECT max(id) FROM later") == 11
    assert not side.ensure("promoted")["changed"]
    assert "promoted already" in refused(lambda: side.ensure("paused"))
    # Its tablespace is its own.
    location = side.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")
    assert location.startswith(str(side.path))


def test_a_promotion_that_ends_between_two_looks_is_no_error(make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    side.ensure("promoted")
    recovery = SideRecovery(side.instance, 10)
    connection = recovery.session()
    with connection.cursor() as cursor:
        # The answer of a moment ago, and the server of now.
        cursor.execute("CREATE SCHEMA past")
        cursor.execute("CREATE FUNCTION past.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'")
        cursor.execute("SET search_path = past, pg_catalog")
    assert recovery.look(connection)["in_recovery"] is False
    connection.close()


def test_a_target_at_the_beginning_of_a_wal_file(make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    side.ensure("promoted")
    assert side.sql("SELECT max(id) FROM orders") == 2000


def test_a_server_that_takes_seconds_to_say_that_it_starts_is_waited_for(make_side: Any, tmp_path: Path) -> None:
    """As on a host with a load of fifteen: it was said to have ended, without saying why."""
    side = make_side("boundary")
    side.restore()
    marker = side.instance.marker()
    for program in Path(marker["bin_dir"]).iterdir():
        (tmp_path / program.name).symlink_to(program)
    (tmp_path / "pg_ctl").unlink()
    real = f'{marker["bin_dir"]}/pg_ctl "$@"'
    (tmp_path / "pg_ctl").write_text(f'#!/bin/sh\n[ "$1" = start ] || exec {real}\n(sleep 4; exec {real}) &\n')
    (tmp_path / "pg_ctl").chmod(0o755)
    side.instance.write_marker({**marker, "bin_dir": str(tmp_path)})
    side.ensure("promoted")
    assert side.sql("SELECT max(id) FROM orders") == 2000


def test_nobody_has_a_session_while_wal_is_replayed(make_side: Any) -> None:
    """Its file in the database's directory made replay of CREATE DATABASE with that template end, now and then."""
    side = make_side("second timeline")
    side.restore()
    marker = side.instance.marker()
    marker["settings"]["restore_command"] = f"sleep 0.5; {marker['settings']['restore_command']}"
    side.instance.write_marker(marker)
    sessions: list[bool] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            # As the server itself calls its sessions: postgres: SUPERUSER DATABASE [local] ... Replay stops on its way,
            # too, for max_connections that is lower than production's.
            titles = subprocess.run(
                ["ps", "--ppid", str(side.instance.pid() or 0), "-o", "args="],
                capture_output=True,
                text=True,
                check=False,
            )
            log = side.instance.log_text(side.instance.marker())
            if side.instance.accepts_connections() and not says_that_it_stopped(log):
                sessions.append(f" {marker['superuser']} {marker['control_database']} " in titles.stdout)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        side.ensure("paused")
    finally:
        ended.set()
        watcher.join()
    assert len(sessions) > 5
    assert not any(sessions)
    assert side.ensure("paused")["state"] == "paused"


def test_a_target_after_a_failover_is_reached_from_a_backup_before_it(make_side: Any) -> None:
    side = make_side("second timeline")
    plan, _changed = side.restore()
    assert (plan["timeline"], plan["wal"]["first"][:8], plan["wal"]["last"][:8]) == (2, "00000001", "00000002")
    assert side.ensure("promoted")["instance"]["reached"]["timeline"] == 2
    assert side.sql("SELECT max(id) || ',' || count(*) FROM later") == "13,13"


def test_a_target_in_the_past_of_an_older_timeline_uses_no_newer_backup(production: Any, make_side: Any) -> None:
    assert make_side("drop").plan()["set"]["label"] != newest_label(production)
    late = {**production.incidents["late"], "segment": production.incidents["second timeline"]["segment"]}
    assert make_side("late", "t", target={**late, "segment": None}).plan()["set"]["label"] == newest_label(production)


def newest_label(production: Any) -> str:
    return str(json.loads(production.backrest("info", "--output=json"))[0]["backup"][-1]["label"])


def test_a_target_that_is_a_time(production: Any, make_side: Any) -> None:
    moment = production.sql("SELECT now()::timestamptz(0)::text", database="shop")
    target = {"type": "time", "value": moment, "exclusive": False, "timeline": 2}
    production.sql("INSERT INTO later VALUES (1000)")
    production.archive()
    time.sleep(1.1)
    production.sql("INSERT INTO later VALUES (1001)")
    production.archive()
    side = make_side("late", target={**target, "value": production.sql("SELECT (now() - interval '1 second')::text")})
    side.restore()
    proof = side.ensure("paused")["proof"]
    assert proof["stopped"].startswith("recovery stopping before commit of transaction")
    side.ensure("promoted")
    assert side.sql("SELECT max(id) FROM later") == 1000


# What it touches


def test_production_and_repository_are_as_before(production: Any, make_side: Any) -> None:
    production.archive()  # so that nothing of what tests before this one left to archive comes in later
    before = archive_listing(production), production_state(production)
    side = make_side("drop")
    side.restore()
    side.ensure("promoted")
    side.sql("CREATE TABLE stray AS SELECT generate_series(1, 1000) g")
    side.sql("SELECT pg_switch_wal()")
    side.sql("CHECKPOINT")
    proof = side.ensure("promoted")["proof"]
    assert (proof["slots"], proof["subscription_workers"], proof["wal_to_archive"]) == (0, 0, 0)
    # Production's subscription is in the catalogue, enabled, and asleep.
    assert side.sql("SELECT count(*) FROM pg_subscription WHERE subenabled", "postgres") == 1
    assert side.ensure("stopped")["changed"]
    assert side.ensure("absent")["changed"]
    assert not side.path.exists()
    assert not side.ensure("absent")["changed"]
    assert (archive_listing(production), production_state(production)) == before


def test_an_instance_that_is_not_isolated_is_stopped(production: Any, make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    side.ensure("promoted")
    side.ensure("stopped")
    pg_ctl = f"{production.bin_dir}/pg_ctl"
    options = f"-c config_file={side.path}/postgresql.conf -c archive_mode=on -c archive_command=/bin/false"
    subprocess.run(
        [
            pg_ctl,
            "start",
            "-w",
            "-s",
            "-D",
            f"{side.path}/data",
            "-l",
            f"{side.path}/log/postgresql.log",
            "-o",
            options,
        ],
        check=True,
    )
    message = refused(lambda: side.ensure("promoted"))
    assert "archive_mode is 'on' instead of 'off'" in message
    assert side.instance.pid() is None


def test_one_client_gets_in_by_tls_and_password_and_can_change_nothing(
    production: Any, make_side: Any, tmp_path: Path
) -> None:
    side = make_side("boundary")
    side.restore()
    client = {
        "address": "127.0.0.1",
        "listen": "127.0.0.1",
        "user": "Dr side",
        "password": "correct horse'",
        "database": "shop",
    }
    with hidden(production.library, tmp_path / "ours.so"):
        instance = side.ensure("promoted", client=client)["instance"]
        let_in(side, client, instance, tmp_path / "root.crt")
    assert not side.ensure("promoted", client=client)["changed"]
    # What kept it from starting is written anew, and a name takes the place of the address.
    side.ensure("stopped")
    (side.path / "pg_hba.conf").write_text("local all all peer map=side\nhostssl all all db1.example.com/32 md5\n")
    assert side.ensure("promoted", client={**client, "address": "localhost"})["changed"]
    assert "127.0.0.1/32" in (side.path / "pg_hba.conf").read_text()
    login = {"login_host": "127.0.0.1", "login_port": instance["port"], "login_user": instance["user"]}
    connect({**login, "login_password": client["password"]}, "shop", sslmode="require").close()
    assert "does not resolve" in refused(
        lambda: make_side("early", "t", client={**client, "address": "db.invalid"}).plan()
    )
    assert "no address of that host" in refused(
        lambda: make_side("early", "t", client={**client, "listen": "192.0.2.1"}).plan()
    )


def let_in(side: Any, client: dict[str, str], instance: dict[str, Any], certificate: Path) -> None:
    """The client reads and cannot write; nobody else gets in. The host lacks a library that production loads."""
    assert "correct horse" not in json.dumps(instance) + (side.path / "marker.json").read_text()
    assert "correct horse" not in (side.path / "log" / "postgresql.log").read_text()
    certificate.write_text(instance["sslrootcert"])
    login = {"login_host": instance["host"], "login_port": instance["port"], "login_user": instance["user"]}
    secure = {"sslmode": "verify-ca", "sslrootcert": str(certificate)}
    connection = connect({**login, "login_password": client["password"]}, "shop", **secure)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.orders")
        assert cursor.fetchone()[0] == 2000
        cursor.execute("SET work_mem = '64kB'")
        cursor.execute("SELECT note FROM public.orders ORDER BY note DESC")
        with pytest.raises(Exception, match="permission denied"):
            cursor.execute("DELETE FROM public.orders")
    connection.close()
    assert "password authentication failed" in refused(
        lambda: connect({**login, "login_password": "no"}, "shop", **secure)
    )
    assert "no encryption" in refused(
        lambda: connect({**login, "login_password": client["password"]}, "shop", sslmode="disable")
    )
    assert "pg_hba.conf" in refused(lambda: connect({**login, "login_password": client["password"]}, "postgres"))


def test_a_locale_that_the_host_lacks_is_named_in_the_plan_with_what_makes_it(production: Any, make_side: Any) -> None:
    known = [{**item, "collate": "xx_YY.utf8", "ctype": "C"} for item in production.databases()]
    message = refused(make_side("early", production_databases=known).plan)
    assert "has the locale 'xx_YY.utf8', which" in message
    assert "localedef -i xx_YY -f UTF-8 xx_YY.utf8" in message
    # One that is not needed may have any.
    others = [item if item["name"] == "other" else {**item, "collate": "C"} for item in known]
    assert make_side("early", "t", production_databases=others).plan()["databases"] == ["shop"]


# A repository that has lost something


@pytest.fixture
def two_sets(production: Any) -> Any:
    """Labels of two sets that lead to a target of now; the newer one is an increment."""
    older = newest_label(production)
    production.sql("INSERT INTO later VALUES (2000)")
    production.backrest("backup", "--type=incr")
    production.target_here("now")
    production.archive()
    newer = newest_label(production)
    yield older, newer
    shutil.rmtree(production.repo / "backup" / "main" / newer)
    production.backrest("expire", f"--set={newer}")


def test_a_set_that_lost_a_file_is_told_in_the_plan_with_an_older_one_that_is_whole(
    production: Any, make_side: Any, tmp_path: Path, two_sets: tuple[str, str]
) -> None:
    older, newer = two_sets
    backup = production.repo / "backup" / "main" / newer
    filenode = production.sql("SELECT pg_relation_filenode('later')")
    (lost,) = backup.glob(f"pg_data/base/*/{filenode}.*")
    side = make_side("now")
    assert side.plan()["set"]["label"] == newer
    with hidden(lost, tmp_path / "lost"):
        message = refused(side.plan)
        assert f"has lost {newer}/{lost.relative_to(backup).with_suffix('')}" in message
        assert f"choose it with set (dr_set={older})" in message
        assert not side.path.exists()
        # A database that is not needed may lack what it wants.
        assert make_side("now", "t", databases=["other"]).plan()["set"]["label"] == newer
        chosen = make_side("now", "u", set=older)
        plan, _changed = chosen.restore()
        assert plan["set"]["label"] == older
    manifest = backup / "backup.manifest"
    with hidden(manifest, tmp_path / "lost"):
        message = refused(side.plan)
        assert f"has lost {newer}/backup.manifest" in message
        assert f"choose it with set (dr_set={older})" in message
    # What cannot be read is not lost.
    manifest.chmod(0)
    message = refused(side.plan)
    manifest.chmod(0o640)
    assert "Permission denied" in message
    assert "has lost" not in message
    chosen.ensure("promoted")
    assert chosen.sql("SELECT max(id) FROM later") == 2000
    # Another set for the same side instance: it is made anew, and stays so.
    again = make_side("now", "u", set=newer)
    plan, changed = again.restore()
    assert (changed, plan["set"]["label"]) == (True, newer)
    assert not again.restore()[1]


def test_wal_that_the_archive_lost_is_put_back_from_production(
    production: Any, make_side: Any, two_sets: tuple[str, str]
) -> None:
    segment = production.incidents["now"]["segment"]
    (archived,) = production.repo.glob(f"archive/main/*/{segment[:16]}/{segment}-*")
    archived.unlink()
    side = make_side("now")
    assert "is missing from the archive" in refused(side.restore) or "not in the archive yet" in refused(side.restore)
    kept = [{"first": segment, "last": segment}]
    production.archive()
    assert f"WAL file {segment} is missing from the archive" in refused(side.plan)
    assert make_side("now", production_wal=kept).plan()["wal"]["from_production"] == [segment]
    with tempfile.TemporaryDirectory() as spool:
        login: Login = {"login_unix_socket": f"{production.root}/sock", "login_port": production.port}
        archive = StanzaArchive("main", config=str(production.config), parallel=1)

        def archived(**more: Any) -> dict[str, Any]:
            return ensure_archived(login, segment, spool, archive, timeout=20, **more)

        began = time.monotonic()
        assert archived(check_mode=True)["put_back"] == [segment]
        assert archived()["put_back"] == [segment]
        assert time.monotonic() - began < 15
        assert archived(lost=[segment])["changed"] is False
    side.restore()
    side.ensure("promoted")
    assert side.sql("SELECT max(id) FROM later") == 2000


# Killed, and run again


@pytest.mark.parametrize("victim", ["module", "pgbackrest"])
def test_killed_while_restoring_it_goes_on(make_side: Any, victim: str) -> None:
    side = make_side("drop")
    process = driver(side)
    wait_for((side.path / "data" / "base").is_dir)
    pid = process.pid if victim == "module" else int(pids_with(f"--config={side.path}/pgbackrest.conf")[0])
    os.kill(pid, signal.SIGKILL)
    process.wait()
    assert json.loads((side.path / "marker.json").read_text())["state"] == "restoring"
    assert "not restored yet" in refused(lambda: side.ensure("paused"))
    _plan, changed = side.restore()
    assert changed
    side.ensure("promoted")
    assert side.sql("SELECT count(*) FROM orders") == 3000
    assert not side.restore()[1]


@pytest.mark.parametrize("victim", ["module", "postgres"])
def test_killed_while_replaying_it_goes_on(make_side: Any, victim: str) -> None:
    side = make_side("drop")
    process = driver(side)
    wait_for(lambda: side.instance.replaying_segment() is not None)
    server = side.instance.pid()
    os.kill(process.pid if victim == "module" else server, signal.SIGKILL)
    process.wait()
    assert not side.restore()[1]
    side.ensure("promoted")
    assert side.sql("SELECT count(*) FROM orders") == 3000


def test_a_step_that_a_killed_run_left_behind_is_waited_for(make_side: Any) -> None:
    side = make_side("drop")
    left_behind = driver(side)
    wait_for((side.path / "marker.json").exists)
    # It restores now, then replays; whoever comes later finds done what it has done.
    assert not side.restore()[1]
    side.ensure("promoted")
    assert left_behind.wait(60) == 0
    assert not side.ensure("promoted")["changed"]
    assert side.sql("SELECT count(*) FROM orders") == 3000


def test_a_step_that_is_stuck_is_named(make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    with side.instance.locked():
        message = refused(lambda: side.ensure("absent", timeout=0.3))
    assert f"process {os.getpid()} there" in message
    assert side.ensure("absent")["changed"]


def pids_with(argument: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return sorted(found, key=int)


def test_after_a_crash_of_the_host_it_is_restored_again(make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    side.ensure("promoted")
    side.ensure("stopped")
    marker = json.loads((side.path / "marker.json").read_text())
    (side.path / "marker.json").write_text(json.dumps({**marker, "boot_id": "another boot"}))
    assert "booted" in refused(lambda: side.ensure("promoted"))
    assert side.restore()[1]
    assert side.ensure("promoted")["changed"]
    assert side.sql("SELECT max(id) FROM orders") == 2000


# What cannot work


def test_the_plan_changes_nothing(make_side: Any) -> None:
    side = make_side("drop")
    plan = side.plan()
    assert plan["wal"]["continuous"]
    assert plan["wal"]["waiting_for"] is None
    assert plan["disk"]["needed"] < plan["disk"]["free"]
    assert not side.path.exists()


def test_a_target_before_the_oldest_backup(make_side: Any) -> None:
    side = make_side("early", target={"type": "lsn", "value": "0/1500000", "exclusive": True, "timeline": 1})
    message = refused(side.restore)
    assert "no backup set leads to the target" in message
    assert "The earliest moment this repository can return to" in message
    assert not side.path.exists()


def test_the_targets_wal_is_not_archived_yet(production: Any, make_side: Any) -> None:
    lsn = production.sql("SELECT pg_current_wal_insert_lsn()::text")
    name = production.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    target = {"type": "lsn", "value": lsn, "exclusive": True, "timeline": 2, "segment": name}
    side = make_side("late", target=target)
    assert side.plan()["wal"]["waiting_for"] == name
    message = refused(side.restore)
    assert name in message
    assert "not in the archive yet" in message


def test_a_gap_in_the_archive_names_the_file(production: Any, make_side: Any, tmp_path: Path) -> None:
    size = 1024 * 1024
    target = production.incidents["drop"]
    number = parse_segment_name(target["segment"], size)[1] - 1
    name = segment_name(1, number, size)
    (file,) = production.repo.glob(f"archive/main/*/{name[:16]}/{name}-*")
    side = make_side("drop")
    with hidden(file, tmp_path / "aside"):
        message = refused(side.plan)
        assert f"WAL file {name} is missing from the archive" in message
        assert not side.path.exists()
    side.restore()
    with hidden(file, tmp_path / "aside"):
        shutil.rmtree(side.path / "spool")
        message = refused(lambda: side.ensure("paused"))
        assert f"WAL file {name} is not in the archive" in message
        assert "The last WAL position replayed is" in message
    # Put back, replay goes on from where it was.
    side.ensure("promoted")
    assert side.sql("SELECT count(*) FROM orders") == 3000


def test_a_repository_that_cannot_be_reached(production: Any, make_side: Any, tmp_path: Path) -> None:
    config = tmp_path / "pgbackrest.conf"
    config.write_text(production.config.read_text().replace(f"repo1-path={production.repo}", "repo1-path=/nowhere"))
    message = refused(make_side("drop", config=str(config)).plan)
    assert "the repository of stanza 'main' cannot be used" in message
    assert "/nowhere" in refused(make_side("drop", "t", config="/nowhere").plan)
    # While replaying: gone, and back.
    side = make_side("drop", "u")
    side.restore()
    with hidden(production.repo, production.root / "gone"):
        message = refused(lambda: side.ensure("paused"))
        assert "WAL could not be fetched from the repository" in message
    side.ensure("promoted")
    assert side.sql("SELECT count(*) FROM orders") == 3000


def test_another_server_or_another_version_is_refused(make_side: Any, tmp_path: Path) -> None:
    assert "system identifier 1" not in refused(make_side("drop", system_identifier="123").plan)
    assert "production's is 123" in refused(make_side("drop", system_identifier="123").plan)
    assert "but production runs 12" in refused(make_side("drop", major_version=12).plan)
    message = refused(make_side("drop", bin_dir=str(tmp_path)).plan)
    assert "holds no PostgreSQL server" in message


def test_a_tablespace_made_after_the_backup_is_refused(production: Any, make_side: Any) -> None:
    newer = {"oid": 99999, "name": "newer", "location": "/srv/newer"}
    side = make_side("drop", production_tablespaces=[*production.tablespaces(), newer])
    assert "tablespace 'newer' (/srv/newer) was made after backup set" in refused(side.plan)


def test_a_path_that_is_not_ours_is_refused(production: Any, make_side: Any) -> None:
    side = make_side("drop")
    for path in (production.data, production.data / "side", production.root):
        side.params["path"] = str(path)
        assert "a PostgreSQL server there uses" in refused(side.plan)
    side.params["path"] = str(side.path)
    side.path.mkdir()
    (side.path / "letter.txt").write_text("mine")
    assert "is not empty" in refused(side.plan)
    assert "is no side instance of ours" in refused(lambda: side.ensure("absent"))
    assert (side.path / "letter.txt").read_text() == "mine"


def test_an_instance_of_another_incident_is_left_alone(make_side: Any) -> None:
    side = make_side("boundary")
    side.restore()
    side.params["incident"] = "another"
    assert "was made for incident 'boundary', not for 'another'" in refused(side.restore)


def test_removing_it_does_not_follow_links(make_side: Any, tmp_path: Path) -> None:
    side = make_side("boundary")
    side.restore()
    (tmp_path / "precious").write_text("kept")
    (side.path / "data" / "link").symlink_to(tmp_path)
    (side.path / "link").symlink_to(tmp_path)
    side.ensure("absent")
    assert not side.path.exists()
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_history_file_of_the_real_server_is_understood(production: Any) -> None:
    (history,) = production.repo.glob("archive/main/*/00000002.history")
    ((timeline, end),) = parse_history(history.read_text(), 2).ends
    assert timeline == 1
    assert parse_lsn(production.incidents["drop"]["value"]) < end
