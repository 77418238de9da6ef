# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what is to be loaded fits on the disks of production, where they are ours to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name

PLACES = """
SELECT spcname AS name, pg_catalog.pg_tablespace_location(oid) AS path FROM pg_catalog.pg_tablespace
WHERE spcname <> 'pg_global'
"""
DATABASES = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = %s"
SCHEMAS = "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = %s"
# At least what the rows themselves take (24 bytes of header, 4 of line pointer), however much of a file is empty; what
# lies in TOAST is not counted. At most the files with TOAST and indexes.
NEEDS = """
SELECT coalesce(t.spcname, '') AS tablespace, pg_catalog.pg_total_relation_size(c.oid)::int8 AS most,
       least(pg_catalog.pg_relation_size(c.oid)::float8, greatest(c.reltuples, 0)::float8 * (28 + coalesce(
         (SELECT sum(s.avg_width * (1 - s.null_frac)) FROM pg_catalog.pg_stats s
          WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited), 0)))::int8 AS least
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
WHERE c.oid = ANY(%s::oid[]) AND c.relkind = 'r'
"""
HOME = """
SELECT t.spcname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
WHERE d.datname = %s
"""


# No tablespace can have a name that begins so.
PG_WAL = "pg_wal"
# Of each page of a large object (2 kB) an entry in the index, and what a page of 8 kB has no room for.
LARGE_OBJECT_ROOM = 1.1


def places_of(connection: Any) -> dict[str, str]:
    """Directory of each tablespace. One in place lies within the data directory."""
    home = str(value(connection, "SELECT pg_catalog.current_setting('data_directory')"))
    return {row["name"]: os.path.join(home, row["path"]) for row in rows(connection, PLACES)}


def free_below(path: str) -> Optional[dict[str, Any]]:
    """``{path, device, free, total}`` in bytes of the file system that ``path`` is on; None where we cannot look."""
    try:
        found = os.statvfs(path)
        device = os.stat(path).st_dev
    except OSError:
        return None
    path = path.rstrip("/")
    return {
        "path": path,
        "device": device,
        "free": found.f_bavail * found.f_frsize,
        "total": found.f_blocks * found.f_frsize,
    }


def needed_by_device(
    needs: Sequence[Mapping[str, Any]], disks: Mapping[str, Mapping[str, Any]], home: str
) -> list[dict[str, Any]]:
    """Bytes needed at ``least`` and at ``most`` on each file system.

    ``needs`` are rows of NEEDS, ``disks`` is what is free at each tablespace; one that is not there is ``home``.
    """
    found: dict[int, dict[str, Any]] = {}
    for item in needs:
        disk = disks.get(item["tablespace"] or home, disks.get(home))
        if disk is not None:
            entry = found.setdefault(disk["device"], {**disk, "least": 0, "most": 0})
            entry["least"] += item["least"]
            entry["most"] += item["most"]
    return list(found.values())


def refuse_too_little(disks: Sequence[Mapping[str, Any]]) -> None:
    """Raise RecoveryError when what is needed at least is not free."""
    for disk in disks:
        if disk["least"] > disk["free"]:
            raise RecoveryError(
                f"what was lost does not fit on {host_name()}: its rows alone take at least {disk['least']} bytes, "
                f"and {disk['free']} bytes are free on the file system of {disk['path']}. Nothing was changed. Make "
                f"{disk['least'] - disk['free']} bytes of room there, better {max(0, disk['most'] - disk['free'])} for "
                "indexes as well, then run again with the same incident id.",
                disk=dict(disk),
            )


def needs_of_large_objects(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the large objects of a load plan need, as rows of NEEDS: in the database, and for a while as WAL."""
    stored = int((plan.get("large_objects") or {}).get("stored") or 0)
    return [
        {"tablespace": "", "least": stored, "most": int(stored * LARGE_OBJECT_ROOM)},
        {"tablespace": PG_WAL, "least": 0, "most": int(stored * LARGE_OBJECT_ROOM)},
    ]


def room_for(production: Server, side: Server, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a load plan needs of each disk of production, and what is free there; RecoveryError when it cannot fit.

    Nothing of a production over the network, nor of a plan that an earlier run has begun to carry out.
    """
    if production.remote:
        return []
    admin = production.connect()
    try:
        home = value(admin, HOME, (plan["database"],))
        places = places_of(admin)
        places[PG_WAL] = os.path.join(places["pg_default"], PG_WAL)
        disks = {name: disk for name, path in places.items() if (disk := free_below(path)) is not None}
        begun = value(admin, DATABASES, (plan["staging_database"],))
    finally:
        admin.close()
    if home is not None and not plan["staging_database"]:
        connection = production.connect(plan["database"])
        begun = value(connection, SCHEMAS, (plan["staging_schema"],))
        connection.close()
    if begun:
        return []
    session = side.connect(plan["database"])
    try:
        oids = [item["oid"] for item in plan["relations"] if item["action"] not in ("none", "columns")]
        needs = rows(session, NEEDS, (oids,))
    finally:
        session.close()
    found = needed_by_device([*needs, *needs_of_large_objects(plan)], disks, home or "pg_default")
    refuse_too_little(found)
    return found
