//! Settings: documented, bounded, refused where they are set, and secret where they are secrets.

#![allow(unsafe_code)]

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::ffi::CStr;

    use pgrx::prelude::*;

    use super::super::{raised, text};
    use crate::guc;

    #[pg_test]
    fn every_setting_is_described() {
        let silent = "SELECT string_agg(name, ', ') FROM pg_settings WHERE name LIKE 'pg\\_storage.%' AND short_desc = ''";
        assert_eq!(text(silent), None);
        let users = "SELECT string_agg(name, ', ') FROM pg_settings WHERE name LIKE 'pg\\_storage.%' AND context = 'user'";
        assert_eq!(text(users), None, "a setting that anybody may change");
    }

    #[pg_test]
    fn defaults_are_the_documented_ones() {
        for (name, default, unit) in [
            ("upload_url_ttl", "900", Some("s")),
            ("download_url_ttl", "3600", Some("s")),
            ("download_url_period", "0", Some("s")),
            ("deletion_delay", "86400", Some("s")),
            ("max_pending_uploads", "0", None),
            ("upload_rate", "0", None),
            ("max_bulk_files", "100", None),
            ("connect_timeout", "3000", Some("ms")),
            ("request_timeout", "30000", Some("ms")),
            ("max_attempts", "3", None),
            ("force_path_style", "on", None),
            ("allow_insecure", "off", None),
            ("bucket_layout", "tenant", None),
            ("user_id_setting", "jwt.claims.user_id", None),
            ("tenant_id_setting", "jwt.claims.tenant_id", None),
            ("default_tenant", "default", None),
            ("identity_source", "claims", None),
            ("tenant", "", None),
            ("allowed_origins", "", None),
            ("fixed_bucket", "", None),
        ] {
            let column = |column: &str| {
                text(&format!("SELECT {column} FROM pg_settings WHERE name = 'pg_storage.{name}'"))
            };
            assert_eq!(column("coalesce(boot_val, '')").as_deref(), Some(default), "{name}");
            assert_eq!(column("unit").as_deref(), unit, "{name}");
        }
        assert_eq!(text("SHOW pg_storage.max_file_size").as_deref(), Some("200MB"));
        assert_eq!(text("SHOW pg_storage.max_bulk_size").as_deref(), Some("1GB"));
    }

    #[pg_test]
    fn bad_values_are_refused_where_they_are_set_and_not_repeated() {
        for (name, values) in [
            (
                "endpoint",
                &[
                    "hunter2",
                    "ftp://x",
                    "http://",
                    "http://user:hunter2@host",
                    "http://x?hunter2",
                    "http://x#hunter2",
                ][..],
            ),
            ("public_endpoint", &["hunter2"]),
            ("public_url_base", &["hunter2"]),
            ("region", &["eu west", "a/b", "é"]),
            ("bucket_prefix", &["Hunter2", "-a", "a-", "a_b", "this-prefix-is-too-long"]),
            ("fixed_bucket", &["Hunter2", "ab", "a..b", "192.168.0.1"]),
            ("key_prefix", &["../hunter2", "a//b"]),
            ("allowed_origins", &["hunter2", "https://a.example, hunter2", "https://a.example/path"]),
            ("user_id_setting", &["hunter2", "a.b; c"]),
        ] {
            for value in values {
                let error = raised(&format!("SELECT set_config('pg_storage.{name}', '{value}', true)"));
                assert_eq!(error.sqlstate, "22023", "{name} = {value}: {error:?}");
                assert!(error.message.contains(&format!("pg_storage.{name}")), "{error:?}");
                let words = format!("{} {} {}", error.message, error.detail, error.hint);
                // Origins are no secrets, and a list of them needs to say which.
                assert!(name == "allowed_origins" || !words.contains("hunter2"), "{words}");
            }
        }
    }

    #[pg_test]
    fn numbers_stay_within_their_bounds() {
        for (name, values) in [
            ("upload_url_ttl", &["0", "-1", "604801", "'8d'"][..]),
            ("download_url_ttl", &["0", "-1", "604801"]),
            ("download_url_period", &["-1", "604801"]),
            ("deletion_delay", &["-1"]),
            ("connect_timeout", &["0", "-1", "'1h'"]),
            ("request_timeout", &["0", "-1"]),
            ("max_attempts", &["0", "21"]),
            ("max_file_size", &["0", "-1", "'6TB'"]),
            ("bucket_layout", &["'each'"]),
        ] {
            for value in values {
                let error = raised(&format!("SET LOCAL pg_storage.{name} = {value}"));
                assert_eq!(error.sqlstate, "22023", "{name} = {value}: {error:?}");
            }
        }
        for statement in [
            "SET LOCAL pg_storage.upload_url_ttl = '7d'",
            "SET LOCAL pg_storage.max_file_size = '5TB'",
            "SET LOCAL pg_storage.bucket_layout = 'access'",
            "SET LOCAL pg_storage.endpoint = ''",
            "SET LOCAL pg_storage.endpoint = 'https://s3.example.com'",
        ] {
            Spi::run(statement).unwrap();
        }
    }

    #[pg_test]
    fn an_unknown_setting_of_ours_is_refused() {
        assert_eq!(raised("SET LOCAL pg_storage.endpiont = 'x'").sqlstate, "42602");
    }

    #[pg_test]
    fn secrets_are_set_in_the_file_only_and_never_shown() {
        for name in ["access_key_id", "secret_access_key"] {
            assert_eq!(text(&format!("SHOW pg_storage.{name}")).as_deref(), Some("********"));
            assert_eq!(
                text(&format!("SELECT current_setting('pg_storage.{name}')")).as_deref(),
                Some("********")
            );
            assert_eq!(raised(&format!("SET LOCAL pg_storage.{name} = 'x'")).sqlstate, "55P02");
            let visible = format!(
                "SELECT string_agg(setting || boot_val || reset_val, '') FROM pg_settings WHERE name = 'pg_storage.{name}'"
            );
            assert!(text(&visible).is_none_or(|shown| !shown.contains('x')), "{name}");
        }
        Spi::run("CREATE ROLE guc_test_reader; SET LOCAL ROLE guc_test_reader").unwrap();
        for name in ["access_key_id", "secret_access_key"] {
            assert_eq!(raised(&format!("SHOW pg_storage.{name}")).sqlstate, "42501", "{name}");
        }
    }

    /// As the configuration file does it.
    fn from_file(name: &CStr, value: &CStr) -> bool {
        // SAFETY: C strings in; at WARNING a refusal is an answer and no error.
        let taken = unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SIGHUP,
                pg_sys::GucSource::PGC_S_FILE,
                pg_sys::GucAction::GUC_ACTION_SET,
                true,
                pg_sys::WARNING as i32,
                false,
            )
        };
        taken > 0
    }

    /// What PostgreSQL compares at a reload, and logs when it changed.
    fn stored(name: &CStr) -> String {
        // SAFETY: a C string in, one out that is copied at once.
        unsafe { CStr::from_ptr(pg_sys::GetConfigOption(name.as_ptr(), false, false)) }
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[pg_test]
    fn postgresql_never_keeps_a_secret_where_it_compares_shows_and_logs() {
        for (name, setting) in [
            (c"pg_storage.access_key_id", &guc::ACCESS_KEY_ID),
            (c"pg_storage.secret_access_key", &guc::SECRET_ACCESS_KEY),
        ] {
            assert_eq!((stored(name).as_str(), setting.get()), ("********", None));
            let before = guc::epoch();
            for (value, secret) in [
                (c"hunter2", Some("hunter2")),
                (c"hunter3", Some("hunter3")),
                (c"", None),
                (c"hunter4", Some("hunter4")),
                (c"********", None),
            ] {
                assert!(from_file(name, value));
                assert_eq!((stored(name).as_str(), setting.get().as_deref()), ("********", secret));
            }
            assert_eq!(guc::epoch(), before + 5);
            assert!(from_file(name, c"kept"));
            assert!(!from_file(name, c"not \xff UTF-8"));
            assert_eq!((stored(name).as_str(), setting.get().as_deref()), ("********", Some("kept")));
            assert!(from_file(name, c""));
        }
    }

    #[pg_test]
    fn a_role_without_rights_changes_no_setting() {
        let names = text("SELECT string_agg(name, ',') FROM pg_settings WHERE name LIKE 'pg\\_storage.%' AND context = 'superuser'").unwrap();
        assert!(names.split(',').count() > 15, "{names}");
        Spi::run("CREATE ROLE guc_test_writer; SET LOCAL ROLE guc_test_writer").unwrap();
        for name in names.split(',') {
            assert_eq!(raised(&format!("SET LOCAL {name} TO DEFAULT")).sqlstate, "42501", "{name}");
        }
    }
}
