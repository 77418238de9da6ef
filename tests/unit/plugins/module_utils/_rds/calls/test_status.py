# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_cluster, look_at_instance


@pytest.mark.parametrize(
    "status", ["available", "storage-config-upgrade", "storage-initialization", "storage-optimization"]
)
def test_a_database_whose_storage_is_worked_on_can_be_used(status: str) -> None:
    assert look_at_instance({"DBInstanceStatus": status, "Endpoint": {"Address": "shop.x"}}, "shop").done
    assert look_at_cluster({"Status": status, "Endpoint": "shop.cluster-x"}, "shop").done


@pytest.mark.parametrize("status", ["available", "backing-up"])
def test_a_database_without_an_address_or_under_work_cannot_be_used(status: str) -> None:
    assert not look_at_instance({"DBInstanceStatus": status}, "shop").done
    assert not look_at_instance({"DBInstanceStatus": "backing-up", "Endpoint": {"Address": "shop.x"}}, "shop").done
