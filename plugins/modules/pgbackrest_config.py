#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_config
short_description: Ensure the content of pgbackrest.conf, judged by the installed pgBackRest first
version_added: "0.1.0"
description:
  - Writes pgBackRest's configuration from dictionaries. Before the file is replaced, the installed pgBackRest is asked
    whether it knows every option and accepts every value, and whether it still can read every repository that it could
    read before (a wrong passphrase); otherwise the task fails, naming them, and the file in force stays as it is.
  - Sections of other stanzas that the file already has are kept, so that several clusters can share a host.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - The configuration file.
    type: path
    default: /etc/pgbackrest.conf
  config:
    description:
      - The file as a dictionary of sections (V(global), V(global:archive-push), V(main), ...), each a dictionary of
        options. A list gives an option several times, a boolean becomes V(y) or V(n).
      - An option set to V(null) is left out, also when O(preferred) has it.
      - Secrets are refused here, as Ansible logs module options; they go into O(secrets).
    type: dict
    required: true
  preferred:
    description:
      - Defaults in the same form. O(config) goes before them, and what the installed version does not have is left out
        instead of refused.
    type: dict
    default: {}
  secrets:
    description:
      - Passphrases and keys in the same form, such as C(repo1-cipher-pass) in section V(global). Never logged or shown.
    type: dict
    default: {}
  user:
    description:
      - Operating system user that runs pgBackRest. The file belongs to root and this user's group with mode 0640;
        where the module does not run as root, to the user it runs as.
    type: str
    default: postgres
  executable:
    description:
      - Name or path of the pgBackRest program.
    type: str
    default: pgbackrest
  directories:
    description:
      - Directories to ensure, such as that of a repository. They belong to O(user) with mode 0750.
    type: list
    elements: path
    default: []
  backup:
    description:
      - Whether to keep a dated copy of the file that is replaced.
      - Secrets that are no longer in force are hidden in it, and in older copies.
    type: bool
    default: true
attributes:
  check_mode:
    description:
      - Judges and compares, but replaces nothing.
      - Where pgBackRest is not installed yet, options are not judged and RV(judged) is V(false).
    support: full
  diff_mode:
    description: Shows the file before and after, with secrets hidden.
    support: full
requirements:
  - pgBackRest 2.33 or later on the host the module runs on
seealso:
  - module: dbre.recovery.pgbackrest_stanza
"""

EXAMPLES = r"""
- name: Configure pgBackRest for one local repository
  dbre.recovery.pgbackrest_config:
    config:
      global:
        repo1-path: /var/lib/pgbackrest
        repo1-retention-full: 2
      main:
        pg1-path: /var/lib/postgresql/15/main
    preferred:
      global:
        compress-type: zst
  become: true
"""

RETURN = r"""
path:
  description: The configuration file.
  returned: success
  type: str
  sample: /etc/pgbackrest.conf
exists:
  description: Whether the file is there now. V(false) only in check mode where it is still to be made.
  returned: success
  type: bool
  sample: true
stanzas:
  description: Stanzas that the file has now. In check mode those of the file in force.
  returned: success
  type: list
  elements: str
  sample: [main]
left_out:
  description: Preferred options that the installed pgBackRest does not have.
  returned: success
  type: list
  elements: str
  sample: ["[global] repo1-bundle"]
serves:
  description: Whether the file lets other hosts in, so that C(pgbackrest server) must run.
  returned: success
  type: bool
  sample: false
judged:
  description: Whether pgBackRest was asked. V(false) only in check mode where it is not installed yet.
  returned: success
  type: bool
  sample: true
backup_file:
  description: Copy of the file that was replaced.
  returned: when a file was replaced and O(backup) is V(true)
  type: str
  sample: /etc/pgbackrest.conf.1234.2026-11-23@22:00:00~
masked:
  description: Older copies of the file in which secrets that are no longer in force were hidden.
  returned: when the file exists
  type: list
  elements: str
  sample: [/etc/pgbackrest.conf.1234.2026-11-23@22:00:00~]
