//! Statements as the caller and as the owner: rights and search path come back, and reading assigns no transaction id.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::super::text;
    use crate::catalog;
    use crate::error::{Failure, Result};

    fn who_and_where(as_owner: bool) -> Result<Vec<String>> {
        let ask = || {
            catalog::read(
                "SELECT ARRAY[current_user::pg_catalog.text, pg_catalog.current_setting('search_path')]",
                &[],
                |rows| Ok(rows.first().get_one()?.unwrap_or_default()),
            )
        };
        if as_owner { catalog::as_owner(ask) } else { ask() }
    }

    fn become_somebody() -> Vec<String> {
        Spi::run(
            "CREATE ROLE catalog_test; SET LOCAL ROLE catalog_test; SET LOCAL search_path = public, storage",
        )
        .unwrap();
        vec!["catalog_test".to_owned(), "public, storage".to_owned()]
    }

    #[pg_test]
    fn the_owners_rights_and_path_last_for_one_statement() {
        let owner = text("SELECT current_user::text").unwrap();
        let caller = become_somebody();
        for _ in 0..3 {
            assert_eq!(who_and_where(false).unwrap(), caller);
            assert_eq!(who_and_where(true).unwrap(), [owner.as_str(), "pg_catalog, pg_temp"]);
        }
        assert_eq!(who_and_where(false).unwrap(), caller);
    }

    #[pg_test]
    fn a_failure_or_an_error_inside_gives_the_rights_back() {
        let caller = become_somebody();
        let failed: Result<()> = catalog::as_owner(|| Err(Failure::internal("on purpose")));
        assert!(failed.is_err());
        assert_eq!(who_and_where(false).unwrap(), caller);

        let caught = PgTryBuilder::new(|| {
            let _ = catalog::run_as_owner("SELECT 1 OPERATOR(pg_catalog./) 0", &[]);
            false
        })
        .catch_when(PgSqlErrorCode::ERRCODE_DIVISION_BY_ZERO, |_| true)
        .execute();
        assert!(caught);
        assert_eq!(text("SELECT current_user::text").as_deref(), Some("catalog_test"));
    }

    #[pg_test]
    fn the_owners_rights_can_be_nested() {
        let caller = become_somebody();
        let inner = catalog::as_owner(|| {
            let inner = who_and_where(true)?;
            assert_eq!(who_and_where(false)?, inner);
            Ok(inner)
        });
        assert_eq!(inner.unwrap()[1], "pg_catalog, pg_temp");
        assert_eq!(who_and_where(false).unwrap(), caller);
    }

    #[pg_test]
    fn set_role_is_forbidden_while_the_owners_rights_last() {
        become_somebody();
        let caught = PgTryBuilder::new(|| {
            let _ = catalog::as_owner(|| Spi::run("SET LOCAL ROLE catalog_test").map_err(Failure::from));
            false
        })
        .catch_when(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, |_| true)
        .execute();
        assert!(caught);
    }
}
