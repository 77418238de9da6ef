# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of dr-rds-corruption, on databases that hold real rows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloud import ABANDON, MASTER, PASSWORD, PLANTED, Cloud
from relay import Relay, relay

CORRUPTION = "dbre.recovery.dr_rds_corruption"


@pytest.fixture(scope="module")
def cloud(emulated_rds: Any, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(emulated_rds, tmp_path_factory.mktemp("operator"))


KEPT = (
    "DBInstanceClass",
    "MultiAZ",
    "DeletionProtection",
    "CopyTagsToSnapshot",
    "BackupRetentionPeriod",
    "PreferredMaintenanceWindow",
    "PreferredBackupWindow",
    "VpcSecurityGroups",
    "TagList",
    "AutoMinorVersionUpgrade",
    "PubliclyAccessible",
)


def _migrate_badly(cloud: Cloud, identifier: str) -> Any:
    """Wrong totals everywhere, while all definitions stay as they are; the moment just before."""
    time.sleep(2.1)
    moment = cloud.now(identifier)
    time.sleep(1.1)
    cloud.sql(identifier, "UPDATE public.orders SET total = 0")
    time.sleep(3)
    return moment


@pytest.fixture(scope="module")
def web(cloud: Cloud) -> str:
    """A Multi-AZ instance."""
    cloud.make_shop("web", MultiAZ=True)
    return "web"


@pytest.fixture
def slow_name(cloud: Cloud) -> Iterator[Relay]:
    """A name for the instance web which, after each swap, leads to the one that was web for eight seconds more."""
    since: dict[str, float] = {}

    def lead() -> str:
        present = cloud.identifiers()
        for kept in ("web-before-undo1", "web-before-migration1"):
            if kept in present and time.monotonic() < since.setdefault(kept, time.monotonic()) + 8:
                return kept
        return "web"

    with relay(lead, cloud.endpoint) as name:
        yield name


def test_a_login_host_of_another_database_is_refused(cloud: Cloud, web: str) -> None:
    stranger = cloud.emulated.create("stranger", MasterUsername=MASTER, MasterUserPassword=PASSWORD)["Endpoint"]
    before = cloud.world()
    run = cloud.play(
        CORRUPTION,
        web,
        "-vvv",
        host={"rds_login_host": stranger["Address"], "rds_login_port": stranger["Port"]},
        dr_database="shop",
        dr_target_time=(datetime.now(timezone.utc) - timedelta(seconds=2)).isoformat(),
        dr_incident_id="stranger1",
    )
    assert run.rc != 0
    assert f"port {stranger['Port']} (rds_login_host), is not seen to lead to {web}:" in run.output
    assert cloud.world() == before


@pytest.mark.whole
def test_a_restore_that_undoes_nothing_is_not_swapped_in(cloud: Cloud, web: str) -> None:
    time.sleep(2.1)
    moment = cloud.now(web)
    before = cloud.instance(web)["DbiResourceId"]
    given = {"dr_database": "shop", "dr_target_time": moment.isoformat(), "dr_incident_id": "nothing1"}
    run = cloud.play(CORRUPTION, web, dr_contain="read_only", **given)
    assert run.rc != 0
    assert "it would undo no damage" in " ".join(run.output.split())
    assert cloud.instance(web)["DbiResourceId"] == before
    assert cloud.sql(web, "SHOW default_transaction_read_only") == [("off",)], "applications may write again"
    words = " ".join(run.output.split())
    assert f"(To give it up instead: delete the side instance {web}-dr-nothing1." in words
    assert re.search(
        r"ansible-playbook -i \S+ dbre.recovery.dr_abandon -e dr_incident_id=nothing1 -e dr_report_dir=", words
    )
    assert f"{web}-dr-nothing1" in cloud.identifiers()
    given_up = cloud.play(ABANDON, web, policy="dr-rds-table-drop", dr_incident_id="nothing1")
    assert given_up.rc == 0, given_up.output
    assert f"Incident nothing1 is given up. {web}-dr-nothing1: removed." in " ".join(given_up.output.split())
    assert f"{web}-dr-nothing1" not in cloud.identifiers()
    groups = [one["DBParameterGroupName"] for one in cloud.api().describe_db_parameter_groups()["DBParameterGroups"]]
    assert [name for name in groups if "nothing1" in name] == []


@pytest.mark.usefixtures("web")
def test_a_bad_migration_is_swapped_away_and_can_be_taken_back(cloud: Cloud, slow_name: Relay) -> None:
    cloud.api().create_db_instance_read_replica(DBInstanceIdentifier="web-read", SourceDBInstanceIdentifier="web")
    old_replica = cloud.wait("web-read")
    original = cloud.wait("web")
    good = cloud.checksum("web", "public.orders")
    moment = _migrate_badly(cloud, "web")
    bad = cloud.checksum("web", "public.orders")
    host = {"rds_login_host": slow_name.host, "rds_login_port": slow_name.port, **cloud.in_secret("web")}
    given: dict[str, Any] = {"dr_database": "shop", "dr_contain": "read_only", "host": host}
    given |= {"dr_target_time": moment.isoformat(), "dr_incident_id": "migration1"}
    cloud.play_killed_in(CORRUPTION, "web", "recover", 3.5, **given)
    run = cloud.play(CORRUPTION, "web", **given)
    assert run.rc == 0, run.output
    serving = cloud.wait("web")
    assert serving["DbiResourceId"] != original["DbiResourceId"]
    assert cloud.checksum("web", "public.orders") == good
    (asked,) = [
        call["parameters"]
        for call in cloud.emulated.calls()
        if call["action"] == "RestoreDBInstanceToPointInTime"
        and call["parameters"]["TargetDBInstanceIdentifier"] == "web-dr-migration1"
    ]
    assert int(asked["BackupRetentionPeriod"]) == 0, "AWS renames nothing while it makes a first backup"
    assert {key: serving.get(key) for key in KEPT[:-3]} == {key: original.get(key) for key in KEPT[:-3]}
    assert "web-before-migration1" in slow_name.led
    assert slow_name.led[-1] == "web", "what was proved is what serves"
    kept = cloud.wait("web-before-migration1")
    assert kept["DbiResourceId"] == original["DbiResourceId"]
    assert kept["DeletionProtection"]
    assert cloud.checksum("web-before-migration1", "public.orders") == bad
    snapshots = cloud.api().describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    assert "web-evidence-migration1" in {snapshot["DBSnapshotIdentifier"] for snapshot in snapshots}
    replica = cloud.wait("web-read")
    assert replica["ReadReplicaSourceDBInstanceIdentifier"] == "web"
    assert cloud.checksum("web-read", "public.orders") == good
    report = cloud.report("migration1")
    assert report["verdict"] == "proved"
    assert report["rpo"]["seconds"] > 0, "what was committed after the target is not in the one that serves"

    assert cloud.sql("web", "SHOW default_transaction_read_only") == [("off",)]
    assert cloud.sql("web-before-migration1", "SHOW default_transaction_read_only") == [("on",)]

    assert serving["DBParameterGroups"][0]["DBParameterGroupName"] == "web-params"
    groups = {
        group["DBParameterGroupName"] for group in cloud.api().describe_db_parameter_groups()["DBParameterGroups"]
    }
    assert not [name for name in groups if "migration1" in name and name.endswith("-isolated")]
    assert cloud.sql("web", "SHOW max_logical_replication_workers") != [("0",)], "its subscriptions work again"
    assert report["isolation"]["proved"], "until it took over, no job and no subscription of production's ran in it"
    told = " ".join(str(item) for item in report["left_to_do"])
    for what in (
        "web-before-migration1",
        "web-read-before-migration1",
        "web-evidence-migration1",
        "dr_undo=migration1",
    ):
        assert what in told

    relative = os.path.relpath(cloud.reports)
    back = cloud.play(
        CORRUPTION,
        "web",
        host=host,
        dr_database="shop",
        dr_undo="migration1",
        dr_incident_id="undo1",
        dr_report_dir=relative,
    )
    assert back.rc == 0, back.output
    assert "web-before-undo1" in slow_name.led
    assert cloud.sql("web", "SHOW default_transaction_read_only") == [("off",)], (
        "the one that serves takes writes again"
    )
    assert cloud.wait("web")["DbiResourceId"] == original["DbiResourceId"]
    assert cloud.checksum("web", "public.orders") == bad
    assert cloud.wait("web-read")["DbiResourceId"] == old_replica["DbiResourceId"]
    assert cloud.report("undo1")["switch"]["outage_seconds"] > 0


@pytest.mark.whole
def test_what_a_killed_run_has_renamed_is_kept_from_writing_when_the_next_goes_on(cloud: Cloud) -> None:
    """The end of the killed run lets applications write, which some may still do to the database that is put aside."""
    cloud.make_shop("stall")
    original = cloud.wait("stall")
    time.sleep(2.1)
    moment = cloud.now("stall")
    time.sleep(1.1)
    cloud.sql("stall", "DROP SCHEMA reports CASCADE")
    time.sleep(2)
    given: dict[str, Any] = {"dr_database": "shop", "dr_contain": "read_only", "dr_incident_id": "renamed1"}
    given["dr_target_time"] = moment.isoformat()
    kept = "stall-before-renamed1"

    def lead() -> str:
        """As DNS does after a renaming: for a while to the one that had the name."""
        return kept if kept in cloud.identifiers() and "stall" not in cloud.identifiers() else "stall"

    with relay(lead, cloud.endpoint) as name:
        given["host"] = {"rds_login_host": name.host, "rds_login_port": name.port, **cloud.in_secret("stall")}
        cloud.play_killed_in(CORRUPTION, "stall", "recover", 0, once=lambda: kept in cloud.identifiers(), **given)
        cloud.wait(kept)
        deadline = time.monotonic() + 30
        while cloud.sql(kept, "SHOW default_transaction_read_only") != [("off",)]:
            assert time.monotonic() < deadline, "the end of the killed run lets applications write"
            time.sleep(0.2)
        run = cloud.play(CORRUPTION, "stall", **given)
    assert run.rc == 0, run.output
    assert cloud.wait("stall")["DbiResourceId"] != original["DbiResourceId"]
    assert cloud.sql("stall", "SHOW default_transaction_read_only") == [("off",)]
    assert cloud.sql(kept, "SHOW default_transaction_read_only") == [("on",)]
    assert f"{kept}, which was put aside" in str(cloud.report("renamed1")["containment"])


@pytest.mark.whole
def test_a_dropped_schema_is_damage_and_a_swap_that_fails_lets_nobody_write_meanwhile(cloud: Cloud) -> None:
    cloud.passwords["till"] = PLANTED.plant("the password at the target", "")
    cloud.make_shop("till", MasterUserPassword=cloud.passwords["till"])
    time.sleep(2.1)
    moment = cloud.now("till")
    time.sleep(1.1)
    cloud.change_password("till", PASSWORD)
    cloud.sql("till", "DROP SCHEMA reports CASCADE; DROP FUNCTION public.stamp() CASCADE")
    # Something that waits for the maintenance window, which a rename would apply as well.
    cloud.api().modify_db_instance(DBInstanceIdentifier="till", DBInstanceClass="db.r6g.xlarge", ApplyImmediately=False)
    time.sleep(2)
    given: dict[str, Any] = {"dr_database": "shop", "dr_contain": "read_only", "dr_incident_id": "schema1"}
    given["dr_target_time"] = moment.isoformat()
    run = cloud.play(CORRUPTION, "till", **given)
    assert run.rc != 0
    assert "has modifications pending" in run.output
    assert "To give it up instead: delete the side instance till-dr-schema1" in run.output
    assert cloud.sql("till", "SHOW default_transaction_read_only") == [("off",)], "applications may write again"
    cloud.api().modify_db_instance(DBInstanceIdentifier="till", ApplyImmediately=True)
    cloud.wait("till")
    run = cloud.play(CORRUPTION, "till", **given)
    assert run.rc == 0, run.output
    assert cloud.sql("till", "SELECT count(*) FROM reports.totals") == [(100,)]
    assert cloud.sql("till", "SELECT pg_is_in_recovery()") == [(False,)], "with the password that production had"
    assert cloud.sql("till-before-schema1", "SHOW default_transaction_read_only") == [("on",)], "contained again"

    cloud.change_password("till-before-schema1", PLANTED.plant("a password nobody told", ""))
    back = cloud.play(CORRUPTION, "till", dr_database="shop", dr_undo="schema1", dr_incident_id="undo3")
    assert back.rc != 0
    assert "--db-instance-identifier till --manage-master-user-password" in " ".join(back.output.split())
    assert "RETRYING" not in back.output, "asking again does not help"
    cloud.change_password("till", PASSWORD)
    back = cloud.play(CORRUPTION, "till", dr_database="shop", dr_undo="schema1", dr_incident_id="undo3")
    assert back.rc == 0, back.output
    assert cloud.sql("till", "SELECT to_regclass('reports.totals')::text") == [(None,)]


@pytest.mark.whole
def test_an_aurora_cluster_goes_back_to_before_a_bad_migration(cloud: Cloud) -> None:
    cloud.make_cluster("orders")
    host = {"rds_cluster": "orders", "rds_login_db": "shop", **cloud.in_secret("cluster-orders")}
    original = cloud.cluster("orders")
    good = cloud.checksum("orders", "public.orders")
    moment = _migrate_badly(cloud, "orders")
    given: dict[str, Any] = {"dr_database": "shop", "dr_target_time": moment.isoformat(), "host": host}
    run = cloud.play(CORRUPTION, "orders", dr_incident_id="migration2", **given)
    assert run.rc == 0, run.output
    serving = cloud.cluster("orders")
    assert serving["DbClusterResourceId"] != original["DbClusterResourceId"]
    assert serving["DBClusterParameterGroup"] == original["DBClusterParameterGroup"]
    assert {member["DBClusterParameterGroupStatus"] for member in serving["DBClusterMembers"]} == {"in-sync"}
    assert cloud.sql("orders", "SHOW max_logical_replication_workers") != [("0",)], "its subscriptions work again"
    assert len(serving["DBClusterMembers"]) == len(original["DBClusterMembers"])
    assert cloud.checksum("orders", "public.orders") == good
    assert cloud.cluster("orders-before-migration2")["DeletionProtection"]
    report = cloud.report("migration2")
    assert (report["verdict"], report["isolation"]["proved"]) == ("proved", True)
    told = " ".join(str(item) for item in report["left_to_do"])
    assert "instance endpoints did not move" in told
    assert "delete-db-cluster-snapshot" in told
    back = cloud.play(CORRUPTION, "orders", host=host, dr_database="shop", dr_undo="migration2", dr_incident_id="undo2")
    assert back.rc == 0, back.output
    assert cloud.cluster("orders")["DbClusterResourceId"] == original["DbClusterResourceId"]


def test_a_policy_allows_no_more_than_is_asked_for(cloud: Cloud) -> None:
    assert cloud.allowed_for_nothing("dr-rds-corruption") == set()
