# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an SQL statement can take from a database, read from its text as a log or a session shows it. Pure.

Syntax: PostgreSQL documentation, 4.1 (lexical structure) and part VI (SQL commands). It is read, not parsed: enough to
tell which statement destroys what, whatever else is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import fold

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)|(?:[bBnNxX]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    |(?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
    |(?P<word>[^\W\d][\w$]*)
    |(?P<number>\d[\w.]*|\$\d+)
    |(?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")

Name = tuple[Optional[str], str]

# Objects whose names are those of relations.
RELATION_KINDS = ("table", "view", "materialized view", "foreign table", "sequence")
CONTROL = (
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "rollback_to",
    "release",
    "prepare_transaction",
    "commit_prepared",
    "rollback_prepared",
)


@dataclass(frozen=True)
class Token:
    """A word (folded as PostgreSQL folds names), a quoted name, a string, or one sign."""

    kind: str
    text: str


@dataclass(frozen=True)
class Damage:
    """What one statement can take. ``names`` are what it names; none where the text does not say (``maybe``).

    ``kind`` is drop_table (any relation), drop_schema, drop_database, drop_column, truncate, delete, update, rename, or
    hidden (a CASCADE from something else, DROP OWNED, a DO block). ``whole`` is False where a WHERE limits it.
    """

    kind: str
    names: tuple[Name, ...] = ()
    whole: bool = True
    cascade: bool = False
    if_exists: bool = False
    note: str = ""


@dataclass(frozen=True)
class Control:
    """A statement that begins, ends or divides a transaction; ``name`` is that of a savepoint or prepared one."""

    verb: str
    name: str = ""


def tokens(text: str) -> Iterator[Token]:
    """Tokens of an SQL text, without space and comments; what is cut off at the end counts to there."""
    at = 0
    while match := _TOKEN.match(text, at):  # a sign is anything, so only the end is none
        at = match.end()
        kind = str(match.lastgroup if match.lastgroup != "tag" else "dollar")
        if kind == "comment":
            depth = 1
            while depth:
                edge = _COMMENT_EDGE.search(text, at)
                if edge is None:
                    return
                depth += 1 if edge.group() == "/*" else -1
                at = edge.end()
        elif kind == "word":
            yield Token("word", fold(match.group()))
        elif kind == "quoted":
            yield Token("quoted", match.group().split('"', 1)[1].removesuffix('"').replace('""', '"'))
        elif kind == "dollar":
            yield Token("string", match.group().strip("$")[len(match.group("tag")) :])
        elif kind == "string":
            yield Token("string", match.group().split("'", 1)[1].removesuffix("'").replace("''", "'"))
        elif kind != "space":
            yield Token(kind, match.group())


def split(text: str) -> list[list[Token]]:
    """Statements of a text that may hold several, as tokens."""
    found: list[list[Token]] = [[]]
    for token in tokens(text):
        if token == Token("sign", ";") and not _is_routine(found[-1]):
            found.append([])
        else:
            found[-1].append(token)
    return [statement for statement in found if statement]


def _is_routine(statement: Sequence[Token]) -> bool:
    """Whether semicolons may stand within (BEGIN ATOMIC): the rest of such a text is not read."""
    words = [token.text for token in statement[:4] if token.kind == "word"]
    return words[:1] == ["create"] and bool({"function", "procedure"} & set(words[1:]))


class _Reader:
    """Walks over the tokens of one statement."""

    def __init__(self, statement: Sequence[Token]) -> None:
        self.tokens = statement
        self.at = 0

    def words(self, *words: str) -> bool:
        """Whether these words come next; they are then passed."""
        here = self.tokens[self.at : self.at + len(words)]
        if [token.text for token in here if token.kind == "word"] != list(words):
            return False
        self.at += len(words)
        return True

    def sign(self, sign: str) -> bool:
        """Whether this sign comes next; it is then passed."""
        if self.at < len(self.tokens) and self.tokens[self.at] == Token("sign", sign):
            self.at += 1
            return True
        return False

    def part(self) -> Optional[str]:
        """One part of a name."""
        if self.at < len(self.tokens) and self.tokens[self.at].kind in ("word", "quoted"):
            self.at += 1
            return self.tokens[self.at - 1].text
        return None

    def name(self) -> Optional[Name]:
        """A name with or without schema (a database before it says nothing more)."""
        parts: list[str] = []
        while True:
            part = self.part()
            if part is None:
                break
            parts.append(part)
            if not self.sign("."):
                break
        return ((parts[-2] if len(parts) > 1 else None), parts[-1]) if parts else None

    def names(self) -> tuple[Name, ...]:
        """Names separated by commas, with ONLY and * as TRUNCATE has them."""
        found: list[Name] = []
        while True:
            self.words("only")
            name = self.name()
            if name is None:
                return tuple(found)
            found.append(name)
            self.sign("*")
            if not self.sign(","):
                return tuple(found)

    def has(self, word: str) -> bool:
        """Whether the word stands anywhere from here on."""
        return Token("word", word) in self.tokens[self.at :]


def control(statement: Sequence[Token]) -> Optional[Control]:
    """What a statement does to the transaction it is in; None for all others."""
    reader = _Reader(statement)
    last = statement[-1].text
    if reader.words("begin") or reader.words("start", "transaction"):
        return Control("begin")
    if reader.words("commit", "prepared"):
        return Control("commit_prepared", last)
    if reader.words("rollback", "prepared"):
        return Control("rollback_prepared", last)
    if reader.words("prepare", "transaction"):
        return Control("prepare_transaction", last)
    if reader.words("savepoint"):
        return Control("savepoint", last)
    if reader.words("release"):
        return Control("release", last)
    if reader.words("commit") or reader.words("end"):
        return Control("commit")
    if reader.words("rollback") or reader.words("abort"):
        return Control("rollback_to", last) if reader.has("to") else Control("rollback")
    return None


def damage(statement: Sequence[Token]) -> list[Damage]:
    """What a statement can take; an empty list for one that takes nothing that its text shows."""
    reader = _Reader(statement)
    if reader.words("drop"):
        return _drop(reader)
    if reader.words("truncate"):
        reader.words("table")
        names = reader.names()
        return [Damage("truncate", names, cascade=reader.has("cascade"))] if names else []
    if reader.words("alter"):
        return _alter(reader)
    if reader.words("do"):
        return [Damage("hidden", whole=False, note=token.text) for token in statement if token.kind == "string"][:1]
    if statement[0].text in ("delete", "update", "merge", "with", "explain") and statement[0].kind == "word":
        if statement[0].text == "explain" and Token("word", "analyze") not in statement:
            return []
        return _dml(statement)
    return []


def makes(statement: Sequence[Token]) -> list[Name]:
    """Relations and schemas (without a schema) that a statement makes, or that get their name by it."""
    reader = _Reader(statement)
    if reader.words("create"):
        reader.words("or", "replace")
        for kind in ("schema", *RELATION_KINDS, "unlogged table", "recursive view"):
            if reader.words(*kind.split()):
                reader.words("if", "not", "exists")
                name = reader.name()
                return [name] if name else []
        return []
    if reader.words("alter"):
        made = _moved(reader)
        before = Token("word", "rename"), Token("word", "to")
        for index in range(2, len(statement)):
            if tuple(statement[index - 2 : index]) == before:
                return made or [(None, statement[index].text)]
        return made
    return []


def _moved(reader: _Reader) -> list[Name]:
    """What ALTER gives another name or another schema, as it is called then."""
    if not any(reader.words(*kind.split()) for kind in RELATION_KINDS):
        return []
    _if_exists(reader)
    reader.words("only")
    name = reader.name()
    if name is None:
        return []
    if reader.words("rename", "to"):
        other = reader.part()
        return [(name[0], other)] if other else []
    schema = reader.part() if reader.words("set", "schema") else None
    return [(schema, name[1])] if schema else []


def _if_exists(reader: _Reader) -> bool:
    return reader.words("if", "exists")


def _drop(reader: _Reader) -> list[Damage]:
    if reader.words("owned"):
        return [Damage("hidden", note="DROP OWNED takes all that a role owns")]
    for kind in RELATION_KINDS:
        if reader.words(*kind.split()):
            if_exists = _if_exists(reader)
            return [Damage("drop_table", reader.names(), cascade=reader.has("cascade"), if_exists=if_exists)]
    for kind in ("schema", "database"):
        if reader.words(kind):
            if_exists = _if_exists(reader)
            return [Damage(f"drop_{kind}", reader.names(), cascade=reader.has("cascade"), if_exists=if_exists)]
    if reader.has("cascade"):
        return [Damage("hidden", cascade=True)]
    return []


def _alter(reader: _Reader) -> list[Damage]:
    for kind in ("schema", *RELATION_KINDS):
        if reader.words(*kind.split()):
            break
    else:
        return []
    if_exists = _if_exists(reader)
    reader.words("only")
    name = reader.name()
    if name is None:
        return []
    reader.sign("*")
    if reader.words("rename", "to") or reader.words("set", "schema"):
        moved = reader.name()
        schema = kind == "schema"
        note = f"the {'schema' if schema else 'relation'} was renamed or moved to {moved[1] if moved else '?'}"
        return [Damage("rename", (name,), if_exists=if_exists, note=note, whole=not schema)]
    columns = _dropped_columns(reader)
    if not columns:
        return []
    note = f"column {', '.join(columns)}"
    return [Damage("drop_column", (name,), cascade=reader.has("cascade"), if_exists=if_exists, note=note)]


def _dropped_columns(reader: _Reader) -> list[str]:
    columns: list[str] = []
    start, depth = reader.at, 0
    for index in range(start, len(reader.tokens)):
        token = reader.tokens[index]
        depth += (token == Token("sign", "(")) - (token == Token("sign", ")"))
        # An action begins here or after a comma; ALTER COLUMN ... DROP NOT NULL has its DROP further on.
        begins = index == start or reader.tokens[index - 1] == Token("sign", ",")
        if depth or not begins or token != Token("word", "drop"):
            continue
        reader.at = index + 1
        if not reader.words("column") and reader.tokens[reader.at : reader.at + 1] == [Token("word", "constraint")]:
            continue
        _if_exists(reader)
        column = reader.part()
        if column is not None:
            columns.append(column)
    reader.at = start
    return columns


def _dml(statement: Sequence[Token]) -> list[Damage]:
    found: list[Damage] = []
    before: Optional[Token] = None
    for index, token in enumerate(statement):
        reader = _Reader(statement)
        reader.at = index
        # FOR UPDATE, ON UPDATE and DO UPDATE change nothing here.
        locks = before is not None and before.text in ("for", "on", "do", "key", "then")
        kind = ""
        if token.kind == "word" and not locks:
            kind = "delete" if reader.words("delete", "from") else "update" if reader.words("update") else ""
            if not kind and reader.words("merge", "into"):
                kind = "update"
        if kind:
            reader.words("only")
            name = reader.name()
            if name is not None:
                found.append(Damage(kind, (name,), whole=not _limited(statement, index)))
        before = token
    return found


def _limited(statement: Sequence[Token], start: int) -> bool:
    """Whether a WHERE (or the ON of a MERGE) of the same level follows; ``WHERE true`` limits nothing."""
    depth = 0
    for index in range(start, len(statement)):
        token = statement[index]
        depth += (token == Token("sign", "(")) - (token == Token("sign", ")"))
        if depth < 0:
            return False
        if depth == 0 and token.kind == "word" and token.text in ("where", "on"):
            condition = [other.text for other in statement[index + 1 :]]
            return condition not in (["true"], ["1", "=", "1"])
    return False


def mentions(text: str, name: str) -> bool:
    """Whether a text (the body of a DO block) holds a name as a whole word, and a word that destroys."""
    destroys = re.search(r"\b(?:drop|truncate|delete|update|alter)\b", text, re.IGNORECASE)
    return bool(destroys and re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE))
