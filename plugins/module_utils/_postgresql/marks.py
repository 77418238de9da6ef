# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own transactions, known as ours in WAL, so that a later search for damage does not take them for it."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute

PREFIX = "dbre.recovery"


def mark_statement(incident: str) -> str:
    """SQL that marks the transaction it runs in."""
    return (
        "SELECT pg_catalog.pg_logical_emit_message"
        f"(true, {quote_literal(PREFIX)}::pg_catalog.text, {quote_literal(incident)}::pg_catalog.text)"
    )


def mark(connection: Any, incident: str) -> None:
    """Write into WAL that the caller's transaction is one of ours; to be called outside of savepoints.

    The record (XLOG_LOGICAL_MESSAGE) carries the transaction's id, whatever ``wal_level`` is, and any role may write
    it: src/backend/replication/logical/logicalfuncs.c asks for nothing. In a savepoint it would carry the id of that.
    Subscribers of publications do not get it unless they ask for messages.
    """
    execute(connection, mark_statement(incident))
