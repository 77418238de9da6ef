# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any


class RecoveryError(Exception):
    """Something that cannot be done, said in one message a person can act on.

    ``msg`` names what is wrong, which value and what to do next; ``details`` are extra result keys for the module
    (candidates, a plan, the window), which hands both on with ``fail_json(msg=error.msg, **error.details)``.
    """

    def __init__(self, msg: str, **details: Any) -> None:
        super().__init__(msg)
        self.msg: str = msg
        self.details: dict[str, Any] = details
