# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dr-drill on an inventory that has databases on RDS alone."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_a_scenario_of_rds_says_why_it_has_no_drill_where_there_is_no_server(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    inventory.write_text("[rds]\nshop ansible_connection=local\n")
    command = ["ansible-playbook", "-i", str(inventory), "dbre.recovery.dr_drill", "-e", f"dr_report_dir={tmp_path}"]
    done = subprocess.run(
        [*command, "-e", "dr_scenario=rds_table_drop", "-e", "dr_database=shop", "-e", "dr_tables=public.orders"],
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "rds_table_drop has no drill. On AWS a copy is a database of its own" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [inventory]
