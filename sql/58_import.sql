-- Moving in: objects that are in a store already become files where they are. No bytes move; each object is looked at first,
-- as confirming an upload would. All of it is for the extension's owner: whoever may name any key may read any object.

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
