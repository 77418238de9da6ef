# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When Patroni may be asked for a failover, and for whom. Its texts are those of Debian 12's Patroni 3.0.2."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover import patroni
from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import left_to_do
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import patroni_config
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_plan import changes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import Known, located, plan

LISTED = (
    '[{"Cluster": "demo", "Member": "a", "Host": "127.0.0.1:6711", "Role": "Replica", "State": "stopping", '
    '"Lag in MB": "unknown"}, {"Cluster": "demo", "Member": "b", "Host": "127.0.0.1:6712", "Role": "Leader", "State": '
    '"running", "TL": 2}, {"Cluster": "demo", "Member": "c", "Host": "127.0.0.1:6713", "Role": "Sync Standby", '
    '"State": "running", "TL": 1, "Lag in MB": 0, "Tags": {"nofailover": true}}]'
)
CONFIG = """loop_wait: 1
maximum_lag_on_failover: 1048576
pause: true
postgresql:
  parameters:
    fsync: 'off'
  use_pg_rewind: true
synchronous_mode: 'on' # a comment
ttl: 20
"""


def test_members_are_read_out_of_what_patronictl_lists() -> None:
    found = patroni.members_of(LISTED)
    assert [(m["name"], m["role"], m["state"], m["timeline"]) for m in found] == [
        ("a", "replica", "stopping", None),
        ("b", "leader", "running", 2),
        ("c", "sync_standby", "running", 1),
    ]
    assert found[2]["tags"] == {"nofailover": True}
    assert patroni.leader_of(found) == "b"


@pytest.mark.parametrize("text", ["", "Cluster demo", '[{"Member": "a"}]', "[1]"])
def test_what_is_no_list_of_members_is_refused(text: str) -> None:
    with pytest.raises(RecoveryError, match="nobody understands"):
        patroni.members_of(text)


def test_settings_that_decide_are_read_out_of_the_dynamic_configuration() -> None:
    found = patroni.scalars(CONFIG)
    assert found["pause"] == "true"
    assert found["synchronous_mode"] == "on"
    assert "fsync" not in found
    assert "postgresql" not in found


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (
            ["/usr/bin/python3", "/usr/bin/patroni", "/etc/patroni/15-main.yml"],
            ("/usr/bin", "/etc/patroni/15-main.yml"),
        ),
        (["/opt/patroni/bin/python", "/opt/patroni/bin/patroni", "my.yml"], ("/opt/patroni/bin", "/srv/my.yml")),
        (["patroni"], ("", "")),
        (["vi", "/etc/patroni"], None),
    ],
)
def test_its_configuration_file_is_that_of_its_process(argv: list[str], found: Optional[tuple[str, str]]) -> None:
    assert patroni.started_by(argv, "/srv") == found


def test_its_configuration_file_is_that_of_its_unit() -> None:
    assert patroni_config("/etc/systemd/system/multi-user.target.wants/patroni.service") == "/etc/patroni/config.yml"
    assert patroni_config("patroni@15-main.service") == "/etc/patroni/15-main.yml"


def member(name: str, role: str = "replica", **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "state": "running", "timeline": 1, "tags": {}, **more}


THREE = [member("a", "leader"), member("b"), member("c")]


def view(name: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "program": "/usr/bin/patronictl",
        "config": "/etc/patroni/config.yml",
        "scope": "demo",
        "member": name,
        "unit": "patroni.service",
        "running": True,
        "unread": "",
        "members": members,
        "settings": {"ttl": "30"},
        "configuration": "0af1",
        "scheduled": "",
    }


PATRONI = {"name": "Patroni", "found": "the process patroni runs", "command": "patronictl"}


def host(name: str, end: str = "0/6000000", listed: Any = None, said: Any = None, **changed: Any) -> dict[str, Any]:
    """What a look at db-``name`` returned, where Patroni calls it ``name``."""
    state = {
        "running": True,
        "answers": True,
        "in_recovery": name != "a",
        "service": "postgresql@15-main",
        "system_identifier": "7711488204033580105",
        "data_directory": "/var/lib/postgresql/15/main",
        "segment_size": 1 << 24,
        "timeline": 1,
        "history": "",
        "end": end,
        "replay_lsn": end,
        "receiver": "streaming",
        "first": "000000010000000000000001",
        "ready": 0,
        "upstream": {"host": "", "port": "5432", "user": "r", "name": name, "slot": name},
        "paused": False,
        "held": False,
        "delay_seconds": 0.0,
        "lacks": [],
        "managers": [PATRONI],
        "patroni": {**view(name, listed or THREE), **(said or {})},
        "archived": {},
        **changed,
    }
    return {"ansible_loop_var": "at", "at": f"db-{name}", "state": state}