"""

import glob
import os
import pwd
import socket
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.config import (
    AUTH,
    Judge,
    Sections,
    broken_values,
    keep_other_stanzas,
    merge,
    misplaced_options,
    misplaced_secrets,
    newly_broken,
    parse,
    refuse,
    render,
    stanzas_of,
    without_old_secrets,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest


class ConfigFile:
    """pgbackrest.conf on this host, with the user that reads it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.user: str = module.params["user"]
        self.root = os.geteuid() == 0
        try:
            self.group = pwd.getpwnam(self.user).pw_gid if self.root else os.getegid()
        except KeyError:
            if not module.check_mode:
                raise RecoveryError(
                    f"There is no operating system user '{self.user}' on {socket.gethostname()}; {self.path} was not "
                    "changed. Install PostgreSQL first (role dbre.recovery.postgresql_archiving)."
                ) from None
            self.group = 0

    def read(self) -> str | None:
        if not os.path.exists(self.path):
            return None
        with open(self.path, encoding="utf-8") as file:
            return file.read()

    def run_as_user(self, argv: list[str]) -> tuple[int, str, str]:
        """Run pgBackRest as its own user: newer versions refuse root, and root must leave no files behind."""
        rc, stdout, stderr = self.module.run_command(
            ["runuser", "-u", self.user, "--", *argv] if self.root else argv, cwd="/"
        )
        return rc, stdout, stderr

    def look(self, path: str, stanza: str, executable: str) -> dict[str, Any]:
        """What pgBackRest says of a stanza with a configuration file; no repositories where it says nothing."""
        pgbackrest = PgBackRest(self.run_as_user, stanza=stanza, config=path, executable=executable)
        try:
            return stanza_facts(pgbackrest.info())
        except RecoveryError:
            return stanza_facts({"name": stanza})

    def file_args(self, path: str, owner: str = "", mode: str = "0640") -> dict[str, Any]:
        return {
            "path": path,
            "owner": owner or str(os.geteuid()),
            "group": str(self.group),
            "mode": mode,
            "seuser": None,
            "serole": None,
            "setype": None,
            "selevel": None,
            "secontext": [None, None, None],
            "attributes": None,
        }

    def make_directory(self, path: str) -> bool:
        """Ensure a directory of pgBackRest's user; whether it was not so."""
        changed = not os.path.isdir(path)
        if changed and not self.module.check_mode:
            if not os.path.isdir(os.path.dirname(path)):
                self.make_directory(os.path.dirname(path))
            os.mkdir(path, 0o750)
        if not os.path.isdir(path):
            return changed
        arguments = self.file_args(path, self.user if self.root else "", "0750")
        return bool(self.module.set_fs_attributes_if_different(arguments, changed))

    def mask_copies(self, check_mode: bool) -> list[str]:
        """Hide secrets that are no longer in force in older copies of the file; the copies concerned."""
        now, masked = self.read() or "", []
        for path in sorted(glob.glob(f"{glob.escape(self.path)}.*~")):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                before = file.read()
            after = without_old_secrets(before, now)
            if after == before:
                continue
            masked.append(path)
            if not check_mode:
                scratch = self.candidate(after)
                self.module.atomic_move(scratch, path)
        return masked

    def candidate(self, text: str) -> str:
        """Write the text to a new file that only root and pgBackRest's user can read, and return its path."""
        handle, path = tempfile.mkstemp(prefix=".pgbackrest-", suffix=".conf", dir=os.path.dirname(self.path))
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.chown(path, -1, self.group)
        os.chmod(path, 0o640)
        return path


def replace(
    module: AnsibleModule, file: ConfigFile, judge: Judge, text: str, sections: Sections, result: dict[str, Any]
) -> None:
    """Put the text in force once pgBackRest has nothing against it; raise, and leave the old file, otherwise."""
    path = file.candidate(text)
    try:
        complaints = judge.complaints(path, sections)
        if not complaints and os.path.exists(file.path):
            for stanza in stanzas_of(sections):
                before, after = (file.look(place, stanza, module.params["executable"]) for place in (file.path, path))
                complaints += newly_broken(before, after)
        if complaints:
            raise refuse(file.path, complaints)
        if not module.check_mode:
            if os.path.exists(file.path) and module.params["backup"]:
                result["backup_file"] = module.backup_local(file.path)
            module.atomic_move(path, file.path)
    finally:
        if os.path.exists(path):
            os.unlink(path)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Judge the wanted file, replace the present one where they differ, and return the module's result."""
    params = module.params
    file = ConfigFile(module)
    broken = [reason for layer in ("config", "preferred", "secrets") for reason in broken_values(params[layer])]
    if broken:
        raise refuse(file.path, broken)
    secrets = {**misplaced_secrets(params["preferred"]), **misplaced_secrets(params["config"])}
    module.no_log_values.update(value for values in secrets.values() for value in values)
    late = "is a secret and belongs into 'secrets'. Ansible has written it to this host's log by now, so make a new one"
    reasons = [f"{name} {late}" for name in secrets]
    reasons += misplaced_options(params["config"])
    present = file.read()
    wanted = merge(params["preferred"], params["config"], params["secrets"])
    left_out: list[str] = []
    judge = None
    if not reasons and (module.get_bin_path(params["executable"]) or not module.check_mode):
        judge = Judge(file.run_as_user, params["executable"])
        wanted, left_out, reasons = judge.sift(wanted, merge(params["config"], params["secrets"]))
    if reasons:
        raise refuse(file.path, reasons)
    whole = keep_other_stanzas(wanted, parse(present or ""))
    text = render(whole)
    result: dict[str, Any] = {"path": file.path, "left_out": left_out, "judged": judge is not None}
    result["serves"] = AUTH in whole.get("global", {})
    result["diff"] = {
        "before_header": file.path,
        "after_header": file.path,
        "before": render(parse(present), hide_secrets=True) if present else "",
        "after": render(whole, hide_secrets=True),
    }
    result["changed"] = text != present
    if result["changed"] and judge:
        replace(module, file, judge, text, wanted, result)
    for path in params["directories"]:
        result["changed"] = file.make_directory(path) or result["changed"]
    result["stanzas"] = sorted({name.split(":")[0] for name in parse(file.read() or "")} - {"global"})
    result["exists"] = os.path.exists(file.path)
    if result["exists"]:
        result["changed"] = module.set_fs_attributes_if_different(file.file_args(file.path), result["changed"])
        result["masked"] = file.mask_copies(module.check_mode)
        result["changed"] = result["changed"] or bool(result["masked"])
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/pgbackrest.conf"},
            "config": {"type": "dict", "required": True},
            "preferred": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "user": {"type": "str", "default": "postgres"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "directories": {"type": "list", "elements": "path", "default": []},
            "backup": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**ensure(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
