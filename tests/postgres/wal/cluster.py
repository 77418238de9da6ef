"""A real server with a real archive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import LAYOUTS
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._wal.change_history import ChangeHistory, window_of
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search
from ansible_collections.dbre.recovery.tests.life import EAGER, Life

FIRST_PORT = int(os.environ.get("WAL_TEST_PORT", "6300"))
STANZA = "wal"


def newest_bin_dir() -> Path:
    """Programs of the newest PostgreSQL on this machine."""
    for major in range(30, 12, -1):
        for layout in LAYOUTS:
            found = Path(layout.format(major=major))
            if (found / "postgres").exists():
                return found
    raise RuntimeError("no PostgreSQL 13 or later is installed")


def call(*argv: object, **options: Any) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Found(NamedTuple):
    """A record by its transaction and position."""

    xid: int
    lsn: int
    text: str


class Cluster:
    """A PostgreSQL server in a directory of its own, with a pgBackRest repository beside it."""

    def __init__(self, root: Path, port: int, data: str = "data") -> None:
        self.root = root
        self.port = port
        self.bin = newest_bin_dir()
        self.major = int(re.search(r"(\d+)", call(self.bin / "postgres", "--version")).group(1))
        self.data = root / data
        self.config = root / "pgbackrest.conf"

    def init(self, segment_mb: int = 1, **settings: str) -> Cluster:
        self.root.mkdir(parents=True, exist_ok=True)
        options = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", f"--wal-segsize={segment_mb}"]
        call(self.bin / "initdb", "-D", self.data, "-U", "postgres", *options)
        repository = self.root / "repository"
        repository.mkdir()
        self.config.write_text(
            f"[global]\nrepo1-path={repository}\nlog-path={self.root}\nlock-path={self.root}/lock\n"
            f"spool-path={self.root}/spool\nlog-level-file=off\nstart-fast=y\ncompress-type=none\n"
            f"[{STANZA}]\npg1-path={self.data}\npg1-port={self.port}\npg1-socket-path={self.root}\npg1-user=postgres\n"
        )
        lines = {
            "port": str(self.port),
            "unix_socket_directories": f"'{self.root}'",
            "listen_addresses": "''",
            "fsync": "off",
            **EAGER,
            "max_prepared_transactions": "5",
            "max_wal_size": "1GB",
            "wal_keep_size": "512MB",
            "checkpoint_timeout": "1h",
            "archive_mode": "on",
            "archive_command": f"'pgbackrest --config={self.config} --stanza={STANZA} archive-push %p'",
            **settings,
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("".join(f"{name} = {value}\n" for name, value in lines.items()))
        return self

    def start(self) -> Cluster:
        call(self.bin / "pg_ctl", "-D", self.data, "-l", self.root / f"{self.data.name}.log", "-w", "start")
        return self

    def stop(self, mode: str = "immediate") -> None:
        call(self.bin / "pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def pgbackrest(self, command: str, *options: str) -> str:
        return call("pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *options, command)

    def backup(self) -> None:
        self.pgbackrest("backup", "--type=full")

    def connect(self, database: str = "shop") -> Any:
        connection = psycopg2.connect(host=str(self.root), port=self.port, user="postgres", dbname=database)
        connection.autocommit = True
        return connection

    def sql(self, *statements: str, database: str = "shop") -> Any:
        """Run statements, each in its own transaction; returns the first value of the last."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()

    def transact(self, *statements: str, database: str = "shop", end: str = "COMMIT") -> int:
        """Run statements in one transaction and return its number as WAL has it."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                for statement in statements:
                    cursor.execute(statement)
                cursor.execute("SELECT pg_current_xact_id()::text::bigint & 4294967295")
                xid = cursor.fetchone()[0]
                cursor.execute(end)
                return int(xid)
        finally:
            connection.close()

    def waldump(self, *options: str) -> str:
        """What pg_waldump prints of all that is in pg_wal, on the newest timeline; the truth to compare with."""
        end = "SELECT lsn || ' ' || pg_walfile_name(lsn) FROM pg_current_wal_flush_lsn() AS lsn"
        flushed, name = self.sql(end, database="postgres").split()
        size = self.sql("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'", database="postgres")
        # After a switch the position is the first byte of a file that is not there yet, whose name 17 and later give.
        last = (as_int(flushed) - 1) // size
        newest = self.segment(name[:8], last, size)
        # Without gaps backwards from the newest, for older files may be missing.
        number = last
        while (self.data / "pg_wal" / self.segment(newest[:8], number - 1, size)).exists():
            number -= 1
        span = [
            f"--path={self.data}/pg_wal",
            f"--end={flushed}",
            *options,
            self.segment(newest[:8], number, size),
            newest,
        ]
        return call(self.bin / "pg_waldump", *span, env={"TZ": "UTC", "LC_ALL": "C"})

    def records(self, option: str, text: str) -> list[Found]:
        """Records of pg_waldump with an option whose line holds a text."""
        found = []
        for line in self.waldump(option).splitlines():
            match = re.search(r"tx: +(\d+), lsn: ([0-9A-F]+)/([0-9A-F]+), ", line)
            if match and re.search(text, line):
                plain = f"{int(match.group(2), 16):X}/{int(match.group(3), 16):X}"
                found.append(Found(int(match.group(1)), as_int(plain), plain))
        return found

    @staticmethod
    def segment(timeline: str, number: int, size: int) -> str:
        per_id = 0x100000000 // size
        return f"{timeline}{number // per_id:08X}{number % per_id:08X}"

    def commit_lsn(self, xid: int) -> str:
        """Position of the record that committed a transaction."""
        text = self.waldump("--rmgr=Transaction")
        found = re.findall(rf"tx: +{xid}, lsn: ([0-9A-F/]+), .*desc: COMMIT ", text)
        found += re.findall(rf"lsn: ([0-9A-F/]+), .*desc: COMMIT_PREPARED {xid}:", text)
        (lsn,) = found
        high, low = lsn.split("/")
        return f"{int(high, 16):X}/{int(low, 16):X}"

    def commits(self) -> list[tuple[int, int]]:
        """Positions and transactions of all commits, in WAL's order."""
        found = []
        for line in self.waldump("--rmgr=Transaction").splitlines():
            match = re.search(r"tx: +(\d+), lsn: ([0-9A-F/]+), .*desc: COMMIT(?:_PREPARED (\d+))?", line)
            if match:
                found.append((as_int(match.group(2)), int(match.group(3) or match.group(1))))
        return found

    def last_commit_before(self, lsn: str) -> int:
        """Number of the transaction that committed last before ``lsn``; 0 when none did."""
        return next((xid for position, xid in reversed(self.commits()) if position < as_int(lsn)), 0)

    def commits_after(self, lsn: str) -> int:
        """Transactions that committed after the record at ``lsn``, until now."""
        return sum(position > as_int(lsn) for position, _xid in self.commits())

    def archived(self) -> None:
        """Switch WAL and wait until all of it is in the archive."""
        # Nothing is switched where nothing was written since the last one.
        once = ("SELECT pg_create_restore_point('archived')", "SELECT pg_walfile_name(pg_switch_wal())")
        name = self.sql(*once, database="postgres")
        for _attempt in range(1200):
            if self.sql(f"SELECT last_archived_wal >= '{name}' FROM pg_stat_archiver", database="postgres"):
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} was not archived")

    @property
    def login(self) -> Login:
        return {"login_unix_socket": str(self.root), "login_port": self.port, "login_user": "postgres"}

    def search(self, spool: str, **given: Any) -> Search:
        """A search for damage, to be closed."""
        archive = StanzaArchive(STANZA, config=str(given.pop("config", self.config)))
        login = {**self.login, **{name: given.pop(name) for name in list(given) if name.startswith("login_")}}
        request = make_request(**{"database": "shop", "min_rows": 1000, **given})
        return Search(login, request, spool, archive)

    def history(self, database: str = "shop", spool: Path | None = None, **asked: Any) -> dict[str, Any]:
        """What the module would return of what happened."""
        spool = Path(tempfile.mkdtemp(prefix="spool-", dir=self.root))
        archive = StanzaArchive(stanza=STANZA, config=str(self.config))
        login = Login(login_unix_socket=str(self.root), login_port=self.port, login_user="postgres")
        try:
            told = {"max_changes": asked.pop("max_changes", 2000), "list_path": asked.pop("list_path", None)}
            window = window_of(asked.pop("since"), asked.pop("until", None)) if "since" in asked else {}
            given = {"bin_dir": str(self.bin), "since_backup": asked.pop("since_backup", False)}
            history = ChangeHistory(login, make_request(database, **window, **asked), str(spool), archive, **given)
            try:
                return history.read(**told)
            finally:
                history.close()
        finally:
            shutil.rmtree(spool)

    def find(self, *relations: str, **given: Any) -> dict[str, Any]:
        """Search for the damage to relations."""
        spool = tempfile.mkdtemp(dir=self.root)
        try:
            search = self.search(spool, relations=list(relations), **given)
            try:
                return search.find()
            finally:
                search.close()
        finally:
            shutil.rmtree(spool)


