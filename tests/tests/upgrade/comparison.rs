//! What two databases hold that have nothing but the extension in them, and in what they differ.

use postgres::Client;
use std::collections::BTreeSet;

/// Objects and what is true of them: definition, privileges, comment, rows.
#[derive(Debug)]
pub struct Facts(BTreeSet<(String, String)>);

impl Facts {
    pub fn of(session: &mut Client) -> Self {
        // Names are written in full when no schema is on the path.
        session.batch_execute("SET search_path = pg_catalog").unwrap();
        let rows = session.query(include_str!("facts.sql"), &[]).unwrap();
        Self(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One line for each fact that only one of the two knows: `+` is missing here, `-` is here and should not be.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let line = |sign: &str, (object, fact): &(String, String)| format!("{sign} {object}: {fact}");
        let mut lines: Vec<(String, String)> = Vec::new();
        lines.extend(self.0.difference(&wanted.0).map(|fact| (fact.0.clone(), line("-", fact))));
        lines.extend(wanted.0.difference(&self.0).map(|fact| (fact.0.clone(), line("+", fact))));
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }
}
