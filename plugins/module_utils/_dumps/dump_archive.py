# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the header and the table of contents of a file or directory that pg_dump made.

The list that ``pg_restore -l`` prints cannot be read back without doubt (names with blanks run together), shows the
time in the reader's time zone although the archive has none, and leaves out definitions, tablespaces and sizes. The
archive itself has all of it; its format is that of ReadHead and ReadToc in PostgreSQL's
src/bin/pg_dump/pg_backup_archiver.c.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

MAGIC = b"PGDMP"
# 1.12: PostgreSQL 9.0 to 11, 1.13: security releases of 2018, 1.14: 12 to 15, 1.15: 16, 1.16: 17 and 18.
OLDEST, NEWEST = (1, 12), (1, 16)
CUSTOM, TAR, DIRECTORY = 1, 3, 5
COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
NONE, PRE_DATA, DATA, POST_DATA = 1, 2, 3, 4

# First bytes of what people wrap dumps in, and the command that unwraps it.
WRAPPED = (
    (b"\x1f\x8b", "compressed by gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -d"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "lz4 -d"),
    (b"\xfd7zXZ\x00", "compressed by xz", "xz -d"),
    (b"BZh", "compressed by bzip2", "bunzip2"),
    (b"PK\x03\x04", "a zip file", "unzip"),
    (b"Salted__", "encrypted by openssl", "openssl enc -d"),
    (b"age-encryption.org/", "encrypted by age", "age --decrypt"),
    (b"-----BEGIN AGE ENCRYPTED", "encrypted by age", "age --decrypt"),
    (b"-----BEGIN PGP MESSAGE", "encrypted by gpg", "gpg --decrypt"),
    (b"\x84", "encrypted by gpg", "gpg --decrypt"),
    (b"\x85", "encrypted by gpg", "gpg --decrypt"),
    (b"\x8c", "encrypted by gpg", "gpg --decrypt"),
    (b"\xc1", "encrypted by gpg", "gpg --decrypt"),
    (b"\xc3", "encrypted by gpg", "gpg --decrypt"),
)
PLAIN_SQL = re.compile(rb"\A\s*(?:--|\\restrict|SET |CREATE |BEGIN|INSERT |COPY |/\*)")


@dataclass(frozen=True)
class Entry:
    """One item of the table of contents. ``section`` is resolved: a comment or grant has that of its object."""

    dump_id: int
    oid: int
    tag: str
    desc: str
    section: int
    defn: str
    namespace: str
    tablespace: str
    owner: str
    deps: tuple[int, ...]
    position: Optional[int]
    file: str
    copy: str = ""
    """The COPY statement of rows, as it is written before them; empty where they are written as INSERT."""


@dataclass(frozen=True)
class Archive:
    """What a dump says of itself. ``wall_time`` is the dumping host's clock; the archive records no time zone.

    ``encoding`` is that of its texts and rows, ``codec`` Python's name for it.
    """

    path: str
    format: str
    version: tuple[int, int]
    compression: str
    wall_time: datetime
    summer_time: Optional[bool]
    database: str
    server_version: str
    dump_version: str
    size: int
    entries: tuple[Entry, ...]
    encoding: str = "UTF8"
    codec: str = "utf-8"

    @property
    def server_major(self) -> int:
        return major_of(self.server_version)


def major_of(version: str) -> int:
    """Major version out of ``15.18 (Debian ...)``, ``17beta1`` or ``9.6.24`` (which counts as 9)."""
    match = re.match(r"\d+", version)
    if match is None:
        raise RecoveryError(f"cannot read a PostgreSQL version from {version!r} in the dump's header")
    return int(match.group())


def refuse_kind(path: str, start: bytes) -> RecoveryError:
    """The error for a file that is no custom-format dump, from its first bytes (at least 262 where it has them)."""
    if start[257:262] == b"ustar":
        return RecoveryError(
            f"{path} is a tar dump, which cannot be read in parallel. Nothing was changed. "
            f"Unpack it into an empty directory (tar -xf {path} -C DIRECTORY) and name that directory: "
            "it is a directory dump."
        )
    for magic, what, command in WRAPPED:
        if start.startswith(magic):
            return RecoveryError(
                f"{path} is {what} from outside; it must be the file that pg_dump -Fc wrote. "
                f"Nothing was changed. Unwrap it first ({command}) and name the result."
            )
    if PLAIN_SQL.match(start):
        return RecoveryError(
            f"{path} is a plain SQL script, from which no single table can be taken safely. Nothing was changed. "
            "Load it into a database of its own (createdb rescue; psql -X -v ON_ERROR_STOP=1 -d rescue "
            f"-f {path}) and dump that with pg_dump -Fc, then name the new dump."
        )
    if not start:
        return RecoveryError(f"{path} is empty: the dump was never written. Nothing was changed.")
    return RecoveryError(
        f"{path} does not begin as a pg_dump archive does; it is damaged, or encrypted. Nothing was changed. "
        "Name a file made by pg_dump -Fc or a directory made by pg_dump -Fd."
    )


