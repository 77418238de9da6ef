# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a standby before an incident, bring it exactly there, let it be read, and let it follow again.

PostgreSQL looks at its recovery target only when it starts, so the way to an exact position is: pause, write the
target, restart (whoever calls this does that, as the service manager must know), wait. The standby is never promoted:
resuming at a target would do that, and so archiving is off as long as it stands there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import (
    RecoveryTarget,
    read_back,
    recovered_instance,
    recovery_target,
    restore_plan,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._side.shown import standby_shown
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import (
    RMGRS,
    LockLog,
    Readable,
    precedes,
    unsafe_commits,
    xids_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import (
    WalSource,
    before_page_header,
    read_timelines,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    CommitLog,
    changed_filenodes,
    parse_lines,
)

SOURCE = "standby"
# A delay that lets no transaction through (the largest PostgreSQL takes, 24 days, in milliseconds).
NO_TRANSACTION = "2147483647"
# What the target needs, in the order in which it is written: should the server restart in between, the old delay holds.
ORDER = (
    "archive_mode",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_min_apply_delay",
)
# Seconds in which replay that was asked to pause has done so, or waits in front of the next record.
PAUSE_PATIENCE = 1.0
SOON = 300  # seconds
# Transactions that are looked at one by one.
FEW = 100

FACTS = """
SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       pg_is_in_recovery() AS in_recovery,
       current_setting('server_version_num')::int AS version_num,
       current_setting('data_directory') AS data_directory,
       current_setting('port')::int AS port,
       current_setting('listen_addresses') AS listen_addresses,
       current_setting('unix_socket_directories') AS socket,
       (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size') AS segment_size,
       (SELECT setting::int8 FROM pg_settings WHERE name = 'recovery_min_apply_delay') AS delay_ms,
       current_setting('restore_command') <> '' AS has_archive,
       current_setting('primary_conninfo') <> '' AS has_primary,
       current_setting('recovery_target_lsn') AS recovery_target_lsn,
       current_setting('recovery_target_inclusive') AS recovery_target_inclusive,
       current_setting('recovery_target_action') AS recovery_target_action,
       current_setting('archive_mode') AS archive_mode,
       pg_get_wal_replay_pause_state() AS pause_state,
       pg_last_wal_replay_lsn()::text AS replay_lsn,
       (SELECT redo_lsn::text FROM pg_control_checkpoint()) AS redo_lsn,
       pg_last_xact_replay_timestamp() AS replay_time,
       pg_last_wal_receive_lsn()::text AS receive_lsn,
       (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup') AS waits_for,
       greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))
         AS timeline,
       clock_timestamp() AS now
"""

# What was lost, with the partitions of it: OID, name and where the rows are.
LOST = """
WITH RECURSIVE asked AS (
    SELECT c.oid, c.relname, c.relkind FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN unnest(%(schemas)s::text[], %(names)s::text[]) AS named(schema, name)
           ON n.nspname = named.schema AND c.relname = named.name
    WHERE c.oid = ANY (%(oids)s::oid[]) OR named.name IS NOT NULL
       OR %(all)s AND c.oid >= 16384 AND n.nspname <> 'pg_toast'
  UNION
    SELECT c.oid, c.relname, c.relkind FROM asked
    JOIN pg_catalog.pg_inherits i ON i.inhparent = asked.oid JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
)
SELECT asked.oid::int8 AS oid, asked.relname::text AS name, pg_relation_filenode(asked.oid)::int8 AS filenode,
       coalesce(nullif(c.reltablespace, 0), d.dattablespace)::int8 AS tablespace
FROM asked JOIN pg_catalog.pg_class c ON c.oid = asked.oid
JOIN pg_catalog.pg_database d ON d.datname = current_database()
WHERE asked.relkind IN ('r', 'm')
"""

LOCKED_BY_REPLAY = """
SELECT l.relation::int8 AS relation FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_type = 'startup'
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
  AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def reached(replay: str, position: str, segment_size: int) -> bool:
    """Whether everything before ``position`` is replayed: nothing but the header of a page may lie between."""
    return parse_lsn(replay) >= before_page_header(parse_lsn(position), segment_size)


def seconds_left(commit_time: Optional[str], delay_ms: int, now: datetime) -> Optional[int]:
    """Seconds until a standby that goes on would replay the incident; None when its time is not known."""
    if not commit_time:
        return None
    return int(datetime.fromisoformat(commit_time).timestamp() + delay_ms / 1000 - now.timestamp())


def ago(seconds: float) -> str:
    """A duration in two units."""
    whole = max(int(seconds), 0)
    for unit, name, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // small} {smaller}"
    return f"{whole} s"


@dataclass(frozen=True)
class Asked:
    """What a standby is wanted for. ``target`` and ``database`` are needed to be brought to a target only."""

    path: str
    incident: str
    stanza: str
    target: Optional[Mapping[str, Any]] = None
    database: str = ""
    database_oid: Optional[int] = None
    relations: Sequence[Mapping[str, Any]] = ()
    system_identifier: Optional[str] = None
    client: Optional[Mapping[str, Any]] = None
    timeout: float = 3600
    bin_dir: Optional[str] = None
    config: Optional[str] = None
    executable: str = "pgbackrest"
    repo: Optional[int] = None


class StandbyRecovery:
    """One standby on this host. What was done to it is recorded at ``path``, so that it can be undone."""

    def __init__(self, login: Login, asked: Asked) -> None:
        self.login = login
        self.asked = asked
        self.side = SideInstance(asked.path)
        self.incident = asked.incident
        self.port = login.get("login_port") or 5432
        self.where = f"the standby on {self.side.host}, port {self.port},"

    # Connections

    @contextlib.contextmanager
    def session(self, database: Optional[str] = None) -> Iterator[Any]:
        connection = connect(self.login, database)
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    @staticmethod
    def rows(connection: Any, query: str, args: Any = None) -> list[dict[str, Any]]:
        with connection.cursor() as cursor:
            cursor.execute(query, args)
            if cursor.description is None:
                return []
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def facts(self, connection: Any) -> dict[str, Any]:
        """What the standby says of itself; refuses a server that is none."""
        if not self.rows(connection, "SELECT pg_is_in_recovery() AS yes")[0]["yes"]:
            raise RecoveryError(
                f"the server on {self.side.host}, port {self.port}, is not in "
                "recovery: it is no standby (any more). Nothing was changed. If it was promoted by mistake, keep "
                "its clients away and build it anew (provision-standby with -e postgresql_standby_rebuild=true). To "
                "recover without it: dr_source=pgbackrest."
            )
        return self.rows(connection, FACTS)[0]

    # The record

    def marker(self) -> Optional[dict[str, Any]]:
        return self.side.read_marker()

    @property
    def wanted(self) -> RecoveryTarget:
        return recovery_target(self.asked.target or {}, replayed=True)

    def own_marker(self) -> Optional[dict[str, Any]]:
        """The record, if the standby is held for this incident."""
        marker = self.marker()
        return marker if marker is not None and marker["incident"] == self.incident else None

    # Holding

    def hold(self) -> bool:
        """Pause replay, now. True when it ran."""
        marker = self.marker()
        if marker is not None and marker["incident"] != self.incident:
            if marker.get("target"):
                raise RecoveryError(
                    f"{self.where} stands at the target of incident {marker['incident']}. Nothing was changed. Finish "
                    "that incident first (run it again with its dr_incident_id), or use dr_source=pgbackrest for this."
                )
            # Held for an incident that came to no target: this one goes on from there.
            marker["incident"] = self.incident
            self.side.write_marker(marker)
        with self.session() as connection:
            found = self.facts(connection)
            if marker is None:
                marker = {
                    "incident": self.incident,
                    "was_paused": found["pause_state"] != "not paused",
                    "data_directory": found["data_directory"],
                    "made_path": True,
                }
                self.side.write_marker(marker)
            # On the way to its target nothing may stop it: there it pauses by itself.
            if found["pause_state"] != "not paused" or found["recovery_target_lsn"]:
                return False
            self.rows(connection, "SELECT pg_wal_replay_pause()")
            # While it waits for the delay of a record, replay does not say that it is paused, but will pause before it.
            deadline = time.monotonic() + PAUSE_PATIENCE
            while time.monotonic() < deadline and self.facts(connection)["pause_state"] != "paused":
                time.sleep(0.05)
            return True

    # The plan

    def plan(self) -> dict[str, Any]:
        """What will be done; refuses what cannot work. Changes nothing."""
        marker = self.own_marker() or {}
        if marker.get("plan"):
            return dict(marker["plan"])
        with self.session() as connection:
            found = self.facts(connection)
            self._check(connection, found)
            return self._plan(connection, found, bool(marker))

    def _check(self, connection: Any, found: Mapping[str, Any]) -> None:
        target = self.wanted
        instead = "Nothing was changed. Recover from the repository: dr_source=pgbackrest."
        if target["type"] != "lsn" or not target.get("exclusive"):
            raise RecoveryError(
                f"a standby is brought to just before an LSN, not to {target['type']} {target['value']}. {instead}"
            )
        wanted = self.asked.system_identifier
        if wanted and found["system_identifier"] != wanted:
            raise RecoveryError(
                f"{self.where} has system identifier {found['system_identifier']}, but production's is {wanted}: it "
                f"is no standby of this primary. {instead}"
            )
        if int(found["timeline"]) != int(target["timeline"]):
            raise RecoveryError(
                f"{self.where} is on timeline {found['timeline']}, but the target is on timeline {target['timeline']}. "
                f"{instead}"
            )
        client = self.asked.client
        if client and not self.rows(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", (client["user"],)):
            raise RecoveryError(
                f"{self.where} has no role {client['user']}, by which production reads it, and none can be made on a "
                "standby. Nothing was changed. Run provision-standby for the next time; now use dr_source=pgbackrest."
            )
        if parse_lsn(found["replay_lsn"]) > parse_lsn(target["value"]):
            since = seconds_left(target.get("commit_time"), int(found["delay_ms"]), found["now"])
            when = f" (about {ago(-since)} ago)" if since is not None and since < 0 else ""
            raise RecoveryError(
                f"{self.where} has already replayed past the target: it stands at {found['replay_lsn']}, the target is "
                f"{target['value']}{when}; its delay is {ago(int(found['delay_ms']) / 1000)}. {instead}",
                replay_lsn=found["replay_lsn"],
            )

    def _plan(self, connection: Any, found: Mapping[str, Any], held: bool) -> dict[str, Any]:
        target = self.wanted
        received = bool(found["receive_lsn"]) and parse_lsn(found["receive_lsn"]) > parse_lsn(target["value"])
        if not received and not found["has_archive"] and found["receiver"] != "streaming":
            raise RecoveryError(
                f"{self.where} has received WAL up to {found['receive_lsn']}, the target is {target['value']}, and it "
                "neither streams nor has a restore_command to get the rest. Nothing was changed. Mend its connection "
                "to the primary, or use dr_source=pgbackrest."
            )
        left = seconds_left(target.get("commit_time"), int(found["delay_ms"]), found["now"])
        plan: dict[str, Any] = {
            "standby": {
                "host": self.side.host,
                "port": found["port"],
                "data_directory": found["data_directory"],
                "replay_lsn": found["replay_lsn"],
                "replay_time": found["replay_time"].isoformat() if found["replay_time"] else None,
                "receive_lsn": found["receive_lsn"],
                "timeline": found["timeline"],
                "delay_seconds": int(found["delay_ms"]) // 1000,
                "held": held,
                "seconds_left": left,
                "soon": left is not None and left < SOON and not held,
                "wal": "received" if received else "archive",
                "bytes": max(parse_lsn(target["value"]) - parse_lsn(found["replay_lsn"]), 0),
            },
            "position": None,
            "locked": 0,
        }
        try:
            exact = self.readable_position(connection, found, received)
        except RecoveryError as error:
            # Until production has archived the target's WAL nobody can look into it.
            if received or "missing_segments" not in error.details:
                raise
            plan["missing"] = error.details["missing_segments"]
        else:
            plan.update(position=format_lsn(exact.lsn), locked=len(exact.locked))
        return restore_plan({**plan, "shown": standby_shown(plan)})

    def readable_position(self, connection: Any, found: Mapping[str, Any], received: bool) -> Readable:
        """The last position at which the standby shows what was lost as it was at the target.

        Raises RecoveryError when there is none, because others wrote to it in between.
        """
        target = self.wanted
        # From its last restart point on, where the primary has listed all locks, so that those already replayed count.
        start, end = parse_lsn(found["redo_lsn"]), parse_lsn(target["value"])
        # Of that name there may be another one at the position at which the standby stands, or none.
        databases = "SELECT oid::int8 AS oid FROM pg_database WHERE datname = %s"
        here = next((row["oid"] for row in self.rows(connection, databases, (self.asked.database,))), None)
        wanted = self.asked.database_oid or here
        known: set[int] = set()
        if here is not None and here == wanted:
            with self.session(self.asked.database) as inside:
                known = {row["oid"] for row in self.rows(inside, "SELECT oid::int8 AS oid FROM pg_class")}
        database = wanted if known else None
        log = LockLog(wanted, known)
        with self.wal(found, start, end, received) as source:
            for piece in source.waldump(start, end, *(f"--rmgr={name}" for name in RMGRS)):
                log.add(piece)
            exact = log.readable(end)
            if exact.lsn < parse_lsn(found["replay_lsn"]):
                raise RecoveryError(
                    f"{self.where} stands at {found['replay_lsn']}, inside the transaction that did the damage, which "
                    f"has tables locked since {format_lsn(exact.lsn)}, so that nobody can read them there. (A delay "
                    "holds back commits only: when nothing else is committed, replay runs up to the next COMMIT.) "
                    "Nothing was changed. Use dr_source=pgbackrest.",
                    readable_lsn=format_lsn(exact.lsn),
                )
            if exact.commits:
                self._check_exact(source, start, end, exact, log.next_xid, database)
        return exact

    @contextlib.contextmanager
    def wal(self, found: Mapping[str, Any], start: int, end: int, received: bool) -> Iterator[WalSource]:
        """The WAL of a stretch, from the standby's pg_wal and the archive."""
        size = int(found["segment_size"])
        pg_wal = os.path.join(found["data_directory"], "pg_wal")
        given = self.asked
        archive = StanzaArchive(given.stanza, config=given.config, executable=given.executable, repo=given.repo)
        bin_dir = find_bin_dir(int(found["version_num"]) // 10000, given.bin_dir)
        with tempfile.TemporaryDirectory(prefix="standby-wal-") as spool:
            source = WalSource(
                pg_wal=pg_wal,
                spool=spool,
                archive=archive,
                timelines=read_timelines(int(found["timeline"]), pg_wal, archive, spool),
                segment_size=size,
                system_identifier=int(found["system_identifier"]),
                waldump=os.path.join(bin_dir, "pg_waldump"),
            )
            try:
                last = (end - 1) // size
                whole = last + 1 if received else self._whole(source, found)
                source.provide(range(start // size, min(last + 1, max(whole, start // size))))
                if received and source.is_local(last + 1):
                    source.provide(range(last + 1, last + 2))  # the record at the end may go on there
                # The last file that is there looks whole, and may not be.
                source.provide(range(max(whole, start // size), last + 1), local=False)
                yield source
            finally:
                source.reader.close()

    @staticmethod
    def _whole(source: WalSource, found: Mapping[str, Any]) -> int:
        """The first segment of which the standby may not have all: what was replayed is there, and what lies before it.

        A delayed standby that was started again asks nobody for WAL, and still has what it had received before. Files
        are written one after the other, so that one is whole where the next one has begun.
        """
        known = [parse_lsn(found[name]) for name in ("receive_lsn", "replay_lsn") if found[name]]
        whole = max(known, default=0) // source.segment_size
        while source.is_local(whole) and source.is_local(whole + 1):
            whole += 1
        return whole

    def _check_exact(
        self,
        source: WalSource,
        start: int,
        end: int,
        exact: Readable,
        next_xid: Optional[int],
        database: Optional[int],
    ) -> None:
        """Refuse when what was lost changed between the readable position and the target."""
        began_before = next_xid is None or any(precedes(xid, next_xid) for xid in xids_of(exact.commits))
        removed = self._removed_files(source, end)
        if removed and not began_before and len(exact.commits) <= FEW:
            self._check_files(source, start, end, exact, removed)
            return
        for item in self._lost(database):
            commits = unsafe_commits(exact, item["oid"], end)
            if not commits:
                continue
            # Of a table that is not there yet nobody can say where its rows are.
            unknown = began_before or item["filenode"] is None
            defined = any(commit.relcache for commit in commits)
            until = exact.locked.get(item["oid"], end)
            option = f"--relation={item['tablespace']}/{database}/{item['filenode']}"
            if unknown or defined or self._wrote(source.waldump(start, until, option), xids_of(commits)):
                raise self._not_exact(str(item["name"]), exact, end)

    @staticmethod
    def _wrote(text: Iterable[bytes], xids: set[int]) -> bool:
        return any(line.xid in xids for piece in text for line in parse_lines(piece))

    @staticmethod
    def _removed_files(source: WalSource, end: int) -> set[int]:
        """Filenodes that the COMMIT at the target removes, rows that were dropped or truncated; none without one."""
        log = CommitLog()
        # Where the record goes on in WAL that is not here yet, it is not known.
        with contextlib.suppress(RecoveryError):
            for piece in source.waldump(end, (end // source.segment_size + 2) * source.segment_size, "--limit=1"):
                log.add(piece)
        return {filenode for unused, filenode in log.get(0).files} if len(log) else set()

    def _check_files(self, source: WalSource, start: int, end: int, exact: Readable, removed: set[int]) -> None:
        """Whoever committed in between may have written to anything but the files that the incident removed."""
        names = {item["oid"]: item["name"] for item in self.asked.relations if item.get("oid") is not None}
        first = next(iter(names.values()), self.asked.database)
        for commit in exact.commits:
            if commit.relcache & names.keys():
                raise self._not_exact(names[min(commit.relcache & names.keys())], exact, end)
        for xid in sorted(xids_of(exact.commits)):
            for piece in source.waldump(start, end, f"--xid={xid}", "--rmgr=Heap", "--rmgr=Heap2"):
                if changed_filenodes(piece) & removed:
                    raise self._not_exact(first, exact, end)

    def _lost(self, database: Optional[int]) -> list[dict[str, Any]]:
        """What was lost; ``filenode`` is None where the standby does not have it yet, ``oid`` 0 where it is unknown."""
        asked: Sequence[Mapping[str, Any]] = self.asked.relations
        named = [item for item in asked if item.get("oid") is None]
        lost: list[dict[str, Any]] = []
        if database is not None:
            values = {
                "oids": [item["oid"] for item in asked if item.get("oid") is not None],
                "schemas": [item["schema"] for item in named],
                "names": [item["name"] for item in named],
                "all": not asked,
            }
            with self.session(self.asked.database) as connection:
                lost = self.rows(connection, LOST, values)
        seen = {item["oid"] for item in lost} | {item["name"] for item in lost}
        for item in asked or [{"name": f"database {self.asked.database}"}] * (database is None):
            # Views, sequences and indexes have no rows of their own.
            if item.get("kind") in (None, "r", "m") and not seen & {item.get("oid"), item["name"]}:
                lost.append({"oid": item.get("oid") or 0, "name": item["name"], "filenode": None, "tablespace": None})
        return lost

    def _not_exact(self, name: str, exact: Readable, end: int) -> RecoveryError:
        return RecoveryError(
            f"{self.where} cannot show {name} as it was at {format_lsn(end)}: a transaction that is open there "
            f"has locked tables since {format_lsn(exact.lsn)}, which hides them on a standby, and {len(exact.commits)} "
            "others, which may have written to it, committed in between. Nothing was changed. Use "
            "dr_source=pgbackrest, whose side instance shows locked tables too.",
            readable_lsn=format_lsn(exact.lsn),
        )

    # To the target

    def target(self) -> dict[str, Any]:
        """Have the target written; returns {changed, plan, restart}: whether the server must be restarted for it."""
        changed = self.hold()
        marker = self.own_marker()
        if marker is None:
            raise RecoveryError(f"the record of {self.where} at {self.side.path} is gone. Run again.")
        with self.session() as connection:
            found = self.facts(connection)
            if marker.get("target"):
                self._same_target(marker)
            else:
                self._check(connection, found)
                plan = self._plan(connection, found, True)
                if plan["position"] is None:
                    raise RecoveryError(
                        f"of the WAL up to the target {self.wanted['value']}, {', '.join(plan['missing'])} is neither "
                        f"received by {self.where} nor in the archive. The standby stays paused. Have production "
                        "archive it (postgresql_wal_archive), then run again."
                    )
                marker.update(
                    target=dict(self.wanted),
                    plan=plan,
                    position=plan["position"],
                    delay_ms=int(found["delay_ms"]),
                    previous=self._in_auto_conf(connection),
                )
                self.side.write_marker(marker)
            changed = self._write(connection, self._settings(marker)) or changed
        return {
            "changed": changed,
            "plan": marker["plan"],
            "restart": not self._in_force(found, marker),
            "version_num": found["version_num"],
        }

    def _same_target(self, marker: Mapping[str, Any]) -> None:
        asked, made = ((item["type"], item["value"], item["timeline"]) for item in (self.wanted, marker["target"]))
        if asked != made:
            raise RecoveryError(
                f"{self.where} was brought to the target {made} for incident {self.incident}, not {asked}. Nothing was "
                "changed. Let it follow again first (state released and following), or go on with that target."
            )

    @staticmethod
    def _settings(marker: Mapping[str, Any]) -> dict[str, Optional[str]]:
        return {
            # Whoever resumes replay at the target promotes the standby: then it must not archive.
            "archive_mode": "off",
            "recovery_target_action": "pause",
            "recovery_target_inclusive": "off",
            "recovery_target_lsn": marker["position"],
            "recovery_min_apply_delay": "0",
        }

    def _in_auto_conf(self, connection: Any) -> dict[str, Optional[str]]:
        """Settings of ours that ALTER SYSTEM has made, None for those it has not."""
        made = self.rows(
            connection,
            "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%%/postgresql.auto.conf' "
            "AND name = ANY (%s)",
            (list(ORDER),),
        )
        return {**dict.fromkeys(ORDER), **{item["name"]: item["setting"] for item in made}}

    def _write(self, connection: Any, settings: Mapping[str, Optional[str]]) -> bool:
        """Have ALTER SYSTEM make these settings (None takes one back). True when something changed."""
        before = self._in_auto_conf(connection)
        for name in sorted(settings, key=ORDER.index):
            value = settings[name]
            if before[name] != value:
                statement = f"ALTER SYSTEM RESET {quote_ident(name)}"
                if value is not None:
                    statement = f"ALTER SYSTEM SET {quote_ident(name)} = {quote_literal(value)}"
                self.rows(connection, statement)
        return any(before[name] != value for name, value in settings.items())

    @staticmethod
    def _in_force(found: Mapping[str, Any], marker: Mapping[str, Any]) -> bool:
        return (
            found["recovery_target_lsn"] == marker["position"]
            and found["recovery_target_inclusive"] == "off"
            and found["recovery_target_action"] == "pause"
            and found["archive_mode"] == "off"
        )

    def pause(self) -> dict[str, Any]:
        """Wait until replay is paused at the target, prove it; the recovered instance and the proof."""
        marker = self.own_marker()
        if marker is None or not marker.get("target"):
            raise RecoveryError(f"{self.where} has no target yet. Nothing was changed. Give it one (state targeted).")
        self._same_target(marker)
        began = time.monotonic()
        found = self.wait(lambda seen: self._at_target(seen, marker), f"stand at {marker['position']}")
        with self.session(self.asked.database) as connection:
            locked = self.rows(connection, LOCKED_BY_REPLAY)
        if locked:
            oids = ", ".join(str(item["relation"]) for item in locked)
            raise RecoveryError(
                f"on {self.where} a transaction that began before it was held has locked relations (OID {oids}) of "
                f"database {self.asked.database}: nobody can read them there. Production was not touched. Let the "
                "standby go on (role recovery_source_standby, entry point absent) and use dr_source=pgbackrest."
            )
        if "reached" not in marker:
            marker["reached"] = {
                "lsn": found["replay_lsn"],
                "time": found["replay_time"].isoformat() if found["replay_time"] else None,
                "timeline": int(marker["target"]["timeline"]),
            }
            replayed = parse_lsn(found["replay_lsn"]) - parse_lsn(marker["plan"]["standby"]["replay_lsn"])
            marker["replay"] = {"seconds": round(time.monotonic() - began, 1), "bytes": max(replayed, 0)}
            self.side.write_marker(marker)
        client = self.asked.client
        instance = {
            "source": SOURCE,
            "host": client["host"] if client else None,
            "port": found["port"],
            "socket": found["socket"].split(",")[0].strip(),
            "database": self.asked.database,
            "state": "paused",
            "reached": marker["reached"],
            # Nothing can be written in recovery, nor reach the repository should somebody end it.
            "isolation": read_back({name: found[name] for name in ("in_recovery", "archive_mode", "pause_state")}),
            "path": found["data_directory"],
            "data_directory": found["data_directory"],
            "version_num": found["version_num"],
            "system_identifier": found["system_identifier"],
            "user": client["user"] if client else self.login.get("login_user"),
        }
        if client:
            instance.update(passfile=client["passfile"], sslmode="require", channel_binding="require")
        proof = {
            "archive_mode": found["archive_mode"],
            "in_recovery": found["in_recovery"],
            "pause_state": found["pause_state"],
            "replay_lsn": found["replay_lsn"],
            "recovery_target_lsn": found["recovery_target_lsn"],
            "recovery_target_inclusive": found["recovery_target_inclusive"],
            "tables_locked": 0,
            "system_identifier": found["system_identifier"],
        }
        return {
            "changed": False,
            "instance": recovered_instance(instance),
            "proof": proof,
            "replay": marker["replay"],
        }

    def _at_target(self, found: Mapping[str, Any], marker: Mapping[str, Any]) -> bool:
        if not self._in_force(found, marker):
            raise RecoveryError(
                f"{self.where} was not restarted since its target was written, or another file overrules it: "
                f"recovery_target_lsn is {found['recovery_target_lsn']!r} instead of {marker['position']!r}, "
                f"archive_mode is {found['archive_mode']!r}. Restart it, then run again."
            )
        begin, end = parse_lsn(marker["plan"]["standby"]["replay_lsn"]), parse_lsn(marker["position"])
        self.side.progress("replay", max(parse_lsn(found["replay_lsn"]) - begin, 0), max(end - begin, 0), "bytes")
        if found["pause_state"] != "paused":
            return False
        if not reached(found["replay_lsn"], marker["position"], int(found["segment_size"])):
            raise RecoveryError(
                f"{self.where} paused at {found['replay_lsn']}, before its target {marker['position']}: a setting is "
                "lower than on the primary (its log names it), or somebody paused it. Production was not touched. Mend "
                "that, restart the standby and run again."
            )
        return True

    def wait(self, ready: Any, what: str) -> dict[str, Any]:
        """Facts of the standby as soon as ``ready`` says so; RecoveryError when the time is over."""
        deadline = time.monotonic() + self.asked.timeout
        said = "it does not let anybody in"
        while True:
            try:
                with self.session() as connection:
                    found = self.facts(connection)
            except RecoveryError as error:
                # Just restarted it is not ready yet; that it is none any more does not pass.
                if "cannot connect" not in error.msg:
                    raise
                said = error.msg
            else:
                if ready(found):
                    return found
                said = f"replay stands at {found['replay_lsn']}, {found['pause_state']}, receiver {found['receiver']}"
            if time.monotonic() > deadline:
                raise RecoveryError(
                    f"after {self.asked.timeout} s {self.where} does not {what}: {said}. Production was not "
                    "touched. See the standby's log; run again to wait longer, or raise timeout."
                )
            time.sleep(0.2)

    # Back

    def release(self) -> dict[str, Any]:
        """Take the target back, or end the hold; returns {changed, restart}."""
        marker = self.own_marker()
        if marker is None:
            return {"changed": False, "restart": False}
        with self.session() as connection:
            found = self.facts(connection)
            if not marker.get("target"):
                if not marker["was_paused"] and found["pause_state"] != "not paused":
                    self.rows(connection, "SELECT pg_wal_replay_resume()")
                return {"changed": True, "restart": False}
            settings = dict(marker["previous"])
            if marker["was_paused"]:
                # Until it can be paused again it may replay nothing that anybody would see.
                settings["recovery_min_apply_delay"] = NO_TRANSACTION
            changed = self._write(connection, settings)
            restart = found["recovery_target_lsn"] != ""
            return {"changed": changed, "restart": restart, "version_num": found["version_num"]}

    def follow(self) -> dict[str, Any]:
        """See that it follows the primary again as it did before; forget the incident."""
        marker = self.own_marker()
        if marker is None:
            return {"changed": False}
        if marker["was_paused"] and marker.get("target"):
            self.wait(lambda seen: seen["recovery_target_lsn"] == "", "start without its target")
            with self.session() as connection:
                self.rows(connection, "SELECT pg_wal_replay_pause()")
                self._write(connection, {"recovery_min_apply_delay": marker["previous"]["recovery_min_apply_delay"]})
                self.rows(connection, "SELECT pg_reload_conf()")
        delay = marker.get("delay_ms")

        def follows(seen: Mapping[str, Any]) -> bool:
            # PostgreSQL asks for more WAL only when it has replayed what it has, so it may wait for the delay first.
            waits = seen["waits_for"] in ("RecoveryApplyDelay", "RecoveryPause") or not seen["has_primary"]
            return (
                seen["recovery_target_lsn"] == ""
                and delay in (None, int(seen["delay_ms"]))
                and (seen["pause_state"] != "not paused") == marker["was_paused"]
                and (waits or seen["receiver"] == "streaming")
            )

        found = self.wait(follows, "follow the primary again")
        self.side.remove()
        return {
            "changed": True,
            "following": {
                "replay_lsn": found["replay_lsn"],
                "receive_lsn": found["receive_lsn"],
                "receiver": found["receiver"],
                "waits_for": found["waits_for"],
                "delay_seconds": int(found["delay_ms"]) // 1000,
                "pause_state": found["pause_state"],
                "archive_mode": found["archive_mode"],
            },
        }


def ensure_state(login: Login, asked: Asked, state: str, check_mode: bool = False) -> dict[str, Any]:
    """Ensure a state of the standby; returns the module's result."""
    recovery = StandbyRecovery(login, asked)
    if check_mode:
        if state == "targeted":
            marker = recovery.own_marker() or {}
            return {"changed": "target" not in marker, "plan": recovery.plan(), "restart": "target" not in marker}
        held = recovery.own_marker() is not None
        return {"changed": held if state in ("released", "following") else not held}
    if state in ("released", "following") and recovery.own_marker() is None:
        return {"changed": False, "restart": False}
    os.makedirs(recovery.side.path, mode=0o700, exist_ok=True)
    with recovery.side.locked(asked.timeout):
        if state == "held":
            return {"changed": recovery.hold()}
        if state == "targeted":
            return recovery.target()
        if state == "paused":
            return recovery.pause()
        return recovery.release() if state == "released" else recovery.follow()
