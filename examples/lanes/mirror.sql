-- weir run examples/lanes/mirror.sql
-- SHOP_URL and COPY_URL are the URLs of the two databases.
CREATE CONNECTION shop WITH ('url' = '${env:SHOP_URL}');
CREATE CONNECTION copy WITH ('url' = '${env:COPY_URL}');

-- Two connections share the tables. Each table is exact; an order may be seen before its lines.
CREATE MIRROR shop_lanes FROM shop TO copy
  TABLES 'public.product', 'public.orders', 'public.line'
  ROUTE 'public.*' TO 'lanes.*'
  WITH ('sink.lanes' = '2');
