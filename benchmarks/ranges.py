# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark behind ``benchmarks/ranges``: as ``load=merge`` compares two tables; one server, everything cached."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "embedded"))

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint  # noqa: E402 - path above
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import (  # noqa: E402
    execute,
    rows,
    value,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SETTINGS  # noqa: E402
from ansible_collections.dbre.recovery.plugins.module_utils._tables.ranges import (  # noqa: E402
    PAGES,
    Division,
    bounds_query,
    compare,
    key_of,
)
from dataset import ORDERS  # noqa: E402
from production import Production  # noqa: E402

AIM, AIM_TRAVEL = 1.3, 0.01  # of counting and hashing; of the rows
TIMES = 5
KEY = "id"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table-mb", type=int, default=1024, help="of each of the two tables, without indexes")
    parser.add_argument("--differing", type=int, default=10, help="rows that are others in one of them")
    parser.add_argument("--workers", type=int, default=2, help="processes of one query")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/dbre-recovery-ranges"))
    options = parser.parse_args()
    production = Production(options.folder)
    try:
        production.create(settings={"shared_buffers": "2500MB", "max_wal_size": "8GB", "fsync": "off"})
        with closing(production.connect("postgres")) as connection:
            connection.autocommit = True
            return measure(connection, options)
    finally:
        production.destroy()


def measure(connection: Any, options: argparse.Namespace) -> int:
    """Make the tables, and print what each way takes."""
    number = options.table_mb * 2**20 // 660
    with connection.cursor() as cursor:
        cursor.execute(ORDERS, (512, number))
    execute(connection, "CREATE TABLE public.recovered (LIKE public.orders INCLUDING ALL)")
    execute(connection, "INSERT INTO public.recovered TABLE public.orders")
    execute(connection, "VACUUM (FREEZE, ANALYZE)")
    # As sessions of a recovery have them. To compile a query, as a server does by itself, takes longer than it saves.
    for name, setting in {**SETTINGS, **fingerprint.parallel_settings(options.workers)}.items():
        execute(connection, "SELECT pg_catalog.set_config(%s, %s, false)", (name, setting))

    table = "public.orders"
    oid = value(connection, "SELECT %s::regclass::oid::int8", (table,))
    columns = fingerprint.columns_of(connection, [oid])[oid]
    key = key_of(columns, [KEY])
    assert key is not None
    pages = int(value(connection, PAGES, {"oid": oid}))
    by = Division(key, value(connection, bounds_query(key, table, pages)))
    version = connection.server_version
    ways = {
        "count(*)": f"SELECT count(*) FROM {table}",
        "count and hash, whole": fingerprint.checksum_query(table, columns, version),
        "count and hash, by ranges": by.query(table, columns, version),
        "bounds of the ranges": bounds_query(key, table, pages),
    }
    seconds = {name: timed(connection, query) for name, query in ways.items()}

    step = number // options.differing
    execute(connection, "UPDATE public.recovered SET note = note || 'x' WHERE id %% %s = 7", (step,))
    both = ("public.recovered", table)
    found = compare(by, *(rows(connection, by.query(one, columns, version)) for one in both))
    start = time.monotonic()
    finer = Division(key, value(connection, by.finer_query("public.recovered", found.differing)))
    found = found.split(finer, *(rows(connection, finer.query(one, columns, version, found.condition)) for one in both))
    split = time.monotonic() - start
    travels = found.inside["rows"] / found.whole["rows"]
    whole = seconds["count and hash, whole"]
    ranges = seconds["count and hash, by ranges"] + seconds["bounds of the ranges"]

    print(f"{number:,} rows, {options.table_mb} MB; {options.workers} processes; the median of {TIMES}")
    for name, spent in seconds.items():
        print(f"  {name:<28} {spent:7.3f} s")
    print(f"by ranges: {ranges / whole:.2f} of count and hash (aim {AIM})")
    print(f"  {'split, of both tables':<28} {split:7.3f} s")
    print(
        f"{options.differing} rows that differ: {len(found.differing)} of {found.compared} ranges, "
        f"{found.inside['rows']:,} rows travel, {travels:.3%} (aim {AIM_TRAVEL:.0%})"
    )
    return 0 if ranges / whole <= AIM and travels < AIM_TRAVEL else 1


def timed(connection: Any, query: str) -> float:
    """Seconds of a query, the median of some."""
    spent = []
    for _each in range(TIMES + 1):
        start = time.monotonic()
        rows(connection, query)
        spent.append(time.monotonic() - start)
    return statistics.median(spent[1:])


if __name__ == "__main__":
    sys.exit(main())