class Reader:
    """Integers, strings and offsets as pg_dump writes them."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self.stream = stream
        self.path = path
        self.int_size = 4
        self.offset_size = 8

    def take(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) != count:
            raise RecoveryError(
                f"{self.path} ends in the middle of its table of contents: the dump was cut short. "
                "Nothing was changed. Name another dump."
            )
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        negative = self.byte()
        value = int.from_bytes(self.take(self.int_size), "little")
        return -value if negative else value

    def text(self) -> Optional[bytes]:
        length = self.integer()
        return None if length < 0 else self.take(length)

    def string(self) -> str:
        return (self.text() or b"").decode("utf-8", "surrogateescape")

    def position(self) -> Optional[int]:
        """Where an item's data begin; None when pg_dump could not go back to write it, or there are none."""
        known = self.byte()
        value = int.from_bytes(self.take(self.offset_size), "little")
        return value if known == 2 else None


@dataclass
class _Raw:
    numbers: tuple[int, int, int]
    texts: list[bytes]
    deps: tuple[int, ...]
    position: Optional[int]
    file: bytes


def _read_entry(reader: Reader, version: tuple[int, int], kind: int) -> _Raw:
    dump_id = reader.integer()
    reader.integer()  # whether the item has data
    reader.text()  # OID of the catalogue
    oid = int(reader.text() or b"0")
    tag, desc = reader.text() or b"", reader.text() or b""
    section = reader.integer()
    defn = reader.text() or b""
    reader.text()  # how to drop it
    copy = reader.text() or b""
    namespace, tablespace = reader.text() or b"", reader.text() or b""
    if version >= (1, 14):
        reader.text()  # table access method
    if version >= (1, 16):
        reader.integer()  # relkind
    owner = reader.text() or b""
    reader.text()  # WITH OIDS
    deps: list[int] = []
    while True:
        dep = reader.text()
        if dep is None:
            break
        deps.append(int(dep))
    position = reader.position() if kind == CUSTOM else None
    file = (reader.text() or b"") if kind != CUSTOM else b""
    texts = [tag, desc, defn, namespace, tablespace, owner, copy]
    return _Raw((dump_id, oid, section), texts, tuple(deps), position, file)


def _encoding(raw: list[_Raw]) -> tuple[str, str]:
    """The encoding the dump's texts are in, and Python's name of it, from its ENCODING item (SET client_encoding)."""
    for item in raw:
        if item.texts[1] == b"ENCODING":
            match = re.search(rb"client_encoding = '([^']+)'", item.texts[2])
            if match:
                name = match.group(1).decode("ascii")
                for candidate in (name, re.sub(r"^WIN", "cp", name), re.sub(r"^KOI8", "KOI8-", name)):
                    try:
                        return name, codecs.lookup(candidate).name
                    except LookupError:
                        continue
                return name, "utf-8"
    return "UTF8", "utf-8"


def _resolve(raw: list[_Raw], codec: str) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    current = PRE_DATA
    for item in raw:
        dump_id, oid, section = item.numbers
        current = current if section == NONE else section
        texts = [text.decode(codec, "surrogateescape") for text in item.texts]
        tag, desc, defn, namespace, tablespace, owner, copy = texts
        entries.append(
            Entry(
                dump_id=dump_id,
                oid=oid,
                tag=tag,
                desc=desc,
                section=current,
                defn=defn,
                namespace=namespace,
                tablespace=tablespace,
                owner=owner,
                deps=item.deps,
                position=item.position,
                file=os.fsdecode(item.file),
                copy=copy,
            )
        )
    return tuple(entries)


