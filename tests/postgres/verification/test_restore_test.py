# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole restore test of a real backup: when all is well, and with each thing that keeps it from its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import program_files
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._side.expected import expected, history_of
from ansible_collections.dbre.recovery.plugins.module_utils._verification.restore_test import Request, RestoreTest
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import take_fingerprints
from ansible_collections.dbre.recovery.plugins.module_utils._wal.unarchived import unarchived
from ansible_collections.dbre.recovery.tests.postgres.wal.cluster import STANZA, Cluster, as_int

PORT = 6385
ROOM = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": 86400.0}}


def run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class Production:
    """A server with a repository, and a place for restore tests of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cluster = Cluster(root / "production", PORT).init()
        self.cluster.start()
        self.side = root / "side"

    def request(self, place: Path, **asked: Any) -> Request:
        given = {"config": str(self.cluster.config), "superuser": "postgres", "policy": POLICY, "host": "here", **asked}
        return Request(stanza=STANZA, directory=str(place), path=str(self.side), **given)

    def test(self, place: Path, **asked: Any) -> dict[str, Any]:
        report = RestoreTest(self.request(place, **asked), run).run()
        assert not self.side.exists()
        assert report["removed"]["left"] == []
        return report

    def loss(self, newest: str | None = None) -> dict[str, Any]:
        spool = tempfile.mkdtemp(dir=self.root)
        archive = StanzaArchive(STANZA, config=str(self.cluster.config))
        connection = self.cluster.connect()
        try:
            return unarchived(connection, newest or self.newest(), archive, spool)
        finally:
            connection.close()

    def newest(self) -> str:
        return str(self.cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver"))

    def commit(self, count: int) -> None:
        for _turn in range(count):
            self.cluster.sql("INSERT INTO orders (item) VALUES ('one')")


def attempts(place: Path) -> list[dict[str, Any]]:
    return list(json.loads((place / f"verification-{STANZA}.json").read_text())["attempts"])


def codes(report: dict[str, Any]) -> list[str]:
    return [item["code"] for item in report["findings"]]


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    root = Path(tempfile.mkdtemp(prefix="tested-"))
    made = Production(root)
    cluster = made.cluster
    try:
        cluster.sql("CREATE DATABASE shop", database="postgres")
        cluster.sql("CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL)")
        cluster.pgbackrest("stanza-create")
        cluster.backup()
        for _turn in range(3):
            made.commit(2)
            cluster.archived()
        yield made
    finally:
        cluster.stop()
        shutil.rmtree(root)


def test_a_test_is_measured_and_the_next_plan_knows_how_long_it_takes(production: Production, tmp_path: Path) -> None:
    production.commit(3)
    time.sleep(1)
    loss = production.loss()
    report = production.test(tmp_path, loss=loss)
    assert (report["verdict"], codes(report)) == ("verified", [])
    (attempt,) = attempts(tmp_path)
    assert set(attempt["seconds"]) == {"restore", "replay", "ready", "checked"}
    count = loss["transactions"]  # autovacuum commits, too
    assert count >= 3
    assert attempt["rpo"] == {"seconds": loss["seconds"], "transactions": count, "objective": 14400.0, "met": True}
    identifier = production.cluster.sql("SELECT system_identifier::text FROM pg_control_system()")
    assert (attempt["system_identifier"], attempt["repo"], attempt["rto"]["met"]) == (identifier, 1, True)
    # The program's seconds are among the phase's; both are told in tenths.
    assert attempt["bytes"] / attempt["bytes_per_second"]["restore"] <= attempt["seconds"]["restore"] + 0.11
    assert report["removed"]["disk"]["before"] > 0
    plan = expected(history_of(str(tmp_path), STANZA), 1, attempt["bytes"] * 10, 0)
    assert plan is not None
    assert 5 * attempt["seconds"]["restore"] < plan["seconds"]["restore"] < 10.5 * attempt["seconds"]["restore"]
    assert expected(history_of(str(tmp_path), STANZA), 2, 1, 1) is None


def test_a_comparison_that_was_asked_for_and_could_not_be_made_verifies_nothing(
    production: Production, tmp_path: Path
) -> None:
    without = RestoreTest(production.request(tmp_path), run).dry_run()
    assert "data against production's" in {one["what"] for one in without["not_checked"]}
    asked = RestoreTest(production.request(tmp_path, compare_failed="no password supplied"), run).dry_run()
    assert (asked["verdict"], codes(asked)) == ("could_not_verify", ["DATA_NOT_COMPARABLE"])
    assert "no password supplied" in str(asked["findings"])


def test_what_was_committed_just_before_a_new_segment_can_be_compared(production: Production) -> None:
    archive = StanzaArchive(STANZA, config=str(production.cluster.config))
    production.cluster.archived()  # nothing is in the segment after this one
    taken = take_fingerprints(production.cluster.login, ["shop"], archive, tempfile.mkdtemp(dir=production.root))
    production.cluster.sql("SELECT pg_switch_wal()")
    assert production.cluster.sql(f"SELECT count(*)::int FROM pg_ls_waldir() WHERE name = '{taken['segment']}'") == 1


def test_a_server_whose_wal_writer_sleeps_can_be_compared(production: Production) -> None:
    """It does so after some seconds without work, for wal_writer_delay times 25, and nothing but a commit wakes it."""
    archive = StanzaArchive(STANZA, config=str(production.cluster.config))
    settings = {
        "wal_writer_delay": "'10s'",
        "synchronous_commit": "off",
        "autovacuum": "off",  # quiet: what it commits would wake the WAL writer
        "bgwriter_delay": "'10s'",
    }
    for name, value in settings.items():
        production.cluster.sql(f"ALTER SYSTEM SET {name} = {value}")
    production.cluster.sql("SELECT pg_reload_conf()")
    try:
        time.sleep(1)
        production.cluster.archived()
        time.sleep(1)
        taken = take_fingerprints(production.cluster.login, ["shop"], archive, tempfile.mkdtemp(dir=production.root))
    finally:
        for name in settings:
            production.cluster.sql(f"ALTER SYSTEM RESET {name}")
        production.cluster.sql("SELECT pg_reload_conf()")
    assert taken["databases"]["shop"]


def test_what_would_be_lost_is_what_production_has_and_the_archive_lacks(production: Production) -> None:
    production.cluster.archived()
    loss = production.loss()
    assert (loss["transactions"] == 0) is (loss["seconds"] == 0)
    archived = production.newest()
    production.commit(5)
    time.sleep(1.2)
    loss = production.loss(archived)
    begin, end = as_int(loss["from_lsn"]), as_int(loss["to_lsn"])
    behind = [xid for lsn, xid in production.cluster.commits() if begin <= lsn < end]
    assert loss["transactions"] == len(behind) >= 5
    assert 1.2 <= loss["seconds"] < 10
    # The server has finished and archived it meanwhile: of the archive that was asked it is lost all the same.
    production.cluster.archived()
    assert production.loss(archived)["transactions"] >= len(behind)


@pytest.mark.parametrize(
    ("point", "code"),
    [
        ("0/100028", "PITR_TARGET_BEFORE_BACKUP"),
        ("2020-01-01 00:00:00+00", "PITR_TARGET_BEFORE_BACKUP"),
        ("0/FFFFFF00", "PITR_TARGET_UNREACHED"),
        ("2099-01-01 00:00:00+00", "PITR_TARGET_UNREACHED"),
    ],
)
def test_a_moment_outside_of_the_window_is_found(production: Production, tmp_path: Path, point: str, code: str) -> None:
    report = production.test(tmp_path, point=point)
    assert (report["verdict"], codes(report)) == ("failed", [code])


def test_a_host_that_lacks_what_it_takes_says_nothing_of_the_backup(production: Production, tmp_path: Path) -> None:
    report = production.test(tmp_path, bin_dir="/nonexistent")
    assert (report["verdict"], codes(report)) == ("could_not_verify", ["HOST_UNFIT"])
    assert report["rto"] is None


def began(production: Production, program: list[str]) -> subprocess.Popen[str]:
    """The program, once the server that it restored runs."""
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (production.side / "data/postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_the_program_of_the_timer_tests_and_leaves_nothing_however_it_ends(
    production: Production, tmp_path: Path
) -> None:
    """As it is installed, where no Ansible is: ended, killed so that only systemd can clean up, and to its end."""
    home = tmp_path / "home"
    for name, text in program_files("_verification/scheduled.py", lambda path: (ROOM / path).read_text()).items():
        file = home / "ansible_collections/dbre/recovery/plugins/module_utils" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    start = home / "verify.py"
    module = "ansible_collections.dbre.recovery.plugins.module_utils._verification.scheduled"
    start.write_text(
        f"import sys\nsys.path[:0] = [{str(home)!r}]\nfrom {module} import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({**vars(production.request(tmp_path)), "signing_key": str(key)}))
    program = ["env", "-u", "PYTHONPATH", "/usr/bin/python3", "-B", str(start), str(settings)]

    ended = began(production, program)
    ended.terminate()
    assert ended.wait() != 0
    assert not production.side.exists()
    killed = began(production, program)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [one["ended"] for one in attempts(tmp_path)][-1] is None
    assert production.side.exists()
    cleaned = subprocess.run([*program, "--clean"], capture_output=True, text=True, check=True).stdout
    assert "was killed" in cleaned
    assert not production.side.exists()
    whole = began(production, program)
    output = whole.communicate()[0]
    assert (whole.returncode, output.splitlines()[0]) == (0, f"VERIFIED: stanza '{STANZA}'")
    assert "what would be lost (RPO): production was not asked" in output
    assert [one["codes"] for one in attempts(tmp_path)] == [["KILLED"], ["KILLED"], []]
    assert list(tmp_path.glob("verifications/*/report.json.sig"))
    assert subprocess.run([*program, "--clean"], capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("other", [".", "other"])
def test_of_two_at_the_same_time_the_later_one_touches_nothing(
    production: Production, tmp_path: Path, other: str
) -> None:
    """Also where the later one has its history elsewhere: what matters is where the backup is restored."""
    found: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: found.append(production.test(tmp_path)))
    first.start()
    deadline = time.monotonic() + 60
    while not production.side.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(RecoveryError, match="another restore test of stanza .* runs on here"):
        RestoreTest(production.request(tmp_path / other), run).run()
    first.join()
    assert [report["verdict"] for report in found] == ["verified"]
    assert len(attempts(tmp_path)) == 1


QUESTIONS = [
    {"name": "orders", "database": "shop", "sql": "SELECT count(*) FROM public.orders;", "expect": ">= 1"},
    {"name": "too few", "database": "shop", "sql": "SELECT count(*) FROM public.orders", "expect": "= 0"},
    {
        "name": "a row",
        "database": "shop",
        "sql": "SELECT 'secret ' || item FROM public.orders LIMIT 1",
        "expect": "> 0",
    },
    {"name": "cast", "database": "shop", "sql": "SELECT ('secret'::text)::int", "expect": "> 0"},
    {"name": "harm", "database": "shop", "sql": "SELECT public.mischief()", "expect": "> 0"},
    {"name": "nothing", "database": "shop", "sql": "SELECT NULL::int", "expect": "<> 0"},
    {"name": "no number", "database": "shop", "sql": "SELECT 'NaN'::float8", "expect": "<> 0"},
    {"name": "no end", "database": "shop", "sql": "SELECT 'Infinity'::float8", "expect": "> 0"},
    {"name": "two of a name", "database": "shop", "sql": "SELECT 0 AS n, 5 AS n", "expect": "> 0"},
    {"name": "many rows", "database": "shop", "sql": "SELECT generate_series(1, 100000000)", "expect": "> 0"},
    {"name": "no row", "database": "shop", "sql": "SELECT 1 WHERE false", "expect": "> 0"},
]


def test_data_is_compared_at_one_position_while_production_goes_on(production: Production, tmp_path: Path) -> None:
    """Two databases that are written to all the time; then kept, compared with the past, and changed."""
    cluster = production.cluster
    cluster.sql("CREATE DATABASE stock", database="postgres")
    cluster.sql("CREATE TABLE items (id serial PRIMARY KEY, moved numeric)", database="stock")
    cluster.sql(
        "CREATE FUNCTION mischief() RETURNS int LANGUAGE sql AS 'CREATE TABLE public.made (); SELECT 1'",
        "CREATE UNLOGGED TABLE scratch AS SELECT 1 AS id",
        "CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM orders",
    )
    stop = threading.Event()

    def work(database: str, statement: str) -> None:
        connection = cluster.connect(database)
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(statement)
                done[database] += 1
                time.sleep(0.004)
        connection.close()

    done = {"shop": 0, "stock": 0}
    workers = [
        threading.Thread(target=work, args=("shop", "INSERT INTO orders (item) VALUES ('living')")),
        threading.Thread(target=work, args=("stock", "INSERT INTO items (moved) VALUES (1.10)")),
    ]
    for worker in workers:
        worker.start()
    try:
        deadline = time.monotonic() + 60
        while min(done.values()) < 20:
            assert time.monotonic() < deadline, done
            time.sleep(0.01)
        spool = tempfile.mkdtemp(dir=production.root)
        archive = StanzaArchive(STANZA, config=str(cluster.config))
        snapshot = take_fingerprints(cluster.login, ["shop", "stock"], archive, spool)
        time.sleep(0.3)
        cluster.archived()
        report = production.test(tmp_path, compare=snapshot, assertions=QUESTIONS[:1])
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert (report["verdict"], report["findings"]) == ("verified", [])
    (data,) = [one["facts"] for one in report["checks"] if one["check"] == "data"]
    assert data["lsn"] <= data["snapshot"] == snapshot["lsn"]
    assert data["databases"]["stock"]["rows"] > 10
    assert "public.scratch" not in snapshot["databases"]["shop"]
    assert data["databases"]["shop"]["rows"] < cluster.sql("SELECT count(*) FROM orders")

    # The past, which an earlier test has kept; and each kind of answer.
    asked = production.test(tmp_path, point="kept", assertions=QUESTIONS)
    assert [(item["check"], item["code"], item["subject"]) for item in asked["findings"]] == [
        ("assertions", "ASSERTION_FAILED", "too few"),
        ("assertions", "ASSERTION_UNRUNNABLE", "a row"),
        ("assertions", "ASSERTION_UNRUNNABLE", "cast"),
        ("assertions", "ASSERTION_UNRUNNABLE", "harm"),
        ("assertions", "ASSERTION_UNRUNNABLE", "nothing"),
        ("assertions", "ASSERTION_UNRUNNABLE", "no number"),
        ("assertions", "ASSERTION_UNRUNNABLE", "no end"),
        ("assertions", "ASSERTION_UNRUNNABLE", "two of a name"),
        ("assertions", "ASSERTION_UNRUNNABLE", "many rows"),
        ("assertions", "ASSERTION_UNRUNNABLE", "no row"),
    ]
    assert "secret" not in json.dumps(asked)
    assert [one["verdict"] for one in asked["checks"] if one["check"] == "data"] == ["verified"]

    # One row less, and one changed, of what production had.
    orders, items = snapshot["databases"]["shop"]["public.orders"], snapshot["databases"]["stock"]["public.items"]
    orders["rows"] += 1
    items["checksum"] = items["checksum"][:-1] + ("1" if items["checksum"][-1] != "1" else "2")
    differs = production.test(tmp_path, compare=snapshot)
    assert [item["subject"] for item in differs["findings"]] == ["shop: public.orders", "stock: public.items"]
    assert set(codes(differs)) == {"DATA_DIFFERS"}


def test_rows_that_production_had_lost_before_the_backup_are_not_verified(
    production: Production, tmp_path: Path
) -> None:
    """Its disk emptied a table's file. To the server, pgBackRest, page checksums and pg_amcheck it is a shorter one."""
    cluster = production.cluster
    cluster.sql("CREATE TABLE emptied AS SELECT g AS id FROM generate_series(1, 1000) g", "VACUUM emptied")
    file = cluster.data / cluster.sql("SELECT pg_relation_filepath('emptied')")
    cluster.stop("fast")
    file.write_bytes(b"")
    cluster.start()
    assert cluster.sql("SELECT count(*) FROM emptied") == 0
    cluster.backup()
    for _turn in range(2):
        production.commit(1)
        cluster.archived()
    report = production.test(tmp_path)
    assert (report["verdict"], codes(report)) == ("failed", ["ROWS_MISSING"])
    assert report["findings"][0]["subject"] == "shop: public.emptied"
    cluster.sql("DROP TABLE emptied")
    cluster.archived()


