-- Deleting buckets with what is in them. A mark makes a bucket vanish for everybody at one commit; maintenance then removes
-- its rows in small steps, which may take long, be interrupted anywhere and go on later.

-- A view, because its owner reads the table: the policies below ask for buckets that are hidden from whoever they bind. A
-- barrier, because the planner would else try operators of whoever asks on the statistics of the table.
CREATE VIEW storage_private.deleted_buckets WITH (security_barrier) AS
    SELECT b.id FROM storage.buckets b WHERE b.deleted_at IS NOT NULL;
COMMENT ON VIEW storage_private.deleted_buckets IS 'Buckets that are being deleted: their ids, for policies.';
COMMENT ON COLUMN storage_private.deleted_buckets.id IS 'Of the bucket.';

-- Restrictive, and not among those that can be turned off: whatever other policies allow, these take away.
CREATE POLICY bucket_not_deleted ON storage.buckets AS RESTRICTIVE USING (deleted_at IS NULL);
CREATE POLICY bucket_not_deleted ON storage.files AS RESTRICTIVE USING (
    bucket_id NOT IN (SELECT d.id FROM storage_private.deleted_buckets d));
-- For SELECT alone: INSERT asks for a bucket that is seen, and nothing else is granted to anybody.
CREATE POLICY bucket_not_deleted ON storage.upload_requests AS RESTRICTIVE FOR SELECT USING (
    bucket_id NOT IN (SELECT d.id FROM storage_private.deleted_buckets d));

CREATE FUNCTION storage.delete_bucket(bucket text, force boolean DEFAULT false) RETURNS storage.buckets
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target uuid;
    b storage.buckets;
BEGIN
    PERFORM storage_private.require_writable();
    -- Elsewhere NULL means the default bucket; what is to be deleted is named.
    IF bucket IS NULL THEN
        PERFORM storage_private.refuse('BUCKET_NOT_FOUND', 'a bucket that is to be deleted is named', 'Asked for NULL.',
            'A bucket is named by its key or its id; storage.buckets lists those you can see.');
    END IF;
    target := storage_private.find_bucket(bucket);
    SELECT * INTO b FROM storage.buckets WHERE id = target;
    IF force THEN
        b.deleted_at := storage_private.mark_bucket_deleted(target);
        RETURN b;
    END IF;
    DELETE FROM storage.buckets WHERE id = target;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('RBAC_FORBIDDEN', 'you may not delete this bucket', format('Bucket %s.', target),
            'The DELETE policies of storage.buckets decide who may.');
    END IF;
    RETURN b;
END $$;
COMMENT ON FUNCTION storage.delete_bucket(text, boolean) IS
'Deletes a logical bucket. bucket: key or id, never NULL. Without force it must hold no files, also none that you cannot see; pending uploads end with it, exactly as with DELETE FROM storage.buckets. force: with everything in it. From the COMMIT on nobody can use the bucket or its files, and its key is free; maintenance removes the rows, and the bytes after pg_storage.deletion_delay (storage.bucket_deletions shows how far it is). Waits for transactions that are making files in it. The bucket in the store stays: others may share it. Being allowed to delete the row is the permission. Errors: BUCKET_NOT_FOUND, BUCKET_NOT_EMPTY, RBAC_FORBIDDEN, READ_ONLY.';

