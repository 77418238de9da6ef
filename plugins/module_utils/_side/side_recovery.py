# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a side instance to its recovery target and out of recovery, and prove where it is and that it is caged."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Optional, Protocol

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import (
    ReadBack,
    RecoveredInstance,
    read_back,
    recovered_instance,
    recovery_target,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.restore import (
    archived_timelines,
    parse_lsn,
    parse_segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SUPERUSER_SETTINGS,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.recovery_log import explain_end, says_that_it_stopped
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_checks import (
    check_pages,
    count_ignored,
    find_database,
    is_restored,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_client import check_listen, networks
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    NOT_COUNTED,
    TAKEN,
    SideInstance,
    boot_id,
)

# What libpq says of a server that is about to be ready, or that just went away.
_NOT_YET = (
    "starting up",
    "not yet accepting",
    "not accepting connections",
    "shutting down",
    "in recovery mode",  # its startup process has just crashed
    "No such file or directory",
    "Connection refused",
    "closed the connection unexpectedly",
)
# SQLSTATEs of a session that ended with the server: none at all, admin_shutdown, crash_shutdown, cannot_connect_now.
_SESSION_ENDED = (None, "57P01", "57P02", "57P03")
# SQLSTATE of a recovery control function outside of recovery: object_not_in_prerequisite_state.
_NOT_IN_RECOVERY = "55000"
CERTIFICATE_DAYS = "30"


class KeepsImages(Protocol):
    """What an instance shows of a transaction, just before and just after it."""

    def move_past(self) -> None:
        """Before it is promoted."""

    def keep(self) -> bool:
        """Once it is; whether anything was changed."""


class SideRecovery:
    """The states of one side instance: paused at the target, promoted, stopped."""

    def __init__(self, instance: SideInstance, timeout: float) -> None:
        self.instance = instance
        self.timeout = timeout
        self.marker = instance.marker()
        self.observer: Optional[Any] = None
        self.isolation: list[ReadBack] = []
        # How far the log was read for has_stopped(), from where the server was last started.
        self._log: dict[str, int] = {"begin": -1, "read": 0, "stopped": False}

    # Connections

    def session(self, database: Optional[str] = None) -> Any:
        """A session of the superuser by the socket, each statement its own transaction."""
        connection = connect(
            {
                "login_unix_socket": self.instance.run_dir,
                "login_port": self.marker["port"],
                "login_user": self.marker["superuser"],
            },
            database or self.marker["control_database"],
            libraries=False,
        )
        connection.autocommit = True
        return connection

    def rows(self, sql: str, values: tuple[Any, ...] = (), database: Optional[str] = None) -> list[tuple[Any, ...]]:
        """Rows of one query in a session of its own."""
        connection = self.session(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def try_session(self) -> Optional[Any]:
        """A session, or None while the server is not ready for one, or replays.

        Who begins a session writes a file of his own into the directory of his database. Replay of a CREATE DATABASE
        that copies files (STRATEGY file_copy, and any before PostgreSQL 15) lists the directory of its template, and
        ends with a FATAL error where one of these is gone when its turn comes.
        """
        in_recovery = os.path.exists(os.path.join(self.instance.data, "recovery.signal"))
        if not self.instance.accepts_connections() or (in_recovery and not self.has_stopped()):
            return None
        try:
            return self.session()
        except RecoveryError as error:
            if any(words in error.msg for words in _NOT_YET):
                return None
            raise

    # Looking

    def has_stopped(self) -> bool:
        """Whether the log says that replay has stopped, at its target or for a setting that is too low."""
        begin = int(self.marker.get("log_offset", 0))
        if self._log["begin"] != begin:
            self._log = {"begin": begin, "read": begin, "stopped": False}
        if not self._log["stopped"]:
            text, self._log["read"] = self.instance.log_from(self._log["read"])
            self._log["stopped"] = says_that_it_stopped(text)
        return bool(self._log["stopped"])

    def state(self) -> str:
        """restoring, stopped, starting, replaying, paused, promoted, or unknown where it runs and lets us not in.

        It is what the server says, not what we recorded.
        """
        if self.marker["state"] != "restored":
            return "restoring"
        if self.instance.pid() is None:
            return "stopped"
        try:
            connection = self.try_session()
        except RecoveryError:
            return "unknown"
        if connection is None:
            return "replaying" if self.instance.accepts_connections() else "starting"
        try:
            look = self.look(connection)
        finally:
            connection.close()
        if not look["in_recovery"]:
            return "promoted"
        return "paused" if look["pause_state"] == "paused" and self.stopped_at_target(look) else "replaying"

    def look(self, connection: Any) -> dict[str, Any]:
        """Where replay stands."""
        pause = "pg_get_wal_replay_pause_state()"
        if connection.server_version < 140000:
            pause = "CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END"
        out = {"in_recovery": False, "pause_state": None, "replay_lsn": None, "time": None}
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            if not cursor.fetchone()[0]:
                return out
            try:
                cursor.execute(f"SELECT {pause}, pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp()")
            except Exception as error:
                # A promotion may end between the two questions.
                if getattr(error, "pgcode", None) != _NOT_IN_RECOVERY:
                    raise
                return out
            pause_state, lsn, moment = cursor.fetchone()
        return {
            "in_recovery": True,
            "pause_state": pause_state,
            "replay_lsn": lsn,
            "time": moment.isoformat() if moment else None,
        }

    def stopped_at_target(self, look: Mapping[str, Any]) -> bool:
        """Whether the pause is the one at the target: a pause for a setting that is too low looks the same.

        PostgreSQL's log says why it stopped; for an LSN the numbers must agree as well.
        """
        log = self.instance.recovery_log(self.marker)
        if log.stopping is None:
            return False
        target = self.marker["target"]
        if target["type"] != "lsn":
            return True
        if log.stopping_lsn is None:
            return False
        stopped, wanted = parse_lsn(log.stopping_lsn), parse_lsn(str(target["value"]))
        if target.get("exclusive"):
            return stopped >= wanted and parse_lsn(look["replay_lsn"]) <= stopped
        return parse_lsn(look["replay_lsn"]) >= wanted

    # Doing

    def require_usable(self) -> None:
        """Refuse what was not restored, or was restored before the host was booted."""
        where = f"the side instance at {self.instance.path} on {self.instance.host}"
        if self.marker["state"] == TAKEN:
            raise RecoveryError(f"{where} takes the place of production, and is not started by itself any more.")
        if self.marker["state"] != "restored":
            raise RecoveryError(f"{where} is not restored yet. Run pgbackrest_restore again: it goes on.")
        if self.marker["boot_id"] != boot_id():
            raise RecoveryError(
                f"{where} was restored before the host was booted, without fsync: what is on disk cannot be relied on. "
                "Run pgbackrest_restore again: it compares every file with the backup."
            )

    def ensure_started(self) -> bool:
        """Start the server unless it runs. True when started."""
        if self.instance.pid() is not None:
            return False
        # Whatever kept it from starting may have been mended in what we were told.
        self.instance.write_settings(self.marker)
        self.instance.start(self.marker)
        return True

    def wait_paused(self) -> dict[str, Any]:
        """Replay to the target and return {lsn, time, timeline} of the proven pause. Loud when it cannot be."""
        deadline = time.monotonic() + self.timeout
        look: dict[str, Any] = {}
        told = 0.0
        try:
            while True:
                if self.instance.pid() is None:
                    self.restart_with_higher_settings()
                look = self.observe() or look
                if look.get("pause_state") == "paused":
                    if self.stopped_at_target(look):
                        self.tell_progress(look)
                        return {
                            "lsn": look["replay_lsn"],
                            "time": look["time"],
                            "timeline": int(self.marker["target"]["timeline"]),
                        }
                    if self.instance.recovery_log(self.marker).too_low:
                        self.hang_up()
                        self.instance.stop(self.marker)
                        look = {}
                        continue
                if time.monotonic() - told >= 1:
                    told = time.monotonic()
                    self.tell_progress(look)
                if time.monotonic() > deadline:
                    stands = look.get("replay_lsn") or self.instance.replaying_segment() or "before its first record"
                    raise RecoveryError(
                        f"after {self.timeout:.0f} s replay at {self.instance.path} on {self.instance.host} stands at "
                        f"{stands}; its target is {self.marker['target']['type']} {self.marker['target']['value']}. It "
                        "goes on by itself. Run again to wait longer, or raise timeout.",
                        replay_lsn=look.get("replay_lsn"),
                    )
                time.sleep(0.05)
        finally:
            self.hang_up()

    def observe(self) -> Optional[dict[str, Any]]:
        """Where replay stands, by a session that is kept; None while the server does not let us in or just ended."""
        try:
            self.observer = self.observer or self.try_session()
            if self.observer is None:
                return None
            look = self.look(self.observer)
        except RecoveryError:
            raise
        except Exception as error:
            # The server may end at any moment, and takes our session with it.
            if getattr(error, "pgcode", None) not in _SESSION_ENDED:
                raise
            self.hang_up()
            return None
        if not look["in_recovery"]:
            raise RecoveryError(
                f"the side instance at {self.instance.path} on {self.instance.host} left recovery before it was seen "
                "paused at its target: nothing in it can be trusted. Remove it (state=absent) and restore again."
            )
        return look

    def hang_up(self) -> None:
        """End the session that observes replay."""
        if self.observer is not None:
            self.observer.close()
            self.observer = None

    def restart_with_higher_settings(self) -> None:
        """Start a server that ended or paused for a setting raised on production; explain any other end."""
        log = self.instance.recovery_log(self.marker)
        higher = {name: value for name, value in log.too_low.items() if value > int(self.marker["settings"][name])}
        if not higher:
            raise RecoveryError(
                explain_end(log, self.instance.host, self.instance.log_file),
                missing_wal=log.missing_segment,
                redo_done=log.redo_done,
                target_not_reached=log.target_not_reached,
            )
        self.marker["raised"] = {**self.marker.get("raised", {}), **higher}
        self.marker["settings"].update({name: str(value) for name, value in higher.items()})
        self.instance.write_settings(self.marker)
        self.instance.start(self.marker)

    def tell_progress(self, look: Mapping[str, Any]) -> None:
        """Progress of replay in WAL files, from the position, or from the startup process before it lets us in."""
        wal = self.marker["plan"]["wal"]
        size = wal["bytes"] // wal["count"]
        first = parse_segment_name(wal["first"], size)[1]
        if look.get("replay_lsn"):
            done = parse_lsn(look["replay_lsn"]) / size - first
        else:
            name = self.instance.replaying_segment()
            done = parse_segment_name(name, size)[1] - first if name else 0
        self.instance.progress("replay", round(max(done, 0), 1), wal["count"], "WAL files")

    def prove(self) -> dict[str, Any]:
        """Read back from the running server that it is caged and is who we think; stop it and fail when not."""
        names = [
            "archive_mode",
            "archive_command",
            "listen_addresses",
            "primary_conninfo",
            "shared_preload_libraries",
            "max_logical_replication_workers",
            "config_file",
            "data_directory",
        ]
        proof: dict[str, Any] = dict(self.rows("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (names,)))
        (counts,) = self.rows(
            "SELECT (SELECT count(*) FROM pg_replication_slots),"
            " (SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL),"
            " (SELECT count(*) FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),"
            " (SELECT system_identifier::text FROM pg_control_system())"
        )
        proof.update(zip(("slots", "subscription_workers", "wal_receivers", "system_identifier"), counts))
        if proof["archive_command"] == "(disabled)":
            proof["archive_command"] = ""
        status = os.path.join(self.instance.data, "pg_wal", "archive_status")
        proof["wal_to_archive"] = len([name for name in os.listdir(status) if name.endswith(".ready")])
        expected = {
            "archive_mode": "off",
            "archive_command": "",
            "listen_addresses": (self.marker.get("client") or {}).get("listen", ""),
            "primary_conninfo": "",
            "shared_preload_libraries": "",
            "max_logical_replication_workers": "0",
            "config_file": self.instance.below("postgresql.conf"),
            "data_directory": self.instance.data,
            "slots": 0,
            "subscription_workers": 0,
            "wal_receivers": 0,
            "system_identifier": self.marker["system_identifier"],
            "wal_to_archive": 0,
        }
        wrong = {name: proof[name] for name, value in expected.items() if proof[name] != value}
        if wrong:
            self.instance.stop(self.marker)
            named = ", ".join(f"{name} is {value!r} instead of {expected[name]!r}" for name, value in wrong.items())
            raise RecoveryError(
                f"the side instance at {self.instance.path} on {self.instance.host} is not isolated: {named}. It was "
                "stopped. Compare the repository's archive and production's slots with what they should be.",
                proof=proof,
            )
        self.isolation = read_back(proof)
        return proof

    def pause(self) -> tuple[dict[str, Any], bool]:
        """Ensure paused at the target; returns (proof, changed)."""
        self.require_usable()
        began = time.monotonic()
        changed = self.ensure_started()
        reached = self.wait_paused()
        changed = changed or self.marker.get("reached") != reached
        if changed:
            wal = self.marker["plan"]["wal"]
            # Without the target's WAL file known beforehand, how much was replayed is known only now.
            start = self.marker["plan"]["set"]["start_lsn"]
            replayed = parse_lsn(reached["lsn"]) - parse_lsn(start) if start else wal["bytes"]
            self.marker["replay"] = {
                "seconds": round(time.monotonic() - began, 1),
                "segments": wal["count"],
                "bytes": max(replayed, 0),
            }
        self.marker["reached"] = reached
        self.instance.write_marker(self.marker)
        self.check_restored()
        log = self.instance.recovery_log(self.marker)
        proof = {**self.prove(), "pause_state": "paused", "replay_lsn": reached["lsn"], "stopped": log.stopping}
        self.marker["proof_of_pause"] = {name: proof[name] for name in ("pause_state", "replay_lsn", "stopped")}
        self.instance.write_marker(self.marker)
        return proof, changed

    def check_restored(self) -> None:
        """Refuse, and stop, an instance that lacks something of what was asked for, when databases were left out."""
        plan = self.marker["plan"]
        there = self.rows("SELECT oid::int8, datname::text FROM pg_database")
        found = find_database(self.marker["database"], self.marker.get("database_oid"), there)
        self.marker["database_there"] = found[1] if found else self.marker["database"]
        if not plan.get("left_out"):
            return
        if found and not is_restored(found[0], plan) and not self.is_made_by_wal(*found):
            self.instance.stop(self.marker)
            self.marker.update(state="restoring", restore_all=True)
            self.instance.write_marker(self.marker)
            raise RecoveryError(
                f"database {self.marker['database']!r} of the target (OID {found[0]}) is not the one that set "
                f"{plan['set']['label']} has under that name: it was made later, out of one that was left out. "
                "Production was not touched. Run again: then all databases are restored."
            )
        pages = self.instance.invalid_pages(self.marker, found[0] if found else 0)
        names = {**dict(there), **{item["oid"]: item["name"] for item in plan["set_databases"]}}
        try:
            check_pages(pages, names, plan)
        except RecoveryError:
            self.instance.stop(self.marker)
            raise
        self.marker.setdefault("replay", {})["ignored_invalid_pages"] = count_ignored(pages, names)

    def is_made_by_wal(self, oid: int, name: str) -> bool:
        """Whether a database that the set lacks is whole: one copied from files that were left out lets nobody in.

        Such a copy has no map of its catalogues' files (PostgreSQL: RelationMapInitializePhase3 in relmapper.c).
        """
        if oid in {item["oid"] for item in self.marker["plan"]["left_out"]}:
            return False
        try:
            self.rows("SELECT 1", database=name)
        except RecoveryError:
            return False
        return True

    def rename_database(self) -> bool:
        """Give the asked database the name that it has in production now. True when it had another at the target."""
        asked, there = self.marker["database"], self.marker.get("database_there")
        if asked is None or there in (None, asked):
            return False
        names = {name for (name,) in self.rows("SELECT datname::text FROM pg_database")}
        for old, new in ((asked, f"{asked[:40]} at the target"), (there, asked)):
            if old in names:
                self.rows(f"ALTER DATABASE {quote_ident(old)} RENAME TO {quote_ident(new)}")
        self.marker["database_there"] = asked
        self.instance.write_marker(self.marker)
        return True

    def promote(
        self, client: Optional[Mapping[str, Any]], before: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, Any], bool]:
        """Ensure promoted, from a proven pause only, and after ``before``; returns (proof, changed)."""
        self.require_usable()
        changed = False
        if self.is_out_of_recovery():
            if client and self.marker.get("client") and self.instance.pid() is None:
                self.marker["client"] = self.wanted_client(client)
            changed = self.ensure_started()
            self.wait_open()
        else:
            before()
            self.pause()
            changed = True
            # Resuming at the target ends recovery. pg_promote does the same, but the paused startup process sees it
            # only when its sleep of a second is over.
            self.rows("SELECT pg_wal_replay_resume()")
            self.wait_open()
        rolled_back, left = self.end_prepared()
        changed = self.rename_database() or changed
        if client:
            changed = self.open_for(client) or changed
        if self.marker.get("promoted") is not True:
            self.marker["promoted"] = True
            self.instance.write_marker(self.marker)
        proof = {
            **self.prove(),
            **self.marker["proof_of_pause"],
            "prepared_rolled_back": rolled_back,
            "prepared_left": left,
        }
        return proof, changed or bool(rolled_back)

    def is_out_of_recovery(self) -> bool:
        """Whether it was promoted from a proven pause, even when we were killed before we could record it."""
        signal = os.path.join(self.instance.data, "recovery.signal")
        return bool(self.marker.get("proof_of_pause")) and not os.path.exists(signal)

    def wait_open(self) -> None:
        """Wait until a server out of recovery lets us in."""
        deadline = time.monotonic() + self.timeout
        while True:
            if self.instance.pid() is None:
                log = self.instance.recovery_log(self.marker)
                raise RecoveryError(explain_end(log, self.instance.host, self.instance.log_file))
            connection = self.try_session()
            if connection is not None:
                try:
                    if not self.look(connection)["in_recovery"]:
                        return
                finally:
                    connection.close()
            if time.monotonic() > deadline:
                raise RecoveryError(
                    f"the side instance at {self.instance.path} on {self.instance.host} does not open within "
                    f"{self.timeout:.0f} s. See {self.instance.log_file}; run again to wait longer."
                )
            time.sleep(0.05)

    def end_prepared(self) -> tuple[list[str], list[str]]:
        """Roll back prepared transactions: they outlive promotion with their locks. Returns (rolled back, left).

        Those of a database that was not restored stay: nobody can connect to it, and their locks concern it only.
        """
        rolled_back, left = [], []
        prepared = self.rows(
            "SELECT p.gid, p.database, d.oid::int8 FROM pg_prepared_xacts p"
            " JOIN pg_database d ON d.datname = p.database ORDER BY p.prepared"
        )
        for gid, database, oid in prepared:
            if not is_restored(oid, self.marker["plan"]) and database != self.marker.get("database_there"):
                left.append(gid)
                continue
            self.rows("ROLLBACK PREPARED %s", (gid,), database=database)
            rolled_back.append(gid)
        return rolled_back, left

    # One client over the network

    @staticmethod
    def wanted_client(client: Mapping[str, Any]) -> dict[str, Any]:
        """What is recorded of a client: never its password."""
        kept = {key: client[key] for key in ("address", "user", "database", "listen")}
        return {**kept, "networks": networks(client["address"])}

    def open_for(self, client: Mapping[str, Any]) -> bool:
        """Let one role in from one address, by TLS and password. True when something changed."""
        check_listen(client["listen"])
        wanted = self.wanted_client(client)
        self.make_certificate()
        self.make_role(client["user"], client["password"], client["database"])
        listening = self.rows("SHOW listen_addresses")[0][0]
        if self.marker.get("client") == wanted and listening == wanted["listen"]:
            return False
        self.marker["client"] = wanted
        self.instance.write_marker(self.marker)
        self.instance.write_settings(self.marker)
        self.instance.stop(self.marker)
        self.instance.start(self.marker)
        self.wait_open()
        return True

    def make_certificate(self) -> None:
        """Make the server's own certificate, once."""
        key, certificate = self.instance.below("server.key"), self.instance.below("server.crt")
        if os.path.exists(certificate):
            return
        result = self.instance.call(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", CERTIFICATE_DAYS]
            + ["-subj", f"/CN={socket.gethostname()[:64]}", "-keyout", key, "-out", f"{certificate}.new"]
        )
        if result.returncode != 0:
            raise RecoveryError(
                f"openssl could not make a certificate on {self.instance.host}: {result.stderr.strip()}. The side "
                "instance goes on without a network client. Install openssl there and run again."
            )
        os.chmod(key, 0o600)
        os.replace(f"{certificate}.new", certificate)

    def make_role(self, user: str, password: str, database: str) -> None:
        """A role that may read everything; its password goes to the server as a SCRAM verifier only."""
        from psycopg2 import sql
        from psycopg2.extensions import encrypt_password

        connection = self.session(database)
        try:
            verifier = encrypt_password(password, user, scope=connection, algorithm="scram-sha-256")
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (user,))
                verb = "ALTER" if cursor.fetchone() else "CREATE"
                role = sql.Identifier(user)
                cursor.execute(
                    sql.SQL(
                        verb + " ROLE {} LOGIN BYPASSRLS CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD {}"
                    ).format(role, sql.Literal(verifier))
                )
                if connection.server_version >= 140000:
                    cursor.execute(sql.SQL("GRANT pg_read_all_data, pg_monitor TO {}").format(role))
                else:
                    cursor.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(role))
                # Settings of production's database hold for this role too, and it may not say these itself. (A list
                # that is set to '' here would hold one library without a name.)
                for name in (*NO_LIBRARIES, *SUPERUSER_SETTINGS):
                    cursor.execute(sql.SQL("ALTER ROLE {} SET {} FROM CURRENT").format(role, sql.Identifier(name)))
        finally:
            connection.close()

    def compare_archive(self) -> dict[str, Any]:
        """Timelines in the repository's archive before the restore and now: {before, after, unchanged}.

        A promoted side instance is on a timeline of its own, so anything it had archived would show. Empty for an
        instance that came from no repository; without ``unchanged`` when the repository cannot be asked.
        """
        before = self.marker.get("timelines")
        if before is None:
            return {}

        def run(argv: list[str]) -> tuple[int, str, str]:
            done = self.instance.call(argv)
            return done.returncode, done.stdout, done.stderr

        backrest = PgBackRest(
            run,
            stanza=self.marker["stanza"],
            config=self.instance.backrest_config,
            executable=self.marker["executable"],
            repo=self.marker["plan"]["set"]["repo"],
        )
        try:
            after = archived_timelines(backrest.repo_ls(self.marker["plan"]["archive"]))
        except RecoveryError as error:
            return {"before": before, "after": error.msg}
        return {"before": before, "after": after, "unchanged": before == after}

    # The result

    def recovered_instance(self, state: str) -> RecoveredInstance:
        """The recovered instance, once it is proved. Never holds a password."""
        client = self.marker.get("client")
        found: dict[str, Any] = {
            "source": self.marker["source"],
            "host": client["listen"] if client else None,
            "port": self.marker["port"],
            "socket": self.instance.run_dir,
            "database": client["database"] if client else self.marker.get("database_there") or self.marker["database"],
            "state": state,
            "reached": self.marker.get("reached"),
            "isolation": self.isolation,
            "path": self.instance.path,
            "data_directory": self.instance.data,
            "version_num": None,
            "system_identifier": self.marker["system_identifier"],
            "user": client["user"] if client else self.marker["superuser"],
        }
        if state in ("paused", "promoted"):
            found["version_num"] = int(self.rows("SHOW server_version_num")[0][0])
        if client:
            with open(self.instance.below("server.crt"), encoding="ascii") as file:
                found["sslrootcert"] = file.read()
            found["sslmode"] = "verify-ca"
        return recovered_instance(found)


def _promote_past(
    recovery: SideRecovery, client: Optional[Mapping[str, Any]], images: KeepsImages
) -> tuple[dict[str, Any], bool]:
    proof, changed = recovery.promote(client, images.move_past)
    return proof, images.keep() or changed


def ensure_state(
    instance: SideInstance,
    state: str,
    *,
    target: Optional[Mapping[str, Any]] = None,
    timeout: float = 3600,
    client: Optional[Mapping[str, Any]] = None,
    check_mode: bool = False,
    images_of: Optional[Callable[[SideRecovery], KeepsImages]] = None,
) -> dict[str, Any]:
    """Ensure a state of a side instance; returns the module's result.

    With ``images_of``, one that is to be promoted goes past its target first, and keeps what is told on the way.
    """
    if instance.read_marker() is None:
        if state in ("paused", "promoted"):
            instance.marker()
        there = state == "absent" and os.path.isdir(instance.path) and set(os.listdir(instance.path)) - NOT_COUNTED
        if there:
            raise RecoveryError(
                f"{instance.path} on {instance.host} is no side instance of ours, so it is not removed. Nothing was "
                "changed."
            )
        return {"changed": False, "state": "absent"}
    recovery = SideRecovery(instance, timeout)
    if target is not None:
        wanted = recovery_target(target, replayed=True)
        # One that keeps images stands elsewhere by now.
        made_for = recovery.marker.get("asked_target", recovery.marker["target"])
        asked, made = ((t["type"], t["value"], t["timeline"]) for t in (wanted, made_for))
        if asked != made:
            raise RecoveryError(
                f"the side instance at {instance.path} on {instance.host} was made for the target {made}, not {asked}. "
                "Nothing was changed. Remove it (state=absent) or choose another path."
            )
    if check_mode:
        before = recovery.state()
        return {"changed": before != state, "state": before}
    with instance.locked(timeout):
        if instance.read_marker() is None and state in ("stopped", "absent"):
            return {"changed": False, "state": "absent"}  # by the run that held it until now
        recovery = SideRecovery(instance, timeout)
        before = recovery.state()
        if state == "absent":
            instance.stop(recovery.marker)
            instance.end_leftover_pgbackrest()
            compared = recovery.compare_archive()
            return {"changed": instance.remove(), "state": before, "repository": compared}
        if state == "stopped":
            return {"changed": instance.stop(recovery.marker), "state": before}
        if state == "paused" and recovery.is_out_of_recovery():
            raise RecoveryError(
                f"the side instance at {instance.path} on {instance.host} is promoted already and cannot go back to "
                "paused. Nothing was changed. Go on with it as promoted, or remove it (state=absent) and restore again."
            )
        if images_of is not None and state == "promoted":
            proof, changed = _promote_past(recovery, client, images_of(recovery))
        else:
            proof, changed = recovery.pause() if state == "paused" else recovery.promote(client)
        return {
            "changed": changed,
            "state": before,
            "instance": recovery.recovered_instance(state),
            "proof": proof,
            "replay": recovery.marker.get("replay"),
            "settings_raised": recovery.marker.get("raised", {}),
        }
