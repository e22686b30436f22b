-- What belongs to the cluster and not to a database. Lines: o kind, name, parent, definition.
-- Passwords and the values of settings leave the server as digests only.
COPY (
  SELECT 'o', kind, name, NULL::text, definition FROM (
    SELECT 'role' AS kind, format('%I', rolname) AS name,
           concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN NOT rolinherit THEN 'noinherit' END,
             CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolcreatedb THEN 'createdb' END,
             CASE WHEN rolcanlogin THEN 'login' ELSE 'nologin' END, CASE WHEN rolreplication THEN 'replication' END,
             CASE WHEN rolbypassrls THEN 'bypassrls' END,
             CASE WHEN rolconnlimit >= 0 THEN 'connection limit ' || rolconnlimit END,
             'valid until ' || rolvaliduntil) AS definition
    FROM pg_roles WHERE rolname !~ '^pg_'
    UNION ALL
    SELECT 'membership', format('%I in %I by %I', pg_get_userbyid(m.member), pg_get_userbyid(m.roleid), pg_get_userbyid(m.grantor)),
           concat_ws(', ', 'member', CASE WHEN m.admin_option THEN 'admin' END,
             CASE WHEN to_jsonb(m)->>'inherit_option' = 'false' THEN 'without inherit' END,
             CASE WHEN to_jsonb(m)->>'set_option' = 'false' THEN 'without set' END)
    FROM pg_auth_members m WHERE pg_get_userbyid(m.member) !~ '^pg_'
    UNION ALL
    SELECT 'setting', format('%s of %s in %s', split_part(c, '=', 1),
             CASE WHEN s.setrole = 0 THEN 'all roles' ELSE quote_ident(pg_get_userbyid(s.setrole)) END,
             coalesce((SELECT quote_ident(datname) FROM pg_database WHERE oid = s.setdatabase), 'all databases')),
           encode(sha256(convert_to(c, getdatabaseencoding())), 'hex')
    FROM pg_db_role_setting s, unnest(s.setconfig) c
    UNION ALL
    SELECT 'database', format('%I', d.datname),
           concat_ws(', ', 'owner ' || pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), 'collate ' || d.datcollate,
             'ctype ' || d.datctype, 'provider ' || (to_jsonb(d)->>'datlocprovider'),
             'locale ' || coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
             CASE WHEN d.datconnlimit >= 0 THEN 'connection limit ' || d.datconnlimit END,
             CASE WHEN NOT d.datallowconn THEN 'closed' END, CASE WHEN d.datistemplate THEN 'template' END,
             'tablespace ' || (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace),
             'privileges ' || (SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE "C") FROM unnest(d.datacl) a))
    FROM pg_database d
    UNION ALL
    SELECT 'tablespace', format('%I', spcname), concat_ws(', ', 'owner ' || pg_get_userbyid(spcowner),
             'options ' || array_to_string(spcoptions, ' '),
             'privileges ' || (SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE "C") FROM unnest(spcacl) a))
    FROM pg_tablespace
    UNION ALL
    SELECT 'comment', 'database or role ' || coalesce(
             (SELECT datname::text FROM pg_database WHERE oid = objoid AND classoid = 'pg_database'::regclass),
             (SELECT rolname::text FROM pg_roles WHERE oid = objoid), objoid::text), description
    FROM pg_shdescription WHERE objoid >= 16384
  ) objects
) TO STDOUT;
SELECT $sql$
COPY (
  SELECT 'o', 'password', format('%I', rolname), NULL::text, encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex')
  FROM pg_authid WHERE rolpassword IS NOT NULL
) TO STDOUT
$sql$ WHERE has_table_privilege('pg_catalog.pg_authid', 'SELECT')
\gexec
