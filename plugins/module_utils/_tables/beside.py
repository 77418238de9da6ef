# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a table as it was, beside production's, and the SQL that puts it to use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import is_superuser
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import is_another, owner_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Locks
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.by_hand import (
    by_hand,
    is_quiet,
    surroundings,
    what_it_runs,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable, is_elsewhere
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import create_kept
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import primary_key, same_row
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import (
    computable,
    passing_over,
    unique_keys,
)


class CopyBeside(ExistingTable):
    """One table whose copy stays beside it."""

    def copied(self, connection: Any) -> None:
        kept = self.keep(connection, self.copy_name, f"copy of {self.shown} as it was before the incident")
        self.note(
            connection,
            {
                "rows": self.recovered["rows"],
                "checksum_production": self.recovered["checksum"],
                "copy": kept,
                "left_to_do": self._left(connection, kept),
            },
        )

    def _left(self, connection: Any, kept: str) -> list[dict[str, Any]]:
        """What is left to do with the copy, as far as production can be looked at without waiting."""
        whole = f"{kept} has all of it as it was ({counted(self.recovered['rows'], 'row')})"
        if value(connection, "SELECT pg_catalog.to_regclass(%s)", (self.true,)) is None:
            # A lost table that could not be made: what made that impossible is left to do.
            return []
        execute(connection, "SAVEPOINT dbre_look")
        try:
            Locks(connection).begin()
            oid = self.oid(connection)
            differing = self.differing_columns(connection, oid)
            if differing:
                what = f"production's columns are others ({', '.join(differing)}), so take from it what is needed"
                return [left("table", self.shown, f"{whole}; {what}", lost=True)]
            if is_elsewhere(connection, oid):
                what = "production's has rows on another server, so take from it what is needed, partition by partition"
                return [left("table", self.shown, f"{whole}; {what}", lost=True)]
            lacked, changed = self._lacked(connection, oid)
            quiet = is_quiet(connection, oid)
            statements, runs = self._statements(connection, oid, quiet), what_it_runs(connection, oid)
            merge_runs = what_it_runs(connection, oid, quiet)
            whom = self._whom(connection, owner_of(connection, oid))
        except connection.DatabaseError as error:
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_look")
            what = f"production's table could not be read ({str(error).strip()})"
            return [left("table", self.shown, f"{whole}; {what}", lost=True)]
        finally:
            execute(connection, "RELEASE SAVEPOINT dbre_look")
        if lacked is None:
            what = "production's rows are others; how many it lacks cannot be told without a primary key"
        else:
            what = f"production lacks {lacked} of them and has {changed} with other values"
        lost = lacked is None or lacked + changed > 0
        found = []
        if statements["merge"]:
            what += f". The command puts in those that it lacks{merge_runs}{whom}"
            found.append(left("table", self.shown, f"{whole}; {what}", statements["merge"], lost=lost, rows=lacked))
            what = f"instead: the command puts all rows of {kept} in the place of production's{runs}"
            found.append(left("table", self.shown, what, statements["exchange"]))
        else:
            what += f". The command puts them all in the place of production's{runs}{whom}"
            found.append(left("table", self.shown, f"{whole}; {what}", statements["exchange"], lost=lost, rows=lacked))
        what = f"the command takes such an exchange back, with the rows that production had until then{runs}"
        found.append(left("table", self.shown, what, statements["back"]))
        return found

    @staticmethod
    def _whom(connection: Any, owner: str) -> str:
        """What makes who is no superuser able to run the commands, in words; membership was borrowed for the run."""
        if is_superuser(connection) or not is_another(connection, owner):
            return ""
        grant = f"GRANT {quote_ident(owner)} TO {quote_ident(value(connection, 'SELECT session_user'))}"
        return f". Who runs it has to be a member of the table's owner ({grant})"

    def _lacked(self, connection: Any, oid: int) -> tuple[int | None, int]:
        """How many rows of the copy production lacks (None where that cannot be told), and how many differ there."""
        with each_as_its_owner(connection, []) as owners:
            owner = owners.of(oid, self.schema)
            copy = owner.bring(self.staging, self.copy_name)
            if not self.key or sorted(primary_key(connection, oid)) != sorted(self.key):
                query = fingerprint.checksum_query(self.own, self.copied_columns, connection.server_version)
                return (0 if owner.rows(query)[0] == self.recovered else None), 0
            match = self.on_key("p", "s")
            lacked = owner.value(
                f"SELECT count(*) FROM {copy} s WHERE NOT EXISTS (SELECT FROM {self.own} p WHERE {match})"
            )
            changed = owner.value(
                f"SELECT count(*) FROM {copy} s JOIN {self.own} p ON {match} "
                f"WHERE NOT {same_row(self.stored, 's', 'p')}"
            )
            return lacked, changed

    def _statements(self, connection: Any, oid: int, quiet: bool) -> dict[str, str | None]:
        """SQL for people: ``merge`` (None where a key is missing), ``exchange`` of all rows, and the way ``back``."""
        name_before = self.derived("_before_exchange")
        before = quote_name(self.staging, name_before)
        forward = [
            f"SELECT pg_catalog.setval({name}, {last}, {called}) FROM {sequence} "
            f"WHERE {last} {'>' if item['increment'] > 0 else '<'} last_value OR last_value = {last} AND NOT is_called"
            for item in self.sequences
            for sequence in [quote_name(item["schema"], item["name"])]
            for name in [f"{quote_literal(sequence)}::regclass"]
            for last, called in [(item["last_value"], str(item["is_called"]).lower())]
        ]
        merge = None
        if self.key:
            unique = computable(unique_keys(connection, oid), self.copied_columns)
            over = passing_over(unique, self, self.as_it_was(self.copy))
            merge = by_hand(
                surroundings(connection, oid, quiet), [self.insert_statement(self.copy, over)], last=forward
            )
        save = create_kept(connection, self.staging, name_before, f"SELECT * FROM {self.own}")
        remove = f"DROP TABLE {before}"
        return {
            "merge": merge,
            "exchange": self._exchange(connection, oid, save, self.copy, forward),
            "back": self._exchange(connection, oid, [], before, [remove]),
        }

    def _exchange(self, connection: Any, oid: int, first: Iterable[str], source: str, last: Iterable[str]) -> str:
        """SQL for people that puts the rows of ``source`` in the place of all that the table has."""
        first = [f"LOCK TABLE {self.own} IN EXCLUSIVE MODE", *first]
        changes = [f"DELETE FROM {self.own}", self.insert_statement(source)]
        return by_hand(surroundings(connection, oid, quiet=True), changes, first, last)
