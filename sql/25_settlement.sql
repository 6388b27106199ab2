-- Settlement: every write to a trusted column after the request. No role is granted these; the
-- library runs them as their owner, one statement at a time, after it has seen the row as the caller.

-- A PUT may start just before its URL expires and still be running long after.
CREATE FUNCTION storage_private.sweep_times(url_expires_at timestamptz) RETURNS SETOF timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    VALUES (clock_timestamp()),
           (greatest($1, clock_timestamp())),
           (greatest($1, clock_timestamp()) + interval '1 hour')
$$;
COMMENT ON FUNCTION storage_private.sweep_times(timestamptz) IS
'When to remove a key that a URL still names: now, when the URL ends, and again for a PUT that was still running.';

-- The first use took its time, which is not taken from the URL's.
CREATE FUNCTION storage_private.place_upload(
    upload_id uuid, physical_name text, object_key text, final_key text, direct boolean, create_only boolean
) RETURNS TABLE (created_at timestamptz, expires_at timestamptz)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u
    SET physical_name = $2, object_key = $3, final_key = $4, direct = $5, create_only = $6,
        created_at = n.now, expires_at = n.now + (u.expires_at - u.created_at)
    FROM (SELECT clock_timestamp() AS now) n
    WHERE u.id = $1
    RETURNING u.created_at, u.expires_at
$$;
COMMENT ON FUNCTION storage_private.place_upload(uuid, text, text, text, boolean, boolean) IS
'Gives a request its place in the store, once its bucket has been made ready for it.';

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

