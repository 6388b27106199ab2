-- API: the public face. Every function here runs with the caller's rights and under the caller's
-- policies; what needs more is asked of storage_private, which looks at the row as the caller first.

CREATE FUNCTION storage.create_bucket(
    key                text,
    access             storage.bucket_access DEFAULT 'private',
    owner_id           text DEFAULT storage.current_user_id(),
    allowed_mime_types text[] DEFAULT NULL,
    max_file_size      bigint DEFAULT NULL,
    allowed_origins    text[] DEFAULT NULL,
    is_default         boolean DEFAULT false
) RETURNS storage.buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Asked out of reach of the handler below, which would take a missing tenant for a missing privilege.
    tenant text := storage.current_tenant_id();
    b storage.buckets;
BEGIN
    PERFORM storage_private.require_writable();
    INSERT INTO storage.buckets (tenant_id, key, access, owner_id, allowed_mime_types, max_file_size, allowed_origins, is_default)
    VALUES (tenant, $1, coalesce($2, 'private'), $3, $4, $5, $6, coalesce($7, false))
    RETURNING * INTO b;
    RETURN b;
EXCEPTION
    WHEN unique_violation THEN
        PERFORM storage_private.refuse('BUCKET_EXISTS', 'a bucket with this key exists',
            format('Key %L of %s.', $1, coalesce('owner ' || quote_literal($3), 'the tenant')), 'Choose another key.');
    WHEN insufficient_privilege THEN
        PERFORM storage_private.refuse('RBAC_FORBIDDEN', 'you may not create this bucket', SQLERRM,
            'Ask for storage.grant_access(role, ''manager'').');
END $$;
COMMENT ON FUNCTION storage.create_bucket(text, storage.bucket_access, text, text[], bigint, text[], boolean) IS
'Creates a logical bucket; the store is not touched. key: 1 to 63 of a-z 0-9 . _ -, not like a UUID. owner_id NULL: the tenant''s. max_file_size in bytes. Errors: INVALID_BUCKET_KEY, INVALID_CONTENT_TYPE, INVALID_ORIGIN, INVALID_FILE_SIZE, BUCKET_EXISTS, RBAC_FORBIDDEN, TENANT_REQUIRED.';

