-- Policies of one's own, beside the shipped ones or instead of them. Policies on an extension's tables are in no dump;
-- rows are, and restoring one creates its policy again.

CREATE FUNCTION storage.operation() RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN storage_private.asked_operation();
COMMENT ON FUNCTION storage.operation() IS
'What is asking, for policies: sign while download_url(), download_urls(), files_download_url() and public_url() look for the file, and an upload for bytes to share; upload while a request is inserted, and while confirm_upload(), abort_upload() and their like look for it to end it; list while a listing function looks for files; else read, as in every statement of the caller''s own. INSERT, UPDATE and DELETE are told apart by the command of the policy. Nobody can set it.';

CREATE TABLE storage_private.policies (
    name       text PRIMARY KEY,
    target     text NOT NULL,
    command    text NOT NULL,
    using_expr text,
    check_expr text,
    roles      regrole[] NOT NULL
);
COMMENT ON TABLE storage_private.policies IS 'The policies made by storage.add_policy(), dumped so that a restore makes them again.';
COMMENT ON COLUMN storage_private.policies.name IS 'Of the policy.';
COMMENT ON COLUMN storage_private.policies.target IS 'The table in the schema storage.';
COMMENT ON COLUMN storage_private.policies.command IS 'read, list, sign, upload, move or delete.';
COMMENT ON COLUMN storage_private.policies.using_expr IS 'Which rows there are for it; NULL for upload.';
COMMENT ON COLUMN storage_private.policies.check_expr IS 'Which rows may come to be; NULL: as using_expr.';
-- Not their names: a role that was renamed keeps its policies, and another one that got its name has none.
COMMENT ON COLUMN storage_private.policies.roles IS 'Whom it is for; - is PUBLIC.';

CREATE FUNCTION storage_private.in_force(p storage_private.policies) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_policy o JOIN pg_class c ON c.oid = o.polrelid
                   WHERE c.relnamespace = 'storage'::regnamespace AND c.relname = p.target AND o.polname = p.name
                     AND o.polroles = p.roles::oid[])
$$;
COMMENT ON FUNCTION storage_private.in_force(storage_private.policies) IS
'Whether a policy is there as it is recorded; it is not when it went with a function it named or with a role.';

-- What is not in force stays away after a restore as well, when other roles may have the numbers of those that are gone.
SELECT pg_catalog.pg_extension_config_dump('storage_private.policies', 'WHERE storage_private.in_force(policies)');

CREATE FUNCTION storage_private.policies_not_in_force() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.name FROM storage_private.policies p WHERE NOT storage_private.in_force(p) ORDER BY p.name
$$;
COMMENT ON FUNCTION storage_private.policies_not_in_force() IS 'Policies made by storage.add_policy() that something else dropped or changed.';

