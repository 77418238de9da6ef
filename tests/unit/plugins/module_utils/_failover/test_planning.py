# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole plan of a failover, out of what tasks on all hosts returned."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import diverged_of, left_to_do
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.logical import subscribed_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import Known, located, plan

SEGMENT = 1 << 24


def state(end: Optional[str], **changes: Any) -> dict[str, Any]:
    return {
        "running": True,
        "answers": True,
        "in_recovery": True,
        "stands_by": True,
        "service": "postgresql@17-main",
        "system_identifier": "7711488204033580105",
        "data_directory": "/var/lib/postgresql/17/main",
        "segment_size": SEGMENT,
        "timeline": 1,
        "history": "",
        "end": end,
        "first": "000000010000000000000001",
        "replay_time": "2026-11-23T18:00:00+00:00",
        "upstream": {"host": "db1", "port": "5432", "user": "dbre_db2", "name": "dbre_db2", "slot": "dbre_db2"},
        "paused": False,
        "held": False,
        "delay_seconds": 0.0,
        "lacks": [],
        "managers": [],
        "archived": {},
        **changes,
    }


DEAD = {"running": False, "answers": False, "in_recovery": None, "synchronous_standby_names": ""}


def seen(host: str, end: Optional[str], **changes: Any) -> dict[str, Any]:
    return {"ansible_loop_var": "at", "at": host, "state": state(end, **changes)}


def gone(host: str) -> dict[str, Any]:
    return {"ansible_loop_var": "at", "at": host, "unreachable": True, "msg": "Connection timed\nout"}


NO_WISHES, NOTHING_KNOWN = Wishes(), Known()


def planned(*looked: dict[str, Any], wishes: Wishes = NO_WISHES, known: Known = NOTHING_KNOWN) -> dict[str, Any]:
    return plan(looked, "db1", wishes, known)


def test_what_only_the_dead_disk_has_is_brought_to_the_best_standby() -> None:
    found = planned(seen("db2", "0/5FFFF00"), seen("db3", "0/5000000"), seen("db1", "0/6000500", **DEAD))
    assert found["candidate"] == "db2"
    wal = "/var/lib/postgresql/17/main/pg_wal"
    assert [(file["host"], file["path"]) for file in found["bring"]] == [
        ("db1", f"{wal}/000000010000000000000005"),
        ("db1", f"{wal}/000000010000000000000006"),
    ]
    assert [follower["host"] for follower in found["followers"]] == ["db3"]
    assert any("are taken from db1 before it is promoted" in line for line in found["lines"])
    assert found["lines"][-1].startswith("lost: nothing that was committed")


def test_a_primary_that_lives_is_refused_until_this_incident_has_shut_it_off() -> None:
    alive = seen("db1", "0/6000500", in_recovery=False, synchronous_standby_names="")
    with pytest.raises(RecoveryError, match="nothing is promoted beside it"):
        planned(seen("db2", "0/6000400"), alive)
    assert planned(seen("db2", "0/6000400"), alive, known=Known(off=True))["candidate"] == "db2"


def test_one_that_cannot_be_reached_needs_a_word_on_its_being_off_and_one_on_the_loss() -> None:
    everybody = seen("db2", "0/6000400"), gone("db1")
    with pytest.raises(RecoveryError, match="dr_fenced=yes.* And: .*dr_accept_loss=yes"):
        planned(*everybody)
    with pytest.raises(RecoveryError, match="dr_accept_loss=yes"):
        planned(*everybody, wishes=Wishes(fenced=True))
    found = planned(*everybody, wishes=Wishes(fenced=True, accept_loss=True))
    assert found["lines"][0].startswith("db1, the primary, cannot be reached (Connection timed out)")
    assert "lost: UNKNOWN" in found["lines"][-1]
    report = located(found, {"end": "0/6000400"})
    assert report["lost"]["transactions"] is None
    left = left_to_do(found, report, {}, "0/6000400")
    assert [entry["what"] for entry in left if entry.get("lost")] == ["the last transactions of db1"]
    assert "postgresql_old_primary -a 'fork_lsn=0/6000400 timeline=1" in left[1]["command"]


