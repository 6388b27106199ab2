-- Files: small ones through SQL, and files copied and moved. Both of the latter are uploads to where the file goes.

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
