# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind a timer of restore tests: tests one restore, and fails unless it is verified.

The role backup_verification installs it, with what it imports, on hosts where no Ansible is. Needs Python and psycopg2.
``verify.py SETTINGS.json`` tests; with ``--clean`` it removes what a test left that was killed, as systemd asks it to
after each.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import FAILED, UNKNOWN, VERIFIED
from ansible_collections.dbre.recovery.plugins.module_utils._verification.record import shown
from ansible_collections.dbre.recovery.plugins.module_utils._verification.restore_test import Request, RestoreTest

STATUS = {VERIFIED: 0, FAILED: 1, UNKNOWN: 3}


def run(argv: list[str]) -> tuple[int, str, str]:
    # This runs where there is no module.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode, done.stdout, done.stderr


def end(number: int, _frame: Any) -> NoReturn:
    """On the signal to end: what was restored is removed on the way out."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str]) -> int:
    with open(arguments[0], encoding="utf-8") as file:
        test = RestoreTest(pick(Request, json.load(file)), run)
    try:
        if "--clean" in arguments[1:]:
            for what in test.clean_after():
                sys.stdout.write(f"{what}\n")
            return 0
        signal.signal(signal.SIGTERM, end)
        report = test.run()
    except RecoveryError as error:
        sys.stderr.write(f"{error.msg}\n")
        return STATUS[UNKNOWN]
    sys.stdout.write(f"{shown(report)}\n")
    return STATUS[report["verdict"]]