-- Each call is one step, and finds by itself where the last one was. Nobody is waited for: what others hold is left to
-- a later step, and the bucket stays as long as anything of it does.
CREATE FUNCTION storage_private.continue_bucket_deletion(target uuid, batch integer, OUT removed bigint, OUT finished boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    removed := 0;
    finished := false;
    -- Of two passes only one works on a bucket; those who make files in it are not in the way.
    PERFORM FROM storage.buckets b WHERE b.id = target AND b.deleted_at IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM storage.files f WHERE f.bucket_id = target) THEN
        removed := storage_private.delete_files(ARRAY(
            SELECT f.id FROM storage.files f WHERE f.bucket_id = target LIMIT batch FOR UPDATE SKIP LOCKED));
        RETURN;
    END IF;
    WITH due AS MATERIALIZED (
        SELECT u.id FROM storage.upload_requests u WHERE u.bucket_id = target LIMIT batch FOR UPDATE SKIP LOCKED
    )
    DELETE FROM storage.upload_requests u USING due d WHERE u.id = d.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
        RETURN;
    END IF;
    -- The objects wait for the collector, longer than the bucket for them; at once they would be too many.
    WITH due AS MATERIALIZED (
        SELECT o.id FROM storage.objects o WHERE o.bucket_id = target LIMIT batch FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE storage.objects o SET bucket_id = NULL FROM due d WHERE o.id = d.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
        RETURN;
    END IF;
    -- With this lock no row comes to refer to the bucket any more, and the next statement sees those that did.
    PERFORM FROM storage.buckets b WHERE b.id = target FOR UPDATE SKIP LOCKED;
    IF FOUND AND NOT EXISTS (SELECT FROM storage.files f WHERE f.bucket_id = target)
       AND NOT EXISTS (SELECT FROM storage.upload_requests u WHERE u.bucket_id = target)
       AND NOT EXISTS (SELECT FROM storage.objects o WHERE o.bucket_id = target) THEN
        DELETE FROM storage.buckets b WHERE b.id = target;
        removed := 1;
        finished := true;
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.continue_bucket_deletion(uuid, integer) IS
'One step in deleting a bucket that is marked: up to so many of its files, then of its upload requests, then of its objects'' references to it, then the bucket. removed: rows; 0: there is nothing to do now. finished: the bucket is gone.';

CREATE FUNCTION storage_private.buckets_to_delete() RETURNS SETOF uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.id FROM storage.buckets b WHERE b.deleted_at IS NOT NULL ORDER BY b.deleted_at, b.id
$$;
COMMENT ON FUNCTION storage_private.buckets_to_delete() IS 'Buckets that are being deleted, the oldest mark first.';

CREATE FUNCTION storage_private.marked_at(bucket_id uuid) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.deleted_at FROM storage.buckets b WHERE b.id = $1
$$;
COMMENT ON FUNCTION storage_private.marked_at(uuid) IS 'When a bucket was marked as deleted; NULL: it was not.';

CREATE VIEW storage.bucket_deletions AS
    SELECT b.tenant_id, b.owner_id, b.id AS bucket_id, b.deleted_key AS bucket_key, b.deleted_at,
           (SELECT count(*) FROM storage.files f WHERE f.bucket_id = b.id) AS files_left,
           (SELECT count(*) FROM storage.upload_requests u WHERE u.bucket_id = b.id) AS uploads_left,
           (SELECT count(*) FROM storage.objects o WHERE o.bucket_id = b.id) AS objects_left
    FROM storage.buckets b WHERE b.deleted_at IS NOT NULL;
COMMENT ON VIEW storage.bucket_deletions IS 'Buckets that storage.delete_bucket() was told to delete with their files, and what is left of each.';
COMMENT ON COLUMN storage.bucket_deletions.tenant_id IS 'The tenant.';
COMMENT ON COLUMN storage.bucket_deletions.owner_id IS 'The user it belonged to; NULL: the tenant as a whole.';
COMMENT ON COLUMN storage.bucket_deletions.bucket_id IS 'The logical bucket.';
COMMENT ON COLUMN storage.bucket_deletions.bucket_key IS 'Its key; another bucket may have it by now.';
COMMENT ON COLUMN storage.bucket_deletions.deleted_at IS 'When it was marked.';
COMMENT ON COLUMN storage.bucket_deletions.files_left IS 'Files still to be deleted; they go first.';
COMMENT ON COLUMN storage.bucket_deletions.uploads_left IS 'Upload requests still to be deleted; they go next.';
COMMENT ON COLUMN storage.bucket_deletions.objects_left IS 'Objects that still name it; they are the collector''s then, and the bucket goes.';
