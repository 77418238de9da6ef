"""Somebody gives an incident the name of another one, whose record is elsewhere: nothing of that one counts for it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import CONTROL
from test_cluster import go_back

pytestmark = pytest.mark.whole  # recoveries one after the other; it is refused by a look at what is there


def elsewhere(shop: Any) -> dict[str, str]:
    return {"dr_report_dir": str(shop.folder / "elsewhere")}


def give_up(shop: Any, incident: str) -> None:
    given_up = shop.abandon(dr_incident_id=incident, **elsewhere(shop))
    assert given_up.rc == 0, given_up.output


def spoil(shop: Any, id: int) -> str:
    ((xid,),) = shop.query(
        "shop", f"UPDATE public.orders SET what = 'spoilt' WHERE id = {id} RETURNING txid_current()::text"
    )
    return str(xid)


def whats(shop: Any) -> Any:
    return shop.query("shop", "SELECT id, what FROM public.orders WHERE what !~ '^order' ORDER BY 1")


@pytest.mark.parametrize("way", ["rows", "tables", "database", "cluster_swap", "cluster_in_place"])
def test_what_an_incident_of_the_same_name_did_does_not_count(shop: Any, way: str) -> None:
    given = {"dr_strategy": way, "dr_incident_id": f"again_{way}"}
    if way == "cluster_in_place":
        given["dr_overwrite"] = str(shop.data)
    first = go_back(shop, dr_target_xid=spoil(shop, 7), **given)
    assert "Recovered" in first.output, first.output
    assert whats(shop) == []
    xid = spoil(shop, 9)
    shop.backup()
    xid = spoil(shop, 8)
    second = go_back(shop, **elsewhere(shop), **given, dr_target_xid=xid)
    # It may be refused, by a name that helps, and may not say that it is done when it is not.
    if "Recovered" in second.output:
        assert whats(shop) == [(9, "spoilt")], second.output
    else:
        assert re.search(r"[Gg]ive (this incident )?another (name \(dr_incident_id|dr_incident_id)", second.output), (
            second.output
        )
        assert whats(shop) == [(8, "spoilt"), (9, "spoilt")]
        give_up(shop, given["dr_incident_id"])
    shop.query(CONTROL, "DROP DATABASE IF EXISTS shop_damaged_again_database")


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_a_table_is_not_taken_for_back_because_another_incident_brought_it(shop: Any, load: str) -> None:
    given = {"dr_tables": "public.lines", "dr_load": load, "dr_incident_id": f"again_{load}"}
    shop.query("shop", "DELETE FROM public.lines WHERE id > 2000")
    first = shop.recover(**given)
    assert first.rc == 0, first.output
    gone = "DELETE FROM public.lines WHERE id > 1000 RETURNING txid_current()::text"
    xid = shop.query("shop", gone)[0][0]
    second = shop.recover(**given, **elsewhere(shop), dr_target_xid=xid)
    if "Recovered" in second.output:
        assert shop.query("shop", "SELECT count(*) FROM public.lines") == [(3000 if load == "merge" else 2000,)]
    else:
        assert "Give this incident another name (dr_incident_id)" in " ".join(second.output.split()), second.output
        give_up(shop, given["dr_incident_id"])
