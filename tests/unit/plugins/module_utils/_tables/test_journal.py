# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose recovery it is that production remembers under the name of an incident."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import is_of_another, require_own

HERE = {"lsn": "0/5000", "time": "2026-11-30T19:00:00+00:00", "timeline": 2}


@pytest.mark.parametrize(
    ("known", "another"),
    [
        (HERE, False),
        ({**HERE, "lsn": "0/6000"}, True),
        ({**HERE, "timeline": "2", "time": "2026-11-30 19:00:00.1+00"}, False),
        ({**HERE, "timeline": 3}, True),
        # A dump, or a database on RDS.
        ({"lsn": None, "time": HERE["time"], "timeline": None}, False),
        ({"lsn": None, "time": "2026-11-30T19:00:01+00:00", "timeline": None}, True),
        (None, False),
    ],
)
def test_a_recovery_from_another_moment_is_of_another_incident(known: Any, another: bool) -> None:
    plan = {"incident": "4711", "database": "shop", "staging_schema": "recovered_4711", "reached": known}
    assert is_of_another(plan, HERE) is another
    assert is_of_another(plan, None) is False
    if another:
        with pytest.raises(
            RecoveryError, match=r"schema recovered_4711 of database shop.* another name \(dr_incident_id\)"
        ):
            require_own(plan, HERE)
    else:
        require_own(plan, HERE)
