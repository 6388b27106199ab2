-- Listing: pages of the files of a bucket. Where a page begins is sealed with a key of this database.

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
