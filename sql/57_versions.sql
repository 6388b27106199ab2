-- Versions and search: what a path has been, and files by what was said of them.

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
