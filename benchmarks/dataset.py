# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The production every contender finds: a backup, WAL after it, and a table that is gone.

It is made once, stopped, and kept aside; each contender gets a copy of the very same files under the same path.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from production import Production

MB = 1024 * 1024
CHECKSUM = "SELECT count(*), sum(hashtextextended(o::text, 0))::text FROM public.orders o"

ORDERS = """
CREATE TABLE public.orders (
    id bigint NOT NULL, customer_id integer NOT NULL, created timestamptz NOT NULL,
    amount numeric(10,2) NOT NULL, reference text NOT NULL, note text NOT NULL
);
INSERT INTO public.orders
    SELECT n, (n * 7919 %% 500000)::integer, '2026-01-01'::timestamptz + n * interval '1 second', (n %% 100000) / 100.0,
        'R-' || md5(n::text), left(repeat(md5((n * 31)::text) || md5((n * 37)::text), 40), %s)
    FROM generate_series(1::bigint, %s) n;
ALTER TABLE public.orders ADD PRIMARY KEY (id);
CREATE INDEX orders_customer_idx ON public.orders (customer_id, created);
CREATE INDEX orders_reference_idx ON public.orders (reference);
"""
FILLER = """
CREATE TABLE public.{table} (id bigint NOT NULL, changed integer NOT NULL DEFAULT 0, body text NOT NULL);
INSERT INTO public.{table} (id, body)
    SELECT n, md5(n::text) || md5((n * 3)::text) || md5((n * 5)::text) || md5((n * 7)::text) || md5((n * 11)::text)
    FROM generate_series(1, 100000) n
"""


@dataclass(frozen=True)
class Sizes:
    """What the run is about. Sizes in MiB."""

    cluster_mb: int
    table_mb: int
    rows: int
    wal_mb: int


@dataclass(frozen=True)
class Dropped:
    """What every contender must bring back, and what one who reads the log would know about the drop."""

    rows: int
    checksum: str
    before: str  # a moment between the last write and the drop, with its UTC offset
    table_bytes: int
    index_bytes: int
    cluster_bytes: int
    wal_bytes: int


