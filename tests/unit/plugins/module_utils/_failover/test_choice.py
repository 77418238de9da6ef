# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a failover promotes, why, and when it promotes nobody."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover import refusals
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes, choose
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import (
    is_of_this_host,
    managers_among,
    program_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState, host_state, unreachable

TWO = "1\t0/5000000\tno recovery target specified\n"


def server(host: str, end: Optional[str], **changes: Any) -> HostState:
    state: dict[str, Any] = {
        "running": True,
        "answers": True,
        "in_recovery": True,
        "stands_by": True,
        "service": "postgresql@17-main",
        "masked": False,
        "system_identifier": "7711488204033580105",
        "data_directory": "/var/lib/postgresql/17/main",
        "segment_size": 1 << 24,
        "timeline": 1,
        "history": "",
        "end": end,
        "replay_time": "2026-11-23T18:00:00+00:00",
        "upstream": {"host": "db1", "port": "5432", "name": f"dbre_{host}", "slot": ""},
        "paused": False,
        "held": False,
        "delay_seconds": 0.0,
        "lacks": [],
        "managers": [],
    }
    return host_state(host, {**state, **changes})


def dead(end: Optional[str] = "0/6000500", **changes: Any) -> HostState:
    state: dict[str, Any] = {"running": False, "answers": False, "in_recovery": None, "stands_by": False}
    return server("db1", end, **{**state, "synchronous_standby_names": "", "synchronous_commit": "on", **changes})


GONE = unreachable("db1", "timed out")


def test_the_one_with_most_wal_is_promoted_and_it_is_said_why() -> None:
    found = choose(GONE, [server("db2", "0/6000100"), server("db3", "0/6000400")], Wishes(fenced=True))
    assert found.candidate == "db3"
    assert "768 bytes more than db2" in found.reason
    assert found.others == {"db2": "has 768 bytes of WAL less"}
    assert found.sources == []


def test_of_two_with_as_much_the_first_of_the_inventory() -> None:
    found = choose(GONE, [server("db2", "0/6000100"), server("db3", "0/6000100")], Wishes(fenced=True))
    assert found.candidate == "db2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delay_seconds": 3600.0}, "delayed by 1 h"),
        ({"paused": True}, "pg_wal_replay_resume"),
        ({"held": True}, "recovery target of an incident"),
        ({"lacks": ["max_connections 100 < 200"]}, "max_connections 100 < 200"),
        ({"running": False, "answers": False}, "does not run"),
        ({"answers": False, "why": "too many clients"}, "too many clients"),
        ({"timeline": 2, "history": TWO}, "left the others at 0/5000000"),
        ({"end": None}, "where its WAL ends"),
    ],
)
def test_a_standby_that_cannot_be_promoted_says_why(changes: dict[str, Any], words: str) -> None:
    odd = server("db3", **{"end": "0/6000400", **changes})
    found = choose(dead(), [server("db2", "0/6000100"), odd], Wishes())
    assert found.candidate == "db2"
    assert words in found.others["db3"]
    with pytest.raises(RecoveryError, match="db3 .dr_promote. cannot be promoted"):
        choose(dead(), [server("db2", "0/6000100"), odd], Wishes(promote="db3"))
    with pytest.raises(RecoveryError, match="no standby can be promoted: db3"):
        choose(dead(), [odd], Wishes())


def test_a_delayed_standby_is_a_source_of_what_the_others_lack() -> None:
    delayed = server("db3", "0/6000400", delay_seconds=3600.0)
    found = choose(GONE, [server("db2", "0/6000100"), delayed], Wishes(fenced=True))
    assert [(source.host, source.kind) for source in found.sources] == [("db3", "standby")]
    assert found.best_end == 0x6000400


def test_wal_is_taken_from_standbys_first_and_from_the_dead_disk_last() -> None:
    found = choose(dead(), [server("db2", "0/6000100"), server("db3", "0/6000400")], Wishes(promote="db2", max_lag=60))
    assert [(source.host, source.kind) for source in found.sources] == [("db3", "standby"), ("db1", "primary")]
    assert found.best_end == 0x6000500
    assert found.warnings == ["db2 HAS 768 bytes OF WAL LESS THAN db3; that is taken from there before it is promoted"]
    assert found.loss.bytes == 0
    assert found.loss.exact


def test_a_preferred_standby_that_is_too_far_behind_is_refused_with_the_way_out() -> None:
    late = server("db2", "0/6000100", replay_time="2026-11-23T17:50:00+00:00")
    standbys = [late, server("db3", "0/6000400")]
    with pytest.raises(RecoveryError, match="dr_max_lag=601"):
        choose(GONE, standbys, Wishes(promote="db2", max_lag=60))
    assert choose(GONE, standbys, Wishes(promote="db2", max_lag=601)).candidate == "db2"


def test_a_host_that_is_no_standby_cannot_be_preferred() -> None:
    with pytest.raises(RecoveryError, match="none of the standbys, which are db2"):
        choose(GONE, [server("db2", "0/6000100")], Wishes(promote="db9"))


def test_the_confirmed_plan_stays_although_another_has_more_by_now() -> None:
    standbys = [server("db2", "0/6000100"), server("db3", "0/6000400")]
    assert choose(GONE, standbys, Wishes(planned="db2")).candidate == "db2"
    gone = [unreachable("db2", "timed out"), standbys[1]]
    assert choose(GONE, gone, Wishes(planned="db2")).candidate == "db3"


