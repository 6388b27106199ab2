//! The rate of a user: one bucket for each database, tenant and user, kept outside transactions.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::rate;

    /// How many uploads the user may ask for without a pause.
    fn burst(tenant: &str, user: &str) -> usize {
        (0..).take_while(|_| rate::spend(tenant, user).is_ok()).count()
    }

    #[pg_test]
    fn each_user_of_each_tenant_has_a_burst_of_its_own() {
        Spi::run("SET LOCAL pg_storage.upload_rate = 2").unwrap();
        for (tenant, user) in
            [("rate", "ada"), ("rate", "bob"), ("ratea", "da"), ("", "rateada"), ("rate", "")]
        {
            assert_eq!(burst(tenant, user), 2, "'{tenant}' '{user}'");
        }
        let failure = rate::spend("rate", "ada").unwrap_err();
        assert_eq!(failure.summary(), "RATE_LIMIT: too many uploads were asked for");
        assert!(failure.details().is_some_and(|detail| !detail.contains("ada")), "it names nobody");
        assert!(failure.advice().is_some());
    }

    #[pg_test]
    fn a_savepoint_that_is_rolled_back_gives_nothing_back() {
        Spi::run(
            "SET LOCAL pg_storage.upload_rate = 1;
             SELECT storage.create_user_buckets('rate-savepoint');
             SET LOCAL jwt.claims.user_id = 'rate-savepoint'",
        )
        .unwrap();
        // The first one is inserted and rolled back with the error that follows it.
        let insert = "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                      SELECT id, 'a.txt', 'text/plain', 5 FROM storage.buckets
                      WHERE owner_id = 'rate-savepoint' AND key = 'private';";
        let rolled_back = super::super::raised(&format!("DO $do$ BEGIN {insert} RAISE 'undone'; END $do$"));
        assert_eq!(rolled_back.message, "undone");
        let refused = super::super::raised(&format!("DO $do$ BEGIN {insert} END $do$"));
        assert_eq!(refused.sqlstate, "53400", "{refused:?}");
        assert!(refused.message.starts_with("RATE_LIMIT: "), "{refused:?}");
    }

    #[pg_test]
    fn without_a_limit_everybody_asks_as_often_as_they_like() {
        for _ in 0..1000 {
            rate::spend("rate", "unlimited").unwrap();
        }
        Spi::run("SET LOCAL pg_storage.upload_rate = 3").unwrap();
        assert_eq!(burst("rate", "unlimited"), 3, "and none of it is held against them later");
    }
}
