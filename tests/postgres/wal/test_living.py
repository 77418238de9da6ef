"""The damage is found while others make, drop, truncate, delete and rewrite tables in this and other databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import Cluster, SideInstance, life_beside


@pytest.fixture(scope="module")
def living(cluster: Cluster) -> Iterator[Cluster]:
    with life_beside(cluster):
        yield cluster


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DROP TABLE {name}", "drop_table"),
        ("TRUNCATE {name}", "truncate"),
        ("DELETE FROM {name}", "delete"),
        ("UPDATE {name} SET id = 0", "update"),
    ],
)
def test_damage_beside_the_work_of_others(living: Cluster, damage: str, kind: str) -> None:
    name = f"living_{kind}"
    living.sql(f"CREATE TABLE {name} AS SELECT generate_series(1, 1500) AS id")
    xid = living.transact(damage.format(name=name))
    lsn = living.commit_lsn(xid)
    found = living.find(name)
    assert (found["incident"]["xid"], found["incident"]["kind"]) == (xid, kind)
    assert (found["target"]["value"], found["target"]["exclusive"]) == (lsn, True)
    assert [relation["name"] for relation in found["incident"]["relations"]] == [name]


def test_a_restore_to_what_was_found_has_every_row(
    living: Cluster, restored: Callable[[dict[str, Any]], SideInstance]
) -> None:
    living.sql("CREATE TABLE living_whole (id int)", "INSERT INTO living_whole SELECT generate_series(1, 300)")
    living.sql("DROP TABLE living_whole")
    with restored(living.find("living_whole")) as side:
        assert side.sql("SELECT count(*) FROM living_whole") == 300
