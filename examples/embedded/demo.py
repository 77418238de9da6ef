# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo behind ``examples/embedded/demo``: drop a table under load, run the real playbook, prove what came back."""

from __future__ import annotations

import argparse
import datetime
import difflib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playbook import PlaybookRun, run_playbook
from production import Production, ProductionError
from writer import Writer

ROOT = Path(__file__).resolve().parents[2]
ORDERS = "SELECT count(*), max(id), md5(string_agg(o::text, E'\\n' ORDER BY id)) FROM public.orders o"
WRITING_BEFORE = 5.0  # seconds of load before the drop
WRITING_AFTER = 2.0  # seconds of load once the table is back


class Screen:
    """Numbered steps; the shell script that installs what is missing has printed the first."""

    def __init__(self) -> None:
        self._number = 1

    @contextmanager
    def step(self, text: str) -> Iterator[list[str]]:
        """Print the step, then what the body appended, then the seconds it took."""
        self._number += 1
        print(f"{self._number:2}  {text} ", end="", flush=True)
        start = time.monotonic()
        outcome: list[str] = []
        yield outcome
        print(f"{', '.join(outcome)} ({time.monotonic() - start:.1f} s)", flush=True)


class Proof:
    """Lines of "what was asked, what was found, right or wrong"."""

    def __init__(self) -> None:
        self._lines: list[tuple[bool, str, str]] = []

    def add(self, right: bool, question: str, answer: str) -> None:
        self._lines.append((right, question, answer))

    def show(self) -> bool:
        width = max(len(question) for _right, question, _answer in self._lines)
        for right, question, answer in self._lines:
            print(f"    {'ok   ' if right else 'WRONG'}  {question:<{width}}  {answer}")
        return all(right for right, _question, _answer in self._lines)


def drop_orders(production: Production) -> tuple[int, int, str, datetime.datetime]:
    """DROP TABLE under load. Returns rows, highest id and checksum of what was there at that very moment, and the time.

    They are read in the dropping transaction itself, behind its lock: nothing can commit to the table in between.
    """
    connection = production.connect("shop")
    connection.autocommit = False
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
            cursor.execute(ORDERS)
            rows, last, checksum = cursor.fetchone()
            cursor.execute("DROP TABLE public.orders CASCADE")
        return rows, last, checksum, datetime.datetime.now(datetime.timezone.utc)
    finally:
        connection.close()


def wait_until_writing(writer: Writer, seconds: float) -> None:
    time.sleep(seconds)
    if not all(writer.committed(table)[0] for table in writer.logs):
        raise ProductionError("the application could not write to its tables")


def prove(
    production: Production,
    writer: Writer,
    dropped: tuple[int, int, str],
    definitions: list[str],
    run: PlaybookRun,
) -> Proof:
    proof = Proof()
    rows, last_id, checksum = dropped
    order_ids = {row[0] for row in production.query("shop", "SELECT id FROM public.orders")}
    event_ids = {row[0] for row in production.query("shop", "SELECT id FROM public.events")}
    before, *later = writer.committed("orders")
    after = [order for series in later for order in series]
    events = [event for series in writer.committed("events") for event in series]

    lost = [order for order in before if order not in order_ids]
    proof.add(not lost, "orders the application had committed", f"{len(before) - len(lost)} of {len(before)} are back")
    proof.add(before[-1] in order_ids, "the very last of them", f"order {before[-1]}")
    found = production.query("shop", f"{ORDERS} WHERE id <= %s", last_id)[0]
    proof.add(found[:2] == (rows, last_id), "rows at the moment of the drop", f"{rows}, and {found[0]} now")
    proof.add(found[2] == checksum, "checksum of every column of them", f"{checksum}, and {found[2]} now")
    side, back = run.checksums("public.orders")
    proof.add(bool(side) and side == back, "the playbook's own: side instance, production", f"{side}, {back}")
    lost = [event for event in events if event not in event_ids]
    proof.add(
        not lost, "events committed before, during and after", f"{len(events) - len(lost)} of {len(events)} are there"
    )
    now = production.schema_dump("shop")
    same = now == definitions
    proof.add(same, "pg_dump --schema-only, before and after", f"{len(now)} lines, {'no' if same else 'A'} difference")
    lost = [order for order in after if order not in order_ids]
    proof.add(
        bool(after) and not lost and min(after) > last_id,
        "orders placed since it is back",
        f"{len(after)}, numbered from {min(after)} on" if after else "none",
    )
    timeline = production.query("shop", "SELECT timeline_id FROM pg_control_checkpoint()")[0][0]
    side_servers = list(production.folder.glob("side*/**/postmaster.pid"))
    proof.add(
        timeline == 1 and not side_servers,
        "production's timeline; side instances left",
        f"{timeline}; {len(side_servers)}",
    )
    return proof


