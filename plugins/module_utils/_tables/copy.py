# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, too_large
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import plain_type

BLOCK = 1 << 20
# Seconds in which a program that failed has ended; one that still has rows to hand on does not end.
READER_ENDS = 1.0


def stored_columns(columns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Columns that COPY carries: all but the generated ones, which the server computes again."""
    return [column for column in columns if not column["generated"]]


def column_list(columns: Sequence[Mapping[str, Any]]) -> str:
    """``(a, b)`` of the columns that COPY carries; nothing for a table without columns."""
    names = ", ".join(quote_ident(column["name"]) for column in stored_columns(columns))
    return f" ({names})" if names else ""


class PlainColumn(NamedTuple):
    """A column of a table of ours that stands for one of another's: its definition, and SQL for the value there."""

    definition: str
    back: str


def plain_columns(connection: Any, columns: Sequence[Mapping[str, Any]]) -> list[PlainColumn]:
    """How values of ``columns`` are kept without running what users wrote when they come in."""
    found = []
    for column in columns:
        name = quote_ident(column["name"])
        kind = column["type"] if column["builtin"] else plain_type(connection, column["type"])
        definition = f"{name} {kind}"
        if column["collation"] and kind == column["type"]:
            definition += " COLLATE " + ".".join(quote_ident(part) for part in column["collation"].split(".", 1))
        found.append(PlainColumn(definition, name if kind == column["type"] else f"{name}::{column['type']}"))
    return found


def carried(columns: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``columns`` of the recovered instance, ``binary_safe`` where ``target`` takes the same in binary."""
    binary = {column["name"]: column["binary"] for column in target}
    return [
        {**column, "binary_safe": column["binary"] is not None and column["binary"] == binary[column["name"]]}
        for column in columns
    ]


def copy_options(columns: Sequence[Mapping[str, Any]], encoding: str, freeze: bool = False) -> str:
    """Options of COPY on both ends.

    Binary is a fifth faster, and a value over 512 MB may have no text that fits into memory; but it carries OIDs of
    types made by users, which differ after a type was made again. So it is taken only when it would carry the same on
    both ends. An enum goes by its label, a domain as what it is made of.
    """
    options = [f"ENCODING {quote_literal(encoding)}"]
    if all(column["binary_safe"] for column in stored_columns(columns)) and stored_columns(columns):
        options.append("FORMAT binary")
    if freeze:
        options.append("FREEZE")
    return f"WITH ({', '.join(options)})"


class _Counted:
    """A file that tells how much was read from it."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None]) -> None:
        self._file = file
        self._tell = tell

    def read(self, size: int = BLOCK) -> bytes:
        data = self._file.read(size)
        self._tell(len(data))
        return data


def copy_table(
    production: Any,
    side: Server,
    database: str,
    source: str,
    target: str,
    tell: Callable[[int], None] = lambda size: None,
    before: Sequence[str] = (),
) -> None:
    """Stream ``source`` (a whole COPY ... TO STDOUT) of the side instance into ``target`` (COPY ... FROM STDIN).

    ``before`` are statements that ``source`` needs in its transaction, which is never committed.

    psql reads, because it moves rows in C (psycopg2 calls Python once for every row); the load runs in production's
    open transaction, which the caller must roll back when this raises RecoveryError.
    """
    command = [
        side.program("psql"),
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        *(word for statement in ("BEGIN", *before, source) for word in ("--command", statement)),
    ]
    with tempfile.TemporaryFile() as errors:
        # A module's run_command would keep all rows in memory.
        reader = subprocess.Popen(  # pylint: disable=ansible-bad-function
            command, env=side.environment(database), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        with cast(IO[bytes], reader.stdout) as stream:
            with suppress(OSError, AttributeError):
                fcntl.fcntl(stream.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 1031), BLOCK)
            try:
                with production.cursor() as cursor:
                    cursor.copy_expert(target, _Counted(stream, tell), size=BLOCK)
            except BaseException as error:
                # What the reader says comes first: of half a stream, production can only say that it is half.
                with suppress(subprocess.TimeoutExpired):
                    if reader.wait(READER_ENDS) > 0:
                        raise _reading_failed(errors, source) from error
                reader.kill()
                reader.wait()
                raise
        if reader.wait() != 0:
            raise _reading_failed(errors, source)


def _reading_failed(errors: IO[bytes], source: str) -> RecoveryError:
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    return RecoveryError(f"reading from the recovered instance failed: {said}{too_large(said)}", copy=source)
