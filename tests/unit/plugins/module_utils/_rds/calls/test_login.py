# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import botocore.session
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.login import Asked, find_login, password_in
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

HOST = "shop.c9akciq32rgd.eu-central-1.rds.invalid"  # as AWS names it, and nobody is there
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-4f9a7c1e-Ab12Cd"


def no_secrets(region: str | None) -> Any:
    raise AssertionError("nobody named a secret")


def found(host: str | None = HOST, copied: bool = False, **login: Any) -> dict[str, Any]:
    """What the module finds, of an instance at an address that leads nowhere."""
    aws = ScriptedAws()
    shown = {"DBInstanceIdentifier": "shop", "MasterUsername": "shopmaster"}
    there = [{**shown, "Endpoint": {"Address": host, "Port": 5432}}] if host else []
    aws.script("DescribeDBInstances", {"DBInstances": there})
    given: Any = {"login_user": "shopmaster", "login_db": "shop", **login}
    return find_login(Asked(db_instance_identifier="shop", copied=copied), given, aws.rds(), no_secrets)


def passfile(tmp_path: Path, text: str) -> str:
    path = tmp_path / "pgpass"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_passfile_that_names_production_is_enough(tmp_path: Path) -> None:
    text = f"elsewhere:5432:*:shopmaster:wrong\n127.0.0.9:1:shop:shopmaster:right\n{HOST}:5432:*:shopmaster:aws\n"
    path = passfile(tmp_path, text)
    of_site = found(login_passfile=path, login_host="127.0.0.9", login_port=1)
    assert (of_site["password"], of_site["found_in"]) == ("right", f"the passfile {path}")
    # A region that is lost tells no endpoint any more; which it was is seen by its first part.
    assert found(host=None, login_passfile=path)["password"] == "aws"


def test_a_passfile_of_others_says_for_which_hosts_it_is(tmp_path: Path) -> None:
    path = passfile(tmp_path, "billing.example.com:5432:*:shopmaster:hush\n")
    with pytest.raises(RecoveryError) as refused:
        found(login_passfile=path)
    assert f"Add a line {HOST}:5432:*:shopmaster:PASSWORD" in refused.value.msg
    assert "billing.example.com" in refused.value.msg
    assert "hush" not in refused.value.msg


def test_a_passfile_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = passfile(tmp_path, "*:*:*:*:hush\n")
    Path(path).chmod(0o644)
    with pytest.raises(RecoveryError, match="chmod 0600"):
        found(login_passfile=path)


def test_a_token_that_ends_in_the_middle_of_a_recovery_is_refused() -> None:
    client = botocore.session.get_session().create_client(
        "rds", region_name="eu-central-1", aws_access_key_id="AKIATEST", aws_secret_access_key="test"
    )
    token = client.generate_db_auth_token(DBHostname=HOST, Port=5432, DBUsername="shopmaster")
    with pytest.raises(RecoveryError, match="15 minutes"):
        found(login_password=token)


def test_an_arn_is_no_password() -> None:
    with pytest.raises(RecoveryError, match="Set rds_password_secret"):
        found(login_password=SECRET)


def test_a_copy_can_be_logged_in_to_by_its_master_user_alone() -> None:
    with pytest.raises(RecoveryError, match="rds_login_user: shopmaster"):
        found(login_user="reader", copied=True, login_password="hush")
    assert found(host=None, login_user="reader", login_password="hush")["found_in"] == "rds_login_password"


def test_certificates_that_are_not_there_are_told() -> None:
    with pytest.raises(RecoveryError, match="rds_ca_cert"):
        found(ca_cert="/nowhere/global-bundle.pem", login_password="hush")


@pytest.mark.parametrize("text", ['{"username": "shopmaster", "password": "hush"}', '{"password": "hush"}', "hush"])
def test_a_secret_holds_a_password_as_rds_keeps_it_or_alone(text: str) -> None:
    assert password_in(text, "shopmaster", SECRET) == "hush"


def test_a_secret_of_digits_is_a_password() -> None:
    assert password_in("0042", "shopmaster", SECRET) == "0042"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "holds no password"),
        ('{"apikey": "hush"}', "holds no password"),
        ('{"username": "other", "password": "hush"}', "rds_login_user: other"),
    ],
)
def test_a_secret_without_the_password_is_refused(text: str | None, said: str) -> None:
    with pytest.raises(RecoveryError, match=said) as refused:
        password_in(text, "shopmaster", SECRET)
    assert "hush" not in refused.value.msg
