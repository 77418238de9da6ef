"""The command that brings large objects back, as people get it."""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import psql_with
from ansible_collections.dbre.recovery.plugins.module_utils._tables.large_objects import remake_command


def test_a_command_reaches_both_ends_and_holds_no_password() -> None:
    side = {"login_host": "side.example", "login_port": 5433, "login_user": "it's", "login_password": "a secret"}
    there, here = psql_with(side, "my shop"), psql_with({"login_port": 5432}, "shop")
    assert here == "psql -X 'port=5432 dbname=shop'"
    command = remake_command(there, here, [7, 8])
    assert "secret" not in command
    assert "dbname='\"'\"'my shop" in command
    assert "'\"'\"'{7,8}'\"'\"'" in command
