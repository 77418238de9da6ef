# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of playbooks: what is taken, what is refused, and in which words; and that the list of them is whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.plugin_utils._options import SOURCE, check_options, known_options

PLAYBOOKS = Path(__file__).resolve().parents[4] / "playbooks"
KNOWN = known_options()
GROUPS = {"all": ["db1", "db2"], "primary": ["db1"], "standby": ["db2"]}
TABLE_DROP, RDS_TABLE_DROP, FAILOVER = "dr-table-drop", "dr-rds-table-drop", "dr-rds-failover"


def checked(playbook: str = TABLE_DROP, inventory: Optional[dict[str, Any]] = None, **given: Any) -> dict[str, Any]:
    shop = {} if playbook == FAILOVER else {"dr_database": "shop"}
    return check_options(KNOWN, playbook, {**(inventory or {}), **shop, **given}, GROUPS, set(given))


def refusal(playbook: str = TABLE_DROP, inventory: Optional[dict[str, Any]] = None, **given: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        checked(playbook, inventory, **given)
    return caught.value.msg


def test_values_are_converted_as_ansible_does() -> None:
    values = checked(dr_confirm="yes", dr_min_rows="5", dr_max_lag="0.5", dr_kinds="truncate,drop_table", dr_database=7)
    assert (values["dr_confirm"], values["dr_min_rows"], values["dr_max_lag"]) == ("yes", 5, 0.5)
    assert (values["dr_kinds"], values["dr_database"]) == (["truncate", "drop_table"], "7")


def test_what_is_not_given_has_its_default() -> None:
    values = checked()
    assert (values["dr_load"], values["dr_source"], values["dr_protect"]) == ("beside", "pgbackrest", False)
    assert (values["dr_tables"], values["dr_until"], values["dr_bisect"]) == ([], None, False)


def test_what_a_survey_left_empty_is_not_given() -> None:
    survey = {name: "" for name in KNOWN if name != "dr_database"}
    assert checked(**survey) == checked(**dict.fromkeys(survey)) == checked()
    assert checked(dr_kinds=[], dr_tables=" \n") == checked()
    with pytest.raises(RecoveryError, match="missing required arguments: dr_database"):
        check_options(KNOWN, TABLE_DROP, {"dr_database": ""}, GROUPS, {"dr_database"})


@pytest.mark.parametrize(
    "given",
    [
        'public.orders,"Sales"."Order Lines"',
        'public.orders\n"Sales"."Order Lines"\n',
        '["public.orders", "\\"Sales\\".\\"Order Lines\\""]',
        ["public.orders", '"Sales"."Order Lines"'],
    ],
)
def test_names_may_be_given_in_any_form(given: Any) -> None:
    assert checked(dr_tables=given)["dr_tables"] == ["public.orders", '"Sales"."Order Lines"']


def test_one_inventory_serves_all_playbooks() -> None:
    inventory = {"dr_side_path": "/side", "dr_bisect": True, "dr_set": "x", "dr_site": "north", "dr_zone": "{{ no }}"}
    assert checked(RDS_TABLE_DROP, inventory)["dr_bisect"] is True
    values = checked(TABLE_DROP, inventory, dr_source="standby")
    assert (values["dr_side_path"], values["dr_bisect"]) == ("/side", False)
    for word in ("dr_tabels", "dr_Side_Path", "dr_primary_adress", "dr_table", "dr_confrim"):
        assert f"{word} is not known; did you mean dr_" in refusal(TABLE_DROP, {word: ""})


def test_paths_on_the_controller_are_as_in_a_shell() -> None:
    assert not checked(dr_report_dir="~/incidents")["dr_report_dir"].startswith("~")
    assert checked(FAILOVER, dr_settings="settings/shop.json")["dr_settings"] == "settings/shop.json"


def test_times_are_put_in_utc() -> None:
    values = checked(dr_since="2026-11-23 16:45:04.5-0430", dr_until="2026-11-23T22:00Z")
    assert values["dr_since"] == "2026-11-23T21:15:04.500000+00:00"
    assert values["dr_until"] == "2026-11-23T22:00:00+00:00"


@pytest.mark.parametrize(
    ("playbook", "given", "said"),
    [
        (TABLE_DROP, {"dr_tabels": "a"}, "dr_tabels is not known; did you mean dr_tables?"),
        (TABLE_DROP, {"dr_confirm": "yess"}, "dr_confirm: 'yess' is none of yes, no and plan, and no digest"),
        (TABLE_DROP, {"dr_tables": "a b"}, "dr_tables: unexpected 'b' at position 3 of 'a b'"),
        (TABLE_DROP, {"dr_zzz": 1}, "dr_zzz is not known to any playbook."),
        (TABLE_DROP, {"dr_bisect": True}, "dr_bisect is for dr-rds-table-drop, not for dr-table-drop."),
        (RDS_TABLE_DROP, {"dr_source": "dump"}, "dr_source is for dr-table-drop, not for dr-rds-table-drop."),
        (TABLE_DROP, {"dr_min_rows": "many"}, "'dr_min_rows' is of type str and we were unable to convert to int"),
        (TABLE_DROP, {"dr_side_path": "~/side"}, "dr_side_path is '~/side', which is another place for each user"),
        (TABLE_DROP, {"dr_wal_path": "wal"}, "dr_wal_path is 'wal', which is another place for each user of a host."),
        (TABLE_DROP, {"dr_load": "besides"}, "dr_load must be one of: beside, merge, replace, got: besides."),
        (TABLE_DROP, {"dr_source": "tape"}, "dr_source must be one of: pgbackrest, standby, dump, got: tape."),
        (RDS_TABLE_DROP, {"dr_contain": "pgbouncer_pause"}, "dr_contain must be one of: none, read_only, got: pgb"),
        (TABLE_DROP, {"dr_since": "yesterday"}, "dr_since: 'yesterday' is no time."),
        (
            FAILOVER,
            {"dr_target_time": "2026-11-23 21:15:04"},
            "dr_target_time: '2026-11-23 21:15:04' has no UTC offset",
        ),
        (TABLE_DROP, {"dr_standby_group": "stanby"}, "dr_standby_group is 'stanby', and the inventory has no such"),
        (TABLE_DROP, {"dr_recovery_group": "recovery"}, "dr_recovery_group is 'recovery', and the inventory has no"),
        (TABLE_DROP, {"dr_source": "logical"}, "dr_source=logical needs dr_dump."),
        (TABLE_DROP, {"dr_source": "dump", "dr_dump": "/d", "dr_set": "x"}, "With dr_source=dump, nothing uses dr_set"),
        (TABLE_DROP, {"dr_dump": "/d"}, "With dr_source=pgbackrest, nothing uses dr_dump. It is for dr_source=dump."),
    ],
)
def test_what_is_not_meant_is_refused(playbook: str, given: dict[str, Any], said: str) -> None:
    text = refusal(playbook, **given)
    assert said in text
    assert "Nothing was " in text
    assert f"docs/options.md lists what {playbook} takes." in text


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = refusal(dr_tabels="a", dr_min_rows="many", dr_set="x", dr_source="standby")
    assert all(word in text for word in ("dr_tabels", "dr_min_rows", "dr_set"))
    with pytest.raises(RecoveryError, match="missing required arguments: dr_database"):
        check_options(KNOWN, TABLE_DROP, {}, GROUPS, ())


def test_a_long_value_does_not_fill_the_screen() -> None:
    assert len(refusal(dr_load="x" * 10000)) < 400


def test_the_former_name_of_a_source_means_the_same() -> None:
    assert checked(dr_source="logical", dr_dump="/d") == checked(dr_source="dump", dr_dump="/d")


def test_a_source_may_be_a_role_of_somebodys_own() -> None:
    given = {
        "dr_database": "shop",
        SOURCE: "acme.backup.recovery_source_tape",
        "dr_dump_utc_offset": "+02:00",
        "dr_set": "x",
    }
    assert check_options(KNOWN, TABLE_DROP, given, GROUPS, given)[SOURCE] == "acme.backup.recovery_source_tape"
    with pytest.raises(RecoveryError, match=r"got: a\.b"):
        check_options(KNOWN, TABLE_DROP, {**given, SOURCE: "a.b"}, GROUPS, given)


AWX = json.loads((PLAYBOOKS.parent / "examples" / "awx" / "templates.json").read_text())["job_templates"]


@pytest.mark.parametrize("template", AWX, ids=[template["name"] for template in AWX])
def test_the_surveys_for_awx_ask_for_what_the_playbook_takes(template: dict[str, Any]) -> None:
    questions = {question["variable"]: question for question in template["related"]["survey_spec"]["spec"]}
    assert checked(
        template["name"], **{name: one["default"] for name, one in questions.items() if name != "dr_database"}
    )
    for name, question in questions.items():
        if question["choices"]:
            option = KNOWN[name]
            assert question["choices"] == option.get("choices_of", {}).get(template["name"], option["choices"])
    assert (PLAYBOOKS.parent / "examples" / "awx" / template["playbook"]).exists()


TEXTS = {path: path.read_text() for path in PLAYBOOKS.rglob("*.yml") if not path.is_symlink()}
READ = {path: text for path, text in TEXTS.items() if path.name != "options.yml"}


def test_every_option_that_a_playbook_reads_is_known_and_every_one_that_is_known_is_read() -> None:
    # Full names of playbooks begin in the same way.
    own_names = {path.stem for path in PLAYBOOKS.glob("*.yml")}
    word = re.compile(r"(?:(?<=__dr_options\.)|(?<![\w.]))dr_[a-z_]+\b")
    words = {found for text in READ.values() for found in word.findall(text)}
    assert words - own_names - {"dr_options"} == set(KNOWN)


def test_playbooks_read_options_as_they_were_checked() -> None:
    # Hosts of a play are looked up before any task; in two places it matters whether a default was given.
    raw = {"dr_rds", "dr_repository_group", "dr_bisect_precision", "dr_scenario"}
    reading = re.compile(r"(?<![\w.'/=])(dr_[a-z_]+) (?:\||~|if |is (?:not )?(?:none|defined))")
    read = {word for text in READ.values() for word in reading.findall(text)}
    assert read <= raw


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_an_option_is_said_whole(name: str) -> None:
    option = KNOWN[name]
    assert option["description"].endswith(".")
    assert set(option["playbooks"]) <= {path.stem for path in PLAYBOOKS.glob("*.yml")}
    assert option["type"] in {
        "str",
        "int",
        "float",
        "bool",
        "path",
        "list",
        "dict",
        "names",
        "time",
        "group",
        "confirmation",
    }
    assert {"default", "usually", "required"} & set(option) != {"default", "usually"}
    assert set(option.get("sources", [])) <= set(KNOWN[SOURCE]["choices"])
