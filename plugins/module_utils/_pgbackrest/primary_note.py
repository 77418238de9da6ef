# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup notes of the primary that it is taken of: which standbys its commits wait for.

When the primary is gone, so is its configuration, and only a note tells whether what is left can have every commit.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
from collections.abc import Mapping
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_SETTINGS, session_options

ANNOTATION = "replication"
SECONDS = 10  # that the primary may take to answer
_SETTINGS = ("synchronous_standby_names", "synchronous_commit", "synchronized_standby_slots")
# What a standby has set says nothing of its primary.
QUERY = (
    "SELECT json_build_object('system_identifier', (SELECT system_identifier::text FROM pg_control_system()), "
    + ", ".join(f"'{name}', current_setting('{name}', true)" for name in _SETTINGS)
    + ") WHERE NOT pg_is_in_recovery()"
)
# pgBackRest's options for the server, and how psql is told.
_LOGIN = {"pg1-socket-path": "--host", "pg1-port": "--port", "pg1-user": "--username", "pg1-database": "--dbname"}


def login_words(config: str, stanza: str) -> Optional[list[str]]:
    """psql's words for the server that pgBackRest's configuration file names; None where that is on another host.

    Raises RecoveryError where the text cannot be understood.
    """
    # An option may be given several times, and "%" is no variable.
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    try:
        parser.read_string(config)
    except configparser.Error as error:
        raise RecoveryError(f"pgBackRest's configuration cannot be read: {error}") from error
    options: dict[str, str] = {}
    for section in ("global", stanza):
        options.update(parser[section] if parser.has_section(section) else {})
    if options.get("pg1-host"):
        return None
    return [f"{word}={options[name]}" for name, word in _LOGIN.items() if options.get(name)]


def primary_note(config: str, stanza: str) -> dict[str, str]:
    """Annotations for a backup; none where the server is on another host, or is a standby.

    Raises RecoveryError where the server cannot be asked.
    """
    words = login_words(config, stanza)
    if words is None:
        return {}
    options = session_options({**SAFE_SETTINGS, "statement_timeout": f"{SECONDS}s"})
    environment = {"PGOPTIONS": options, "PGCONNECT_TIMEOUT": str(SECONDS), "PGDATABASE": "postgres"}
    quiet = ["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet"]
    said = _asked(["psql", *quiet, *words, f"--command={QUERY}"], environment).strip()
    if not said:
        return {}
    try:
        json.loads(said)
    except ValueError as error:
        raise RecoveryError(f"psql answers what is not understood: {said[:100]}") from error
    return {ANNOTATION: said}


def _asked(argv: list[str], environment: Mapping[str, str]) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    try:
        # This runs where there is no module.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=3 * SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RecoveryError(str(error)) from error
    if done.returncode:
        raise RecoveryError((done.stderr.strip() or f"psql ended with {done.returncode}").splitlines()[0])
    return done.stdout
