-- The plans of statements in one database, without carrying them out: generic ones, for values that are not known. Lines: p the
-- number of the statement and its plan. Nothing of this is kept: the transaction is rolled back.
BEGIN;
SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL statement_timeout = '20s';
CREATE FUNCTION pg_temp.planned(asked text) RETURNS text LANGUAGE plpgsql AS $body$
DECLARE
  most int := coalesce((SELECT max((m.found)[1]::int) FROM regexp_matches(asked, '\$([0-9]{1,4})', 'g') AS m (found)), 0);
  found text;
  path text;
BEGIN
  -- As the application has it, as far as its role and its database say so; then everything that there is.
  FOR path IN
    SELECT DISTINCT ON (p) p FROM (
      SELECT 1 AS n, string_agg(DISTINCT substr(c, 13), ', ') AS p FROM pg_db_role_setting, unnest(setconfig) c
      WHERE c LIKE 'search_path=%' AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      UNION ALL SELECT 2, reset_val FROM pg_settings WHERE name = 'search_path'
      UNION ALL SELECT 3, (SELECT string_agg(quote_ident(nspname), ', ' ORDER BY nspname <> 'public', nspname)
        FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')) paths
    WHERE p IS NOT NULL
  LOOP
    BEGIN
      PERFORM set_config('search_path', path, true);
      EXECUTE 'DEALLOCATE ALL';
      EXECUTE 'PREPARE switchback_asked AS ' || asked;
      EXECUTE 'EXPLAIN (FORMAT JSON) EXECUTE switchback_asked'
        || CASE WHEN most = 0 THEN '' ELSE '(' || repeat('NULL, ', most - 1) || 'NULL)' END INTO found;
      EXIT;
    EXCEPTION WHEN OTHERS THEN
      found := NULL;
    END;
  END LOOP;
  RETURN found;
END $body$;
