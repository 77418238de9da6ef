# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of the user who recovers: where it is, and whether production takes it, before anything is begun."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    REFUSED,
    Login,
    connect,
    require_passfile,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.passfile import hosts_of, password_for
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import arn_region, endpoint_of

# What aws rds generate-db-auth-token and generate_db_auth_token of boto3 make: a signed address without its scheme.
TOKEN = re.compile(r"[?&]Action=connect&.*X-Amz-Signature=")
SECRET_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:")
# Production may be down, which is why somebody is here.
SECONDS = 5


@dataclass(frozen=True)
class Asked:
    """To which database, with the secret that may hold the password, and whether a copy of it is to be logged in to."""

    db_instance_identifier: Optional[str] = None
    db_cluster_identifier: Optional[str] = None
    password_secret: Optional[str] = None
    copied: bool = False


@dataclass(frozen=True)
class Password:
    """A password (None where a client has to get in without), and where it is from."""

    password: Optional[str]
    found_in: str


def find_login(asked: Asked, login: Login, rds: Rds, secrets: Callable[[Optional[str]], Any]) -> dict[str, Any]:
    """The result of the module; ``secrets`` gives a client for a region (None: the module's own).

    Raises RecoveryError where production, or a copy of it, would not let the user in.
    """
    kind, name = kind_of(asked.db_instance_identifier, asked.db_cluster_identifier)
    found: Mapping[str, Any] = kind.find(rds, name) or {}
    host, port = endpoint_of(found) if found else (None, None)
    login = {
        **login,
        "login_host": login.get("login_host") or host,
        "login_port": login.get("login_port") or port or 5432,
    }
    user = str(login.get("login_user"))
    master = str(found.get("MasterUsername") or user)
    if asked.copied and user.casefold() != master.casefold():
        raise RecoveryError(
            f"a restored copy can be given a password for its master user alone, {master}, and rds_login_user is "
            f"{user}. Nothing was changed. Set rds_login_user: {master}, with its password."
        )
    certificate = login.get("ca_cert")
    if certificate and not os.access(certificate, os.R_OK):
        raise RecoveryError(
            f"the certificates {certificate} cannot be read on {socket.gethostname()}. Nothing was changed. Correct "
            "rds_ca_cert; those of AWS are at https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
        )
    password = _password(asked, login, name, secrets)
    if login["login_host"]:
        command = f"aws rds modify-{kind.cli} --{kind.cli}-identifier {name} --region {rds.region}"
        _try(login, password, (found.get("MasterUserSecret") or {}).get("SecretArn"), command, master)
    # What was given need not be handed back.
    there = None if login.get("login_password") else password.password
    return {"changed": False, "found_in": password.found_in, "password": there, "ca_cert": certificate}


def _password(asked: Asked, login: Login, name: str, secrets: Callable[[Optional[str]], Any]) -> Password:
    given = login.get("login_password")
    if given and SECRET_ARN.match(given):
        raise RecoveryError(
            "rds_login_password is the ARN of a secret, not a password. Nothing was changed. Set "
            "rds_password_secret to it, and leave rds_login_password out."
        )
    if given and TOKEN.search(given):
        raise RecoveryError(
            "rds_login_password is an IAM authentication token, which is good for 15 minutes and for one address: a "
            "recovery takes longer, and a restored copy has another address. Nothing was changed. Give the password "
            "of the master user, who is not in the role rds_iam (rds_login_password, rds_passfile or "
            "rds_password_secret)."
        )
    if given:
        return Password(given, "rds_login_password")
    if asked.password_secret:
        # A database that is restored in another region may have its secret where it was.
        answer = secrets(arn_region(asked.password_secret)).get_secret_value(SecretId=asked.password_secret)
        user = str(login.get("login_user"))
        return Password(
            password_in(answer.get("SecretString"), user, asked.password_secret), f"the secret {asked.password_secret}"
        )
    return _in_passfile(login, name)


