-- One database with one of everything that makes a dump hard to restore in part.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_app NOLOGIN;
CREATE ROLE only_in_dump NOLOGIN;
CREATE ROLE "Odd ""Role" NOLOGIN SUPERUSER;
CREATE DATABASE shop OWNER shop_owner;
\connect shop
CREATE SCHEMA "Sales";
CREATE TYPE public.state AS ENUM ('new', 'sent');
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trigger ran'; END $$;
CREATE TABLE public.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, favourite bigint);
CREATE TABLE public.orders (
    id bigserial PRIMARY KEY,
    customer bigint NOT NULL REFERENCES public.customers,
    state public.state NOT NULL DEFAULT 'new',
    total numeric(10, 2) NOT NULL CHECK (total >= 0),
    doubled numeric GENERATED ALWAYS AS (total * 2) STORED,
    note text,
    document bytea
);
CREATE INDEX "orders by state" ON public.orders (state) WHERE note IS NOT NULL;
CREATE STATISTICS public.orders_stats ON customer, state FROM public.orders;
CREATE TRIGGER asleep BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.touch();
ALTER TABLE public.orders DISABLE TRIGGER asleep;
CREATE TRIGGER always BEFORE DELETE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.touch();
ALTER TABLE public.orders ENABLE ALWAYS TRIGGER always;
CREATE TABLE public.order_lines (
    order_id bigint REFERENCES public.orders ON DELETE CASCADE, line integer, PRIMARY KEY (order_id, line)
);
ALTER TABLE public.customers ADD FOREIGN KEY (favourite) REFERENCES public.orders DEFERRABLE INITIALLY DEFERRED;
CREATE VIEW public.open_orders AS SELECT o.id, c.name FROM public.orders o JOIN public.customers c ON c.id = o.customer;
CREATE MATERIALIZED VIEW public.report AS SELECT 100 / count(*) AS share FROM public.customers WITH NO DATA;
CREATE MATERIALIZED VIEW public.never_filled AS SELECT 1 AS one WITH NO DATA;
CREATE TABLE public.parts (id integer, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01') TABLESPACE fast;
CREATE TABLE "Sales"."parts 2" PARTITION OF public.parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')
    PARTITION BY LIST (id);
CREATE TABLE "Sales"."parts 2a" PARTITION OF "Sales"."parts 2" DEFAULT;
CREATE TABLE public.uses_parts (id integer, at date, FOREIGN KEY (id, at) REFERENCES public.parts);
CREATE TABLE "Sales"."Order Lines" (id integer PRIMARY KEY, what text);
CREATE TABLE "Sales".base (id integer PRIMARY KEY);
CREATE TABLE public.child (extra integer) INHERITS ("Sales".base);
ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY app ON public.orders TO shop_app, "Odd ""Role" USING (true) WITH CHECK (true);
CREATE RULE no_delete AS ON DELETE TO public.customers DO INSTEAD NOTHING;
CREATE PUBLICATION everything FOR ALL TABLES;
ALTER PUBLICATION everything OWNER TO "Odd ""Role";
CREATE FUNCTION public.noop() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.noop();
ALTER EVENT TRIGGER watch OWNER TO "Odd ""Role";
CREATE SUBSCRIPTION elsewhere CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false);
COMMENT ON SUBSCRIPTION elsewhere IS 'must not come to life';
COMMENT ON CONSTRAINT orders_pkey ON public.orders IS 'the key';
ALTER TABLE public.orders OWNER TO shop_owner;
GRANT SELECT, INSERT ON public.orders TO shop_app WITH GRANT OPTION;
GRANT SELECT (id) ON public.orders TO only_in_dump;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA "Sales" GRANT SELECT ON TABLES TO shop_app;
ALTER DATABASE shop SET work_mem = '7MB';
ALTER DATABASE shop SET default_transaction_read_only = on;
ALTER ROLE shop_app IN DATABASE shop SET work_mem = '8MB';
SET default_transaction_read_only = off;
INSERT INTO public.customers (name) SELECT 'customer ' || g FROM generate_series(1, 100) g;
INSERT INTO public.orders (customer, total, note, document)
    SELECT 1 + g % 100, g % 977, repeat(E'a\tb\\c\n', g % 5), decode(md5(g::text), 'hex') FROM generate_series(1, 20000) g;
INSERT INTO public.order_lines SELECT g, l FROM generate_series(1, 500) g, generate_series(1, 2) l;
UPDATE public.customers SET favourite = id;
INSERT INTO public.parts SELECT g, date '2026-01-01' + g % 59 FROM generate_series(1, 500) g;
INSERT INTO public.uses_parts SELECT * FROM public.parts LIMIT 50;
INSERT INTO "Sales"."Order Lines" SELECT g, 'line ' || g FROM generate_series(1, 500) g;
INSERT INTO "Sales".base SELECT g FROM generate_series(1, 5) g;
INSERT INTO public.child SELECT g, g FROM generate_series(6, 9) g;
REFRESH MATERIALIZED VIEW public.report;
SELECT lo_from_bytea(4711, 'a large object');
