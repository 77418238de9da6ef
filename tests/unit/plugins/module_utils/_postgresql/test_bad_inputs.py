# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that cannot be meant: each is refused with one line that names it, and never with a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_values
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import recovery_target
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    parse_history,
    parse_lsn,
    parse_segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._dumps import logical_catalogue
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import read_archive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.config import broken_values
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_client import networks
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import render_hba, render_ident
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import staging_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.explicit import transaction

TARGET = {"type": "lsn", "value": "0/3000028", "timeline": 1, "exclusive": True}
INSTANCE = {
    "source": "pgbackrest",
    "socket": "/run/side",
    "port": 5433,
    "database": "shop",
    "isolation": [{"what": "archive_mode", "value": "off", "read": "2026-11-23T21:52:49+00:00"}],
}
PLAN = {"incident": "i", "database": "shop", "relations": [], "staging_schemas": {}, "objects": []}
NUMBERS = {
    "login_port": (-1, 0, 65536),
    "port": (-1, 70000),
    "repo": (-1, 0, 257),
    "timeout": (-1, -3600),
    "wait_timeout": (-1, 10**9),
    "jobs": (-1, 5000),
    "parallel": (-4, 2000),
    "process_max": (-1, 1000),
    "max_lag": (-1, "soon"),
    "min_rows": (-1, 0),
    "keep_days": (-0.5, 1e9),
    "keep_count": (-1, 2**40),
    "backup_retention_period": (-1, 36),
    "timeline": (-1, 0, 2**32),
    "database_oid": (-1, 0, 2**32),
    "major_version": (-15, 150),
    "wal_segment_size": (-1, 2**31),
    "seconds_until_auto_pause": (1, 10**6),
    "min_capacity": (-1, 5000),
    "max_capacity": (0, float("nan")),
}
LINES = ("stanza", "config", "executable", "incident", "path", "bin_dir", "dump", "set")

Case = tuple[str, Callable[[], Any], str]


def params(**given: Any) -> Callable[[], None]:
    return lambda: check_values(given)


def target(**changes: Any) -> Callable[[], None]:
    return params(target={**TARGET, **changes})


def instance(**changes: Any) -> Callable[[], None]:
    return params(instance={**INSTANCE, **changes})


def replayed_to(given: Any) -> Any:
    return recovery_target(given, replayed=True)


def of(function: Callable[..., Any], *values: Any) -> Callable[[], Any]:
    return lambda: function(*values)


