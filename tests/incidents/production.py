# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A production in one folder of a test host: a server that lives, its pgBackRest repository, and what is in it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from hosts import Host, LifeOnHost
from life import eager_conf
from runs import Run, run

STANZA = "main"
# What the life beside and our own staging put into a database is not what the incident is about.
NOT_OURS = r"n.nspname !~ '^(pg_|recovered_)' AND n.nspname NOT IN ('information_schema', 'life')"
# Whatever settings an incident gives to roles and databases, what prepares and checks it goes on.
PGOPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "read\\ committed",
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "quote_all_identifiers": "off",
        "temp_file_limit": "-1",
        "search_path": "public",
    }.items()
)
# A column that comes back is the last one: columns are taken by name.
CONTENTS = rf"""
SELECT pg_catalog.format(
    'SELECT %L, count(*), md5(string_agg(line, E''\n'' ORDER BY line COLLATE "C"))'
    ' FROM (SELECT ROW(%s)::text AS line FROM ONLY %s t) AS lines',
    pg_catalog.to_json(c.oid::regclass::text)::text,
    (SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attname) FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    c.oid::regclass)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND {NOT_OURS} \gexec
SELECT '"large objects"', count(*), md5(string_agg(md5(lo_get(oid)), '' ORDER BY oid)) FROM pg_largeobject_metadata;
"""


