# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that people give for one run (-e) and that nothing here reads, because they are misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path

COLLECTION = Path(__file__).resolve().parents[2]


@cache
def _read() -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of our roles that have two words or more, and every word that stands in a role or playbook."""
    roles = tuple(path.name for path in (COLLECTION / "roles").iterdir() if "_" in path.name)
    words: set[str] = set()
    for place in ("roles", "playbooks"):
        for path in (COLLECTION / place).rglob("*.y*ml"):
            words.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return roles, frozenset(words)


def misspelt(given: Iterable[str]) -> list[str]:
    """Why each of the names ``given`` that begins as variables of a role do is none of them.

    Names that begin otherwise may be somebody's own, which an inventory reads.
    """
    roles, words = _read()
    faults = []
    for name in sorted(given):
        if name in words or not name.startswith(tuple(f"{role}_" for role in roles)):
            continue
        near = get_close_matches(name, [word for word in words if word.startswith(roles)], 1, 0.8)
        hint = f" Similar: {', '.join(near)}." if near else ""
        faults.append(f"{name} is no variable of this collection, and would be ignored.{hint}")
    return faults
