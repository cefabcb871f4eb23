-- A small shop, to be mirrored by mirror.sql.
CREATE SCHEMA crm;
CREATE TYPE state AS ENUM ('new', 'paid', 'sent');
CREATE TABLE product(id int PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL);
CREATE TABLE orders(
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    region text NOT NULL, state state NOT NULL DEFAULT 'new', at timestamptz NOT NULL DEFAULT now());
ALTER TABLE orders REPLICA IDENTITY FULL; -- the filter of mirror.sql reads a column outside of the key
CREATE TABLE line(order_id bigint REFERENCES orders, product_id int REFERENCES product, n int NOT NULL, PRIMARY KEY (order_id, product_id));
CREATE TABLE crm.person(id int PRIMARY KEY, name text, phone text);
CREATE TABLE tmp_import(doc text);

INSERT INTO product SELECT i, 'product ' || i, i * 1.25 FROM generate_series(1, 100) i;
INSERT INTO orders(region) SELECT CASE i % 3 WHEN 0 THEN 'us' ELSE 'eu' END FROM generate_series(1, 3000) i;
INSERT INTO line SELECT id, 1 + id % 100, 1 + id % 5 FROM orders WHERE region = 'eu';
INSERT INTO crm.person SELECT i, 'person ' || i, '+49 ' || i FROM generate_series(1, 500) i;
