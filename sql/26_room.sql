-- Room: what the quota of a bucket leaves, and how many uploads a user has pending. A bucket with a quota
-- has one row in storage_private.room from its first request on; a request adds to it under its lock, which
-- it keeps to the end of its transaction. What ends without a file, or deletes one, adds a row to
-- storage_private.released_room and waits for nobody. A bucket without a quota has neither.
--
-- room minus released_room may be more than there is, never less: before anybody is refused, it is counted.
-- Both change in the transactions of what they count, so any snapshot shows them in step.

CREATE TABLE storage_private.room (
    bucket_id uuid PRIMARY KEY,
    files     bigint NOT NULL,
    bytes     bigint NOT NULL,
    uncounted text[]
) WITH (fillfactor = 50);
COMMENT ON TABLE storage_private.room IS 'Room taken in each bucket that has a quota and was asked for since. Not dumped: the first request after a restore counts.';
COMMENT ON COLUMN storage_private.room.bucket_id IS 'The bucket.';
COMMENT ON COLUMN storage_private.room.files IS 'Files and requested uploads, also those past their time.';
COMMENT ON COLUMN storage_private.room.bytes IS 'The sum of their sizes.';
COMMENT ON COLUMN storage_private.room.uncounted IS 'Virtual transactions that began to upload when the bucket had no quota, and may bring more than was counted. NULL: never counted; empty: none is left.';

CREATE TABLE storage_private.released_room (
    bucket_id uuid NOT NULL,
    files     bigint NOT NULL,
    bytes     bigint NOT NULL
);
CREATE INDEX released_room_bucket_id ON storage_private.released_room (bucket_id);
COMMENT ON TABLE storage_private.released_room IS 'Room that was given back and not yet subtracted from storage_private.room.';
COMMENT ON COLUMN storage_private.released_room.bucket_id IS 'The bucket.';
COMMENT ON COLUMN storage_private.released_room.files IS 'How many files and uploads ended.';
COMMENT ON COLUMN storage_private.released_room.bytes IS 'The sum of their sizes.';

