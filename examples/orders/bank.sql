-- The bank: what was paid for the shop's orders.
CREATE TABLE payments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL, amount numeric(10, 2) NOT NULL);

INSERT INTO payments (order_id, amount) SELECT i, (5 + i * 7 % 90) + 0.5 FROM generate_series(1, 1000) i WHERE i % 4 <> 0;
