# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.passfile import hosts_of, password_for

PASSFILE = r"""
# shop.example.com:5432:shop:master:a comment
other.example.com:5432:shop:master:of another host
shop.example.com:6432:shop:master:of another port
shop.example.com:5432:billing:master:of another database
shop.example.com:5432:shop:reader:of another user
shop.example.com:5432:shop:too few
*.example.com:5432:shop:master:no pattern
shop.example.com:5432:s\:h\\op:ma\:ster:co\:lon\\back\slash:what follows
shop.example.com:*:*:master:the right one
*:*:*:*:too late
fe80\:\:1:5432:*:v6:of an address
lonely:5432:*:end:\
"""


def libpq_says(path: Path, host: str, port: int, database: str, user: str) -> str | None:
    """The password that libpq takes: it reads the passfile before it connects, so no server is needed."""
    library = ctypes.util.find_library("pq")
    if library is None:
        pytest.skip("there is no libpq on this machine")
    libpq = ctypes.CDLL(library)
    libpq.PQconnectStartParams.restype = ctypes.c_void_p
    libpq.PQpass.restype = ctypes.c_char_p
    libpq.PQpass.argtypes = libpq.PQfinish.argtypes = [ctypes.c_void_p]
    given = {
        "host": host,
        "hostaddr": "127.0.0.1",
        "port": str(port),
        "dbname": database,
        "user": user,
        "passfile": str(path),
    }
    names = (ctypes.c_char_p * (len(given) + 1))(*(name.encode() for name in given), None)
    values = (ctypes.c_char_p * (len(given) + 1))(*(value.encode() for value in given.values()), None)
    connection = libpq.PQconnectStartParams(names, values, 0)
    password = libpq.PQpass(connection).decode()
    libpq.PQfinish(connection)
    return password or None


@pytest.mark.parametrize(
    ("asked", "password"),
    [
        (("shop.example.com", 5432, "shop", "master"), "the right one"),
        (("shop.example.com", 5432, "s:h\\op", "ma:ster"), "co:lon\\backslash"),
        (("other.example.com", 5432, "shop", "master"), "of another host"),
        (("other.example.com", 5433, "shop", "master"), "too late"),
        (("fe80::1", 5432, "any", "v6"), "too late"),
    ],
)
def test_a_passfile_is_read_as_libpq_reads_it(tmp_path: Path, asked: tuple[str, int, str, str], password: str) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text(PASSFILE)
    passfile.chmod(0o600)
    host, port, database, user = asked
    assert password_for(PASSFILE, lambda named: named == host, port, database, user) == password
    assert libpq_says(passfile, host, port, database, user) == password


def test_lines_after_those_that_fit_nobody_are_reached() -> None:
    text = PASSFILE.replace("*:*:*:*:too late\n", "").replace("\n", "\r\n")
    assert password_for(text, lambda named: named == "fe80::1", 5432, "any", "v6") == "of an address"
    assert password_for(text, lambda named: named == "nowhere", 5432, "shop", "master") is None


def test_the_hosts_of_a_passfile_are_told_and_nothing_else_of_it() -> None:
    assert hosts_of("a:5432:*:me:secret\n\nnot:a:line\nb\\:1:*:*:me:secret\na:1:*:me:secret") == ["a", "b:1"]
