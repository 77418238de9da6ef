# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import recovered_instance
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import become_owners
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import (
    find_bin_dir,
    find_client_dir,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    Login,
    connect,
    is_superuser,
    libpq_keywords,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.raw_text import client_encoding
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SETTINGS,
    late_settings,
    session_options,
)

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # type: ignore[assignment]  # connect() says so, before anything here needs it

# Where client programs look for what libpq calls by these names; the password is seen by nobody else there.
ENVIRONMENT = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "channel_binding": "PGCHANNELBINDING",
}

_production_host: str | None = None


def host_name() -> str:
    """Where production is, for messages: the host it is reached at, or this one."""
    return _production_host or socket.gethostname()


class Server:
    """Where one end of a recovery is, and how its sessions and client programs reach it."""

    def __init__(self, login: Login, bin_dir: str, application_name: str = "dbre.recovery") -> None:
        self.login = login
        self.bin_dir = bin_dir
        self.application_name = application_name
        # A side host may lack the libraries of production; there, by the socket, we are the superuser.
        self._libraries = True
        # What client programs may be told in addition, known since the first session.
        self._late: dict[str, str] = {}
        self._root_certificate: str | None = None
        self._encodings: dict[str, str] = {}

    @classmethod
    def of_instance(
        cls, instance: Mapping[str, Any], password: str | None, bin_dir: str, application_name: str = "dbre.recovery"
    ) -> Server:
        """The server behind a recovered instance."""
        # An instance with a host was opened to us over the network; its socket is on another machine.
        remote = bool(instance.get("host"))
        login: Login = {
            "login_unix_socket": None if remote else instance.get("socket"),
            "login_host": instance.get("host"),
            "login_port": instance["port"],
            "login_user": instance.get("user"),
            "login_password": password,
            "login_db": instance.get("database") or "postgres",
        }
        if remote:
            # Where no certificate was handed on, the other end is known by the password, bound to the TLS channel.
            login["login_passfile"] = instance.get("passfile")
            login["ssl_mode"] = instance.get("sslmode") or ("verify-ca" if instance.get("sslrootcert") else None)
            login["channel_binding"] = instance.get("channel_binding")
        server = cls(login, bin_dir, application_name)
        server._libraries = remote
        if remote and instance.get("sslrootcert"):
            handle, server._root_certificate = tempfile.mkstemp(prefix="dbre-recovery-", suffix=".pem")
            with os.fdopen(handle, "w") as file:
                file.write(instance["sslrootcert"])
            login["ca_cert"] = server._root_certificate
        return server

    @property
    def remote(self) -> bool:
        """Whether it is reached over the network, so that its host is not ours."""
        return bool(self.login.get("login_host")) and not self.login.get("login_unix_socket")

    def close(self) -> None:
        """Remove the temporary file of the certificate."""
        if self._root_certificate:
            with suppress(FileNotFoundError):
                os.unlink(self._root_certificate)

    def connect(self, dbname: str | None = None, settings: Mapping[str, str] | None = None) -> Any:
        """A session with our settings in ``dbname``."""
        connection = self._connect(dbname, settings)
        self._late = late_settings(connection.server_version, is_superuser(connection))
        self._encodings[connection.info.dbname] = client_encoding(connection.get_parameter_status("server_encoding"))
        return connection

    def client_encoding(self, dbname: str) -> str:
        """The encoding in which programs talk with a database, which a session of ours has been in."""
        return self._encodings.get(dbname, "UTF8")

    def _connect(self, dbname: str | None, settings: Mapping[str, str] | None) -> Any:
        wanted: dict[str, Any] = {"application_name": self.application_name, "settings": settings}
        try:
            return connect(self.login, dbname, libraries=self._libraries, **wanted)
        except RecoveryError as error:
            # Who is no superuser may not say that none are loaded.
            if self._libraries or not any(name in error.msg for name in NO_LIBRARIES):
                raise
            self._libraries = True
            return connect(self.login, dbname, **wanted)

    def environment(self, dbname: str) -> dict[str, str]:
        """Environment in which libpq programs reach ``dbname`` with our settings; holds the password."""
        wanted = {
            "PGDATABASE": dbname,
            "PGAPPNAME": self.application_name,
            "PGCONNECT_TIMEOUT": 15,
            "PGCLIENTENCODING": self.client_encoding(dbname),
            "PGOPTIONS": session_options({**SETTINGS, **self._late, **({} if self._libraries else NO_LIBRARIES)}),
        }
        wanted.update({ENVIRONMENT[name]: text for name, text in libpq_keywords(self.login).items()})
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        environment.update({name: str(text) for name, text in wanted.items()})
        return environment

    def program(self, name: str) -> str:
        """Path of a client program of the server's version."""
        return os.path.join(self.bin_dir, name)

    def run(self, command: Sequence[str], dbname: str) -> bytes:
        """Output of a client program; RecoveryError with its own words when it fails."""
        # Called from several threads at a time; a module's run_command is for one.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [self.program(command[0]), *command[1:]],
            env=self.environment(dbname),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RecoveryError(
                f"{command[0]} failed on {socket.gethostname()} (exit status {done.returncode}): "
                f"{done.stderr.decode(errors='replace').strip()}. Production was not changed by it.",
                command=command[0],
            )
        return done.stdout


