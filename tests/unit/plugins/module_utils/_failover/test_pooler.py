# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which entries of PgBouncer's configuration lead to the old primary, and what becomes of them."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._failover.afterwards import not_repointed
from ansible_collections.dbre.recovery.plugins.module_utils._failover.pooler import Move, move_entries

MOVE = Move(["db1", "10.0.0.1"], 5432, "10.0.0.2", 5433)


@pytest.mark.parametrize(
    ("entry", "moved"),
    [
        ("shop = host=10.0.0.1 port=5432 dbname=shop", "shop = host=10.0.0.2 port=5433 dbname=shop"),
        ("shop=host=db1 dbname=shop", "shop=port=5433 host=10.0.0.2 dbname=shop"),
        ("  * = host=db1", "  * = port=5433 host=10.0.0.2"),
        ("\"My \"\"Shop\"\"\" = host='db1' password='it''s port=5432'", None),
        ("shop = host=db1,db3 port=5432", "shop = host=10.0.0.2,db3 port=5433"),
        ("shop = port = 5432 host = db1", "shop = port = 5433 host = 10.0.0.2"),
    ],
)
def test_an_entry_of_the_old_primary_is_moved_and_keeps_all_else(entry: str, moved: str) -> None:
    found = move_entries(f"[databases]\n{entry}\n[pgbouncer]\nlisten_port=6432\n", MOVE)
    line = found.text.split("\n")[1]
    assert line == (moved or '"My ""Shop""" = port=5433 host=10.0.0.2 password=\'it\'\'s port=5432\'')
    assert len(found.changed) == 1
    again = move_entries(found.text, MOVE)
    assert (again.text, again.changed) == (found.text, [])


@pytest.mark.parametrize(
    "text",
    [
        "[databases]\nreports = host=db3 port=5432\n",
        "[databases]\nother = host=db1 port=5999\n",
        "[databases]\n; shop = host=db1\n# shop = host=db1\n",
        "[databases]\nhere = dbname=shop\nsocket = host=/var/run/postgresql\n",
        "[pgbouncer]\nhost=db1\n",
        "[users]\nshop = host=db1\n",
        "[databases]\nfar = host=db10\nname = dbname=host=db1\n",
    ],
)
def test_what_does_not_lead_to_the_old_primary_stays(text: str) -> None:
    found = move_entries(text, MOVE)
    assert (found.text, found.changed) == (text, [])


def test_beside_the_old_primary_an_entry_without_a_host_means_it() -> None:
    beside = Move(["db1"], 5432, "10.0.0.2", 5432, local=True)
    found = move_entries("[databases]\nshop = dbname=shop\nmain = host=/var/run/postgresql\n", beside)
    assert found.text == "[databases]\nshop = host=10.0.0.2 port=5432 dbname=shop\nmain = port=5432 host=10.0.0.2\n"


def test_entries_that_lead_to_the_new_primary_are_told_and_files_that_are_included() -> None:
    found = move_entries("%include more.ini\n[databases]\nshop = host=10.0.0.2 port=5433\n%include shops.ini\n", MOVE)
    assert (found.changed, found.there, found.includes) == ([], ["shop"], ["more.ini", "shops.ini"])
    assert move_entries("shop = host=db1\n", MOVE, found.section).changed == ["shop"]


def test_a_pgbouncer_that_died_with_the_old_primary_is_not_missed() -> None:
    loop = {"ansible_loop_var": "at"}
    results = [
        {**loop, "at": "db1", "unreachable": True, "msg": "no route"},
        {**loop, "at": "bouncer", "databases": ["shop"]},
        {**loop, "at": "other", "msg": "the console\nrefuses"},
    ]
    assert not_repointed(results, "db1") == [{"host": "other", "why": "the console refuses"}]
    assert len(not_repointed(results, "db9")) == 2


def test_a_name_that_its_server_does_not_take_is_told_and_no_key_with_it() -> None:
    loop = {"ansible_loop_var": "item"}
    results = [
        {**loop, "item": {"zone": "shop.test", "record": "db"}, "changed": True, "dns_rc": 0},
        {**loop, "item": {"zone": "shop.test", "record": "old"}, "changed": False, "dns_rc": 0},
        {
            **loop,
            "item": {"zone": "shop.test", "record": "x"},
            "msg": "Failed to create DNS record (rc: 9)",
            "dns_rc": 9,
        },
    ]
    assert not_repointed(results, "db1") == [{"host": "x", "why": "Failed to create DNS record (rc: 9)"}]