DEAD = {"running": False, "answers": False, "in_recovery": None, "synchronous_standby_names": "", "commits": 0}
SWITCHOVER = Wishes(switchover=True)


def planned(*looked: dict[str, Any], wishes: Wishes = SWITCHOVER, known: str = "") -> dict[str, Any]:
    return plan(looked, "db-a", wishes, Known(known))


def test_a_switchover_is_asked_of_patroni_and_nothing_else_is_done() -> None:
    found = planned(host("b"), host("c"), host("a"))
    assert found["candidate"] == "db-b"
    assert (found["bring"], found["followers"], found["promoted"]) == ([], [], False)
    assert found["patroni"]["followers"] == ["a", "c"]
    command = "/usr/bin/patronictl -c /etc/patroni/config.yml switchover demo --leader a --candidate b --force"
    assert f"by Patroni, which manages these hosts: {command}" in found["lines"]
    assert located(found, {})["patroni"] == found["patroni"]


def test_a_member_that_the_inventory_does_not_have_is_told() -> None:
    found = planned(*(host(name, listed=[*THREE, member("d")]) for name in "bca"))
    assert found["patroni"]["followers"] == ["a", "c"]
    assert "WARNING: Patroni's member d is none of these hosts, and nothing is known of it" in found["lines"]


@pytest.mark.parametrize(
    ("b", "why"),
    [
        ({"tags": {"nofailover": True}}, "has the tag nofailover: true"),
        ({"tags": {"failover_priority": 0}}, "has the tag failover_priority: 0"),
        ({"tags": {"nostream": True}}, "has the tag nostream: it has only what the archive has"),
        ({"state": "start failed"}, "is start failed, as Patroni says"),
        ({"timeline": 9}, "is on timeline 9, and the leader on 1"),
    ],
)
def test_whom_patroni_would_not_promote_is_no_candidate(b: dict[str, Any], why: str) -> None:
    members = [THREE[0], {**THREE[1], **b}, THREE[2]]
    found = planned(*(host(name, listed=members) for name in "bca"))
    assert found["candidate"] == "db-c"
    assert found["others"]["db-b"] == why


def test_only_a_synchronous_one_is_promoted_where_patroni_wants_that() -> None:
    members = [THREE[0], member("b", tags={"nosync": True}), member("c", "sync_standby")]
    said = {"settings": {"synchronous_mode": "true"}}
    found = planned(*(host(name, listed=members, said=said) for name in "bca"))
    assert found["candidate"] == "db-c"
    assert found["others"]["db-b"] == "is not synchronous (tag nosync), and synchronous_mode is on"


def test_a_delayed_member_and_a_host_without_patroni_are_no_candidates() -> None:
    bare = host("d", managers=[])
    del bare["state"]["patroni"]
    found = planned(host("b", delay_seconds=3600.0), host("c"), bare, host("a"))
    assert found["candidate"] == "db-c"
    assert "delayed by" in found["others"]["db-b"]
    assert found["others"]["db-d"] == "is none of Patroni's, which alone promotes here"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"settings": {"pause": "true"}}, r"maintenance mode .*: /usr/bin/patronictl -c \S+ resume demo --wait$"),
        ({"scheduled": "2099-01-01T00:00:00+00:00"}, r"scheduled a switchover .* flush demo switchover$"),
        ({"members": [], "unread": "etcd is gone"}, r"cannot be asked \(db-a: etcd is gone;.* list demo$"),
        ({"members": [member("a", "standby_leader"), *THREE[1:]]}, r"is a standby cluster .* edit-config demo$"),
    ],
)
def test_what_patroni_is_not_ready_for_is_refused_with_its_command(said: dict[str, Any], why: str) -> None:
    with pytest.raises(RecoveryError, match=why):
        planned(*(host(name, said=said) for name in "bca"))


