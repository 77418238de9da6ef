# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the module's parameters to what is asked, and from the answer to the module's result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import recovery_target
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Candidate, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, format_time, parse_time


def result(
    incident: Candidate,
    reason: str,
    candidates: list[Candidate],
    database: str,
    scan: Scan,
    server: Mapping[str, Any],
) -> dict[str, Any]:
    """The incident, the target just before it, and what lies around it."""
    timelines, source, log = scan.source.timelines, scan.source, scan.commits
    facts = incident.as_dict(database)
    facts["timeline"] = timelines.at(incident.lsn)
    seconds = (parse_time(server["host_time"], "host_time") - incident.commit.time) / 1e6
    return {
        "incident": facts,
        "target": recovery_target(
            {
                "type": "lsn",
                "value": format_lsn(incident.lsn),
                "exclusive": True,
                # The timeline to follow: the server's own, on which all of its ancestors up to the target lie.
                "timeline": timelines.current,
                "xid": incident.commit.xid,
                "commit_time": incident.commit.commit_time,
                "reason": reason,
                "segment": source.name(incident.lsn // source.segment_size),
            }
        ),
        "candidates": [one.as_dict(database) for one in candidates],
        "last_commit": _commit_facts(log.last_before(incident.lsn)),
        "transactions_after": {
            "count": log.after(incident.commit.lsn),
            "seconds": max(0.0, round(seconds, 3)),
        },
    }


def _commit_facts(commit: Optional[Commit]) -> Optional[dict[str, Any]]:
    if commit is None:
        return None
    return {"lsn": format_lsn(commit.lsn), "time": commit.commit_time, "xid": commit.xid}


def make_request(params: Mapping[str, Any]) -> Request:
    """What the user asked for, checked as far as it can be without a server."""
    relations = tuple((one["schema"], one["name"]) for one in parse_relation_list(params.get("relations")))
    schemas = tuple(parse_schema_list(params.get("schemas")))
    kinds = tuple(kind for kind in params.get("kinds") or [] if kind != "auto")
    if not params["database"]:
        raise RecoveryError("no database is named. Nothing was changed. Set database (dr_database).")
    since = parse_time(params["since"], "since") if params.get("since") else None
    until = parse_time(params["until"], "until") if params.get("until") else None
    if since is not None and until is not None and since > until:
        raise RecoveryError(f"since ({format_time(since)}) is later than until ({format_time(until)})")
    if params.get("target_time"):
        parse_time(params["target_time"], "target_time")
    return Request(params["database"], relations, schemas, kinds, since, until, params.get("min_rows") or 1)