CREATE FUNCTION storage_private.seed_buckets(tenant text, owner text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO storage.buckets (tenant_id, owner_id, key, access, is_default)
    VALUES ($1, $2, 'public', 'public', false), ($1, $2, 'private', 'private', true), ($1, $2, 'temp', 'temp', false)
    ON CONFLICT (tenant_id, owner_id, key) DO NOTHING
$$;
COMMENT ON FUNCTION storage_private.seed_buckets(text, text) IS 'Makes the three buckets of a user, those that are missing.';

CREATE FUNCTION storage.create_user_buckets(owner_id text) RETURNS SETOF storage.buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.require_writable();
    IF owner_id IS NULL OR owner_id = '' THEN
        PERFORM storage_private.refuse('INVALID_BUCKET_KEY', 'a user''s buckets need a user', 'owner_id is empty.',
            'Pass the user''s id; storage.create_bucket(..., owner_id => NULL) makes a bucket of the tenant.');
    END IF;
    PERFORM storage_private.seed_buckets(storage.current_tenant_id(), $1);
    RETURN QUERY
        SELECT b.* FROM storage.buckets b
        WHERE b.tenant_id = storage.current_tenant_id() AND b.owner_id = $1 AND b.key IN ('public', 'private', 'temp')
          AND b.deleted_at IS NULL
        ORDER BY array_position(ARRAY['public', 'private', 'temp'], b.key);
END $$;
COMMENT ON FUNCTION storage.create_user_buckets(text) IS
'The buckets public, private (the default) and temp of a user of the caller''s tenant, made where missing. The store is not touched. Errors: RBAC_FORBIDDEN, TENANT_REQUIRED.';

-- Neither a cast nor to_jsonb(): the owner of the table may give a type of his a cast to text or json,
-- and its function would run as the definer. Output functions are the superuser's.
CREATE FUNCTION storage_private.column_text(source anyelement, column_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found text;
BEGIN
    IF EXISTS (SELECT FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
               WHERE t.oid = pg_typeof(source) AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped) THEN
        EXECUTE format('SELECT format(''%%s'', ($1).%I)', column_name) INTO found USING source;
    END IF;
    RETURN nullif(found, '');
END $$;
COMMENT ON FUNCTION storage_private.column_text(anyelement, text) IS
'A column of a row as text; NULL when it is absent, NULL or empty. Runs no code of whoever made the row''s type.';

-- Definer: whoever may add users need not be allowed to make buckets. Only roles that may be trusted
-- with any owner get EXECUTE, because that is what attaching a trigger takes.
CREATE FUNCTION storage.seed_user_buckets() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id_column text := coalesce(TG_ARGV[0], 'id');
    owner text := storage_private.column_text(NEW, id_column);
    tenant text := CASE WHEN TG_NARGS > 1 THEN storage_private.column_text(NEW, TG_ARGV[1]) ELSE storage.current_tenant_id() END;
BEGIN
    IF owner IS NULL THEN
        PERFORM storage_private.refuse('INVALID_BUCKET_KEY', 'the row has no user id',
            format('Column %I of %I.%I is absent or NULL.', id_column, TG_TABLE_SCHEMA, TG_TABLE_NAME),
            'Argument 1 of storage.seed_user_buckets() is the column that holds the user''s id.');
    ELSIF tenant IS NULL THEN
        PERFORM storage_private.refuse('TENANT_REQUIRED', 'the row has no tenant',
            format('Column %I of %I.%I is absent or NULL.', TG_ARGV[1], TG_TABLE_SCHEMA, TG_TABLE_NAME),
            'Argument 2 of storage.seed_user_buckets() is the column that holds the user''s tenant.');
    END IF;
    PERFORM storage_private.seed_buckets(tenant, owner);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage.seed_user_buckets() IS
'Trigger for a users table, AFTER INSERT FOR EACH ROW: makes the user''s three buckets. Argument 1: the column with the user''s id (default id); argument 2: the column with the tenant (default: the caller''s tenant). Errors: TENANT_REQUIRED.';

CREATE FUNCTION storage.provision_bucket(bucket text) RETURNS storage.physical_buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    physical text;
    p storage.physical_buckets;
BEGIN
    PERFORM storage_private.require_writable();
    physical := storage_private.provision(storage_private.find_bucket(bucket));
    SELECT * INTO p FROM storage.physical_buckets WHERE name = physical;
    RETURN p;
END $$;
COMMENT ON FUNCTION storage.provision_bucket(text) IS
'Brings the bucket''s physical bucket to the wanted configuration now rather than on first use; also repairs. bucket: key or id. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, NOT_OWNER_OF_OBJECTS, BUCKET_NAME_TAKEN, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR with the steps in DETAIL.';

CREATE FUNCTION storage.inspect_bucket(bucket text) RETURNS storage.bucket_inspection
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inspection storage.bucket_inspection;
BEGIN
    SELECT i.* INTO inspection FROM storage_private.inspect_bucket(storage_private.find_bucket(bucket)) i;
    RETURN inspection;
END $$;
COMMENT ON FUNCTION storage.inspect_bucket(text) IS
'What the store says of the bucket''s physical bucket, read back and not remembered. bucket: key or id. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

-- Asked as the caller: a hash that somebody merely claims finds nothing that they could not read anyway.
-- PL/pgSQL, because it keeps its plan: this runs in every request with a digest.
CREATE FUNCTION storage_private.shareable_objects(bucket_id uuid, sha256 text, size bigint) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here storage.buckets;
BEGIN
    SELECT * INTO here FROM storage.buckets b WHERE b.id = $1;
    -- From the few buckets that share to their files, because that is what indexes can do.
    RETURN QUERY SELECT DISTINCT f.object_id
        FROM storage.buckets b JOIN storage.files f ON f.bucket_id = b.id
        WHERE f.sha256 = $2 AND f.size = $3 AND b.deleted_at IS NULL
          AND (b.id = here.id OR b.tenant_id = here.tenant_id AND b.owner_id = here.owner_id AND here.dedup = 'owner')
          AND storage_private.shares_with(here, b)
        LIMIT 8;
END $$;
COMMENT ON FUNCTION storage_private.shareable_objects(uuid, text, bigint) IS
'Verified objects with these bytes, within the bucket''s dedup scope, that the caller can read through a file already.';

CREATE FUNCTION storage.request_upload_url(
    bucket       text,
    filename     text,
    content_type text,
    size         bigint,
    sha256       text DEFAULT NULL,
    path         text DEFAULT NULL,
    metadata     jsonb DEFAULT '{}',
    expires_in   interval DEFAULT NULL
) RETURNS storage.upload_ticket
LANGUAGE sql VOLATILE
RETURN storage_private.open_upload(bucket, filename, content_type, size, sha256, path, metadata, expires_in);
COMMENT ON FUNCTION storage.request_upload_url(text, text, text, bigint, text, text, jsonb, interval) IS
'A ticket to upload one file. bucket: key or id, NULL for your default. size: bytes, exact. sha256: 64 lower-case hex; with it the store refuses other bytes, and bytes you can already read are not sent again. path: unique within the bucket; a new upload to a taken path becomes its next version. expires_in: up to 7 days; NULL: the bucket''s or the server''s. Errors: BUCKET_NOT_FOUND, DEFAULT_BUCKET_MISSING, DEFAULT_BUCKET_AMBIGUOUS, INVALID_FILENAME, INVALID_CONTENT_TYPE, INVALID_FILE_SIZE, INVALID_CONTENT_HASH, INVALID_PATH, INVALID_EXPIRY, CONTENT_TYPE_NOT_ALLOWED, UPLOAD_TYPE_MISMATCH, FILE_TOO_LARGE, PATH_TAKEN, RBAC_FORBIDDEN, TENANT_REQUIRED, READ_ONLY, NOT_CONFIGURED and, on first use of a bucket, those of provision_bucket().';

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

CREATE FUNCTION storage.confirm_upload(upload_id uuid) RETURNS storage.upload_requests
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u storage.upload_requests;
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.confirm(upload_id);
    SELECT * INTO u FROM storage.upload_requests WHERE id = upload_id;
    RETURN u;
END $$;
COMMENT ON FUNCTION storage.confirm_upload(uuid) IS
'Asks the store what arrived and settles the upload; parts are made one object, which is read to hash it. The verdict is a value: status uploaded (the file exists), rejected with reason EMPTY_FILE, SIZE_MISMATCH, HASH_MISMATCH or CONTENT_TYPE_MISMATCH, expired, aborted, or still requested with reason NOT_UPLOADED. Idempotent. Errors: UPLOAD_NOT_FOUND, PATH_TAKEN, READ_ONLY, NOT_CONFIGURED, NOT_OWNER_OF_OBJECTS, STORE_DENIED, STORE_UNAVAILABLE, STORE_TIMEOUT, STORE_ERROR.';

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

CREATE FUNCTION storage.abort_upload(upload_id uuid) RETURNS storage.upload_requests
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u storage.upload_requests;
BEGIN
    PERFORM storage_private.require_writable();
    PERFORM storage_private.abort(upload_id);
    SELECT * INTO u FROM storage.upload_requests WHERE id = upload_id;
    RETURN u;
END $$;
COMMENT ON FUNCTION storage.abort_upload(uuid) IS
'Ends a pending upload; bytes that arrived or still arrive are removed. Aborting twice is no error. Errors: UPLOAD_NOT_FOUND, UPLOAD_NOT_PENDING (it is uploaded, rejected or expired), READ_ONLY.';

CREATE FUNCTION storage.download_url(
    file_id    uuid,
    expires_in interval DEFAULT NULL,
    attachment boolean DEFAULT true,
    filename   text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    signed text;
BEGIN
    SELECT s.url INTO signed FROM storage_private.sign_downloads(ARRAY[file_id], expires_in, attachment, filename) s;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('FILE_NOT_FOUND', 'no such file', format('Asked for %L.', file_id),
            'storage.files lists those you can see.');
    END IF;
    RETURN signed;
END $$;
COMMENT ON FUNCTION storage.download_url(uuid, interval, boolean, text) IS
'A presigned GET URL of one file. expires_in: up to 7 days; NULL: the bucket''s or the server''s; with pg_storage.download_url_period it may live longer, never twice as long. attachment: saved rather than shown. filename: offered instead of the file''s own. Errors: FILE_NOT_FOUND, INVALID_EXPIRY, INVALID_FILENAME, NOT_CONFIGURED.';

CREATE FUNCTION storage.download_urls(
    file_ids   uuid[],
    expires_in interval DEFAULT NULL,
    attachment boolean DEFAULT true
) RETURNS SETOF storage.signed_url
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.* FROM storage_private.sign_downloads(file_ids, expires_in, attachment, NULL) s;
END;
COMMENT ON FUNCTION storage.download_urls(uuid[], interval, boolean) IS
'Presigned GET URLs of many files in one pass, in input order; files that do not exist or that you cannot see have no row. Parameters and errors as for download_url().';

CREATE FUNCTION storage.files_download_url(file storage.files) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT s.url FROM storage_private.sign_downloads(ARRAY[file.id], NULL, true, NULL) s);
END $$;
COMMENT ON FUNCTION storage.files_download_url(storage.files) IS
'Computed column downloadUrl of a file: its presigned GET URL with the usual lifetime. The row is looked up again by its id, as the caller.';

CREATE FUNCTION storage.public_url(file_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN storage_private.unsigned_url(file_id);
END $$;
COMMENT ON FUNCTION storage.public_url(uuid) IS
'The stable unsigned URL of a file in a public bucket, under pg_storage.public_url_base when that is set. Its bytes never change, and caches are told so. Errors: FILE_NOT_FOUND, NOT_PUBLIC, NOT_CONFIGURED.';

CREATE FUNCTION storage.delete_file(file_id uuid) RETURNS storage.files
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f storage.files;
BEGIN
    PERFORM storage_private.require_writable();
    DELETE FROM storage.files WHERE id = file_id RETURNING * INTO f;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('FILE_NOT_FOUND', 'no such file', format('Asked for %L.', file_id),
            'storage.files lists those you can see; only your own can be deleted.');
    END IF;
    RETURN f;
END $$;
COMMENT ON FUNCTION storage.delete_file(uuid) IS
'Deletes a file, exactly as DELETE FROM storage.files does. Its bytes leave the store after COMMIT, the last file over them and pg_storage.deletion_delay; until then a public URL answers. What has to be down at once is made private first, by storage.set_file_access(). Errors: FILE_NOT_FOUND, READ_ONLY.';
