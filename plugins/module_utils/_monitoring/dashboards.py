# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dashboards of Grafana from the tables of panels. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.panels import FLEET, STANZA, Panel

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTHS = {"stat": 6, "bargauge": 12, "timeseries": 12}
HEIGHTS = {"stat": 4, "bargauge": 7, "timeseries": 7}


def _panel(number: int, panel: Panel, x: int, y: int, labels: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"unit": panel.unit, "mappings": [], "links": []}
    if panel.mapping:
        words = {value: {"text": text, "index": n} for n, (value, text) in enumerate(panel.mapping.items())}
        shown["mappings"] = [{"type": "value", "options": words}]
    shown["color"] = {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"}
    steps = [{"color": colour, "value": None if n == 0 else at} for n, (colour, at) in enumerate(panel.colours)]
    shown["thresholds"] = {"mode": "absolute", "steps": steps}
    timeseries = panel.kind == "timeseries"
    options: dict[str, Any] = (
        {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi"}}
        if timeseries
        else {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "auto"}
    )
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTHS[panel.kind], "h": HEIGHTS[panel.kind]},
        "fieldConfig": {"defaults": shown, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": SOURCE,
                "expr": expression.replace("OF", labels),
                "legendFormat": legend or panel.title,
                "instant": not timeseries,
                "range": timeseries,
            }
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _dashboard(uid: str, title: str, rows: dict[str, list[Panel]], labels: str) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for name, row in rows.items():
        where = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": name, "gridPos": where, "collapsed": False, "panels": []}
        )
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + WIDTHS[panel.kind] > 24 or (height and height != HEIGHTS[panel.kind]):
                x, y, height = 0, y + height, 0
            panels.append(_panel(len(panels) + 1, panel, x, y, labels))
            x, height = x + WIDTHS[panel.kind], HEIGHTS[panel.kind]
        y += height
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    ]
    if labels:
        query = "label_values(dbre_backup_expected, stanza)"
        variables.append(
            {"name": "stanza", "label": "Stanza", "type": "query", "datasource": SOURCE, "query": query, "refresh": 2,
             "definition": query, "sort": 1, "current": {}}
        )  # fmt: skip
    return {
        "uid": uid,
        "title": title,
        "tags": ["backup", "pgbackrest", "postgresql"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "links": [
            {"title": "Backups", "type": "dashboards", "tags": ["pgbackrest"], "asDropdown": False, "icon": "dashboard",
             "includeVars": False, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}
        ],
        "annotations": {"list": []},
        "templating": {"list": variables},
        "panels": panels,
    }  # fmt: skip


def pages() -> dict[str, str]:
    """The dashboards, by the name of their file."""
    made = {
        "fleet": _dashboard("dbre-backup-fleet", "Backups: fleet", FLEET, ""),
        "stanza": _dashboard("dbre-backup-stanza", "Backups: one stanza", STANZA, 'stanza="$stanza"'),
    }
    return {f"dbre-backup-{name}.json": json.dumps(page, indent=2) + "\n" for name, page in made.items()}