def test_a_mixture_of_managers_is_one_refusal() -> None:
    other = {"name": "keepalived", "found": "x", "command": "y"}
    with pytest.raises(RecoveryError, match="more than one program .*Patroni on db-.* and keepalived on db-c"):
        planned(host("b"), host("c", managers=[other]), host("a"))


def test_hosts_of_different_scopes_are_refused() -> None:
    with pytest.raises(RecoveryError, match="their scopes: db-a demo, db-b demo, db-c other"):
        planned(host("b"), host("c", said={"scope": "other"}), host("a"))


def test_a_leader_that_changes_at_this_moment_is_waited_for() -> None:
    other = [member("a"), member("b", "leader"), member("c")]
    with pytest.raises(RecoveryError, match=r"changing its leader at this moment \(a and b\)"):
        planned(host("b"), host("c", listed=other), host("a"))


def test_a_server_that_writes_beside_patronis_leader_is_told_at_once() -> None:
    members = [member("b", "leader", timeline=2), member("c", timeline=2)]
    led = host("b", listed=members, in_recovery=False, timeline=2)
    old = host("a", listed=members, said={"running": False})
    with pytest.raises(
        RecoveryError, match=r"db-a takes writes on timeline 1, and Patroni takes b for the leader.*start"
    ):
        planned(led, host("c", listed=members), old)


def test_a_dead_leader_is_replaced_and_its_disk_says_what_is_lost() -> None:
    same = planned(host("b"), host("c"), host("a", **DEAD), wishes=Wishes())
    assert same["loss"]["exact"]
    assert "failover demo --candidate b --force" in same["lines"][3]
    more = host("a", "0/6000500", **{**DEAD, "commits": 3, "read_from": "0/6000000"})
    with pytest.raises(
        RecoveryError, match=r"at most 3 transactions, .* on the disk of db-a alone.*systemctl start patroni"
    ):
        planned(host("b"), host("c"), more, wishes=Wishes())
    agreed = planned(host("b"), host("c"), more, wishes=Wishes(accept_loss=True))
    lost = left_to_do(agreed, located(agreed, {}), {}, "0/6000000")[0]
    assert lost["lost"]


def test_a_leader_that_nobody_can_reach_may_live() -> None:
    gone = {"ansible_loop_var": "at", "at": "db-a", "unreachable": True, "msg": "Connection timed out"}
    wishes = Wishes(fenced=True, accept_loss=True)
    with pytest.raises(RecoveryError, match=r"leader a is on no host that could be.*again in 30 s"):
        planned(host("b"), host("c"), gone, wishes=wishes)
    expired = THREE[1:]
    found = planned(host("b", listed=expired), host("c", listed=expired), gone, wishes=wishes)
    assert (found["candidate"], found["patroni"]["leader"]) == ("db-b", "")


def test_what_patroni_has_done_by_itself_is_gone_on_with() -> None:
    members = [member("b", "leader", timeline=2), member("c", timeline=2)]
    history = "1\t0/6000000\tno recovery target specified\n"
    led = host("b", "0/7000000", listed=members, in_recovery=False, timeline=2, history=history)
    found = planned(led, host("c", listed=members), host("a", listed=members, **DEAD), wishes=Wishes())
    assert (found["promoted"], found["candidate"], found["timeline"], found["end"]) == (True, "db-b", 1, "0/6000000")
    assert found["loss"]["exact"]
    assert "nothing is asked of Patroni" in found["lines"][2]


def test_a_tag_that_is_gone_is_said() -> None:
    before = planned(host("b"), host("c"), host("a"))["patroni"]
    assert changes(before, before) == []
    tagged = {**before, "members": [member("a", tags={"nofailover": True}), *THREE[1:]]}
    assert changes(tagged, before) == ["a had nofailover: true, and has no tags"]
    assert "show-config demo" in changes(before, {**before, "configuration": "ffff"})[0]


def test_who_is_not_back_is_left_to_people_with_the_command() -> None:
    found = planned(host("b"), host("c"), host("a", said={"running": False}, **DEAD), wishes=Wishes())
    missing = {"missing": [{"member": "c", "why": "is start failed"}]}
    entries = left_to_do(found, located(found, {}), missing, "0/6000000", inventory="-i hosts")
    assert "patronictl -c /etc/patroni/config.yml reinit demo c --force" in entries[0]["command"]
    assert entries[1]["command"].endswith("name=patroni.service state=started'")
    assert "-i hosts db-a" in entries[1]["command"]
