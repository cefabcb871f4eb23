-- weir run examples/orders/orders.sql
-- SHOP_URL, BANK_URL and REPORT_URL are the URLs of the three databases.

CREATE TABLE customers (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'postgres-cdc', 'url' = '${env:SHOP_URL}', 'table-name' = 'customers');
CREATE TABLE orders (id BIGINT, customer INT, product STRING, amount DECIMAL(10, 2), PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'postgres-cdc', 'url' = '${env:SHOP_URL}', 'table-name' = 'orders');
CREATE TABLE payments (id BIGINT, order_id BIGINT, amount DECIMAL(10, 2), PRIMARY KEY (id) NOT ENFORCED)
  WITH ('connector' = 'postgres-cdc', 'url' = '${env:BANK_URL}', 'table-name' = 'payments');

-- The tables of the report are one sink: a checkpoint is one transaction over all of them.
CREATE TABLE customer_totals (customer INT, name STRING, orders BIGINT, ordered DECIMAL(12, 2), paid DECIMAL(12, 2), `open` DECIMAL(12, 2),
    PRIMARY KEY (customer) NOT ENFORCED)
  WITH ('connector' = 'jdbc', 'url' = '${env:REPORT_URL}', 'table-name' = 'customer_totals');
CREATE TABLE top_products (place BIGINT, product STRING, orders BIGINT, amount DECIMAL(12, 2), PRIMARY KEY (place) NOT ENFORCED)
  WITH ('connector' = 'jdbc', 'url' = '${env:REPORT_URL}', 'table-name' = 'top_products');
CREATE TABLE sales (one INT, orders BIGINT, ordered DECIMAL(12, 2), paid DECIMAL(12, 2), PRIMARY KEY (one) NOT ENFORCED)
  WITH ('connector' = 'jdbc', 'url' = '${env:REPORT_URL}', 'table-name' = 'sales');

-- Each order with what was paid for it so far.
CREATE VIEW order_payments AS
SELECT o.id, o.customer, o.product, o.amount, COALESCE(p.paid, 0) AS paid
FROM orders o LEFT JOIN (SELECT order_id, SUM(amount) AS paid FROM payments GROUP BY order_id) p ON p.order_id = o.id;

EXECUTE STATEMENT SET BEGIN

INSERT INTO customer_totals
SELECT c.id, c.name, COUNT(*), CAST(SUM(o.amount) AS DECIMAL(12, 2)), CAST(SUM(o.paid) AS DECIMAL(12, 2)), CAST(SUM(o.amount - o.paid) AS DECIMAL(12, 2))
FROM order_payments o JOIN customers c ON c.id = o.customer
GROUP BY c.id, c.name;

INSERT INTO top_products
SELECT place, product, orders, CAST(amount AS DECIMAL(12, 2))
FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY amount DESC, product) AS place
      FROM (SELECT product, COUNT(*) AS orders, SUM(amount) AS amount FROM orders GROUP BY product))
WHERE place <= 5;

INSERT INTO sales
SELECT 1, COUNT(*), CAST(SUM(amount) AS DECIMAL(12, 2)), CAST(SUM(paid) AS DECIMAL(12, 2)) FROM order_payments;

END;
