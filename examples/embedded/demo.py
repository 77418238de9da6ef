# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of the playbook demo around the real one: drop a table under load; prove what came back."""

from __future__ import annotations

import argparse
import datetime
import difflib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

from production import Production, ProductionError
from writer import Writer

ROOT = Path(__file__).resolve().parents[2]
ORDERS = "SELECT count(*), max(id), md5(string_agg(o::text, E'\\n' ORDER BY id)) FROM public.orders o"
STATE = "demo.json"  # what ``begin`` tells ``end``
STOP = "stop-writing"
WRITING_BEFORE = 5.0  # seconds of load before the drop
WRITING_AFTER = 2.0  # seconds of load once the table is back


class Proof:
    """Lines of "what was asked, what was found, right or wrong"."""

    def __init__(self) -> None:
        self._lines: list[tuple[bool, str, str]] = []

    def add(self, right: bool, question: str, answer: str) -> None:
        self._lines.append((right, question, answer))

    def show(self) -> bool:
        width = max(len(question) for _right, question, _answer in self._lines)
        for right, question, answer in self._lines:
            print(f"{'ok   ' if right else 'WRONG'}  {question:<{width}}  {answer}")
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


def start_writing(production: Production) -> Writer:
    """Start the application in a process of its own, which goes on after this one; its log, which both can read."""
    writer = Writer(production, production.log)
    subprocess.Popen(
        [sys.executable, "-B", __file__, "write", str(production.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(production.folder / "log" / "writer.log").open("w"),
        start_new_session=True,
    )
    time.sleep(WRITING_BEFORE)
    if not all(log.exists() and writer.committed(table)[0] for table, log in writer.logs.items()):
        raise ProductionError("the application could not write to its tables")
    return writer


def write(production: Production) -> None:
    """The application: commits until it is told to stop. Where nobody does, the production ends with it."""
    writer = Writer(production, production.log)
    writer.start()
    stop, kept = production.folder / STOP, production.folder / STATE
    while kept.exists() and not stop.exists() and writer.writing():
        time.sleep(0.1)
    writer.stop()
    if stop.exists():
        stop.unlink()
    else:
        production.stop("immediate")


def stop_writing(production: Production) -> None:
    stop = production.folder / STOP
    stop.touch()
    end = time.monotonic() + 60
    while stop.exists():
        if time.monotonic() > end:
            raise ProductionError(f"the application does not end; its last words are in {production.log}/writer.log")
        time.sleep(0.1)


def checksums(report: dict[str, Any], table: str) -> tuple[Optional[str], Optional[str]]:
    """Checksum of a table's rows in the side instance and in production, as the playbook took them."""
    for relation in report["proof"]["relations"]:
        if relation["name"] == table:
            for line in relation["properties"]:
                if line["property"] == "checksum":
                    return line["recovered"], line["production"]
    return None, None


def prove(
    production: Production,
    writer: Writer,
    dropped: tuple[int, int, str],
    definitions: list[str],
    report: dict[str, Any],
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
    side, back = checksums(report, "public.orders")
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


def keep(production: Production, state: dict[str, Any]) -> None:
    (production.folder / STATE).write_text(json.dumps(state))


def begin(production: Production) -> None:
    """Make the production, let the application write, and drop the table under that load."""
    production.create(settings={"wal_level": "logical", "autovacuum_naptime": "10"})
    keep(production, {"port": production.port})
    production.query("postgres", "CREATE DATABASE shop")
    production.psql_file("shop", ROOT / "examples/embedded/shop.sql")
    production.backup()
    version = production.query("postgres", "SHOW server_version")[0][0].split()[0]
    print(f"A small production in {production.folder}: PostgreSQL {version}, {production.pgbackrest_version()},")
    print("archiving on, one full backup.")
    definitions = production.schema_dump("shop")
    writer = start_writing(production)
    print(
        f"The shop's application writes to orders and events: {writer.count() / WRITING_BEFORE:.0f} commits a second."
    )
    rows, last_id, checksum, moment = drop_orders(production)
    gone = len(definitions) - len(production.schema_dump("shop"))
    print(f"DROP TABLE orders CASCADE: {rows} rows gone at {moment:%H:%M:%S} UTC, and {gone} lines of definitions.")
    print("The application goes on.")
    time.sleep(1)
    incident = f"table-drop-{moment:%Y%m%dT%H%M%SZ}"
    dropped = {"rows": rows, "last_id": last_id, "checksum": checksum, "definitions": definitions}
    keep(production, {"port": production.port, "incident": incident, "dropped": dropped})
    modules = production.folder / "tmp"
    production.run("mkdir", "-p", "-m", "0700", modules)
    inventory = production.inventory()
    host = inventory["all"]["children"]["primary"]["hosts"]["production"]
    described = production.folder / "inventory.json"
    recovery = {
        "ansible_pipelining": True,
        # Modules run as the user of the servers, and keep their temporary files here instead of in that user's home.
        "ansible_remote_tmp": str(modules),
        "dr_database": "shop",
        "dr_tables": "public.orders",
        "dr_confirm": True,
        "dr_incident_id": incident,
        "dr_report_dir": str(production.folder / "incidents"),
    }
    # What is told to be run later needs an inventory, which the playbook itself has not.
    (production.folder / "host.json").write_text(json.dumps({**host, **recovery, "__dr_inventory": str(described)}))
    host.update({name: word for name, word in recovery.items() if name.startswith("ansible_")})
    described.write_text(json.dumps(inventory))


def end(production: Production, state: dict[str, Any]) -> bool:
    """Compare what is there now with what was; whether all of it is right."""
    time.sleep(WRITING_AFTER)
    stop_writing(production)
    incident = production.folder / "incidents" / state["incident"]
    report = json.loads((incident / "report.json").read_text())
    was = state["dropped"]
    dropped, definitions = (was["rows"], was["last_id"], was["checksum"]), was["definitions"]
    right = prove(production, Writer(production, production.log), dropped, definitions, report).show()
    now = production.schema_dump("shop")
    if now != definitions:
        show_difference(definitions, now)
    print(f"RTO     {report['rto']['seconds']:.1f} s from the command to verified rows")
    print(f"RPO     {'no committed row lost, of orders or of any other table' if right else 'see what is WRONG'}")
    print(f"report  file://{incident / 'report.html'}")
    print(f"Its server is stopped. To remove all of it: sh {ROOT}/examples/embedded/demo --clean")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["begin", "write", "end", "clean"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        if options.what == "begin":
            begin(Production(options.folder))
        elif options.what == "clean":
            Production(options.folder).destroy()
        else:
            state = json.loads((options.folder / STATE).read_text())
            production = Production(options.folder, port=state["port"])
            if options.what == "write":
                write(production)
                return 0
            try:
                return 0 if end(production, state) else 1
            finally:
                production.stop("immediate")
    except ProductionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
