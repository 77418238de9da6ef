# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
import time
import traceback
from collections.abc import Mapping
from typing import Any, Optional, TypedDict, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.raw_text import take_raw_bytes
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SETTINGS,
    late_settings,
    session_options,
)

try:
    import psycopg2
    from psycopg2.extensions import make_dsn
except ImportError:
    PSYCOPG2_IMPORT_ERROR: Optional[str] = traceback.format_exc()
else:
    PSYCOPG2_IMPORT_ERROR = None

# Where one goes who wants any database, and which need not be there.
CONTROL_DATABASE = "postgres"
# A session that waits while others load is soon forgotten by the routers in between.
KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}
# A session of ours that has ended keeps its connection until its process has ended, too, and so does anybody's. Only a
# server that speaks English can be understood, for libpq gives no SQLSTATE here.
CROWDED = re.compile("too many clients already|remaining connection slots are reserved")
CROWDED_FOR = 10.0
# The same words, of a server that will not let anybody in however often it is asked.
REFUSED = re.compile("password authentication failed|PAM authentication failed|no password supplied")
SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


def connection_argument_spec() -> dict[str, dict[str, Any]]:
    """Argument spec of the documentation fragment ``dbre.recovery.postgresql``."""
    return {
        "login_unix_socket": {"type": "path"},
        "login_host": {"type": "str"},
        "login_port": {"type": "int", "default": 5432},
        "login_user": {"type": "str"},
        "login_password": {"type": "str", "no_log": True},
        "login_passfile": {"type": "path", "no_log": False},
        "login_db": {"type": "str", "default": "postgres"},
        "ssl_mode": {"type": "str", "choices": SSL_MODES},
        "ca_cert": {"type": "path"},
        "ssl_cert": {"type": "path"},
        "ssl_key": {"type": "path", "no_log": False},
    }


class Login(TypedDict, total=False):
    """How to reach a server, and as whom; what is missing or None is libpq's to choose."""

    login_unix_socket: Optional[str]
    login_host: Optional[str]
    login_port: Optional[int]
    login_user: Optional[str]
    login_password: Optional[str]
    login_passfile: Optional[str]
    login_db: Optional[str]
    ssl_mode: Optional[str]
    ca_cert: Optional[str]
    ssl_cert: Optional[str]
    ssl_key: Optional[str]
    channel_binding: Optional[str]
    """No option of a module: a recovered instance may say it."""


def login_of(params: Mapping[str, Any]) -> Login:
    """The connection options among those of a module."""
    return cast(Login, {name: params[name] for name in connection_argument_spec() if name in params})


def libpq_keywords(login: Login) -> dict[str, Any]:
    """How the options lead to the server, as keywords of libpq.

    Raises RecoveryError where libpq would only ignore a file.
    """
    found = {
        "host": login.get("login_unix_socket") or login.get("login_host"),
        "port": login.get("login_port"),
        "user": login.get("login_user"),
        "password": login.get("login_password"),
        "passfile": login.get("login_passfile"),
        "sslmode": login.get("ssl_mode"),
        "sslrootcert": login.get("ca_cert"),
        "sslcert": login.get("ssl_cert"),
        "sslkey": login.get("ssl_key"),
        "channel_binding": login.get("channel_binding"),
    }
    keywords: dict[str, Any] = {key: value for key, value in found.items() if value not in (None, "")}
    if "passfile" in keywords:
        require_passfile(keywords["passfile"])
    return keywords


def apply_settings(connection: Any, settings: Mapping[str, str]) -> None:
    """Put settings in force for the rest of the session (committed)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.set_config(name, setting, false)"
            " FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS wanted(name, setting)",
            (list(settings), list(settings.values())),
        )
    connection.commit()


def is_superuser(connection: Any) -> bool:
    """Whether the session's role is a superuser, as the server told when it let us in."""
    return bool(connection.get_parameter_status("is_superuser") == "on")