CREATE FUNCTION storage_private.lock_upload(upload_id uuid)
RETURNS TABLE (content_type text, size bigint, sha256 text, physical_name text, object_key text,
               final_key text, direct boolean, create_only boolean, status storage.upload_status, expires_at timestamptz, verify_content_type boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT u.content_type, u.size, u.sha256, u.physical_name, u.object_key, u.final_key, u.direct,
               u.create_only, u.status, u.expires_at, b.verify_content_type
        FROM storage.upload_requests u JOIN storage.buckets b ON b.id = u.bucket_id
        WHERE u.id = $1 AND b.deleted_at IS NULL FOR NO KEY UPDATE OF u;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('UPLOAD_NOT_FOUND', 'no such upload', format('Asked for %L.', $1),
            'storage.upload_requests lists your uploads.');
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.lock_upload(uuid) IS 'The upload request as it is now, held against every other transition. Errors: UPLOAD_NOT_FOUND, also when its bucket is being deleted.';

CREATE FUNCTION storage_private.note_waiting(upload_id uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u SET reason = 'NOT_UPLOADED' WHERE u.id = $1 AND u.reason IS NULL
$$;
COMMENT ON FUNCTION storage_private.note_waiting(uuid) IS 'Records that a confirmation came before the bytes.';

CREATE FUNCTION storage_private.close_upload(
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
COMMENT ON FUNCTION storage_private.close_upload(uuid, storage.upload_status, text, text, text) IS
'Ends an upload without a file and queues whatever it brought or may still bring in. copied_key: what this confirmation copied; NULL: nothing.';

-- Never across access: temporary and public bytes end otherwise, or are read by others, than private ones.
CREATE FUNCTION storage_private.shares_with(b storage.buckets, other storage.buckets) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN b.dedup <> 'off' AND b.access <> 'temp'
       AND (b.id = other.id
            OR b.dedup = 'owner' AND other.dedup = 'owner' AND b.access = other.access
               AND b.tenant_id = other.tenant_id AND b.owner_id = other.owner_id);
END $$;
COMMENT ON FUNCTION storage_private.shares_with(storage.buckets, storage.buckets) IS
'Whether identical bytes of two buckets may be one object.';

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

CREATE FUNCTION storage_private.check_path(bucket uuid, new_path text, uploader text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM storage.files f
               WHERE f.bucket_id = bucket AND f.path = new_path AND f.is_current AND f.owner_id <> uploader
                 AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())) THEN
        PERFORM storage_private.refuse_path(bucket, new_path);
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.check_path(uuid, text, text) IS
'Refuses an upload whose path is another user''s. Errors: PATH_TAKEN.';

-- Only an object that a file uses is alive: one without files is the collector's, whatever state it is in.
--
-- Whoever links a file to an object holds it FOR KEY SHARE until the end of the transaction: here, and again through
-- the foreign key of storage.files. The collector counts an object's files FOR UPDATE, the one row lock that conflicts
-- with KEY SHARE (UPDATE of deleting alone, FOR NO KEY UPDATE, does not). So of two that meet
-- - a link that comes second waits for the collector's claim to commit, sees deleting, and is refused;
-- - a collector that comes second skips the object, and counts the new file in its next pass.
-- After the claim has committed no lock is held: deleting stays true until the row goes, so no file can come back
-- however long the store takes. It is never set while a file, committed or not, uses the object.
CREATE FUNCTION storage_private.live_object(object_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- An older snapshot would still count files that are gone, and nobody is obliged to share.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RETURN false;
    END IF;
    PERFORM FROM storage.objects o
    WHERE o.id = object_id AND NOT o.deleting
      AND NOT EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = o.physical_name AND p.emptied_at >= o.created_at)
    FOR KEY SHARE OF o;
    -- The count after the lock is the one that matters. It is what a collector in its caller's transaction leaves to
    -- go by when that rolls back: the bytes are gone, the row is back as it was, and no file uses it.
    RETURN FOUND AND EXISTS (SELECT FROM storage.files f WHERE f.object_id = live_object.object_id);
END $$;
COMMENT ON FUNCTION storage_private.live_object(uuid) IS 'Holds the object against collection; true when a file uses it, it is not being deleted, and its bucket was not lost since. Always false under REPEATABLE READ and SERIALIZABLE.';

CREATE FUNCTION storage_private.finish_upload(upload storage.upload_requests, object_id uuid) RETURNS void
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
COMMENT ON FUNCTION storage_private.finish_upload(storage.upload_requests, uuid) IS
'Makes the file of an upload, over a verified object, with its event, and ends the upload as uploaded.';

CREATE FUNCTION storage_private.accept_upload(upload_id uuid, verified_key text, sha256 bytea, size bigint, etag text)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    upload storage.upload_requests;
    b storage.buckets;
    target uuid;
    duplicate boolean;
BEGIN
    SELECT * INTO STRICT upload FROM storage.upload_requests WHERE id = upload_id;
    SELECT * INTO STRICT b FROM storage.buckets WHERE id = upload.bucket_id;

    IF b.dedup <> 'off' AND b.access <> 'temp' THEN
        -- Of two confirmations of the same bytes the second waits here and then finds the first's object.
        PERFORM storage_private.hold_lock('bytes', encode(accept_upload.sha256, 'hex') || b.tenant_id);
        SELECT o.id INTO target
        FROM storage.objects o JOIN storage.buckets ob ON ob.id = o.bucket_id
        WHERE o.sha256 = accept_upload.sha256 AND o.physical_name = upload.physical_name AND o.content_type = upload.content_type
          AND ob.deleted_at IS NULL AND storage_private.shares_with(b, ob) AND storage_private.live_object(o.id)
        LIMIT 1;
    END IF;

    duplicate := target IS NOT NULL;
    IF NOT duplicate THEN
        INSERT INTO storage.objects (physical_name, key, bucket_id, sha256, size, content_type, etag)
        VALUES (upload.physical_name, verified_key, b.id, accept_upload.sha256, accept_upload.size, upload.content_type, accept_upload.etag)
        RETURNING id INTO target;
    ELSIF verified_key <> upload.object_key THEN
        INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
        VALUES (upload.physical_name, verified_key, 'duplicate of a verified object', clock_timestamp());
    END IF;
    IF duplicate OR verified_key <> upload.object_key THEN
        INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
        SELECT upload.physical_name, upload.object_key, 'uploaded bytes no longer needed', d.due
        FROM storage_private.sweep_times(upload.expires_at) AS d(due);
    END IF;

    PERFORM storage_private.finish_upload(upload, target);
END $$;
COMMENT ON FUNCTION storage_private.accept_upload(uuid, text, bytea, bigint, text) IS
'Ends an upload whose bytes were verified, at verified_key: records the object, or shares an identical verified one, and makes the file.';

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

CREATE FUNCTION storage_private.share_object(upload_id uuid, object_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    upload storage.upload_requests;
BEGIN
    IF NOT storage_private.live_object(object_id) THEN
        RETURN false;
    END IF;
    SELECT * INTO STRICT upload FROM storage.upload_requests WHERE id = upload_id;
    -- Of another type it would be a file that was never declared so, in a bucket that may not take it.
    IF NOT EXISTS (SELECT FROM storage.objects o
                   WHERE o.id = object_id AND o.physical_name = upload.physical_name AND o.content_type = upload.content_type) THEN
        RETURN false;
    END IF;
    PERFORM storage_private.finish_upload(upload, object_id);
    RETURN true;
END $$;
COMMENT ON FUNCTION storage_private.share_object(uuid, uuid) IS
'Ends an upload without bytes moving, over an object the caller can already read; false when that object is being collected, is in another physical bucket or has another type.';

-- SQL, which the planner puts into the plan that the library keeps: this runs in every signature.
CREATE FUNCTION storage_private.locate_objects(object_ids uuid[], bucket_ids uuid[])
RETURNS TABLE (physical_name text, key text, access storage.bucket_access, download_url_ttl interval)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT o.physical_name, o.key, b.access, b.download_url_ttl
    FROM unnest(object_ids, bucket_ids) WITH ORDINALITY AS asked(object_id, bucket_id, place)
    LEFT JOIN storage.objects o ON o.id = asked.object_id
    LEFT JOIN storage.buckets b ON b.id = asked.bucket_id AND b.deleted_at IS NULL
    ORDER BY asked.place;
END;
COMMENT ON FUNCTION storage_private.locate_objects(uuid[], uuid[]) IS 'Where the objects of files are, one row for each in order; bucket_ids: of the files. access is NULL when the bucket is being deleted.';

-- Deleting a file also touches the version after it; when somebody holds either, a later call will do.
CREATE FUNCTION storage_private.delete_files(file_ids uuid[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS MATERIALIZED (
        SELECT f.id FROM storage.files f WHERE f.id = ANY ($1) FOR UPDATE SKIP LOCKED
    ), next_versions AS MATERIALIZED (
        SELECT n.id FROM storage.files n WHERE n.previous_version_id IN (SELECT d.id FROM due d) FOR NO KEY UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM storage.files f USING due d
        WHERE f.id = d.id
          AND NOT EXISTS (SELECT FROM storage.files n
                          WHERE n.previous_version_id = d.id AND n.id NOT IN (SELECT v.id FROM next_versions v))
        RETURNING f.id
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION storage_private.delete_files(uuid[]) IS 'Deletes files, except those that somebody holds; returns how many.';