def test_a_backup_that_expires_while_it_is_restored_is_no_bad_one(
    production: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired: list[str] = []
    state = RestoreTest.state

    def expire_first(test: RestoreTest, wanted: str) -> dict[str, Any]:
        if not expired:  # it is restored, and its WAL is still to be fetched
            production.cluster.backup()
            production.cluster.pgbackrest("expire", "--repo1-retention-full=1")
            expired.append(wanted)
        return state(test, wanted)

    with monkeypatch.context() as hooked:
        hooked.setattr(RestoreTest, "state", expire_first)
        report = production.test(tmp_path)
    assert (report["verdict"], codes(report)) == ("could_not_verify", ["SET_EXPIRED"])
    for _turn in range(2):
        production.commit(1)
        production.cluster.archived()
    assert production.test(tmp_path)["verdict"] == "verified"


def test_a_tablespace_never_lands_in_productions_place(production: Production, tmp_path: Path) -> None:
    place = production.root / "fast"
    place.mkdir(mode=0o700)
    cluster = production.cluster
    cluster.sql(f"CREATE TABLESPACE fast LOCATION '{place}'", "CREATE TABLE quick (id int) TABLESPACE fast")
    # In the set, and one that only WAL makes.
    cluster.backup()
    late = production.root / "late"
    late.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE late LOCATION '{late}'", "CREATE TABLE slow (id int) TABLESPACE late")
    production.commit(2)
    cluster.archived()
    before = {path: path.stat().st_mtime_ns for top in (place, late) for path in top.rglob("*") if path.is_file()}
    report = production.test(tmp_path)
    assert (report["verdict"], codes(report)) == ("could_not_verify", ["TABLESPACE_UNMAPPED"])
    assert os.listdir(place)
    assert {path: path.stat().st_mtime_ns for path in before} == before