def require_passfile(path: str) -> None:
    """Refuse a passfile that libpq would leave aside, and then only say that it has no password (RecoveryError)."""
    host = socket.gethostname()
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise RecoveryError(
            f"the passfile {path} cannot be read on {host}: {error.strerror}. Nothing was changed. Put it there, "
            "readable by the user the task runs as (login_passfile)."
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RecoveryError(
            f"the passfile {path} on {host} can be read by others, so that libpq does not take it. Nothing was "
            f"changed. Run: chmod 0600 {path}"
        )


def _open_when_there_is_room(keywords: Mapping[str, Any]) -> Any:
    """A connection; where all are taken, waits a few seconds for one."""
    until = time.monotonic() + CROWDED_FOR
    while True:
        try:
            return psycopg2.connect(**keywords)
        except psycopg2.OperationalError as error:
            if not CROWDED.search(str(error)) or time.monotonic() > until:
                raise
        time.sleep(0.2)


def _open(keywords: Mapping[str, Any], *, any_database: bool) -> Any:
    """A connection; where ``any_database`` will do and the server has none of the usual name, to template1."""
    try:
        return _open_when_there_is_room(keywords)
    except psycopg2.OperationalError as error:
        # The message comes in the server's language, and libpq gives no SQLSTATE; but it names the database.
        if not any_database or keywords["dbname"] not in str(error):
            raise
        try:
            return psycopg2.connect(**{**keywords, "dbname": "template1"})
        except psycopg2.OperationalError:
            raise error from None


def connect(
    login: Login,
    dbname: Optional[str] = None,
    *,
    application_name: str = "dbre.recovery",
    settings: Optional[Mapping[str, str]] = None,
    libraries: bool = True,
    any_database: bool = False,
    **libpq: Any,
) -> Any:
    """Open a psycopg2 connection, with our settings and ``settings`` in force.

    ``dbname`` goes before ``login_db``. Where the server has no database of the usual name, or with ``any_database``
    none called ``login_db``, it is template1. Without ``libraries`` the session loads none of those that a role or
    database wants, for which it must be a superuser's. ``libpq`` are further libpq keywords (``sslmode``, ``options``,
    ...), which win over everything else; with ``options`` of its own a session has none of our settings. Raises
    RecoveryError naming host, port and database.
    """
    if PSYCOPG2_IMPORT_ERROR is not None:
        raise RecoveryError(
            f"the Python library psycopg2 is missing on {socket.gethostname()}. Install it there "
            "(Debian: apt install python3-psycopg2; Red Hat: dnf install python3-psycopg2).",
            exception=PSYCOPG2_IMPORT_ERROR,
        )
    keywords: dict[str, Any] = {
        **libpq_keywords(login),
        **KEEPALIVES,
        "dbname": dbname or login.get("login_db") or CONTROL_DATABASE,
        "application_name": application_name,
        "connect_timeout": 15,
        "client_encoding": "UTF8",
        "options": session_options({**SETTINGS, **({} if libraries else NO_LIBRARIES)}),
    }
    keywords.update(libpq)
    keywords = {key: value for key, value in keywords.items() if value not in (None, "")}
    try:
        connection = _open(
            keywords, any_database=not dbname and (any_database or keywords["dbname"] == CONTROL_DATABASE)
        )
    except psycopg2.OperationalError as error:
        where = keywords.get("host") or os.environ.get("PGHOST") or "the default socket"
        raise RecoveryError(
            f"cannot connect from {socket.gethostname()} to database {keywords['dbname']!r} at {where}, "
            f"port {keywords.get('port', 5432)}: {str(error).strip()}",
            sqlstate=error.pgcode,
        ) from error
    take_raw_bytes(connection)
    if "options" not in libpq:
        late = late_settings(connection.server_version, is_superuser(connection))
        apply_settings(connection, {**late, **(settings or {})})
    return connection


def psql_with(login: Login, database: str) -> str:
    """How people get into a database by psql, from where we do; who has no passfile is asked for the password."""
    keywords = libpq_keywords({**login, "login_password": None, "ca_cert": None})
    return f"psql -X {shlex.quote(make_dsn(**{**keywords, 'dbname': database}))}"
