-- weir run examples/mirror/mirror.sql
-- SHOP_URL and COPY_URL are the URLs of the two databases.
CREATE CONNECTION shop WITH ('url' = '${env:SHOP_URL}');
CREATE CONNECTION copy WITH ('url' = '${env:COPY_URL}');

-- Orders of one region, and people without their telephone numbers, in a schema of their own.
CREATE MIRROR shop_copy FROM shop TO copy
  TABLES 'public.*', 'crm.*'
  EXCEPT 'public.tmp_*'
  ROUTE 'crm.*' TO 'mirror.crm_*', 'public.*' TO 'mirror.*'
  EXCLUDE COLUMNS 'crm.person.phone'
  WHERE TABLE 'public.orders' IS 'region = ''eu''';
