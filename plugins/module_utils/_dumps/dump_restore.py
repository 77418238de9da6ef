# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a dump so that the code of those who own what is in it runs as them, and never as us.

pg_restore makes everything as one role. Checks, domains, generated columns, constants in definitions, foreign keys and
what a trigger does then run as that role, a superuser. Here each item is made as its owner, in the cage of
:mod:`cage`; what cannot run anything (:data:`INERT`) is made by us, as pg_restore does it. Rows come into tables of
which nothing can run as they are, else through a table of ours with the server's own types, from where the owner takes
them. Grants on what can be called or looked into come with it and not at the end, so that no code finds it open
to all in between. The text of each item is pg_restore's own.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.workers import run_parallel
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import Entry
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_order import (
    RUNNING,
    DumpOrder,
    levels,
    needs_of_owner,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_script import BLOCK, Dump, Rows, Script
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical import IDENT, QUALIFIED
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    LACKING,
    StandIn,
    acting_as,
    acting_as_owner,
    is_another,
    lend_what_is_read,
    owner_of,
    refuse,
    view_needs_cage,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import DEADLOCK
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    parse_schema_list,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_PATH
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import (
    runs_others_code,
    runs_users_code,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import is_concurrent, savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import plain_columns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)

COPIED = re.compile(rf"COPY ({QUALIFIED}) (?:(\({IDENT}(?:, {IDENT})*\)) | )FROM stdin;\n")
TRIES = 5
REGCLASS = "SELECT pg_catalog.to_regclass(%s)::oid::int8"
OURS = "SELECT rolsuper OR rolname = current_user FROM pg_catalog.pg_roles WHERE rolname = %s"
# A dump makes them after the rows, but what ran before may have left some.
TRIGGERS_AND_RULES = """
WITH tables AS (
  SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)
  UNION SELECT relid::oid FROM pg_catalog.pg_partition_ancestors(%(oid)s::oid)
)
SELECT 1 FROM tables JOIN pg_catalog.pg_trigger t ON t.tgrelid = tables.oid WHERE NOT t.tgisinternal
UNION ALL SELECT 1 FROM tables JOIN pg_catalog.pg_rewrite r ON r.ev_class = tables.oid
"""


class DumpRestore:
    """Restores one dump into one database, in steps: definitions, rows, the rest, event triggers.

    ``connect`` gives a session of ours, a superuser's, in a database that nobody else can change meanwhile; with a
    ``connection`` instead everything is done in it, in its transaction, and what is there already is others'.
    """

    def __init__(
        self,
        dump: Dump,
        connect: Callable[[], Any],
        jobs: int = 1,
        connection: Optional[Any] = None,
        tell: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self._archive = dump.archive
        self._script = Script(dump)
        self._connect = connect
        self._jobs = jobs
        self._single = connection
        self._tell = tell
        self._order = DumpOrder(dump.archive)
        self._others: dict[str, bool] = {}
        self._trusting: set[int] | None = None
        self._later: list[Entry] = []

    def chosen(self, dump_ids: Iterable[int]) -> list[Entry]:
        """Items by their dump ids, in the order given."""
        return [self._order.by_id[dump_id] for dump_id in dump_ids]

    # The steps

    def definitions(self, entries: Sequence[Entry]) -> None:
        """Make what comes before the rows."""
        now, later = self._order.definitions(entries)
        self._later += later
        with self._session() as connection:
            self._serial(connection, now, "restoring definitions")

    def rows(self, entries: Sequence[Entry], load: Optional[Callable[[Sequence[Entry]], None]] = None) -> None:
        """Load rows, large objects and the state of sequences; ``load`` does it for those that nothing can run of."""
        ours: list[Entry] = []
        theirs: list[Entry] = []
        # Such as statistics, which hold values.
        others: list[Entry] = []
        superusers: list[Entry] = []
        with self._session() as connection:
            for entry in entries:
                if entry.desc == "TABLE DATA":
                    runs = self._runs_code(connection, entry)
                    mine = runs and not is_another(connection, owner_of(connection, self._table(connection, entry)))
                    (superusers if mine else theirs if runs else ours).append(entry)
                else:
                    (others if self._whom(connection, entry) else ours).append(entry)
            if load is None:
                for entry in ours:
                    self._load(connection, entry)
        # While nobody's code runs that could change a table between the look at it and its rows.
        if load is not None and ours:
            load(ours)
        self._parallel([partial(self._load_as_owner, entry=entry) for entry in theirs], "reading rows of owners")
        # Each by itself: roles that stand in for an owner would meet in the same rows of catalogues.
        for entry in superusers:
            self._parallel([partial(self._load_as_owner, entry=entry)], "reading rows of superusers")
        with self._session() as connection:
            self._serial(connection, others, "restoring what describes rows")

    def rest(self, entries: Sequence[Entry]) -> None:
        """Make what comes after the rows: indexes and constraints side by side, then all others."""
        long, short = self._order.long_and_short(entries)
        with self._lent(long):
            for level in levels(long):
                with self._session() as connection:
                    instead = [entry for entry in level if self._is_trusting(connection, entry)]
                    self._serial(connection, instead, "restoring indexes")
                units = self._units([entry for entry in level if entry not in instead])
                self._parallel([partial(self._group, whom=who, group=unit) for who, unit in units], "restoring indexes")
        with self._session() as connection:
            self._serial(connection, short, "restoring the rest")

    def finish(self, entries: Sequence[Entry]) -> None:
        """Make grants and fill materialized views."""
        with self._session() as connection:
            self._serial(connection, self._order.last([*self._later, *entries]), "restoring grants")

    def event_triggers(self, entries: Sequence[Entry]) -> None:
        """Make them, after which no definition may be made by us."""
        with self._session() as connection:
            self._serial(connection, self._order.event_triggers(entries), "restoring event triggers")

    # Sessions

    @contextmanager
    def _session(self) -> Iterator[Any]:
        if self._single is not None:
            yield self._single
            return
        connection = self._connect()
        try:
            yield connection
            connection.commit()
        finally:
            connection.close()

    def _parallel(self, work: Sequence[Callable[[Any], None]], what: str) -> None:
        done = itertools.count(1)
        telling = threading.Lock()

        def run(item: Callable[[Any], None]) -> None:
            for attempt in range(1, TRIES + 1):
                try:
                    with self._session() as connection:
                        item(connection)
                    break
                except Exception as error:
                    code = getattr(error, "pgcode", None)
                    passing = code == DEADLOCK or (code is not None and is_concurrent(error))
                    if not passing or attempt == TRIES or self._single is not None:
                        raise
            with telling:
                self._tell(what, next(done), len(work))

        jobs = 1 if self._single is not None else self._jobs
        if work:
            run_parallel([partial(run, item) for item in work], jobs)

    # Definitions

    def _whom(self, connection: Any, entry: Entry) -> Optional[str]:
        """Whom an item is made as; None for us."""
        owners = self._order.owners(entry)
        others = [role for role in owners if self._is_another(connection, role)]
        if others and len(owners) > 1:
            # Nobody but us may attach a table of one owner to that of another.
            names = [quote_name(table.namespace, table.tag) for table in self._order.tables_of(entry)]
            oids = [value(connection, REGCLASS, (name,)) for name in names]
            if not any(runs_users_code(connection, oid) for oid in oids if oid is not None):
                return None
        if others:
            return others[0]
        return owners[0] if owners and self._is_trusting(connection, entry) else None

    def _is_trusting(self, connection: Any, entry: Entry) -> bool:
        """Whether an item belongs to us or a superuser, and uses code of others."""
        if self._trusting is None:
            self._trusting = self._order.using_code_of(partial(self._is_another, connection))
        owners = self._order.owners(entry)
        if not owners or any(self._is_another(connection, role) for role in owners):
            return False
        if entry.desc == "MATERIALIZED VIEW DATA":
            return view_needs_cage(connection, quote_name(entry.namespace, entry.tag))
        return entry.dump_id in self._trusting

    def _is_another(self, connection: Any, role: str) -> bool:
        if role not in self._others:
            # One that is not there is not ours.
            self._others[role] = value(connection, OURS, (role,)) is not True
        return self._others[role]

    def _serial(self, connection: Any, entries: Sequence[Entry], what: str) -> None:
        done = 0
        for whom, items in itertools.groupby(entries, lambda entry: self._whom(connection, entry)):
            group = list(items)
            self._group(connection, whom, group)
            if self._single is None:
                connection.commit()
            done += len(group)
            self._tell(what, done, len(entries))

    def _units(self, entries: Sequence[Entry]) -> list[tuple[Optional[str], list[Entry]]]:
        """Items of one level in portions for sessions that work side by side."""
        size = max(1, min(20, len(entries) // (self._jobs * 4)))
        with self._session() as connection:
            whose = sorted(
                ((self._whom(connection, entry) or "", entry) for entry in entries), key=lambda item: item[0]
            )
        units = []
        for whom, items in itertools.groupby(whose, lambda item: item[0]):
            group = [entry for unused, entry in items]
            units += [(whom or None, group[start : start + size]) for start in range(0, len(group), size)]
        return units

    def _group(self, connection: Any, whom: Optional[str], group: Sequence[Entry]) -> None:
        """Make items as one role, all at once; where that is refused, in halves, so that the one at fault is named."""

        def failed(error: Any) -> None:
            if len(group) == 1:
                raise self._refused(group[0], whom, error) from error
            middle = len(group) // 2
            self._group(connection, whom, group[:middle])
            self._group(connection, whom, group[middle:])

        with savepoint(connection, failed):
            if whom is None:
                self._execute(connection, self._script.sql(group))
            else:
                self._execute_as(connection, whom, group)

    def _execute(self, connection: Any, script: str) -> None:
        if script:
            with without_default_privileges(connection) if self._single is not None else ExitStack():
                execute(connection, script)
            # Dumps of before 2018 set it for each item.
            execute(connection, "SELECT pg_catalog.set_config('search_path', %s, false)", (SAFE_PATH,))

    def _execute_as(self, connection: Any, whom: str, group: Sequence[Entry]) -> None:
        items = self._script.items(group, "--no-owner")
        if not items:
            return
        with ExitStack() as stack:
            if self._single is not None:
                stack.enter_context(without_default_privileges(connection, whom))
            back = self._lend(connection, whom, group)
            instead = None if self._is_another(connection, whom) else self._held(connection, whom, group)
            with acting_as(connection, whom, instead=instead) as owner:
                if isinstance(owner, StandIn):
                    self._lend_instead(connection, owner, whom, group)
                owner.execute_each(items)
            for statement in back:
                execute(connection, statement)
        for entry in group:
            # They need not belong to the table's owner.
            if entry.desc == "STATISTICS" and entry.owner != whom:
                name = quote_name(entry.namespace, entry.tag)
                execute(connection, f"ALTER STATISTICS {name} OWNER TO {quote_ident(entry.owner)}")

    def _held(self, connection: Any, whom: str, group: Sequence[Entry]) -> list[str]:
        """Tables (SQL) that a superuser's items are about, locked, for whom somebody else makes them."""
        about = [table for entry in group for table in self._order.tables_of(entry) if table.owner == whom]
        about += [entry for entry in group if entry.desc == "MATERIALIZED VIEW DATA"]
        names = list(dict.fromkeys(quote_name(table.namespace, table.tag) for table in about))
        for name in names:
            if value(connection, REGCLASS, (name,)) is not None:
                # Which locks a materialized view, too.
                execute(connection, f"ALTER TABLE {name} OWNER TO {quote_ident(whom)}")
        return names

    def _lend_instead(self, connection: Any, owner: StandIn, whom: str, group: Sequence[Entry]) -> None:
        """Let another make what is a superuser's; what could do more than its table is refused."""
        for entry in group:
            name = quote_name(entry.namespace, entry.tag)
            if entry.desc in ("TABLE", "MATERIALIZED VIEW", "VIEW"):
                owner.will_make("TABLE", name)
            elif entry.desc == "STATISTICS":
                owner.will_make("STATISTICS", name)
            elif entry.desc not in (*RUNNING, "INDEX ATTACH", "MATERIALIZED VIEW DATA"):
                refuse(connection, "it holds a value of a type of others, whose code would run as a superuser")
        for kind, _name, shown, privilege in needs_of_owner(self._order, whom, group):
            owner.lend(kind, shown, [privilege])
        for entry in group:
            if entry.desc == "FK CONSTRAINT":
                for table in self._order.tables_of(entry):
                    owner.lend("TABLE", quote_name(table.namespace, table.tag), ["REFERENCES"])
            if entry.desc == "MATERIALIZED VIEW DATA":
                lend_what_is_read(connection, owner, quote_name(entry.namespace, entry.tag))

    def _lend(self, connection: Any, whom: str, group: Sequence[Entry]) -> list[str]:
        """Let an owner make what was his already, whatever was taken from him since; statements that take it back."""
        back = []
        for kind, name, shown, privilege in needs_of_owner(self._order, whom, group):
            if value(connection, LACKING[kind], (whom, name, privilege)):
                execute(connection, f"GRANT {privilege} ON {kind} {shown} TO {quote_ident(whom)}")
                back.append(f"REVOKE {privilege} ON {kind} {shown} FROM {quote_ident(whom)}")
        return back

    @contextmanager
    def _lent(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Lend beforehand what sessions side by side need, since they would meet in the same rows of catalogues."""
        back: list[str] = []
        with self._session() as connection:
            by_owner: dict[str, list[Entry]] = {}
            for entry in entries:
                whom = self._whom(connection, entry)
                if whom is not None:
                    by_owner.setdefault(whom, []).append(entry)
            for whom, group in by_owner.items():
                back += self._lend(connection, whom, group)
        yield
        with self._session() as connection:
            for statement in back:
                execute(connection, statement)

    def _refused(self, entry: Entry, whom: Optional[str], error: Any) -> RecoveryError:
        name = display_name(entry.namespace or None, entry.tag)
        as_whom = ""
        if whom is not None:
            as_whom = (
                f" as its owner {whom}, so that nothing of his runs as a superuser. Where he lacks a "
                "right, give him that in the database before the next dump, or make a superuser its owner there"
            )
        return RecoveryError(
            f"{entry.desc.lower()} {name} of the dump {self._archive.path} cannot be made on {host_name()}: "
            f"{server_message(error)}{as_whom}.",
            item=entry.desc,
            name=name,
        )

    # Rows

    def _runs_code(self, connection: Any, entry: Entry) -> bool:
        """Whether rows cannot come into their table without running what another than we or a superuser wrote."""
        oid = self._table(connection, entry)
        if not is_another(connection, owner_of(connection, oid)):
            return runs_others_code(connection, oid)
        if runs_users_code(connection, oid) or value(connection, TRIGGERS_AND_RULES, {"oid": oid}) is not None:
            return True
        if self._single is None:
            return False
        # A type that was there before can get a check at any moment.
        columns = fingerprint.columns_of(connection, [oid])[oid]
        return any(not column["builtin"] and column["typtype"] != "e" for column in columns)

    def _table(self, connection: Any, entry: Entry) -> int:
        """OID of the table that rows go to, which may be the root of their partition."""
        copied = self._copied(entry)
        table = copied[1] if copied else quote_name(entry.namespace, entry.tag)
        return int(value(connection, REGCLASS, (table,)))

    def _copied(self, entry: Entry) -> Optional[re.Match[str]]:
        """Table and columns of an item's COPY statement; None where its rows are written as INSERT."""
        copied = COPIED.fullmatch(entry.copy)
        if copied is None and entry.copy:
            raise RecoveryError(f"cannot read {entry.copy!r} in {self._archive.path}")
        return copied

    def _copy(self, connection: Any, entry: Entry, target: str) -> None:
        """Rows of an item into ``target``, a table with its columns."""
        statement = entry.copy.encode(self._archive.codec, "surrogateescape")
        with self._script.stream([entry]) as output, connection.cursor() as cursor:
            encoding = quote_literal(self._archive.encoding)
            copy = f"COPY {target} FROM STDIN WITH (ENCODING {encoding})"
            cursor.copy_expert(copy, Rows(output, statement), size=BLOCK)

    def _load_as_owner(self, connection: Any, entry: Entry) -> None:
        try:
            self._take_rows(connection, entry)
        except connection.DatabaseError as error:
            if error.pgcode == DEADLOCK or is_concurrent(error):
                raise
            raise self._refused(entry, owner_of(connection, self._table(connection, entry)), error) from error

    def _take_rows(self, connection: Any, entry: Entry) -> None:
        # As under pg_restore --disable-triggers: a key that was made early must not ask for rows that are not wanted.
        execute(connection, "SET LOCAL session_replication_role = 'replica'")
        oid, copied = self._table(connection, entry), self._copied(entry)
        schema = parse_relation_list(copied[1])[0]["schema"] if copied else entry.namespace
        with acting_as_owner(connection, oid, schema, ["INSERT", "SELECT"]) as owner:
            if copied is None:
                owner.execute(self._script.sql([entry]))
                return
            names = parse_schema_list(copied[2][1:-1]) if copied[2] else []
            columns = {column["name"]: column for column in fingerprint.columns_of(connection, [oid])[oid]}
            plain = plain_columns(connection, [columns[name] for name in names])
            copy = f"{owner.schema}.copy"
            execute(connection, f"CREATE UNLOGGED TABLE {copy} ({', '.join(item.definition for item in plain)})")
            self._copy(connection, entry, copy)
            owner.lend("TABLE", copy, ["SELECT"])
            owner.execute(
                f"INSERT INTO {copied[1]} {copied[2] or ''} OVERRIDING SYSTEM VALUE "
                f"SELECT {', '.join(item.back for item in plain)} FROM {copy}"
            )

    def _load(self, connection: Any, entry: Entry) -> None:
        """In our own transaction, what pg_restore could load."""
        copied = self._copied(entry)
        if copied:
            self._copy(connection, entry, f"{copied[1]} {copied[2] or ''}")
        elif entry.desc in ("BLOB", "BLOBS", "BLOB METADATA"):
            # One statement a line; BEGIN and COMMIT are for a script that runs by itself.
            with self._script.stream([entry]) as output:
                for line in output:
                    if line.startswith((b"SELECT pg_catalog.lo", b"ALTER LARGE OBJECT ")):
                        execute(connection, line)
        else:
            self._execute(connection, self._script.sql([entry]))
