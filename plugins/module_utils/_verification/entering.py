# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions in databases whose own catalogue may be damaged."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SETTINGS,
    SUPERUSER_SETTINGS,
    session_options,
)


def enter(login: Login, database: Optional[str], what: str, lock_timeout: str = "2s", plain: bool = False) -> Any:
    """A superuser's session in a database, None: any, that waits no longer than ``lock_timeout`` for a lock.

    With ``plain`` it reads the catalogue without its indexes, one of which may be damaged. Raises RecoveryError.
    """
    name = f"dbre.recovery {what}"
    if not plain:
        waiting = {"lock_timeout": lock_timeout}
        where = {"libraries": False, "any_database": database is None}
        return connect(login, database, application_name=name, settings=waiting, **where)
    wanted = {
        **SETTINGS,
        **SUPERUSER_SETTINGS,
        **NO_LIBRARIES,
        "lock_timeout": lock_timeout,
        "ignore_system_indexes": "on",
    }
    return connect(login, database, application_name=name, options=session_options(wanted))