def application_name(incident: str) -> str:
    """What our sessions of one incident are called in pg_stat_activity; an incident's id fits whole."""
    return f"dbre.recovery {incident}"


@contextmanager
def open_production(login: Login, bin_dir: str | None, incident: str) -> Iterator[Server]:
    """Production; without ``bin_dir`` with the client programs that are found for its version."""
    global _production_host
    server = Server(login, "", application_name(incident))
    _production_host = login["login_host"] if server.remote else None
    connection = server.connect()
    try:
        major = connection.server_version // 10000
    finally:
        connection.close()
    # Over the network the programs come from this host, and need not be the server's own.
    server.bin_dir = (find_client_dir if server.remote else find_bin_dir)(major, bin_dir)
    with translated_errors():
        yield server


@contextmanager
def open_servers(
    login: Login, bin_dir: str | None, incident: str, instance: Mapping[str, Any], instance_password: str | None
) -> Iterator[tuple[Server, Server]]:
    """Production and the recovered instance; refuses an instance of another major version."""
    with open_production(login, bin_dir, incident) as production:
        side = Server.of_instance(
            recovered_instance(instance), instance_password, production.bin_dir, application_name(incident)
        )
        try:
            here, there = production.connect(), side.connect()
            versions = here.server_version // 10000, there.server_version // 10000
            _refuse_itself(here, there)
            become_owners(there)
            here.close()
            there.close()
            if versions[0] != versions[1]:
                raise RecoveryError(
                    f"the recovered instance is PostgreSQL {versions[1]}, production on {host_name()} {versions[0]}. "
                    "Nothing was changed. Recover from an instance of the same major version."
                )
            yield production, side
        finally:
            side.close()


def _refuse_itself(here: Any, there: Any) -> None:
    """Refuse production as its own recovered instance: what one session locks, the other must not see."""
    key = secrets.randbelow(2**62)
    execute(here, "SELECT pg_catalog.pg_advisory_lock(%s)", (key,))
    query = "SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND classid = %s::oid AND objid = %s::oid"
    same = value(there, query, (key >> 32, key & 0xFFFFFFFF)) is not None
    here.rollback()
    there.rollback()
    if same:
        raise RecoveryError(
            f"the recovered instance is production on {host_name()} itself. Nothing was changed. Hand on the instance "
            "that the restore returned."
        )


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what the servers or the operating system say into RecoveryError."""
    try:
        yield
    except psycopg2.Error as error:
        said = str(error).strip() or type(error).__name__
        context = getattr(error.diag, "context", None)
        raise RecoveryError(
            f"PostgreSQL refused a step of the recovery on {host_name()}: {said}{f' ({context})' if context else ''}. "
            "What was committed before it is safe, nothing half done is left; mend the cause and run again with the "
            "same incident id.",
            sqlstate=error.pgcode,
        ) from error
