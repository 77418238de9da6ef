CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT g, 'Customer ' || g FROM generate_series(1, 100) g;
CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES customers, code text UNIQUE, doc json,
    total numeric(12,2), twice numeric GENERATED ALWAYS AS (total * 2) STORED
);
INSERT INTO orders (customer, code, doc, total)
SELECT 1 + g % 100, 'code ' || g, '{"g": 1}', g / 3.0 FROM generate_series(1, 150000) g;
CREATE INDEX orders_customer ON orders (customer);
CREATE TABLE lines (id bigserial PRIMARY KEY, order_id bigint REFERENCES orders, t text);
INSERT INTO lines (order_id, t) SELECT g, 'line ' || g FROM generate_series(1, 2000) g;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the trigger fired'; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR DELETE OR TRUNCATE ON lines FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE lines DISABLE TRIGGER refuse;
CREATE TABLE keyless (v int);
INSERT INTO keyless SELECT generate_series(1, 10);
