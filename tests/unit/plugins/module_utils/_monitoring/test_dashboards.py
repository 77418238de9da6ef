# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.dashboards import pages
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rules import ALERTS, VANISHED

QUESTIONS = ["Can I recover?", "To when?", "How long will it take?", "Is it proved?"]
PAGES = {name: json.loads(text) for name, text in pages().items()}


def queries(page: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in page["panels"] for target in panel.get("targets", [])]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:dbre|pgbackrest)_\w+", text))


USED = set().union(*(names_in(query) for page in PAGES.values() for query in queries(page)))
ALARMED = set().union(*(names_in(alert.when) for alert in [*ALERTS.values(), VANISHED]))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_is_exported_is_looked_at_under_its_name(name: str) -> None:
    assert name in USED | ALARMED


def test_dashboards_name_only_what_something_exports() -> None:
    assert not USED - set(METRICS)


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_answers_the_four_questions_in_their_order(name: str) -> None:
    rows = [panel["title"] for panel in PAGES[name]["panels"] if panel["type"] == "row"]
    assert rows[:4] == QUESTIONS


@pytest.mark.parametrize("name", PAGES)
def test_panels_lie_beside_each_other_and_not_on_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PAGES[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _y in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in PAGES[name]["panels"]]
    assert len(set(ids)) == len(ids)


def test_queries_are_what_prometheus_understands(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$stanza", "main")}
        for number, query in enumerate(query for page in PAGES.values() for query in queries(page))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rules) > 50