def password_in(text: Optional[str], user: str, secret: str) -> str:
    """The password in the text of a secret: all of it, or ``password`` of a JSON object as RDS itself keeps them.

    Raises RecoveryError where there is none, or it is another user's.
    """
    try:
        found = json.loads(text or "")
    except ValueError:
        found = text
    if not isinstance(found, Mapping):
        found = {"password": text}
    if not found.get("password"):
        raise RecoveryError(
            f"the secret {secret} holds no password: neither a plain text nor a JSON object with password. Nothing was "
            "changed. Correct rds_password_secret."
        )
    if found.get("username", user) != user:
        raise RecoveryError(
            f"the secret {secret} is of user {found['username']}, and rds_login_user is {user}. Nothing was changed. "
            f"Correct rds_password_secret, or set rds_login_user: {found['username']}."
        )
    return str(found["password"])


def _in_passfile(login: Login, name: str) -> Password:
    path = login.get("login_passfile")
    # Without one libpq looks for its own, and need not find anything.
    own = os.path.expanduser(os.environ.get("PGPASSFILE") or "~/.pgpass")
    if not path and not os.path.isfile(own):
        return Password(None, "nowhere")
    require_passfile(path or own)
    text = Path(path or own).read_text(encoding="utf-8", errors="surrogateescape")
    host, port, user = login["login_host"], int(login["login_port"] or 5432), str(login.get("login_user"))

    def fits(named: str) -> bool:
        # Where AWS cannot be asked any more, an endpoint still begins with the name of its database.
        return named == host if host else named.startswith(f"{name}.")

    for database in dict.fromkeys((str(login.get("login_db")), "postgres")):
        password = password_for(text, fits, port, database, user)
        if password is not None:
            return Password(password, f"the passfile {path or own}")
    if not path:
        return Password(None, "nowhere")
    line = f"{host or name + '.*'}:{port}:{login.get('login_db')}:{user}"
    raise RecoveryError(
        f"no line of the passfile {path} on {socket.gethostname()} fits {line}; its lines are for the hosts "
        f"{', '.join(hosts_of(text)) or '(none: a line is HOST:PORT:DATABASE:USER:PASSWORD)'}. Nothing was changed. "
        f"Add a line {host or '*'}:{port}:*:{user}:PASSWORD (a colon or backslash in the password after a backslash). "
        "A restored copy needs none of its own."
    )


def _try(login: Login, password: Password, secret: Optional[str], command: str, master: str) -> None:
    """Log in once; RecoveryError where that is refused. A server that does not answer is for others to find."""
    try:
        tried: Login = {**login, "login_password": password.password, "login_passfile": None}
        connect(tried, any_database=True, connect_timeout=SECONDS).close()
    except RecoveryError as error:
        if not REFUSED.search(error.msg):
            return
        raise RecoveryError(
            f"{login['login_host']}, port {login['login_port']}, does not let {login.get('login_user')} in with the "
            f"password that is in {password.found_in} ({_server_words(error.msg)}). Nothing was changed. "
            + _advice(error.msg, secret, command, master)
        ) from error


def _server_words(text: str) -> str:
    return text.partition("FATAL:")[2].strip().splitlines()[0] if "FATAL:" in text else text


def _advice(said: str, secret: Optional[str], command: str, master: str) -> str:
    if "PAM" in said:
        return (
            "Who is in the role rds_iam logs in by IAM tokens only, and those end after 15 minutes. Give another user "
            f"who is not (rds_login_user: {master}), with the password."
        )
    if secret:
        return f"RDS keeps what {master} logs in with in Secrets Manager. Set rds_password_secret to {secret}"
    return (
        "Correct rds_login_password, rds_passfile or rds_password_secret. Where nobody knows it any more, let RDS make "
        f"a new one, which it keeps in Secrets Manager, by {command} --manage-master-user-password --apply-immediately"
    )