def test_what_only_the_old_primary_had_is_counted_and_kept_until_it_is_removed() -> None:
    found = planned(seen("db2", "0/6000400"), seen("db3", "0/6000300"), seen("db1", "0/6000400", **DEAD))
    report = located(found, {"end": "0/6000400"})
    own = {"commits": 2, "bytes": 600, "transactions": [{"xid": 740, "time": "2026-11-23T18:00:00+00:00", "rows": {}}]}
    last_words = {"way": "restore", "kept": "/kept", "own": own}
    left = left_to_do(found, report, last_words, "0/6000400")
    assert [entry["what"] for entry in left if entry.get("lost")] == ["2 transactions that only db1 had"]
    assert left[0]["command"].endswith("'path=/kept state=absent'")
    assert "They left no row" in left[0]["reason"]
    own["rows"] = [
        {"database": "shop", "schema": "public", "table": f"t{i}", "rows": i, "file": "x"} for i in range(1, 13)
    ]
    (lost, *_others) = left_to_do(found, report, last_words, "0/6000400")
    assert "in /kept/rows, one CSV file a table: 1 row of shop.public.t1, 2 rows of shop.public.t2," in lost["reason"]
    assert "shop.public.t10 and of 2 more tables" in lost["reason"]
    own["unread"] = "the old primary's server does not start once more: FATAL"
    assert (
        "a backup from before, restored with this WAL, has them"
        in left_to_do(found, report, last_words, "0/1")[0]["reason"]
    )
    told = left_to_do(found, report, last_words, "0/6000400", inventory="-i a.yml -i 'b c'")
    assert all(
        entry["command"].split(" ", 1)[1].startswith("-i a.yml -i 'b c' ") for entry in told if "command" in entry
    )
    nothing = left_to_do(found, report, {"way": "rejoin", "kept": "", "own": {}}, "0/6000400")
    assert [entry["what"] for entry in nothing if entry.get("lost") or "db1 a standby" in entry["what"]] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # Somebody has promoted a copy apart, and archives under the same stanza.
        (
            {"archived": {"2": "1\t0/5000000\tno recovery target specified\n"}},
            "00000002.history, of a timeline that left",
        ),
        # A promotion to the same number, elsewhere.
        (
            {
                "timeline": 2,
                "history": "1\t0/5000000\tno recovery target specified\n",
                "archived": {"2": "1\t0/4000000\tno recovery target specified\n"},
            },
            "00000002.history",
        ),
    ],
)
def test_a_timeline_of_others_in_the_archive_stops_it(changes: dict[str, Any], words: str) -> None:
    dead = {**DEAD, **{key: value for key, value in changes.items() if key != "archived"}}
    with pytest.raises(RecoveryError, match="is not that of db2") as error:
        planned(seen("db2", "0/6000400", **changes), seen("db1", "0/6000400", **dead))
    assert words in error.value.msg


def test_its_own_timeline_in_the_archive_is_none_of_others() -> None:
    history = "1\t0/5000000\tno recovery target specified\n"
    own = {"timeline": 2, "history": history}
    found = planned(
        seen("db2", "0/6000400", archived={"2": history}, **own), seen("db1", "0/6000400", **{**DEAD, **own})
    )
    assert (found["candidate"], found["timeline"]) == ("db2", 2)


def test_one_that_this_incident_has_promoted_is_gone_on_with_and_any_other_refused() -> None:
    new = seen("db2", "0/7000000", in_recovery=False, timeline=2, history="1\t0/6000400\tx\n")
    looked = new, seen("db3", "0/6000400"), seen("db1", "0/6000400", **DEAD)
    assert planned(*looked, known=Known(candidate="db2"))["promoted"]
    with pytest.raises(RecoveryError, match="is the primary already"):
        planned(*looked)


def test_standbys_that_were_cut_off_are_known_by_whom_they_followed() -> None:
    """By its name a standby is known to synchronous_standby_names, and cut off it does not tell that name any more."""
    nobody = {"host": "", "port": "", "user": "", "name": "17/main", "slot": "dbre_db2"}
    sync = {**DEAD, "synchronous_standby_names": "dbre_db2", "synchronous_commit": "on"}
    cut = seen("db2", "0/6000400", upstream=nobody), seen("db1", None, **sync)
    before = {"db2": {"host": "db1", "port": "5432", "user": "dbre_db2", "name": "dbre_db2", "slot": "dbre_db2"}}
    with pytest.raises(RecoveryError, match="dr_accept_loss"):
        planned(*cut, wishes=Wishes(fenced=True))
    assert planned(*cut, wishes=Wishes(fenced=True), known=Known(upstreams=before))["acknowledged"]["verdict"] == "all"


