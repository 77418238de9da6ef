"""Commit to the shop all the time and log, after each commit, the id that is now safe; ends by itself."""

from __future__ import annotations

import os
import sys
import time

import psycopg2


def main(socket_dir: str, port: int, folder: str, seconds: float) -> None:
    """Write until ``folder``/stop exists or ``seconds`` are over; ids go to ``folder``/{orders,events}.log."""
    logs = {
        name: open(os.path.join(folder, f"{name}.log"), "a", encoding="ascii")  # noqa: SIM115 - written to until the end
        for name in ("orders", "events")
    }
    statements = {
        "orders": "INSERT INTO public.orders (customer, total) VALUES (1 + (random() * 99)::int, 7) RETURNING id",
        "events": "INSERT INTO public.events (what) VALUES ('tick') RETURNING id",
    }
    end = time.monotonic() + seconds
    connection = None
    while time.monotonic() < end and not os.path.exists(os.path.join(folder, "stop")):
        for name, statement in statements.items():
            try:
                if connection is None or connection.closed:
                    connection = psycopg2.connect(host=socket_dir, port=port, dbname="shop", user="postgres")
                with connection, connection.cursor() as cursor:
                    cursor.execute(statement)
                    row = cursor.fetchone()[0]
            except psycopg2.Error:
                # The table is gone, or the database is: that is what the test is about. The application goes on trying.
                time.sleep(0.05)
                continue
            logs[name].write(f"{row}\n")
            logs[name].flush()
        time.sleep(0.02)  # about 50 commits a second in each table; more would only be more WAL to read


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
