-- Types: the enums of the life cycles and the named rows that functions return.
-- Named types, not RETURNS TABLE: GraphQL and REST layers expose a name, not an anonymous record.

-- Private functions live apart, so that layers which expose a whole schema expose only the public face.
CREATE SCHEMA storage_private;
COMMENT ON SCHEMA storage IS 'Object storage as SQL: buckets, files, presigned uploads and downloads.';
COMMENT ON SCHEMA storage_private IS 'Private hands of the storage schema. Nothing here is an interface; anything may change between versions.';

CREATE TYPE storage.bucket_access AS ENUM ('private', 'public', 'temp');
COMMENT ON TYPE storage.bucket_access IS
'Who may read a bucket''s files without a signature (public: everyone), and whether they vanish by themselves (temp: after a day).';

CREATE TYPE storage.upload_status AS ENUM ('requested', 'uploaded', 'rejected', 'expired', 'aborted');
COMMENT ON TYPE storage.upload_status IS
'Life of an upload request. requested is the only state that can change; the others are final.';

CREATE TYPE storage.provision_state AS ENUM ('pending', 'ready', 'failed');
COMMENT ON TYPE storage.provision_state IS
'Life of a physical bucket: meant to exist, exists and is configured, or the last attempt failed and will be repeated.';

CREATE TYPE storage.dedup_scope AS ENUM ('bucket', 'owner', 'off');
COMMENT ON TYPE storage.dedup_scope IS
'Among which verified objects identical bytes are shared: those of the same bucket, those of the same owner (within one physical bucket), or none.';

CREATE TYPE storage.upload_ticket AS (
    upload_id    uuid,
    file_id      uuid,
    deduplicated boolean,
    method       text,
    url          text,
    headers      jsonb,
    expires_at   timestamptz
);
COMMENT ON TYPE storage.upload_ticket IS
'What a client needs to upload: send the body with method to url with exactly these headers before expires_at, then confirm upload_id. When deduplicated, the file exists already and url, headers and expires_at are NULL.';

CREATE TYPE storage.signed_url AS (
    file_id    uuid,
    url        text,
    expires_at timestamptz
);
COMMENT ON TYPE storage.signed_url IS
'A presigned download URL of one file. Whoever holds it can read the file until expires_at.';

CREATE TYPE storage.bucket_inspection AS (
    physical_name       text,
    "exists"            boolean,
    public_access_block jsonb,
    policy              jsonb,
    cors                jsonb,
    lifecycle           jsonb,
    versioning          jsonb
);
COMMENT ON TYPE storage.bucket_inspection IS
'A physical bucket as the store describes it, read back and not remembered. A part the store lacks reads {"unsupported": reason}.';

CREATE TYPE storage.check_result AS (
    name   text,
    status text,
    detail text,
    hint   text
);
COMMENT ON TYPE storage.check_result IS
'One finding of storage.check(): status is ok, warn or fail; hint says what to do about it.';

CREATE TYPE storage.cache_statistics AS (
    shared        boolean,
    capacity      integer,
    entries       integer,
    hits          bigint,
    misses        bigint,
    provisionings bigint,
    evictions     bigint
);
COMMENT ON TYPE storage.cache_statistics IS
'Counters of the cache of provisioned buckets since the server (shared) or the session (not shared) started.';

CREATE TYPE storage.provisioned_bucket AS (
    physical_name text,
    endpoint      text,
    generation    bigint,
    direct        boolean
);
COMMENT ON TYPE storage.provisioned_bucket IS
'One entry of the cache: a physical bucket of this database that is known to be ready, and whether uploads go straight to their final key.';

CREATE TYPE storage.maintenance_report AS (
    uploads_expired  bigint,
    files_expired    bigint,
    objects_deleted  bigint,
    deletions_failed bigint
);
COMMENT ON TYPE storage.maintenance_report IS
'What one pass of storage.run_maintenance() did, in rows and objects.';

CREATE TYPE storage_private.admission AS (
    id            uuid,
    file_id       uuid,
    tenant_id     text,
    physical_name text,
    object_key    text,
    direct        boolean,
    create_only   boolean,
    created_at    timestamptz,
    expires_at    timestamptz
);
COMMENT ON TYPE storage_private.admission IS 'The trusted columns of an upload request that was found acceptable.';
