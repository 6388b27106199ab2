-- Comments on the functions that the library brings; those written in SQL have theirs beside them.

COMMENT ON FUNCTION storage_private.claimed_user() IS 'The caller''s user id as the claims say it, else the role''s name. Errors: TENANT_REQUIRED for claims that cannot be read.';
COMMENT ON FUNCTION storage_private.claimed_tenant() IS 'The caller''s tenant as the claims say it, else the default. Errors: TENANT_REQUIRED, also for claims that cannot be read.';
COMMENT ON FUNCTION storage_private.asked_operation() IS 'What is asking: read, list, sign or upload.';
COMMENT ON FUNCTION storage_private.validate_expression(text) IS 'Refuses a text that is not one SQL expression, without looking anything up or running it.';
COMMENT ON FUNCTION storage_private.refuse(text, text, text, text) IS
'Ends the statement with an error in the house style: the token''s SQLSTATE, message, DETAIL and HINT.';
COMMENT ON FUNCTION storage_private.require_writable() IS 'Refuses to go on where nothing can be written. Errors: READ_ONLY.';
COMMENT ON FUNCTION storage_private.deletion_delay() IS 'How long an object outlives its last file.';
COMMENT ON FUNCTION storage_private.event_retention() IS 'How long events are kept; nothing: they are not recorded.';
COMMENT ON FUNCTION storage_private.validate_bucket(text, text[], text[], text) IS
'Refuses a bucket row that breaks the rules. Errors: INVALID_BUCKET_KEY, INVALID_CONTENT_TYPE, INVALID_ORIGIN.';
COMMENT ON FUNCTION storage_private.validate_origins(text[]) IS 'Refuses origins that are none. Errors: INVALID_ORIGIN.';
COMMENT ON FUNCTION storage_private.hold_lock(text, text) IS
'Waits for the lock of this kind and name and holds it until the transaction ends. pg_locks shows it as an advisory one, but it is beyond the reach of their functions, and nobody can choose a name that shares the lock of another: whoever runs SQL could keep others out.';
COMMENT ON FUNCTION storage_private.try_hold_lock(text, text) IS
'As hold_lock(), without waiting; false: another session has it.';
COMMENT ON FUNCTION storage_private.is_locked(text, text) IS
'Whether another session has a lock of hold_lock().';
COMMENT ON FUNCTION storage_private.validate_file(text, text) IS
'Refuses a file name or path that breaks the rules. Errors: INVALID_FILENAME, INVALID_PATH.';
COMMENT ON FUNCTION storage_private.validate_rename(text, text) IS
'Refuses a file name whose extension contradicts the file''s type. Errors: UPLOAD_TYPE_MISMATCH.';
COMMENT ON FUNCTION storage_private.find_bucket(text) IS
'The bucket meant by a key or id among those the caller can see: its own first, then the tenant''s; NULL means the one default. Errors: BUCKET_NOT_FOUND, DEFAULT_BUCKET_MISSING, DEFAULT_BUCKET_AMBIGUOUS, TENANT_REQUIRED.';
COMMENT ON FUNCTION storage_private.admit_upload() IS
'Trigger: validates an upload request, in a bucket that the caller can see, and fills what only the server may choose. Asks no store and makes nothing ready: without a place before the first use. Errors: those of storage.request_upload_url() that need no store.';
COMMENT ON FUNCTION storage_private.limit_upload() IS
'Trigger: refuses an upload request that was admitted in this transaction and goes beyond a limit, else reserves its room and spends its turn. Errors: PATH_TAKEN, TOO_MANY_PENDING_UPLOADS, QUOTA_EXCEEDED, RATE_LIMIT.';
COMMENT ON FUNCTION storage_private.open_upload(text, text, text, bigint, text, text, jsonb, interval) IS
'Inserts an upload request as the caller and gives the ticket for it.';
COMMENT ON FUNCTION storage_private.open_form(text, text, text, bigint, text, jsonb, interval) IS
'Inserts an upload request as the caller and gives the form for it.';
COMMENT ON FUNCTION storage_private.open_parts(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean) IS
'Inserts an upload request as the caller and has the store begin an upload in parts for it.';
COMMENT ON FUNCTION storage_private.sign_parts(uuid, integer[], text[]) IS
'URLs for parts of an upload of the caller''s own, in input order.';
COMMENT ON FUNCTION storage_private.arrived_parts(uuid) IS
'The parts of an upload of the caller''s own, and which of them the store has.';
COMMENT ON FUNCTION storage_private.open_uploads(text, text[], text[], bigint[], text[], text[], jsonb[]) IS
'Inserts many upload requests as the caller, all or none, and gives their tickets in the same order. The lists say the same of the same file at the same place.';
COMMENT ON FUNCTION storage_private.confirm(uuid) IS
'Asks the store what arrived and settles an upload that the caller can see. Errors: UPLOAD_NOT_FOUND.';
COMMENT ON FUNCTION storage_private.confirm_all(uuid[]) IS
'Asks the store what arrived and settles uploads, all of which the caller can see. Errors: UPLOAD_NOT_FOUND.';
COMMENT ON FUNCTION storage_private.abort(uuid) IS
'Ends a pending upload that the caller can see. Errors: UPLOAD_NOT_FOUND, UPLOAD_NOT_PENDING.';
COMMENT ON FUNCTION storage_private.sign_downloads(uuid[], interval, boolean, text) IS
'Presigned URLs of those of the files that the caller can see, in the order given.';
COMMENT ON FUNCTION storage_private.unsigned_url(uuid) IS
'The stable URL of a file in a public bucket that the caller can see. Errors: FILE_NOT_FOUND, NOT_PUBLIC.';
COMMENT ON FUNCTION storage_private.list_page(uuid, text, text, integer, text, text) IS
'A page of the files of a bucket that the caller may list. Errors: INVALID_LIMIT, INVALID_DELIMITER, INVALID_PAGE_TOKEN.';
COMMENT ON FUNCTION storage_private.put(uuid, text, bytea, text, text, jsonb) IS
'Makes a file of bytes and gives its id. Errors: those of storage.put_file().';
COMMENT ON FUNCTION storage_private.get(uuid) IS
'The bytes of a file that the caller may download. Errors: those of storage.get_file().';
COMMENT ON FUNCTION storage_private.copy(uuid, uuid, text, text) IS
'Makes a second file with the bytes of one that the caller may download, and gives its id. Errors: those of storage.copy_file().';
COMMENT ON FUNCTION storage_private.relocate(uuid, uuid, text, boolean) IS
'Moves a file that the caller may change. with_earlier: the earlier versions of its path that have the same owner go first, and stay earlier. Errors: those of storage.move_file().';
COMMENT ON FUNCTION storage_private.search(uuid, text, integer, uuid) IS
'The ids of files that are described so and that the caller may list. Errors: those of storage.search_files().';
COMMENT ON FUNCTION storage_private.look_at_objects(text, boolean, text[], bigint[], text[], text[]) IS
'Looks at objects of a physical bucket that others brought in, one row for each in order: why no file can be made of it, or what it is. Errors: NOT_CONFIGURED, BULK_UPLOAD_FILES_EXCEEDED.';
COMMENT ON FUNCTION storage_private.keeper_of(text) IS
'The endpoint of the store, which has this bucket. Errors: BUCKET_NOT_FOUND, NOT_CONFIGURED, those of the store.';
COMMENT ON FUNCTION storage_private.provision(uuid) IS
'Provisions a bucket that the caller can see, now, and gives the name of its physical bucket. Errors: BUCKET_NOT_FOUND.';
COMMENT ON FUNCTION storage_private.inspect_bucket(uuid) IS
'What the store says of the physical bucket of a bucket that the caller can see. Errors: BUCKET_NOT_FOUND.';
COMMENT ON FUNCTION storage_private.mark_bucket_deleted(uuid) IS
'Marks a bucket that the caller may delete as deleted, whatever it holds, and gives the time. Errors: BUCKET_NOT_FOUND, RBAC_FORBIDDEN.';
COMMENT ON FUNCTION storage_private.is_being_marked(uuid) IS 'Whether this session is just having a bucket marked as deleted; for the trigger that does it.';
COMMENT ON FUNCTION storage_private.maintain() IS 'One pass of everything the worker does.';
COMMENT ON FUNCTION storage_private.scan(text, interval, boolean) IS 'Compares a physical bucket with the tables, both ways, a page at a time.';
COMMENT ON FUNCTION storage_private.diagnose() IS 'Findings about settings, store and what it enforces.';
COMMENT ON FUNCTION storage_private.cache_statistics() IS 'Counters of the cache of provisioned buckets.';
COMMENT ON FUNCTION storage_private.cache_entries() IS 'Entries of the cache that belong to this database.';
COMMENT ON FUNCTION storage_private.clear_cache() IS 'Empties the cache of this database.';
COMMENT ON FUNCTION storage_private.forget_at_commit(text) IS 'Forgets a physical bucket once this transaction commits.';
COMMENT ON FUNCTION storage_private.start_worker() IS 'Starts a worker for the current database and gives its process id. Errors: WORKER_RUNNING, NO_WORKER_SLOT.';
COMMENT ON FUNCTION storage_private.wake_worker() IS 'Wakes the worker of this database once this transaction commits.';
