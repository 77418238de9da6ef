# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.filter.pgbackrest_layout import pgbackrest_layout
from ansible_collections.dbre.recovery.plugins.filter.pgbackrest_stanza_conflicts import pgbackrest_stanza_conflicts
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.layout import (
    Layout,
    Member,
    Transport,
    layout,
    options_of,
    preferred,
)

PRIMARY = Member("db1", "10.0.0.1", "/var/lib/postgresql/17/main", 5432, "/var/run/postgresql")
STANDBY = Member("db2", "10.0.0.2", "/var/lib/postgresql/17/main", 5433, "/var/run/postgresql")
ADDRESSES = {"db1": "10.0.0.1", "db2": "10.0.0.2", "backup1": "10.0.0.3", "side1": "10.0.0.4"}
TLS = Transport("tls", "postgres", "/etc/pgbackrest.conf", "/etc/pgbackrest/tls")
SSH = TLS._replace(kind="ssh")
S3 = {"repo2-type": "s3", "repo2-path": "/wal", "repo2-s3-bucket": "b", "repo2-retention-full": 3}


def of(host: str, **changes: Any) -> Layout:
    given: dict[str, Any] = {
        "stanza": "main",
        "config": {},
        "keepers": {1: "backup1"},
        "members": [PRIMARY],
        "readers": [],
        "addresses": ADDRESSES,
        "transport": TLS,
    }
    return layout(host, **{**given, **changes})


def test_a_single_host_keeps_its_repository_beside_the_cluster_and_serves_nobody() -> None:
    alone = of("db1", keepers={})
    assert alone.config == {
        "global": {"repo1-path": "/var/lib/pgbackrest"},
        "main": {"pg1-path": PRIMARY.path, "pg1-port": 5432, "pg1-socket-path": "/var/run/postgresql"},
    }
    assert (alone.kept, alone.lets_in, alone.connects_to) == ([1], [], [])
    assert alone.directories == ["/var/lib/pgbackrest"]
    assert alone.seen == {1: "/var/lib/pgbackrest"}


def test_primary_and_repository_host_reach_each_other_by_tls() -> None:
    config = {"global": {"repo1-path": "/backups", "repo1-retention-full": 4, "compress-level": 3}}
    primary, keeper = of("db1", config=config), of("backup1", config=config)
    assert primary.kept == []
    assert primary.directories == []
    assert primary.seen == {1: ""}
    assert primary.config["global"] == {
        "compress-level": 3,
        "repo1-host": "10.0.0.3",
        "repo1-host-type": "tls",
        "repo1-host-config": "/etc/pgbackrest.conf",
        "repo1-host-ca-file": "/etc/pgbackrest/tls/ca.crt",
        "repo1-host-cert-file": "/etc/pgbackrest/tls/host.crt",
        "repo1-host-key-file": "/etc/pgbackrest/tls/host.key",
        "tls-server-address": "*",
        "tls-server-auth": ["backup1=main"],
        "tls-server-ca-file": "/etc/pgbackrest/tls/ca.crt",
        "tls-server-cert-file": "/etc/pgbackrest/tls/host.crt",
        "tls-server-key-file": "/etc/pgbackrest/tls/host.key",
    }
    assert (keeper.kept, keeper.directories, keeper.seen) == ([1], ["/backups"], {1: "/backups"})
    assert keeper.config["global"]["repo1-path"] == "/backups"
    assert keeper.config["global"]["repo1-retention-full"] == 4
    assert keeper.config["global"]["tls-server-auth"] == ["db1=main"]
    assert keeper.config["main"]["pg1-host"] == "10.0.0.1"
    assert keeper.config["main"]["pg1-path"] == PRIMARY.path
    assert (keeper.lets_in, keeper.connects_to) == (["db1"], ["db1"])
    assert (primary.lets_in, primary.connects_to) == (["backup1"], ["backup1"])