class Production:
    """One server below ``folder`` of a host. ``begin`` makes it anew for each incident, from a copy that is kept."""

    def __init__(self, host: Host, here: Path, port: int = 5480, folder: str = "/tmp/incidents") -> None:
        self.host, self.here, self.port, self.folder = host, here, port, folder
        found = host.run("ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1").strip()
        self.bin_dir, self.major = found, int(re.findall(r"\d+", found)[0])
        self.life = LifeOnHost(host, f"{folder}/beside", self.socket, port)

    # -- the server ------------------------------------------------------------------------------------------------
    def script(self, text: str, *, check: bool = True, stdin: str | None = None) -> str:
        return self.host.run(f"set -e; cd {self.folder}; {text}", check=check, stdin=stdin)

    def make(self) -> None:
        """The server with a full backup and nothing but life in it, stopped, its folder put aside."""
        self.remove()
        self.host.run(f"mkdir -m 0700 {self.folder}")
        self.script(
            f"mkdir -p now/repository now/log now/lock now/spool now/run tmp;"
            f"{self.bin_dir}/initdb -D now/data -k -A trust -N -E UTF8 --locale=C.UTF-8 --wal-segsize=4 > /dev/null;"
            "cat >> now/data/postgresql.conf",
            stdin=self._postgresql_conf(),
        )
        self.script("cat > now/pgbackrest.conf", stdin=self._pgbackrest_conf())
        self._start()
        self.pgbackrest("stanza-create")
        self.life.bring()
        self.life.start(pause=0.1)
        self.life.wait_for(10)
        self.life.stop()
        self.backup("full")
        self._stop("fast")
        self.script("mv now kept")

    def begin(self) -> None:
        """The server as it was made, and nothing of the incident before."""
        self.end()
        self.script("cp -a kept now")
        self._start()

    def end(self) -> None:
        self.life.stop()
        self.script(
            "for pid in $(find . -name postmaster.pid -not -path './kept/*'); do"
            f" {self.bin_dir}/pg_ctl stop -w -s -m immediate -D $(dirname $pid) || true; done;"
            # A last archive-push may still write.
            "for i in 1 2 3 4 5 6 7 8 9; do rm -rf now 2> /dev/null && break; sleep 0.2; done; test ! -e now"
        )

    def remove(self) -> None:
        if self.host.run(f"test -e {self.folder} && echo there", check=False).strip():
            self.end()
        self.host.run(f"rm -rf {self.folder}")

    def _start(self) -> None:
        self.script(f"{self.bin_dir}/pg_ctl start -w -s -D now/data -l now/log/postgresql.log < /dev/null > /dev/null")

    def _stop(self, mode: str) -> None:
        self.script(f"{self.bin_dir}/pg_ctl stop -w -s -m {mode} -D now/data")

    def restart(self, settings: str) -> None:
        """With more lines of postgresql.conf."""
        self.script("cat >> now/data/postgresql.conf", stdin=settings)
        self._stop("fast")
        self._start()

    @property
    def socket(self) -> str:
        return f"{self.folder}/now/run"

    def _postgresql_conf(self) -> str:
        push = f"pgbackrest --config={self.folder}/now/pgbackrest.conf --stanza={STANZA} archive-push %p"
        return (
            f"port = {self.port}\nunix_socket_directories = '{self.socket}'\nlisten_addresses = ''\n"
            f"archive_mode = on\narchive_command = '{push}'\nfsync = off\nmax_prepared_transactions = 5\n"
            f"max_connections = 40\n{eager_conf()}"
        )

    def _pgbackrest_conf(self) -> str:
        now = f"{self.folder}/now"
        return (
            f"[global]\nrepo1-path={now}/repository\nrepo1-retention-full=9\nlog-path={now}/log\nlock-path={now}/lock\n"
            f"spool-path={now}/spool\nstart-fast=y\ncompress-type=lz4\nlog-level-console=warn\n"
            f"[{STANZA}]\npg1-path={now}/data\npg1-port={self.port}\npg1-socket-path={now}/run\n"
        )

    def pgbackrest(self, command: str, *options: str) -> str:
        words = " ".join(options)
        return self.script(f"pgbackrest --config={self.folder}/now/pgbackrest.conf --stanza={STANZA} {words} {command}")

    def backup(self, kind: str = "incr") -> None:
        self.pgbackrest("backup", f"--type={kind}")

    # -- who else is there --------------------------------------------------------------------------------------------
    def gather_crowd(self, database: str) -> None:
        """Take every connection that is not reserved, and hold it."""
        hold = (
            f"{self.bin_dir}/psql -X -h {self.socket} -p {self.port} -U crowd -d {database} -c 'SELECT pg_sleep(900)'"
        )
        self.script(f"for i in $(seq 60); do (exec nohup {hold}) > /dev/null 2>&1 < /dev/null & done; sleep 1")

    def disperse_crowd(self) -> None:
        self.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'crowd'")

    # -- what is in it -----------------------------------------------------------------------------------------------
    def sql(self, statements: str, database: str = "postgres", *, check: bool = True) -> str:
        """Run a script of psql, each statement its own transaction; one line a row, columns separated by |."""
        words = f"-X -q -A -t -v ON_ERROR_STOP=1 -h {self.socket} -p {self.port} -d {shlex.quote(database)}"
        return self.script(
            f"PGCLIENTENCODING=UTF8 PGOPTIONS={shlex.quote(PGOPTIONS)} {self.bin_dir}/psql {words} -f -",
            stdin=statements,
            check=check,
        ).strip()

    def exists(self, database: str) -> bool:
        return self.sql(f"SELECT count(*) FROM pg_database WHERE datname = '{database}'") == "1"

    def contents(self, database: str) -> dict[str, str]:
        """Rows and their digest by table, computed by plain SQL, apart from the code that is tested."""
        lines = self.sql(f"SET search_path = pg_catalog;{CONTENTS}", database).splitlines()
        return dict(line.split("|", 1) for line in lines)

    def definitions(self, database: str) -> list[str]:
        """Lines of ``pg_dump --schema-only``, without the random key newer versions print and what is not ours.

        Of each line without the comma that ends it: which column is the last one is of no matter.
        """
        words = f"-h {self.socket} -p {self.port} -d {shlex.quote(database)} -E UTF8 -s -N life -N 'recovered_*'"
        text = self.script(f"PGOPTIONS={shlex.quote(PGOPTIONS)} {self.bin_dir}/pg_dump {words}")
        return [line.rstrip(",") for line in text.splitlines() if line and not re.match(r"\\(un)?restrict |--", line)]

    def left_behind(self) -> str:
        """Servers and folders of side instances, and schemas of ours."""
        return self.script("ls -A now/side 2> /dev/null || true").strip()

    # -- the playbook ------------------------------------------------------------------------------------------------
    def recover(self, playbook: str, options: dict[str, Any]) -> Run:
        variables = {
            **self.host.variables,
            "postgresql_version": self.major,
            "postgresql_port": self.port,
            "postgresql_socket_dir": self.socket,
            "postgresql_bin_dir": self.bin_dir,
            "postgresql_data_dir": f"{self.folder}/now/data",
            "pgbackrest_stanza": STANZA,
            "pgbackrest_config_path": f"{self.folder}/now/pgbackrest.conf",
            "dr_side_path": f"{self.folder}/now/side",
        }
        inventory = self.here / "inventory.json"
        inventory.write_text(json.dumps({"all": {"children": {"primary": {"hosts": {self.host.name: variables}}}}}))
        given = {"dr_confirm": True, "dr_report_dir": str(self.here), **options}
        return run(["ansible-playbook", "-i", str(inventory), playbook, "-e", json.dumps(given)])

    def report(self, incident: str) -> dict[str, Any]:
        path = self.here / incident / "report.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}
