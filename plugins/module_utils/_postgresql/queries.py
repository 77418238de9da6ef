# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any


def rows(connection: Any, query: str, args: Any = None) -> list[dict[str, Any]]:
    """Result of ``query`` as a list of dictionaries."""
    with connection.cursor() as cursor:
        cursor.execute(query, args)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def value(connection: Any, query: str, args: Any = None) -> Any:
    """First column of the first row of ``query``; None when there is no row."""
    with connection.cursor() as cursor:
        cursor.execute(query, args)
        row = cursor.fetchone()
        return None if row is None else row[0]


def execute(connection: Any, statement: str | bytes, args: Any = None) -> int:
    """Run ``statement`` (any number of statements when ``args`` is None); the number of rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, args)
        return int(cursor.rowcount)
