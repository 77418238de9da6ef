# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shop's application: commits to ``orders`` and ``events`` all the time, and writes down what was committed.

Each table has its own connection, so that one being gone does not hold up the other. A line goes to the log, and is
flushed to disk, only after COMMIT returned: whatever the log names, the database has promised to keep.

A line is ``committed <id>``, or ``missing <SQLSTATE>`` when a series of failures begins.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Callable

import psycopg2
from production import Production

PAUSE = 0.002  # seconds between two commits
INSERTS = {
    "orders": "INSERT INTO public.orders (customer_id, amount) VALUES (1, 9.99) RETURNING id",
    "events": "INSERT INTO public.events (what) VALUES ('clicked') RETURNING id",
}


class Writer:
    """Writes from ``start`` to ``stop``, for ``longest`` seconds at most."""

    def __init__(self, production: Production, log_dir: Path, longest: float = 900) -> None:
        self._production = production
        self._stopping = threading.Event()
        self._end = time.monotonic() + longest
        self.logs = {table: log_dir / f"committed-{table}.log" for table in INSERTS}
        self._threads = [threading.Thread(target=self._write, args=(table,), daemon=True) for table in INSERTS]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def writing(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def committed(self, table: str) -> list[list[int]]:
        """Ids the log of ``table`` names, in commit order, cut into series where the table was missing."""
        series: list[list[int]] = [[]]
        for line in self.logs[table].read_text().splitlines():
            word, _blank, value = line.partition(" ")
            if word == "committed":
                series[-1].append(int(value))
            else:
                series.append([])
        return series

    def count(self) -> int:
        return sum(len(part) for table in INSERTS for part in self.committed(table))

    def _write(self, table: str) -> None:
        connection = self._production.connect("shop", user="shop_app")
        failing = False
        with self.logs[table].open("w") as log:

            def note(line: str) -> None:
                log.write(line + "\n")
                log.flush()
                os.fsync(log.fileno())

            while not self._stopping.is_set() and time.monotonic() < self._end:
                failing = self._commit_one(connection, INSERTS[table], note, failing)
                time.sleep(0.05 if failing else PAUSE)
        connection.close()

    @staticmethod
    def _commit_one(
        connection: psycopg2.extensions.connection, sql: str, note: Callable[[str], None], failing: bool
    ) -> bool:
        """One insert, committed by itself; whether it failed, as it does while the table is away."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                for (committed,) in cursor.fetchall():
                    note(f"committed {committed}")
        except psycopg2.Error as error:
            if not failing:
                note(f"missing {error.pgcode}")
            return True
        return False
