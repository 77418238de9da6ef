# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of logical backups, as users write them and as module and timers take them."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_jobs import Common, complete_jobs

# As Ansible hands over what went through variables: numbers and nulls may be texts.
COMMON: Common = {
    "format": "custom",
    "schedule": "*-*-* 02:00",
    "randomized_delay": "10m",
    "keep_days": "14",
    "keep_count": "",
    "path": "/var/backups/postgresql-logical",
    "login_unix_socket": "/var/run/postgresql",
    "login_port": "5432",
    "login_user": "postgres",
    "bin_dir": "",
}


def test_a_job_has_all_it_needs_and_goes_before_what_is_common() -> None:
    jobs = complete_jobs({"shop": {"format": "directory", "keep_count": 7}, "globals": {"globals": True}}, COMMON)
    assert jobs["shop"] == {
        "name": "shop",
        "database": "shop",
        "globals": False,
        "format": "directory",
        "jobs": 1,
        "compress": None,
        "schema_only": False,
        "tables": [],
        "exclude_tables": [],
        "keep_days": 14.0,
        "keep_count": 7,
        "schedule": "*-*-* 02:00",
        "randomized_delay": "10m",
        "path": "/var/backups/postgresql-logical",
        "login_unix_socket": "/var/run/postgresql",
        "login_port": 5432,
        "login_user": "postgres",
        "bin_dir": None,
    }
    assert jobs["globals"]["database"] is None
    assert jobs["globals"]["keep_count"] is None


def test_a_job_that_is_null_is_left_out_and_one_may_name_its_database() -> None:
    jobs = complete_jobs({"globals": None, "nightly": {"database": "shop", "keep_days": None}}, COMMON)
    assert list(jobs) == ["nightly"]
    assert (jobs["nightly"]["database"], jobs["nightly"]["keep_days"]) == ("shop", None)


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(RecoveryError, match="keep_days of the logical backups is 'a week'"):
        complete_jobs({}, {**COMMON, "keep_days": "a week"})
