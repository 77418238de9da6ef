"""Secrets stand in many places that a recovery works with. None is in what it prints, records or leaves behind."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONTROL, PLAYBOOK, Shop
from leaks import Watch, files_with, open_to_others
from runs import Run, run


class Operator:
    """Somebody who runs playbooks as loud as they get for people."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.planted = shop.planted
        self._shop = shop
        self.vault = folder / "vault.json"
        self.vault.touch(mode=0o600)
        described: dict[str, Any] = json.loads(shop.inventory_file.read_text())
        primary = described["all"]["children"]["primary"]["hosts"]["production"]
        # The same machine once more, so that the side instance is reached over TLS and by its password.
        described["all"]["children"]["recovery"] = {"hosts": {"side": primary}}
        self._inventory = folder / "inventory.json"
        self._inventory.write_text(json.dumps(described))
        self.log = shop.folder / "ansible.log"

    def play(self, playbook: Path, **variables: Any) -> Run:
        command = ["ansible-playbook", "-vvv", "-i", str(self._inventory), str(playbook), "-e", f"@{self.vault}"]
        # What only the environment of a process holds.
        kept = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD")
        environment = {name: self.planted.plant(name) for name in kept}
        environment["ANSIBLE_LOG_PATH"] = str(self.log)
        return run([*command, "-e", json.dumps(variables)], {**self._shop.environment, **environment})

    def recover(self, incident: str) -> Run:
        return self.play(
            PLAYBOOK,
            dr_database="shop",
            dr_tables="public.orders",
            dr_confirm=True,
            dr_incident_id=incident,
            dr_report_dir=str(self._shop.folder / "incidents"),
            dr_side_address="127.0.0.1",
            dr_primary_address="127.0.0.1",
        )


@pytest.fixture
def operator(shop: Shop, tmp_path: Path) -> Operator:
    return Operator(shop, tmp_path)


@pytest.fixture
def closed(shop: Shop, operator: Operator) -> Iterator[None]:
    """What the test does is watched, and what it left is searched."""
    began = time.time()
    with Watch(shop.planted) as watch:
        yield
    assert watch.seen == []
    # Records, logs and temporary files: not at all.
    said = [shop.folder / name for name in ("incidents", "ansible", "tmp", "log")]
    assert files_with(shop.planted, [operator.log, *said], began) == {}
    # What must hold one: for nobody else.
    temporary = [Path(place) for place in ("/tmp", "/var/tmp", tempfile.gettempdir())]
    left = files_with(shop.planted, [shop.folder, *temporary], began)
    assert [path for path in left if open_to_others(path)] == []
    assert operator.vault in left  # so that the search itself works


def lose(shop: Shop) -> None:
    """Drop a table together with things whose definitions hold passwords."""
    places = ("user mapping", "subscription", "view", "trigger", "default", "comment")
    mapping, conninfo, url, argument, default, comment = (shop.planted.plant(name, "%\\$") for name in places)
    for statement in (
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1')",
        f"CREATE USER MAPPING FOR clerk SERVER far OPTIONS (user 'clerk', password '{mapping}')",
        f"CREATE VIEW public.named AS SELECT id, 'postgresql://a:{url}@db/shop'::text AS at FROM public.orders",
        "CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        f"CREATE TRIGGER told BEFORE UPDATE ON public.orders EXECUTE FUNCTION public.tell('a://b:{argument}@c')",
        f"ALTER TABLE public.orders ALTER what SET DEFAULT 'host=db password={default}'",
        f"COMMENT ON TABLE public.orders IS 'log in with password \"{comment}\"'",
        f"CREATE SUBSCRIPTION s CONNECTION 'password={conninfo}' PUBLICATION p WITH (connect = off, slot_name = NONE)",
    ):
        shop.query("shop", statement)
    connection = shop.connect("shop")
    connection.autocommit = False
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP SUBSCRIPTION s; DROP SERVER far CASCADE; DROP TABLE public.orders CASCADE")
    connection.close()
    # What he had and what needs the function cannot come back, and is told; the server is not to log how that failed.
    shop.query(CONTROL, "DROP ROLE clerk")
    shop.query("shop", "DROP FUNCTION public.tell()")


