-- A small shop whose table "orders" has one of everything a drop can take with it.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_app LOGIN;
CREATE ROLE shop_reports NOLOGIN;
CREATE DATABASE shop OWNER shop_owner;
\connect shop
CREATE TABLE public.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    favourite_order bigint
);
CREATE TYPE public.order_state AS ENUM ('new', 'paid', 'sent');
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changed := now(); RETURN NEW; END $$;
CREATE TABLE public.orders (
    id bigserial PRIMARY KEY,
    customer bigint NOT NULL REFERENCES public.customers,
    state public.order_state NOT NULL DEFAULT 'new',
    total numeric(10,2) NOT NULL CHECK (total >= 0),
    doubled numeric GENERATED ALWAYS AS (total * 2) STORED,
    note text,
    document bytea,
    changed timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE public.orders ALTER COLUMN note SET STATISTICS 500;
ALTER TABLE public.orders SET (fillfactor = 90);
CREATE INDEX orders_customer ON public.orders (customer) INCLUDE (total);
CREATE INDEX "Orders Open" ON public.orders (changed) WHERE state <> 'sent';
CREATE UNIQUE INDEX orders_identity ON public.orders (id, customer);
ALTER TABLE public.orders REPLICA IDENTITY USING INDEX orders_identity;
CREATE STATISTICS public.orders_stats ON customer, state FROM public.orders;
CREATE TRIGGER orders_touch BEFORE UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.touch();
CREATE TRIGGER orders_asleep BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.touch();
ALTER TABLE public.orders DISABLE TRIGGER orders_asleep;
CREATE TABLE public.order_lines (
    order_id bigint NOT NULL REFERENCES public.orders ON DELETE CASCADE,
    line integer NOT NULL,
    product text,
    PRIMARY KEY (order_id, line)
);
ALTER TABLE public.customers ADD CONSTRAINT favourite FOREIGN KEY (favourite_order) REFERENCES public.orders DEFERRABLE INITIALLY DEFERRED;
CREATE VIEW public.open_orders AS SELECT o.id, o.total, c.name FROM public.orders o JOIN public.customers c ON c.id = o.customer WHERE o.state <> 'sent';
CREATE VIEW public.open_totals WITH (security_barrier) AS SELECT name, sum(total) AS total FROM public.open_orders GROUP BY name;
CREATE MATERIALIZED VIEW public.order_report AS SELECT customer, count(*) AS orders FROM public.orders GROUP BY customer;
CREATE UNIQUE INDEX order_report_customer ON public.order_report (customer);
CREATE FUNCTION public.order_count() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM public.orders; END;
ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY reports_only_sent ON public.orders FOR SELECT TO shop_reports USING (state = 'sent');
CREATE POLICY app_all ON public.orders TO shop_app USING (true) WITH CHECK (true);
CREATE RULE orders_no_big_deletes AS ON DELETE TO public.open_totals DO INSTEAD NOTHING;
CREATE PUBLICATION shop_publication FOR TABLE public.orders (id, customer, total), public.customers;
COMMENT ON TABLE public.orders IS 'what people bought';
COMMENT ON COLUMN public.orders.total IS 'in euro';
COMMENT ON CONSTRAINT orders_pkey ON public.orders IS 'the key';
ALTER TABLE public.orders OWNER TO shop_owner;
ALTER VIEW public.open_orders OWNER TO shop_owner;
GRANT SELECT, INSERT, UPDATE ON public.orders TO shop_app;
GRANT USAGE ON SEQUENCE public.orders_id_seq TO shop_app;
GRANT SELECT (id, total) ON public.orders TO shop_reports;
GRANT SELECT ON public.open_orders, public.order_report TO shop_reports;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO shop_reports;
CREATE TABLE public.events (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), what text);
CREATE SCHEMA "Sales";
CREATE TABLE "Sales"."Order Lines" (id integer PRIMARY KEY, what text);
CREATE TABLE "Sales".regions (id integer PRIMARY KEY, part_of integer REFERENCES "Sales".regions);
INSERT INTO "Sales"."Order Lines" SELECT g, 'line ' || g FROM generate_series(1, 500) g;
INSERT INTO "Sales".regions SELECT g, nullif(g / 2, 0) FROM generate_series(1, 50) g;
CREATE TABLE public.prices (product text PRIMARY KEY, price numeric NOT NULL);
INSERT INTO public.prices SELECT 'product ' || g, g FROM generate_series(1, 5000) g;
INSERT INTO public.customers (name) SELECT 'customer ' || g FROM generate_series(1, 100) g;
INSERT INTO public.orders (customer, total, note, document)
    SELECT 1 + g % 100, g % 977, repeat('note ' || g || ' ', g % 9), decode(md5(g::text), 'hex') FROM generate_series(1, 20000) g;
INSERT INTO public.order_lines SELECT g, l, 'product ' || l FROM generate_series(1, 5000) g, generate_series(1, 2) l;
UPDATE public.customers SET favourite_order = id;
REFRESH MATERIALIZED VIEW public.order_report;