def test_what_is_lost_is_not_known_where_the_disk_is_gone_and_nobody_promised() -> None:
    heard = server("db2", "0/6000100", primary_lsn="0/6000300", primary_time="2026-11-23T18:00:01+00:00")
    found = choose(GONE, [heard], Wishes(fenced=True))
    assert not found.loss.exact
    assert (found.loss.bytes, found.loss.transactions) == (512, None)
    assert "0/6000300" in found.loss.why


def test_with_the_disk_at_hand_a_missing_synchronous_standby_loses_nothing() -> None:
    found = choose(
        dead(synchronous_standby_names="dbre_db3"), [server("db2", "0/6000100"), unreachable("db3", "")], Wishes()
    )
    assert found.acknowledged.verdict == "not_all"
    assert found.loss.exact


@pytest.mark.parametrize(
    ("primary", "words"),
    [
        (dead(), ""),
        (GONE, ""),
        (dead(running=True), ""),
        (dead(running=True, answers=True, in_recovery=False), "systemctl stop postgresql@17-main"),
        (dead(running=True, answers=True, in_recovery=True), "db1 is a standby"),
    ],
)
def test_nothing_is_promoted_beside_a_primary_that_works(primary: HostState, words: str) -> None:
    if not words:
        refusals.refuse_living(primary)
        return
    with pytest.raises(RecoveryError, match=words):
        refusals.refuse_living(primary)


def test_a_host_that_cannot_be_reached_has_to_be_fenced_by_somebody() -> None:
    refusals.refuse_unfenced(dead(), Wishes())
    refusals.refuse_unfenced(GONE, Wishes(fenced=True))
    with pytest.raises(RecoveryError, match="dr_fenced=yes") as told:
        refusals.refuse_unfenced(GONE, Wishes())
    assert "timed out" in told.value.msg
    assert "dr_fence_command" in told.value.msg


def test_a_second_primary_is_named() -> None:
    new = server("db2", "0/7000000", in_recovery=False, timeline=2, history=TWO)
    refusals.refuse_promoted([server("db3", "0/6000100")])
    refusals.refuse_promoted([new], allowed="db2")
    with pytest.raises(RecoveryError, match="db2 .timeline 2. is the primary already"):
        refusals.refuse_promoted([new, server("db3", "0/6000100")])
    with pytest.raises(RecoveryError, match="several hosts are primaries: db2 .timeline 2., db3 .timeline 2."):
        refusals.refuse_promoted([new, server("db3", "0/7000000", in_recovery=False, timeline=2)], allowed="db2")


def test_hosts_of_different_clusters_are_refused() -> None:
    refusals.refuse_strangers(GONE, [server("db2", "0/6000100"), unreachable("db3", "")])
    with pytest.raises(RecoveryError, match="not of one cluster.*db3 42"):
        refusals.refuse_strangers(GONE, [server("db2", "0/6000100"), server("db3", "0/1", system_identifier="42")])


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["/usr/bin/python3", "/usr/bin/patroni", "/etc/patroni/main.yml"], "patroni"),
        (["/usr/bin/python3.11", "-u", "/usr/bin/patroni"], "patroni"),
        (["/usr/sbin/pacemakerd"], "pacemakerd"),
        (["pg_autoctl", "run"], "pg_autoctl"),
        (["/usr/bin/python3"], "python3"),
        ([""], ""),
    ],
)
def test_a_manager_is_known_by_its_process(argv: list[str], program: str) -> None:
    assert program_of(argv) == program


def test_a_managed_host_is_left_to_its_manager() -> None:
    found = managers_among(["patroni", "postgres"], ["/etc/systemd/system/multi-user.target.wants/keepalived.service"])
    assert [manager["name"] for manager in found] == ["Patroni", "keepalived"]
    assert managers_among(["postgres"], ["/etc/systemd/system/multi-user.target.wants/ssh.service"]) == []
    with pytest.raises(RecoveryError, match=r"Patroni manages db2 .the process patroni runs.*patronictl"):
        refusals.refuse_managers([dead(), server("db2", "0/6000100", managers=found)])


def test_by_what_was_written_down_a_missing_synchronous_standby_stops_it_and_is_named() -> None:
    """The old primary's disk cannot be read, and its setting is known from a file on a standby."""
    entry = {
        "where": "/var/lib/postgresql/dbre-recovery/primary-5432.json",
        "at": "2026-11-23T18:00:00+00:00",
        "synchronous_standby_names": "FIRST 1 (dbre_db2, dbre_db3)",
        "synchronous_commit": "on",
        "synchronized_standby_slots": "",
    }
    db2 = server("db2", "0/6000400", recorded=[entry])
    one = choose(GONE, [db2, unreachable("db3", "timed out")], Wishes(fenced=True))
    assert (one.acknowledged.verdict, one.acknowledged.absent, one.loss.exact) == ("not_all", ("db3",), False)
    assert "written down at 2026-11-23 18:00:00" in one.acknowledged.why
    both = choose(GONE, [db2, server("db3", "0/6000300")], Wishes(fenced=True))
    assert (both.acknowledged.verdict, both.loss.exact) == ("all", True)
    # What its disk says goes before.
    assert choose(dead(), [db2], Wishes()).acknowledged.verdict == "no_promise"


def test_a_manager_in_a_container_on_the_host_manages_what_is_in_there() -> None:
    assert is_of_this_host("Name:\tpatroni\nNSpid:\t23098\nVmPeak:\t1 kB\n")
    assert not is_of_this_host("Name:\tpatroni\nNSpid:\t23101\t1\nVmPeak:\t1 kB\n")
    assert is_of_this_host("Name:\tpatroni\n"), "a kernel that does not tell"
