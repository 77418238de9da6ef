# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text, masked

# What a terminal acts on instead of showing it: controls but tab and line break, and marks that turn the direction.
_ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# A value or row of over 1 GB in the server's memory: palloc() in mcxt.c, enlargeStringInfo() in stringinfo.c.
_TOO_LARGE = re.compile("invalid memory alloc request size|Cannot enlarge string buffer|string buffer exceeds maximum")


def too_large(text: str) -> str:
    """What to add to a message of the server that says that something does not fit into its memory; else nothing."""
    if not _TOO_LARGE.search(text):
        return ""
    return (
        " (a row, or the text of a value, is over 1 GB, which no server can hold: bytea takes twice its size as text. "
        "What was published stays, nothing else was changed. Recover the other tables without this one, dr_tables and "
        "dr_scope=named, and with dr_keep_side_instance=true, and take its rows from the side instance in pieces, "
        "substring())"
    )


def printable(text: str) -> str:
    """A text as a terminal may get it: names and messages of servers are anybody's."""
    return _ACTED_ON.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class RecoveryError(Exception):
    """Something that cannot be done, said in one message a person can act on.

    ``msg`` names what is wrong, which value and what to do next; ``details`` are extra result keys for the module
    (candidates, a plan, the window), which hands both on with ``fail_json(msg=error.msg, **error.details)``. In both,
    what others wrote (statements of servers and tools, definitions) has its secrets masked.
    """

    def __init__(self, msg: str, **details: Any) -> None:
        msg = mask_text(printable(msg))
        super().__init__(msg)
        self.msg: str = msg
        self.details: dict[str, Any] = masked(details)


class UnfitHost(RecoveryError):
    """A host lacks what a step needs (room, a program, a locale, a path): which says nothing of backups."""
