CREATE TABLE customers (id int PRIMARY KEY, name text UNIQUE);
INSERT INTO customers SELECT g, 'Customer ' || g FROM generate_series(1, 100) g;
CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers ON DELETE CASCADE);
INSERT INTO orders SELECT g, 1 + g % 100 FROM generate_series(1, 1000) g;
CREATE TABLE lines (id bigserial PRIMARY KEY, order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, note text);
INSERT INTO lines (order_id, note) SELECT 1 + g % 1000, repeat('x', 100) FROM generate_series(1, 5000) g;
-- Points to itself, and in a circle.
CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES staff, team int);
CREATE TABLE teams (id int PRIMARY KEY, head int REFERENCES staff DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE staff ADD CONSTRAINT staff_team_fkey FOREIGN KEY (team) REFERENCES teams;
INSERT INTO staff SELECT g, nullif(g / 2, 0) FROM generate_series(1, 500) g;
INSERT INTO teams SELECT g, 501 - g FROM generate_series(1, 20) g;
UPDATE staff SET team = 1 + id % 20;
-- Partitions: one has a foreign key of its own.
CREATE TABLE events (id int, at date, customer int REFERENCES customers, lead int, PRIMARY KEY (id, at))
    PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
ALTER TABLE events_new ADD CONSTRAINT events_new_lead_fkey FOREIGN KEY (lead) REFERENCES orders;
INSERT INTO events SELECT g, date '2020-01-01' + g, 1 + g % 20, 1 + g % 20 FROM generate_series(1, 600) g;
CREATE TABLE base (id int PRIMARY KEY, note text);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (base);
INSERT INTO base SELECT g, 'own' FROM generate_series(1, 10) g;
INSERT INTO child SELECT g, 'of the child' FROM generate_series(5, 30) g;
CREATE TABLE measurements_of_the_northern_district_heating_pipe_system_a (id int PRIMARY KEY);
CREATE TABLE measurements_of_the_northern_district_heating_pipe_system_b (id int PRIMARY KEY);
CREATE TABLE "измерения_северного_района_сети_а" (id int PRIMARY KEY);
CREATE TABLE "измерения_северного_района_сети_б" (id int PRIMARY KEY);
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE a_recovered (id int PRIMARY KEY);
INSERT INTO measurements_of_the_northern_district_heating_pipe_system_a SELECT generate_series(1, 10);
INSERT INTO measurements_of_the_northern_district_heating_pipe_system_b SELECT generate_series(1, 20);
INSERT INTO "измерения_северного_района_сети_а" SELECT generate_series(1, 30);
INSERT INTO "измерения_северного_района_сети_б" SELECT generate_series(1, 40);
INSERT INTO a SELECT generate_series(1, 50);
INSERT INTO a_recovered SELECT generate_series(1, 60);
-- Who did what: it fires whatever the session is.
CREATE TABLE audit (at timestamptz DEFAULT now(), what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public
    AS $$ BEGIN INSERT INTO audit (what) VALUES (TG_OP || ' on ' || TG_TABLE_NAME); RETURN NULL; END $$;
