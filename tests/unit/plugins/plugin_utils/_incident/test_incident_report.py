# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.filter.rds_restore_plan import rds_restore_plan
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.shown import dump_shown
from ansible_collections.dbre.recovery.plugins.module_utils._side.shown import side_restore_shown
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.page import lanes, render_html
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import plan_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import (
    build_report,
    compare_fingerprints,
    measure_loss,
    summary,
)

EVIL = "<script>alert('x')</script>"
FINGERPRINT: dict[str, Any] = {
    "rows": 6000000,
    "checksum": "9f2c1d77aa01b6e4",
    "owner": "shop",
    "columns": [{"name": "id"}, {"name": EVIL}],
    "constraints": ["orders_pkey: PRIMARY KEY (id)"],
    "indexes": ["CREATE UNIQUE INDEX orders_pkey ON public.orders USING btree (id)"],
    "comment": None,
    "sequences": {"public.orders_id_seq": {"last_value": 6000000, "is_called": True, "increment": 1}},
}
RESTORE_PLAN: dict[str, Any] = {
    "set": {
        "label": "20261123-200000F",
        "type": "full",
        "stop_time": "2026-11-23T20:00:12+00:00",
        "size": 4.1e9,
        "repo": 1,
    },
    "wal": {
        "first": "000000010000000000000002",
        "last": "000000010000000000000057",
        "count": 85,
        "continuous": True,
    },
    "disk": {"path": "/srv", "needed": 4.5e9, "free": 52e9},
    "path": "/srv/side",
    "port": 6432,
    "databases": ["shop"],
    "tablespaces": [],
}
DATA: dict[str, Any] = {
    "incident": {
        "kind": "drop_table",
        "database": "shop",
        "xid": 745,
        "lsn": "0/3008940",
        "commit_time": "2026-11-23T21:30:07.123456+00:00",
        "relations": [{"schema": "public", "name": "orders"}, {"schema": "Sales", "name": EVIL}],
    },
    "target": {
        "type": "lsn",
        "value": "0/3008940",
        "exclusive": True,
        "timeline": 1,
        "commit_time": "2026-11-23T21:30:07.123456+00:00",
    },
    "transactions_after": {"count": 4212, "seconds": 720},
    "restore_plan": {**RESTORE_PLAN, "shown": side_restore_shown(RESTORE_PLAN)},
    "side_host": "recovery1",
    "load_plan": {
        "relations": [
            {
                "schema": "public",
                "name": "orders",
                "state": "missing",
                "action": "place",
                "bytes": 929000000,
                "rows_estimate": 6e6,
            }
        ],
        "objects": [{"type": "INDEX", "identity": "public.orders_pkey", "state": "missing"}],
        "missing_roles": [{"name": "reporting", "command": 'CREATE ROLE "reporting" NOLOGIN;'}],
    },
    "recovery": {
        "relations": [{"schema": "public", "name": "orders", "rows": 6000000}],
        "fingerprints": {
            "recovered": {"public.orders": FINGERPRINT},
            "production": {"public.orders": copy.deepcopy(FINGERPRINT)},
        },
        "difference": [],
        "left_to_do": [{"type": "role", "object": EVIL, "reason": "is missing", "command": f"CREATE ROLE {EVIL};"}],
    },
    "proof": {"archive_mode": "off", "slots": 0, "pause_state": "paused"},
    "repository": {"before": {"archive_max": "58"}, "after": {"archive_max": "58"}, "unchanged": True},
    "production": {"before": {"timeline": 1}, "after": {"timeline": 1}, "unchanged": True},
    "containment": {"method": "read_only", "database": "shop", "sessions_ended": 3, "escaping_roles": [EVIL]},
}
STATE: dict[str, Any] = {
    "id": "orders-dropped",
    "scenario": "table-drop",
    "parameters": {},
    "outcome": "done",
    "message": None,
    "started": "2026-11-23T21:42:07.000+00:00",
    "ended": "2026-11-23T21:43:07.000+00:00",
    "runs": [
        {
            "started": "2026-11-23T21:42:07.000+00:00",
            "ended": "2026-11-23T21:43:07.000+00:00",
            "outcome": "done",
            "operator": "maria",
            "host": "control1",
        }
    ],
    "events": [
        {
            "phase": "restore",
            "step": None,
            "host": "db1",
            "start": "2026-11-23T21:42:22.000+00:00",
            "end": "2026-11-23T21:42:52.000+00:00",
            "outcome": "ok",
        }
    ],
}


