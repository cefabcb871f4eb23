-- The report: what orders.sql keeps up to date.
CREATE TABLE customer_totals (
    customer int PRIMARY KEY, name text NOT NULL, orders bigint NOT NULL,
    ordered numeric(12, 2) NOT NULL, paid numeric(12, 2) NOT NULL, open numeric(12, 2) NOT NULL);
CREATE TABLE top_products (place bigint PRIMARY KEY, product text NOT NULL, orders bigint NOT NULL, amount numeric(12, 2) NOT NULL);
CREATE TABLE sales (one int PRIMARY KEY, orders bigint NOT NULL, ordered numeric(12, 2), paid numeric(12, 2));
