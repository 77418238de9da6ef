# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host has the locales that databases were made with: without them PostgreSQL lets nobody in."""

from __future__ import annotations

import locale
import re
import shlex
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import UnfitHost

_LOCALE = re.compile(r"(?P<place>[^.@]+)(?:\.(?P<charset>[^@]+))?(?P<modifier>@.+)?")


def host_has(name: str) -> bool:
    """Whether this host knows a locale, asked as PostgreSQL asks (PostgreSQL: CheckMyDatabase in postinit.c)."""
    before = locale.setlocale(locale.LC_COLLATE)
    try:
        locale.setlocale(locale.LC_COLLATE, name)
        return True
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_COLLATE, before)


def make_command(name: str) -> str:
    """The command that makes a locale where glibc's sources of locales are installed."""
    match = _LOCALE.fullmatch(name)
    if match is None:
        return f"localedef {shlex.quote(name)}"
    charset = {"UTF8": "UTF-8"}.get((match["charset"] or "").upper(), match["charset"] or "ISO-8859-1")
    return shlex.join(["localedef", "-i", match["place"] + (match["modifier"] or ""), "-f", charset, name])


def check_locales(production: Sequence[Mapping[str, Any]], wanted: Collection[str]) -> None:
    """Refuse databases of production, of those ``wanted``, whose ``collate`` or ``ctype`` this host does not know."""
    for database in production:
        for name in (database.get("collate"), database.get("ctype")):
            if not name or database["name"] not in wanted or host_has(name):
                continue
            raise UnfitHost(
                f"database {database['name']!r} has the locale {name!r}, which {socket.gethostname()} does not have: a "
                "server there lets nobody into it. Nothing was changed. Make it there as root, then run again: "
                f"{make_command(name)} (Debian: apt install locales first; Red Hat: dnf install "
                f"glibc-langpack-{name[:2]} instead).",
                locale=name,
            )