def report(change: Any = None, **state: Any) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    if change:
        change(data)
    return build_report({**STATE, **state}, data, None, {"restore": 30.0})


def test_a_recovery_that_is_equal_and_isolated_is_proved() -> None:
    told = report()
    assert (told["verdict"], told["proof"]["equal"], told["isolation"]["proved"]) == ("proved", True, True)
    assert (told["rpo"]["seconds"], told["rpo"]["transactions"]) == (0.0, 0)
    assert "1 table with 6,000,000 rows back, equal in rows" in summary(told)
    assert summary(told).startswith("Incident orders-dropped: Recovered and proved.\n")
    assert "Left to you" not in summary({**told, "left_to_do": []})
    left = [{"what": f"Look at {name}"} for name in "abcd"]
    assert "\nLeft to you: 2 things, each" in summary({**told, "left_to_do": left[:2]})
    assert summary({**told, "left_to_do": left}).endswith("\n  Look at a\n  Look at b\n  Look at c\n  and 1 more")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["recovery"]["fingerprints"]["production"]["public.orders"].update(checksum="other"),
        lambda data: data["recovery"]["fingerprints"]["production"]["public.orders"].update(indexes=[]),
        lambda data: data["recovery"]["fingerprints"]["production"].clear(),
        lambda data: data["recovery"]["difference"].append(
            {"relation": "public.orders", "property": "sequence public.orders_id_seq", "recovered": 2, "production": 1}
        ),
        lambda data: data["proof"].update(archive_mode="on"),
        lambda data: data["repository"].update(unchanged=False),
        lambda data: data.pop("proof"),
        lambda data: data["recovery"].update(fingerprints={}, relations=[]),
    ],
)
def test_whatever_is_not_equal_or_not_isolated_or_not_looked_at_is_not_called_proved(change: Any) -> None:
    told = report(change)
    assert told["verdict"] == "in_part"
    assert "Recovered in part: not proved: " in told["headline"]
    assert "in part" not in summary(told), "the run ends with that word"
    assert "Recovered in part: not proved: " in render_html(told)


def test_a_sequence_that_has_gone_on_is_no_difference() -> None:
    recovery = copy.deepcopy(DATA["recovery"])
    recovery["fingerprints"]["production"]["public.orders"]["sequences"]["public.orders_id_seq"]["last_value"] += 5
    assert compare_fingerprints(recovery)["equal"]


def test_what_differs_by_what_is_left_to_do_is_no_doubt() -> None:
    def rename(data: dict[str, Any]) -> None:
        data["recovery"]["fingerprints"]["production"]["public.orders"].update(indexes=["another name"])
        entry = {"type": "index", "object": "public.orders_at", "reason": "made as another", "command": "ALTER INDEX"}
        data["recovery"]["left_to_do"] = [{**entry, "lost": False, "rows": None}]

    told = report(rename)
    assert told["verdict"] == "proved"
    assert "differs by what is left to do" in render_html(told)

    def and_another(data: dict[str, Any]) -> None:
        rename(data)
        data["recovery"]["difference"].append({"relation": "public.orders", "property": "indexes"})

    assert report(and_another)["verdict"] == "in_part"


def test_a_run_that_put_nothing_back_recovered_nothing() -> None:
    assert report(lambda data: data.pop("recovery"))["verdict"] == "not_recovered"


LOST = {"type": "table", "object": "public.lines", "reason": "no parents", "command": None, "lost": True, "rows": 5000}


def test_what_production_still_lacks_is_in_the_headline_of_report_and_screen() -> None:
    def lose(data: dict[str, Any]) -> None:
        data["recovery"]["left_to_do"] = [LOST]
        data["load_plan"]["left_to_do"] = [
            LOST,
            {"type": "table column", "object": "public.a.v", "reason": "went with a type", "lost": True, "rows": None},
            {"type": "index", "object": "public.x", "reason": "its name is taken", "lost": True, "rows": None},
            {"type": "trigger", "object": "on a", "reason": "made anew", "lost": False, "rows": None},
        ]

    told = report(lose)
    headline = "Recovered in part: missing 5,000 rows of public.lines, table column public.a.v, index public.x"
    assert (told["verdict"], told["headline"]) == ("in_part", headline)
    assert summary(told).startswith("Incident orders-dropped has ended.\n")
    assert f"<title>Incident orders-dropped – {headline}</title>" in render_html(told)
    assert "no parents" in summary(told)
    assert ">none<" not in render_html(told)


