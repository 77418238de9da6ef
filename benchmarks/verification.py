# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark behind ``benchmarks/verification``: each in turn, from the same repository, on an idle production."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "embedded"))

from contenders import Phases, Side  # noqa: E402 - needs the path above
from dataset import Dataset, Sizes  # noqa: E402
from playbook import play  # noqa: E402
from production import Production, ProductionError  # noqa: E402

AIM = 1.15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--collections", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cluster-mb", type=int, default=5000, help="in two databases")
    parser.add_argument("--table-mb", type=int, default=1000, help="of it, in a table with three indexes")
    parser.add_argument("--wal-mb", type=int, default=256, help="after the backup")
    parser.add_argument("--times", type=int, default=3, help="how often each is measured, in turn")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/dbre-recovery-verification"))
    options = parser.parse_args()
    sizes = Sizes(options.cluster_mb, options.table_mb, options.table_mb * 6000, options.wal_mb)
    dataset = Dataset(options.folder, sizes)
    try:
        dataset.make()
        dataset.put_in_place()
        production = dataset.production
        before = host(production)
        bare, ours, within = [], [], []
        for _turn in range(options.times):
            bare.append(by_hand(production))
            start = time.monotonic()
            extra = {
                "verify_hosts": "primary",
                "backup_verification_directory": str(options.folder / "verified"),
                "backup_verification_base_dir": str(options.folder / "side"),
            }
            verified, output = play(ROOT, options.venv, options.collections, production, "verify-backups", extra)
            ours.append(time.monotonic() - start)
            if not verified:
                raise ProductionError(output.read_text()[-4000:])
            (history,) = (options.folder / "verified").glob("verification-*.json")
            seconds = json.loads(history.read_text())["attempts"][-1]["seconds"]
            within.append(", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))
        after = host(production)
    finally:
        dataset.production.destroy()
    mid = statistics.median(sum(one.values()) for one in bare)
    print(f"{options.cluster_mb} MB, {options.wal_mb} MB of WAL; the median of {options.times}")
    print("by hand: " + "; ".join(", ".join(f"{name} {spent:.1f}" for name, spent in one.items()) for one in bare))
    print("verify-backups: " + "; ".join(f"{spent:.1f} ({phases})" for spent, phases in zip(ours, within)))
    print(f"{statistics.median(ours):.1f} s beside {mid:.1f} s: {statistics.median(ours) / mid:.2f} (aim {AIM})")
    print(f"the host is as before: {'yes' if before == after else f'NO: {before} and {after}'}")
    return 0 if statistics.median(ours) / mid <= AIM and before == after else 1


def by_hand(production: Production) -> dict[str, float]:
    """Restore with all cores, replay to the end of the archive, and look into everything."""
    side, phases, cores = Side(production), Phases(), os.cpu_count() or 1
    with phases.phase("restore"):
        production.pgbackrest("restore", f"--pg1-path={side.data}", f"--process-max={cores}", "--archive-mode=off")
    with phases.phase("replay"):
        side.start()
        side.wait_until_promoted()
    with phases.phase("pg_amcheck"):
        production.run(
            production.program("pg_amcheck"), "--all", "--install-missing", "--heapallindexed", f"--jobs={cores}",
            "-h", side.path, "-p", side.port,
        )  # fmt: skip
    side.stop()
    return phases.seconds


def host(production: Production) -> tuple[list[str], list[str]]:
    """What lies in the folder for side instances, and the servers that run."""
    side = production.folder / "side"
    lying = sorted(str(path) for path in side.rglob("*")) if side.exists() else []
    servers = production.run("ps", "-C", "postgres", "-o", "args=", check=False)
    return lying, sorted(line for line in servers.splitlines() if str(production.folder) in line)


if __name__ == "__main__":
    sys.exit(main())
