# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and values of databases that do not say in which encoding their bytes are (SQL_ASCII)."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any, Optional

try:
    from psycopg2 import extensions
except ImportError:
    extensions = None  # type: ignore[assignment]  # connect() says so

CODEC = "dbre_raw"
RAW = "SQL_ASCII"


def _decode(data: Any, errors: str = "strict") -> tuple[str, int]:
    return bytes(data).decode("utf-8", "surrogateescape"), len(data)


def _encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    return text.encode("utf-8", "surrogateescape"), len(text)


def _find(name: str) -> Optional[codecs.CodecInfo]:
    return codecs.CodecInfo(_encode, _decode, name=CODEC) if name == CODEC else None


codecs.register(_find)


def readable(value: Any) -> Any:
    """A result whose texts are all UTF-8, which ansible-core from 2.19 on insists on.

    A byte that is none stands as the letter that LATIN1 has for it, as in names out of WAL.
    """
    if isinstance(value, str):
        return "".join(chr(ord(one) - 0xDC00) if "\udc80" <= one <= "\udcff" else one for one in value)
    if isinstance(value, Mapping):
        return {readable(name): readable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return value


def client_encoding(server_encoding: str) -> str:
    """The encoding in which we talk with a database: UTF-8, but with one that knows none its own bytes."""
    return RAW if server_encoding == RAW else "UTF8"


def take_raw_bytes(connection: Any) -> None:
    """Let a session with a database without an encoding take all bytes as they are, and give them back the same.

    As UTF-8 where they are that, and otherwise as Python stands for bytes in file names (surrogateescape). psycopg2
    itself takes such a database for ASCII.
    """
    if connection.get_parameter_status("server_encoding") == RAW:
        for name in (RAW, RAW.replace("_", "")):
            extensions.encodings[name] = CODEC
        connection.set_client_encoding(RAW)
