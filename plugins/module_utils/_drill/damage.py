# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage for a drill, done for real, in a copy and nowhere else; and whether all of it came back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._drill.change import change, session_of
from ansible_collections.dbre.recovery.plugins.module_utils._drill.copy import CopyInstance
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import owner_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import difference, take_fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations, require_known
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery

SCHEMA, TABLE = "dbre_drill", "written"
START_TIMEOUT = 300  # seconds
COMMITS, PAUSE = 50, 0.02  # seconds between two commits
SCHEMAS = """
SELECT nspname AS name FROM pg_catalog.pg_namespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' ORDER BY nspname
"""
# A CASCADE takes views, too.
VIEWS = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY(%s) AND c.relkind IN ('v', 'm')
"""
# What empties or changes a table does so with its partitions and children, too.
FOREIGN_BELOW = """
WITH RECURSIVE tree AS (
  SELECT %s::oid AS oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON tree.oid = i.inhparent
)
SELECT EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.relkind = 'f')
"""
# No trigger, rule or event trigger of the copy takes part, as none did when a backup was restored.
ALONE = "SET session_replication_role = replica"
XID = "SELECT pg_catalog.txid_current()"
OWN = f"SELECT id, at FROM {SCHEMA}.{TABLE} ORDER BY id"
DAMAGES = {"drop": "DROP TABLE {} CASCADE", "truncate": "TRUNCATE {} CASCADE", "delete": "DELETE FROM {}"}
CHANGE = "update"
PAGES = "pages"
KINDS = (*DAMAGES, CHANGE, PAGES)
# The files of tables that hold rows, of partitioned ones those of their partitions.
FILES = """
SELECT pg_catalog.pg_relation_filepath(c.oid) AS path
FROM (SELECT DISTINCT coalesce(tree.relid::oid, asked.oid) AS oid FROM unnest(%s::oid[]) AS asked(oid)
      LEFT JOIN LATERAL pg_catalog.pg_partition_tree(asked.oid) AS tree ON true) AS wanted
