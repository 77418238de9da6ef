"""Clients that commit numbers all the time, and log each when its commit was acknowledged; a line is `number time`."""

from __future__ import annotations

import os
import sys
import threading
import time

import psycopg2


def client(number: int, conninfo: str, folder: str) -> None:
    """Commit until ``folder``/stop exists. A number of which nobody knows whether it is there is not used again."""
    connection, each = None, number * 10_000_000
    with open(os.path.join(folder, f"client{number}.log"), "a", encoding="ascii") as log:
        while not os.path.exists(os.path.join(folder, "stop")):
            each += 1
            try:
                if connection is None or connection.closed:
                    connection = psycopg2.connect(conninfo)
                with connection, connection.cursor() as cursor:
                    cursor.execute("INSERT INTO told VALUES (%s)", (each,))
            except psycopg2.Error as error:
                with open(os.path.join(folder, f"client{number}.errors"), "a", encoding="utf-8") as errors:
                    errors.write(f"{time.time():.3f} {' '.join(str(error).split())}\n")
                if connection is not None:
                    connection.close()
                time.sleep(0.05)
                continue
            log.write(f"{each} {time.time():.3f}\n")
            log.flush()
            time.sleep(0.01)


def main(conninfo: str, folder: str, clients: int, first: int) -> None:
    """Run so many clients, numbered from ``first`` on."""
    threads = [threading.Thread(target=client, args=(first + each, conninfo, folder)) for each in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
