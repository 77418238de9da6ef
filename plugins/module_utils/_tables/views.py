# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill materialized views, each as its owner sees the rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import view_needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_PATH
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import others_have_code
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import set_search_path
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import own_search_path


def refresh_views(connection: Any, views: Iterable[str]) -> list[dict[str, Any]]:
    """Fill materialized views as their owners see the rows, in the caller's transaction; what cannot be filled.

    An owner may not be allowed (any more) to read what the view reads; functions of the view may rely on the owner's
    search_path, under which the view is tried once more.
    """
    left_to_do = []
    guarded = others_have_code(connection)
    execute(connection, "SET LOCAL row_security = on")
    for view in views:
        shown = value(connection, "SELECT pg_catalog.to_regclass(%s)::text", (view,))
        if shown is None:
            continue
        statement = f"REFRESH MATERIALIZED VIEW {view}"
        if guarded and view_needs_cage(connection, view):
            reason = (
                "its owner is a superuser and it runs code of others, which would have a superuser's rights, so it is "
                "empty. Look at that code, then run the command"
            )
            left_to_do.append(left("materialized view", shown, reason, f"{statement};", lost=True))
            continue
        errors: list[Any] = []
        with savepoint(connection, errors.append):
            execute(connection, statement)
        path = "" if not errors else own_search_path(connection, view)
        if path:
            with savepoint(connection, errors.append):
                set_search_path(connection, path)
                execute(connection, statement)
            set_search_path(connection, SAFE_PATH)
        if len(errors) > 1:
            reason = f"its owner cannot read what it shows, so it is empty: {server_message(errors[0])}"
            left_to_do.append(left("materialized view", shown, reason, f"{statement};", lost=True))
    execute(connection, "SET LOCAL row_security = off")
    return left_to_do