JOIN pg_catalog.pg_class c ON c.oid = wanted.oid
WHERE c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0
"""
# Where the header of a page tells its end, which is then past that (pd_upper in bufpage.h).
PD_UPPER, WRONG_END = 14, b"\xff\xff"


class DrilledCopy:
    """The copy at a path, which alone is ever damaged: no host, port or socket can be named."""

    def __init__(self, path: str, database: str) -> None:
        self.instance = CopyInstance(path)
        self.database = database
        self.marker = self.instance.marker()
        self.kept = self.instance.below("before.json")
        if "drill" not in self.marker:
            raise RecoveryError(
                f"what is at {self.instance.path} on {self.instance.host} is no copy for a drill. Nothing was touched."
            )

    def session(self) -> Any:
        """A session in the copy; RecoveryError where what answers is not the copy."""
        login: Any = {
            "login_unix_socket": self.instance.run_dir,
            "login_port": self.marker["port"],
            "login_user": self.marker["superuser"],
        }
        connection = connect(login, self.database, application_name="dbre.recovery drill", libraries=False)
        if value(connection, "SHOW data_directory") != self.instance.data:
            connection.close()
            raise RecoveryError(f"what answers at {self.instance.run_dir} is not the copy. Nothing was touched.")
        return connection

    def damage(self, tables: Sequence[str], kind: str, commits: int = COMMITS) -> dict[str, Any]:
        """Commit a little, keep what is there, and do the damage, all of it in one transaction."""
        with closing(self.session()) as connection, translated_errors():
            wanted = parse_relation_list(tables)
            found = find_relations(connection, wanted)
            require_known(found, [(item["schema"], item["name"]) for item in wanted], "table", connection)
            strange = [display_name(*key) for key, item in found.items() if item["kind"] not in ("r", "p")]
            if strange:
                raise RecoveryError(f"{', '.join(strange)} cannot be drilled on: it is no table. Name tables.")
            self.require_local(connection, found, kind)
            owners = {owner_of(connection, item["oid"]) for item in found.values()}
            if kind == CHANGE and len(owners) > 1:
                raise RecoveryError(
                    f"the tables belong to {', '.join(sorted(owners))}, and one statement is one role's. Nothing was "
                    "changed. Name tables of one owner."
                )
            self.write(connection, min(owners), commits)
            hit = [*wanted, {"schema": SCHEMA, "name": TABLE}]
            before = self.look(connection, hit)
            write_atomically(self.kept, json.dumps(before))
            connection.rollback()
            names = [quote_name(item["schema"], item["name"]) for item in hit]
            xid, files = None, []
            if kind == PAGES:
                oids = [item["oid"] for item in find_relations(connection, hit).values()]
                files = [item["path"] for item in rows(connection, FILES, (oids,))]
                connection.rollback()
            elif kind == CHANGE:
                xid = self.change(connection, min(owners), hit)
            else:
                xid = self.empty(connection, names, kind)
            done = value(connection, "SELECT pg_catalog.clock_timestamp()").isoformat()
        if files:
            self.spoil(files)
        return {
            "kind": kind,
            "tables": [display_name(item["schema"], item["name"]) for item in hit],
            "names": names,
            "xid": xid,
            "at": done,
            "rows": sum(int(one.get("rows") or 0) for one in before["content"].values()),
            "written": len(before["written"]),
        }

    @staticmethod
    def require_local(connection: Any, found: Mapping[tuple[str, str], Mapping[str, Any]], kind: str) -> None:
        """Refuse to empty or change what is not in the copy; a foreign table that is dropped keeps its rows."""
        elsewhere = [
            display_name(*key) for key, item in found.items() if value(connection, FOREIGN_BELOW, (item["oid"],))
        ]
        if elsewhere and kind != "drop":
            raise RecoveryError(
                f"{', '.join(elsewhere)} cannot be drilled on this way: rows of foreign tables below are on another "
                "server, not in the copy, and would be lost there. Nothing was touched. Name other tables or "
                "partitions, or drill a drop."
            )

    def empty(self, connection: Any, names: Sequence[str], kind: str) -> int:
        """Drop or empty them in one transaction; which it was."""
        execute(connection, ALONE)
        for one in names if kind == "delete" else [", ".join(names)]:
            execute(connection, DAMAGES[kind].format(one))
        xid = int(value(connection, XID)) % 2**32
        connection.commit()
        return xid

    def spoil(self, files: Sequence[str]) -> None:
        """Spoil the first page of each file on disk, as a disk does, while the server has nothing in its memory."""
        self.instance.stop(self.marker)
        for path in files:
            with open(f"{self.instance.data}/{path}", "r+b") as file:
                file.seek(PD_UPPER)
                file.write(WRONG_END)
        self.instance.start(dict(self.marker))
        SideRecovery(self.instance, START_TIMEOUT).wait_open()

    def change(self, connection: Any, owner: str, hit: Sequence[Mapping[str, str]]) -> int:
        """Change every row in one transaction; which it was."""
        with closing(session_of(self.instance, self.marker, connection, owner, self.database)) as session:
            for table in hit:
                change(session, table)
            xid = int(value(session, XID)) % 2**32
            session.commit()
        return xid

    def write(self, connection: Any, owner: str, commits: int) -> None:
        """Commit one row after the other: what is promised until the damage, by which loss is measured."""
        role = quote_ident(owner)
        execute(connection, f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {role}")
        execute(connection, f"CREATE TABLE {SCHEMA}.{TABLE} (id int PRIMARY KEY, at timestamptz NOT NULL)")
        execute(connection, f"ALTER TABLE {SCHEMA}.{TABLE} OWNER TO {role}")
        connection.commit()
        for number in range(commits):
            execute(connection, f"INSERT INTO {SCHEMA}.{TABLE} VALUES (%s, pg_catalog.clock_timestamp())", (number,))
            connection.commit()
            time.sleep(PAUSE)

    def look(self, connection: Any, hit: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The content of what is hit, and the definition of everything: a CASCADE takes more than rows."""
        schemas = [item["name"] for item in rows(connection, SCHEMAS)]
        content = take_fingerprint(connection, hit, [])
        definitions = take_fingerprint(connection, rows(connection, VIEWS, (schemas,)), schemas, checksum=False)
        written = [[item["id"], item["at"].isoformat()] for item in rows(connection, OWN)]
        return {
            "content": content,
            "definitions": definitions,
            "written": written,
            "hit": list(hit),
            "schemas": schemas,
        }

    def compare(self) -> dict[str, Any]:
        """Whether everything is as it was just before the damage, and what of the commits is lost."""
        with open(self.kept, encoding="utf-8") as file:
            before = json.load(file)
        with closing(self.session()) as connection, translated_errors():
            gone = self.gone(connection, before)
            here = {key: [] if gone else self.compared(connection, before, key) for key in ("content", "definitions")}
            own = f"{SCHEMA}.{TABLE}" not in {display_name(one["schema"], one["name"]) for one in gone}
            back = {item["id"]: item["at"].isoformat() for item in rows(connection, OWN)} if own else {}
        lost = [at for number, at in before["written"] if back.get(number) != at]
        found = [f"{display_name(item['schema'], item['name'])} is not there" for item in gone]
        found += [f"{item['relation']}: {item['property']}" for item in [*here["content"], *here["definitions"]]]
        return {
            "equal": not found and not lost,
            "different": list(dict.fromkeys(found)),
            "written": len(before["written"]),
            "lost": len(lost),
            "lost_since": min(lost, default=None),
        }

    @staticmethod
    def gone(connection: Any, before: Mapping[str, Any]) -> list[Mapping[str, str]]:
        there = find_relations(connection, before["hit"])
        return [item for item in before["hit"] if (item["schema"], item["name"]) not in there]

    @staticmethod
    def compared(connection: Any, before: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        if key == "content":
            now = take_fingerprint(connection, before["hit"], [])
        else:
            schemas = before["schemas"]
            now = take_fingerprint(connection, rows(connection, VIEWS, (schemas,)), schemas, checksum=False)
            # What a recovery leaves beside in these schemas is no damage.
            now = {name: item for name, item in now.items() if name in before[key]}
        connection.rollback()
        return [dict(item) for item in difference(json.loads(json.dumps(before[key])), json.loads(json.dumps(now)))]