CREATE FUNCTION storage_private.policy_command(target text, command text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.sql
    FROM (VALUES ('read', 'SELECT', NULL),
                 ('list', 'SELECT', '{files}'),
                 ('sign', 'SELECT', '{files}'),
                 ('upload', 'INSERT', '{upload_requests,buckets,tenant_settings}'),
                 ('move', 'UPDATE', '{files,buckets,tenant_settings,events}'),
                 -- What ends a request is no statement of whoever asks for it.
                 ('move', 'SELECT', '{upload_requests}'),
                 ('delete', 'DELETE', '{files,upload_requests,buckets,tenant_settings}')) AS c(command, sql, targets)
    JOIN pg_class t ON t.relnamespace = 'storage'::regnamespace AND t.relkind = 'r'
    WHERE c.command = $2 AND t.relname = $1 AND (c.targets IS NULL OR $1 = ANY (c.targets::text[]))
$$;
COMMENT ON FUNCTION storage_private.policy_command(text, text) IS
'The SQL command that a policy of this command on this table is for; NULL: there is no such policy.';

-- Each expression has been read alone, so that none ends the parenthesis it is in.
CREATE FUNCTION storage_private.create_own_policy(p storage_private.policies) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Of files, seeing the row is one thing, and finding it in a listing or reading its bytes another; of requests,
    -- ending those of others.
    asked text := CASE WHEN p.target = 'files' AND p.command = 'read' THEN '(SELECT storage.operation()) NOT IN (''list'', ''sign'') AND '
                       WHEN p.command IN ('list', 'sign') THEN format('(SELECT storage.operation()) = %L AND ', p.command)
                       WHEN p.target = 'upload_requests' AND p.command = 'move' THEN '(SELECT storage.operation()) = ''upload'' AND '
                       WHEN p.target = 'upload_requests' AND p.command = 'read'
                       THEN '((SELECT storage.operation()) <> ''upload'' OR tenant_id = (SELECT storage.current_tenant_id())'
                            ' AND owner_id = (SELECT storage.current_user_id())) AND '
                       ELSE '' END;
BEGIN
    PERFORM storage_private.validate_expression(e) FROM unnest(ARRAY[p.using_expr, p.check_expr]) e WHERE e IS NOT NULL;
    EXECUTE format('CREATE POLICY %I ON storage.%I FOR %s TO %s', p.name, p.target,
                   storage_private.policy_command(p.target, p.command),
                   (SELECT string_agg(CASE r::oid WHEN 0 THEN 'PUBLIC' ELSE r::text END, ', ') FROM unnest(p.roles) r))
         -- On lines of their own, because an expression may end in a comment.
         || coalesce(' USING (' || asked || '(' || p.using_expr || E'\n))', '')
         || coalesce(' WITH CHECK (' || p.check_expr || E'\n)', '');
END $$;
COMMENT ON FUNCTION storage_private.create_own_policy(storage_private.policies) IS 'Creates a policy as it is recorded.';

CREATE FUNCTION storage_private.apply_policy() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format('DROP POLICY IF EXISTS %I ON storage.%I', OLD.name, OLD.target);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM storage_private.create_own_policy(NEW);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.apply_policy() IS 'Trigger: what is recorded is in force, also after a restore.';

CREATE TRIGGER apply_policy AFTER INSERT OR UPDATE OR DELETE ON storage_private.policies
FOR EACH ROW EXECUTE FUNCTION storage_private.apply_policy();

CREATE FUNCTION storage.add_policy(
    name       text,
    target     text,
    command    text,
    using_expr text DEFAULT NULL,
    check_expr text DEFAULT NULL,
    roles      name[] DEFAULT '{public}'
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing text;
BEGIN
    IF name IS NULL OR octet_length(name) NOT BETWEEN 1 AND 63 OR name ~ '^(default_|bucket_not_deleted$)' THEN
        PERFORM storage_private.refuse('INVALID_POLICY', 'that is no name for a policy of one''s own', format('Name %L.', name),
            'Names have 1 to 63 bytes; default_... and bucket_not_deleted are the extension''s.');
    ELSIF storage_private.policy_command(target, command) IS NULL THEN
        PERFORM storage_private.refuse('INVALID_POLICY', 'there is no such policy', format('Command %L on %L.', command, target),
            'read: every table; list, sign: files; upload: upload_requests, buckets, tenant_settings; '
            'move: files, upload_requests, buckets, tenant_settings, events; delete: files, upload_requests, buckets, tenant_settings.');
    ELSIF (command = 'upload') <> (using_expr IS NULL) OR (command = 'upload' AND check_expr IS NULL)
          OR ((command NOT IN ('upload', 'move') OR (target, command) = ('upload_requests', 'move')) AND check_expr IS NOT NULL) THEN
        PERFORM storage_private.refuse('INVALID_POLICY', 'the policy has not the expressions that its command takes',
            format('Command %L.', command), 'upload takes check_expr; move takes using_expr and, but for upload_requests, may take check_expr; the others take using_expr.');
    END IF;
    SELECT string_agg(quote_nullable(r), ', ') INTO missing FROM unnest(coalesce(nullif(roles, '{}'), '{NULL}')) r
    WHERE r IS NULL OR (r <> 'public' AND NOT EXISTS (SELECT FROM pg_roles a WHERE a.rolname = r));
    IF missing IS NOT NULL THEN
        PERFORM storage_private.refuse('INVALID_POLICY', 'a policy is for roles that exist', format('Missing: %s.', missing),
            'public is everybody.');
    END IF;
    INSERT INTO storage_private.policies
    VALUES (name, target, command, using_expr, check_expr,
            CASE WHEN 'public' = ANY (roles) THEN '{-}'
                 ELSE ARRAY(SELECT a.oid FROM pg_roles a WHERE a.rolname = ANY (roles) ORDER BY a.oid)::regrole[] END);
EXCEPTION
    WHEN unique_violation OR duplicate_object THEN
        PERFORM storage_private.refuse('POLICY_EXISTS', 'a policy of this name exists', SQLERRM,
            'Choose another name, or call storage.drop_policy() first.');
    WHEN syntax_error_or_access_rule_violation THEN
        PERFORM storage_private.refuse('INVALID_POLICY', 'PostgreSQL refuses the policy', SQLERRM,
            'Names in expressions are qualified, except those of pg_catalog and the table''s columns.');
END $$;
COMMENT ON FUNCTION storage.add_policy(text, text, text, text, text, name[]) IS
'Makes a policy that allows more, recorded so that dump and restore carry it. target: a table of the schema storage. command: read (see rows; of files neither list them by a listing function nor sign), list and sign (files alone: appear in listings; be given a URL), upload (INSERT: into upload_requests the permission to upload, into buckets that to make them), move (UPDATE: rename files, change buckets; of upload_requests confirm and abort those of others) or delete (DELETE). Changing or deleting a row takes read as well. using_expr: which rows; check_expr: which rows may come to be (upload, and move where it differs). Expressions are SQL over the table''s columns, with names qualified beyond pg_catalog; what they call runs with the rights of whoever asks. roles: whom it is for; public is everybody. storage.operation() says what is asking. The shipped policies stay beside it: see storage.enable_default_policies(). A restore needs the roles to exist. For the extension''s owner. Errors: INVALID_POLICY, POLICY_EXISTS.';

CREATE FUNCTION storage.drop_policy(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM storage_private.policies p WHERE p.name = drop_policy.name;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('POLICY_NOT_FOUND', 'no such policy', format('Asked for %L.', drop_policy.name),
            'storage_private.policies lists those that storage.add_policy() made.');
    END IF;
END $$;
COMMENT ON FUNCTION storage.drop_policy(text) IS
'Drops a policy that storage.add_policy() made. For the extension''s owner. Errors: POLICY_NOT_FOUND.';