@pytest.mark.parametrize(
    ("kind", "damage", "lacks"),
    [("delete", "delete", 7), ("update", None, 10), ("delete", "update", 10), ("truncate", "truncate", 10)],
)
def test_rows_that_a_merge_could_not_put_back_are_missing(kind: str, damage: str | None, lacks: int) -> None:
    def merge(data: dict[str, Any]) -> None:
        merged = {"inserted": 1200, "differing": 3, "not_fitting": 7, "table": "recovered_1.orders_differs"}
        hit = {"schema": "public", "name": "orders", "damage": damage, "asked": True}
        data["incident"].update(kind=kind, relations=[hit] if damage else [])
        data["recovery"].update(relations=[{**data["recovery"]["relations"][0], "action": "merge"}], fingerprints={})
        data["recovery"]["merged"] = {"public.orders": merged}

    told = report(merge)
    assert told["headline"] == f"Recovered in part: missing {lacks} rows of public.orders"
    assert "recovered_1.orders_differs" in told["missing"][0]["why"]


def test_a_copy_beside_is_a_recovery_in_part() -> None:
    def beside(data: dict[str, Any]) -> None:
        relation = {**data["recovery"]["relations"][0], "action": "beside", "copy": "recovered_1.orders"}
        data["recovery"].update(relations=[relation], fingerprints={})

    told = report(beside)
    assert told["verdict"] == "in_part"
    assert "recovered_1.orders, is complete" in summary(told)
    assert told["gone"]["until"] is None
    assert "What is in use is as it was left; what it was before is in the copy beside it." in render_html(told)


def test_a_run_that_failed_or_was_declined_shows_no_time_to_recover_and_no_loss() -> None:
    told = report(lambda data: data.pop("recovery"), outcome="failed", message="Not confirmed")
    assert (told["verdict"], told["rto"]["seconds"], told["rto"]["met"], told["rpo"]["transactions"]) == (
        "not_recovered",
        None,
        None,
        None,
    )
    page = render_html(told)
    assert "nothing recovered" in page
    assert ">none<" not in page
    assert summary(told) == "Incident orders-dropped stays open."


def test_rows_that_are_back_are_not_called_lost_because_the_run_failed_afterwards() -> None:
    told = report(outcome="failed", message="3 properties differ")
    headline = "Recovered in part: not proved: the run ended before all of it was verified"
    assert (told["headline"], told["rto"]["seconds"]) == (headline, None)
    assert "3 properties differ" in render_html(told)
    assert "3 properties differ" not in summary(told), "the task that failed has said it"


def test_the_time_to_recover_counts_from_the_command_and_from_the_damage() -> None:
    told = report(lambda data: data.update(objectives={"rto_seconds": 600, "rpo_seconds": 60, "tier": "critical"}))
    assert (told["rto"]["seconds"], told["rto"]["from_damage_seconds"]) == (60.0, 779.877)
    assert not told["rto"]["met"], "users wait from the damage on"
    assert "objective 10 min (tier critical)" in render_html(told)
    assert "Verified after 1 min (13 min after the damage)" in summary(told)


def test_a_run_that_failed_at_once_still_gives_a_report() -> None:
    told = build_report({**STATE, "outcome": "failed", "message": "no plan", "events": [], "runs": []}, {}, None, {})
    page = render_html(told)
    assert (told["proof"]["equal"], told["isolation"]["proved"]) == (None, None)
    assert "Not recovered" in page
    assert "no plan" in page
    assert "-e dr_incident_id=orders-dropped" in page


def test_what_is_equal_is_counted_and_of_what_differs_only_that_is_shown() -> None:
    def other_index(data: dict[str, Any]) -> None:
        side, production = (
            data["recovery"]["fingerprints"][one]["public.orders"] for one in ("recovered", "production")
        )
        side["indexes"] = [f"index {number}" for number in range(9)]
        production["indexes"] = [*side["indexes"][:2], "another index"]

    assert "<summary>8 properties equal</summary>" in render_html(report())
    page = render_html(report(other_index))
    assert "<summary>7 properties equal</summary>" in page
    assert "index 7\nand 1 more</td>" in page
    assert ">another index</td>" in page


