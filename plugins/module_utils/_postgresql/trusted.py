# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only what we made is believed: owner, kind and mode of a schema, table, file or directory, before it is read."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# A superuser can do what we can, so that what belongs to one may be ours of an earlier run.
OTHERS = """
WITH found AS (
  SELECT NULL::name AS name, nspowner AS owner, 'schema' AS kind FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s
  UNION ALL
  SELECT c.relname, c.relowner,
         CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' ELSE 'relation of kind ' || c.relkind::text END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname ^@ %(prefix)s AND c.relkind NOT IN ('i', 'S', 'c', 't')
)
SELECT f.name::text AS name, f.kind, r.rolname::text AS owner FROM found f JOIN pg_catalog.pg_roles r ON r.oid = f.owner
WHERE f.kind NOT IN ('schema', 'table') OR NOT (r.rolsuper OR r.rolname IN (session_user, current_user))
ORDER BY f.name NULLS FIRST
"""
MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def require_own_schema(connection: Any, schema: str, prefix: str, advice: str) -> None:
    """Refuse a schema of ours, or relations in it whose names begin with ``prefix``, that somebody else made."""
    for found in rows(connection, OTHERS, {"schema": schema, "prefix": prefix}):
        what = f"{found['kind']} {display_name(schema if found['name'] else None, found['name'] or schema)}"
        raise RecoveryError(
            f"the {what} belongs to role {quote_ident(found['owner'])}, and was not made by this collection as role "
            f"{quote_ident(connection.info.user)} or as a superuser. Nothing in it is believed, and nothing was "
            f"changed. See who made it. {advice}"
        )


def _ours(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_own_file(path: str) -> str:
    """Text of a file that only we, or root, can have written; FileNotFoundError where there is none.

    A link is not followed, a FIFO not waited for.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecoveryError(f"{path} on {socket.gethostname()} cannot be read: {error.strerror}.") from error
    with open(handle, encoding="utf-8", errors="replace") as file:
        found = os.fstat(file.fileno())
        wrong = _wrong(found, regular=True)
        if wrong:
            raise RecoveryError(
                f"{path} on {socket.gethostname()} {wrong}, so what it says is not believed. Nothing was changed. See "
                "who wrote it, and remove it or choose another path."
            )
        return file.read()


def _wrong(found: os.stat_result, *, regular: bool = False) -> Optional[str]:
    if regular and not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if not _ours(found.st_uid):
        return f"belongs to {_name(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())):
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def require_own_place(path: str, word: str) -> None:
    """Refuse a directory in which others could put, or exchange, what we are going to believe.

    One that is there must be ours alone. One that is to come must not come into a directory that all may write to,
    where somebody could make it first.
    """
    host, made = socket.gethostname(), os.path.isdir(path)
    if made:
        wrong = _wrong(os.stat(path))
        if wrong:
            raise UnfitHost(
                f"the directory {path} on {host} {wrong}: others could put files there that are then believed. Nothing "
                f"was changed. Choose another path ({word}), or make it private: chown {_name(os.geteuid())} {path} && "
                f"chmod 0700 {path}"
            )
    parent = os.path.dirname(path)
    while parent != "/":
        if os.path.isdir(parent):
            mode, owner = os.stat(parent).st_mode, os.stat(parent).st_uid
            sticky = mode & stat.S_ISVTX
            if mode & stat.S_IWOTH and not (sticky and made):
                raise UnfitHost(
                    f"{path} on {host} would lie in {parent}, to which all may write (mode {stat.S_IMODE(mode):04o}). "
                    f"Nothing was changed. Choose a path in a directory of {_name(os.geteuid())} or root ({word})."
                )
            if not _ours(owner):
                raise UnfitHost(
                    f"{path} on {host} would lie in {parent}, which belongs to {_name(owner)}. Nothing was changed. "
                    f"Choose a path in a directory of {_name(os.geteuid())} or root ({word})."
                )
            made = True
        parent = os.path.dirname(parent)
