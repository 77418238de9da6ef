# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts that others wrote, without the secrets in them."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

MASK = "********"
_KEYS = r"passw(?:or)?d|passphrase|secret|token|cipher[-_]?pass|(?:private|s3|azure|access|customer)[-_]key"
_SECRET_KEY = re.compile(f"{_KEYS}|credential", re.IGNORECASE)
# A quoted value goes on over line breaks to its end, or that of a text that was cut.
_QUOTED = r"""(?:[EN]|U&)?'(?:[^'\\]|\\.|'')*(?:'|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z)|\$\w*\$.*?(?:\$\w*\$|\Z)"""
_SECRET_TEXT = re.compile(
    rf"""(?P<key>(?<![\w-])[\w-]*(?:{_KEYS})[\w-]*)
         (?:(?P<sign>["']?\s*[=:]\s*)(?P<value>{_QUOTED}|\S+)
           |(?P<gap>\s+)(?P<after>{_QUOTED}))
      |(?P<option>(?<!\S)--[\w-]*(?:{_KEYS})[\w-]*)(?P<blank>\s+)(?P<given>{_QUOTED}|(?!-)\S+)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_SECRET_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)", re.IGNORECASE)


def mask_text(text: str) -> str:
    """``text`` without the values of ``password=...``, ``"password": "..."``, ``--secret ...`` and the like, and
    without the password part of URLs."""
    text = _SECRET_TEXT.sub(_masked, text)
    return _SECRET_URL.sub(lambda match: f"{match['before']}{MASK}", text)


def _masked(match: re.Match[str]) -> str:
    if match["option"]:
        return f"{match['option']}{match['blank']}{MASK}"
    return f"{match['key']}{match['sign'] or match['gap']}{MASK}"


def masked(value: Any) -> Any:
    """The same with the secrets in all its texts masked, to be returned of definitions and statements of others."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {name: masked(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return value


def clean(value: Any, key: str = "") -> Any:
    """A copy of ``value`` made of plain JSON types, with every secret masked.

    What sits under a key such as ``password``, ``secret`` or ``token`` is masked whole; of texts, what looks like a
    secret inside them. Booleans and empty values say nothing and stay. Unknown types (vaulted values) are masked.
    """
    if value is None or isinstance(value, bool):
        return value
    # A relation may be called like a secret, public.tokens.
    if "." not in key and _SECRET_KEY.search(key) and value not in ("", [], {}):
        return MASK
    if isinstance(value, str):
        return mask_text(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): clean(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [clean(item) for item in value]
    return MASK