def test_the_page_says_from_when_to_when_it_was_gone() -> None:
    page = " ".join(re.sub(r"<[^>]+>", "", render_html(report())).split())
    assert "Gone from 2026-11-23 21:30:07+00:00 to 2026-11-23 21:43:07+00:00: 13 min." in page
    assert "12 min until the command 1 min until it was verified".replace("command ", "command") in page
    assert "Nothing is back so far." in render_html(report(lambda data: data.pop("recovery"), outcome="failed"))


def test_what_comes_with_a_table_by_itself_is_not_counted() -> None:
    def array(data: dict[str, Any]) -> None:
        data["load_plan"]["objects"] += [
            {"type": "type", "identity": "public.orders[]", "state": "missing", "implied": True},
            {"type": "table", "identity": "public.orders", "state": "missing", "implied": False},
        ]

    assert report(array)["came_back"]["objects"] == [{"type": "INDEX", "name": "public.orders_pkey"}]


def test_a_phase_that_several_runs_went_through_is_drawn_once() -> None:
    tries = [{**STATE["events"][0], "outcome": "interrupted"}, STATE["events"][0]]
    (lane,) = lanes(report(events=tries)["timeline"])
    assert (lane["phase"], len(lane["bars"]), lane["seconds"], lane["outcome"]) == ("restore", 2, 60.0, "ok")


def test_names_cannot_bring_markup_into_the_page() -> None:
    page = render_html(report())
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_needs_nothing_else() -> None:
    page = render_html(report())
    assert re.findall(r"(?:src|href|url|@import)\s*[=(]", page) == []
    assert "http" not in page


def test_objectives_are_met_or_missed() -> None:
    told = report(lambda data: data.update(objectives={"rto_seconds": 30, "rpo_seconds": 60}))
    assert (told["rto"]["met"], told["rpo"]["met"]) == (False, True)
    assert "missed" in render_html(told)


def test_an_explicit_target_before_the_incident_loses_what_lies_between() -> None:
    target = {"type": "time", "value": "2026-11-23T21:28:07.123456+00:00", "exclusive": False}
    loss = measure_loss({"incident": DATA["incident"], "target": target})
    assert (loss["seconds"], loss["transactions"]) == (120.0, None)
    assert measure_loss({"target": target})["seconds"] is None


def test_report_json_holds_all_that_the_page_shows() -> None:
    assert render_html(json.loads(json.dumps(report()))) == render_html(report())


def test_the_plan_fits_the_screen_and_names_what_matters() -> None:
    known: dict[str, Any] = {"past_seconds": None, "recovered_before": "a1: Recovered and proved"}
    known["parameters"] = {"contain": "read_only"}
    text = plan_text({"id": "a", "scenario": "table-drop", "data": DATA, **known}, STATE["started"])
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "DROP TABLE took public.orders",
        "committed 2026-11-23 21:30:07+00:00 (12 min ago)",
        "LSN 0/3008940 (everything before it, itself not), timeline 1",
        "20261123-200000F (full)",
        "85 segments",
        "recovery1:/srv/side, port 6432",
        "disk needed 4.5 GB, free 52.0 GB",
        "goes back to its place",
        "reporting",
        "read-only",
        "no earlier run",
        "RECOVERED ALREADY by incident a1: Recovered and proved",
    ):
        assert part in text


def test_the_plan_says_who_waits_for_what_and_how_long() -> None:
    data = copy.deepcopy(DATA)
    wait = {"object": "public.orders", "whom": "writers", "least_seconds": 0.8, "most_seconds": 300.8}
    data["load_plan"]["waits"] = [{**wait, "why": "to exchange rows that are not as they were"}]
    text = " ".join(plan_text({"id": "a", "data": data}, STATE["started"]).split())
    assert "writers to public.orders wait 0.8 s to 5 min 1 s, to exchange rows that are not as they were" in text


def test_the_plan_says_which_large_objects_come_back_and_which_do_not() -> None:
    data = copy.deepcopy(DATA)
    left = {"count": 1, "bytes": None, "stored": None, "owners": ["victim"]}
    data["load_plan"]["large_objects"] = {"count": 2, "bytes": 4096, "stored": 40, "owners": ["a", "b"], "left": left}
    text = " ".join(plan_text({"id": "a", "data": data}, STATE["started"]).split())
    assert "2 large objects (4.1 kB, of a, b): they come back with the rows" in text
    assert "1 large object (size unknown, of victim): they are named by rows but stay away" in text


def shown(**changes: Any) -> str:
    plan = {**RESTORE_PLAN, **changes}
    data = {**DATA, "restore_plan": {**plan, "shown": side_restore_shown(plan)}}
    return plan_text({"id": "a", "data": data}, STATE["started"])


