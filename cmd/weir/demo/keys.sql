-- What is cheaper to make when the rows are there.
CREATE INDEX orders_of_customer ON orders (customer_id, id);
CREATE INDEX payments_of_order ON payments (order_id);
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;
ALTER TABLE order_items ADD FOREIGN KEY (product_id) REFERENCES products;
ALTER TABLE payments ADD FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;
SELECT setval('customers_id_seq', (SELECT max(id) FROM customers)), setval('products_id_seq', (SELECT max(id) FROM products)),
	setval('orders_id_seq', (SELECT max(id) FROM orders)), setval('payments_id_seq', (SELECT max(id) FROM payments));
ANALYZE;
