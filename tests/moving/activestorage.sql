-- The tables of ActiveStorage with a few rows; the objects are in the store, see tests/docs.rs.
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE active_storage_blobs (
    id           bigserial PRIMARY KEY,
    key          character varying NOT NULL UNIQUE,
    filename     character varying NOT NULL,
    content_type character varying,
    metadata     text,
    service_name character varying NOT NULL,
    byte_size    bigint NOT NULL,
    checksum     character varying,
    created_at   timestamp(6) without time zone NOT NULL
);
CREATE TABLE active_storage_attachments (
    id          bigserial PRIMARY KEY,
    name        character varying NOT NULL,
    record_type character varying NOT NULL,
    record_id   bigint NOT NULL,
    blob_id     bigint NOT NULL REFERENCES active_storage_blobs,
    created_at  timestamp(6) without time zone NOT NULL,
    UNIQUE (record_type, record_id, name, blob_id)
);
INSERT INTO users VALUES (1, 'Ada'), (2, 'Charles');
INSERT INTO active_storage_blobs (key, filename, content_type, metadata, service_name, byte_size, checksum, created_at)
SELECT key, filename, 'text/plain', '{"identified":true,"analyzed":true}', 'amazon', length(content),
       encode(decode(md5(claimed), 'hex'), 'base64'), '2024-05-01 10:00:00'
FROM (VALUES ('4hv2zqkq0kpbn1v8wqy3c5lm7d9r', 'letter.txt', 'Dear Charles,', 'Dear Charles,'),
             ('9f3kd81bqz0x7vnm2wprty5l6c4h', 'note.txt', 'Note G', 'Note G'),
             ('c7n1w0x5rk8ypqz2mvt9d6lf3b4j', 'engine.txt', 'The Engine', 'The Engine'),
             ('z1x2c3v4b5n6m7k8l9p0q1w2e3r4', 'torn.txt', 'torn at sea', 'as sent off')) AS b(key, filename, content, claimed);
INSERT INTO active_storage_attachments (name, record_type, record_id, blob_id, created_at)
SELECT 'documents', 'User', CASE WHEN filename IN ('letter.txt', 'note.txt') THEN 1 ELSE 2 END, id, created_at FROM active_storage_blobs;
