# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a restore test in a real browser, verified and failed; its pictures stay in pytest's base directory."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._verification.page import page
from browser import Browser
from test_audit_page import TEXTS
from test_page import overlapping

SIX = ("completes", "size", "continuity", "repository", "boundary", "checksums")
SOUND: dict[str, Any] = {
    "stanza": "main", "host": "recovery1.west.example.com", "tier": "critical", "controls": ["ISO 27001 A.8.13"],
    "id": "verify-main-20261129T040000Z", "began": "2026-11-29T04:00:00+00:00", "ended": "2026-11-29T04:09:30+00:00",
    "verdict": "verified", "seconds": {"restore": 301.5, "replay": 61.2, "ready": 1.1, "checked": 200.0},
    "rto": {"seconds": 363.8, "objective": 3600.0, "met": True},
    "rpo": {"seconds": 41.7, "transactions": 312, "objective": 60.0, "met": True},
    "bytes": 51234567890, "bytes_per_second": {"restore": 169932000, "replay": 83886080}, "repo": 1,
    "set": "20261123-214825F_20261129-013000I", "system_identifier": "7711488204033580105",
    "target": {"type": "lsn", "value": "0/A000000", "exclusive": True, "timeline": 3, "reason": "the newest WAL"},
    "wal": {"first": "000000030000000000000004", "last": "00000003000000000000000A", "count": 7},
    "versions": {"pgBackRest": "pgBackRest 2.60", "PostgreSQL": "postgres (PostgreSQL) 18.6"},
    "commands": [f"pgbackrest --config=/var/lib/{'x' * 60}/pgbackrest.conf --stanza=main --set=20261123F restore"],
    "isolation": [{"what": "archive_mode", "value": "off", "read": "2026-11-29T04:06:00+00:00"}],
    "removed": {"path": "/var/lib/v", "port": 46111, "left": [], "disk": {"before": 10**12, "after": 10**12}},
    "previous": {"id": "verify-main-20261128T040000Z", "sha256": "sha256:" + "ab" * 32}, "signed_by": "/etc/key",
    "earlier": [
        {"ended": f"2026-11-2{day}T04:09:30+00:00", "verdict": "verified", "rpo": None,
         "rto": {"seconds": 300.0 + 600 * day, "objective": 3600.0, "met": day < 6}} for day in range(1, 9)
    ],
    "findings": [], "not_checked": [{"what": "3 brin indexes in shop", "why": "pg_amcheck does not look into them"}],
    "checks": [{"check": name, "verdict": "verified", "findings": []} for name in SIX],
}  # fmt: skip
BAD = {"code": "SEQUENCE_BEHIND", "message": "public.s in shop <b>stands</b> at 5", "ignored": None}
FAILED: dict[str, Any] = {
    **{name: SOUND[name] for name in ("stanza", "host", "tier", "controls", "id", "began", "ended")},
    "verdict": "failed", "seconds": {}, "rto": None, "rpo": None, "findings": [BAD], "not_checked": [],
    "checks": [{"check": "integrity", "verdict": "failed", "findings": [BAD]}],
}  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("name", "report"), [("verified", SOUND), ("failed", FAILED)])
def test_the_page_can_be_read(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, name: str, report: dict[str, Any], width: int
) -> None:
    file = tmp_path_factory.getbasetemp() / f"restore-test-{name}.html"
    file.write_text(page(report))
    browser.show(file, width)
    browser.picture(file.with_name(f"restore-test-{name}-{width}.png"))
    texts = browser.ask(TEXTS)
    assert browser.ask("[document.documentElement.scrollWidth, innerWidth]") == [width, width], "nothing lies beside it"
    assert overlapping(texts) == []
    told = " ".join(one["text"] for one in texts)
    assert all(word in told for word in ("What was not checked, and why", "ISO 27001 A.8.13", report["id"]))
    expected = ["6 min", "42 s", "sha256:abab"] if name == "verified" else ["SEQUENCE_BEHIND", "<b>stands</b>"]
    assert [word for word in expected if word not in told] == []


def test_it_prints_on_two_pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "restore-test-print.html"
    file.write_text(page(SOUND))
    browser.show(file, 1280)
    browser.printed(file.with_suffix(".pdf"))
    said = subprocess.run(["pdfinfo", file.with_suffix(".pdf")], capture_output=True, text=True, check=True).stdout
    pages = re.search(r"Pages:\s+(\d+)", said)
    assert pages is not None
    assert int(pages[1]) <= 2
