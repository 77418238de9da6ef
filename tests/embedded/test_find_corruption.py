"""What somebody sees whose disk lost a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import ROOT
from runs import run


def find(shop: Any, *words: str) -> Any:
    playbook = str(ROOT / "playbooks" / "find-corruption.yml")
    return run(
        ["ansible-playbook", "-i", str(shop.inventory_file), playbook, "-e", "dr_database=shop", *words],
        shop.environment,
    )


def test_a_flipped_bit_of_an_index_is_told_and_the_index_rebuilt(shop: Any) -> None:
    shop.query("shop", "CREATE INDEX orders_what ON public.orders (what)")
    ((data, path),) = shop.query(
        "shop", "SELECT current_setting('data_directory'), pg_relation_filepath('public.orders_what')"
    )
    shop.query("shop", "CHECKPOINT")
    # Of the header, so that it is seen without data checksums, too.
    with (Path(data) / path).open("r+b") as file:
        file.seek(8192 + 14)
        file.write(b"\xff\xff")

    told = find(shop, "-e", "dr_rebuild_indexes=true", "--check")
    assert told.rc == 0, told.output
    assert "index public.orders_what of public.orders in database shop, block 1" in told.output
    assert "to be rebuilt" in told.output

    done = find(shop, "-e", "dr_rebuild_indexes=true")
    assert done.rc == 0, done.output
    assert "'rebuilt'" in done.output or '"rebuilt"' in done.output
    again = find(shop)
    assert again.rc == 0, again.output
    assert "no damage was found" in again.output