def test_the_plan_says_when_wal_is_missing() -> None:
    assert "NOT ALL IN THE ARCHIVE" in shown(wal={**RESTORE_PLAN["wal"], "continuous": False})


def test_the_plan_says_which_wal_goes_back_into_the_archive() -> None:
    text = shown(wal={**RESTORE_PLAN["wal"], "from_production": ["000000010000000000000007"]})
    assert "the archive has lost 000000010000000000000007, which production still has" in text


def test_the_plan_says_what_a_dump_cannot_bring_back() -> None:
    dump = {"path": "/backups/shop.dump", "format": "custom", "size": 745342, "created": "2026-11-23T02:00:01+01:00"}
    plan = {"dump": dump, "precision": "Everything committed after the dump was begun is not in it."}
    plan.update(disk=RESTORE_PLAN["disk"], path="/srv/side", port=0)
    text = plan_text({"id": "a", "data": {"restore_plan": {**plan, "shown": dump_shown(plan)}}}, STATE["started"])
    assert "/backups/shop.dump" in text
    assert "2026-11-23 02:00:01+01:00" in text
    assert plan["precision"] in text
    assert "Side instance    /srv/side\n" in text


def test_what_a_source_wants_shown_is_shown_in_its_order_and_place() -> None:
    sections = [{"label": "Tape", "lines": ["number 7", "in the cellar"]}, {"label": "Copier", "lines": ["fetches it"]}]
    data = {**DATA, "restore_plan": {"shown": sections}}
    text = plan_text({"id": "a", "data": data}, STATE["started"])
    lines = ["  Tape             number 7", "                   in the cellar", "  Copier           fetches it"]
    assert "\n".join(lines) in text
    assert text.index("  Target") < text.index("  Tape") < text.index("  In production")
    # One that an older version recorded shows nothing of it.
    assert "20261123" not in plan_text({"id": "a", "data": {**DATA, "restore_plan": RESTORE_PLAN}}, STATE["started"])


def test_a_repository_that_cannot_be_reached_is_named_whatever_the_source() -> None:
    lost = {"repo": 2, "lost": [{"repo": 1, "message": "unable to connect"}]}
    text = plan_text({"id": "a", "data": {"repository": lost}}, STATE["started"])
    assert "REPOSITORY 1 CANNOT BE REACHED: unable to connect" in text


def test_a_merge_tells_what_was_put_back_and_what_was_left() -> None:
    def merge(data: dict[str, Any]) -> None:
        data["load_plan"]["relations"][0].update(state="exists", action="merge")
        data["recovery"]["relations"][0]["action"] = "merge"
        data["recovery"]["fingerprints"] = {}
        data["recovery"]["merged"] = {
            "public.orders": {
                "inserted": 1200,
                "differing": 3,
                "not_fitting": 0,
                "table": "recovered_1.orders",
                "sample": [],
            }
        }

    told = report(merge)
    assert told["verdict"] == "proved", "each row of before was compared with production's"
    assert "1,200 rows put back; 3 rows differ and 0 rows do not fit" in render_html(told)


def test_what_is_left_is_told_once_with_its_command() -> None:
    entry = {"type": "role", "object": "reader", "reason": "is missing", "command": "CREATE ROLE reader;"}

    def leave(data: dict[str, Any]) -> None:
        data["load_plan"]["left_to_do"] = [entry]
        data["recovery"].update(left_to_do=[entry], kept=[{**entry, "object": "recovered_1.orders"}])

    told = report(leave)
    assert told["left_to_do"] == [{"what": "role reader", "why": "is missing", "command": "CREATE ROLE reader;"}]
    assert "Copies kept in production" in render_html(told)


def test_the_time_to_recover_ends_when_it_is_verified_and_not_when_all_is_tidied_up() -> None:
    verified = {
        "phase": "verify",
        "step": None,
        "host": "db1",
        "start": "2026-11-23T21:42:40.000+00:00",
        "end": "2026-11-23T21:42:47.000+00:00",
        "outcome": "ok",
    }
    told = report(events=[*STATE["events"], verified])
    assert told["rto"]["seconds"] == 40.0
    assert "ends when what came back is verified" in render_html(told)


# --- RDS: no LSN, a database that takes over -------------------------------------------------------------------------