class Dataset:
    """Makes the data set in a folder, keeps it in ``pristine`` there, and puts copies in place."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.production = Production(folder)
        self._sizes = sizes
        self._facts = folder / "dataset.json"

    def kept(self) -> Optional[Dropped]:
        """What an earlier run kept, when it has these sizes and this PostgreSQL."""
        if not self._facts.exists():
            return None
        facts = json.loads(self._facts.read_text())
        if facts["sizes"] != asdict(self._sizes) or facts["bin_dir"] != self.production.bin_dir:
            return None
        self.production = Production(self.folder, port=facts["port"])
        return Dropped(**facts["dropped"])

    def make(self) -> Dropped:
        """Make the production, its backup, its WAL and its loss; stop it and keep it aside."""
        production = self.production
        production.create(settings={"max_wal_size": "4GB"})
        # The WAL of making the data is nobody's concern.
        production.query("postgres", "ALTER SYSTEM SET archive_command = '/bin/true'")
        production.query("postgres", "SELECT pg_reload_conf()")
        for database in ("shop", "warehouse"):
            production.query("postgres", f"CREATE DATABASE {database}")
        table, indexes = self._make_orders()
        # The rest is filled in two halves, of which their index takes about a tenth.
        rest = (self._sizes.cluster_mb * MB - self._cluster_bytes()) * 9 // 20
        self._fill("shop", "history", rest)
        self._fill("warehouse", "documents", rest)
        production.query("postgres", "ALTER SYSTEM RESET archive_command")
        production.query("postgres", "SELECT pg_reload_conf()")
        cluster = self._cluster_bytes()
        production.backup()
        wal = self._write_wal(self._sizes.wal_mb * MB)
        rows, checksum = production.query("shop", CHECKSUM)[0]
        before = self._drop_orders()
        production.stop()
        dropped = Dropped(rows, checksum, before, table, indexes, cluster, wal)
        production.run("mkdir", self.folder / "pristine")
        production.run("mv", production.data, production.repository, self.folder / "pristine")
        facts = {
            "sizes": asdict(self._sizes),
            "bin_dir": production.bin_dir,
            "port": production.port,
            "dropped": asdict(dropped),
        }
        self._facts.write_text(json.dumps(facts, indent=2))
        return dropped

    def put_in_place(self) -> None:
        """The production as it was after the drop, running; its files and its repository in the page cache."""
        production = self.production
        production.stop("immediate")
        # Some of it belongs to the servers' user, the incident record to whoever runs this.
        for name in ("data", "repository", "side", "dump", "incidents"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("data", "repository"):
            production.run("cp", "-a", "--reflink=auto", self.folder / "pristine" / name, self.folder / name)
        production.run("sync")
        production.start()
        for path in production.repository.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(16 * MB):
                        pass

    def _cluster_bytes(self) -> int:
        return self.production.query("postgres", "SELECT sum(pg_database_size(oid))::bigint FROM pg_database")[0][0]

    def _make_orders(self) -> tuple[int, int]:
        """The table that will be lost; bytes of the table and of its indexes."""
        note = max(1, self._sizes.table_mb * MB // max(1, self._sizes.rows) - 112)
        self.production.query("shop", ORDERS, note, self._sizes.rows)
        self.production.query("shop", "VACUUM (ANALYZE) public.orders")
        return self.production.query("shop", "SELECT pg_table_size('public.orders'), pg_indexes_size('public.orders')")[
            0
        ]

    def _drop_orders(self) -> str:
        """Drop the table, have the WAL archived; a moment just before the drop, with its UTC offset."""
        time.sleep(1)
        sql = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
        before = self.production.query("shop", sql)[0][0]
        time.sleep(1)
        self.production.query("shop", "DROP TABLE public.orders")
        self.production.query("shop", "SELECT pg_switch_wal()")
        return before

    def _fill(self, database: str, table: str, size: int) -> None:
        """A table of about ``size`` bytes, by doubling."""
        if size <= 0:
            return
        production = self.production
        production.query(database, FILLER.format(table=table))
        connection = production.connect(database)
        with connection.cursor() as cursor:
            while True:
                cursor.execute(f"SELECT pg_table_size('public.{table}'), max(id), count(*) FROM public.{table}")
                have, last, count = cursor.fetchone()
                if have >= size * 0.98:
                    break
                rows = min(count, int(count * (size - have) / have))
                cursor.execute(
                    f"INSERT INTO public.{table} (id, body) SELECT id + %s, reverse(body) FROM public.{table} LIMIT %s",
                    (last, rows),
                )
            cursor.execute(f"CREATE INDEX ON public.{table} (id)")
            cursor.execute(f"VACUUM (ANALYZE) public.{table}")
        connection.close()

    def _write_wal(self, size: int) -> int:
        """Write ``size`` bytes of WAL the way an application does: rows appended, others changed here and there."""
        connection = self.production.connect("shop")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE public.events (id bigint PRIMARY KEY, body text NOT NULL)")
            cursor.execute("SELECT pg_current_wal_lsn()")
            start = cursor.fetchone()[0]
            written, turn = 0, 0
            while written < size:
                cursor.execute(
                    "INSERT INTO public.events SELECT %s::bigint * 20000 + n, repeat(md5(n::text), 6)"
                    " FROM generate_series(1, 20000) n",
                    (turn,),
                )
                cursor.execute(
                    "UPDATE public.history SET changed = changed + 1 WHERE id IN"
                    " (SELECT (random() * 1000000)::bigint FROM generate_series(1, 1000))"
                )
                turn += 1
                cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)::bigint", (start,))
                written = cursor.fetchone()[0]
        connection.close()
        return written
