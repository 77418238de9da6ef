# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import tag_list
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.beside import copies_beside
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import Provenance
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

MADE = datetime(2026, 11, 1, tzinfo=timezone.utc)


def tags(name: str, incident: str = "theirs") -> list[dict[str, str]]:
    return tag_list(Provenance("shop", "db-SHOP", "2026-11-01T00:00:00+00:00", name, incident, True).tags())


def copy(name: str, **changes: Any) -> dict[str, Any]:
    group = {"DBParameterGroupName": f"{name}-isolated"}
    known = {"DBInstanceIdentifier": name, "InstanceCreateTime": MADE, "DBParameterGroups": [group]}
    found = {**known, "TagList": tags(name), **changes}
    return {key: value for key, value in found.items() if value is not None}


def test_only_isolated_copies_of_others_that_have_their_name_still_are_told(aws: ScriptedAws) -> None:
    aws.script(
        "DescribeDBInstances",
        {
            "DBInstances": [
                copy("younger", InstanceCreateTime=MADE.replace(day=2)),
                copy("side"),
                copy("mine", TagList=tags("mine", "mine")),
                copy("renamed", TagList=tags("renamed-dr-7")),
                copy("serving", DBParameterGroups=[{"DBParameterGroupName": "shop-params"}]),
                copy("for-nothing", TagList=tags("for-nothing", "")),
                copy("no-copy", TagList=[]),
                copy("in-the-making", InstanceCreateTime=None),
            ]
        },
    )
    found = copies_beside(INSTANCE, aws.rds(), "mine", {"region": "eu-central-1"})
    assert [item["path"] for item in found] == ["side", "younger"]
    assert found[0] == {
        "incident": "theirs",
        "path": "side",
        "created": "2026-11-01T00:00:00+00:00",
        "remove": "ansible localhost -m dbre.recovery.rds_restore -a "
        "'db_instance_identifier=side incident=theirs state=absent region=eu-central-1'",
    }


def test_a_cluster_is_told_by_its_own_group(aws: ScriptedAws) -> None:
    known = {"DBClusterIdentifier": "side", "ClusterCreateTime": MADE, "TagList": tags("side")}
    isolated = {**known, "DBClusterParameterGroup": "side-isolated"}
    aws.script("DescribeDBClusters", {"DBClusters": [isolated, {**known, "DBClusterParameterGroup": "shop-params"}]})
    (found,) = copies_beside(CLUSTER, aws.rds(), "mine", {})
    assert "db_cluster_identifier=side" in found["remove"]
