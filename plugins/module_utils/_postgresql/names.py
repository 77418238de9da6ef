# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# One part of a name as SQL writes it (PostgreSQL documentation, 4.1.1): quoted, or begun by a letter or underscore.
PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\W\d][\w$]*))\s*')
PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
MAX_BYTES = 63


def quote_ident(name: str) -> str:
    """``name`` (a real name) as an SQL identifier, always in double quotes, so that no keyword list is needed."""
    if not name or "\0" in name:
        raise RecoveryError(f"{name!r} cannot be the name of a PostgreSQL object")
    return '"' + name.replace('"', '""') + '"'


def quote_name(schema: str, name: str) -> str:
    """Qualified SQL name of a relation from its real names."""
    return f"{quote_ident(schema)}.{quote_ident(name)}"


def quote_literal(value: str) -> str:
    """``value`` as an SQL string literal that is right with any ``standard_conforming_strings``."""
    if "\0" in value:
        raise RecoveryError("a PostgreSQL string cannot hold a NUL byte")
    text = "'" + value.replace("'", "''").replace("\\", "\\\\") + "'"
    return "E" + text if "\\" in value else text


def display_name(schema: str | None, name: str) -> str:
    """A name for people: quoted only where it must be (``public.orders``, ``"Sales"."Order Lines"``)."""
    parts = [name] if schema is None else [schema, name]
    return ".".join(part if PLAIN.match(part) else quote_ident(part) for part in parts)


def derived_name(name: str, suffix: str, taken: Collection[str] = ()) -> str:
    """Name of a table of ours made from another's ``name``, the same each time and none of ``taken``.

    Whole where it fits, otherwise its beginning with a hash of all of it, so that no two names give the same.
    """
    derived = name + suffix
    if len(derived.encode(errors="surrogateescape")) <= MAX_BYTES and derived not in taken:
        return derived
    whole = name.encode(errors="surrogateescape")
    ending = f"_{hashlib.sha256(whole).hexdigest()[:12]}{suffix}"
    return whole[: MAX_BYTES - len(ending)].decode(errors="ignore") + ending


def _parse(text: str) -> list[list[str]]:
    """Comma-separated, possibly qualified names of one text as lists of real name parts."""
    names: list[list[str]] = []
    parts: list[str] = []
    at = 0
    while True:
        match = PART.match(text, at)
        if match is None:
            raise RecoveryError(
                f"cannot read a name at position {at + 1} of {text!r}. "
                'Write names as in SQL: public.orders, or with capitals and blanks "Sales"."Order Lines".'
            )
        quoted, plain = match.groups()
        part = quoted.replace('""', '"') if quoted is not None else fold(plain)
        if len(part.encode(errors="surrogateescape")) > MAX_BYTES:
            raise RecoveryError(f"{part!r} is longer than the {MAX_BYTES} bytes of a PostgreSQL name")
        parts.append(part)
        at = match.end()
        separator = text[at : at + 1]
        if separator == ".":
            at += 1
            continue
        names.append(parts)
        parts = []
        if separator == "":
            return names
        if separator != ",":
            raise RecoveryError(
                f"unexpected {separator!r} at position {at + 1} of {text!r}; names are separated by commas"
            )
        at += 1


def fold(name: str) -> str:
    """An unquoted name as PostgreSQL stores it: ASCII letters in lower case, all others as they are."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def _texts(text_or_list: str | Iterable[str] | None) -> list[str]:
    texts = [text_or_list] if isinstance(text_or_list, str) else list(text_or_list or [])
    return [text for text in texts if text.strip()]


def parse_relation_list(text_or_list: str | Iterable[str] | None) -> list[dict[str, str]]:
    """Relations the user named, as ``[{schema, name}]`` in the order given, each once.

    Takes a comma-separated text or a list of such texts, written as in SQL (unquoted names are folded to lower
    case); a name without a schema is in ``public``. Raises RecoveryError at the place it cannot read.
    """
    relations: list[dict[str, str]] = []
    for text in _texts(text_or_list):
        for parts in _parse(text):
            if len(parts) > 2:
                raise RecoveryError(
                    f"{text!r} names a relation with {len(parts)} parts; write schema.name, "
                    "and name the database by its own option"
                )
            relation = {"schema": parts[0] if len(parts) == 2 else "public", "name": parts[-1]}
            if relation not in relations:
                relations.append(relation)
    return relations


def parse_schema_list(text_or_list: str | Iterable[str] | None) -> list[str]:
    """Schemas the user named, written as in SQL, as real names in the order given, each once."""
    schemas: list[str] = []
    for text in _texts(text_or_list):
        for parts in _parse(text):
            if len(parts) > 1:
                raise RecoveryError(f"{display_name(*parts[:2])} is no schema: a schema's name has one part")
            if parts[0] not in schemas:
                schemas.append(parts[0])
    return schemas
