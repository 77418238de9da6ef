# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions apart from rows: what a fingerprint says of them, and those of what is no table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, TypedDict

# What a fingerprint has of the rows, if they were counted.
OF_ROWS = ("rows", "checksum", "max")


class DefinitionDifference(TypedDict):
    """As in the difference of two fingerprints; None where there is none of that name."""

    relation: str
    property: str
    recovered: Optional[str]
    production: Optional[str]


def definitions_of(fingerprint: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fingerprint as it would be without having counted rows."""
    return {
        name: {key: value for key, value in seen.items() if key not in OF_ROWS} for name, seen in fingerprint.items()
    }


def definition_differences(recovered: Mapping[str, str], production: Mapping[str, str]) -> list[DefinitionDifference]:
    """Which of two lists of definitions differ, by name; a definition is any text, such as a hash."""
    return [
        {
            "relation": name,
            "property": "definition",
            "recovered": recovered.get(name),
            "production": production.get(name),
        }
        for name in sorted({*recovered, *production})
        if recovered.get(name) != production.get(name)
    ]
