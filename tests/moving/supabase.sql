-- What Supabase Storage keeps of buckets and objects, with a few rows; the objects are in the store, see tests/docs.rs.
CREATE SCHEMA storage;
CREATE TABLE storage.buckets (
    id                 text PRIMARY KEY,
    name               text NOT NULL UNIQUE,
    owner              uuid,
    created_at         timestamptz DEFAULT now(),
    updated_at         timestamptz DEFAULT now(),
    public             boolean DEFAULT false,
    avif_autodetection boolean DEFAULT false,
    file_size_limit    bigint,
    allowed_mime_types text[],
    owner_id           text
);
CREATE TABLE storage.objects (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    bucket_id        text REFERENCES storage.buckets,
    name             text,
    owner            uuid,
    created_at       timestamptz DEFAULT now(),
    updated_at       timestamptz DEFAULT now(),
    last_accessed_at timestamptz DEFAULT now(),
    metadata         jsonb,
    path_tokens      text[] GENERATED ALWAYS AS (string_to_array(name, '/')) STORED,
    version          text,
    owner_id         text,
    user_metadata    jsonb
);
INSERT INTO storage.buckets (id, name, public, file_size_limit, allowed_mime_types) VALUES
    ('avatars', 'avatars', true, 1048576, '{image/*}'),
    ('My Documents', 'My Documents', false, NULL, NULL);
INSERT INTO storage.objects (id, bucket_id, name, owner_id, version, metadata, created_at)
SELECT id::uuid, bucket_id, name, owner_id, version,
       jsonb_build_object('eTag', format('"%s"', md5(content)), 'size', length(content), 'mimetype', mimetype,
                          'cacheControl', 'max-age=3600', 'lastModified', '2024-05-01T10:00:00.000Z',
                          'contentLength', length(content), 'httpStatusCode', 200),
       '2024-05-01 10:00:00+00'
FROM (VALUES
    ('a0000000-0000-4000-8000-000000000001', 'My Documents', 'letters/Dear Charles.txt', '11111111-1111-4111-8111-111111111111', 'v1', 'text/plain', 'Dear Charles,'),
    ('a0000000-0000-4000-8000-000000000002', 'My Documents', 'notes/G.txt', '11111111-1111-4111-8111-111111111111', 'v2', 'text/plain', 'Note G'),
    ('a0000000-0000-4000-8000-000000000003', 'My Documents', 'engine.txt', '22222222-2222-4222-8222-222222222222', 'v3', 'text/plain', 'The Engine'),
    ('a0000000-0000-4000-8000-000000000004', 'My Documents', 'lost.txt', '22222222-2222-4222-8222-222222222222', 'v4', 'text/plain', 'lost'),
    ('a0000000-0000-4000-8000-000000000005', 'avatars', 'ada.svg', '11111111-1111-4111-8111-111111111111', 'v5', 'image/svg+xml', '<svg/>')
) AS o(id, bucket_id, name, owner_id, version, mimetype, content);
