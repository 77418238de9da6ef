# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts for people, beside what is printed for programs."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import printable

# Callbacks whose whole output is read by programs.
_PARSED = ("json", "jsonl")


def is_parsed() -> bool:
    """Whether a program reads what ansible-playbook prints, so that nothing else may be there."""
    return str(constants.DEFAULT_STDOUT_CALLBACK).rpartition(".")[2] in _PARSED


def show(display: Any, text: str) -> None:
    """Print a text for people; where programs read the output, on the other stream."""
    display.display(printable(text), stderr=is_parsed())
