"""What a database is called that lost its name to a recovered one."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import kept_name


def test_the_name_says_what_it_is_and_of_which_incident() -> None:
    assert kept_name("shop", "4711") == "shop_damaged_4711"
    assert kept_name("shop", "4711", "recovered") == "shop_recovered_4711"


def test_a_name_that_postgresql_would_cut_is_refused() -> None:
    with pytest.raises(RecoveryError, match="longer than the 63 bytes"):
        kept_name("ä" * 20, "corruption-20261129T181500Z")
