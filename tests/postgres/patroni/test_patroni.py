"""A switchover and a failover that Patroni carries out, asked for and proved by us, on a real one."""

from __future__ import annotations

import shlex
import signal
import subprocess
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover import patroni
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_leader import Leading, Wanted
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_plan import changes


def lead(cluster: Any, planned: dict[str, Any], check_mode: bool = False, **more: Any) -> dict[str, Any]:
    """What role postgresql_failover has the module do with a plan."""
    given = planned["patroni"]
    wanted = Wanted(
        executable=given["program"],
        config=given["config"],
        scope=given["scope"],
        member=given["member"],
        leader=given["leader"],
        switchover=given["switchover"],
        timeline=planned["timeline"],
        lsn=planned["end"],
        **{"timeout": 40.0, **more},
    )
    return Leading(cluster.members[given["member"]].login, wanted, check_mode).ensure()


def test_the_leader_is_exchanged_with_one_that_patroni_may_promote(cluster: Any) -> None:
    old = cluster.leader
    before = cluster.ctl("show-config")
    planned = cluster.plan(old, switchover=True)
    new = cluster.members[planned["patroni"]["member"]]
    assert new.name in {"a", "b"} - {old.name}
    if old.name != "c":
        assert planned["others"]["host-c"] == "has the tag nofailover: true"
    command = next(line for line in planned["lines"] if "switchover" in line)
    assert f"--leader {old.name} --candidate {new.name} --force" in command
    old.sql("INSERT INTO told VALUES (1)")

    assert lead(cluster, planned, check_mode=True) == {"changed": True}
    assert cluster.leader is old
    result = lead(cluster, planned)
    assert result["changed"]
    assert result["leader"] == new.name
    assert parse_lsn(result["fork_lsn"]) >= parse_lsn(planned["end"])
    new.sql("INSERT INTO told VALUES (2)")

    again = lead(cluster, planned, followers=[old.name, "c"])
    assert not again["changed"]
    assert again["missing"] == []
    assert again["fork_lsn"] == result["fork_lsn"]
    with pytest.raises(RecoveryError, match=r"did not begin where timeline \d+ had ended \(F/0 or later\)"):
        lead(cluster, {**planned, "end": "F/0"})
    after = cluster.plan(old, known=planned["candidate"])
    assert after["promoted"]
    assert changes(planned["patroni"], after["patroni"]) == []
    assert cluster.ctl("show-config") == before
    assert {each["Member"]: each.get("Tags") for each in cluster.listed()} == {
        "a": {"clonefrom": True},
        "b": None,
        "c": {"nofailover": True},
    }
    cluster.until(lambda: old.sql("SELECT count(*) FROM told") == 2, "the old leader follows")


def test_a_living_leader_is_not_failed_over(cluster: Any) -> None:
    with pytest.raises(RecoveryError, match=r"has Patroni's leader lock: it is not gone.*-e dr_switchover=yes"):
        cluster.plan(cluster.leader)


@pytest.mark.whole
def test_maintenance_mode_is_refused_with_the_command_that_ends_it(cluster: Any) -> None:
    cluster.ctl("pause", "--wait")
    try:
        with pytest.raises(RecoveryError, match="is in maintenance mode") as refused:
            cluster.plan(cluster.leader, switchover=True)
        command = shlex.split(str(refused.value).rpartition("again: ")[2])
        subprocess.run(command, check=True, capture_output=True)
    finally:
        cluster.ctl("resume", "--wait")
    assert cluster.plan(cluster.leader, switchover=True)["candidate"]


@pytest.mark.whole
def test_a_switchover_that_somebody_has_scheduled_is_not_overwritten(cluster: Any) -> None:
    cluster.ctl("switchover", "--leader", cluster.leader.name, "--force", "--scheduled", "2099-01-01T00:00+00:00")
    try:
        with pytest.raises(RecoveryError, match=r"scheduled a switchover of shop for 2099-01-01T00:00:00\+00:00"):
            cluster.plan(cluster.leader, switchover=True)
    finally:
        cluster.ctl("flush", "shop", "switchover", "--force")


@pytest.mark.whole
def test_whom_patroni_refuses_is_said_with_its_words(cluster: Any) -> None:
    planned = cluster.plan(cluster.leader, switchover=True)
    planned["patroni"]["member"] = "c"
    with pytest.raises(RecoveryError, match=r"does not make c the leader.*does not exist.*nothing was changed"):
        lead(cluster, planned)


def test_without_its_store_patroni_is_not_gone_behind(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patroni, "PATIENCE", 1.5)
    old = cluster.leader
    assert cluster.store
    cluster.store.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RecoveryError, match=r"cannot be asked.*did not end within 1.5 s.*Bring its store back"):
            cluster.plan(old, switchover=True)
    finally:
        cluster.store.send_signal(signal.SIGCONT)


def test_a_dead_leader_is_replaced_and_no_acknowledged_commit_is_lost(cluster: Any) -> None:
    old = cluster.leader
    old.sql("TRUNCATE told")
    for number in range(20):
        old.sql(f"INSERT INTO told VALUES ({number})")
    candidate = cluster.members[({"a", "b"} - {old.name}).pop()]
    cluster.until(lambda: candidate.sql("SELECT count(*) FROM told") == 20, "all arrived")
    old.kill()
    planned = cluster.plan(old)
    assert planned["patroni"]["member"] == candidate.name
    assert planned["lines"][-1].startswith("lost: nothing that was committed")
    result = lead(cluster, planned, timeout=cluster.ttl + 60.0)
    assert candidate.sql("SELECT count(*) FROM told") == 20
    assert result["leader"] == candidate.name

    # Whoever comes later, with another incident, finds it done: nothing is asked of Patroni.
    later = cluster.plan(old)
    assert later["promoted"]
    assert later["candidate"] == f"host-{candidate.name}"
    assert changes(planned["patroni"], later["patroni"]) == []
    assert not lead(cluster, later)["changed"]

    old.start()
    assert lead(cluster, later, followers=[old.name])["missing"] == []


def test_commits_that_only_the_dead_leader_has_are_not_given_up_unasked(cluster: Any) -> None:
    old = cluster.leader
    others = [member for member in cluster.members.values() if member is not old]
    receivers = [member.sql("SELECT pid FROM pg_stat_wal_receiver") for member in others]
    for pid in receivers:
        signal_to(pid, signal.SIGSTOP)
    try:
        old.sql("INSERT INTO told VALUES (99)")
        old.kill()
        with pytest.raises(
            RecoveryError, match=r"may be lost: at most \d+ transactions?, .*host-. alone.*dr_accept_loss=yes"
        ):
            cluster.plan(old)
    finally:
        for pid in receivers:
            signal_to(pid, signal.SIGCONT)
        old.start()


def signal_to(pid: int, number: signal.Signals) -> None:
    subprocess.run(["kill", f"-{number.value}", str(pid)], check=False)
