-- The shop: customers and their orders.
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, city text NOT NULL);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES customers, product text NOT NULL, amount numeric(10, 2) NOT NULL);

INSERT INTO customers SELECT i, 'customer ' || i, (ARRAY['oslo', 'rome', 'bonn'])[1 + i % 3] FROM generate_series(1, 50) i;
INSERT INTO orders (customer, product, amount)
SELECT 1 + i % 50, 'product ' || (i * i % 12), (5 + i * 7 % 90) + 0.5 FROM generate_series(1, 1000) i;
