# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs whose output is read, from several threads."""

from __future__ import annotations

import os
import subprocess
from typing import Optional

ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}


def run(argv: list[str], limit: Optional[float] = None) -> tuple[int, str, str]:
    """Run a program; unlike a module's run_command this may be called from several threads.

    One that has not ended after ``limit`` seconds is ended, and its return code is that of timeout(1), 124.
    """
    # A module's run_command is for one thread; here several segments are fetched at a time.
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **ENVIRONMENT},
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"{os.path.basename(argv[0])} did not end within {limit:g} s"
    return done.returncode, done.stdout, done.stderr