def test_what_could_not_be_brought_is_said_to_be_lost() -> None:
    found = planned(seen("db2", "0/6000400"), seen("db1", "0/6000500", **DEAD))
    whole = located(found, {"end": "0/6000500", "commits": 3, "taken": {"db1": 1}})
    assert (whole["lsn"], whole["lost"]["transactions"]) == ("0/6000500", 0)
    part = located(found, {"end": "0/6000400", "taken": {}})
    assert part["lost"]["transactions"] is None
    assert "256 bytes could not be brought" in part["lost"]["why"]


def test_a_standby_that_went_another_way_is_to_be_rebuilt_and_the_command_names_it() -> None:
    left = {"timeline": 1, "fork": "0/6000400", "replayed": "0/7000000"}
    diverged = diverged_of(
        [{"ansible_loop_var": "at", "at": "db3", "left": left}, {"ansible_loop_var": "at", "at": "db4", "left": None}]
    )
    found = planned(seen("db2", "0/6000400"), seen("db1", "0/6000400", **DEAD))
    whole = located(found, {"end": "0/6000400", "taken": {}})
    entry = left_to_do(found, whole, {"way": "follows"}, "0/6000400", diverged)[-1]
    assert (entry["what"], entry.get("lost")) == ("Rebuild db3, which is no standby of db2", None)
    assert (
        "-e provision_standby=db3 -e postgresql_standby_primary=db2 -e postgresql_standby_rebuild=true"
        in (entry["command"])
    )


LIVING = {"in_recovery": False, "synchronous_standby_names": "", "ready": 1, "cluster_state": "in production"}
SWITCH = Wishes(switchover=True)


def test_a_primary_that_lives_exchanges_its_place_on_purpose_only() -> None:
    db2 = seen("db2", "0/6000400", receiver="streaming", replay_lsn="0/6000400")
    old = seen("db1", "0/6000500", **LIVING)
    with pytest.raises(RecoveryError, match="dr_switchover=yes"):
        planned(db2, old)
    found = planned(db2, old, wishes=SWITCH)
    assert (found["candidate"], found["clean"], found["loss"]["exact"]) == ("db2", False, True)
    assert "clients of PgBouncer wait" in found["lines"][0]
    # Shut down, and everything is on the standby.
    stopped = seen("db1", "0/6000600", **{**DEAD, "cluster_state": "shut down"})
    at_end = seen("db2", "0/6000600", replay_lsn="0/6000600")
    assert planned(at_end, stopped, wishes=SWITCH, known=Known(off=True))["clean"]
    assert not planned(db2, stopped, wishes=SWITCH, known=Known(off=True))["clean"]


@pytest.mark.parametrize(
    ("standby", "primary", "words"),
    [
        ({}, {"ready": 9}, "9 segments of WAL wait to be archived on db1"),
        ({"replay_lsn": "0/1000000"}, {}, "db2 has 83.9 MB of WAL to replay"),
        ({"receiver": None}, {}, "db2 does not stream"),
        ({}, {"running": False, "answers": False, "in_recovery": None}, "leave dr_switchover out"),
        ({}, {"in_recovery": True}, "db1 is a standby"),
    ],
)
def test_a_switchover_that_would_make_clients_wait_is_refused(
    standby: dict[str, Any], primary: dict[str, Any], words: str
) -> None:
    db2 = seen("db2", "0/6000400", **{"receiver": "streaming", "replay_lsn": "0/6000400", **standby})
    with pytest.raises(RecoveryError, match=words):
        planned(db2, seen("db1", "0/6000500", **{**LIVING, **primary}), wishes=SWITCH)


def test_in_a_switchover_the_inventory_says_who_comes_first_and_a_moments_difference_does_not() -> None:
    streams = {"receiver": "streaming", "replay_lsn": "0/6000300"}
    first, second = seen("db2", "0/6000300", **streams), seen("db3", "0/6000400", **streams)
    old = seen("db1", "0/6000500", **LIVING)
    found = planned(first, second, old, wishes=SWITCH)
    assert (found["candidate"], "comes first in the inventory" in found["reason"]) == ("db2", True)
    late = seen("db2", "0/2000000", **streams)
    assert planned(late, second, old, wishes=SWITCH)["candidate"] == "db3"
    dead = seen("db1", "0/6000500", **DEAD)
    assert planned(first, second, dead)["candidate"] == "db3"


