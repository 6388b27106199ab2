-- Types: the enums of the life cycles and the named rows that functions return.
-- Named types, not RETURNS TABLE: GraphQL and REST layers expose a name, not an anonymous record.

-- Keys, names and claims are UTF-8 from end to end: a claim in another encoding would be taken for none at all.
DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'pg_storage needs a database in UTF8',
            DETAIL = pg_catalog.format('The encoding of this database is %s.', pg_catalog.getdatabaseencoding());
    END IF;
END $$;

-- A schema that another role made before us stays that role's: it could plant functions that callers take for ours.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
               WHERE n.nspname OPERATOR(pg_catalog.=) 'storage' AND NOT r.rolsuper) THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'the schema storage belongs to a role that is not a superuser',
            HINT = 'Drop or rename the schema, or give it to a superuser after looking at what is in it.';
    END IF;
END $$;

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

CREATE TYPE storage.event_kind AS ENUM ('created', 'deleted');
COMMENT ON TYPE storage.event_kind IS
'What happened to a file: it came into being with its bytes in place, or it was deleted.';

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
COMMENT ON COLUMN storage.upload_ticket.upload_id IS 'What to confirm or abort.';
COMMENT ON COLUMN storage.upload_ticket.file_id IS 'The id the file has once the upload is confirmed; has at once when deduplicated.';
COMMENT ON COLUMN storage.upload_ticket.deduplicated IS 'True: the bytes were there already, the file exists, nothing is to be sent.';
COMMENT ON COLUMN storage.upload_ticket.method IS 'HTTP method to send the body with.';
COMMENT ON COLUMN storage.upload_ticket.url IS 'Where to send it; whoever holds it may upload. NULL when deduplicated.';
COMMENT ON COLUMN storage.upload_ticket.headers IS 'The headers to send, exactly these; name to value. NULL when deduplicated.';
COMMENT ON COLUMN storage.upload_ticket.expires_at IS 'When the URL ends. NULL when deduplicated.';

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

CREATE TYPE storage.signed_url AS (
    file_id    uuid,
    url        text,
    expires_at timestamptz
);
COMMENT ON TYPE storage.signed_url IS
'A presigned download URL of one file. Whoever holds it can read the file until expires_at.';
COMMENT ON COLUMN storage.signed_url.file_id IS 'The file.';
COMMENT ON COLUMN storage.signed_url.url IS 'The URL.';
COMMENT ON COLUMN storage.signed_url.expires_at IS 'When it ends.';

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
COMMENT ON COLUMN storage.bucket_inspection.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.bucket_inspection."exists" IS 'Whether the store has it.';
COMMENT ON COLUMN storage.bucket_inspection.public_access_block IS 'Its public-access block.';
COMMENT ON COLUMN storage.bucket_inspection.policy IS 'Its policy.';
COMMENT ON COLUMN storage.bucket_inspection.cors IS 'Its CORS rules.';
COMMENT ON COLUMN storage.bucket_inspection.lifecycle IS 'Its lifecycle rules.';
COMMENT ON COLUMN storage.bucket_inspection.versioning IS 'Its versioning.';

CREATE TYPE storage.check_result AS (
    name   text,
    status text,
    detail text,
    hint   text
);
COMMENT ON TYPE storage.check_result IS
'One finding of storage.check(): status is ok, warn or fail; hint says what to do about it.';
COMMENT ON COLUMN storage.check_result.name IS 'What was examined.';
COMMENT ON COLUMN storage.check_result.status IS 'ok, warn or fail.';
COMMENT ON COLUMN storage.check_result.detail IS 'What was found.';
COMMENT ON COLUMN storage.check_result.hint IS 'What to do about it.';

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
COMMENT ON COLUMN storage.cache_statistics.shared IS 'Whether all sessions share it; false without preload.';
COMMENT ON COLUMN storage.cache_statistics.capacity IS 'Entries there is room for.';
COMMENT ON COLUMN storage.cache_statistics.entries IS 'Entries it holds, of this database.';
COMMENT ON COLUMN storage.cache_statistics.hits IS 'Look-ups that found an entry.';
COMMENT ON COLUMN storage.cache_statistics.misses IS 'Look-ups that did not.';
COMMENT ON COLUMN storage.cache_statistics.provisionings IS 'Times that a physical bucket was brought to its configuration.';
COMMENT ON COLUMN storage.cache_statistics.evictions IS 'Entries removed: no room, changed, gone from the store, or reset.';

CREATE TYPE storage.provisioned_bucket AS (
    physical_name text,
    endpoint      text,
    generation    bigint,
    direct        boolean
);
COMMENT ON TYPE storage.provisioned_bucket IS
'One entry of the cache: a physical bucket of this database that is known to be ready, and whether uploads go straight to their final key.';
COMMENT ON COLUMN storage.provisioned_bucket.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.provisioned_bucket.endpoint IS 'The store.';
COMMENT ON COLUMN storage.provisioned_bucket.generation IS 'Generation of the configuration that it is known to have.';
COMMENT ON COLUMN storage.provisioned_bucket.direct IS 'Whether uploads with a declared digest go straight to their final key.';

CREATE TYPE storage.maintenance_report AS (
    uploads_expired     bigint,
    uploads_confirmed   bigint,
    files_expired       bigint,
    objects_deleted     bigint,
    deletions_failed    bigint,
    buckets_provisioned bigint,
    buckets_deleted     bigint,
    orphans_queued      bigint,
    multiparts_aborted  bigint,
    events_announced    bigint,
    events_removed      bigint
);
COMMENT ON TYPE storage.maintenance_report IS
'What one pass of maintenance did, in rows and objects.';
COMMENT ON COLUMN storage.maintenance_report.uploads_expired IS 'Pending uploads that were ended.';
COMMENT ON COLUMN storage.maintenance_report.uploads_confirmed IS 'Pending uploads that nobody confirmed, whose bytes were right and that were accepted.';
COMMENT ON COLUMN storage.maintenance_report.files_expired IS 'Files past their time that were deleted.';
COMMENT ON COLUMN storage.maintenance_report.objects_deleted IS 'Objects removed from the store.';
COMMENT ON COLUMN storage.maintenance_report.deletions_failed IS 'Deletions put back for later.';
COMMENT ON COLUMN storage.maintenance_report.buckets_provisioned IS 'Physical buckets brought to their wanted configuration.';
COMMENT ON COLUMN storage.maintenance_report.buckets_deleted IS 'Buckets that were being deleted with their files, and are gone.';
COMMENT ON COLUMN storage.maintenance_report.orphans_queued IS 'Keys in the store that no row knew, queued for deletion.';
COMMENT ON COLUMN storage.maintenance_report.multiparts_aborted IS 'Multipart uploads that nobody completed, aborted.';
COMMENT ON COLUMN storage.maintenance_report.events_announced IS 'Events whose notification was sent.';
COMMENT ON COLUMN storage.maintenance_report.events_removed IS 'Events past their time that were removed.';

