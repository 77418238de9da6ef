# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL that people may run on rows of a table, which disturbs others as little as ours does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import is_superuser, seeing_all
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_triggers,
    incoming_keys,
    orphans,
    outgoing_keys,
    shown_key,
    silence,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import unique_keys

MAY_BE_REPLICA = """
SELECT pg_catalog.has_parameter_privilege(current_user, 'session_replication_role', 'SET')
"""


def is_quiet(connection: Any, oid: int) -> bool:
    """Whether rows can be put into a table without firing triggers.

    The second look at a key that is checked later is a trigger as well; and not every role may keep them from firing.
    """
    if any(key.deferrable for key in unique_keys(connection, oid)):
        return False
    return is_superuser(connection) or (connection.server_version >= 150000 and bool(value(connection, MAY_BE_REPLICA)))


class Surroundings(NamedTuple):
    """Triggers to be silenced, foreign keys to be looked at, and statements to see all rows, and to end that."""

    quiet: bool
    firing: Sequence[Mapping[str, Any]]
    keys: Sequence[Mapping[str, Any]]
    show: Sequence[str]
    hide: Sequence[str]


def surroundings(connection: Any, oid: int, quiet: bool) -> Surroundings:
    """What a command on rows of a table has to mind. Where it is not ``quiet``, the server looks at foreign keys."""
    found = (outgoing_keys, incoming_keys) if quiet else ()
    keys = {key["oid"]: key for find in found for key in find(connection, [oid])}
    ends = {key[end] for key in keys.values() for end in ("relation", "other_relation")}
    firing = firing_triggers(connection, [oid]) if quiet else []
    return Surroundings(quiet, firing, list(keys.values()), *seeing_all(connection, sorted({oid, *ends})))


def by_hand(around: Surroundings, changes: Iterable[str], first: Iterable[str] = (), last: Iterable[str] = ()) -> str:
    """One transaction that ends with an error where a foreign key would break; no trigger fires where it is quiet."""
    off, on = silence(around.firing)
    tests = "".join(
        f"IF EXISTS (SELECT FROM {source_of(key)} f WHERE {orphans(key)}) THEN RAISE EXCEPTION "
        f"{quote_literal('foreign key ' + shown_key(key).replace('%', '%%') + ' would break')}; END IF; "
        for key in around.keys
    )
    statements = [
        "BEGIN",
        "SET LOCAL lock_timeout = '2s'",
        *around.show,
        *first,
        *(["SET LOCAL session_replication_role = replica", *off] if around.quiet else []),
        *changes,
        *on,
        *([f"DO {quote_literal(f'BEGIN {tests}END')}"] if tests else []),
        *around.hide,
        *last,
        "COMMIT;",
    ]
    return "; ".join(statements)


def what_it_runs(connection: Any, oid: int, quiet: bool = True) -> str:
    """What people must know who run such SQL, as the end of a sentence; empty where it runs nothing of others."""
    fires = "" if quiet else ". It fires the table's triggers"
    if not needs_cage(connection, oid):
        return fires
    return (
        f"{fires}. It runs with the rights of whoever runs it what others wrote for this table, as checks, types and "
        "indexes: read that before you run it as a superuser"
    )
