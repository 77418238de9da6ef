# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret that stands in a text of others is shown or recorded, however it is written."""

from __future__ import annotations

import json

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import clean, mask_text, masked

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}",
        f"password = {SECRET} and more",
        f'password "{SECRET}"',
        f"passphrase '{SECRET}'",
        f"ALTER ROLE jane PASSWORD '{SECRET}'",
        f"ALTER ROLE jane PASSWORD E'a\\'{SECRET}'",
        f"CREATE USER jane ENCRYPTED PASSWORD $x$a'{SECRET}$x$",
        f"OPTIONS (user 'jane', password U&'{SECRET}')",
        json.dumps({"password": SECRET, "user": "jane"}),
        json.dumps({"db_password": f'quo"te{SECRET}'}),
        str({"secret": SECRET}),
        f"repo1-s3-key={SECRET}",
        f"repo1-s3-key-secret={SECRET}",
        f"repo1-azure-key: {SECRET}",
        f"repo1-cipher-pass={SECRET}",
        f"repo1-s3-sse-customer-key={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"run --secret {SECRET} --port 1",
        f"run --password={SECRET}",
        f"--db-password '{SECRET} with blanks'",
        f'cipher-pass="first line\n{SECRET}"',
        f"passphrase='first line\n{SECRET}",
        f'"password": "first\\n{SECRET}"',
        f"postgresql://jane:{SECRET}@db/shop",
        f"host=db password='a''{SECRET}' port=5432",
        f"token: a,{SECRET}",
    ],
)
def test_a_secret_in_a_text_is_masked(text: str) -> None:
    assert SECRET not in mask_text(text)
    assert SECRET not in json.dumps(clean({"message": [text]}))


@pytest.mark.parametrize("key", ["password", "repo1-s3-key", "azure_key", "cipher_pass", "PGPASSWORD", "access_key_id"])
def test_what_stands_under_the_name_of_a_secret_is_masked_whole(key: str) -> None:
    assert SECRET not in json.dumps(clean({"options": {key: [SECRET]}}))


def test_what_is_only_called_like_a_secret_is_not_masked() -> None:
    of = {"public.tokens": {"rows": 5}}
    assert clean({"recovered": of}) == {"recovered": of}


def test_secrets_in_definitions_and_in_errors_are_masked() -> None:
    definition = {"public.tokens": {"default": f"'host=db password={SECRET}'", "rows": 5, "policies": []}}
    assert SECRET not in json.dumps(masked(definition))
    assert masked(definition)["public.tokens"]["rows"] == 5
    error = RecoveryError(f"failed: CREATE USER MAPPING OPTIONS (password '{SECRET}')", evidence=[definition])
    assert SECRET not in error.msg + json.dumps(error.details) + str(error)


@pytest.mark.parametrize(
    "text",
    [
        'FATAL: password authentication failed for user "jane"',
        "no password supplied",
        'the passfile "/var/lib/postgresql/.pgpass" is missing',
        'primary key=5, foreign key "orders_fkey"',
        "--keep-days 7 --stanza main",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_text(text) == text
