# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._extra_vars import misspelt


@pytest.mark.parametrize(
    "name",
    ["backup_verification_point", "postgresql_archiving_restart", "verify_hosts", "pgbackrest_mine", "postgres_user"],
)
def test_variables_of_the_collection_and_of_others_are_taken(name: str) -> None:
    assert misspelt([name]) == []


def test_a_misspelt_variable_of_a_role_is_told_with_what_is_similar() -> None:
    (fault,) = misspelt(["backup_verification_pont", "verify_hosts"])

    assert fault.startswith("backup_verification_pont is no variable of this collection, and would be ignored. ")
    assert fault.endswith("Similar: backup_verification_point.")