CASES: list[Case] = [
    *((f"{name}={value}", params(**{name: value}), name) for name, values in NUMBERS.items() for value in values),
    *((f"a line break in {name}", params(**{name: "a\nb"}), name) for name in LINES),
    *((f"a line break in the client's {name}", params(client={name: "a\nb"}), name) for name in ("address", "listen")),
    *(
        (f"password {text!r}", params(client={"password": text}), "hidden")
        for text in ("a'b", "a\\b", "a\nb", "pässword", "")
    ),
    # The recovery target.
    ("a target without a type", params(target={}), "type"),
    ("a target of an unknown type", target(type="moment"), "moment"),
    ("a target without a value", target(value=""), "value"),
    ("a target whose value is none", target(value=None), "value"),
    ("a timeline that is a word", target(timeline="x"), "'x'"),
    ("a negative timeline", target(timeline=-1), "-1"),
    ("timeline 0", target(timeline=0), "timeline"),
    ("a timeline beyond 32 bits", target(timeline=2**32), "4294967296"),
    ("a timeline that is true", target(timeline=True), "True"),
    ("an xid that is a word", target(type="xid", value="x"), "'x'"),
    ("an xid beyond 32 bits", target(type="xid", value=2**32 + 734), "4294968030"),
    ("a negative xid", target(type="xid", value="-7"), "'-7'"),
    ("an xid that is none of a transaction", target(type="xid", value="2"), "'2'"),
    ("a name of two lines", target(type="name", value="a\nb"), "one line"),
    ("a target without a timeline", of(replayed_to, {**TARGET, "timeline": ""}), "timeline"),
    ("a target whose LSN is a word", of(replayed_to, {**TARGET, "value": "soon"}), "'soon'"),
    (
        "a target time without an offset",
        of(replayed_to, {**TARGET, "type": "time", "value": "2026-11-23 21:15:04"}),
        "UTC",
    ),
    (
        "a target time that is none",
        of(replayed_to, {**TARGET, "type": "time", "value": "2026-02-30 21:15:04Z"}),
        "02-30",
    ),
    ("a timeline as text, for the restore", of(replayed_to, {**TARGET, "timeline": "x"}), "'x'"),
    # The system identifier.
    ("an identifier of letters", params(system_identifier="abc"), "'abc'"),
    ("a blank as identifier", params(system_identifier=" "), "system_identifier"),
    ("identifier 0", params(system_identifier="0"), "system_identifier"),
    ("an identifier beyond 64 bits", params(system_identifier=str(2**64)), "64 bits"),
    ("a negative identifier", params(system_identifier="-7300000000000000000"), "-73"),
    # The recovered instance and the load plan.
    ("an empty instance", params(instance={}), "port"),
    ("an instance without a port", instance(port=None), "port"),
    ("an instance with port -1", instance(port=-1), "-1"),
    ("an instance whose port is a word", instance(port="x"), "'x'"),
    ("an instance that is nowhere", instance(socket=None), "host nor socket"),
    ("an instance's host of two lines", instance(host="a\nb"), "host"),
    ("an instance's user of two lines", instance(user="a\nb"), "user"),
    ("an instance of which nothing was read back", instance(isolation=[]), "isolated"),
    ("an instance that says so itself", instance(isolation=True), "isolated"),
    ("an instance with a proof of no time", instance(isolation=[{"what": "slots", "value": 0}]), "isolated"),
    ("an instance of no source", instance(source=""), "source"),
    ("a fingerprint that is none", params(compare_to={"public.orders": None}), "public.orders"),
    ("a fingerprint whose rows are a word", params(compare_to={"public.orders": {"rows": "x"}}), "'x'"),
    ("a fingerprint without a checksum", params(compare_to={"public.orders": {"rows": 1}}), "checksum"),
    ("an empty load plan", params(load_plan={}), "load plan"),
    *(
        (f"a load plan without {key}", params(load_plan={name: PLAN[name] for name in PLAN if name != key}), key)
        for key in PLAN
    ),
    # Moments.
    ("an LSN without a slash", of(parse_lsn, "3000028"), "3000028"),
    ("an empty LSN", of(parse_lsn, ""), "''"),
    ("an LSN of other letters", of(parse_lsn, "0/XYZ"), "XYZ"),
    ("an LSN too long", of(parse_lsn, "0/123456789"), "123456789"),
    ("a negative LSN", of(parse_lsn, "-0/1"), "-0/1"),
    ("a segment's name too short", of(parse_segment_name, "0001", 1 << 24), "0001"),
    ("a segment's name in small letters", of(parse_segment_name, "0000000100000000000000ab", 1 << 24), "ab"),
    ("a history of words", of(parse_history, "one 0/1 why", 2), "one"),
    ("a history out of order", of(parse_history, "2\t0/9\n1\t0/1", 3), "order"),
    *(
        (what, of(parse_time, text, "dr_since"), text[:10])
        for what, text in (
            ("a time that is a word", "yesterday"),
            ("a day that is none", "2026-13-45 10:00:00+00:00"),
            ("an hour that is none", "2026-11-23 25:00:00+00:00"),
            ("a time without an offset", "2026-11-23 21:15:04"),
            ("a time of a named zone", "2026-11-23 21:15:04 Europe/Berlin"),
        )
    ),
    *((f"age {text!r}", of(parse_age, text), text) for text in ("x", "1y2", "-5m", "5 parsecs")),
    *(
        (f"transaction {text!r}", of(transaction, text, 800), text)
        for text in ("x", "-1", "1.5", "0x10", str(2**40), "801")
    ),
    # Names.
    *(
        (f"tables {text!r}", of(parse_relation_list, text), "")
        for text in ("a..b", ",", "a,", '"a', "a.b.c", "a b", "1a;", "x" * 64, ".a", 'a."')
    ),
    *((f"schemas {text!r}", of(parse_schema_list, text), "") for text in ("a.b", ",", '"', "a;b")),
    ("an empty name", of(quote_ident, ""), "name"),
    ("a name with NUL", of(quote_ident, "a\0b"), "name"),
    ("a text with NUL", of(quote_literal, "a\0b"), "NUL"),
    ("an empty incident", of(staging_name, ""), "1 to"),
    ("an incident too long", of(staging_name, "i" * 60), "iiii"),
    *((f"dump {text!r}", of(logical_catalogue.check_name, text), "") for text in ("", "..", "a/b", "a\nb", ".a")),
    # Addresses, and what goes into files of rules and settings.
    *(
        (f"address {text!r}", of(networks, text), "")
        for text in (
            "10.0.0.1\nhost all all 0.0.0.0/0 trust",
            "10.0.0.256",
            "a b",
            "",
            "10.0.0.1/33",
            "::1 trust",
            "$(x)",
        )
    ),
    ("a database's name of two lines", of(render_hba, {"database": "a\nb", "user": "u", "networks": []}), "line break"),
    ("a user's name of two lines", of(render_hba, {"database": "d", "user": "a\rb", "networks": []}), "line break"),
    ("a superuser's name of two lines", of(render_ident, "postgres", "a\nb"), "line break"),
    *(
        (f"side path {text!r}", of(SideInstance, text), "path")
        for text in ("side", "/a b", "/a\nb", "/" + "a" * 200, "/a'b", "")
    ),
]


