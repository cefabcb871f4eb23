-- What each city has ordered, kept up to date while files of orders and people come in.

CREATE TABLE orders (id BIGINT, who STRING, amount DECIMAL(10, 2)) WITH (
  'connector' = 'filesystem', 'path' = 'orders', 'format' = 'csv', 'source.monitor-interval' = '1 s');

CREATE TABLE people (who STRING, city STRING) WITH (
  'connector' = 'filesystem', 'path' = 'people', 'format' = 'csv', 'source.monitor-interval' = '1 s');

-- Totals change after they were written, so the files say what was added and what was taken back.
CREATE TABLE cities (city STRING, orders BIGINT, total DECIMAL(38, 2)) WITH (
  'connector' = 'filesystem', 'path' = 'cities', 'format' = 'csv', 'sink.changelog' = 'true');

INSERT INTO cities
SELECT p.city, COUNT(*), SUM(o.amount)
FROM orders o JOIN people p ON o.who = p.who
GROUP BY p.city;
