"""What somebody sees whose disk lost a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import ROOT
from production import ProductionError
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


@pytest.mark.whole  # what docs/corruption.md says to do, word by word
def test_rows_of_damaged_pages_come_back_as_the_manual_says(shop: Any) -> None:
    count, checksum = "SELECT count(*) FROM public.orders", "SELECT sum(hashtext(o::text)) FROM public.orders o"
    shop.query("shop", "UPDATE public.orders SET what = 'later ' || id WHERE id % 7 = 0")
    shop.query("shop", "DELETE FROM public.lines WHERE id > 2900; DELETE FROM public.orders WHERE id > 2900")
    before = shop.query("shop", count), shop.query("shop", checksum)
    ((data, path),) = shop.query(
        "shop", "SELECT current_setting('data_directory'), pg_relation_filepath('public.orders')"
    )
    shop.query("shop", "CHECKPOINT")
    shop.stop()
    shop.start()
    with (Path(data) / path).open("r+b") as file:
        file.seek(8192 + 14)
        file.write(b"\xff\xff")
    told = find(shop)
    assert "public.orders in database shop, block 1" in told.output, told.output
    with pytest.raises(psycopg2.Error, match="invalid page in block 1"):
        shop.query("shop", count)

    ((lsn,),) = shop.query("shop", "SELECT pg_current_wal_lsn()::text")
    shop.query(
        "shop",
        "BEGIN; SET LOCAL zero_damaged_pages = on; CLUSTER public.orders USING orders_pkey; COMMIT",
    )
    assert shop.query("shop", count) < before[0]
    shop.query("shop", "INSERT INTO public.orders VALUES (5000, 'new')")
    back = shop.recover(dr_tables="public.orders", dr_target_lsn=lsn, dr_load="merge", dr_incident_id="pages")
    assert back.rc == 0, back.output
    shop.query("shop", "DELETE FROM public.orders WHERE id = 5000")
    assert (shop.query("shop", count), shop.query("shop", checksum)) == before
    assert "no damage was found" in find(shop).output


@pytest.mark.whole  # as above
def test_rows_with_damaged_toast_come_back_as_the_manual_says(shop: Any) -> None:
    checksum = "SELECT count(*), sum(hashtext(format('%s', o))) FROM public.orders o"
    long = "(SELECT string_agg(md5(o.id::text || n), '') FROM generate_series(1, 200) n)"
    shop.query("shop", f"UPDATE public.orders o SET what = {long} WHERE id <= 40")
    before = shop.query("shop", checksum)
    ((data, path),) = shop.query(
        "shop",
        "SELECT current_setting('data_directory'), pg_relation_filepath(reltoastrelid) FROM pg_class "
        "WHERE oid = 'public.orders'::regclass",
    )
    shop.query("shop", "CHECKPOINT")
    shop.stop()
    shop.start()
    with (Path(data) / path).open("r+b") as file:
        file.seek(3 * 8192 + 14)
        file.write(b"\xff\xff")
    told = find(shop)
    assert "of public.orders in database shop, block 3" in told.output, told.output

    manual = (ROOT / "docs" / "corruption.md").read_text()
    (block,) = [one for one in manual.split("```sql\n")[1:] if "DO $$" in one]
    block = block.partition("```")[0]
    file = shop.folder / "tmp" / "manual.sql"
    file.write_text(block)
    psql = [shop.program("psql"), "-XAtq", "-h", shop.socket_dir, "-p", shop.port, "-U", shop.superuser, "-d", "shop"]
    # An owner who would have a superuser run his code: by a trigger that always fires, and by a cast.
    shop.query(
        "shop",
        "CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$; "
        "CREATE TRIGGER trap BEFORE DELETE ON public.orders EXECUTE FUNCTION public.trap(); "
        "ALTER TABLE public.orders ENABLE ALWAYS TRIGGER trap; "
        "CREATE FUNCTION public.trap(public.orders) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$; "
        "CREATE CAST (public.orders AS text) WITH FUNCTION public.trap(public.orders)",
    )
    with pytest.raises(ProductionError, match="trigger trap would act"):
        shop.run(*psql, "-v", "ON_ERROR_STOP=1", "-f", file)
    shop.query("shop", "ALTER TABLE public.orders ENABLE TRIGGER trap")
    lsn = shop.run(*psql, "-v", "ON_ERROR_STOP=1", "-f", file).strip()
    assert shop.query("shop", checksum)[0][0] < before[0][0]
    back = shop.recover(dr_tables="public.orders", dr_target_lsn=lsn, dr_load="merge", dr_incident_id="toast")
    assert back.rc == 0, back.output
    assert shop.query("shop", checksum) == before
    assert "no damage was found" in find(shop).output
