# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the module's parameters to what is asked, and from the answer to the module's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
                # Of several, all up to the last are replayed.
                "segment": source.name([incident.lsn, *(one.lsn for one in incident.also)][-1] // source.segment_size),
            }
        ),
        "candidates": [one.as_dict(database) for one in candidates],
        "last_commit": _commit_facts(log.last_before(incident.lsn)),
        "transactions_after": {
            "count": log.after(incident.commit.lsn) - len(incident.also),
            "seconds": max(0.0, round(seconds, 3)),
        },
    }


def _commit_facts(commit: Optional[Commit]) -> Optional[dict[str, Any]]:
    if commit is None:
        return None
    return {"lsn": format_lsn(commit.lsn), "time": commit.commit_time, "xid": commit.xid}


def make_request(
    database: str,
    *,
    relations: Any = None,
    schemas: Any = None,
    kinds: Optional[Sequence[str]] = None,
    since: Optional[str] = None,
    until: Optional[str] = None,
    min_rows: Optional[int] = None,
    target_lsn: Optional[str] = None,
    target_time: Optional[str] = None,
    target_xid: Optional[str] = None,
    since_lsn: Optional[int] = None,
    until_lsn: Optional[int] = None,
    together: Sequence[str] = (),
) -> Request:
    """What the user asked for, checked as far as it can be without a server; RecoveryError where it makes no sense."""
    if not database:
        raise RecoveryError("no database is named. Nothing was changed. Set database (dr_database).")
    begin = parse_time(since, "since") if since else None
    end = parse_time(until, "until") if until else None
    if begin is not None and end is not None and begin > end:
        raise RecoveryError(f"since ({format_time(begin)}) is later than until ({format_time(end)})")
    if since_lsn is not None and until_lsn is not None and since_lsn > until_lsn:
        raise RecoveryError(f"since ({format_lsn(since_lsn)}) is later than until ({format_lsn(until_lsn)})")
    if target_time:
        parse_time(target_time, "target_time")
    targets = {"target_lsn": target_lsn, "target_time": target_time, "target_xid": target_xid}
    given = [(name, value) for name, value in targets.items() if value]
    if len(given) > 1:
        named = " and ".join(name for name, _value in given)
        raise RecoveryError(f"{named} exclude each other. Nothing was changed. Give one.")
    return Request(
        database,
        tuple((one["schema"], one["name"]) for one in parse_relation_list(relations)),
        tuple(parse_schema_list(schemas)),
        tuple(kind for kind in kinds or () if kind != "auto"),
        begin,
        end,
        min_rows or 1,
        since_lsn,
        until_lsn,
        given[0] if given else None,
        tuple(map(str, together)),
    )
