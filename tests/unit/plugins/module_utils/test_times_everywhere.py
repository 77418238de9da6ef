# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A moment means the same, or is refused in the same words, in the search of WAL, in a restore and on RDS."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import recovery_target
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import EPOCH, parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.restore import why_unfit
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.bisect import step
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.incident_time import Asked, Search
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore import restore
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import target_settings
from ansible_collections.dbre.recovery.plugins.module_utils._wal import waldump
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.plugin_utils._options import PATH, check_options, known_options

MOMENT = datetime(2026, 11, 23, 21, 15, 4, tzinfo=timezone.utc)
SAME = [
    "2026-11-23 21:15:04+00",
    "2026-11-23T21:15:04+00:00",
    "2026-11-23T21:15:04Z",
    "2026-11-24 02:45:04+0530",
    "2026-11-23T16:45:04 -04:30",
    "2026-11-23 21:15:04.000000+00:00",
]
NONE = [
    "2026-11-23 21:15:04",
    "2026-11-23 21:15:04 Europe/Berlin",
    "2026-11-23 21:15:04 UTC",
    "1795468504",
    "2026-11-23",
    "20261123T211504Z",
]
BACKUP = {
    "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000003"},
    "lsn": {"start": "0/2000028", "stop": "0/3000050"},
    "timestamp": {"start": 0, "stop": 0},
}


def option(playbook: str, name: str, text: str) -> datetime:
    shop = {"dr_database": "shop"} if playbook != "dr-rds-failover" else {}
    return datetime.fromisoformat(check_options(known_options(), playbook, {**shop, name: text}, {}, {name})[name])


def searched_in_wal(text: str) -> datetime:
    request = make_request("shop", since=text, until=text, target_time=text)
    assert request.since == request.until == waldump.parse_time(text, "target_time")
    return EPOCH + timedelta(microseconds=request.since or 0)


def fit_for(text: str) -> datetime:
    """The first second at which a backup must have ended no more to lead to the moment."""
    target = {"type": "time", "value": text, "timeline": 1}
    for second in range(int(MOMENT.timestamp()) - 2, int(MOMENT.timestamp()) + 2):
        if why_unfit({**BACKUP, "timestamp": {"start": 0, "stop": second}}, target, [], 1 << 24):
            return datetime.fromtimestamp(second, timezone.utc)
    raise AssertionError("any backup is fit")


def written_for_postgresql(text: str) -> datetime:
    target = recovery_target({"type": "time", "value": text, "timeline": 1}, replayed=True)
    setting = target_settings(target, "")["recovery_target_time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", setting)  # as a server writes timestamptz in UTC
    return datetime.fromisoformat(setting)


def searched_on_rds(text: str) -> datetime:
    rds: Any = None  # nothing is asked before the window is known
    asked = Asked("shop", since=text)
    return Search(rds, lambda: None, {}, asked, Progress(None), MOMENT + timedelta(hours=1)).since


def restored_on_rds(text: str) -> datetime:
    nothing: Any = None
    asked = restore.Asked(source_db_instance_identifier="shop", db_instance_identifier="new", at=text)
    return restore.Restore(asked, nothing, nothing, nothing).at or EPOCH


def bisected_on_rds(text: str) -> datetime:
    return datetime.fromisoformat(step(text, (MOMENT + timedelta(hours=1)).isoformat(), [])["after"])


READERS: dict[str, Callable[[str], datetime]] = {
    "servers' dr_target_time": lambda text: option("dr-table-drop", "dr_target_time", text),
    "servers' dr_since": lambda text: option("dr-table-drop", "dr_since", text),
    "RDS's dr_until": lambda text: option("dr-rds-table-drop", "dr_until", text),
    "failover's dr_target_time": lambda text: option("dr-rds-failover", "dr_target_time", text),
    "the search of WAL": searched_in_wal,
    "the choice of a backup": fit_for,
    "PostgreSQL's setting": written_for_postgresql,
    "the search on RDS": searched_on_rds,
    "a restore on RDS": restored_on_rds,
    "a search by restores": bisected_on_rds,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_moment_is_the_same_for_all(reader: str) -> None:
    assert {text: READERS[reader](text) for text in SAME} == dict.fromkeys(SAME, MOMENT)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_moment_is_refused_by_all_in_the_same_words(reader: str) -> None:
    for text in NONE:
        with pytest.raises(RecoveryError) as wanted:
            parse_time(text, "")
        with pytest.raises(RecoveryError) as caught:
            READERS[reader](text)
        assert wanted.value.msg in caught.value.msg


def test_the_spellings_that_are_documented_are_of_the_grammar() -> None:
    examples = re.findall(r"`([^`]+)`", yaml.safe_load(PATH.read_text())["types"]["time"])
    assert len(examples) == 3
    assert len({parse_time(text, "").replace(microsecond=0) for text in examples}) == 1
