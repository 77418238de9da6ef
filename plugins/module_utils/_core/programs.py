# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs whose output is read, from several threads."""

from __future__ import annotations

import os
import subprocess

ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}


def run(argv: list[str]) -> tuple[int, str, str]:
    """Run a program; unlike a module's run_command this may be called from several threads."""
    # A module's run_command is for one thread; here several segments are fetched at a time.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, capture_output=True, text=True, errors="replace", env={**os.environ, **ENVIRONMENT}, check=False
    )
    return done.returncode, done.stdout, done.stderr
