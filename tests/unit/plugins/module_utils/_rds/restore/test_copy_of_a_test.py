# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of a restore test on AWS: removed where it is known to be one, and never called gone where it is not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import tag_list
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import Provenance
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_copy import EXPIRES, Copy
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

TEST, OTHER = "verify-shop-20261125T031200Z", "verify-shop-20261124T031200Z"


def shown(test: str = TEST, hours: float = 1, **changes: Any) -> dict[str, Any]:
    origin = Provenance("shop", "db-SHOP", "2026-11-25T03:11:59+00:00", "shop-dbre-verify", test, True)
    expires = (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat()
    found = {
        "DBInstanceIdentifier": "shop-dbre-verify",
        "DbiResourceId": "db-COPY",
        "DBInstanceStatus": "available",
        "TagList": tag_list({**origin.tags(), EXPIRES: expires}),
        **changes,
    }
    return {"DBInstances": [found]}


@pytest.fixture
def copy(aws: ScriptedAws) -> Copy:
    aws.script("DescribeDBParameterGroups", {"DBParameterGroups": []})
    aws.script("DescribeDBInstanceAutomatedBackups", {"DBInstanceAutomatedBackups": []})
    aws.script("DescribeDBSnapshots", {"DBSnapshots": []})
    aws.script("DeleteDBInstance", {"DBInstance": {}})
    return Copy(INSTANCE, "shop", aws.rds(), lambda region: aws.rds())


def test_a_copy_that_is_gone_with_all_that_belongs_to_it_leaves_nothing(
    aws: ScriptedAws, copy: Copy, waiting: Waiting
) -> None:
    aws.script("DescribeDBInstances", shown(), shown(), {"DBInstances": []})
    assert copy.remove(TEST, waiting)["left"] == []
    assert aws.called("DeleteDBInstance")[0]["SkipFinalSnapshot"] is True


def test_what_aws_keeps_of_a_copy_is_told(aws: ScriptedAws, copy: Copy, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown(), shown(), {"DBInstances": []})
    kept = {"DBSnapshotIdentifier": "awsbackup:job-1", "DBInstanceIdentifier": "shop-dbre-verify"}
    aws.script("DescribeDBSnapshots", {"DBSnapshots": [{**kept, "DbiResourceId": "db-COPY"}]})
    assert copy.remove(TEST, waiting)["left"] == ["snapshot awsbackup:job-1 of shop-dbre-verify is kept"]


@pytest.mark.parametrize("found", [shown(OTHER), shown(TagList=[])])
def test_what_is_not_known_to_be_of_this_test_is_neither_removed_nor_called_gone(
    aws: ScriptedAws, copy: Copy, waiting: Waiting, found: dict[str, Any]
) -> None:
    aws.script("DescribeDBInstances", found)
    (left,) = copy.remove(TEST, waiting)["left"]
    assert "shop-dbre-verify is there" in left
    assert aws.written() == []


def test_only_what_is_over_is_removed_of_an_earlier_test(aws: ScriptedAws, copy: Copy, waiting: Waiting) -> None:
    for found, dead in ((shown(OTHER), []), (shown("drop1"), ["drop1"]), (shown(TagList=[]), [])):
        aws.script("DescribeDBInstances", found)
        with pytest.raises(RecoveryError, match="was not touched") as error:
            copy.clear(dead, waiting)
        assert error.value.details["code"] == "COPY_IN_THE_WAY"
    assert aws.written() == []
    for found, dead in ((shown(OTHER), [OTHER]), (shown(OTHER, hours=-1), [])):
        aws.script("DescribeDBInstances", found, found, {"DBInstances": []})
        assert copy.clear(dead, waiting) == [f"shop-dbre-verify, which {OTHER} left, is removed"]
    assert aws.written() == ["DeleteDBInstance", "DeleteDBInstance"]
