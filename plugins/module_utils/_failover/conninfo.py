# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead a standby's primary_conninfo to another server."""

from __future__ import annotations

import re

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# host=10.0.0.1 port=5432 ...; a value may be in single quotes, with backslashes before what would end it.
_HOST_OR_PORT = re.compile(r"(?<!\S)(host|hostaddr|port)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")


def with_primary(conninfo: str, host: str, port: int) -> str:
    """A primary_conninfo that leads to another server, and is otherwise the same, letter for letter.

    RecoveryError for a URI, and for one that names no host, since it has nothing that could be replaced.
    """
    if re.match(r"postgres(?:ql)?://", conninfo.strip()):
        raise RecoveryError(
            "primary_conninfo of this standby is a URI, in which no server is replaced. It was not changed. Point it "
            f"to {host}, port {port}, yourself (ALTER SYSTEM SET primary_conninfo, SELECT pg_reload_conf())."
        )
    named = {match.group(1) for match in _HOST_OR_PORT.finditer(conninfo)}
    changed = _HOST_OR_PORT.sub(lambda match: _replaced(match, named, host, port), conninfo)
    missing = ([] if named & {"host", "hostaddr"} else [f"host={host}"]) + ([] if "port" in named else [f"port={port}"])
    return " ".join([*missing, re.sub(r"\s+", " ", changed).strip()]) if missing else changed


def _replaced(match: re.Match[str], named: set[str], host: str, port: int) -> str:
    if match.group(1) == "port":
        return f"port={port}"
    # Of the two, one leads there; what the other one was is not known of the new primary.
    return f"host={host}" if match.group(1) == "host" or "host" not in named else ""
