"""A shop on real hosts, and the real playbook run against it.

The hosts come from an Ansible inventory named by DBRE_INVENTORY, the sites from it: a site is a primary and the host
on which its side instances go (itself, a recovery host, or that of a standby). DBRE_PLAYBOOK names the playbook, by
path or by full name, DBRE_PORT and DBRE_STANZA the cluster.

With DBRE_MATRIX=short a test runs at one of the sites, always the same, unless it is marked ``both_sites``: mark what
shows something else where the side instance has a host of its own, or with another version of PostgreSQL. What is
marked ``whole`` is left out: mark what differs from its siblings by a value only.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Optional

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from hosts import Host, LifeOnHost, hosts_of  # found by the line above
from life import EAGER
from runs import Run, run, run_killed_in

__all__ = ["Host", "Run", "hosts_of"]

HERE = pathlib.Path(__file__).parent
PORT = int(os.environ.get("DBRE_PORT", "5460"))
STANZA = os.environ.get("DBRE_STANZA", "shop")
SOCKET_DIR = "/var/run/postgresql"
CONFIG = f"/etc/pgbackrest-{STANZA}.conf"
PLAYBOOK = os.environ.get("DBRE_PLAYBOOK", "dbre.recovery.dr_table_drop")
FOLDER = f"/var/tmp/{STANZA}"
LIVING = {**EAGER, "fsync": "off"}  # the machine of the tests loses no power, and its disk is everybody's


class Site:
    """A primary with a shop on it, and the place for its side instances."""

    def __init__(self, name: str, primary: Host, side: Host, folder: pathlib.Path, group: str = "recovery") -> None:
        self.name, self.primary, self.side, self.folder, self.group = name, primary, side, folder, group
        self.reports = folder / "incidents"
        self.life = LifeOnHost(primary, f"{FOLDER}-life", SOCKET_DIR, PORT)
        groups: dict[str, Any] = {"primary": {"hosts": {primary.name: primary.variables}}}
        if side is not primary:
            groups[group] = {"hosts": {side.name: side.variables}}
        everything = {
            "postgresql_port": PORT,
            "postgresql_cluster_name": STANZA,
            "pgbackrest_stanza": STANZA,
            "pgbackrest_config_path": CONFIG,
        }
        self.inventory = folder / "inventory.json"
        self.inventory.write_text(json.dumps({"all": {"vars": everything, "children": groups}}))

    # -- production ------------------------------------------------------------------------------------------------
    def sql(self, statements: str, database: str = "shop") -> str:
        """Run SQL on production; one line a row, columns separated by |."""
        return self.sql_on(self.primary, statements, database)

    @staticmethod
    def sql_on(host: Host, statements: str, database: str = "postgres") -> str:
        command = f"psql -X -q -A -t -v ON_ERROR_STOP=1 -h {SOCKET_DIR} -p {PORT} -d {database} -f -"
        return host.run(command, stdin=statements).strip()

    def definitions(self) -> str:
        """The whole database as pg_dump --schema-only, without the random keys newer versions put into it."""
        text = self.primary.run(f"pg_dump -h {SOCKET_DIR} -p {PORT} -d shop --schema-only")
        return "\n".join(line for line in text.splitlines() if not re.match(r"\\(un)?restrict ", line))

    def checksum(self, table: str) -> str:
        return self.sql(f'SELECT count(*), sum(hashtextextended(t::text COLLATE "C", 0)) FROM {table} t')

    def settings(self) -> str:
        """What an isolated recovery may not change on production: configuration, slots, timeline."""
        return self.sql(
            "SELECT name, setting, sourcefile FROM pg_settings WHERE source NOT IN ('session', 'client') ORDER BY 1;"
            "SELECT setdatabase::regclass::text, setconfig FROM pg_db_role_setting ORDER BY 1;"
            "SELECT slot_name, slot_type, restart_lsn FROM pg_replication_slots ORDER BY 1;"
            "SELECT timeline_id FROM pg_control_checkpoint()"
        )

    def archive_files(self) -> list[str]:
        listing = self.primary.run(
            f"pgbackrest --config={CONFIG} --stanza={STANZA} --output=json --recurse repo-ls archive/{STANZA}"
        )
        return sorted(name for name, entry in json.loads(listing).items() if entry["type"] == "file")

    def make_shop(self) -> None:
        """A new shop, as large as it has to be, and nothing of the one before."""
        self.stop_writer()
        self.primary.run(
            f"psql -X -q -h {SOCKET_DIR} -p {PORT} -c 'DROP DATABASE IF EXISTS shop WITH (FORCE)'"
            " -c 'DROP ROLE IF EXISTS shop_owner' -c 'DROP ROLE IF EXISTS shop_app'"
            " -c 'DROP ROLE IF EXISTS shop_reports'"
        )
        self.sql((HERE / "shop.sql").read_text(), database="postgres")
        self.primary.run(f"rm -rf {FOLDER} && mkdir {FOLDER}")

    def begin_life(self) -> None:
        """Autovacuum at its most eager, and work in other databases, all the time."""
        self.sql("".join(f"ALTER SYSTEM SET {name} = '{value}';" for name, value in LIVING.items()), "postgres")
        self.sql("SELECT pg_reload_conf()", "postgres")
        self.life.stop()  # and what else a test run that was killed has left
        self.life.bring()
        self.life.remove()
        self.life.start(pause=15, seconds=3000)

    def end_life(self) -> None:
        self.life.stop()
        self.life.remove()
        self.sql("".join(f"ALTER SYSTEM RESET {name};" for name in LIVING), "postgres")
        self.sql("SELECT pg_reload_conf()", "postgres")

    def backup(self) -> None:
        """The only one that is kept: whoever searches or replays WAL begins here."""
        words = f"--config={CONFIG} --stanza={STANZA} --type=full --start-fast --repo1-retention-full=1"
        self.primary.run(f"pgbackrest {words} --log-level-console=error backup")

    def start_writer(self, seconds: int = 900) -> None:
        self.primary.run(f"cat > {FOLDER}/writer.py", stdin=(HERE / "writer.py").read_text())
        self.primary.run(
            f"rm -f {FOLDER}/stop; nohup python3 {FOLDER}/writer.py {SOCKET_DIR} {PORT} {FOLDER} {seconds}"
            f" > {FOLDER}/writer.out 2>&1 < /dev/null &"
        )
        self.wait_for_commits(50)

    def wait_for_commits(self, more: int, table: str = "orders") -> None:
        """Wait until the writer has committed ``more`` rows from now on."""
        log = f"{FOLDER}/{table}.log"
        # The host waits, in one connection.
        waited = self.primary.run(
            f"lines() {{ cat {log} 2>/dev/null | wc -l; }}; goal=$(($(lines) + {more}));"
            " for i in $(seq 100); do [ $(lines) -ge $goal ] && exit 0; sleep 0.2; done;"
            f" echo stands still; cat {FOLDER}/writer.out"
        )
        assert not waited, f"the writer does not commit to {table}: {waited}"

    def stop_writer(self) -> None:
        self.primary.run(
            f"mkdir -p {FOLDER}; touch {FOLDER}/stop; for i in $(seq 50); do"
            f" pgrep -f {FOLDER}/[w]riter.py >/dev/null || exit 0; sleep 0.1; done; exit 1"
        )

    def committed(self, table: str) -> set[int]:
        return {int(line) for line in self.primary.run(f"cat {FOLDER}/{table}.log").split()}

    def present(self, table: str) -> set[int]:
        return {int(line) for line in self.sql(f"SELECT id FROM public.{table}").split()}

    # -- the playbook ----------------------------------------------------------------------------------------------
    def command(self, *extra: str, inventory: Optional[pathlib.Path] = None, **variables: Any) -> list[str]:
        given: dict[str, Any] = {"dr_database": "shop", "dr_report_dir": str(self.reports), "dr_confirm": True}
        given.update(variables)
        return ["ansible-playbook", "-i", str(inventory or self.inventory), PLAYBOOK, "-e", json.dumps(given), *extra]

    def recover(self, *extra: str, **variables: Any) -> Run:
        return run(self.command(*extra, **variables))

    def recover_killed_in(self, phase: str, seconds: float, **variables: Any) -> None:
        """Run the playbook and kill -9 all of it ``seconds`` after ``phase`` began."""
        events = self.reports / str(variables["dr_incident_id"]) / "events.jsonl"
        run_killed_in(self.command(**variables), events, phase, seconds)

    def evidence(self, incident: str, subject: str) -> dict[str, Any]:
        """What the incident record keeps about one subject."""
        return json.loads((self.reports / incident / "evidence" / f"{subject}.json").read_text())

    def side_instances(self) -> str:
        """Processes and folders of side instances that are still there."""
        return self.side.run(
            "ls -A /var/lib/postgresql/dbre-recovery 2>/dev/null; pgrep -u postgres -af dbre-recovery || true",
            user="root",
        ).strip()

    def remove_side_instances(self) -> None:
        """What a run that failed or was interrupted keeps, as it should."""
        script = "pkill -u postgres -f dbre-recovery/ || true; sleep 1; rm -rf /var/lib/postgresql/dbre-recovery"
        self.side.run(script, user="root")


SITES = {
    "beside_the_primary": ("deb12", "deb12", "recovery"),
    "on_a_recovery_host": ("deb13", "deb13r", "recovery"),
    "with_a_standby": ("deb13f", "deb13g", "standby"),
}


BOTH_SITES = ["beside_the_primary", "on_a_recovery_host"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_sites: runs at both sites in the short matrix too")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("DBRE_MATRIX") == "short":
        items[:] = [item for item in items if _at_its_site(item) and not item.get_closest_marker("whole")]


def _at_its_site(item: pytest.Item) -> bool:
    site = next((name for name in BOTH_SITES if name in item.name), None)
    if site is None or item.get_closest_marker("both_sites"):
        return True
    # By the name, so that a new test moves no other.
    return BOTH_SITES[zlib.crc32(item.name.replace(site, "").encode()) % 2] == site


# The tests of the standby choose their site themselves.
@pytest.fixture(scope="session", params=BOTH_SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """PostgreSQL 15 with the side instance beside it; 17 with a recovery host, and with a delayed standby."""
    hosts = hosts_of(os.environ["DBRE_INVENTORY"])
    primary, side, group = SITES[request.param]
    made = Site(request.param, hosts[primary], hosts[side], tmp_path_factory.mktemp(request.param), group)
    made.remove_side_instances()
    made.make_shop()
    made.begin_life()
    made.backup()
    yield made
    made.stop_writer()
    made.end_life()


@pytest.fixture
def shop(site: Site) -> Iterator[Site]:
    """The site with a fresh shop, a backup of it, and a writer that commits all the time.

    Nothing may be left behind by a test that went well, and what one that failed leaves must not fail the next.
    """
    site.make_shop()
    if site.group != "standby":  # a delayed one needs the WAL of before, too
        site.backup()
    site.start_writer()
    yield site
    site.stop_writer()
    left = site.side_instances()
    if left:
        site.remove_side_instances()
    assert left == ""
