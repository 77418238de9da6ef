# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of a real server: what is kept of them, and what a failing one leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

PROGRAM = (
    "import sys; from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_backup import main; "
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture
def small(shop: Any) -> Iterator[str]:
    """A small database of the test's own."""
    shop.psql("CREATE DATABASE small")
    shop.psql("CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS pad FROM generate_series(1, 2000) g", "small")
    yield "small"
    shop.drop("small")


def program(shop: Any, **params: Any) -> subprocess.Popen[str]:
    """The program of the timers at work on the database small."""
    file = shop.home / f"jobs-{params.get('name')}.json"
    file.write_text(json.dumps({"small": dataclasses.asdict(shop.backup("small", **params).asked)}))
    command = [sys.executable, "-c", PROGRAM, str(file), "small"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 seconds")


def children(process: subprocess.Popen[str]) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(process.pid), "pg_dump"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


class Blocker:
    """A session that holds a lock for which pg_dump waits."""

    def __init__(self, shop: Any) -> None:
        command = [f"{shop.bin_dir}/psql", "-XAtq"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=shop.environment("small"), **pipes)
        self.process.stdin.write("BEGIN; LOCK TABLE t; SELECT 'locked';\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "locked\n"

    def end(self) -> None:
        self.process.communicate("ROLLBACK;\n")


@pytest.fixture
def blocker(shop: Any, small: str) -> Iterator[Blocker]:
    held = Blocker(shop)
    yield held
    if held.process.poll() is None:
        held.end()


def known(shop: Any, name: str) -> list[str]:
    listed = json.loads((shop.backups / "catalogue.json").read_text())["dumps"]
    return [dump["id"] for dump in listed if dump["name"] == name]


def on_disk(shop: Any, name: str) -> list[str]:
    return sorted(os.listdir(shop.backups / name))


def aged(dump: dict[str, Any], days: float) -> None:
    """Make a dump older than it is."""
    file = Path(dump["path"], "dump.json")
    facts = json.loads(file.read_text())
    for key in ("started", "ended"):
        facts[key] = (datetime.fromisoformat(facts[key]) - timedelta(days=days)).isoformat()
    file.write_text(json.dumps(facts))


# What a dump leaves


def test_the_catalogue_tells_everything_of_a_dump(shop: Any) -> None:
    dump = shop.dump(name="told", format="directory", jobs=2)
    listed = json.loads((shop.backups / "catalogue.json").read_text())["dumps"]
    (entry,) = [item for item in listed if item["name"] == "told"]
    assert entry == dump
    assert (entry["database"], entry["kind"], entry["format"]) == ("Shop", "database", "directory")
    assert entry["server_version"].startswith(f"{shop.major}.")
    assert entry["pg_dump_version"].startswith(f"{shop.major}.")
    started, ended = (datetime.fromisoformat(entry[key]) for key in ("started", "ended"))
    assert started.utcoffset() == timedelta(0)
    assert started <= ended <= datetime.now(timezone.utc)
    assert entry["id"] == started.strftime("%Y%m%dT%H%M%SZ")
    assert entry["bytes"] == sum(Path(dump["path"], file["name"]).stat().st_size for file in entry["files"])
    assert shop.psql(f"SELECT '{entry['lsn']}'::pg_lsn <= pg_current_wal_lsn()") == "t"
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=dump["path"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == len(entry["files"])


def test_only_its_owner_can_read_a_dump(shop: Any) -> None:
    folder = Path(shop.dump_globals()["path"])
    for path in (shop.backups, folder.parent, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((shop.backups / "catalogue.json").stat().st_mode) == 0o600
    assert "CREATE ROLE shop_owner;" in (folder / "globals.sql").read_text()


def test_globals_of_a_server_without_a_database_of_the_usual_name(shop: Any) -> None:
    shop.psql("ALTER DATABASE postgres RENAME TO maintenance", "template1")
    try:
        folder = Path(shop.dump_globals()["path"])
    finally:
        shop.psql("ALTER DATABASE maintenance RENAME TO postgres", "template1")
    assert "CREATE ROLE shop_owner;" in (folder / "globals.sql").read_text()


def test_a_dump_removed_by_hand_leaves_the_catalogue_at_the_next(shop: Any, small: str) -> None:
    first = shop.dump(small, name="by-hand")
    subprocess.run(["rm", "-r", first["path"]], check=True)
    assert known(shop, "by-hand") == [first["id"]]
    second = shop.dump(small, name="by-hand")
    assert known(shop, "by-hand") == [second["id"]]


# Retention


def test_retention_by_count(shop: Any, small: str) -> None:
    ids = [shop.dump(small, name="count", keep_count=2)["id"] for _number in range(3)]
    assert on_disk(shop, "count") == known(shop, "count") == ids[1:]


def test_retention_by_age(shop: Any, small: str) -> None:
    old, young = (shop.dump(small, name="age") for _number in range(2))
    aged(old, 8)
    aged(young, 6)
    backup = shop.backup(small, name="age", keep_days=7)
    assert backup.would_go(datetime.now(timezone.utc)) == [old["id"]]
    done = backup.take()
    assert done["removed"] == [old["id"]]
    assert on_disk(shop, "age") == known(shop, "age") == [young["id"], done["dump"]["id"]]


def test_a_dump_goes_only_when_both_limits_let_it(shop: Any, small: str) -> None:
    first, second = (shop.dump(small, name="both") for _number in range(2))
    aged(first, 30)
    aged(second, 20)
    assert shop.backup(small, name="both", keep_days=7, keep_count=3).take()["removed"] == []
    assert shop.backup(small, name="both", keep_days=25, keep_count=1).take()["removed"] == [first["id"]]


def test_damaged_dumps_do_not_push_out_the_last_good_one(shop: Any, small: str) -> None:
    good, damaged = (shop.dump(small, name="good") for _number in range(2))
    aged(good, 30)
    aged(damaged, 29)
    os.truncate(Path(damaged["path"], damaged["dump"]), 100)
    backup = shop.backup(small, name="good", keep_days=7, keep_count=2)
    assert backup.take()["removed"] == []
    assert sorted(backup.take()["removed"]) == [good["id"], damaged["id"]]


def test_a_set_is_of_one_database_and_kind(shop: Any, small: str) -> None:
    shop.dump(small, name="mine")
    with pytest.raises(RecoveryError, match="holds dumps of database small .*not of database Shop"):
        shop.dump(name="mine")
    with pytest.raises(RecoveryError, match=r"\(kind schema\)"):
        shop.dump(small, name="mine", schema_only=True)


def test_a_recent_dump_is_found(shop: Any, small: str) -> None:
    backup = shop.backup(small, name="recent")
    assert backup.recent(3600, datetime.now(timezone.utc)) is None
    dump = backup.take()["dump"]
    assert backup.recent(3600, datetime.now(timezone.utc))["id"] == dump["id"]
    aged(dump, 1)
    assert backup.recent(3600, datetime.now(timezone.utc)) is None


# What a failing one leaves


def test_a_damaged_page_fails_the_dump_and_leaves_the_last_good_one(shop: Any, small: str) -> None:
    good = shop.dump(small, name="page", keep_count=1, format="directory", jobs=2)
    before = on_disk(shop, "page")
    path = shop.home / "data" / shop.psql("CHECKPOINT; SELECT pg_relation_filepath('t')", small)
    shop.program("pg_ctl", "stop", "-w", "-D", shop.home / "data", "-m", "fast")
    with path.open("r+b") as file:
        file.seek(8192 + 3000)
        file.write(b"damaged")
    shop.start_again()
    with pytest.raises(RecoveryError) as caught:
        shop.dump(small, name="page", keep_count=1, format="directory", jobs=2)
    assert "invalid page in block 1" in caught.value.msg
    assert f"The last good dump is {good['path']}" in caught.value.msg
    assert on_disk(shop, "page") == known(shop, "page") == before
    shop.load(good, "small again").restore()
    assert shop.psql("SELECT count(*) FROM t", "small again") == "2000"
    shop.drop("small again")


def test_a_killed_pg_dump_fails_the_program_and_leaves_the_last_good_one(
    shop: Any, small: str, blocker: Blocker
) -> None:
    blocker.end()
    good = shop.dump(small)
    held = Blocker(shop)
    running = program(shop)
    (pid,) = wait_for(lambda: children(running))
    os.kill(pid, signal.SIGKILL)
    _said, failed = running.communicate(timeout=20)
    held.end()
    assert running.returncode == 1
    assert "failed (killed by SIGKILL)" in failed
    assert f"The last good dump is {good['path']}" in failed
    assert on_disk(shop, "small")[-1] == good["id"]


def test_a_stopped_program_removes_what_is_half_done(shop: Any, small: str, blocker: Blocker) -> None:
    running = program(shop, name="stopped")
    wait_for(lambda: children(running))
    running.terminate()
    _said, failed = running.communicate(timeout=20)
    assert running.returncode == 1
    assert "stopped by SIGTERM" in failed
    assert on_disk(shop, "stopped") == []


def test_what_a_killed_program_left_is_removed_by_the_next(shop: Any, small: str, blocker: Blocker) -> None:
    running = program(shop, name="killed")
    wait_for(lambda: children(running))
    running.kill()
    running.communicate(timeout=20)
    (left,) = on_disk(shop, "killed")
    assert left.endswith(".partial")
    # pg_dump lives on and keeps the database to itself, so the next one waits.
    following = program(shop, name="killed")
    time.sleep(1)
    assert children(following) == []
    blocker.end()
    said, failed = following.communicate(timeout=30)
    assert following.returncode == 0, failed
    (dump,) = on_disk(shop, "killed")
    assert dump in said


def test_two_dumps_of_a_database_never_run_at_once(shop: Any, small: str, blocker: Blocker) -> None:
    first, second = program(shop, name="one"), program(shop, name="two")
    wait_for(lambda: children(first) + children(second))
    time.sleep(1)
    assert len(children(first) + children(second)) == 1
    blocker.end()
    for running in (first, second):
        _said, failed = running.communicate(timeout=30)
        assert running.returncode == 0, failed
    assert len(on_disk(shop, "one") + on_disk(shop, "two")) == 2


def test_a_server_that_is_away_fails_the_program(shop: Any, small: str) -> None:
    running = program(shop, name="away", login_port=6799)
    _said, failed = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "psql of database small" in failed
    assert "There is no good dump of it yet" in failed


# What is refused


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"jobs": 2}, "only with format 'directory'"),
        ({"format": "plain", "compress": "5"}, "does not go with compress"),
        ({"name": "../etc"}, "cannot be the name of a set"),
        ({"database": "Ödd db"}, "cannot be the name of a set"),
        ({"tables": ["t"], "exclude_tables": ["u"]}, "does not go with exclude_tables"),
        ({"globals": True, "tables": ["t"]}, "does not go with database, tables"),
        ({"database": None}, "Neither a database nor"),
    ],
)
def test_options_that_do_not_fit(shop: Any, params: dict[str, Any], said: str) -> None:
    with pytest.raises(RecoveryError, match=said):
        shop.backup(**{"database": "small", **params})


def test_a_table_that_is_not_there(shop: Any, small: str) -> None:
    with pytest.raises(RecoveryError, match=r'has no table "T"\.x, public\.nowhere') as caught:
        shop.dump(small, tables=["t", '"T".x', "nowhere"], name="nowhere")
    assert "Nothing was dumped" in caught.value.msg


def test_a_database_that_is_not_there(shop: Any) -> None:
    with pytest.raises(RecoveryError, match='database "gone" does not exist'):
        shop.dump("gone")
