-- A small shop as its master user makes it: no superuser anywhere.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_reports NOLOGIN;
GRANT shop_owner TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO shop_owner;
CREATE SCHEMA reports AUTHORIZATION shop_owner;

SET ROLE shop_owner;
CREATE TABLE public.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE public.orders (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES public.customers,
    total numeric(12, 2) NOT NULL CHECK (total >= 0),
    placed timestamptz NOT NULL DEFAULT clock_timestamp(),
    note text
);
CREATE INDEX orders_customer ON public.orders (customer_id);
CREATE TABLE public.items (order_id bigint NOT NULL REFERENCES public.orders, line int NOT NULL, what text, PRIMARY KEY (order_id, line));
CREATE VIEW reports.totals AS SELECT customer_id, sum(total) AS total FROM public.orders GROUP BY 1;
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := coalesce(NEW.note, 'new'); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.stamp();
GRANT SELECT ON public.orders, reports.totals TO shop_reports;
COMMENT ON TABLE public.orders IS 'what was ordered';
INSERT INTO public.customers (name) SELECT 'customer ' || n FROM generate_series(1, 100) n;
INSERT INTO public.orders (customer_id, total) SELECT 1 + n % 100, n FROM generate_series(1, 5000) n;
INSERT INTO public.items SELECT id, 1, 'thing ' || id FROM public.orders;
RESET ROLE;
