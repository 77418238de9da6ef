# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``report.html``: what ``report.json`` says, drawn for a screen, a phone and paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core import units
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import (
    hit_text,
    kind_of,
    of_incident,
    what_happened,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.impact import measured_lines
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import target_text
from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup

_UNLIKE_SHOWN = 6
# Of all reports that people read. Nothing of it is anybody's but ours.
STYLE = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))


def _shown(value: Any) -> str:
    """A property of a fingerprint in one cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return units.number(value)
    if isinstance(value, (list, dict)):
        return str(len(value)) if value else "none"
    return str(value)


def unlike(value: Any, other: Any) -> str:
    """A property of one side where it differs from the other: of a list or dictionary only what the other lacks."""
    if isinstance(value, dict) and isinstance(other, dict):
        found = [f"{key}: {item}" for key, item in value.items() if other.get(key) != item]
    elif isinstance(value, list) and isinstance(other, list):
        found = [str(item) for item in value if item not in other]
    else:
        return _shown(value)
    more = [f"and {units.counted(len(found) - _UNLIKE_SHOWN, 'more', 'more')}"] if len(found) > _UNLIKE_SHOWN else []
    return "\n".join(found[:_UNLIKE_SHOWN] + more) or "–"


def lanes(timeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The timeline by phase, in the order they first began: ``[{phase, bars, seconds, outcome}]``.

    A phase that several runs went through has a bar for each, and the outcome of the last.
    """
    found: dict[str, dict[str, Any]] = {}
    for event in timeline:
        lane = found.setdefault(event["phase"], {"phase": event["phase"], "bars": [], "seconds": 0.0})
        lane["bars"].append(event)
        lane.update(seconds=lane["seconds"] + event["seconds"], outcome=event["outcome"])
    return list(found.values())


def _proofs(proof: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each relation with its properties parted: ``{name, equal, known, same, different}``.

    ``known``: what is left to do explains all that differs.
    """
    parted = []
    for relation in proof["relations"]:
        same = [item for item in relation["properties"] if item["equal"]]
        different = [item for item in relation["properties"] if not item["equal"]]
        known = bool(different) and all(item["known"] for item in different)
        found = {"name": relation["name"], "equal": relation["equal"], "known": known}
        parted.append({**found, "same": same, "different": different})
    return parted


def _only_told(proof: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Differences that the server found and no property of :func:`_proofs` shows."""
    seen = {(one["name"], item["property"]) for one in _proofs(proof) for item in one["different"]}
    return [item for item in proof["difference"] if (item.get("relation"), item.get("property")) not in seen]


def render_html(report: Mapping[str, Any]) -> str:
    """``report.html``: one file that needs nothing else, every value escaped."""
    environment = Environment(autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        size=units.size,
        duration=units.duration,
        number=units.number,
        moment=units.moment,
        relation=units.relation_name,
        counted=units.counted,
        happened=what_happened,
        damaged=lambda incident: [item for item in of_incident(incident) if item.get("damage")],
        hit=hit_text,
        kind=kind_of,
        measured=measured_lines,
        target=target_text,
        shown=_shown,
        unlike=unlike,
    )
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        style=STYLE,
        objects_by_type=sorted(Counter(item["type"] for item in report["came_back"]["objects"]).items()),
        lanes=lanes(report["timeline"]),
        proofs=_proofs(report["proof"]),
        only_told=_only_told(report["proof"]),
    )
