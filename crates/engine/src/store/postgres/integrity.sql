-- What is wrong inside a database. Lines: p and the problem in words. The server writes the queries that
-- look into tables, so that every name is quoted. Checks that call users' functions are not evaluated.
COPY (
  SELECT 'p', format('index %I.%I of table %s is invalid: rebuild it with REINDEX', n.nspname, x.relname, i.indrelid::regclass)
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
  WHERE NOT i.indisvalid AND x.relkind = 'i' AND n.nspname !~ '^pg_temp' ORDER BY 2
) TO STDOUT;
COPY (
  SELECT 'p', format('%s failed page checksums since %s', checksum_failures, checksum_last_failure)
  FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
) TO STDOUT;
COPY (
  SELECT 'p', format('constraint %I on %s was never validated and calls a user''s function; it was not checked', c.conname, c.conrelid::regclass)
  FROM pg_constraint c WHERE c.contype = 'c' AND NOT c.convalidated AND c.conrelid <> 0
    AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
                AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass))
) TO STDOUT;
SELECT format('COPY (SELECT ''p'', %L || count(*) FROM ONLY %I.%I WHERE NOT (%s) HAVING count(*) > 0) TO STDOUT',
         format('constraint %I on %I.%I was never validated; rows that violate it: ', c.conname, n.nspname, t.relname),
         n.nspname, t.relname, pg_get_expr(c.conbin, c.conrelid))
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE c.contype = 'c' AND NOT c.convalidated AND t.relkind = 'r'
  AND NOT (pg_is_in_recovery() AND t.relpersistence = 'u')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
                  AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass))
\gexec
SELECT DISTINCT format(
  'COPY (SELECT ''p'', format(%L, q.last_value, m.top) FROM %I.%I q, (SELECT max(%I) AS top FROM %I.%I) m '
  'WHERE m.top > q.last_value OR (m.top = q.last_value AND NOT q.is_called)) TO STDOUT',
  replace(format('sequence %I.%I', sn.nspname, s.relname), '%', '%%') || ' stands at %s behind '
    || replace(format('%I.%I.%I', tn.nspname, t.relname, a.attname), '%', '%%') || ' at %s',
  sn.nspname, s.relname, a.attname, tn.nspname, t.relname)
FROM (
  SELECT objid AS seq, refobjid AS tab, refobjsubid AS col FROM pg_depend
  WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i') AND refobjsubid > 0
  UNION
  SELECT d.refobjid, x.adrelid, x.adnum FROM pg_depend d JOIN pg_attrdef x ON x.oid = d.objid
  WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
) link
JOIN pg_class s ON s.oid = link.seq AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_sequence p ON p.seqrelid = s.oid AND p.seqincrement > 0 AND NOT p.seqcycle
JOIN pg_class t ON t.oid = link.tab AND t.relkind IN ('r', 'p') JOIN pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = link.col
JOIN pg_type y ON y.oid = a.atttypid AND y.typname IN ('int2', 'int4', 'int8')
WHERE s.relpersistence <> 't' AND t.relpersistence <> 't'
  AND NOT (pg_is_in_recovery() AND 'u' IN (s.relpersistence, t.relpersistence))
\gexec
