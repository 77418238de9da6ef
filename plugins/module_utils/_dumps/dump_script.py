# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pg_restore writes of chosen items of a dump: their definitions as SQL, their rows as COPY takes them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple, Optional, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import Archive, Entry
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import strip_restrict

# Lines that a script of pg_restore begins with (_doSetFixedOutputState in src/bin/pg_dump/pg_backup_archiver.c): our
# sessions have settings of their own, and psycopg2 would not notice another client_encoding.
BEGINNING = re.compile(
    r"\A(?:--.*\n|\n|SET (?:\w+_timeout|client_encoding|standard_conforming_strings|check_function_bodies|xmloption"
    r"|client_min_messages|row_security|escape_string_warning|default_with_oids) = .*;\n"
    r"|SELECT pg_catalog\.set_config\('search_path', '', false\);\n)*"
)
# What stands before each item (_printTocEntry there).
HEADER = re.compile(r"^--\n-- (?:Data for )?Name: [^\n]*\n--\n", re.MULTILINE)
# What may stand before the first header: where its item is stored, in dumps of before 2018 also its schema.
STORAGE = re.compile(r"(?:SET (?:default_\w+|search_path) = .*;\n|\n)*")
NOTHING = re.compile(r"(?:--.*\n|\s)*")
BLOCK = 1 << 20


class Dump(NamedTuple):
    """An archive, the programs that read it, and a directory of ours for lists of its items."""

    archive: Archive
    bin_dir: str
    folder: str
    environment: Mapping[str, str]


class Script:
    """The text that pg_restore writes of items of a dump."""

    def __init__(self, dump: Dump) -> None:
        self._dump = dump
        # Threads that work side by side take the next number.
        self._lists = itertools.count(1)

    @contextmanager
    def stream(self, entries: Iterable[Entry], *options: str) -> Iterator[IO[bytes]]:
        """The bytes that pg_restore writes; what its reader leaves unread is lost."""
        path = os.path.join(self._dump.folder, f"items.{next(self._lists)}")
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{entry.dump_id};\n" for entry in entries)
        command = [os.path.join(self._dump.bin_dir, "pg_restore"), "-L", path, "-f", "-", *options]
        # A module's run_command would keep all rows in memory.
        with open(f"{path}.log", "w+b") as log:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [*command, self._dump.archive.path],
                env=dict(self._dump.environment),
                cwd=self._dump.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            try:
                with cast(IO[bytes], process.stdout) as output:
                    yield output
                    while output.read(BLOCK):
                        pass
                process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if process.returncode != 0:
                log.seek(0)
                raise RecoveryError(
                    f"pg_restore of {self._dump.archive.path} failed on {host_name()} (exit code "
                    f"{process.returncode}): {log.read().decode(errors='replace').strip()}"
                )
        os.unlink(path)
        os.unlink(f"{path}.log")

    def sql(self, entries: Iterable[Entry], *options: str) -> str:
        """What makes ``entries``, without the settings at the beginning; empty where there is nothing."""
        with self.stream(entries, *options) as output:
            text = strip_restrict(output.read()).decode(self._dump.archive.codec, "surrogateescape")
        text = text[cast("re.Match[str]", BEGINNING.match(text)).end() :]
        return "" if NOTHING.fullmatch(text) else text

    def items(self, entries: Sequence[Entry], *options: str) -> list[str]:
        """The same, item by item."""
        text = self.sql(entries, *options)
        parts = split_items(text, len(entries)) if text else []
        return [part for entry in entries if (part := self.sql([entry], *options))] if parts is None else parts


def split_items(text: str, count: int) -> Optional[list[str]]:
    """What sql() returns of ``count`` items, item by item; None where they cannot be told apart.

    The text of an item may look like the beginning of another. Then there are more beginnings than items.
    """
    begins = [match.start() for match in HEADER.finditer(text)]
    if begins and STORAGE.fullmatch(text, 0, begins[0]):
        begins[0] = 0
    else:
        begins.insert(0, 0)  # the first has lost its header
    if len(begins) != count:
        return None
    return [text[begin:end] for begin, end in zip(begins, [*begins[1:], len(text)])]


class Rows:
    """The rows of one item: what follows its COPY statement."""

    def __init__(self, stream: IO[bytes], statement: bytes) -> None:
        self._stream = stream
        self._begun = b""
        while statement not in self._begun:
            block = stream.read(BLOCK)
            if not block:
                raise RecoveryError(f"pg_restore wrote no {statement.decode(errors='replace').strip()}")
            self._begun += block
        self._begun = self._begun.partition(statement)[2]

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes. The server takes none after the line that ends them."""
        if self._begun:
            block, self._begun = self._begun[:size], self._begun[size:]
            return block
        return self._stream.read(size)
