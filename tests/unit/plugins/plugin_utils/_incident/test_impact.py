"""What a plan says of others in production, and a report of what was taken of it."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.impact import (
    bystander_lines,
    limit_lines,
    measured_lines,
)

LIMITS: dict[str, Any] = {
    "connections": {"max": 100, "reserved": 3, "used": 12, "wanted": 5},
    "disk": [
        {"path": "/data", "device": 1, "free": 9000000000, "total": 20000000000},
        {"path": "/data/pg_wal", "device": 1, "free": 9000000000, "total": 20000000000},
    ],
    "archive": {"mode": "on", "failed": None, "failing": False, "segment_bytes": 16777216, "waiting": 0},
    "slots": [],
    "max_slot_wal_keep_bytes": None,
    "standbys": [],
}


def impact(**found: Any) -> dict[str, Any]:
    return {"impact": {"limits": {**LIMITS, **found}, "max_lag": 60.0, "relations": []}}


def test_a_plan_says_what_production_has_to_spare() -> None:
    lines = limit_lines(impact())
    assert lines[0] == "connections: takes at most 5; 12 of 100 are in use, 3 of the rest reserved"
    assert lines[1] == "disk: 9.0 GB of 20.0 GB free for /data, /data/pg_wal"
    assert lines[-1] == "archive: 0 segments waiting"
    assert limit_lines({}) == []


def test_a_plan_warns_of_full_connections_a_failing_archive_and_a_slot_that_keeps_wal() -> None:
    lines = limit_lines(
        impact(
            connections={"max": 20, "reserved": 3, "used": 17, "wanted": 5},
            archive={**LIMITS["archive"], "failing": True, "failed": "000000010000000000000007", "waiting": 9},
            slots=[
                {"name": "old", "type": "physical", "active": False, "wal_status": "extended", "kept_bytes": 5000000}
            ],
        )
    )
    assert "FEWER ARE FREE, SO FEWER TABLES ARE LOADED AT A TIME" in lines[0]
    assert any("9 segments waiting, AND IT FAILS, last on 000000010000000000000007" in line for line in lines)
    assert "slot old is not in use and keeps 5.0 MB of WAL, WITHOUT A LIMIT (max_slot_wal_keep_size)" in lines


def test_a_plan_names_standbys_and_the_lag_that_loading_waits_for() -> None:
    standby = {
        "name": "standby1",
        "address": "10.0.0.2",
        "state": "streaming",
        "sync_state": "async",
        "not_received_bytes": 0,
        "not_replayed_bytes": 4000000,
        "replay_lag_seconds": 3600.0,
    }
    assert limit_lines(impact(standbys=[standby]))[-2:] == [
        "standby standby1 at 10.0.0.2 (async): 0 bytes not received, 4.0 MB not replayed, 1 h behind",
        "loading waits while one is behind by more than 1 min because of it (dr_max_lag)",
    ]


def test_a_plan_says_who_would_notice_and_what_subscribers_get() -> None:
    trigger = {"name": "audit", "state": "ENABLE", "event": "ddl_command_end", "calls": "public.audit", "fires": False}
    slot = {"name": "sub", "active": True, "subscriber": "reports at 10.0.0.3", "behind_bytes": 0}
    replication = {"publications": ["everything"], "slots": [slot]}
    data = {
        "incident": {"relations": [{"rows": 2000}]},
        "impact": {"event_triggers": [trigger], "replication": replication},
    }
    merged = bystander_lines({"parameters": {"load": "merge"}}, data)
    assert merged[0].startswith("event trigger audit (ENABLE, on ddl_command_end, calls public.audit): does not fire")
    assert merged[1].endswith("EACH ROW THAT IS MERGED IS SENT TO SUBSCRIBERS, as any other (2,000 rows went)")
    assert merged[2] == "slot sub: active, subscriber reports at 10.0.0.3, 0 bytes behind"
    assert "copies beside are not sent" in bystander_lines({}, data)[1]


def test_a_report_says_what_was_taken_and_whom_nobody_waited_for() -> None:
    standby = {
        "name": "late",
        "most_lag_seconds": 70.0,
        "not_waited_for": "its replay did not move (delayed or paused)",
    }
    limits = {"wal_bytes": 1500000, "sessions": 5, "max_lag": 60.0, "waited_seconds": 12.0, "standbys": [standby]}
    assert measured_lines(limits) == [
        "1.5 MB of WAL were written while it was loaded, that of others included",
        "5 sessions of ours at one time at most",
        "waited 12 s for standbys",
        "standby late: at most 1 min 10 s behind; not waited for, since its replay did not move (delayed or paused)",
    ]
