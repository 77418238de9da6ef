# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole database that is there, and damaged: as it was, it is brought beside, proved, and gets its name."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt
from ansible_collections.dbre.recovery.plugins.module_utils._tables.damaged_tables import DamagedTables
from ansible_collections.dbre.recovery.plugins.module_utils._tables.database import DatabaseRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.database_properties import changed_properties
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import Exchange, connect_elsewhere
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import is_of_database
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import TableRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import SchemaDump


class DamagedDatabase(DatabaseRecovery):
    """As a lost database is brought back; what has its name meanwhile is kept under another, as it is."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.kept: str = self.plan["kept_database"]
        names = self.plan["incident"], self.name, self.staging_database, self.kept
        self.exchange = Exchange(context.production, *names)

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet; the result of the module."""
        result = super().run()
        kept = {
            "type": "database",
            "object": display_name(None, self.kept),
            "reason": "it is the damaged one, as it was when it lost its name, with all that was committed in it",
            "command": f"DROP DATABASE {quote_ident(self.kept)} WITH (FORCE);",
        }
        exchanged = self._exchanged()
        result["left_to_do"] += self._changed_properties()
        limits = {**result["limits"], "exchange": exchanged}
        return {**result, "kept": [*result["kept"], kept], "exchange": exchanged, "limits": limits}

    def _exchanged(self) -> dict[str, Any]:
        """How many sessions were ended, and how long nobody got in; null after a run that was killed just then."""
        main = self.context.session()
        try:
            found = read_journal(main, self.context.staging).get("exchanged", [])
        finally:
            main.close()
        return {"kept_as": self.kept, "sessions": None, "seconds": None, **(found[0] if found else {})}

    def _changed_properties(self) -> list[dict[str, Any]]:
        admin = self._connect_admin()
        try:
            return changed_properties(admin, self.name, self.kept)
        finally:
            admin.close()

    def is_done(self) -> bool:
        admin = self._connect_admin()
        try:
            return self._exists(admin, self.kept)
        finally:
            admin.close()

    def _connect_admin(self) -> Any:
        # Its session would be ended with those of others.
        return connect_elsewhere(self.context.production, self.name, self.staging_database, self.kept)

    def _open(self, admin: Any, dump: SchemaDump) -> Any:
        if not self._exists(admin, self.kept):
            return self._open_staging(admin, dump)
        self.context.database = self.name
        main = self.context.session()
        if not read_journal(main, self.context.staging):
            main.close()
            raise RecoveryError(
                f"a database {display_name(None, self.kept)} is on {host_name()}, and {display_name(None, self.name)} "
                "was not put in its place by this incident. Both were left as they are; what was recovered so far is "
                f"in the database {display_name(None, self.staging_database)}. Rename or drop the first one, then run "
                "again with the same incident id."
            )
        return main

    def _appear(self, admin: Any, main: Any, dump: SchemaDump) -> Any:
        """The names are exchanged, with settings and grants, in one transaction."""
        if self.context.database == self.name:
            return main
        main.close()
        entries = [entry for entry in dump.entries if is_of_database(entry)]
        # Written now: afterwards others wait for us.
        for entry in entries:
            dump.script([entry], "--create")
            dump.grants([entry], "--create")
        attempts: list[Attempt] = []
        done = self.exchange.run(lambda ours: attempts.append(self._give_properties(ours, dump, entries)))
        named = self._named(attempts[-1])
        mark(named, self.plan["incident"])
        self.context.journal(named, "exchanged", done)
        named.commit()
        return named


def make_recovery(context: Context) -> TableRecovery:
    """The recovery a plan asks for."""
    if context.plan.get("kept_database"):
        return DamagedDatabase(context)
    if context.plan.get("holding"):
        return DamagedTables(context)
    return DatabaseRecovery(context) if context.plan["staging_database"] else TableRecovery(context)
