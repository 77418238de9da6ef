# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.plugin_utils._whole import part_only


def test_the_whole_and_the_plan_alone_are_run() -> None:
    assert part_only(["all"], [], None) == part_only(["plan"], [], None) == ""


def test_any_other_part_is_refused_with_what_would_be_missing() -> None:
    for text in (part_only(["recover"], [], None), part_only(["plan", "recover"], [], None)):
        assert text.startswith("--tags recover would carry out a phase without those that it builds on")
        assert "Only --tags plan is safe alone" in text
    assert part_only(["all"], ["always"], None).startswith("--skip-tags always would")
    start = part_only(["all"], [], "Recover")
    assert start.startswith("--start-at-task 'Recover' would leave out what all later steps stand on")
    assert "-e dr_incident_id=ID" in start