def read_archive(path: str) -> Archive:
    """Header and table of contents of the dump at ``path``, a file of pg_dump -Fc or a directory of pg_dump -Fd.

    Raises RecoveryError for everything else, saying what it is and how to go on.
    """
    is_directory = os.path.isdir(path)
    file = os.path.join(path, "toc.dat") if is_directory else path
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise RecoveryError(
                f"{file} is neither a file nor a directory, so it is no dump. Nothing was changed. Name a file made by "
                "pg_dump -Fc or a directory made by pg_dump -Fd."
            )
        with open(file, "rb") as stream:
            start = stream.read(262)
            stream.seek(0)
            if not start.startswith(MAGIC):
                raise refuse_kind(file, start)
            size = directory_size(path) if is_directory else os.path.getsize(path)
            return _read(Reader(stream, file), path, is_directory, size)
    except OSError as error:
        what = " It is a directory without toc.dat, so pg_dump -Fd did not write it." if is_directory else ""
        raise RecoveryError(
            f"cannot read the dump {path}: {error.strerror}.{what} Nothing was changed. "
            "Name a dump that the operating system user of PostgreSQL can read on this host."
        ) from error


def _read(reader: Reader, path: str, is_directory: bool, size: int) -> Archive:
    reader.take(len(MAGIC))
    version = (reader.byte(), reader.byte())
    reader.byte()
    if not OLDEST <= version <= NEWEST:
        raise RecoveryError(
            f"{path} has archive format {version[0]}.{version[1]}; formats {OLDEST[0]}.{OLDEST[1]} to "
            f"{NEWEST[0]}.{NEWEST[1]} (pg_dump 9.6 to 18) can be read. Nothing was changed."
        )
    reader.int_size, reader.offset_size, kind = reader.byte(), reader.byte(), reader.byte()
    if kind != (TAR if is_directory else CUSTOM):  # toc.dat of a directory dump calls itself a tar's
        raise RecoveryError(f"{path} is of archive kind {kind}, neither a custom-format file nor a directory dump.")
    compression = COMPRESSIONS[reader.byte() if version >= (1, 15) else int(reader.integer() != 0)]
    second, minute, hour, day, month, year, summer = (reader.integer() for _field in range(7))
    database, server_version, dump_version = reader.string(), reader.string(), reader.string()
    raw = [_read_entry(reader, version, kind) for _entry in range(reader.integer())]
    encoding, codec = _encoding(raw)
    return Archive(
        path=path,
        format="directory" if is_directory else "custom",
        version=version,
        compression=compression,
        wall_time=datetime(year + 1900, month + 1, day, hour, minute, second),
        summer_time=None if summer < 0 else summer > 0,
        database=database,
        server_version=server_version,
        dump_version=dump_version,
        size=size,
        entries=_resolve(raw, codec),
        encoding=encoding,
        codec=codec,
    )


def directory_size(path: str) -> int:
    """Bytes of the files in a directory dump (it has no directories below)."""
    with os.scandir(path) as items:
        return sum(item.stat().st_size for item in items)


def data_sizes(archive: Archive) -> dict[int, Optional[int]]:
    """Bytes that each item's data take in the dump, by dump id; None where only reading everything would tell.

    In a custom file data lie one after the other, so an item ends where the next begins (pg_backup_custom.c).
    """
    if archive.format == "directory":
        return {entry.dump_id: _file_size(archive, entry) for entry in archive.entries if entry.file}
    known = sorted((entry.position, entry.dump_id) for entry in archive.entries if entry.position)
    data = [entry for entry in archive.entries if entry.desc in ("TABLE DATA", "BLOBS")]
    sizes: dict[int, Optional[int]] = {entry.dump_id: None for entry in data if not entry.position}
    ends = [position for position, _id in known[1:]] + [archive.size]
    for (position, dump_id), end in zip(known, ends):
        sizes[dump_id] = end - (position or 0)
    return sizes


def _file_size(archive: Archive, entry: Entry) -> int:
    """Size of an item's file, which compression gave an ending (pg_backup_directory.c)."""
    base = os.path.join(archive.path, entry.file)
    for ending in ("", ".gz", ".lz4", ".zst"):
        if os.path.exists(base + ending):
            return os.path.getsize(base + ending)
    raise RecoveryError(
        f"the dump {archive.path} lacks the file {entry.file} with the rows of {entry.namespace}.{entry.tag}: "
        "it was copied incompletely. Nothing was changed. Copy it again, or name another dump."
    )
