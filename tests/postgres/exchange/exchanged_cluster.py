"""A production with two databases and a tablespace, in a directory of its own for each test, since it is exchanged.

Quiet: what each of its transactions did is counted, so nobody else writes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._exchange import places
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.exchange import Asked, Exchange
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.prepare import Preparation
from ansible_collections.dbre.recovery.plugins.module_utils._failover.archived import prove_archived
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "restore"))

from side_production import Production, Side, must, system_user  # found by the line above


class Cluster(Production):
    """Two databases, one of them with a table in a tablespace; a file of configuration beside PostgreSQL's own."""

    def begin(self) -> None:
        self.make()
        for name in ("shop", "stock"):
            must("createdb", "-h", f"{self.root}/sock", "-p", str(self.port), name)
        self.sql(f"CREATE TABLESPACE fast LOCATION '{self.root}/fast'")
        self.sql("CREATE TABLE orders (id int, note text)", "CREATE TABLE events (id int) TABLESPACE fast")
        self.sql("CREATE TABLE items (id int)", database="stock")
        self.write(1, 100)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("include 'more.conf'\ninclude_dir 'conf.d'\n")
        # As sites have it whose configuration is kept elsewhere.
        (self.root / "etc" / "conf.d").mkdir(parents=True)
        (self.root / "etc" / "conf.d" / "10.conf").write_text("temp_buffers = '9MB'\n")
        (self.data / "conf.d").symlink_to("../etc/conf.d")
        (self.root / "etc" / "more.conf").write_text("work_mem = '4MB'\n")
        (self.data / "more.conf").symlink_to("../etc/more.conf")
        self.backrest("backup", "--type=full")
        self.write(101, 200)
        # Newer than any backup, so that it is seen which of both is in force.
        (self.root / "etc" / "more.conf").write_text("work_mem = '5MB'\n")
        (self.root / "etc" / "conf.d" / "10.conf").write_text("temp_buffers = '10MB'\n")
        (self.root / "etc" / "conf.d" / "20.conf").write_text("deadlock_timeout = '3s'\n")
        self.sql("ALTER SYSTEM SET maintenance_work_mem = '33MB'")

    def write(self, first: int, last: int) -> None:
        numbers = f"generate_series({first}, {last}) g"
        self.sql(
            f"INSERT INTO orders SELECT g, 'order ' || g FROM {numbers}", f"INSERT INTO events SELECT g FROM {numbers}"
        )
        self.sql(f"INSERT INTO items SELECT g FROM {numbers}", database="stock")

    def migrate(self) -> None:
        """A bad migration over two databases, whose target is just before its first transaction."""
        opened = self.connect("shop")
        opened.autocommit = False
        # Its locks are there for ever where replay stops before its COMMIT.
        opened.cursor().execute("UPDATE orders SET note = 'x'; ALTER TABLE orders DROP COLUMN note; TRUNCATE events")
        self.sql("SELECT pg_log_standby_snapshot()" if self.major >= 17 else "CHECKPOINT")
        self.target_here("migration")
        opened.commit()
        opened.close()
        self.sql("DROP TABLE items", database="stock")
        self.sql("CREATE TABLE later (id int)", "INSERT INTO later SELECT generate_series(1, 7)")
        self.archive()

    def state(self) -> tuple[Any, ...]:
        """What applications see of all that there was before the migration."""
        return (
            self.sql("SELECT count(*) || ' ' || count(DISTINCT note) || ' ' || max(note) FROM orders"),
            self.sql("SELECT count(*) || ' ' || sum(id) FROM events"),
            self.sql("SELECT count(*) || ' ' || sum(id) FROM items", database="stock"),
        )

    def configured(self) -> bool:
        """Whether configuration that is kept elsewhere is there, and in force, as it was written last."""
        settings = [self.sql(f"SHOW {name}") for name in ("temp_buffers", "deadlock_timeout")]
        written = {path.name: path.read_text() for path in (self.root / "etc" / "conf.d").iterdir()}
        assert written == {"10.conf": "temp_buffers = '10MB'\n", "20.conf": "deadlock_timeout = '3s'\n"}
        return (self.data / "conf.d").is_symlink() and settings == ["10MB", "3s"]

    def damaged(self) -> bool:
        return bool(self.sql("SELECT count(*) = 7 FROM later")) and not self.sql("SELECT count(*) FROM events")


class Swap:
    """The exchange of one incident, driven as the module drives it."""

    def __init__(self, cluster: Cluster, label: str = "migration", path: Optional[Path] = None) -> None:
        self.cluster, self.label = cluster, label
        self.side = Side(cluster, path or cluster.root / "side" / label, label, databases=[])
        self.login = {
            "login_unix_socket": f"{cluster.root}/sock",
            "login_port": cluster.port,
            "login_user": system_user(),
        }
        self.keep = places.keep_of(str(cluster.data), label)

    @property
    def exchange(self) -> Exchange:
        """Anew for each step, as each is another process."""
        return Exchange(
            Asked(
                incident=self.label,
                keep=self.keep,
                path=str(self.side.path),
                config=str(self.cluster.config),
                timeout=60,
            ),
            self.login,
        )

    @property
    def target(self) -> dict[str, Any]:
        return dict(self.cluster.incidents[self.label])

    def prepare(self) -> dict[str, Any]:
        self.exchange.plan(self.target)
        self.side.restore()
        return Preparation(self.exchange).prepare(self.target)

    def prepared_again(self) -> dict[str, Any]:
        return Preparation(self.exchange).prepare(self.target)

    def carry_out(self) -> dict[str, Any]:
        self.prepare()
        self.exchange.closed()
        self.exchange.exchanged()
        return self.exchange.opened()

    def take_back(self) -> dict[str, Any]:
        self.exchange.taken_back()
        return self.exchange.opened()

    def find(self, **target: str) -> dict[str, Any]:
        """What dr_target_lsn or dr_target_time leads to."""
        with tempfile.TemporaryDirectory() as spool:
            archive = StanzaArchive("main", config=str(self.cluster.config))
            search = Search(self.login, make_request("shop", **target), spool, archive)
            try:
                return search.find()
            finally:
                search.close()

    def prove_archived(self) -> dict[str, Any]:
        archive = StanzaArchive("main", config=str(self.cluster.config), repo=1, parallel=1)
        with tempfile.TemporaryDirectory() as spool:
            return prove_archived(self.login, {"1": archive}, spool, timeout=30, check_mode=False)