def test_of_a_primary_that_was_shut_down_in_order_nothing_is_to_be_brought() -> None:
    stopped = seen("db1", "0/6000600", **{**DEAD, "cluster_state": "shut down"})
    found = planned(seen("db2", "0/6000600", replay_lsn="0/6000600"), stopped)
    whole = located(found, {})
    assert (found["clean"], whole["lsn"], whole["lost"]["transactions"]) == (True, "0/6000600", 0)


def slot(name: str, **changes: Any) -> dict[str, Any]:
    usual = {"kind": "logical", "active": True, "lost": False, "usable": False, "temporary": False}
    return {"name": name, **usual, **changes}


def test_a_subscriber_whose_slot_the_new_primary_lacks_is_told_and_no_verdict_hides_it() -> None:
    theirs = [
        slot("shop"),
        slot("till"),
        slot("moved", temporary=True),
        slot("dead", lost=True),
        slot("dbre_db2", kind="physical"),
    ]
    mine = [slot("till", usable=True), slot("of_its_own")]
    found = planned(seen("db2", "0/5000000", slots=mine), seen("db1", "0/5000000", **DEAD, slots=theirs))
    assert found["logical"] == [{"name": "shop", "kept": False}, {"name": "till", "kept": True}]
    said = "\n".join(found["lines"])
    assert "WARNING: logical slot shop of db1 is not on db2" in said
    assert "logical slot till is on db2, too" in said
    left = left_to_do(found, located(found, {}), {"way": "rejoin"}, "0/5000000")
    assert [(one["what"], one.get("lost")) for one in left if "slot" in one["what"]] == [
        ("logical replication slot shop, and so what its consumer had not got yet", True),
        ("Lead the consumer of logical slot till to db2", None),
    ]
    assert "remote_lsn" not in str(left), "nothing was lost, so that it cannot be beyond"


def test_what_became_of_subscriptions_is_told_one_by_one() -> None:
    slots = [slot(name, usable=True) for name in ("till", "ahead", "far", "other")]
    found = planned(seen("db2", "0/5000000", slots=slots), seen("db1", "0/5000000", **DEAD, slots=slots))
    of = {"database": "reports", "remote_lsn": "0/4000000", "left": ""}
    results = [
        {
            "ansible_loop_var": "at",
            "at": "report1",
            "subscriptions": [
                {**of, "name": "till", "slot": "till"},
                {**of, "name": "ahead", "slot": "ahead", "remote_lsn": "0/6000000", "left": "it has rows"},
                {**of, "name": "far", "slot": "far", "left": "it is disabled"},
            ],
        },
        gone("report2"),
    ]
    left = left_to_do(found, located(found, {}), {"way": "rejoin"}, "0/5000000", subscribed=subscribed_of(results))
    assert [(one["what"], one.get("lost")) for one in left[-4:]] == [
        ("subscription ahead of database reports on report1, which has more than db2", True),
        ("Lead subscription far of database reports on report1 to db2", None),
        ("Lead the consumer of logical slot other to db2", None),
        ("Look at report2, which subscribes to db1", None),
    ]
    assert "Connection timed out" in left[-1]["reason"]


def test_a_slot_that_only_its_subscriber_knows_of_is_missing_all_the_same() -> None:
    wishes = Wishes(fenced=True, accept_loss=True)
    found = planned(seen("db2", "0/5000000"), gone("db1"), wishes=wishes)
    assert found["logical"] == []
    of = {
        "host": "report1",
        "database": "reports",
        "remote_lsn": "0/4000000",
        "left": "db2 does not have its slot shop",
    }
    subscribed = [{**of, "name": "shop", "slot": "shop"}]
    left = left_to_do(found, located(found, {}), {}, "0/5000028", subscribed=subscribed)
    assert [one["what"] for one in left if one.get("lost")][-1].startswith("logical replication slot shop")


def test_of_a_disk_that_cannot_be_read_it_is_said_that_other_slots_are_not_known() -> None:
    wishes = Wishes(fenced=True, accept_loss=True)
    found = planned(seen("db2", "0/5000000", slots=[slot("till", usable=True)]), gone("db1"), wishes=wishes)
    assert found["logical"] == [{"name": "till", "kept": True}]
    assert "which other logical slots db1 had is not known; their consumers have to begin anew" in found["lines"]
    (entry,) = [one for one in left_to_do(found, located(found, {}), {}, "0/5000028") if "slot" in one["what"]]
    assert "remote_lsn in pg_replication_origin_status on the subscriber is higher than 0/5000028" in entry["reason"]
