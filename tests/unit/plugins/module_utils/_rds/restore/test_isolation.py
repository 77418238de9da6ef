# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.filter.rds_endpoint import rds_endpoint
from ansible_collections.dbre.recovery.plugins.filter.rds_isolation import rds_isolation

INSTANCE = {"db_parameter_group_name": "own"}
CLUSTER = {"db_cluster_parameter_group_name": "own"}
ALONE = {"deletion_protection": False, "associated_roles": []}


@pytest.mark.parametrize(
    ("takes_over", "engine", "settings"),
    [
        (False, "postgres", {**INSTANCE, **ALONE, "backup_retention_period": 0, "multi_az": False}),
        (True, "postgres", {**INSTANCE, "backup_retention_period": 0}),
        (False, "aurora-postgresql", {**CLUSTER, **ALONE, "backup_retention_period": 1, "members": [{}]}),
        (True, "aurora-postgresql", CLUSTER),
    ],
)
def test_an_isolated_copy_has_its_own_parameters_and_what_it_needs(
    takes_over: bool, engine: str, settings: dict[str, Any]
) -> None:
    found = rds_isolation("own", True, takes_over, "shop" if "aurora" in engine else "", engine)
    assert found["settings"] == settings
    assert found["notes"][0].startswith("no subscription and no scheduled job of the source comes to life there")
    assert ("deleted when what was lost is back and was compared" in found["notes"]) is not takes_over


def test_a_multi_az_cluster_has_its_members_by_itself() -> None:
    assert "members" not in rds_isolation("own", True, False, "shop", "postgres")["settings"]


def test_what_serves_at_once_is_restored_as_its_source_is() -> None:
    found = rds_isolation("own", False, False, "", "postgres")
    assert found["settings"] == {}
    assert found["notes"][0] == "restored with all settings of the source"
    later = rds_isolation("own", True, True, "", "postgres")["notes"]
    assert later[1] == "restored with all settings of the source, backups from when it has taken over"


def test_an_instance_a_cluster_and_one_that_is_not_there_yet_are_reached_where_aws_says() -> None:
    assert rds_endpoint({"Endpoint": {"Address": "a", "Port": 5433}}) == {"host": "a", "port": 5433}
    assert rds_endpoint({"Endpoint": "c", "Port": 5434}) == {"host": "c", "port": 5434}
    assert rds_endpoint({}) == {"host": "", "port": 5432}
