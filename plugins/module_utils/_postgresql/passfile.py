# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passfiles of libpq: what one says, and one with a password that the server is told as a SCRAM verifier only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

ITERATIONS = 4096  # what the server itself takes (scram_iterations)
_ALPHABET = string.ascii_letters + string.digits
_VERIFIER = re.compile(r"# (SCRAM-SHA-256\$\S+)")


@dataclass(frozen=True)
class Secret:
    """A role's password and the verifier that the server has of it."""

    user: str
    password: str
    verifier: str


def scram_verifier(password: str, salt: bytes) -> str:
    """What the server stores of a password of ASCII characters (RFC 5803, PostgreSQL: src/common/scram-common.c)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    parts = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"


def new_secret(user: str) -> Secret:
    """A password that nobody knows yet."""
    password = "".join(secrets.choice(_ALPHABET) for unused in range(40))
    return Secret(user, password, scram_verifier(password, secrets.token_bytes(16)))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def render(secret: Secret) -> str:
    """Text of the passfile, for any database; the verifier stands beside, as each is salted anew."""
    return (
        "# Made by the role dbre.recovery.postgresql_standby. To change the password, remove this file and run it.\n"
        f"# {secret.verifier}\n"
        f"*:*:*:{_escaped(secret.user)}:{secret.password}\n"
    )


def parse(text: str, user: str, path: str) -> Optional[Secret]:
    """The secret in a passfile of ours; None when there is no file. RecoveryError when it is somebody else's.

    It was for one database only, once.
    """
    if not text:
        return None
    verifier = _VERIFIER.search(text)
    ours = re.compile(rf"\*:\*:(?:\*|replication):{re.escape(_escaped(user))}:(.*)")
    passwords = [match[1] for match in map(ours.fullmatch, text.splitlines()) if match]
    if verifier is None or len(passwords) != 1:
        raise RecoveryError(
            f"{path} is not what the role dbre.recovery.postgresql_standby makes for role {user}. Nothing was changed. "
            "Move it away, or name another file (postgresql_standby_passfile, postgresql_standby_recovery_passfile)."
        )
    return Secret(user, passwords[0], verifier.group(1))


def password_for(text: str, fits: Callable[[str], bool], port: int, database: str, user: str) -> Optional[str]:
    """The password that a passfile has for a server whose host ``fits``; None where no line does.

    As libpq reads it (PostgreSQL: src/interfaces/libpq/fe-connect.c, passwordFromFile): the first line that fits
    counts, a field that is ``*`` alone fits anything, a backslash takes a colon or a backslash as it is.
    """
    for fields in _lines(text):
        wanted = ((fields[1], str(port)), (fields[2], database), (fields[3], user))
        if (fields[0] == "*" or fits(_plain(fields[0]))) and all(
            field == "*" or _plain(field) == value for field, value in wanted
        ):
            return _plain(fields[4])
    return None


def hosts_of(text: str) -> list[str]:
    """The hosts that a passfile has lines for, each once, in its order."""
    return list(dict.fromkeys(_plain(fields[0]) for fields in _lines(text)))


def _lines(text: str) -> Iterator[list[str]]:
    """The fields of each line that has all of them, still escaped."""
    for line in text.split("\n"):
        fields = re.findall(r"((?:\\.|[^:])*):", line.rstrip("\r") + ":")
        if not line.startswith("#") and len(fields) >= 5:
            yield fields


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