def test_by_ssh_a_host_is_reached_as_the_user_and_no_server_runs() -> None:
    primary, keeper = of("db1", transport=SSH), of("backup1", transport=SSH)
    assert primary.config["global"] == {
        "repo1-host": "10.0.0.3",
        "repo1-host-user": "postgres",
        "repo1-host-config": "/etc/pgbackrest.conf",
    }
    assert keeper.config["main"]["pg1-host-user"] == "postgres"
    assert not any(name.startswith("tls") for name in keeper.config["global"])


def test_an_object_store_beside_a_repository_host_is_reached_from_the_primary() -> None:
    primary, keeper = of("db1", config={"global": S3}), of("backup1", config={"global": S3})
    assert primary.kept == [2]
    assert primary.seen == {1: "", 2: ""}
    assert primary.config["global"]["repo2-s3-bucket"] == "b"
    assert primary.config["global"]["repo1-host"] == "10.0.0.3"
    assert keeper.kept == [1]
    assert not any(name.startswith("repo2") for name in keeper.config["global"])


def test_a_repository_host_may_keep_the_object_store_as_well() -> None:
    keepers = {1: "backup1", 2: "backup1"}
    primary, keeper = (
        of("db1", config={"global": S3}, keepers=keepers),
        of("backup1", config={"global": S3}, keepers=keepers),
    )
    assert primary.kept == []
    assert {name for name in primary.config["global"] if name.startswith("repo2")} == {
        f"repo2-host{part}" for part in ("", "-type", "-config", "-ca-file", "-cert-file", "-key-file")
    }
    assert keeper.kept == [1, 2]


def test_two_local_repositories_have_two_directories() -> None:
    local = of("db1", keepers={}, config={"global": {"repo2-retention-full": 2}})
    assert local.directories == ["/var/lib/pgbackrest", "/var/lib/pgbackrest-2"]
    with pytest.raises(RecoveryError, match="the same directory /var/lib/pgbackrest"):
        of("db1", keepers={}, config={"global": {"repo2-path": "/var/lib/pgbackrest"}})


def test_a_host_that_only_restores_reads_from_the_repository_host() -> None:
    side, keeper = of("side1", readers=["side1"]), of("backup1", readers=["side1"])
    assert side.config["global"]["repo1-host"] == "10.0.0.3"
    assert "main" not in side.config
    assert (side.lets_in, side.connects_to) == ([], ["backup1"])
    assert "tls-server-auth" not in side.config["global"]
    assert keeper.config["global"]["tls-server-auth"] == ["db1=main", "side1=main"]


def test_a_host_that_only_restores_reads_from_the_primary_that_keeps_its_own() -> None:
    keepers = {1: "db1"}
    side, primary = of("side1", keepers=keepers, readers=["side1"]), of("db1", keepers=keepers, readers=["side1"])
    assert side.config["global"]["repo1-host"] == "10.0.0.1"
    assert primary.config["global"]["repo1-path"] == "/var/lib/pgbackrest"
    assert (primary.lets_in, primary.connects_to) == (["side1"], [])
    assert "pg2-host" not in primary.config["main"]


def test_a_standby_reads_the_same_repository_and_the_repository_host_knows_both_clusters() -> None:
    members = [PRIMARY, STANDBY]
    standby, keeper = of("db2", members=members), of("backup1", members=members)
    assert standby.config["main"] == {
        "pg1-path": STANDBY.path,
        "pg1-port": 5433,
        "pg1-socket-path": "/var/run/postgresql",
    }
    assert (keeper.config["main"]["pg1-host"], keeper.config["main"]["pg2-host"]) == ("10.0.0.1", "10.0.0.2")
    assert keeper.lets_in == ["db1", "db2"]


def test_backups_from_a_standby_without_a_repository_host_need_the_primary() -> None:
    given = {"members": [PRIMARY, STANDBY], "keepers": {1: "db2"}, "config": {"global": {"backup-standby": True}}}
    standby, primary = of("db2", **given), of("db1", **given)
    assert standby.config["main"]["pg2-host"] == "10.0.0.1"
    assert standby.config["main"]["pg1-path"] == STANDBY.path
    assert primary.config["global"]["repo1-host"] == "10.0.0.2"
    assert primary.lets_in == ["db2"]


