//! The caller as the claims say it, for every shape that claims come in.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::identity;

    fn claim(name: &str, value: &str) {
        Spi::run_with_args("SELECT set_config($1, $2, true)", &[name.into(), value.into()]).unwrap();
    }

    fn role() -> String {
        super::super::text("SELECT current_user::text").unwrap()
    }

    #[pg_test]
    fn claims_that_are_no_json_object_are_refused() {
        for claims in ["{", "null", "7", "\"ada\"", "[{\"sub\": \"ada\"}]", "{\"sub\": 1e999}"] {
            claim("request.jwt.claims", claims);
            for refusal in [identity::user(), identity::tenant()] {
                assert!(refusal.unwrap_err().summary().starts_with("TENANT_REQUIRED: "), "{claims}");
            }
        }
    }

    #[pg_test]
    fn claims_without_the_member_name_nobody() {
        for claims in ["", "{}", "{\"SUB\": \"ada\"}"] {
            claim("request.jwt.claims", claims);
            assert_eq!(identity::user().unwrap(), role(), "{claims}");
            assert_eq!(identity::tenant().unwrap(), "default", "{claims}");
        }
        claim("request.jwt.claims", "{\"sub\": {\"sub\": \"ada\"}}");
        assert!(identity::user().is_err(), "a member that says nothing is not one that is missing");
    }

    #[pg_test]
    fn numbers_are_taken_as_they_are_written() {
        for (number, user) in [("7", "7"), ("-1", "-1"), ("18446744073709551615", "18446744073709551615")] {
            claim("request.jwt.claims", &format!("{{\"sub\": {number}}}"));
            assert_eq!(identity::user().unwrap(), user);
        }
    }

    #[pg_test]
    fn any_text_is_a_name() {
        for name in ["o'hara", "Ünïcödé 🙂", "a b", "../x", &"x".repeat(2000)] {
            claim("jwt.claims.user_id", name);
            claim("jwt.claims.tenant_id", name);
            assert_eq!(identity::user().unwrap(), name);
            assert_eq!(identity::tenant().unwrap(), name);
            let bucket = super::super::text("SELECT (storage.create_bucket('docs')).owner_id");
            assert_eq!(bucket.as_deref(), Some(name));
        }
    }

    #[pg_test]
    fn escapes_in_the_json_are_read() {
        claim("request.jwt.claims", r#"{"sub": "\u00e9\"x"}"#);
        assert_eq!(identity::user().unwrap(), "é\"x");
    }

    #[pg_test]
    fn the_user_of_a_definer_function_is_its_owner_unless_claims_name_one() {
        Spi::run(
            "CREATE ROLE identity_test;
             CREATE FUNCTION pg_temp.whoami() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT storage.current_user_id()';
             SELECT storage.grant_access('identity_test', 'reader')",
        )
        .unwrap();
        let owner = role();
        Spi::run("SET LOCAL ROLE identity_test").unwrap();
        let whoami = || super::super::text("SELECT pg_temp.whoami()").unwrap();
        assert_eq!(whoami(), owner);
        assert_eq!(identity::user().unwrap(), "identity_test");
        claim("jwt.claims.user_id", "ada");
        assert_eq!(whoami(), "ada");
    }
}