@pytest.mark.parametrize(("what", "work", "named"), CASES, ids=[case[0] for case in CASES])
def test_what_cannot_be_meant_is_refused_in_one_line(what: str, work: Callable[[], Any], named: str) -> None:
    with pytest.raises(RecoveryError) as refusal:
        work()
    assert named in refusal.value.msg
    assert "\n" not in refusal.value.msg
    assert len(refusal.value.msg) > 30


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 100
    assert len({case[0] for case in CASES}) == len(CASES)


def test_what_can_be_meant_is_taken() -> None:
    # Of rds_failover, and what a role hands on when nothing is known.
    check_values({"target": "shop-2", "system_identifier": ""})
    check_values({"login_port": 5432, "port": 0, "timeout": 3600, "repo": None, "min_rows": 1, "stanza": "main"})
    check_values(
        {"target": TARGET, "instance": INSTANCE, "load_plan": PLAN, "system_identifier": "7300000000000000000"}
    )
    check_values(
        {"target": {"type": "immediate", "timeline": "2"}, "client": {"address": "10.0.0.1"}, "repeated": "a\nb"}
    )


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"global": {"repo1-cipher-pass": "open\nsesame"}}, "[global] repo1-cipher-pass"),
        ({"main": {"pg1-host": "db1\nrepo1-path=/"}}, "[main] pg1-host"),
        ({"global": {"tls-server-auth": ["a=b", "c=d\ne=f"]}}, "[global] tls-server-auth"),
        ({"glo]bal\n": {"repo1-path": "/"}}, "cannot be called"),
        ({"repo1-cipher-pass": "open sesame"}, "must be a section"),
    ],
)
def test_a_value_that_would_not_stay_in_its_line_of_the_configuration_is_refused(config: Any, named: str) -> None:
    (reason,) = broken_values(config)
    assert named in reason
    assert "sesame" not in reason


def test_a_pipe_is_no_dump_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dump")
    with pytest.raises(RecoveryError, match="neither a file nor a directory"):
        read_archive(str(tmp_path / "dump"))
