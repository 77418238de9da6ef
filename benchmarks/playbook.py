# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs playbooks against a production in a folder, as an operator would, and reads the record of an incident."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from production import Production

LONGEST = 3600  # seconds until a run that does not end is stopped
AFTER_VERIFIED = ("protect", "report")  # phases that come once the rows are back and compared


@dataclass
class PlaybookRun:
    """One run: how it ended, what it printed, and the folder of its incident record."""

    succeeded: bool
    started: datetime
    output: Path
    incident: Path

    def report(self) -> dict[str, Any]:
        return json.loads((self.incident / "report.json").read_text())

    def phases(self) -> dict[str, float]:
        """Seconds by phase from the command to verified rows; ``startup`` is what Ansible needs before the first."""
        report = self.report()
        first = datetime.fromisoformat(report["timeline"][0]["start"])
        phases = {"startup": (first - self.started).total_seconds(), **report["seconds"]}
        return {name: seconds for name, seconds in phases.items() if name not in AFTER_VERIFIED}

    def last_words(self, lines: int) -> str:
        return "\n".join(self.output.read_text().splitlines()[-lines:])


def play(
    root: Path, venv: Path, collections: Path, production: Production, playbook: str, extra: dict[str, Any]
) -> tuple[bool, Path]:
    """Run a playbook of this checkout to its end; whether it succeeded, and the file with what it printed."""
    folder = production.folder
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps(production.inventory(), indent=2))
    configuration = folder / "ansible.cfg"
    configuration.write_text("[defaults]\nnocows = true\n[connection]\npipelining = true\n")
    # Modules run as the user of the servers, and keep their temporary files here instead of in that user's home.
    modules = folder / "tmp"
    production.run("mkdir", "-p", "-m", "0700", modules)
    output = folder / "log" / f"{playbook}.log"
    command = [
        str(venv / "bin" / "ansible-playbook"),
        "-i",
        str(inventory),
        str(root / "playbooks" / f"{playbook}.yml"),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PG"))},
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_REMOTE_TMP": str(modules),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    with output.open("w") as log:
        done = subprocess.run(
            [*command, "-e", json.dumps(extra)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            timeout=LONGEST,
            check=False,
        )
    return done.returncode == 0, output


def run_playbook(
    root: Path,
    venv: Path,
    collections: Path,
    production: Production,
    *,
    database: str,
    tables: str,
) -> PlaybookRun:
    """Run dr-table-drop; what it prints goes to ``log`` in the folder."""
    folder = production.folder
    started = datetime.now(timezone.utc)
    incident_id = f"table-drop-{started:%Y%m%dT%H%M%SZ}"
    extra: dict[str, Any] = {
        "dr_database": database,
        "dr_tables": tables,
        "dr_confirm": "yes",
        "dr_incident_id": incident_id,
        "dr_report_dir": str(folder / "incidents"),
    }
    succeeded, output = play(root, venv, collections, production, "dr-table-drop", extra)
    return PlaybookRun(succeeded, started, output, folder / "incidents" / incident_id)
