-- Tables: what is true. Trusted columns (keys, hashes, states, physical names) are written by the
-- server alone; privileges in 90_privileges.sql see to that, triggers below only validate and queue.

CREATE TABLE storage.buckets (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id           text NOT NULL DEFAULT storage.current_tenant_id(),
    owner_id            text DEFAULT storage.current_user_id(),
    key                 text NOT NULL,
    access              storage.bucket_access NOT NULL DEFAULT 'private',
    is_default          boolean NOT NULL DEFAULT false,
    physical_name       text,
    allowed_mime_types  text[],
    max_file_size       bigint CHECK (max_file_size > 0),
    max_total_size      bigint CHECK (max_total_size > 0),
    max_file_count      bigint CHECK (max_file_count > 0),
    allowed_origins     text[],
    upload_url_ttl      interval CHECK (upload_url_ttl BETWEEN '1 second' AND '7 days'),
    download_url_ttl    interval CHECK (download_url_ttl BETWEEN '1 second' AND '7 days'),
    file_ttl            interval CHECK (file_ttl > '0'),
    dedup               storage.dedup_scope NOT NULL DEFAULT 'bucket',
    verify_content_type boolean NOT NULL DEFAULT true,
    metadata            jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    deleted_key         text,
    CONSTRAINT buckets_key_unique UNIQUE NULLS NOT DISTINCT (tenant_id, owner_id, key)
);
CREATE INDEX buckets_deleted ON storage.buckets (deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX buckets_owner_id ON storage.buckets (tenant_id, owner_id);
CREATE INDEX buckets_physical_name ON storage.buckets (physical_name);

-- A first line beginning with @ is for PostGraphile: where a function of ours does the same, it alone is the mutation.
COMMENT ON TABLE storage.buckets IS E'@behavior -insert -delete\nLogical buckets. A row costs nothing: the store is not touched before the first upload.';
COMMENT ON COLUMN storage.buckets.id IS 'Its identity.';
COMMENT ON COLUMN storage.buckets.tenant_id IS 'The tenant it belongs to.';
COMMENT ON COLUMN storage.buckets.owner_id IS 'The user it belongs to; NULL: the tenant as a whole.';
COMMENT ON COLUMN storage.buckets.key IS 'Its name within its owner: 1 to 63 of a-z, 0-9, dot, underscore, hyphen; never like a UUID.';
COMMENT ON COLUMN storage.buckets.access IS 'private, public or temp; fixed once the bucket has been used.';
COMMENT ON COLUMN storage.buckets.is_default IS 'The bucket meant when a call names none; with several a call must name one.';
COMMENT ON COLUMN storage.buckets.physical_name IS 'The bucket in the store; NULL until first use. An operator may preset it; then it is used verbatim.';
COMMENT ON COLUMN storage.buckets.allowed_mime_types IS 'Types accepted, as type/subtype, type/* or */*; NULL or empty accepts all.';
COMMENT ON COLUMN storage.buckets.max_file_size IS 'Largest file in bytes; NULL: pg_storage.max_file_size alone.';
COMMENT ON COLUMN storage.buckets.max_total_size IS 'Sum of all files and pending uploads in bytes; NULL: no limit. Setting a bucket''s first limit, or dropping its last, waits for the transactions that are uploading to it.';
COMMENT ON COLUMN storage.buckets.max_file_count IS 'Number of files and pending uploads; NULL: no limit. Set and dropped like max_total_size.';
COMMENT ON COLUMN storage.buckets.allowed_origins IS 'Origins whose pages may use presigned URLs (CORS), 100 at most; NULL or empty: the tenant''s, else the server''s.';
COMMENT ON COLUMN storage.buckets.upload_url_ttl IS 'Lifetime of upload URLs; NULL: pg_storage.upload_url_ttl.';
COMMENT ON COLUMN storage.buckets.download_url_ttl IS 'Lifetime of download URLs; NULL: pg_storage.download_url_ttl.';
COMMENT ON COLUMN storage.buckets.file_ttl IS 'Files expire this long after their upload was requested; NULL: never (temp: one day).';
COMMENT ON COLUMN storage.buckets.dedup IS 'Among which verified objects identical bytes are shared. Temp buckets never share.';
COMMENT ON COLUMN storage.buckets.verify_content_type IS 'Confirming compares the leading bytes with the declared type.';
COMMENT ON COLUMN storage.buckets.metadata IS 'Anything the application wants to keep; a JSON object.';
COMMENT ON COLUMN storage.buckets.created_at IS 'When the row was made.';
COMMENT ON COLUMN storage.buckets.updated_at IS 'When the row was last changed.';
COMMENT ON COLUMN storage.buckets.deleted_key IS 'The key of a bucket that is being deleted, before it gave that up for another bucket to have.';
COMMENT ON COLUMN storage.buckets.deleted_at IS 'When storage.delete_bucket() was told to delete it with its files: from then on only superusers see it, until maintenance has removed it. NULL: it lives.';

CREATE TABLE storage.tenant_settings (
    tenant_id       text PRIMARY KEY,
    allowed_origins text[]
);
COMMENT ON TABLE storage.tenant_settings IS 'Settings of one tenant, between the bucket''s own and the server''s.';
COMMENT ON COLUMN storage.tenant_settings.tenant_id IS 'The tenant.';
COMMENT ON COLUMN storage.tenant_settings.allowed_origins IS 'CORS origins for buckets that name none, 100 at most; NULL or empty: the server''s.';

CREATE TABLE storage.physical_buckets (
    name               text PRIMARY KEY,
    tenant_id          text,
    access             storage.bucket_access,
    fixed              boolean NOT NULL DEFAULT false,
    key_prefix         text NOT NULL DEFAULT '',
    endpoint           text NOT NULL,
    state              storage.provision_state NOT NULL DEFAULT 'pending',
    desired_generation bigint NOT NULL DEFAULT 1,
    applied_generation bigint NOT NULL DEFAULT 0,
    steps              jsonb NOT NULL DEFAULT '[]',
    allowed_origins    text[],
    last_error         text,
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz,
    provisioned_at     timestamptz,
    emptied_at         timestamptz
);
CREATE INDEX physical_buckets_unready ON storage.physical_buckets (next_attempt_at NULLS FIRST)
    WHERE state <> 'ready' OR applied_generation < desired_generation;
COMMENT ON TABLE storage.physical_buckets IS 'Buckets in the store: meant to exist, or known to. Many logical buckets may share one.';
COMMENT ON COLUMN storage.physical_buckets.name IS 'Name in the store; minted once, then this record wins over the naming rule.';
COMMENT ON COLUMN storage.physical_buckets.tenant_id IS 'The one tenant it serves; NULL: several.';
COMMENT ON COLUMN storage.physical_buckets.access IS 'The one access it serves; NULL: all (a fixed bucket).';
COMMENT ON COLUMN storage.physical_buckets.fixed IS 'True: an operator''s bucket, given by pg_storage.fixed_bucket; it is never created or configured, also when the setting is gone.';
COMMENT ON COLUMN storage.physical_buckets.key_prefix IS 'First part of every key in a fixed bucket, as the setting last said.';
COMMENT ON COLUMN storage.physical_buckets.endpoint IS 'The store that holds it.';
COMMENT ON COLUMN storage.physical_buckets.state IS 'pending, ready or failed.';
COMMENT ON COLUMN storage.physical_buckets.desired_generation IS 'Counts changes of the wanted configuration (CORS).';
COMMENT ON COLUMN storage.physical_buckets.applied_generation IS 'The generation the store was last seen to have; behind desired_generation means: apply again.';
COMMENT ON COLUMN storage.physical_buckets.steps IS 'Each provisioning step of the last attempt: applied, skipped and why, or failed and why; nothing after a failed step was tried.';
COMMENT ON COLUMN storage.physical_buckets.allowed_origins IS 'Web origins (CORS) that the store was last given: those of all buckets on it.';
COMMENT ON COLUMN storage.physical_buckets.last_error IS 'What went wrong last; NULL when the last attempt succeeded.';
COMMENT ON COLUMN storage.physical_buckets.emptied_at IS 'When the store was last seen without it: what was recorded in it before is lost, and shared with no new file.';
COMMENT ON COLUMN storage.physical_buckets.attempts IS 'Failed attempts since the last success.';
COMMENT ON COLUMN storage.physical_buckets.next_attempt_at IS 'Not to be tried ahead of time before this.';
COMMENT ON COLUMN storage.physical_buckets.provisioned_at IS 'When it was last brought to the wanted configuration.';

CREATE TABLE storage.store_capabilities (
    endpoint     text PRIMARY KEY,
    capabilities jsonb NOT NULL,
    probed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE storage.store_capabilities IS 'What each store was seen to enforce. Found by trying; not dumped, a restored server tries again.';
COMMENT ON COLUMN storage.store_capabilities.endpoint IS 'The store.';
COMMENT ON COLUMN storage.store_capabilities.capabilities IS 'Each capability with enforced, ignored, racy or refused; what was not seen enforced counts as not enforced.';
COMMENT ON COLUMN storage.store_capabilities.probed_at IS 'When it was tried.';

CREATE TABLE storage.objects (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    physical_name text NOT NULL,
    -- Here and below: the order of the bytes, in which stores list keys.
    key           text COLLATE "C" NOT NULL,
    bucket_id     uuid REFERENCES storage.buckets ON DELETE SET NULL,
    sha256        bytea CHECK (length(sha256) = 32),
    size          bigint NOT NULL CHECK (size > 0),
    content_type  text NOT NULL,
    etag          text,
    deleting      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT objects_key_unique UNIQUE (physical_name, key)
);
CREATE INDEX objects_sha256 ON storage.objects (sha256, bucket_id);
CREATE INDEX objects_bucket_id ON storage.objects (bucket_id);
COMMENT ON TABLE storage.objects IS 'Immutable byte strings in the store, verified. A key is never reused and never written twice.';
COMMENT ON COLUMN storage.objects.physical_name IS 'The bucket in the store that holds it.';
COMMENT ON COLUMN storage.objects.key IS 'Its key there; made by the server only.';
COMMENT ON COLUMN storage.objects.bucket_id IS 'The bucket it was uploaded to; NULL when that is gone.';
COMMENT ON COLUMN storage.objects.sha256 IS 'Digest of its bytes, verified; NULL only while unverified.';
COMMENT ON COLUMN storage.objects.size IS 'Bytes.';
COMMENT ON COLUMN storage.objects.content_type IS 'The type the store serves it with.';
COMMENT ON COLUMN storage.objects.etag IS 'The store''s entity tag when it was verified.';
COMMENT ON COLUMN storage.objects.deleting IS 'True: the collector has found no file that uses it and is about to remove it, or has; no file can use it any more.';
COMMENT ON COLUMN storage.objects.created_at IS 'When it was recorded.';
COMMENT ON COLUMN storage.objects.id IS 'Its identity.';

CREATE TABLE storage.files (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id           text NOT NULL,
    bucket_id           uuid NOT NULL REFERENCES storage.buckets,
    object_id           uuid NOT NULL REFERENCES storage.objects,
    owner_id            text NOT NULL,
    filename            text NOT NULL,
    path                text,
    version             integer NOT NULL DEFAULT 1,
    -- No foreign key: pg_dump warns of one to the table itself in every dump, and dumps with --inserts would not
    -- restore. The trigger that queues deleted files clears it instead.
    previous_version_id uuid,
    is_current          boolean NOT NULL DEFAULT true,
    content_type        text NOT NULL,
    size                bigint NOT NULL,
    sha256              text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    metadata            jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    expires_at          timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    superseded_at       timestamptz
);
CREATE UNIQUE INDEX files_path_unique ON storage.files (bucket_id, path) WHERE is_current AND path IS NOT NULL;
CREATE INDEX files_versions ON storage.files (bucket_id, path, version) WHERE path IS NOT NULL;
CREATE INDEX files_object_id ON storage.files (object_id);
CREATE INDEX files_bucket_sha256 ON storage.files (bucket_id, sha256);
-- The id, because policies add tenant and owner to every search for one file: without it the planner may well read all
-- the files of a user who has many.
CREATE INDEX files_owner_id ON storage.files (tenant_id, owner_id, id);
CREATE INDEX files_previous_version_id ON storage.files (previous_version_id) WHERE previous_version_id IS NOT NULL;
CREATE INDEX files_expires_at ON storage.files (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE storage.files IS E'@behavior -delete\nWhat users see: a name and metadata over one verified object. A row here always has its bytes. UPDATE of filename, path and metadata and DELETE work as usual.';
COMMENT ON COLUMN storage.files.id IS 'Its identity, known from the upload request on.';
COMMENT ON COLUMN storage.files.tenant_id IS 'The tenant of its bucket.';
COMMENT ON COLUMN storage.files.bucket_id IS 'The logical bucket it is in.';
COMMENT ON COLUMN storage.files.object_id IS 'The object that holds its bytes; several files may share one.';
COMMENT ON COLUMN storage.files.owner_id IS 'The user who uploaded it.';
COMMENT ON COLUMN storage.files.filename IS 'Name offered on download; 1 to 1024 characters, no slash or control character, no extension of another type.';
COMMENT ON COLUMN storage.files.path IS 'Path within the bucket, unique among current versions; NULL: reachable by id only.';
COMMENT ON COLUMN storage.files.version IS 'Counts up with each upload to the same path.';
COMMENT ON COLUMN storage.files.previous_version_id IS 'The file that was current at this path before.';
COMMENT ON COLUMN storage.files.is_current IS 'False once a later upload took the path.';
COMMENT ON COLUMN storage.files.content_type IS 'Declared type, agreed with by name and bytes.';
COMMENT ON COLUMN storage.files.size IS 'Bytes, verified.';
COMMENT ON COLUMN storage.files.sha256 IS 'Digest, 64 lower-case hex, verified.';
COMMENT ON COLUMN storage.files.metadata IS 'Anything the application wants to keep; a JSON object.';
COMMENT ON COLUMN storage.files.expires_at IS 'When it vanishes; NULL: never.';
COMMENT ON COLUMN storage.files.created_at IS 'When it was confirmed.';
COMMENT ON COLUMN storage.files.superseded_at IS 'When a later upload took the path. NULL: it is current, or that was before 0.2.0; then it does not expire by age.';

CREATE TABLE storage.upload_requests (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id     text NOT NULL,
    bucket_id     uuid NOT NULL REFERENCES storage.buckets ON DELETE CASCADE,
    file_id       uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    owner_id      text NOT NULL,
    filename      text NOT NULL,
    path          text,
    content_type  text NOT NULL,
    size          bigint NOT NULL,
    sha256        text,
    physical_name text,
    object_key    text COLLATE "C",
    final_key     text COLLATE "C",
    direct        boolean NOT NULL,
    create_only   boolean NOT NULL,
    method        text NOT NULL DEFAULT 'PUT' CHECK (method IN ('PUT', 'POST', 'MULTIPART')),
    status        storage.upload_status NOT NULL DEFAULT 'requested',
    reason        text,
    details       text,
    metadata      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    expires_in    interval,
    expires_at    timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    claimed_until timestamptz,
    part_size     bigint,
    part_sums     boolean,
    multipart_id  text,
    CONSTRAINT upload_requests_parts CHECK ((method = 'MULTIPART') = (num_nulls(part_size, multipart_id) = 0)),
    CONSTRAINT upload_requests_placed CHECK (num_nulls(physical_name, object_key, final_key) IN (0, 3))
);
CREATE INDEX upload_requests_claimed ON storage.upload_requests (claimed_until) WHERE status = 'requested' AND claimed_until IS NOT NULL;
CREATE INDEX upload_requests_pending ON storage.upload_requests (expires_at) WHERE status = 'requested';
CREATE INDEX upload_requests_pending_of_user ON storage.upload_requests (tenant_id, owner_id) WHERE status = 'requested';
CREATE INDEX upload_requests_object_key ON storage.upload_requests (physical_name, object_key);
CREATE INDEX upload_requests_bucket_id ON storage.upload_requests (bucket_id);
CREATE INDEX upload_requests_owner_id ON storage.upload_requests (tenant_id, owner_id, id);
COMMENT ON TABLE storage.upload_requests IS E'@behavior -insert\nAttempts to bring bytes in. Being allowed to insert here is the permission to upload; the server fills every trusted column.';
COMMENT ON COLUMN storage.upload_requests.id IS 'Its identity: what is confirmed or aborted.';
COMMENT ON COLUMN storage.upload_requests.tenant_id IS 'The tenant of the bucket.';
COMMENT ON COLUMN storage.upload_requests.bucket_id IS 'The logical bucket.';
COMMENT ON COLUMN storage.upload_requests.file_id IS 'The id the file will have; its row appears on success.';
COMMENT ON COLUMN storage.upload_requests.owner_id IS 'The user who asked.';
COMMENT ON COLUMN storage.upload_requests.filename IS 'Name of the file to be.';
COMMENT ON COLUMN storage.upload_requests.path IS 'Path of the file to be, or NULL.';
COMMENT ON COLUMN storage.upload_requests.content_type IS 'Declared type; a signed header.';
COMMENT ON COLUMN storage.upload_requests.size IS 'Declared bytes; a signed header.';
COMMENT ON COLUMN storage.upload_requests.sha256 IS 'Declared digest, 64 lower-case hex, a signed header; NULL: computed when confirmed.';
COMMENT ON COLUMN storage.upload_requests.physical_name IS 'The bucket in the store that the URL names; this and the keys are NULL in a row that was inserted directly before the first use of its bucket.';
COMMENT ON COLUMN storage.upload_requests.object_key IS 'The key that the URL names; no other request has it.';
COMMENT ON COLUMN storage.upload_requests.final_key IS 'The key the object will have; the same where uploads are direct. Else what that key begins with, and no URL names: each confirmation copies to a key of its own below it.';
COMMENT ON COLUMN storage.upload_requests.direct IS 'True: the store enforces the declared digest and create-only, so the key is final. False: the key is staged; confirming copies the bytes and hashes the copy.';
COMMENT ON COLUMN storage.upload_requests.create_only IS 'True: If-None-Match is among the signed headers. False on stores that refuse it.';
COMMENT ON COLUMN storage.upload_requests.method IS 'PUT: one URL; POST: a form, and size is the most it takes; MULTIPART: in parts.';
COMMENT ON COLUMN storage.upload_requests.status IS 'Where it stands.';
COMMENT ON COLUMN storage.upload_requests.reason IS 'Why it was rejected, expired, aborted, or is still waiting.';
COMMENT ON COLUMN storage.upload_requests.details IS 'What was declared and what was found, when these differ.';
COMMENT ON COLUMN storage.upload_requests.metadata IS 'Metadata of the file to be; a JSON object.';
COMMENT ON COLUMN storage.upload_requests.expires_in IS 'Lifetime asked for; NULL: the bucket''s, else the server''s.';
COMMENT ON COLUMN storage.upload_requests.expires_at IS 'When the URL and this request end, by the wall clock.';
COMMENT ON COLUMN storage.upload_requests.created_at IS 'When it was asked for.';
COMMENT ON COLUMN storage.upload_requests.finished_at IS 'When it reached its final status.';
COMMENT ON COLUMN storage.upload_requests.claimed_until IS 'A collector is confirming it, its time being over, and has until then; NULL: nobody is.';
COMMENT ON COLUMN storage.upload_requests.part_size IS 'Bytes of each part but the last, of an upload in parts; else NULL.';
COMMENT ON COLUMN storage.upload_requests.part_sums IS 'True: each part is sent with its SHA-256, which the store enforces; false: it was asked for, and the store does not; NULL: it was not asked for.';
COMMENT ON COLUMN storage.upload_requests.multipart_id IS 'What the store calls an upload in parts; else NULL. It permits nothing without a signature.';

CREATE TABLE storage.object_deletions (
    id            bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    physical_name text NOT NULL,
    key           text COLLATE "C" NOT NULL,
    reason        text NOT NULL,
    not_before    timestamptz NOT NULL,
    claimed_until timestamptz,
    attempts      integer NOT NULL DEFAULT 0,
    last_error    text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    queued_by     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    multipart_id  text
);
-- The queue of each physical bucket, in the order it is worked off. One by time alone would tempt the planner to look
-- for one bucket's jobs among all others'.
CREATE INDEX object_deletions_queue ON storage.object_deletions (physical_name, not_before, id);
-- So those who ask for all that is due ask in words that match no other query.
CREATE INDEX object_deletions_due ON storage.object_deletions ((not_before AT TIME ZONE 'UTC'));
CREATE INDEX object_deletions_claimed ON storage.object_deletions (claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX object_deletions_dead ON storage.object_deletions (id) WHERE attempts > 10;
CREATE INDEX object_deletions_key ON storage.object_deletions (physical_name, key);
COMMENT ON TABLE storage.object_deletions IS 'The outbox: keys to be removed from the store once the transaction that queued them has committed. Nothing is dropped; failures are repeated.';
COMMENT ON COLUMN storage.object_deletions.id IS 'Its identity.';
COMMENT ON COLUMN storage.object_deletions.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.object_deletions.key IS 'The key to be removed, unless a file uses it again by then.';
COMMENT ON COLUMN storage.object_deletions.reason IS 'Why it was queued: file deleted, upload rejected, expired, aborted, staged bytes, late bytes or orphan.';
COMMENT ON COLUMN storage.object_deletions.not_before IS 'Not to be removed before this.';
COMMENT ON COLUMN storage.object_deletions.claimed_until IS 'A collector is at it and has until then; after that, any may take it. NULL: nobody is.';
COMMENT ON COLUMN storage.object_deletions.attempts IS 'Failed attempts so far.';
COMMENT ON COLUMN storage.object_deletions.last_error IS 'What the store said last.';
COMMENT ON COLUMN storage.object_deletions.created_at IS 'When it was queued.';
COMMENT ON COLUMN storage.object_deletions.queued_by IS 'The transaction that queued it; only other transactions collect it, so a ROLLBACK always finds the bytes in place.';
COMMENT ON COLUMN storage.object_deletions.multipart_id IS 'The upload in parts that is to be aborted as well; NULL: none.';

CREATE TABLE storage_private.worker_passes (
    this          boolean PRIMARY KEY DEFAULT true CHECK (this),
    finished_at   timestamptz NOT NULL,
    report        storage.maintenance_report,
    last_error    text,
    last_error_at timestamptz,
    next_pass_at  timestamptz
);
COMMENT ON TABLE storage_private.worker_passes IS 'What this database''s worker did last: one row, written once per pass. Not dumped.';
COMMENT ON COLUMN storage_private.worker_passes.this IS 'Always true: there is one row.';
COMMENT ON COLUMN storage_private.worker_passes.finished_at IS 'When the last pass ended.';
COMMENT ON COLUMN storage_private.worker_passes.report IS 'What it did; NULL: it was refused.';
COMMENT ON COLUMN storage_private.worker_passes.last_error IS 'What went wrong in the last pass in which something did.';
COMMENT ON COLUMN storage_private.worker_passes.last_error_at IS 'When that was.';
COMMENT ON COLUMN storage_private.worker_passes.next_pass_at IS 'When the next pass is due, unless a commit wakes the worker before.';

CREATE TABLE storage_private.policy_switch (
    default_policies boolean PRIMARY KEY CHECK (NOT default_policies)
);
COMMENT ON TABLE storage_private.policy_switch IS 'Holds one row when the default policies are off, none when they are on: an empty table is the default and dumps cleanly.';
COMMENT ON COLUMN storage_private.policy_switch.default_policies IS 'Always false.';

SELECT pg_catalog.pg_extension_config_dump('storage.buckets', '');
SELECT pg_catalog.pg_extension_config_dump('storage.tenant_settings', '');
SELECT pg_catalog.pg_extension_config_dump('storage.physical_buckets', '');
SELECT pg_catalog.pg_extension_config_dump('storage.objects', '');
SELECT pg_catalog.pg_extension_config_dump('storage.files', '');
SELECT pg_catalog.pg_extension_config_dump('storage.upload_requests', '');
SELECT pg_catalog.pg_extension_config_dump('storage.object_deletions', '');
SELECT pg_catalog.pg_extension_config_dump('storage.object_deletions_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('storage_private.policy_switch', '');
