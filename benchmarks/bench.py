# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark behind ``benchmarks/run``: how long until a dropped table is back."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "embedded"))

from contenders import expert_runbook, usual_runbook  # noqa: E402 - needs the path above
from dataset import CHECKSUM, MB, Dataset, Dropped, Sizes  # noqa: E402 - needs the path above
from playbook import run_playbook  # noqa: E402 - needs the path above
from production import Production, ProductionError  # noqa: E402 - needs the path above

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
AIMS = {"usual": 0.6, "expert": 1.1}  # the playbook's time over theirs, at most
AIM_FIXED = 15.0  # seconds for an empty table with no WAL, at most
Contender = Callable[[Production, Dropped], dict[str, float]]
FIXED = "playbook, empty table"


@dataclass(frozen=True)
class Result:
    """Seconds by phase until the rows are back, and how busy the machine was before (its load average)."""

    phases: dict[str, float]
    load: float

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    def words(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.phases.items())


class Bench:
    """Runs contenders one after the other, each on a copy of the same files, and checks what they brought back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.results: dict[str, Result] = {}

    def sizes(self, *, empty: bool = False) -> Sizes:
        given = self._options
        return Sizes(0, 0, 0, 0) if empty else Sizes(given.cluster_mb, given.table_mb, given.rows, given.wal_mb)

    def data(self, name: str, *, empty: bool = False) -> tuple[Dataset, Dropped]:
        dataset = Dataset(self._options.folder / name, self.sizes(empty=empty))
        dropped = dataset.kept()
        if dropped is None:
            say(f"Making the {name} data")
            start = time.monotonic()
            dropped = dataset.make()
            say(f"  {described(dropped)} ({time.monotonic() - start:.0f} s)")
        return dataset, dropped

    def run(self, name: str, contender: Contender, dataset: Dataset, dropped: Dropped) -> None:
        dataset.put_in_place()
        load = os.getloadavg()[0]
        say(f"{name}: started")
        try:
            phases = contender(dataset.production, dropped)
            self._check(name, dataset.production, dropped)
        finally:
            dataset.production.stop("immediate")
        result = self.results[name] = Result(phases, load)
        say(f"{name}: {result.seconds:.1f} s ({result.words()})")

    def playbook(self, production: Production, dropped: Dropped) -> dict[str, float]:
        options = self._options
        run = run_playbook(ROOT, options.venv, options.collections, production, database="shop", tables="public.orders")
        if not run.succeeded:
            raise ProductionError(f"the playbook failed:\n{run.last_words(40)}")
        return run.phases()

    @staticmethod
    def _check(name: str, production: Production, dropped: Dropped) -> None:
        """Every row of the table and all three indexes, whoever brought them back."""
        found = production.query("shop", CHECKSUM)[0]
        if found != (dropped.rows, dropped.checksum):
            raise ProductionError(f"{name} brought back {found[0]} rows of {dropped.rows}, or not the same ones")
        indexes = production.query("shop", "SELECT count(*) FROM pg_index WHERE indrelid = 'public.orders'::regclass")
        if indexes[0][0] != 3:
            raise ProductionError(f"{name} brought back {indexes[0][0]} of 3 indexes")


def say(text: str) -> None:
    print(text, flush=True)


def described(dropped: Dropped) -> str:
    return (
        f"{dropped.cluster_bytes / MB:.0f} MB in two databases, a table of {dropped.table_bytes / MB:.0f} MB with"
        f" {dropped.rows} rows and {dropped.index_bytes / MB:.0f} MB of indexes, {dropped.wal_bytes / MB:.0f} MB of WAL"
    )


def table(results: dict[str, Result]) -> str:
    """Markdown: one row a contender, its phases in its own words."""
    lines = ["| contender | seconds | phases | load before |", "|---|---:|---|---:|"]
    lines += [
        f"| {name} | {result.seconds:.1f} | {result.words()} | {result.load:.1f} |" for name, result in results.items()
    ]
    return "\n".join(lines)


def verdict(results: dict[str, Result]) -> str:
    """Markdown: the ratios and the fixed cost beside their aims."""
    lines = []
    for other, aim in AIMS.items():
        if "playbook" in results and other in results:
            ratio = results["playbook"].seconds / results[other].seconds
            lines.append(f"- playbook / {other}: {ratio:.2f}, aim at most {aim}: {met(ratio, aim)}")
    if FIXED in results:
        fixed = results[FIXED].seconds
        lines.append(f"- fixed cost: {fixed:.1f} s, aim at most {AIM_FIXED:.0f} s: {met(fixed, AIM_FIXED)}")
    return "\n".join(lines)


def met(value: float, aim: float) -> str:
    return "met" if value <= aim else "**missed**"


def machine(production: Production, venv: Path) -> str:
    """Cores, memory and versions; nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MB / 1024
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    postgresql = production.run(production.program("postgres"), "--version").split()[2]
    ansible = subprocess.run(
        [venv / "bin" / "ansible-playbook", "--version"], capture_output=True, text=True, check=True
    ).stdout.split("]")[0]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, {system}, PostgreSQL {postgresql},"
        f" {production.pgbackrest_version()}, ansible-{ansible.split('[')[1]}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--cluster-mb", type=int, default=5120, help="both databases together (default: %(default)s)")
    parser.add_argument(
        "--table-mb", type=int, default=1024, help="the lost table without indexes (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=6_000_000, help="rows of the lost table (default: %(default)s)")
    parser.add_argument("--wal-mb", type=int, default=1024, help="WAL between backup and drop (default: %(default)s)")
    parser.add_argument(
        "--only", default="usual,expert,playbook,fixed", help="some of %(default)s, in the order to run"
    )
    parser.add_argument("--keep", action="store_true", help="keep the data for the next run with the same sizes")
    parser.add_argument("--no-record", action="store_true", help="print only, do not append to RESULTS.md")
    parser.add_argument("--note", default="", help="a sentence for RESULTS.md, such as why an aim is missed")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/var/tmp/dbre-recovery-bench"),
        help="work folder, 20 GB (default: %(default)s)",
    )
    parser.add_argument("--venv", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--collections", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse()
    bench = Bench(options)
    try:
        dataset: Optional[Dataset] = None
        for name in options.only.split(","):
            if name == "fixed":
                small, gone = bench.data("empty", empty=True)
                bench.run(FIXED, bench.playbook, small, gone)
                continue
            contender = {"usual": usual_runbook, "expert": expert_runbook, "playbook": bench.playbook}[name]
            dataset, dropped = bench.data("full")
            bench.run(name, contender, dataset, dropped)
        report = f"{table(bench.results)}\n\n{verdict(bench.results)}"
        say(f"\n{report}")
        if dataset is not None and not options.no_record:
            record(options, dataset.production, dropped, report)
    except (ProductionError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            for name in ("full", "empty"):
                Production(options.folder / name).destroy()
    return 0


def record(options: argparse.Namespace, production: Production, dropped: Dropped, report: str) -> None:
    """Append this run to RESULTS.md."""
    today = datetime.datetime.now(datetime.timezone.utc)
    text = (
        f"\n## {today:%Y-%m-%d %H:%M} UTC\n\n{machine(production, options.venv)}.\n{described(dropped)}.\n\n{report}\n"
    )
    if options.note:
        text += f"\n{options.note}\n"
    with RESULTS.open("a") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