def as_int(lsn: str) -> int:
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def is_just_before(found: dict[str, Any], cluster: Cluster, xid: int, kind: str = "drop_table") -> None:
    """The result names transaction ``xid``, and the target is exactly its commit record."""
    lsn = cluster.commit_lsn(xid)
    assert (found["incident"]["xid"], found["incident"]["lsn"], found["incident"]["kind"]) == (xid, lsn, kind)
    target = found["target"]
    assert (target["type"], target["value"], target["exclusive"], target["xid"]) == ("lsn", lsn, True, xid)
    behind = as_int(lsn) + 1
    assert target["segment"] == cluster.sql(f"SELECT pg_walfile_name('{behind >> 32:X}/{behind & 0xFFFFFFFF:X}')")
    assert found["last_commit"]["xid"] == cluster.last_commit_before(lsn)


def life_beside(cluster: Cluster) -> Life:
    return Life(str(cluster.root), cluster.port, user="postgres", inside=("shop",))


class SideInstance:
    """A restore of the newest backup, replayed to a target exactly as found, and promoted."""

    def __init__(self, cluster: Cluster, target: dict[str, Any], port: int) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="side", dir=cluster.root))
        self.bin = cluster.bin
        self.data.chmod(0o700)
        tablespaces = self.data.with_name(self.data.name + "-tablespaces")
        cluster.pgbackrest("restore", "--type=none", f"--pg1-path={self.data}", f"--tablespace-map-all={tablespaces}")
        fetch = f"pgbackrest --config={cluster.config} --stanza={STANZA} --pg1-path={self.data}"
        settings = {
            "port": str(port),
            "archive_mode": "off",
            "restore_command": f"'{fetch} archive-get %f %p'",
            "recovery_target_lsn": f"'{target['value']}'",
            "recovery_target_inclusive": "off" if target["exclusive"] else "on",
            "recovery_target_timeline": f"'{target['timeline']}'",
            "recovery_target_action": "promote",
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self.data / "recovery.signal").touch()
        self.root, self.port = cluster.root, port
        try:
            call(self.bin / "pg_ctl", "-D", self.data, "-l", f"{self.data}.log", "-w", "start")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{Path(f'{self.data}.log').read_text()}") from error
        while self.sql("SELECT pg_is_in_recovery()", database="postgres"):
            time.sleep(0.05)

    sql = Cluster.sql
    connect = Cluster.connect

    def __enter__(self) -> SideInstance:
        return self

    def __exit__(self, *_error: object) -> None:
        call(self.bin / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
