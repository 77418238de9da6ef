# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in catalogues that all databases share have the bytes of whoever made them."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import name_of, name_of_database


@pytest.mark.parametrize(
    ("stored", "encoding", "name"),
    [
        ("Ä1".encode(), "LATIN1", "Ä1"),
        ("Ä1".encode("latin-1"), "LATIN1", "Ä1"),
        ("база".encode("koi8-r"), "KOI8R", "база"),
        ("база".encode(), "KOI8R", "база"),
        (b"shop", "EUC_JP", "shop"),
        ("café".encode("latin-1"), "SQL_ASCII", "café"),
    ],
)
def test_a_database_is_found_by_its_name_whatever_session_made_it(stored: bytes, encoding: str, name: str) -> None:
    assert name_of_database(stored, encoding) == name


def test_names_within_a_database_have_its_encoding() -> None:
    assert name_of("Bücher".encode("latin-1"), "LATIN1") == "Bücher"