CREATE FUNCTION storage_private.check_room(bucket uuid, new_size bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b storage.buckets;
    taken storage_private.room;
    over record;
    moment timestamptz;
BEGIN
    -- Whoever sets a first limit or drops the last waits for this lock, see reset_room(); so they are read after it.
    PERFORM FROM storage.buckets c WHERE c.id = bucket FOR KEY SHARE;
    SELECT c.* INTO STRICT b FROM storage.buckets c WHERE c.id = bucket;
    IF num_nulls(b.max_total_size, b.max_file_count) = 2 THEN
        IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
            RETURN;
        END IF;
        RAISE EXCEPTION 'could not serialize access due to a concurrent change of the bucket''s quota'
            USING ERRCODE = 'serialization_failure',
                  DETAIL = 'The bucket had no quota yet when this transaction began.',
                  HINT = 'Repeat the transaction.';
    END IF;
    -- Of two requests for the last room the second waits here for the first to commit or roll back.
    SELECT r.* INTO taken FROM storage_private.room r WHERE r.bucket_id = b.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO storage_private.room VALUES (b.id, 0, 0, NULL) ON CONFLICT DO NOTHING;
        SELECT r.* INTO STRICT taken FROM storage_private.room r WHERE r.bucket_id = b.id FOR NO KEY UPDATE;
    END IF;
    -- Who is still under way is asked first: whoever ended before the count is in it.
    IF taken.uncounted IS DISTINCT FROM '{}' THEN
        taken := storage_private.count_room(b.id, storage_private.uploads_under_way(taken.uncounted));
    ELSE
        taken := storage_private.take_room(b.id, 1, new_size);
    END IF;
    IF (taken.bytes > b.max_total_size OR taken.files > b.max_file_count) IS NOT TRUE THEN
        RETURN;
    END IF;

    -- Uploads past their time hold no room, whether or not they were ended. One that is locked may just
    -- become a file; one that is not never will.
    moment := clock_timestamp();
    SELECT count(*) AS files, coalesce(sum(late.size), 0) AS bytes INTO over
    FROM (SELECT u.size FROM storage.upload_requests u
          WHERE u.bucket_id = b.id AND u.status = 'requested' AND u.expires_at <= moment FOR SHARE SKIP LOCKED) late;
    IF (taken.bytes - over.bytes > b.max_total_size OR taken.files - over.files > b.max_file_count) IS NOT TRUE THEN
        RETURN;
    END IF;

    taken := storage_private.count_room(b.id, taken.uncounted);
    IF taken.bytes - over.bytes > b.max_total_size OR taken.files - over.files > b.max_file_count THEN
        PERFORM storage_private.refuse('QUOTA_EXCEEDED', 'the bucket has no room for this file',
            format('%s bytes in %s files and pending uploads; limits: %s bytes, %s files.',
                   taken.bytes - over.bytes - new_size, taken.files - over.files - 1,
                   coalesce(b.max_total_size::text, 'no'), coalesce(b.max_file_count::text, 'no')),
            'Delete files, abort pending uploads, or raise buckets.max_total_size or max_file_count.');
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.check_room(uuid, bigint) IS
'Reserves the room of an upload request that was just inserted, or refuses; nothing to do where there is no quota. Errors: QUOTA_EXCEEDED.';

CREATE FUNCTION storage_private.take_room(bucket uuid, more_files bigint, more_bytes bigint) RETURNS storage_private.room
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH folded AS (
        DELETE FROM storage_private.released_room d WHERE d.bucket_id = $1 RETURNING d.files, d.bytes
    ), freed AS (
        SELECT coalesce(sum(f.files), 0)::bigint AS files, coalesce(sum(f.bytes), 0)::bigint AS bytes FROM folded f
    )
    UPDATE storage_private.room r SET files = r.files - freed.files + $2, bytes = r.bytes - freed.bytes + $3
    FROM freed WHERE r.bucket_id = $1
    RETURNING r.*
$$;
COMMENT ON FUNCTION storage_private.take_room(uuid, bigint, bigint) IS
'Adds to the room taken in a bucket and subtracts what was released. For those who hold the row''s lock.';

-- One statement, for it must be one snapshot: a file is counted as long as its release cannot be seen.
CREATE FUNCTION storage_private.count_room(bucket uuid, still_uncounted text[]) RETURNS storage_private.room
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH folded AS (
        DELETE FROM storage_private.released_room d WHERE d.bucket_id = $1
    )
    UPDATE storage_private.room r SET files = c.files, bytes = c.bytes, uncounted = $2
    FROM (SELECT count(*) AS files, coalesce(sum(u.size), 0)::bigint AS bytes
          FROM (SELECT f.size FROM storage.files f WHERE f.bucket_id = $1
                UNION ALL
                SELECT q.size FROM storage.upload_requests q WHERE q.bucket_id = $1 AND q.status = 'requested') u) c
    WHERE r.bucket_id = $1
    RETURNING r.*
$$;
COMMENT ON FUNCTION storage_private.count_room(uuid, text[]) IS
'Counts the room taken in a bucket, file by file, that of the request which is just being inserted included. For those who hold the row''s lock.';

-- Every upload locks the table before it looks at the bucket, and to the end of its transaction; a prepared
-- transaction holds its locks under another name than before.
CREATE FUNCTION storage_private.uploads_under_way(among text[]) RETURNS text[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}')
    FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.relation = 'storage.upload_requests'::regclass AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND ($1 IS NULL OR l.virtualtransaction = ANY ($1) OR l.pid IS NULL)
$$;
COMMENT ON FUNCTION storage_private.uploads_under_way(text[]) IS
'Transactions of others that may have asked for uploads and have not ended: all of them for NULL, else those among the ones given and every prepared one.';

-- For a transaction whose own snapshot is older than the quota.
CREATE FUNCTION storage_private.has_quota(bucket uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM storage.buckets b WHERE b.id = bucket AND num_nulls(b.max_total_size, b.max_file_count) < 2);
END $$;
COMMENT ON FUNCTION storage_private.has_quota(uuid) IS 'Whether the number or the sum of a bucket''s files is limited, by the snapshot that is in force.';

-- Definer: managers change limits and have no business here. Uploads that were admitted without a quota
-- hold the bucket's row through their foreign key; they are waited for, so that the next request counts them.
CREATE FUNCTION storage_private.reset_room() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM storage.buckets b WHERE b.id = OLD.id FOR UPDATE;
    DELETE FROM storage_private.room r WHERE r.bucket_id = OLD.id;
    DELETE FROM storage_private.released_room d WHERE d.bucket_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.reset_room() IS 'Trigger: a bucket got its first limit or lost its last, or is gone, so what was counted of it is forgotten.';

CREATE TRIGGER reset_room AFTER UPDATE OF max_total_size, max_file_count ON storage.buckets
FOR EACH ROW WHEN ((num_nulls(OLD.max_total_size, OLD.max_file_count) < 2) <> (num_nulls(NEW.max_total_size, NEW.max_file_count) < 2))
EXECUTE FUNCTION storage_private.reset_room();

CREATE TRIGGER reset_room_of_deleted AFTER DELETE ON storage.buckets
FOR EACH ROW WHEN (num_nulls(OLD.max_total_size, OLD.max_file_count) < 2)
EXECUTE FUNCTION storage_private.reset_room();

CREATE FUNCTION storage_private.release_ended_upload() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage_private.released_room
    SELECT r.bucket_id, 1, OLD.size FROM storage_private.room r WHERE r.bucket_id = OLD.bucket_id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.release_ended_upload() IS 'Trigger: an upload that ended without a file gives its room back.';

CREATE TRIGGER release_ended_upload AFTER UPDATE OF status ON storage.upload_requests
FOR EACH ROW WHEN (OLD.status = 'requested' AND NEW.status NOT IN ('requested', 'uploaded'))
EXECUTE FUNCTION storage_private.release_ended_upload();

-- Definer: whoever may delete files has no business here.
CREATE FUNCTION storage_private.release_deleted_files() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage_private.released_room
    SELECT r.bucket_id, count(*), sum(gone.size) FROM gone JOIN storage_private.room r ON r.bucket_id = gone.bucket_id
    GROUP BY r.bucket_id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.release_deleted_files() IS 'Trigger: deleted files give their room back.';

CREATE TRIGGER release_deleted_files AFTER DELETE ON storage.files
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION storage_private.release_deleted_files();

-- Definer: as above.
CREATE FUNCTION storage_private.release_deleted_requests() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage_private.released_room
    SELECT r.bucket_id, count(*), sum(gone.size) FROM gone JOIN storage_private.room r ON r.bucket_id = gone.bucket_id
    WHERE gone.status = 'requested'
    GROUP BY r.bucket_id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.release_deleted_requests() IS 'Trigger: deleted upload requests give back the room that they still held.';

CREATE TRIGGER release_deleted_requests AFTER DELETE ON storage.upload_requests
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION storage_private.release_deleted_requests();

CREATE FUNCTION storage_private.compact_room() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held uuid;
    compacted bigint := 0;
BEGIN
    -- Where a request holds the row, that request has subtracted or the next one will.
    FOR held IN
        SELECT r.bucket_id FROM storage_private.room r
        WHERE EXISTS (SELECT FROM storage_private.released_room d WHERE d.bucket_id = r.bucket_id)
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        PERFORM storage_private.take_room(held, 0, 0);
        compacted := compacted + 1;
    END LOOP;
    -- Left behind by transactions that were still under way when the quota went.
    DELETE FROM storage_private.room r
    WHERE NOT EXISTS (SELECT FROM storage.buckets b WHERE b.id = r.bucket_id AND num_nulls(b.max_total_size, b.max_file_count) < 2);
    DELETE FROM storage_private.released_room d
    WHERE NOT EXISTS (SELECT FROM storage_private.room r WHERE r.bucket_id = d.bucket_id);
    RETURN compacted;
END $$;
COMMENT ON FUNCTION storage_private.compact_room() IS
'Subtracts what was released from the room taken, bucket by bucket, and returns in how many. Holds the rows of those buckets, for which their next requests wait, until the transaction ends.';

-- One user's requests ask one after the other, so that each counts those before it.
CREATE FUNCTION storage_private.lock_pending(tenant text, uploader text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT storage_private.hold_lock('pending uploads', jsonb_build_array($1, $2)::text)
$$;
COMMENT ON FUNCTION storage_private.lock_pending(text, text) IS 'Holds a user''s number of pending uploads until the transaction ends.';

CREATE FUNCTION storage_private.pending_uploads(tenant text, uploader text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT count(*) FROM storage.upload_requests u
            WHERE u.tenant_id = tenant AND u.owner_id = uploader AND u.status = 'requested' AND u.expires_at > clock_timestamp());
END $$;
COMMENT ON FUNCTION storage_private.pending_uploads(text, text) IS 'How many uploads of a user are requested and in time, by the snapshot that is in force.';