@pytest.mark.usefixtures("closed")
def test_no_secret_is_printed_recorded_or_left_behind(shop: Shop, operator: Operator) -> None:
    lose(shop)
    plant = shop.planted.plant
    passfile = shop.folder / "passfile"
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:*:{plant('passfile', '%$')}\n")
    operator.vault.write_text(
        json.dumps(
            {
                "__dr_password": plant("one-time password", ""),
                "postgresql_table_recovery_password": plant("password of production"),
                "postgresql_drop_protection_passfile": str(passfile),
            }
        )
    )
    configuration = shop.pgbackrest_config.read_text()
    right = next(line for line in configuration.splitlines() if line.startswith("repo1-cipher-pass="))
    shop.pgbackrest_config.write_text(configuration.replace(right, f"repo1-cipher-pass={plant('wrong passphrase')}"))
    refused = operator.recover("refused")
    shop.pgbackrest_config.write_text(configuration)
    assert refused.rc != 0
    recovered = operator.recover("secrets")
    assert "Recovered in part: missing" in recovered.output
    assert shop.count("public.orders") == 3000
    # The secrets that the report does not have are in the side instance, which stays until they were taken from there.
    commands = [str(item["command"]) for item in shop.report("secrets")["left_to_do"]]
    assert any(command.startswith("CREATE SERVER") for command in commands)
    (removal,) = [command for command in commands if "dr_abandon" in command]
    removed = shop.obey(removal)
    assert removed.rc == 0, removed.output
    for played in (refused, recovered, removed):
        assert shop.planted.found_in(played.output.encode()) == []


@pytest.mark.usefixtures("closed")
def test_no_secret_of_pgbackrest_is_printed_or_left_where_it_is_written_changed_or_refused(
    shop: Shop, operator: Operator, tmp_path: Path
) -> None:
    cases = ("first", "rotated", "misplaced", "broken")
    given = {name: {"global": {"repo1-cipher-pass": shop.planted.plant(name)}} for name in cases}
    given["broken"]["global"]["repo1-cipher-pass"] += "\n" + shop.planted.plant("second line")
    operator.vault.write_text(json.dumps({"given": given}))
    paths = {"log-path": str(shop.folder / "log"), "spool-path": str(shop.folder / "spool")}

    def write(secrets: str, config: str = "{{ {} }}") -> list[dict[str, Any]]:
        role = {"name": "dbre.recovery.pgbackrest", "tasks_from": "configure"}
        config = f"{{{{ {{'global': {paths}}} | combine({config[2:-2]}, recursive=true) }}}}"
        variables = {"pgbackrest_secrets": secrets, "pgbackrest_config": config}
        said = {"ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}
        return [{"block": [{"ansible.builtin.include_role": role, "vars": variables}], "rescue": [said]}]

    play = {
        "hosts": "primary",
        "gather_facts": False,
        "vars": {
            "pgbackrest_config_path": str(shop.folder / "provisioned.conf"),
            "pgbackrest_repository_path": str(shop.folder / "provisioned"),
        },
        "tasks": [
            *write("{{ given.first }}"),
            *write("{{ given.rotated }}"),
            *write("{{ {} }}", "{{ given.misplaced }}"),
            *write("{{ given.broken }}"),
        ],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play], indent=1))
    played = operator.play(playbook)
    assert played.rc == 0, played.output
    assert shop.planted.found_in(played.output.encode()) == []
    assert "Move it to pgbackrest_secrets" in played.output
    assert "has a line break" in played.output
    copies = files_with(shop.planted, shop.folder.glob("provisioned.conf*"))
    assert copies == {shop.folder / "provisioned.conf": ["rotated"]}
    assert len(list(shop.folder.glob("provisioned.conf*"))) == 2
