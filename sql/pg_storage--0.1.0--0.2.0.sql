-- From 0.1.0 to 0.2.0. The result equals a fresh 0.2.0 in every member, definition, privilege and comment, which
-- tests/tests/upgrade proves; CONTRIBUTING.md says how to extend it.
\echo Use "ALTER EXTENSION pg_storage UPDATE" to load this file. \quit

-- Policies of one's own.

CREATE FUNCTION storage_private.validate_expression(expression text) RETURNS void
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'validate_expression_wrapper';
COMMENT ON FUNCTION storage_private.validate_expression(text) IS 'Refuses a text that is not one SQL expression, without looking anything up or running it.';

CREATE FUNCTION storage_private.asked_operation() RETURNS text
STRICT STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'asked_operation_wrapper';
COMMENT ON FUNCTION storage_private.asked_operation() IS 'What is asking: read, list, sign or upload.';

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
COMMENT ON TRIGGER apply_policy ON storage_private.policies IS 'Makes, changes and drops the policy that a row says, in a restore too.';

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

-- The identity may be the role's.

COMMENT ON FUNCTION storage.current_user_id() IS
'The caller''s user id: the setting named by pg_storage.user_id_setting (PostGraphile: jwt.claims.user_id); when empty, sub of the JSON in request.jwt.claims (PostgREST); when absent too, the role''s name. With pg_storage.identity_source = role it is the current role''s name, whatever the claims say. Fails with TENANT_REQUIRED when that JSON cannot be read.';
COMMENT ON FUNCTION storage.current_tenant_id() IS
'The caller''s tenant: the setting named by pg_storage.tenant_id_setting (PostGraphile: jwt.claims.tenant_id); when empty, tenant_id of the JSON in request.jwt.claims; when absent too, pg_storage.default_tenant. With pg_storage.identity_source = role it is pg_storage.tenant, else pg_storage.default_tenant. Fails with TENANT_REQUIRED when that is empty, or when that JSON cannot be read.';

-- Many uploads in one call.

COMMENT ON COLUMN storage.upload_ticket.method IS 'HTTP method to send the body with.';

CREATE TYPE storage.upload_spec AS (
    filename     text,
    content_type text,
    size         bigint,
    sha256       text,
    path         text,
    metadata     jsonb
);
COMMENT ON TYPE storage.upload_spec IS
'One file to be uploaded, among those of request_upload_urls(); each field is as the parameter of request_upload_url() with its name.';
COMMENT ON COLUMN storage.upload_spec.filename IS 'Name of the file.';
COMMENT ON COLUMN storage.upload_spec.content_type IS 'Its MIME type.';
COMMENT ON COLUMN storage.upload_spec.size IS 'Bytes, exact.';
COMMENT ON COLUMN storage.upload_spec.sha256 IS '64 lower-case hex, or NULL.';
COMMENT ON COLUMN storage.upload_spec.path IS 'Path in the bucket, or NULL.';
COMMENT ON COLUMN storage.upload_spec.metadata IS 'A JSON object; NULL: an empty one.';

CREATE OR REPLACE FUNCTION storage.download_urls(
    file_ids   uuid[],
    expires_in interval DEFAULT NULL,
    attachment boolean DEFAULT true
) RETURNS SETOF storage.signed_url
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.* FROM storage_private.sign_downloads(file_ids, expires_in, attachment, NULL) s;
END;

CREATE FUNCTION storage_private.open_uploads(
    bucket text, filenames text[], content_types text[], sizes bigint[], sha256s text[], paths text[], metadata jsonb[]
) RETURNS TABLE (upload_id uuid, file_id uuid, deduplicated boolean, method text, url text, headers jsonb, expires_at timestamptz)
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'open_uploads_wrapper';
COMMENT ON FUNCTION storage_private.open_uploads(text, text[], text[], bigint[], text[], text[], jsonb[]) IS
'Inserts many upload requests as the caller, all or none, and gives their tickets in the same order. The lists say the same of the same file at the same place.';

CREATE FUNCTION storage_private.confirm_all(upload_ids uuid[]) RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'confirm_all_wrapper';
COMMENT ON FUNCTION storage_private.confirm_all(uuid[]) IS
'Asks the store what arrived and settles uploads, all of which the caller can see. Errors: UPLOAD_NOT_FOUND.';

-- Whoever settles many holds what the settlement of one would ask for one after the other: first all of the one kind, then
-- all of the other, each in the order of the keys. Two who do so wait for each other's end, and never both.
CREATE FUNCTION storage_private.lock_paths(buckets uuid[], paths text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lock_name text;
BEGIN
    FOR lock_name IN
        SELECT DISTINCT (p.bucket || '/' || p.path) COLLATE "C"
        FROM unnest(buckets, paths) AS p(bucket, path) WHERE p.path IS NOT NULL ORDER BY 1
    LOOP
        PERFORM storage_private.hold_lock('path', lock_name);
    END LOOP;
END $$;
COMMENT ON FUNCTION storage_private.lock_paths(uuid[], text[]) IS 'The locks of finish_upload() for many files, in the order of their keys.';

CREATE FUNCTION storage_private.lock_settlement(upload_ids uuid[], hashes bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lock_name text;
BEGIN
    FOR lock_name IN
        SELECT DISTINCT (encode(v.sha256, 'hex') || b.tenant_id) COLLATE "C"
        FROM unnest(upload_ids, hashes) AS v(id, sha256)
        JOIN storage.upload_requests u ON u.id = v.id JOIN storage.buckets b ON b.id = u.bucket_id
        WHERE b.dedup <> 'off' AND b.access <> 'temp' ORDER BY 1
    LOOP
        PERFORM storage_private.hold_lock('bytes', lock_name);
    END LOOP;
    PERFORM storage_private.lock_paths(array_agg(u.bucket_id), array_agg(u.path)) FROM storage.upload_requests u WHERE u.id = ANY (upload_ids);
END $$;
COMMENT ON FUNCTION storage_private.lock_settlement(uuid[], bytea[]) IS
'The locks of accept_upload() for many uploads with verified bytes, in one order for all who ask.';

CREATE FUNCTION storage.request_upload_urls(bucket text, files storage.upload_spec[]) RETURNS SETOF storage.upload_ticket
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT o.*
        FROM (SELECT array_agg(f.filename ORDER BY f.place) AS filenames, array_agg(f.content_type ORDER BY f.place) AS content_types,
                     array_agg(f.size ORDER BY f.place) AS sizes, array_agg(f.sha256 ORDER BY f.place) AS sha256s,
                     array_agg(f.path ORDER BY f.place) AS paths, array_agg(f.metadata ORDER BY f.place) AS metadata
              FROM unnest(files) WITH ORDINALITY AS f(filename, content_type, size, sha256, path, metadata, place)) f,
             LATERAL storage_private.open_uploads(bucket, f.filenames, f.content_types, f.sizes, f.sha256s,
                                                  f.paths, f.metadata) o;
END $$;
COMMENT ON FUNCTION storage.request_upload_urls(text, storage.upload_spec[]) IS
'Tickets to upload many files to one bucket, in input order, all or none. bucket: as for request_upload_url(). files: each as the parameters of request_upload_url(); the same sha256 may be there twice, the same path may not. Errors: those of request_upload_url() with the file''s place in the list in DETAIL, BULK_UPLOAD_FILES_EXCEEDED (more files than pg_storage.max_bulk_files), BULK_UPLOAD_SIZE_EXCEEDED (more bytes than pg_storage.max_bulk_size), PATH_TAKEN also for a path that is there twice. Limits count each file.';

CREATE FUNCTION storage.confirm_uploads(upload_ids uuid[]) RETURNS SETOF storage.upload_requests
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.confirm_all(upload_ids);
    RETURN QUERY
        SELECT u.* FROM unnest(upload_ids) WITH ORDINALITY AS asked(id, place) JOIN storage.upload_requests u ON u.id = asked.id
        ORDER BY asked.place;
END $$;
COMMENT ON FUNCTION storage.confirm_uploads(uuid[]) IS
'Confirms many uploads as confirm_upload() does, asking the store about many at once, and gives one row for each id in input order; verdicts are values, each upload''s own. When one id is unknown, the store cannot be asked about one, or another user''s file has come to the path of one, nothing is settled, and DETAIL names it. Errors: those of confirm_upload(), BULK_UPLOAD_FILES_EXCEEDED (more ids than pg_storage.max_bulk_files).';

-- Uploads by form and in parts.

CREATE TYPE storage.upload_form AS (
    upload_id  uuid,
    file_id    uuid,
    url        text,
    fields     jsonb,
    expires_at timestamptz
);
COMMENT ON TYPE storage.upload_form IS
'What a client needs to upload by form: POST these fields, and after them the file in a field named file, as multipart/form-data to url before expires_at, then confirm upload_id.';
COMMENT ON COLUMN storage.upload_form.upload_id IS 'What to confirm or abort.';
COMMENT ON COLUMN storage.upload_form.file_id IS 'The id the file has once the upload is confirmed.';
COMMENT ON COLUMN storage.upload_form.url IS 'Where to post it.';
COMMENT ON COLUMN storage.upload_form.fields IS 'The fields of the form, exactly these; name to value. Whoever holds them may upload.';
COMMENT ON COLUMN storage.upload_form.expires_at IS 'When the form ends.';

CREATE TYPE storage.multipart_ticket AS (
    upload_id    uuid,
    file_id      uuid,
    deduplicated boolean,
    part_size    bigint,
    part_count   integer,
    expires_at   timestamptz
);
COMMENT ON TYPE storage.multipart_ticket IS
'An upload in parts: sign_upload_parts() gives their URLs. When deduplicated, the file exists already and the rest is NULL.';
COMMENT ON COLUMN storage.multipart_ticket.upload_id IS 'What to sign parts of, to confirm or to abort; nothing else is needed to resume.';
COMMENT ON COLUMN storage.multipart_ticket.file_id IS 'The id the file has once the upload is confirmed; has at once when deduplicated.';
COMMENT ON COLUMN storage.multipart_ticket.deduplicated IS 'True: the bytes were there already, the file exists, nothing is to be sent.';
COMMENT ON COLUMN storage.multipart_ticket.part_size IS 'Bytes of each part but the last.';
COMMENT ON COLUMN storage.multipart_ticket.part_count IS 'How many parts there are; they are numbered from 1.';
COMMENT ON COLUMN storage.multipart_ticket.expires_at IS 'When the request ends, and with it every URL of its parts.';

CREATE TYPE storage.signed_part AS (
    part_number integer,
    first_byte  bigint,
    size        bigint,
    method      text,
    url         text,
    headers     jsonb,
    expires_at  timestamptz
);
COMMENT ON TYPE storage.signed_part IS
'Where to send one part: size bytes of the file from first_byte on, with method to url with exactly these headers.';
COMMENT ON COLUMN storage.signed_part.part_number IS 'Its number, from 1.';
COMMENT ON COLUMN storage.signed_part.first_byte IS 'Where it begins in the file, from 0.';
COMMENT ON COLUMN storage.signed_part.size IS 'Its bytes, exact.';
COMMENT ON COLUMN storage.signed_part.method IS 'PUT.';
COMMENT ON COLUMN storage.signed_part.url IS 'Where to send it; whoever holds it may send the part, also again.';
COMMENT ON COLUMN storage.signed_part.headers IS 'The headers to send, exactly these; name to value.';
COMMENT ON COLUMN storage.signed_part.expires_at IS 'When the URL ends.';

CREATE TYPE storage.upload_part AS (
    part_number integer,
    first_byte  bigint,
    size        bigint,
    uploaded    boolean,
    etag        text,
    sha256      text
);
COMMENT ON TYPE storage.upload_part IS 'One part of an upload, and whether the store has it.';
COMMENT ON COLUMN storage.upload_part.part_number IS 'Its number, from 1.';
COMMENT ON COLUMN storage.upload_part.first_byte IS 'Where it begins in the file, from 0.';
COMMENT ON COLUMN storage.upload_part.size IS 'Its bytes.';
COMMENT ON COLUMN storage.upload_part.uploaded IS 'Whether the store has it in this size; true for all once the store has made them one object.';
COMMENT ON COLUMN storage.upload_part.etag IS 'The store''s entity tag of what it has, mostly the MD5 of the part; else NULL.';
COMMENT ON COLUMN storage.upload_part.sha256 IS 'The SHA-256 that it was sent with, 64 lower-case hex, where the store tells it.';

ALTER TABLE storage.upload_requests
    ADD COLUMN part_size bigint, ADD COLUMN part_sums boolean, ADD COLUMN multipart_id text,
    DROP CONSTRAINT upload_requests_method_check,
    ADD CONSTRAINT upload_requests_method_check CHECK (method IN ('PUT', 'POST', 'MULTIPART')),
    ADD CONSTRAINT upload_requests_parts CHECK ((method = 'MULTIPART') = (num_nulls(part_size, multipart_id) = 0));
COMMENT ON COLUMN storage.upload_requests.method IS 'PUT: one URL; POST: a form, and size is the most it takes; MULTIPART: in parts.';
COMMENT ON COLUMN storage.upload_requests.part_size IS 'Bytes of each part but the last, of an upload in parts; else NULL.';
COMMENT ON COLUMN storage.upload_requests.part_sums IS 'True: each part is sent with its SHA-256, which the store enforces; false: it was asked for, and the store does not; NULL: it was not asked for.';
COMMENT ON COLUMN storage.upload_requests.multipart_id IS 'What the store calls an upload in parts; else NULL. It permits nothing without a signature.';
ALTER TABLE storage.object_deletions ADD COLUMN multipart_id text;
COMMENT ON COLUMN storage.object_deletions.multipart_id IS 'The upload in parts that is to be aborted as well; NULL: none.';

CREATE OR REPLACE FUNCTION storage_private.close_upload(
    upload_id uuid, status storage.upload_status, reason text, details text, copied_key text
) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH closed AS (
        UPDATE storage.upload_requests u SET status = $2, reason = $3, details = $4, finished_at = clock_timestamp()
        WHERE u.id = $1 AND u.status = 'requested'
        RETURNING u.physical_name, u.object_key, u.expires_at, u.multipart_id
    )
    -- What confirmations copied that were rolled back or gave up, reconciliation finds: each has a key of its own.
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before, multipart_id)
    SELECT c.physical_name, k.key, 'upload ' || $2::text, d.due, k.multipart_id
    FROM closed c
    CROSS JOIN LATERAL (VALUES (c.object_key, c.multipart_id), ($5, NULL)) AS k(key, multipart_id)
    CROSS JOIN LATERAL storage_private.sweep_times(c.expires_at) AS d(due)
    WHERE k.key IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION storage_private.queue_deleted_requests() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before, multipart_id)
    SELECT gone.physical_name, gone.object_key, 'upload request deleted',
           -- The bytes of a file that was deleted just before stay as long as those of any other.
           CASE WHEN gone.status = 'uploaded' THEN greatest(d.due, clock_timestamp() + storage_private.deletion_delay()) ELSE d.due END,
           gone.multipart_id
    FROM gone
    CROSS JOIN LATERAL storage_private.sweep_times(gone.expires_at) AS d(due)
    -- What ended was queued when it did, and nothing more arrives once its URL is over.
    WHERE gone.object_key IS NOT NULL
      AND (gone.status = 'requested' OR gone.expires_at + interval '1 hour' > clock_timestamp());
    RETURN NULL;
