# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

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


def is_given(value: str) -> str:
    """SQL condition: ``value`` is not NULL, as the server's own NOT NULL and foreign keys see it.

    ``IS NOT NULL`` is false, and ``IS NULL`` may be true, of a row (a composite type) with fields that are NULL.
    """
    return f"{value} IS DISTINCT FROM NULL"


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


class _Name(NamedTuple):
    """A possibly qualified name: as it was written, and its real parts."""

    text: str
    parts: list[str]
    folded: bool
    """Whether it would be another one with quotes around it."""


def _parse(text: str) -> list[_Name]:
    """The names of one text, with commas or ends of lines between them."""
    names: list[_Name] = []
    parts: list[str] = []
    folded = False
    at = begin = 0
    while True:
        match = PART.match(text, at)
        if match is None:
            raise RecoveryError(
                f"cannot read a name at position {at + 1} of {text!r}. "
                'Write names as in SQL: public.orders, or with capitals and blanks "Sales"."Order Lines".'
            )
        quoted, plain = match.groups()
        part = quoted.replace('""', '"') if quoted is not None else fold(plain)
        folded = folded or (quoted is None and part != plain)
        if len(part.encode(errors="surrogateescape")) > MAX_BYTES:
            raise RecoveryError(f"{part!r} is longer than the {MAX_BYTES} bytes of a PostgreSQL name")
        parts.append(part)
        at = match.end()
        separator = text[at : at + 1]
        if separator == ".":
            at += 1
            continue
        names.append(_Name(text[begin:at].strip(), parts, folded))
        parts, folded = [], False
        if separator == "":
            return names
        if separator == ",":
            at += 1
        elif "\n" not in match.group()[len(match.group().rstrip()) :]:
            raise RecoveryError(
                f"unexpected {separator!r} at position {at + 1} of {text!r}; names are separated by commas or line ends"
            )
        begin = at


def fold(name: str) -> str:
    """An unquoted name as PostgreSQL stores it: ASCII letters in lower case, all others as they are."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def _names(text_or_list: str | Iterable[str] | None) -> list[_Name]:
    """All names of a text, of a list of texts, or of a text that is such a list in JSON."""
    if isinstance(text_or_list, str):
        text_or_list = _from_json(text_or_list) if text_or_list.lstrip().startswith("[") else [text_or_list]
    return [name for text in text_or_list or [] if text.strip() for name in _parse(text)]


def _from_json(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RecoveryError(f"{text!r} begins like a list in JSON and is none: {error}") from error
    if not all(isinstance(item, str) for item in found):
        raise RecoveryError(f"{text!r} is a list in JSON, but not of texts")
    return list(found)


def single_names(text_or_list: str | Iterable[str] | None) -> list[str]:
    """Names that somebody gave in any form, one a text, each as it was written. RecoveryError at what is none."""
    return [name.text for name in _names(text_or_list)]


def listed_names(text_or_list: str | Iterable[str] | None) -> list[str]:
    """Relations for people and for other parts, each once: as it was written where quotes would make it another."""
    found = (name.text if name.folded else display_name(*("public", *name.parts)[-2:]) for name in _names(text_or_list))
    return list(dict.fromkeys(found))


def lost_quotes(text_or_list: str | Iterable[str] | None, known: Iterable[tuple[str, ...]]) -> dict[str, list[str]]:
    """Names without quotes that fit two of the ``known`` (real parts of names) by case, with those they fit.

    ``known`` are all schemas or all relations, these with their schemas. A shell or Ansible may have taken the quotes
    away, and SQL without them means the one in lower case.
    """
    twins: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for parts in known:
        twins.setdefault(tuple(map(fold, parts)), set()).add(parts)
    width = max(map(len, twins), default=0)
    found = {}
    for name in _names(text_or_list):
        whole = ("public", *map(fold, name.parts))[-width:]
        fits = twins.get(whole, set()) if name.folded else set()
        if len(fits) > 1:
            found[name.text] = [".".join(map(quote_ident, parts)) for parts in sorted(fits)]
    return found


def parse_relation_list(text_or_list: str | Iterable[str] | None) -> list[dict[str, str]]:
    """Relations the user named, as ``[{schema, name}]`` in the order given, each once.

    Takes a text with commas or ends of lines between the names, a list of such texts, or one in JSON, written as in
    SQL (unquoted names are folded to lower case); a name without a schema is in ``public``. Raises RecoveryError at
    the place it cannot read.
    """
    relations: list[dict[str, str]] = []
    for text, parts, _folded in _names(text_or_list):
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
    for _text, parts, _folded in _names(text_or_list):
        if len(parts) > 1:
            raise RecoveryError(f"{display_name(*parts[:2])} is no schema: a schema's name has one part")
        if parts[0] not in schemas:
            schemas.append(parts[0])
    return schemas
