# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make what fits, and know by name what does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    is_superuser,
    room_for_owners,
    server_message,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    StandIn,
    acting_as,
    is_another,
    refuse,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import (
    Lock,
    Locks,
    is_concurrent,
    patiently,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import (
    GRANTS,
    RUNNING,
    RUNNING_AS_SUPERUSER,
    Entry,
    RunAs,
    SchemaDump,
    statements_of,
)

# Classes of SQLSTATE, and single ones, that say nothing about the object: a lost connection, a conflict with another
# session, no memory or disk, an operator, the system, a damaged index (PostgreSQL documentation, appendix A).
PASSING_CLASSES = ("08", "40", "53", "57", "58", "F0")
PASSING = ("55P03", "XX001", "XX002")
CONFIGURATION_LIMIT = "53400"
UNDEFINED_OBJECT = "42704"
# The statements of an entry with grants, each of which is a line unless a name has a newline.
GRANT = re.compile(r"(?:GRANT|REVOKE|SET ROLE|RESET ROLE|ALTER DEFAULT PRIVILEGES)\b.*;\Z")
IN_THE_NAME_OF = re.compile(r"SET ROLE [^\n]*\n(?:(?!RESET ROLE)[^\n]*\n)*RESET ROLE;\n|[^\n]+\n")
GRANTEE = re.compile(r' (?:TO|FROM) ("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)(?: WITH GRANT OPTION)?;$', re.MULTILINE)
NEEDS_ANOTHER = "it needs something that cannot be made either"


def is_passing(error: Any) -> bool:
    """Whether an error of the server says nothing about the statement that met it."""
    code = error.pgcode
    if code is None or code in PASSING or is_concurrent(error):
        return True
    return code[:2] in PASSING_CLASSES and code != CONFIGURATION_LIMIT


@contextmanager
def savepoint(connection: Any, failed: Callable[[Any], None]) -> Iterator[None]:
    """Undo what is done inside when the server refuses it for what it is, and hand the error to ``failed``."""
    execute(connection, "SAVEPOINT dbre_part")
    try:
        yield
    except connection.DatabaseError as error:
        if is_passing(error):
            raise
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_part")
        execute(connection, "RELEASE SAVEPOINT dbre_part")
        failed(error)
    else:
        execute(connection, "RELEASE SAVEPOINT dbre_part")


def with_role(statement: str, error: Any) -> str:
    """A grant, after the making of the role that it needs and that is gone."""
    found = GRANTEE.search(statement) if error.pgcode == UNDEFINED_OBJECT else None
    return f"CREATE ROLE {found[1]} NOLOGIN;\n{statement}" if found else statement


def address_of(entry: Entry) -> list[Any]:
    """What of an entry is the same in every dump of the same database."""
    return [entry.catalog, entry.oid, entry.description, entry.label]


class Refused(NamedTuple):
    """An entry of a dump that the server did not let us make, why, and the SQL that makes it."""

    entry: Entry
    name: str
    reason: str
    command: str
    sqlstate: str | None = None
    lost: bool = True

    def left(self) -> dict[str, Any]:
        """The entry of ``left_to_do``."""
        return left(self.entry.description.lower(), self.name, self.reason, self.command, lost=self.lost)

    @property
    def address(self) -> list[Any]:
        """See :func:`address_of`."""
        return address_of(self.entry)


class Attempt:
    """Makes entries of a dump in the caller's transaction, all but those that do not fit (any more).

    All are tried at once; only where that is refused, halves are, so that what is refused is found in a few steps.
    What needs a refused one is refused with it, but not in the dump's settings or comments.
    """

    def __init__(self, connection: Any, dump: SchemaDump, refused: Sequence[Entry] = ()) -> None:
        self._connection = connection
        self._dump = dump
        self._without = {entry.dump_id for entry in refused}
        self.refused: list[Refused] = []
        self._others: dict[str, bool] = {}
        self._as_owners: Mapping[int, RunAs] = {}

    def prepare(self, steps: Iterable[Sequence[Entry]]) -> None:
        """Have the scripts of definitions at hand that are soon made, when others wait for us."""
        for entries in steps:
            possible = [entry for entry in entries if self._fits(entry)]
            self._dump.script(possible)
            for whom, group in self._groups(possible):
                self._script(whom, group)

    def make(self, entries: Sequence[Entry]) -> None:
        """Definitions among ``entries``."""
        self._make(entries, self._dump.script, self._execute_as_owners)

    def grant(self, entries: Sequence[Entry]) -> None:
        """Grants among ``entries``."""
        self._make(entries, self._dump.grants)

    def apply(self, entries: Sequence[Entry], script_of: Callable[[Sequence[Entry]], bytes]) -> None:
        """``entries`` as ``script_of`` writes them, one by one."""
        for entry in entries:
            self._make([entry], script_of)

    def refuse(self, entry: Entry, reason: str, command: str) -> None:
        """Leave out one that is not there for another reason, and what needs it."""
        self._without.add(entry.dump_id)
        self.refused.append(Refused(entry, self._dump.identity(entry), reason, command))

    def act_as(self, owners: Mapping[int, RunAs]) -> None:
        """Make some entries, by dump id, as others than the dump knows of."""
        self._as_owners = owners

    def go_on_after(self, refused: Iterable[Refused]) -> None:
        """Leave out what an earlier transaction was refused, which was said there."""
        self._without |= {item.entry.dump_id for item in refused}

    def withdraw(self, refused: Refused) -> None:
        """One that was refused was made in another way: what needs it can be made."""
        self._without.discard(refused.entry.dump_id)
        self.refused.remove(refused)

    def _execute_as_owners(self, entries: Sequence[Entry], script: bytes) -> None:
        """Make ``entries``, whose script is ``script``, each that runs functions of users as its owner."""
        groups = self._groups(entries)
        if all(whom is None for whom, unused in groups):
            execute(self._connection, script)
            return
        for whom, group in groups:
            part = self._script(whom, group)
            if not part:
                continue  # some entries write nothing
            if whom is None:
                execute(self._connection, part)
            else:
                aside = without_default_privileges(self._connection, whom.role)
                schemas = [whom.schema, *whom.schemas]
                with aside, acting_as(self._connection, whom.role, schemas, whom.tables) as owner:
                    if isinstance(owner, StandIn):
                        self._foretell(owner, group)
                    owner.lend("SCHEMA", quote_ident(whom.schema), ["CREATE"])
                    if whom.tablespace:
                        owner.lend("TABLESPACE", quote_ident(whom.tablespace), ["CREATE"])
                    if whom.referenced:
                        owner.lend("TABLE", whom.referenced, ["REFERENCES"])
                    owner.execute(statements_of(part))

    def _foretell(self, owner: StandIn, group: Sequence[Entry]) -> None:
        """Say what is made in place of its owner; what could do more than its table is refused."""
        for entry in group:
            if entry.description in ("TABLE", "MATERIALIZED VIEW", "VIEW"):
                owner.will_make("TABLE", self._dump.identity(entry))
            elif entry.description == "STATISTICS":
                owner.will_make("STATISTICS", self._dump.identity(entry))
            elif entry.description not in (*RUNNING, *RUNNING_AS_SUPERUSER):
                refuse(self._connection, "it holds a value of a type of others, whose code would run as a superuser")

    def _script(self, whom: Optional[RunAs], group: Sequence[Entry]) -> bytes:
        """What makes a group; what was made in place of its owner becomes his afterwards."""
        instead = whom is not None and not self._is_another(whom.role)
        return self._dump.script(group, *(["--no-owner"] if instead else []))

    def _groups(self, entries: Sequence[Entry]) -> list[tuple[Optional[RunAs], list[Entry]]]:
        """``entries`` by whom they are made as, in their order."""
        groups: list[tuple[Optional[RunAs], list[Entry]]] = []
        for entry in entries:
            whom = self._whom(entry)
            if not groups or groups[-1][0] != whom:
                groups.append((whom, []))
            groups[-1][1].append(entry)
        return groups

    def _fits(self, entry: Entry) -> bool:
        return entry.dump_id not in self._without and self._without.isdisjoint(entry.depends)

    def _whom(self, entry: Entry) -> Optional[RunAs]:
        """Whom an entry is made as; with our rights where this is None."""
        for found in (self._as_owners.get(entry.dump_id), self._dump.run_as.get(entry.dump_id)):
            if found is not None and (found.of_others or self._is_another(found.role)):
                return found
        return None

    def _is_another(self, role: str) -> bool:
        if role not in self._others:
            self._others[role] = is_another(self._connection, role)
        return self._others[role]

    def _make(
        self,
        entries: Sequence[Entry],
        script_of: Callable[..., bytes],
        run: Optional[Callable[[Sequence[Entry], bytes], None]] = None,
    ) -> None:
        possible = []
        for entry in entries:
            if entry.dump_id in self._without:
                continue
            if self._without.isdisjoint(entry.depends):
                possible.append(entry)
            elif script := script_of([entry]):
                self._refuse(entry, NEEDS_ANOTHER, script)
        script = script_of(possible) if possible else b""
        if not script:
            return

        def failed(error: Any) -> None:
            role_gone = error.pgcode == UNDEFINED_OBJECT and possible[0].description in GRANTS
            if len(possible) == 1 and role_gone and self._grant_each(possible[0], script):
                return
            if len(possible) == 1:
                reason = server_message(error)
                if error.pgcode == INSUFFICIENT_PRIVILEGE and not is_superuser(self._connection):
                    reason += f" (role {user_of(self._connection)} is no superuser)"
                self._refuse(possible[0], reason, script, error.pgcode)
            else:
                middle = len(possible) // 2
                self._make(possible[:middle], script_of, run)
                self._make(possible[middle:], script_of, run)

        with savepoint(self._connection, failed):
            if run is None:
                execute(self._connection, script)
            else:
                run(possible, script)

    def _grant_each(self, entry: Entry, script: bytes) -> bool:
        """Make the grants of one entry one by one; whether they could be told apart."""
        lines = [line for line in statements_of(script).split("\n") if line]
        if not all(GRANT.match(line) for line in lines):
            return False
        # What is granted in the name of another role belongs together.
        statements = [part.strip() for part in IN_THE_NAME_OF.findall("\n".join(lines) + "\n")]
        name = self._dump.identity(entry)
        for statement in statements:

            def failed(error: Any, statement: str = statement) -> None:
                self.refused.append(
                    Refused(entry, name, server_message(error), with_role(statement, error), error.pgcode)
                )

            with savepoint(self._connection, failed):
                execute(self._connection, statement)
        return True

    def _refuse(self, entry: Entry, reason: str, script: bytes, sqlstate: str | None = None) -> None:
        self._without.add(entry.dump_id)
        name = self._dump.identity(entry)
        self.refused.append(Refused(entry, name, reason, statements_of(script), sqlstate))


class Transactions:
    """Transactions of which each goes on after what those before it were refused."""

    def __init__(self, connection: Any, incident: str, attempt_of: Callable[[], Attempt]) -> None:
        self._connection = connection
        self._incident = incident
        self._attempt_of = attempt_of
        self.refused: list[Refused] = []

    def run(
        self, wanted: Sequence[Lock], entries: Sequence[Entry], work: Callable[[Attempt], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Do ``work``, which makes ``entries`` of the dump under the locks that are ``wanted``; what is left to do."""
        locks = Locks(self._connection)

        def once() -> tuple[list[dict[str, Any]], list[Refused]]:
            mark(self._connection, self._incident)
            attempt = self._attempt_of()
            attempt.go_on_after(self.refused)
            attempt.prepare([entries])
            locks.take(wanted)
            return work(attempt), attempt.refused

        left_to_do, refused = patiently(self._connection, once, locks=locks)
        self.refused += refused
        return [*(item.left() for item in refused), *left_to_do]


def make_early(
    connection: Any,
    owners: Callable[[], Iterable[Sequence[str]]],
    entries: Sequence[Entry],
    make: Callable[[Sequence[Entry]], None],
) -> None:
    """Make what comes before the rows, in the caller's transaction: schemas, then what their owners need room for."""
    with without_default_privileges(connection):
        make([entry for entry in entries if entry.description == "SCHEMA"])
        with room_for_owners(connection, owners()):
            make([entry for entry in entries if entry.description != "SCHEMA"])