END $$;

-- A row begins as an upload by PUT, and becomes another before the call that made it ends.
CREATE FUNCTION storage_private.place_form(upload_id uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u SET method = 'POST', direct = false, create_only = false WHERE u.id = $1
$$;
COMMENT ON FUNCTION storage_private.place_form(uuid) IS 'Makes a request one by form.';

-- No URL names the key: each permits a part of this one upload. So the object stays where the parts become one.
CREATE FUNCTION storage_private.place_multipart(upload_id uuid, multipart_id text, part_size bigint, part_sums boolean) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u
    SET method = 'MULTIPART', object_key = u.final_key, direct = true, create_only = false,
        multipart_id = $2, part_size = $3, part_sums = $4
    WHERE u.id = $1
$$;
COMMENT ON FUNCTION storage_private.place_multipart(uuid, text, bigint, boolean) IS 'Makes a request one in parts, which the store has begun.';

CREATE FUNCTION storage_private.open_form(
    bucket text, filename text, content_type text, max_size bigint, path text, metadata jsonb, expires_in interval
) RETURNS storage.upload_form
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'open_form_wrapper';
COMMENT ON FUNCTION storage_private.open_form(text, text, text, bigint, text, jsonb, interval) IS
'Inserts an upload request as the caller and gives the form for it.';

CREATE FUNCTION storage_private.open_parts(
    bucket text, filename text, content_type text, size bigint, wanted_part_size bigint, sha256 text, path text, metadata jsonb,
    expires_in interval, part_sha256s boolean
) RETURNS storage.multipart_ticket
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'open_parts_wrapper';
COMMENT ON FUNCTION storage_private.open_parts(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean) IS
'Inserts an upload request as the caller and has the store begin an upload in parts for it.';

CREATE FUNCTION storage_private.sign_parts(upload_id uuid, part_numbers integer[], sha256s text[])
RETURNS TABLE (part_number integer, first_byte bigint, size bigint, method text, url text, headers jsonb, expires_at timestamptz)
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'sign_parts_wrapper';
COMMENT ON FUNCTION storage_private.sign_parts(uuid, integer[], text[]) IS
'URLs for parts of an upload of the caller''s own, in input order.';

CREATE FUNCTION storage_private.arrived_parts(upload_id uuid)
RETURNS TABLE (part_number integer, first_byte bigint, size bigint, uploaded boolean, etag text, sha256 text)
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'arrived_parts_wrapper';
COMMENT ON FUNCTION storage_private.arrived_parts(uuid) IS
'The parts of an upload of the caller''s own, and which of them the store has.';

CREATE FUNCTION storage.request_upload_form(
    bucket       text,
    filename     text,
    content_type text,
    max_size     bigint,
    path         text DEFAULT NULL,
    metadata     jsonb DEFAULT '{}',
    expires_in   interval DEFAULT NULL
) RETURNS storage.upload_form
LANGUAGE sql VOLATILE
RETURN storage_private.open_form(bucket, filename, content_type, max_size, path, metadata, expires_in);
COMMENT ON FUNCTION storage.request_upload_form(text, text, text, bigint, text, jsonb, interval) IS
'A form by which a browser uploads one file whose size is not known yet. max_size: bytes; the store takes from one to so many, and limits count so many until the upload is confirmed. The rest is as for request_upload_url(). A form binds no hash: confirming computes it. Errors: those of request_upload_url(); NOT_CONFIGURED on a store that was not seen to keep to its forms, see check().';

CREATE FUNCTION storage.request_multipart_upload(
    bucket       text,
    filename     text,
    content_type text,
    size         bigint,
    part_size    bigint DEFAULT NULL,
    sha256       text DEFAULT NULL,
    path         text DEFAULT NULL,
    metadata     jsonb DEFAULT '{}',
    expires_in   interval DEFAULT NULL,
    part_sha256s boolean DEFAULT false
) RETURNS storage.multipart_ticket
LANGUAGE sql VOLATILE
RETURN storage_private.open_parts(bucket, filename, content_type, size, part_size, sha256, path, metadata,
                                  expires_in, part_sha256s);
COMMENT ON FUNCTION storage.request_multipart_upload(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean) IS
'Begins an upload in parts, of a file that is too large to be sent at once. size: bytes, exact, up to 5 TiB and pg_storage.max_file_size. part_size: bytes of each part but the last, 5 MiB to 5 GiB, at most 10000 parts; NULL: one is chosen. sha256: of the whole file; confirming reads the file and holds it against this. expires_in: how long the upload may take, up to 7 days; NULL: a day. part_sha256s: each part''s SHA-256 will be given to sign_upload_parts(), and a store that enforces checksums refuses other bytes. Asks the store; what a ROLLBACK leaves there is swept. Errors: those of request_upload_url() and of the store; INVALID_PART; NOT_CONFIGURED on a store where a part could be a copy of another''s object, see check().';

CREATE FUNCTION storage.sign_upload_parts(upload_id uuid, part_numbers integer[], sha256s text[] DEFAULT NULL)
RETURNS SETOF storage.signed_part
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.require_writable();
    RETURN QUERY SELECT s.* FROM storage_private.sign_parts(upload_id, part_numbers, sha256s) s;
END $$;
COMMENT ON FUNCTION storage.sign_upload_parts(uuid, integer[], text[]) IS
'URLs to send parts of one''s own upload with, in input order; each lives as long as an upload URL of its bucket, and not longer than the request. part_numbers: from 1 to the ticket''s part_count; a part that is sent again replaces the one before. sha256s: of each of these parts, 64 lower-case hex, where request_multipart_upload() was told so; signed where the store enforces them. Errors: UPLOAD_NOT_FOUND; UPLOAD_NOT_PENDING, also for an upload that is not in parts; INVALID_PART; INVALID_CONTENT_HASH; NOT_CONFIGURED; READ_ONLY.';

CREATE FUNCTION storage.list_upload_parts(upload_id uuid) RETURNS SETOF storage.upload_part
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT p.* FROM storage_private.arrived_parts(upload_id) p;
END $$;
COMMENT ON FUNCTION storage.list_upload_parts(uuid) IS
'All parts of one''s own upload, and which of them the store has: whoever resumes sends the others. Asks the store. Errors: UPLOAD_NOT_FOUND; UPLOAD_NOT_PENDING, also for an upload that is not in parts; NOT_CONFIGURED; STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

COMMENT ON FUNCTION storage.confirm_upload(uuid) IS
'Asks the store what arrived and settles the upload; parts are made one object, which is read to hash it. The verdict is a value: status uploaded (the file exists), rejected with reason EMPTY_FILE, SIZE_MISMATCH, HASH_MISMATCH or CONTENT_TYPE_MISMATCH, expired, aborted, or still requested with reason NOT_UPLOADED. Idempotent. Errors: UPLOAD_NOT_FOUND, PATH_TAKEN, READ_ONLY, NOT_CONFIGURED, NOT_OWNER_OF_OBJECTS, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

REVOKE ALL ON FUNCTION
    storage_private.open_form(text, text, text, bigint, text, jsonb, interval),
    storage_private.open_parts(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),
    storage_private.sign_parts(uuid, integer[], text[]), storage_private.arrived_parts(uuid),
    storage_private.place_form(uuid), storage_private.place_multipart(uuid, text, bigint, boolean),
    storage.request_upload_form(text, text, text, bigint, text, jsonb, interval),
    storage.request_multipart_upload(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),
    storage.sign_upload_parts(uuid, integer[], text[]), storage.list_upload_parts(uuid)
FROM PUBLIC;
REVOKE ALL ON TYPE storage.upload_form, storage.multipart_ticket, storage.signed_part, storage.upload_part FROM PUBLIC;

-- Privileges of what is new, by name: what a script says of an object that roles were granted before, ALL FUNCTIONS IN
-- SCHEMA included, makes PostgreSQL leave their grants out of every later dump. For the same reason nothing is granted
-- here: storage.grant_access() does it for a role that has a level.

CREATE OR REPLACE FUNCTION storage_private.level_privileges(level text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF level NOT IN ('reader', 'writer', 'manager') OR level IS NULL THEN
        PERFORM storage_private.refuse('RBAC_FORBIDDEN', 'there is no such access level', format('Asked for %L.', level),
            'Levels are reader, writer and manager.');
    END IF;

    RETURN QUERY VALUES
        ('USAGE ON SCHEMA storage, storage_private'),
        -- For functions of one's own around ours; calling ours takes no right on their types.
        ('USAGE ON TYPE storage.bucket_access, storage.upload_status, storage.dedup_scope,'
         ' storage.upload_ticket, storage.upload_spec, storage.upload_form, storage.multipart_ticket, storage.signed_part,'
         ' storage.upload_part, storage.signed_url'),
        ('SELECT ON storage.buckets, storage.files, storage_private.deleted_buckets'),
        ('EXECUTE ON FUNCTION storage.current_user_id(), storage.current_tenant_id(), storage.operation(),'
         ' storage.download_url(uuid, interval, boolean, text), storage.download_urls(uuid[], interval, boolean),'
         ' storage.files_download_url(storage.files), storage.public_url(uuid)'),
        ('EXECUTE ON FUNCTION storage_private.claimed_user(), storage_private.claimed_tenant(), storage_private.asked_operation(), storage_private.is_manager(),'
         ' storage_private.refuse(text, text, text, text),'
         ' storage_private.sign_downloads(uuid[], interval, boolean, text), storage_private.unsigned_url(uuid)'),
        ('EXECUTE ON FUNCTION storage.get_file(uuid), storage_private.get(uuid),'
         ' storage.search_files(text, jsonb, integer, uuid), storage_private.search(uuid, text, integer, uuid)'),
        ('USAGE ON TYPE storage.list_order, storage.list_entry'),
        ('EXECUTE ON FUNCTION storage.list_files(text, text, text, integer, text, storage.list_order),'
         ' storage_private.find_bucket(text), storage_private.list_page(uuid, text, text, integer, text, text)');
    IF level IN ('writer', 'manager') THEN
        RETURN QUERY VALUES
            ('SELECT ON storage.upload_requests'),
            ('INSERT (bucket_id, filename, path, content_type, size, sha256, metadata, expires_in) ON storage.upload_requests'),
            ('UPDATE (filename, path, metadata) ON storage.files'),
            ('DELETE ON storage.files'),
            ('EXECUTE ON FUNCTION storage.put_file(text, text, bytea, text, text, jsonb), storage.copy_file(uuid, text, text, text),'
             ' storage.move_file(uuid, text, text), storage.set_file_access(uuid, storage.bucket_access),'
             ' storage.restore_version(uuid), storage.expire_versions(text, text, integer, interval),'
             ' storage_private.put(uuid, text, bytea, text, text, jsonb), storage_private.copy(uuid, uuid, text, text),'
             ' storage_private.relocate(uuid, uuid, text, boolean)'),
            ('EXECUTE ON FUNCTION'
             ' storage.request_upload_url(text, text, text, bigint, text, text, jsonb, interval),'
             ' storage.request_upload_urls(text, storage.upload_spec[]),'
             ' storage.request_upload_form(text, text, text, bigint, text, jsonb, interval),'
             ' storage.request_multipart_upload(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),'
             ' storage.sign_upload_parts(uuid, integer[], text[]), storage.list_upload_parts(uuid),'
             ' storage.confirm_upload(uuid), storage.confirm_uploads(uuid[]), storage.abort_upload(uuid), storage.delete_file(uuid)'),
            ('EXECUTE ON FUNCTION storage_private.require_writable(), storage_private.find_bucket(text),'
             ' storage_private.open_upload(text, text, text, bigint, text, text, jsonb, interval),'
             ' storage_private.open_uploads(text, text[], text[], bigint[], text[], text[], jsonb[]),'
             ' storage_private.open_form(text, text, text, bigint, text, jsonb, interval),'
             ' storage_private.open_parts(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),'
             ' storage_private.sign_parts(uuid, integer[], text[]), storage_private.arrived_parts(uuid),'
             ' storage_private.shareable_objects(uuid, text, bigint), storage_private.shares_with(storage.buckets, storage.buckets),'
             ' storage_private.confirm(uuid), storage_private.confirm_all(uuid[]), storage_private.abort(uuid)');
    END IF;
    IF level = 'manager' THEN
        RETURN QUERY VALUES
            ('SELECT, INSERT, UPDATE, DELETE ON storage.tenant_settings'),
            ('SELECT ON storage.physical_buckets'),
            ('INSERT (tenant_id, owner_id, key, access, is_default, allowed_mime_types, max_file_size, max_total_size, max_file_count,'
             ' allowed_origins, upload_url_ttl, download_url_ttl, file_ttl, dedup, verify_content_type, metadata) ON storage.buckets'),
            ('UPDATE (key, is_default, allowed_mime_types, max_file_size, max_total_size, max_file_count,'
             ' allowed_origins, upload_url_ttl, download_url_ttl, file_ttl, dedup, verify_content_type, metadata) ON storage.buckets'),
            ('DELETE ON storage.buckets'),
            ('EXECUTE ON FUNCTION'
             ' storage.create_bucket(text, storage.bucket_access, text, text[], bigint, text[], boolean),'
             ' storage.create_user_buckets(text), storage.delete_bucket(text, boolean), storage.provision_bucket(text),'
             ' storage.inspect_bucket(text)'),
            ('EXECUTE ON FUNCTION storage_private.seed_buckets(text, text), storage_private.mark_bucket_deleted(uuid),'
             ' storage_private.provision(uuid),'
             ' storage_private.inspect_bucket(uuid), storage_private.validate_bucket(text, text[], text[], text),'
             ' storage_private.validate_origins(text[])');
    END IF;
END $$;

REVOKE ALL ON TABLE storage_private.policies FROM PUBLIC;
REVOKE ALL ON FUNCTION
    storage_private.validate_expression(text), storage_private.asked_operation(), storage.operation(),
    storage_private.in_force(storage_private.policies), storage_private.policies_not_in_force(),
    storage_private.policy_command(text, text), storage_private.create_own_policy(storage_private.policies),
    storage_private.apply_policy(), storage.add_policy(text, text, text, text, text, name[]), storage.drop_policy(text),
    storage_private.open_uploads(text, text[], text[], bigint[], text[], text[], jsonb[]), storage_private.confirm_all(uuid[]),
    storage_private.lock_paths(uuid[], text[]), storage_private.lock_settlement(uuid[], bytea[]),
    storage.request_upload_urls(text, storage.upload_spec[]), storage.confirm_uploads(uuid[])
FROM PUBLIC;
REVOKE ALL ON TYPE storage.upload_spec FROM PUBLIC;

-- A first use that was rolled back leaves a pending record, which says nothing of whose bucket it is.

CREATE OR REPLACE FUNCTION storage_private.record_physical_name(bucket_id uuid, physical text, fixed boolean) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.buckets SET physical_name = $2
    WHERE id = (SELECT b.id FROM storage.buckets b WHERE b.id = $1 AND b.physical_name IS NULL FOR NO KEY UPDATE SKIP LOCKED)
      AND (NOT $3 OR EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = $2 AND p.provisioned_at IS NOT NULL))
$$;

-- PostGraphile names a mutation of a table as it does our function that does the same; the function is meant.

COMMENT ON TABLE storage.buckets IS E'@behavior -insert -delete\nLogical buckets. A row costs nothing: the store is not touched before the first upload.';
COMMENT ON TABLE storage.files IS E'@behavior -delete\nWhat users see: a name and metadata over one verified object. A row here always has its bytes. UPDATE of filename, path and metadata and DELETE work as usual.';
COMMENT ON TABLE storage.upload_requests IS E'@behavior -insert\nAttempts to bring bytes in. Being allowed to insert here is the permission to upload; the server fills every trusted column.';

-- Listings.

CREATE FUNCTION storage_private.list_page(bucket_id uuid, prefix text, delimiter text, page_size integer, page_token text, order_by text)
RETURNS TABLE (kind text, path text, file_id uuid, filename text, owner_id text, version integer, content_type text, size bigint,
               sha256 text, metadata text, expires_at timestamptz, created_at timestamptz, page_token text)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'list_page_wrapper';
COMMENT ON FUNCTION storage_private.list_page(uuid, text, text, integer, text, text) IS
'A page of the files of a bucket that the caller may list. Errors: INVALID_LIMIT, INVALID_DELIMITER, INVALID_PAGE_TOKEN.';
CREATE TYPE storage.list_order AS ENUM ('path', 'newest', 'largest');
COMMENT ON TYPE storage.list_order IS
'By what a listing is sorted: by the bytes of the path, with files that have none last; the newest first; or the largest first.';

CREATE TYPE storage.list_entry AS (
    kind         text,
    path         text,
    file_id      uuid,
    filename     text,
    owner_id     text,
    version      integer,
    content_type text,
    size         bigint,
    sha256       text,
    metadata     jsonb,
    expires_at   timestamptz,
    created_at   timestamptz,
    page_token   text
);
COMMENT ON TYPE storage.list_entry IS
'A file or a folder of a listing. Of a folder only kind, path and page_token have a value.';
COMMENT ON COLUMN storage.list_entry.kind IS 'file or prefix; a prefix is a folder with all that is in it.';
COMMENT ON COLUMN storage.list_entry.path IS 'The file''s path, NULL if it has none; the folder''s, up to its delimiter.';
COMMENT ON COLUMN storage.list_entry.file_id IS 'The file.';
COMMENT ON COLUMN storage.list_entry.filename IS 'Its name.';
COMMENT ON COLUMN storage.list_entry.owner_id IS 'Whose it is.';
COMMENT ON COLUMN storage.list_entry.version IS 'Which version of its path this is; the current one.';
COMMENT ON COLUMN storage.list_entry.content_type IS 'Its type.';
COMMENT ON COLUMN storage.list_entry.size IS 'Its bytes.';
COMMENT ON COLUMN storage.list_entry.sha256 IS 'Their SHA-256, 64 lower-case hex.';
COMMENT ON COLUMN storage.list_entry.metadata IS 'What was said of it.';
COMMENT ON COLUMN storage.list_entry.expires_at IS 'When it ends; NULL: never.';
COMMENT ON COLUMN storage.list_entry.created_at IS 'When it came to be.';
COMMENT ON COLUMN storage.list_entry.page_token IS 'What the next page is asked for with; NULL but on the last entry of a page that another one follows.';

-- In the order of the bytes: a listing is the same whatever the database's collation, and a prefix is a range.
CREATE INDEX files_by_path ON storage.files (bucket_id, path COLLATE "C") WHERE is_current AND path IS NOT NULL;
CREATE INDEX files_pathless ON storage.files (bucket_id, id) WHERE is_current AND path IS NULL;
CREATE INDEX files_by_time ON storage.files (bucket_id, created_at, id) WHERE is_current;
CREATE INDEX files_by_size ON storage.files (bucket_id, size, id) WHERE is_current;

CREATE FUNCTION storage.list_files(
    bucket     text,
    prefix     text DEFAULT '',
    delimiter  text DEFAULT NULL,
    page_size  integer DEFAULT 100,
    page_token text DEFAULT NULL,
    order_by   storage.list_order DEFAULT 'path'
) RETURNS SETOF storage.list_entry
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT l.kind, l.path, l.file_id, l.filename, l.owner_id, l.version, l.content_type, l.size, l.sha256, l.metadata::jsonb,
               l.expires_at, l.created_at, l.page_token
        FROM storage_private.list_page(storage_private.find_bucket(bucket), coalesce(prefix, ''), nullif(delimiter, ''),
                                                  coalesce(page_size, 100), page_token, coalesce(order_by, 'path')::text) l;
END $$;
COMMENT ON FUNCTION storage.list_files(text, text, text, integer, text, storage.list_order) IS
'A page of the current files in a bucket, as far as the caller may list them. bucket: key or id, NULL for your default. prefix: what paths begin with; files without a path have only the empty one. delimiter, such as /: files whose path has it after the prefix are summed up as one entry of kind prefix, a folder, that ends with it; NULL or empty: every file is an entry. page_size: 1 to 1000. page_token: as the last entry of the page before has it, with the other arguments unchanged; that is NULL after the last page. order_by: path (by bytes), newest or largest; below a prefix the latter two read all that is below it. Pages are positions and not offsets: what is there all the time is listed once, whatever is written meanwhile. Errors: BUCKET_NOT_FOUND, DEFAULT_BUCKET_MISSING, DEFAULT_BUCKET_AMBIGUOUS, INVALID_LIMIT, INVALID_DELIMITER, INVALID_PAGE_TOKEN.';

REVOKE ALL ON TYPE storage.list_order, storage.list_entry FROM PUBLIC;
REVOKE ALL ON FUNCTION
    storage_private.list_page(uuid, text, text, integer, text, text),
    storage.list_files(text, text, text, integer, text, storage.list_order)
FROM PUBLIC;

-- One row of a user who has many.

DROP INDEX storage.files_owner_id;
CREATE INDEX files_owner_id ON storage.files (tenant_id, owner_id, id);
DROP INDEX storage.upload_requests_owner_id;
CREATE INDEX upload_requests_owner_id ON storage.upload_requests (tenant_id, owner_id, id);

-- Paths.

CREATE FUNCTION storage_private.refuse_path(bucket uuid, taken text, upload uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.refuse('PATH_TAKEN', 'another file has this path',
        concat(format('Path %s in bucket %s.', taken, bucket), ' Upload ' || upload || '.'),
        'Choose another path; a file of yours that has it can be deleted first.');
END $$;
COMMENT ON FUNCTION storage_private.refuse_path(uuid, text, uuid) IS 'Refuses what would come to a path that another file has. upload: which of many. Errors: PATH_TAKEN.';

-- Two that come to one path would otherwise both see it free, or the same predecessor. What is over is nobody's any more,
-- and goes as in maintenance. The file itself is not locked: two that change places would wait for each other.
CREATE FUNCTION storage_private.path_holder(bucket uuid, wanted text) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder storage.files;
BEGIN
    PERFORM storage_private.hold_lock('path', bucket || '/' || wanted);
    SELECT * INTO holder FROM storage.files f WHERE f.bucket_id = bucket AND f.path = wanted AND f.is_current;
    IF holder.expires_at <= clock_timestamp() THEN
        DELETE FROM storage.files f WHERE f.id = holder.id AND f.bucket_id = bucket AND f.path = wanted;
        RETURN NULL;
    END IF;
    RETURN holder;
END $$;
COMMENT ON FUNCTION storage_private.path_holder(uuid, text) IS
'The current file at a path, to which nobody else comes until the transaction ends, though the file may go; NULL: the path is free, where need be because a file that was over has been deleted.';

CREATE OR REPLACE FUNCTION storage_private.check_path(bucket uuid, new_path text, uploader text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM storage.files f
               WHERE f.bucket_id = bucket AND f.path = new_path AND f.is_current AND f.owner_id <> uploader
                 AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())) THEN
        PERFORM storage_private.refuse_path(bucket, new_path);
    END IF;
END $$;

REVOKE ALL ON FUNCTION storage_private.refuse_path(uuid, text, uuid), storage_private.path_holder(uuid, text) FROM PUBLIC;

-- Files through SQL, copied and moved.

CREATE FUNCTION storage_private.put(bucket_id uuid, filename text, content bytea, content_type text, path text, metadata jsonb) RETURNS uuid
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'put_wrapper';
CREATE FUNCTION storage_private.get(file_id uuid) RETURNS bytea
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'get_wrapper';
CREATE FUNCTION storage_private.copy(file_id uuid, bucket_id uuid, path text, filename text) RETURNS uuid
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'copy_wrapper';
CREATE FUNCTION storage_private.relocate(file_id uuid, bucket_id uuid, path text, with_earlier boolean) RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'relocate_wrapper';
COMMENT ON FUNCTION storage_private.put(uuid, text, bytea, text, text, jsonb) IS
'Makes a file of bytes and gives its id. Errors: those of storage.put_file().';
COMMENT ON FUNCTION storage_private.get(uuid) IS
'The bytes of a file that the caller may download. Errors: those of storage.get_file().';
COMMENT ON FUNCTION storage_private.copy(uuid, uuid, text, text) IS
'Makes a second file with the bytes of one that the caller may download, and gives its id. Errors: those of storage.copy_file().';
COMMENT ON FUNCTION storage_private.relocate(uuid, uuid, text, boolean) IS
'Moves a file that the caller may change. with_earlier: the earlier versions of its path that have the same owner go first, and stay earlier. Errors: those of storage.move_file().';

CREATE FUNCTION storage_private.kept_at(file_id uuid)
RETURNS TABLE (object_id uuid, physical_name text, key text, access storage.bucket_access, verify_content_type boolean, endpoint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT o.id, o.physical_name, o.key, b.access, b.verify_content_type, p.endpoint
        FROM storage.files f
        JOIN storage.objects o ON o.id = f.object_id
        JOIN storage.buckets b ON b.id = f.bucket_id AND b.deleted_at IS NULL
        LEFT JOIN storage.physical_buckets p ON p.name = o.physical_name
        WHERE f.id = $1;
END $$;
COMMENT ON FUNCTION storage_private.kept_at(uuid) IS 'Where the bytes of a file are; nothing when its bucket is being deleted.';

CREATE FUNCTION storage_private.hold_file(file_id uuid)
RETURNS TABLE (object_id uuid, physical_name text, key text, access storage.bucket_access, verify_content_type boolean, endpoint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM storage.files f WHERE f.id = $1 FOR KEY SHARE;
    RETURN QUERY SELECT k.* FROM storage_private.kept_at($1) k;
END $$;
COMMENT ON FUNCTION storage_private.hold_file(uuid) IS 'The same, and the file is held against deletion until the transaction ends.';

CREATE FUNCTION storage_private.earlier_versions(file_id uuid) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT v.id FROM storage.files f
        JOIN storage.files v ON v.bucket_id = f.bucket_id AND v.path = f.path AND v.owner_id = f.owner_id AND NOT v.is_current
        WHERE f.id = $1 AND f.is_current AND (v.expires_at IS NULL OR v.expires_at > clock_timestamp())
        ORDER BY v.version;
END $$;
COMMENT ON FUNCTION storage_private.earlier_versions(uuid) IS
'The earlier versions of a current file that have its owner and are not over, oldest first.';

-- Whoever moves a file has been allowed to change it and to upload where it goes: the request is that upload. It goes
-- again, because it was none: its room is the file's from now on.
CREATE FUNCTION storage_private.relocate_file(file_id uuid, upload_id uuid, new_key text, new_etag text, becomes_current boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    upload storage.upload_requests;
    here storage.files;
    o storage.objects;
    b storage.buckets;
    was_public boolean;
    holder storage.files;
    latest storage.files;
    there storage.files;
    target uuid;
BEGIN
    SELECT * INTO STRICT upload FROM storage.upload_requests u WHERE u.id = upload_id;
    -- The locks of finish_upload(), for the same reasons.
    SELECT * INTO b FROM storage.buckets c WHERE c.id = upload.bucket_id AND c.deleted_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('BUCKET_NOT_FOUND', 'no such bucket', format('Asked for %L.', upload.bucket_id),
            'A bucket is named by its key or its id; storage.buckets lists those you can see.');
    END IF;
    SELECT * INTO STRICT here FROM storage.files f WHERE f.id = file_id FOR UPDATE;
    SELECT * INTO STRICT o FROM storage.objects c WHERE c.id = here.object_id;
    SELECT c.access = 'public' INTO was_public FROM storage.buckets c WHERE c.id = here.bucket_id;
    -- Before the path's lock: whoever moves the version after this one holds that and asks for the lock.
    UPDATE storage.files f SET previous_version_id = NULL WHERE f.previous_version_id = here.id;

    IF upload.path IS NOT NULL THEN
        holder := storage_private.path_holder(upload.bucket_id, upload.path);
        IF holder.id IS NOT NULL THEN
            PERFORM storage_private.refuse_path(upload.bucket_id, upload.path);
        END IF;
    END IF;

    target := o.id;
    IF new_key IS NOT NULL THEN
        INSERT INTO storage.objects (physical_name, key, bucket_id, sha256, size, content_type, etag)
        VALUES (upload.physical_name, new_key, b.id, o.sha256, o.size, o.content_type, new_etag)
        RETURNING id INTO target;
        -- What was public is so no longer, unless another file has these bytes: no delay then.
        INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
        VALUES (o.physical_name, o.key, 'file moved',
                clock_timestamp() + CASE WHEN was_public THEN interval '0' ELSE storage_private.deletion_delay() END);
    END IF;

    -- What was there before, it comes after: as an upload would.
    SELECT * INTO latest FROM storage.files v
    WHERE v.bucket_id = b.id AND v.path = upload.path ORDER BY v.version DESC LIMIT 1;
    UPDATE storage.files f
    SET tenant_id = b.tenant_id, bucket_id = b.id, object_id = target, path = upload.path, is_current = becomes_current,
        superseded_at = CASE WHEN NOT becomes_current THEN f.superseded_at END,
        version = coalesce(latest.version, 0) + 1,
        previous_version_id = CASE WHEN latest.owner_id = f.owner_id THEN latest.id END,
        expires_at = clock_timestamp() + least(b.file_ttl, CASE WHEN b.access = 'temp' THEN interval '1 day' END)
    WHERE f.id = here.id
    RETURNING * INTO there;

    -- One who follows a bucket sees it go, and one who follows the other sees it come.
    IF storage_private.event_retention() > '0' THEN
        INSERT INTO storage.events (kind, file_id, bucket_id, object_id, tenant_id, owner_id, filename, path, content_type, size)
        VALUES ('deleted', here.id, here.bucket_id, here.object_id, here.tenant_id, here.owner_id, here.filename, here.path,
                here.content_type, here.size),
               ('created', there.id, there.bucket_id, there.object_id, there.tenant_id, there.owner_id, there.filename,
                there.path, there.content_type, there.size);
    END IF;
    INSERT INTO storage_private.released_room
    SELECT r.bucket_id, 1, here.size FROM storage_private.room r WHERE r.bucket_id = here.bucket_id;

    -- Without a place it queues nothing, and ended as uploaded it releases nothing.
    UPDATE storage.upload_requests u
    SET status = 'uploaded', physical_name = NULL, object_key = NULL, final_key = NULL WHERE u.id = upload.id;
    DELETE FROM storage.upload_requests u WHERE u.id = upload.id;
END $$;
COMMENT ON FUNCTION storage_private.relocate_file(uuid, uuid, text, text, boolean) IS
'Puts a file where an upload request says, over its object or over a copy at new_key that was verified, and removes the request. becomes_current: false: it is earlier than one that comes to the path next. Errors: BUCKET_NOT_FOUND, PATH_TAKEN.';

CREATE FUNCTION storage.put_file(
    bucket       text,
    filename     text,
    content      bytea,
    content_type text,
    path         text DEFAULT NULL,
    metadata     jsonb DEFAULT '{}'
) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made uuid;
    f storage.files;
BEGIN
    PERFORM storage_private.require_writable();
    made := storage_private.put(storage_private.find_bucket(bucket), filename, content, content_type, path, coalesce(metadata, '{}'));
    SELECT * INTO f FROM storage.files WHERE id = made;
    RETURN f;
END $$;
COMMENT ON FUNCTION storage.put_file(text, text, bytea, text, text, jsonb) IS
'Makes a small file at once: the server sends its bytes to the store and waits. bucket: key or id, NULL for your default. content: 1 byte to pg_storage.max_inline_size. path: a taken one gets a next version. Policies and limits are those of an upload. After a ROLLBACK the bytes are collected. Errors: those of request_upload_url(), FILE_TOO_LARGE, UPLOAD_TYPE_MISMATCH also for what the bytes show, NOT_OWNER_OF_OBJECTS, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

CREATE FUNCTION storage.get_file(file_id uuid) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN storage_private.get(file_id);
END $$;
COMMENT ON FUNCTION storage.get_file(uuid) IS
'The bytes of a small file, up to pg_storage.max_inline_size, fetched by the server and compared with their SHA-256. Policies are asked as for a download. Errors: FILE_NOT_FOUND, FILE_TOO_LARGE, NOT_CONFIGURED, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

CREATE FUNCTION storage.copy_file(
    file_id  uuid,
    bucket   text DEFAULT NULL,
    path     text DEFAULT NULL,
    filename text DEFAULT NULL
) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made uuid;
    f storage.files;
BEGIN
    PERFORM storage_private.require_writable();
    made := storage_private.copy(file_id, CASE WHEN bucket IS NOT NULL THEN storage_private.find_bucket(bucket) END, path, filename);
    SELECT * INTO f FROM storage.files WHERE id = made;
    RETURN f;
END $$;
COMMENT ON FUNCTION storage.copy_file(uuid, text, text, text) IS
'A second file of yours with the same bytes, type and metadata. bucket: key or id; NULL: the file''s. path: of the copy; NULL: none; a taken one gets a next version. filename: NULL: the file''s. You need to be able to download the file and to upload to the bucket, whose limits count. Within a physical bucket both share the object and no bytes move; else the store copies them and they are verified. Errors: FILE_NOT_FOUND, those of request_upload_url(), NOT_OWNER_OF_OBJECTS, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

CREATE FUNCTION storage.move_file(file_id uuid, bucket text DEFAULT NULL, path text DEFAULT NULL) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f storage.files;
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.relocate(file_id, CASE WHEN bucket IS NOT NULL THEN storage_private.find_bucket(bucket) END, path, false);
    SELECT * INTO f FROM storage.files WHERE id = file_id;
    RETURN f;
END $$;
COMMENT ON FUNCTION storage.move_file(uuid, text, text) IS
'Gives a file another path, another bucket or both; it keeps its id and its owner. bucket: key or id; NULL: the file''s. path: NULL: the file''s; UPDATE of path takes it away. You need to be able to change the file, and for another bucket to download the file and to upload there, where its time begins anew. Older versions stay where they are; one that is moved itself is a file of its own there. Within a physical bucket no bytes move; else the store copies them, they are verified, and the old are removed after pg_storage.deletion_delay, those of a public bucket at once. Errors: FILE_NOT_FOUND, PATH_TAKEN, INVALID_PATH, and for another bucket those of copy_file().';

CREATE FUNCTION storage.set_file_access(file_id uuid, access storage.bucket_access) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f storage.files;
    here storage.buckets;
    candidates uuid[];
BEGIN
    PERFORM storage_private.require_writable();
    SELECT * INTO f FROM storage.files c
    WHERE c.id = file_id AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp());
    SELECT * INTO here FROM storage.buckets b WHERE b.id = f.bucket_id AND b.deleted_at IS NULL;
    IF here.access = access THEN
        RETURN f;
    END IF;
    -- Whoever may see it and not change it is told that, and nothing of buckets: locking asks the policies for UPDATE.
    PERFORM FROM storage.files c WHERE c.id = file_id AND here.id IS NOT NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('FILE_NOT_FOUND', 'no such file', format('Asked for %L.', file_id),
            'storage.files lists those you can see; only your own can be moved.');
    END IF;
    SELECT array_agg(b.id) FILTER (WHERE b.rank = 1) INTO candidates
    FROM (SELECT c.id, rank() OVER (ORDER BY c.is_default DESC, c.key = c.access::text DESC)
          FROM storage.buckets c
          WHERE c.tenant_id = here.tenant_id AND c.owner_id IS NOT DISTINCT FROM here.owner_id
            AND c.access = set_file_access.access AND c.deleted_at IS NULL) b;
    IF candidates IS NULL THEN
        PERFORM storage_private.refuse('DEFAULT_BUCKET_MISSING', 'there is no bucket of this access',
            format('Access %s, owner %s.', coalesce(access::text, 'NULL'), coalesce(quote_literal(here.owner_id), 'the tenant')),
            'storage.create_user_buckets() makes the usual three; storage.move_file() takes any bucket.');
    ELSIF cardinality(candidates) > 1 THEN
        PERFORM storage_private.refuse('DEFAULT_BUCKET_AMBIGUOUS', 'there are several buckets of this access',
            format('Candidates: %s.', array_to_string(candidates, ', ')), 'Name one to storage.move_file(), or make one the default.');
    END IF;
    -- Out of the public go its earlier versions too; into it they do not: nobody asked for those to be shown.
    PERFORM storage_private.relocate(file_id, candidates[1], NULL, here.access = 'public');
    SELECT * INTO f FROM storage.files c WHERE c.id = file_id;
    RETURN f;
END $$;
COMMENT ON FUNCTION storage.set_file_access(uuid, storage.bucket_access) IS
'Moves a file to the bucket of this access that has the same owner as its own: the default one, else the one whose key is that word, else the only one. The store copies the bytes, they are verified, and the old are removed: with those of a public bucket its public URL goes too, unless another public file has the same bytes; caches in front keep what they have. Out of a public bucket the earlier versions of its path that have the same owner go along, oldest first, each by the same move, all or none, and one for pg_storage.upload_rate: they keep their order, and none of them stays public. Into a public bucket the file goes alone: what it was before is not published. So does an earlier version that is named itself. Versions of other users stay where they are, and public, and so do those that are over until maintenance has deleted them. Nothing happens when the access is the file''s already. Errors: FILE_NOT_FOUND, DEFAULT_BUCKET_MISSING, DEFAULT_BUCKET_AMBIGUOUS, those of move_file().';

REVOKE ALL ON FUNCTION
    storage_private.put(uuid, text, bytea, text, text, jsonb), storage_private.get(uuid), storage_private.copy(uuid, uuid, text, text),
    storage_private.relocate(uuid, uuid, text, boolean), storage_private.kept_at(uuid), storage_private.hold_file(uuid),
    storage_private.earlier_versions(uuid), storage_private.relocate_file(uuid, uuid, text, text, boolean), storage.put_file(text, text, bytea, text, text, jsonb), storage.get_file(uuid),
    storage.copy_file(uuid, text, text, text), storage.move_file(uuid, text, text), storage.set_file_access(uuid, storage.bucket_access)
FROM PUBLIC;

COMMENT ON FUNCTION storage.delete_file(uuid) IS
'Deletes a file, exactly as DELETE FROM storage.files does. Its bytes leave the store after COMMIT, the last file over them and pg_storage.deletion_delay; until then a public URL answers. What has to be down at once is made private first, by storage.set_file_access(). Errors: FILE_NOT_FOUND, READ_ONLY.';

-- Versions, and search by metadata.

ALTER TABLE storage.files ADD COLUMN superseded_at timestamptz;
COMMENT ON COLUMN storage.files.filename IS 'Name offered on download; 1 to 1024 characters, no slash or control character, no extension of another type.';
COMMENT ON COLUMN storage.files.superseded_at IS 'When a later upload took the path. NULL: it is current, or that was before 0.2.0; then it does not expire by age.';

CREATE OR REPLACE FUNCTION storage_private.finish_upload(upload storage.upload_requests, object_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b storage.buckets;
    o storage.objects;
    taken storage.files;
    previous storage.files;
    made storage.files;
BEGIN
    -- The lock that the file's foreign key takes anyway, taken before looking: whoever marks the bucket as deleted waits
    -- for this transaction, or this one for him and then sees it.
    SELECT * INTO b FROM storage.buckets WHERE id = upload.bucket_id AND deleted_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('UPLOAD_NOT_FOUND', 'no such upload', format('Asked for %L.', upload.id),
            'storage.upload_requests lists your uploads.');
    END IF;
    SELECT * INTO STRICT o FROM storage.objects WHERE id = object_id;

    IF upload.path IS NOT NULL THEN
        taken := storage_private.path_holder(upload.bucket_id, upload.path);
        -- Where it is just going, this waits to see whether it does.
        SELECT * INTO taken FROM storage.files f
        WHERE f.id = taken.id AND f.bucket_id = upload.bucket_id AND f.path = upload.path FOR NO KEY UPDATE;
        IF taken.owner_id <> upload.owner_id THEN
            PERFORM storage_private.refuse_path(upload.bucket_id, upload.path, upload.id);
        END IF;
        UPDATE storage.files f SET is_current = false, superseded_at = clock_timestamp() WHERE f.id = taken.id;
        -- Numbers go on from the highest that is left, also when the current version was deleted.
        SELECT * INTO previous FROM storage.files f
        WHERE f.bucket_id = upload.bucket_id AND f.path = upload.path ORDER BY f.version DESC LIMIT 1;
    END IF;

    INSERT INTO storage.files (id, tenant_id, bucket_id, object_id, owner_id, filename, path, version,
                               previous_version_id, content_type, size, sha256, metadata, expires_at, created_at)
    VALUES (upload.file_id, upload.tenant_id, upload.bucket_id, o.id, upload.owner_id, upload.filename, upload.path,
            coalesce(previous.version, 0) + 1, CASE WHEN previous.owner_id = upload.owner_id THEN previous.id END, o.content_type, o.size, encode(o.sha256, 'hex'),
            upload.metadata,
            upload.created_at + least(b.file_ttl, CASE WHEN b.access = 'temp' THEN interval '1 day' END),
            clock_timestamp())
    RETURNING * INTO made;

    -- Here and in no trigger on files: a restored dump would fire that for every file once more.
    IF storage_private.event_retention() > '0' THEN
        INSERT INTO storage.events (kind, file_id, upload_id, bucket_id, object_id, tenant_id, owner_id, filename, path,
                                    content_type, size)
        VALUES ('created', made.id, upload.id, made.bucket_id, made.object_id, made.tenant_id, made.owner_id, made.filename,
                made.path, made.content_type, made.size);
    END IF;

    UPDATE storage.upload_requests u SET status = 'uploaded', reason = NULL, finished_at = clock_timestamp()
    WHERE u.id = upload.id;
END $$;

CREATE FUNCTION storage_private.validate_rename(filename text, content_type text) RETURNS void
STABLE STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'validate_rename_wrapper';
COMMENT ON FUNCTION storage_private.validate_rename(text, text) IS
'Refuses a file name whose extension contradicts the file''s type. Errors: UPLOAD_TYPE_MISMATCH.';

-- Definer: a path may be taken by a file that the caller cannot see.
CREATE OR REPLACE FUNCTION storage_private.check_file() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder storage.files;
    latest storage.files;
BEGIN
    -- The rules were others once: what it has already, it keeps.
    PERFORM storage_private.validate_file(NEW.filename, CASE WHEN NEW.path IS DISTINCT FROM OLD.path THEN NEW.path END);
    IF NEW.filename IS DISTINCT FROM OLD.filename THEN
        PERFORM storage_private.validate_rename(NEW.filename, NEW.content_type);
    END IF;
    IF NEW.path IS NOT DISTINCT FROM OLD.path THEN
        RETURN NEW;
    ELSIF NEW.path IS NULL THEN
        -- A version of no path would be neither listed nor expired.
        NEW.is_current := true;
        NEW.superseded_at := NULL;
        NEW.previous_version_id := NULL;
        RETURN NEW;
    END IF;
    holder := storage_private.path_holder(NEW.bucket_id, NEW.path);
    IF NEW.is_current AND holder.id IS NOT NULL
       OR NOT NEW.is_current AND EXISTS (SELECT FROM storage.files f
                                         WHERE f.bucket_id = NEW.bucket_id AND f.path = NEW.path
                                           AND (f.version = NEW.version OR f.version < NEW.version AND f.is_current
                                                 OR f.owner_id <> NEW.owner_id)) THEN
        PERFORM storage_private.refuse_path(NEW.bucket_id, NEW.path);
    END IF;
    IF NEW.is_current THEN
        -- What was there before, it comes after: as an upload would.
        SELECT * INTO latest FROM storage.files f
        WHERE f.bucket_id = NEW.bucket_id AND f.path = NEW.path ORDER BY f.version DESC LIMIT 1;
        NEW.version := greatest(NEW.version, latest.version + 1);
        -- What another still comes after comes after nothing: the two might come after each other.
        NEW.previous_version_id := CASE WHEN latest.owner_id = NEW.owner_id
            AND NOT EXISTS (SELECT FROM storage.files f WHERE f.previous_version_id = NEW.id) THEN latest.id END;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION storage_private.check_file() IS
'Trigger: refuses a file name or path that breaks the rules, a name that contradicts the type, and a path that is taken; what comes to a path that has versions is the latest of them.';

CREATE FUNCTION storage_private.search(bucket_id uuid, description text, page_size integer, after uuid) RETURNS SETOF uuid
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'search_wrapper';
COMMENT ON FUNCTION storage_private.search(uuid, text, integer, uuid) IS
'The ids of files that are described so and that the caller may list. Errors: those of storage.search_files().';

CREATE FUNCTION storage.restore_version(file_id uuid) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f storage.files;
BEGIN
    PERFORM storage_private.require_writable();
    SELECT * INTO f FROM storage.files c WHERE c.id = file_id;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('FILE_NOT_FOUND', 'no such file', format('Asked for %L.', file_id),
            'storage.files lists those you can see.');
    ELSIF f.is_current THEN
        RETURN f;
    END IF;
    RETURN storage.copy_file(f.id, NULL, f.path, f.filename);
END $$;
COMMENT ON FUNCTION storage.restore_version(uuid) IS
'Makes the bytes, type and metadata of an earlier version current again, as the next version of its path: no version is changed or lost, and no bytes move. file_id: of the earlier version; the current one is given back as it is. Errors: FILE_NOT_FOUND, PATH_TAKEN, those of copy_file().';

CREATE FUNCTION storage.expire_versions(
    bucket     text,
    path       text DEFAULT NULL,
    keep       integer DEFAULT NULL,
    older_than interval DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target uuid;
    expired bigint;
BEGIN
    PERFORM storage_private.require_writable();
    target := storage_private.find_bucket(bucket);
    IF num_nulls(keep, older_than) = 2 OR keep < 0 OR older_than < '0' THEN
        PERFORM storage_private.refuse('INVALID_LIMIT', 'versions expire by their number, their age or both',
            format('keep is %s, older_than %s.', coalesce(keep::text, 'NULL'), coalesce(older_than::text, 'NULL')),
            'keep: how many earlier versions of each path stay at least; older_than: for how long they stay at least.');
    END IF;
    WITH versions AS MATERIALIZED (
        SELECT f.id, row_number() OVER (PARTITION BY f.path, f.is_current ORDER BY f.version DESC, f.id DESC) AS place
        FROM storage.files f
        WHERE f.bucket_id = target AND f.path IS NOT NULL AND (expire_versions.path IS NULL OR f.path = expire_versions.path)
    )
    -- Looked at again once the row is held: it may have become current meanwhile, at another path.
    DELETE FROM storage.files f USING versions v
    WHERE f.id = v.id AND NOT f.is_current
      AND (keep IS NULL OR v.place > keep) AND (older_than IS NULL OR f.superseded_at < clock_timestamp() - older_than);
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END $$;
COMMENT ON FUNCTION storage.expire_versions(text, text, integer, interval) IS
'Deletes earlier versions of files and says how many; never a current one. bucket: key or id. path: of one file; NULL: of all in the bucket, which are read for it. keep: the latest earlier versions of each path that stay. older_than: for how long a version stays after the next one replaced it, whatever became of that. With both given, one goes that is beyond both. Only versions that the caller may delete. Errors: BUCKET_NOT_FOUND, INVALID_LIMIT, READ_ONLY.';

-- Most files have none, and cost it nothing.
CREATE INDEX files_metadata ON storage.files USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}';

-- As the owner, because containment tells of rows while it compares, so that policies keep it from the index. Never
-- given to anybody: whoever asked is asked for, see search_files().
CREATE FUNCTION storage_private.described_files(bucket uuid, description jsonb, after uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT f.id FROM storage.files f
                 WHERE f.metadata @> description AND f.metadata <> '{}' AND f.bucket_id = bucket AND f.is_current AND f.id > after);
END $$;
COMMENT ON FUNCTION storage_private.described_files(uuid, jsonb, uuid) IS 'Current files of a bucket whose metadata contain a description, with ids after one, whoever may see them.';

CREATE FUNCTION storage.search_files(
    bucket    text,
    metadata  jsonb,
    page_size integer DEFAULT 100,
    after     uuid DEFAULT NULL
) RETURNS SETOF storage.files
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_ids uuid[] := ARRAY(SELECT storage_private.search(storage_private.find_bucket(bucket), metadata::text,
                                                            coalesce(page_size, 100), after));
BEGIN
    RETURN QUERY SELECT f.* FROM storage.files f WHERE f.id = ANY (found_ids) ORDER BY f.id;
END $$;
COMMENT ON FUNCTION storage.search_files(text, jsonb, integer, uuid) IS
'The current files of a bucket whose metadata contain a JSON object, as @> does, in the order of their ids; by an index, however many files there are. bucket: key or id. metadata: an object that is not empty. page_size: 1 to 1000. after: the id of the last file of the page before. Policies are asked as for a listing, and to show the rows. How long it takes tells how many files match, seen or not. Errors: BUCKET_NOT_FOUND, INVALID_METADATA, INVALID_LIMIT.';

REVOKE ALL ON FUNCTION
    storage_private.validate_rename(text, text), storage_private.search(uuid, text, integer, uuid), storage_private.described_files(uuid, jsonb, uuid),
    storage.search_files(text, jsonb, integer, uuid), storage.restore_version(uuid),
    storage.expire_versions(text, text, integer, interval)
FROM PUBLIC;


COMMENT ON COLUMN storage.buckets.allowed_origins IS 'Origins whose pages may use presigned URLs (CORS), 100 at most; NULL or empty: the tenant''s, else the server''s.';
COMMENT ON COLUMN storage.tenant_settings.allowed_origins IS 'CORS origins for buckets that name none, 100 at most; NULL or empty: the server''s.';

-- Objects that are in a store already.
CREATE FUNCTION storage_private.look_at_objects(
    physical_name text, check_bytes boolean, keys text[], sizes bigint[], sha256s text[], content_types text[]
) RETURNS TABLE (reason text, details text, sha256 bytea, size bigint, content_type text, etag text)
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'look_at_objects_wrapper';
COMMENT ON FUNCTION storage_private.look_at_objects(text, boolean, text[], bigint[], text[], text[]) IS
'Looks at objects of a physical bucket that others brought in, one row for each in order: why no file can be made of it, or what it is. Errors: NOT_CONFIGURED, BULK_UPLOAD_FILES_EXCEEDED.';

CREATE FUNCTION storage_private.keeper_of(physical_name text) RETURNS text
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'keeper_of_wrapper';
COMMENT ON FUNCTION storage_private.keeper_of(text) IS
'The endpoint of the store, which has this bucket. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, those of the store.';

CREATE TYPE storage.import_status AS ENUM ('imported', 'present', 'refused');
COMMENT ON TYPE storage.import_status IS
'What became of an object that was to be imported: its file was made, there was one already, or none was made.';

CREATE TYPE storage.import_spec AS (
    key          text,
    owner_id     text,
    path         text,
    filename     text,
    content_type text,
    size         bigint,
    sha256       text,
    etag         text,
    metadata     jsonb,
    created_at   timestamptz,
    file_id      uuid
);
COMMENT ON TYPE storage.import_spec IS
'One object to be imported, and what is known of it. All but key may be NULL; what is given has to be true.';
COMMENT ON COLUMN storage.import_spec.key IS 'Its key in the physical bucket.';
COMMENT ON COLUMN storage.import_spec.owner_id IS 'The user the file will belong to; NULL: the bucket''s owner.';
COMMENT ON COLUMN storage.import_spec.path IS 'Path in the bucket; NULL: none.';
COMMENT ON COLUMN storage.import_spec.filename IS 'Name of the file; NULL: what follows the last slash of path, else of key.';
COMMENT ON COLUMN storage.import_spec.content_type IS 'Its MIME type, which has to be the one it is stored with; NULL: that one.';
COMMENT ON COLUMN storage.import_spec.size IS 'Bytes; NULL: whatever it has.';
COMMENT ON COLUMN storage.import_spec.sha256 IS '64 lower-case hex; NULL: computed.';
COMMENT ON COLUMN storage.import_spec.etag IS 'The store''s entity tag, with or without quotes; NULL: not compared.';
COMMENT ON COLUMN storage.import_spec.metadata IS 'A JSON object; NULL: an empty one.';
COMMENT ON COLUMN storage.import_spec.created_at IS 'When the file was made; NULL: now.';
COMMENT ON COLUMN storage.import_spec.file_id IS 'The id the file will have, one that others know it by; NULL: a new one.';

CREATE TYPE storage.import_verdict AS (
    key     text,
    file_id uuid,
    status  storage.import_status,
    reason  text,
    details text
);
COMMENT ON TYPE storage.import_verdict IS 'What became of one object that was to be imported.';
COMMENT ON COLUMN storage.import_verdict.key IS 'Its key in the physical bucket.';
COMMENT ON COLUMN storage.import_verdict.file_id IS 'The file; NULL: refused.';
COMMENT ON COLUMN storage.import_verdict.status IS 'imported, present or refused.';
COMMENT ON COLUMN storage.import_verdict.reason IS 'Why it was refused: a word for programs. NULL: it was not.';
COMMENT ON COLUMN storage.import_verdict.details IS 'The values that were compared, or NULL.';

CREATE FUNCTION storage.adopt_bucket(physical_name text) RETURNS storage.physical_buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    store text;
    p storage.physical_buckets;
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.require_ownership();
    store := storage_private.keeper_of(coalesce(adopt_bucket.physical_name, ''));
    PERFORM storage_private.record_installation();
    -- What this database brings in itself is below a folder of its own, apart from what others keep at the top.
    INSERT INTO storage.physical_buckets AS b (name, fixed, key_prefix, endpoint, state, applied_generation, provisioned_at)
    VALUES (adopt_bucket.physical_name, true, 'pg_storage/', store, 'ready', 1, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
        SET fixed = true, key_prefix = excluded.key_prefix, endpoint = excluded.endpoint, tenant_id = NULL, access = NULL,
            state = 'ready', applied_generation = b.desired_generation, steps = '[]', last_error = NULL, attempts = 0,
            next_attempt_at = NULL, provisioned_at = excluded.provisioned_at
        WHERE b.provisioned_at IS NULL;
    SELECT b.* INTO p FROM storage.physical_buckets b WHERE b.name = adopt_bucket.physical_name;
    RETURN p;
END $$;
COMMENT ON FUNCTION storage.adopt_bucket(text) IS
'Puts a bucket of the store on record that others made and filled: it is used and never created or configured, and what is in it is left alone until import_objects() makes files of it. Its origins, policies and lifecycle stay what they are; uploads go below pg_storage/, and scan_orphans() compares nothing else of it. Then make buckets with this physical_name. One that is on record stays as it is. For the extension''s owner. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, NOT_OWNER_OF_OBJECTS, READ_ONLY, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

CREATE FUNCTION storage_private.import_bucket(bucket_id uuid) RETURNS storage.buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b storage.buckets;
    kept_by text;
BEGIN
    -- The lock of finish_upload(), so that none of the files finds the bucket deleted meanwhile.
    SELECT * INTO b FROM storage.buckets c WHERE c.id = bucket_id AND c.deleted_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('BUCKET_NOT_FOUND', 'no such bucket', format('Asked for %L.', bucket_id),
            'A bucket is named by its key or its id; storage.buckets lists those you can see.');
    END IF;
    -- Of two imports from one physical bucket the second waits: what one has looked at, no other makes, deletes and collects.
    SELECT p.endpoint INTO kept_by FROM storage.physical_buckets p
    WHERE p.name = b.physical_name AND p.provisioned_at IS NOT NULL FOR NO KEY UPDATE;
    IF kept_by IS NULL THEN
        PERFORM storage_private.refuse('NOT_CONFIGURED', 'the bucket has no physical bucket to import from',
            format('Bucket %s; physical_name is %s.', b.id, coalesce(quote_literal(b.physical_name), 'NULL')),
            'Call storage.adopt_bucket(physical_name), and make the bucket with that physical_name.');
    ELSIF kept_by <> storage_private.keeper_of(b.physical_name) THEN
        PERFORM storage_private.refuse('NOT_CONFIGURED', 'another store has the bucket',
            format('%s is kept by %s.', b.physical_name, kept_by), 'Set pg_storage.endpoint back.');
    END IF;
    RETURN b;
END $$;
COMMENT ON FUNCTION storage_private.import_bucket(uuid) IS
'The bucket, held against its deletion, whose physical bucket is on record at this store and held against other imports. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED.';

-- A key has one object, and an import makes one file of it. A job to delete it outlives neither row nor bytes.
CREATE FUNCTION storage_private.import_obstacle(b storage.buckets, spec storage.import_spec) RETURNS storage.import_verdict
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v storage.import_verdict;
    o storage.objects;
BEGIN
    v.key := spec.key;
    v.status := 'refused';
    SELECT * INTO o FROM storage.objects c WHERE c.physical_name = b.physical_name AND c.key = spec.key;
    IF FOUND THEN
        SELECT f.id, 'present'::storage.import_status INTO v.file_id, v.status FROM storage.files f
        WHERE f.object_id = o.id AND f.bucket_id = b.id AND (spec.file_id IS NULL OR f.id = spec.file_id)
        ORDER BY f.created_at, f.id LIMIT 1;
        IF NOT FOUND THEN
            v.status := 'refused';
            v.reason := 'KEY_TAKEN';
            v.details := 'another file has this object, or it is being deleted';
        END IF;
    ELSIF EXISTS (SELECT FROM storage.object_deletions d WHERE d.physical_name = b.physical_name AND d.key = spec.key) THEN
        v.reason := 'KEY_TAKEN';
        v.details := 'its deletion is queued';
    ELSIF spec.key IS NULL OR octet_length(spec.key) NOT BETWEEN 1 AND 1024 OR spec.key ~ '(^|/)\.\.?(/|$)' THEN
        v.reason := 'INVALID_KEY';
        v.details := 'a key has 1 to 1024 bytes and no segment . or ..';
    ELSIF coalesce(spec.owner_id, b.owner_id, '') = '' THEN
        v.reason := 'OWNER_REQUIRED';
        v.details := 'neither the object nor the bucket names an owner';
    ELSIF jsonb_typeof(spec.metadata) <> 'object' THEN
        v.reason := 'INVALID_METADATA';
        v.details := format('it is of type %s', jsonb_typeof(spec.metadata));
    ELSIF EXISTS (SELECT FROM storage.files f WHERE f.id = spec.file_id)
          OR EXISTS (SELECT FROM storage.upload_requests u WHERE u.file_id = spec.file_id) THEN
        v.reason := 'FILE_ID_TAKEN';
        v.details := format('file %s', spec.file_id);
    ELSIF EXISTS (SELECT FROM storage.files f WHERE f.bucket_id = b.id AND f.path = spec.path AND f.is_current
                     AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())) THEN
        v.reason := 'PATH_TAKEN';
        v.details := format('path %s', spec.path);
    ELSE
        BEGIN
            PERFORM storage_private.validate_file(storage_private.import_filename(spec), spec.path);
            RETURN NULL;
        EXCEPTION WHEN invalid_parameter_value THEN
            v.reason := split_part(SQLERRM, ':', 1);
            v.details := ltrim(substr(SQLERRM, length(v.reason) + 2));
        END;
    END IF;
    RETURN v;
END $$;
COMMENT ON FUNCTION storage_private.import_obstacle(storage.buckets, storage.import_spec) IS
'Why an object need not or cannot be imported, short of looking at it; NULL: it can.';

CREATE FUNCTION storage_private.import_filename(spec storage.import_spec) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce($1.filename, regexp_replace(coalesce($1.path, $1.key), '^.*/', ''))
$$;
COMMENT ON FUNCTION storage_private.import_filename(storage.import_spec) IS 'The name of a file to be imported.';

CREATE FUNCTION storage_private.accept_import(
    b storage.buckets, spec storage.import_spec, sha256 bytea, size bigint, content_type text, etag text
) RETURNS storage.import_verdict
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v storage.import_verdict;
    upload storage.upload_requests;
    target uuid;
BEGIN
    -- Another of the same call may have taken key, path or id, and an upload the path.
    v := storage_private.import_obstacle(b, spec);
    IF v.status IS NOT NULL THEN
        RETURN v;
    END IF;
    v.key := spec.key;
    upload.tenant_id := b.tenant_id;
    upload.bucket_id := b.id;
    upload.file_id := coalesce(spec.file_id, gen_random_uuid());
    upload.owner_id := coalesce(spec.owner_id, b.owner_id);
    upload.filename := storage_private.import_filename(spec);
    upload.path := spec.path;
    upload.metadata := coalesce(spec.metadata, '{}');
    upload.created_at := clock_timestamp();
    BEGIN
        INSERT INTO storage.objects (physical_name, key, bucket_id, sha256, size, content_type, etag)
        VALUES (b.physical_name, spec.key, b.id, accept_import.sha256, accept_import.size, accept_import.content_type, accept_import.etag)
        RETURNING id INTO target;
        -- No request has this id, which is none: nothing else ends with it.
        PERFORM storage_private.finish_upload(upload, target);
        PERFORM storage_private.check_room(b.id, accept_import.size);
    EXCEPTION WHEN configuration_limit_exceeded THEN
        v.status := 'refused';
        v.reason := split_part(SQLERRM, ':', 1);
        v.details := ltrim(substr(SQLERRM, length(v.reason) + 2));
        RETURN v;
    END;
    UPDATE storage.files f SET created_at = spec.created_at WHERE f.id = upload.file_id AND spec.created_at IS NOT NULL;
    v.file_id := upload.file_id;
    v.status := 'imported';
    RETURN v;
END $$;
COMMENT ON FUNCTION storage_private.accept_import(storage.buckets, storage.import_spec, bytea, bigint, text, text) IS
'Makes the file of an object that was looked at, with its event.';

CREATE FUNCTION storage.import_objects(bucket text, objects storage.import_spec[]) RETURNS SETOF storage.import_verdict
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b storage.buckets;
    specs storage.import_spec[] := ARRAY(SELECT s FROM unnest(objects) s);
    verdicts storage.import_verdict[];
    v storage.import_verdict;
    opens integer[] := ARRAY[]::integer[];
    said record;
    seen record;
    here integer;
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.require_fresh_snapshots();
    PERFORM storage_private.require_ownership();
    PERFORM storage_private.record_installation();
    b := storage_private.import_bucket(storage_private.find_bucket(bucket));
    FOR place IN 1 .. cardinality(specs) LOOP
        v := storage_private.import_obstacle(b, specs[place]);
        IF v.status IS NULL THEN
            opens := array_append(opens, place);
        END IF;
        verdicts[place] := v;
    END LOOP;
    SELECT array_agg((specs[o.place]).key ORDER BY o.place) AS keys, array_agg((specs[o.place]).size ORDER BY o.place) AS sizes,
           array_agg((specs[o.place]).sha256 ORDER BY o.place) AS sha256s,
           array_agg((specs[o.place]).content_type ORDER BY o.place) AS content_types,
           array_agg((specs[o.place]).path ORDER BY o.place) AS paths, array_agg(b.id) AS bucket_ids
    INTO said FROM unnest(opens) AS o(place);
    -- The first row comes when all have been looked at.
    FOR seen IN
        SELECT l.* FROM storage_private.look_at_objects(b.physical_name, b.verify_content_type, coalesce(said.keys, '{}'),
                                                        coalesce(said.sizes, '{}'), coalesce(said.sha256s, '{}'),
                                                        coalesce(said.content_types, '{}'))
                        WITH ORDINALITY AS l(reason, details, sha256, size, content_type, etag, place)
        ORDER BY l.place
    LOOP
        IF seen.place = 1 THEN
            PERFORM storage_private.lock_paths(said.bucket_ids, said.paths);
        END IF;
        here := opens[seen.place];
        v := NULL;
        v.key := specs[here].key;
        v.status := 'refused';
        v.reason := seen.reason;
        v.details := seen.details;
        IF seen.reason IS NULL AND replace(specs[here].etag, '"', '') <> coalesce(replace(seen.etag, '"', ''), '') THEN
            v.reason := 'ETAG_MISMATCH';
            v.details := format('declared %s, found %s', specs[here].etag, coalesce(seen.etag, 'none'));
        ELSIF seen.reason IS NULL THEN
            v := storage_private.accept_import(b, specs[here], seen.sha256, seen.size, seen.content_type, seen.etag);
        END IF;
        verdicts[here] := v;
    END LOOP;
    RETURN QUERY SELECT u.* FROM unnest(verdicts) u;
END $$;
COMMENT ON FUNCTION storage.import_objects(text, storage.import_spec[]) IS
'Makes files of objects that are in the store already, where they are: no bytes move. bucket: key or id; its physical bucket is on record, see adopt_bucket(). objects: up to pg_storage.max_bulk_files that have no file yet. Each is looked at, read through SHA-256 unless the store is known to refuse wrong bytes and has the digest on record, many at a time. The verdicts are values in input order: one that is refused hinders no other, and one that is present is left alone, so the call can be repeated. From then on the object is this database''s: deleted with its last file, shared with uploads of the same bytes. Nobody else may write or delete these keys any more. Quotas of the bucket are kept, its other rules are for uploads. Reasons: NOT_UPLOADED, EMPTY_FILE, SIZE_MISMATCH, HASH_MISMATCH, ETAG_MISMATCH, CONTENT_TYPE_MISMATCH, KEY_TAKEN, PATH_TAKEN, FILE_ID_TAKEN, OWNER_REQUIRED, QUOTA_EXCEEDED, the INVALID_ tokens, and those of the store for one object it fails at. For the extension''s owner. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, BULK_UPLOAD_FILES_EXCEEDED, NOT_OWNER_OF_OBJECTS, READ_ONLY, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT; an error in a transaction that is not READ COMMITTED.';

REVOKE ALL ON FUNCTION
    storage_private.look_at_objects(text, boolean, text[], bigint[], text[], text[]), storage_private.keeper_of(text),
    storage_private.import_bucket(uuid), storage_private.import_obstacle(storage.buckets, storage.import_spec),
    storage_private.import_filename(storage.import_spec),
    storage_private.accept_import(storage.buckets, storage.import_spec, bytea, bigint, text, text),
    storage.adopt_bucket(text), storage.import_objects(text, storage.import_spec[])
FROM PUBLIC;
REVOKE ALL ON TYPE storage.import_status, storage.import_spec, storage.import_verdict FROM PUBLIC;
-- Caches.
COMMENT ON FUNCTION storage.download_url(uuid, interval, boolean, text) IS
'A presigned GET URL of one file. expires_in: up to 7 days; NULL: the bucket''s or the server''s; with pg_storage.download_url_period it may live longer, never twice as long. attachment: saved rather than shown. filename: offered instead of the file''s own. Errors: FILE_NOT_FOUND, INVALID_EXPIRY, INVALID_FILENAME, NOT_CONFIGURED.';
COMMENT ON FUNCTION storage.public_url(uuid) IS
'The stable unsigned URL of a file in a public bucket, under pg_storage.public_url_base when that is set. Its bytes never change, and caches are told so. Errors: FILE_NOT_FOUND, NOT_PUBLIC, NOT_CONFIGURED.';

-- Events are removed by lists of ids, whatever the planner guesses.

CREATE OR REPLACE FUNCTION storage_private.remove_events(batch integer) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH oldest AS MATERIALIZED (
        SELECT e.id, e.created_at FROM storage.events e ORDER BY e.id LIMIT $1
    ), due AS MATERIALIZED (
        SELECT e.id FROM storage.events e
        WHERE e.id = ANY (ARRAY(
            SELECT o.id FROM oldest o WHERE o.created_at <= clock_timestamp() - storage_private.event_retention()))
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM storage.events e WHERE e.id = ANY (ARRAY(SELECT d.id FROM due d)) RETURNING e.id
    )
    SELECT count(*) FROM gone
$$;
