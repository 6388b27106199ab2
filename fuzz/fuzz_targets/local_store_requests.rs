#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pg_storage_fuzz::run("local_store_requests", data));
