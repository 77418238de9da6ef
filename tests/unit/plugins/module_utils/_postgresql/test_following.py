# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a standby follows, as serve.yml of role postgresql_standby asks it, and how hosts are let in."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.following import (
    follows,
    hba_address,
    verdict,
)

STREAMING: Any = {
    "in_recovery": True,
    "receiver": "streaming",
    "received": True,
    "replayed": True,
    "replay_lsn": "0/5000060",
    "paused": False,
    "waits_for": None,
    "held": False,
}


@pytest.mark.parametrize(
    ("changed", "delay", "expected"),
    [
        ({}, "0", True),
        ({"replayed": False}, "0", False),
        ({"replayed": False}, "4h", True),
        ({"received": False}, "4h", False),
        ({"receiver": None}, "0", False),
        ({"receiver": None, "waits_for": "RecoveryApplyDelay"}, "4h", True),
        ({"receiver": None, "waits_for": "RecoveryApplyDelay"}, "0", False),
        ({"receiver": "waiting"}, "0", False),
        ({"in_recovery": False}, "0", False),
        ({"held": True}, "0", False),
        ({"held": True, "waits_for": "RecoveryApplyDelay"}, "4h", False),
    ],
)
def test_a_standby_follows_when_it_has_come_to_the_end_or_waits_for_its_delay(
    changed: dict[str, Any], delay: str, expected: bool
) -> None:
    assert follows({**STREAMING, **changed}, delay) is expected


def told(answer: Any) -> str:
    result = verdict(answer, "db2, port 5432", "db1", "0/6000000", "0", 300)
    assert not result["follows"]
    return result["why_not"]


def test_a_standby_that_lets_nobody_in_is_told_with_the_reason() -> None:
    assert told({"failed": False, "msg": "unable to connect to database: refused"}) == (
        "The standby on db2, port 5432 lets nobody in: unable to connect to database: refused."
    )


def test_a_standby_that_does_not_follow_is_told_with_where_it_stands() -> None:
    behind = {**STREAMING, "receiver": None, "received": False, "replayed": False, "paused": True}
    assert told({"query_result": [{"state": behind}]}) == (
        "The standby on db2, port 5432 does not follow db1 after 300 s: in recovery True, WAL receiver not running, "
        "replayed up to 0/5000060 of 0/6000000, replay is PAUSED (SELECT pg_wal_replay_resume())."
    )
    held = {**STREAMING, "held": True}
    assert "stands at the recovery target of an incident" in told({"query_result": [{"state": held}]})


def test_an_address_is_let_in_alone_and_a_name_as_it_is() -> None:
    hosts = ["10.0.0.7", "fd00::7", "db1.example.org", "10.0.0.0/24"]
    assert [hba_address(host) for host in hosts] == ["10.0.0.7/32", "fd00::7/128", "db1.example.org", "10.0.0.0/24"]
