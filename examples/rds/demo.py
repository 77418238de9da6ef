# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table is dropped on the emulated RDS and comes back by the real playbook. ``demo`` prepares and calls this."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rds")]

from cloud import CREDENTIALS, Cloud  # noqa: E402  # found by the line above
from emulated_rds.client import running  # noqa: E402  # found by the line above


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    folder, collections = Path(sys.argv[1]), sys.argv[2]
    os.environ.update(ANSIBLE_COLLECTIONS_PATH=collections, ANSIBLE_HOME=str(folder / "ansible"), ANSIBLE_NOCOWS="1")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rds").mkdir(parents=True)
    with running(folder / "rds") as emulated:
        cloud = Cloud(emulated, folder)
        cloud.make_shop("shop")
        where = cloud.instance("shop")["Endpoint"]
        say(f"RDS is emulated at {emulated.url}; shop is PostgreSQL at {where['Address']}:{where['Port']}.")
        before = cloud.checksum("shop", "public.orders")
        time.sleep(3)
        cloud.sql("shop", "DROP TABLE public.orders CASCADE")
        say(f"DROP TABLE public.orders: {before[0]} orders are gone, with a view, a foreign key and a trigger.")
        time.sleep(2)
        incident = f"demo-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
        given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_incident_id": incident}
        command = cloud.command("dbre.recovery.dr_rds_table_drop", "shop", **given)
        screen = {"ANSIBLE_CONFIG": f"{ROOT}/examples/ansible.cfg", "ANSIBLE_LOG_PATH": f"{folder}/playbook.log"}
        if subprocess.run(command, env={**os.environ, **CREDENTIALS, **screen}, check=False).returncode:
            return 1
        after, report = cloud.checksum("shop", "public.orders"), cloud.report(incident)
        equal = "equal" if before == after else "DIFFERENT"
        lost = report["rpo"]["seconds"]
        say(f"The moment came from {report['incident']['found_by']}; lost at most {lost} s of commits.")
        say(f"Orders before {before[0]}, now {after[0]}; checksums {equal}. The side instance is deleted.")
        print(f"\nReport: {cloud.reports / incident / 'report.html'}\nOutput: {folder / 'playbook.log'}")
        return 0 if before == after and report["verdict"] == "proved" else 1


if __name__ == "__main__":
    sys.exit(main())