RDS_DATA: dict[str, Any] = {
    "incident": {
        "kind": "drop_table",
        "database": "shop",
        "commit_time": "2026-11-25T03:12:07+00:00",
        "relations": [{"schema": "public", "name": "orders"}],
        "found_by": "the server's log",
        "precision": "to the second; at most 1 s of commits before it is lost",
    },
    "target": {"type": "time", "value": "2026-11-25T03:12:07+00:00", "exclusive": False},
    "lost": {"seconds": 1.0, "why": "RDS restores to a whole second."},
    "restore_plan": rds_restore_plan(
        {
            "target_identifier": "shop-dr-4711",
            "region": "eu-central-1",
            "made_from": "the automated backups of shop",
            "window": {"earliest": "2026-11-20T00:00:00+00:00", "latest": "2026-11-25T03:20:00+00:00"},
            "engine": "postgres",
            "engine_version": "15.18",
            "class": "db.r6g.large",
            "storage_bytes": 107374182400,
            "not_inherited": [{"name": "db_subnet_group_name", "reason": "it belongs to another region"}],
            "notes": ["restored without subscriptions and scheduled jobs"],
        }
    ),
}
SWITCH = {
    "before": "db-OLD",
    "now": "db-NEW",
    "outage_seconds": 42.0,
    "proved": True,
    "how": "another DbiResourceId answers at shop",
    "kept": "shop-before-4711",
    "events": [{"time": "2026-11-25T03:30:00.5+00:00", "message": "failover started", "source": "shop"}],
}


def _rds_report(**more: Any) -> dict[str, Any]:
    state = {
        "id": "4711",
        "scenario": "rds",
        "parameters": {},
        "started": "2026-11-25T03:20:00+00:00",
        "ended": "2026-11-25T03:50:00+00:00",
        "outcome": "done",
        "message": None,
        "runs": [],
        "events": [],
    }
    return build_report(
        state, {**RDS_DATA, **({} if "switch" in more else {"recovery": DATA["recovery"]}), **more}, None, {}
    )


def test_a_loss_that_nobody_measured_is_reported_with_the_reason() -> None:
    told = _rds_report(lost={"seconds": None, "why": "The replica did not say how far it had come."})
    assert told["rpo"]["seconds"] is None
    assert told["rpo"]["why"] == "The replica did not say how far it had come."


def test_the_plan_of_an_rds_restore_says_from_what_to_where_and_what_is_not_inherited() -> None:
    text = plan_text({"id": "4711", "scenario": "rds-table-drop", "data": RDS_DATA}, "2026-11-25T03:20:00+00:00")
    assert "shop-dr-4711 in eu-central-1, made from the automated backups of shop" in text
    assert "NOT AS THE SOURCE: db_subnet_group_name: it belongs to another region" in text
    assert "as the server's log says" in text
    assert "transaction" not in text
    assert "None" not in text


def test_what_is_lost_by_a_restore_to_a_second_is_in_the_report() -> None:
    assert _rds_report()["rpo"]["seconds"] == 1.0
    assert "RDS restores to a whole second." in render_html(_rds_report())


def test_a_takeover_is_shown_with_its_outage_and_how_it_is_known() -> None:
    report = _rds_report(switch=SWITCH)
    assert report["verdict"] == "proved"
    assert "db-NEW serves in place of db-OLD after 42 s without a database" in summary(report)
    html = render_html(report)
    assert "another DbiResourceId answers at shop" in html
    assert "shop-before-4711" in html
    assert "2026-11-25 03:30:00+00:00</th><td>failover started" in html
    assert "<h2>Proof" not in html, "there was nothing to compare with"


def test_a_takeover_that_nobody_proved_is_not_called_proved() -> None:
    assert _rds_report(switch={**SWITCH, "proved": False})["verdict"] == "in_part"


def test_a_takeover_whose_unlogged_tables_came_back_empty_is_in_part() -> None:
    report = _rds_report(switch=SWITCH, later={"count": 0, "lines": [], "unlogged": ["shop: public.sessions"]})
    assert report["verdict"] == "in_part"
    assert [item["what"] for item in report["missing"]] == ["rows of unlogged tables"]


def test_a_takeover_whose_rows_differ_is_not_called_proved() -> None:
    sides = {"public.orders": {"rows": 2}}, {"public.orders": {"rows": 1}}
    recovery = {"fingerprints": {"recovered": sides[0], "production": sides[1]}}
    assert _rds_report(switch=SWITCH, recovery=recovery)["verdict"] == "in_part"