def test_a_host_without_a_way_to_a_repository_is_refused() -> None:
    with pytest.raises(RecoveryError, match=r"host side1 has no way .* pgbackrest_repository_hosts=\{1: db1\}"):
        of("side1", keepers={}, readers=["side1"])


def test_a_repository_host_named_in_pgbackrests_own_option_is_left_as_it_is() -> None:
    config = {"global": {"repo1-host": "nas", "repo1-host-user": "backup", "repo1-retention-full": 3}}
    for host, readers in (("db1", []), ("side1", ["side1"])):
        found = of(host, keepers={}, config=config, readers=readers)
        assert found.config["global"] == {"repo1-host": "nas", "repo1-host-user": "backup"}
        assert (found.kept, found.directories, found.connects_to) == ([], [], [])


def test_a_fifth_repository_is_refused() -> None:
    with pytest.raises(RecoveryError, match="at most 4 repositories"):
        of("db1", keepers={5: "backup1"})


def test_what_the_user_says_goes_before_what_is_worked_out() -> None:
    config = {"global": {"repo1-host-port": 9000, "tls-server-address": "10.0.0.1"}, "main": {"pg1-user": "backup"}}
    primary, keeper = of("db1", config=config), of("backup1", config=config)
    assert primary.config["global"]["repo1-host-port"] == 9000
    assert primary.config["global"]["tls-server-address"] == "10.0.0.1"
    assert primary.config["main"]["pg1-user"] == "backup"
    # It is the repository host that says as whom the primary is asked.
    assert keeper.config["main"]["pg1-user"] == "backup"


def test_secrets_go_where_the_repository_is_kept() -> None:
    secrets = {"global": {"repo1-cipher-pass": "a", "repo2-s3-key": "b"}}
    assert options_of(secrets, [1]) == {"global": {"repo1-cipher-pass": "a"}}
    assert options_of(secrets, [2]) == {"global": {"repo2-s3-key": "b"}}


def test_retention_counts_for_each_repository_that_is_kept() -> None:
    options = preferred([1, 2], {"full": 4, "full-type": "count", "diff": None}, 8)["global"]
    assert options["repo1-retention-full"] == options["repo2-retention-full"] == 4
    assert "repo1-retention-diff" not in options
    assert options["process-max"] == 8
    assert not any(name.startswith("repo") for name in preferred([], {"full": 4}, 2)["global"])


def test_two_primaries_may_not_claim_one_stanza_of_one_repository_host() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "db1": {},
        "db2": {"pgbackrest_stanza": "main"},
        "db3": {"pgbackrest_stanza": "other"},
        "db4": {"pgbackrest_repository_hosts": {}},
    }
    assert pgbackrest_stanza_conflicts("db1", hostvars, list(hostvars), {1: "backup1"}) == ["db2"]
    assert pgbackrest_stanza_conflicts("db1", hostvars, list(hostvars), {}) == []


def test_every_group_of_the_inventory_adds_its_share_of_the_configuration() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "db1": {
            "postgresql_data_dir": "/data",
            "pgbackrest_config__all": {"global": {"compress-level": 3, "buffer-size": "1MiB"}},
            "pgbackrest_config__site": {"global": {"compress-level": 6}, "main": {"pg1-user": "backup"}},
        },
        "backup1": {"pgbackrest_config__own": {"global": {"buffer-size": "16MiB", "start-fast": None}}},
    }
    given: dict[str, Any] = {
        "hostvars": hostvars,
        "stanza": "main",
        "config": {"global": {"compress-level": 1, "log-level-file": "info"}},
        "repository_hosts": {1: "backup1"},
        "cluster_hosts": ["db1"],
    }
    primary = pgbackrest_layout("db1", **given)["config"]
    assert primary["global"]["compress-level"] == 6
    assert primary["global"]["log-level-file"] == "info"
    assert primary["main"]["pg1-user"] == "backup"
    keeper = pgbackrest_layout("backup1", **given)["config"]["global"]
    assert (keeper["compress-level"], keeper["buffer-size"], keeper["start-fast"]) == (6, "16MiB", None)
