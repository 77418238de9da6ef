# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of damaged pages: they are in the recovered instance, on pages of the same numbers, and go back as rows.

Production's table is written anew without these pages in the transaction that puts the rows back, so that nobody sees
it without them. To do so the server has to be told to take a damaged page for an empty one, and it does not say for
which it did; so all others are read before, without that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text, spans
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import is_superuser, server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

DATA_CORRUPTED = "XX001"
# More rows than a page of 32 kB can have (MaxHeapTuplesPerPage in htup_details.h).
LINES = 1200
AS_A_WHOLE = (
    "Bring the table back as a whole instead, as it was at that position: the same command with another "
    "dr_incident_id, and -e dr_strategy=tables -e dr_target_lsn={lsn}"
)

FILE = "SELECT pg_catalog.pg_relation_filepath(%s::oid::regclass)"
BLOCKS = """
SELECT pg_catalog.pg_relation_size(%s::oid::regclass) / pg_catalog.current_setting('block_size')::int8
"""
# The index that the table is sorted by for good (CLUSTER), else its primary key.
SORTED_BY = """
SELECT c.relname AS name, i.indisclustered AS for_good
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s::oid AND i.indisvalid AND (i.indisclustered OR i.indisprimary)
ORDER BY i.indisclustered DESC LIMIT 1
"""


class PageRows(NamedTuple):
    """The rows of some pages of a table: ``whole`` and ``inside`` are rows and checksum of all, and of those pages."""

    blocks: Sequence[int]
    whole: Mapping[str, Any]
    inside: Mapping[str, Any]

    @property
    def condition(self) -> str:
        """SQL condition: a row of the recovered table lies on one of these pages."""
        return on_blocks(self.blocks)


def on_blocks(blocks: Sequence[int]) -> str:
    """SQL condition: a row lies on one of these blocks of its table."""
    ranges = (f"ctid >= '({first},0)' AND ctid < '({last + 1},0)'" for first, last in spans(blocks))
    return f"({' OR '.join(ranges) or 'false'})"


def unreadable(connection: Any, table: str, blocks: Sequence[int]) -> list[int]:
    """Those of the blocks of a table (SQL) that the server refuses to read, in the caller's transaction.

    Others it has in its memory, as they should be.
    """
    found = []
    for block in blocks:
        execute(connection, "SAVEPOINT dbre_block")
        try:
            execute(connection, f"SELECT FROM ONLY {table} WHERE ctid = '({block},1)'")
        except connection.InternalError as error:
            if error.pgcode != DATA_CORRUPTED:
                raise
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_block")
            found.append(block)
        execute(connection, "RELEASE SAVEPOINT dbre_block")
    return found


def require_repairable(connection: Any, relation: Mapping[str, Any], table: str) -> None:
    """Refuse a table whose pages we may not give up, in a transaction that holds its definition."""
    shown = f"{table} on {host_name()}"
    whole = AS_A_WHOLE.format(lsn=relation["damaged_pages"]["lsn"])
    if not is_superuser(connection):
        raise RecoveryError(
            f"the damaged pages of {shown} cannot be left behind: only a superuser may set zero_damaged_pages. "
            "The table was not changed. Run again with the same incident id and postgresql_superuser set to one."
        )
    if needs_cage(connection, relation["oid"], written=False):
        raise RecoveryError(
            f"the pages of {shown} cannot be read one by one: what its owner wrote would run as a superuser. "
            f"The table was not changed. {whole}"
        )
    if value(connection, FILE, (relation["oid"],)) != relation["damaged_pages"]["path"]:
        raise RecoveryError(
            f"{shown} was written anew since its pages were looked at (VACUUM FULL, TRUNCATE, ALTER TABLE), and its "
            "rows are on other pages now. The table was not changed. See with find-corruption whether a damage is "
            "left, and if so run again with another dr_incident_id."
        )


def leave_behind(connection: Any, relation: Mapping[str, Any], table: str, pages: PageRows) -> None:
    """Write a table anew without damaged pages, in the caller's transaction, which nobody else uses until that ends."""
    require_repairable(connection, relation, table)
    known = relation["damaged_pages"]["blocks"]
    if unreadable(connection, table, known) != list(pages.blocks):
        raise RecoveryError(
            f"which pages of {table} on {host_name()} cannot be read has changed while their rows were copied. The "
            "table was not changed. Run again with the same incident id."
        )
    blocks = int(value(connection, BLOCKS, (relation["oid"],)))
    try:
        execute(
            connection,
            f"SELECT FROM ONLY {table} WHERE ctid = ANY (ARRAY(SELECT ('(' || n || ',1)')::pg_catalog.tid "
            "FROM pg_catalog.generate_series(0, %s::int8 - 1) n WHERE n <> ALL (%s::int8[])))",
            (blocks, list(known)),
        )
    except connection.InternalError as error:
        if error.pgcode != DATA_CORRUPTED:
            raise
        raise RecoveryError(
            f"{table} on {host_name()} has more damaged pages than those that were found ({blocks_text(known)}): "
            f"{server_message(error)}. The disk may be failing. The table was not changed. Run again with another "
            "dr_incident_id, which looks at all pages anew."
        ) from error
    keep_sound(connection, table, sorted(set(known) - set(pages.blocks)))
    _write_anew(connection, relation, table)


def keep_sound(connection: Any, table: str, blocks: Sequence[int]) -> None:
    """Have the server write the pages that it has as they should be in its memory alone.

    One that is only read may be forgotten, and would be damaged, and then empty, when it is read again.
    """
    execute(
        connection,
        f"SELECT FROM ONLY {table} WHERE ctid = ANY (ARRAY(SELECT ('(' || n || ',' || line || ')')::pg_catalog.tid "
        "FROM unnest(%s::int8[]) n, pg_catalog.generate_series(1, %s) line)) FOR UPDATE",
        (list(blocks), LINES),
    )


def _write_anew(connection: Any, relation: Mapping[str, Any], table: str) -> None:
    (index,) = rows(connection, SORTED_BY, (relation["oid"],))
    execute(connection, "SET LOCAL zero_damaged_pages = on")
    try:
        execute(connection, f"CLUSTER {table} USING {quote_ident(index['name'])}")
    except connection.InternalError as error:
        raise RecoveryError(
            f"{table} on {host_name()} cannot be written anew: {server_message(error)}. The table was not changed. "
            f"{AS_A_WHOLE.format(lsn=relation['damaged_pages']['lsn'])}"
        ) from error
    execute(connection, "SET LOCAL zero_damaged_pages = off")
    if not index["for_good"]:
        execute(connection, f"ALTER TABLE ONLY {table} SET WITHOUT CLUSTER")