def show_difference(definitions: list[str], now: list[str]) -> None:
    lines = difflib.unified_diff(definitions, now, "before", "after", n=2, lineterm="")
    print("\n".join(itertools.islice(lines, 60)))


def demo(folder: Path, venv: Path, collections: Path) -> bool:
    screen = Screen()
    production = Production(folder)
    writer = Writer(production, production.log)
    try:
        with screen.step(f"Making a small production in {folder} ...") as outcome:
            production.create(settings={"wal_level": "logical", "autovacuum_naptime": "10"})
            production.query("postgres", "CREATE DATABASE shop")
            production.psql_file("shop", ROOT / "examples/embedded/shop.sql")
            production.backup()
            version = production.query("postgres", "SHOW server_version")[0][0].split()[0]
            outcome.append(f"PostgreSQL {version}, {production.pgbackrest_version()}, archiving on, one full backup")
        with screen.step("The shop's application writes to orders and events, all the time ...") as outcome:
            definitions = production.schema_dump("shop")
            writer.start()
            wait_until_writing(writer, WRITING_BEFORE)
            outcome.append(f"{writer.count() / WRITING_BEFORE:.0f} commits a second")
        with screen.step("DROP TABLE orders CASCADE ...") as outcome:
            rows, last_id, checksum, moment = drop_orders(production)
            gone = len(definitions) - len(production.schema_dump("shop"))
            outcome.append(
                f"{rows} rows gone at {moment:%H:%M:%S} UTC, and {gone} lines of definitions; the application goes on"
            )
            time.sleep(1)
        playbook = "ansible-playbook playbooks/dr-table-drop.yml -e dr_database=shop -e dr_tables=public.orders"
        with screen.step(f"{playbook}\n   ") as outcome:
            run = run_playbook(
                ROOT,
                venv,
                collections,
                production,
                database="shop",
                tables="public.orders",
                on_phase=lambda name: print(f"{name} ... ", end="", flush=True),
            )
            outcome.append("done" if run.succeeded else "FAILED")
        if not run.succeeded:
            print(run.last_words(40))
            return False
        with screen.step("Proof ...") as outcome:
            time.sleep(WRITING_AFTER)
            writer.stop()
            proof = prove(production, writer, (rows, last_id, checksum), definitions, run)
            outcome.append("every row and every definition compared")
        right = proof.show()
        now = production.schema_dump("shop")
        if now != definitions:
            show_difference(definitions, now)
        print()
        verified = sum(run.phases().values())
        print(f"    RTO     {verified:.1f} s from the command to verified rows, {run.seconds:.1f} s to its end")
        print(
            f"    RPO     {'no committed row lost, of orders or of any other table' if right else 'see what is WRONG'}"
        )
        print(f"    report  file://{run.html}")
        return right
    finally:
        writer.stop()
        if folder.exists():
            production.stop("immediate")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--collections", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(os.environ["DBRE_DEMO_DIR"])
    try:
        if options.clean:
            Production(folder).destroy()
            return 0
        return 0 if demo(folder, options.venv, options.collections) else 1
    except ProductionError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. `make demo-clean` removes what there is.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
