//! The table of what came of every case, as docs/abuse.md has it.

use crate::cases::Case;
use crate::judge::Outcome;
use pg_storage_tests::Ceph;
use std::fmt::Write as _;
use std::path::Path;

const FILE: &str = "docs/abuse.md";
const REGENERATE: &str = "PG_STORAGE_WRITE_DOCS=1 make test-one T=in_the_wrong_hands";

/// What came of every case on one store.
pub struct Column {
    store: &'static str,
    rows: Vec<Row>,
}

struct Row {
    group: String,
    name: String,
    outcome: Outcome,
}

impl Column {
    pub fn new(store: &'static str) -> Self {
        Self { store, rows: Vec::new() }
    }

    /// Notes a case, and prints it with what the store answered.
    pub fn add(&mut self, case: &Case, outcome: Outcome, said: &str) {
        println!("{} | {} | {} | {said} | {}", self.store, case.group, case.name, cell(&outcome));
        self.rows.push(Row { group: case.group.clone(), name: case.name.clone(), outcome });
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.rows.iter().filter(|row| of(&row.outcome)).count()
    }

    /// `440 cases: 390 refused, 50 harmless, 0 harm`
    pub fn summary(&self) -> String {
        let refused = self.count(|outcome| *outcome == Outcome::Refused);
        let harmless = self.count(|outcome| matches!(outcome, Outcome::Harmless(_)));
        let harm = self.count(|outcome| matches!(outcome, Outcome::Harm(_)));
        let played = self.count(|outcome| *outcome != Outcome::NotOffered);
        format!("{}: {played} cases, {refused} refused, {harmless} harmless, {harm} harm", self.store)
    }

    /// The cases that did harm.
    pub fn harms(&self) -> Vec<String> {
        let harms = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Harm(_)));
        harms.map(|row| format!("{}, {}: {}", self.store, row.name, cell(&row.outcome))).collect()
    }
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused => "refused".to_owned(),
        Outcome::Harmless(why) => format!("harmless: {why}"),
        Outcome::Harm(what) => format!("**harm**: {what}"),
        Outcome::NotOffered => "not offered".to_owned(),
    }
}

/// The page. Ceph comes last in it.
fn page(columns: &[Column; 3]) -> String {
    let release = release();
    let mut text = format!(
        "# Presigned URLs in the wrong hands

What a store makes of a presigned URL or form that is altered, replayed or used late: refused, or harmless and why. Not
offered: the store was not seen to be fit for it, so nobody is given such a URL there. Harmless is
proved for each case: the bytes behind every confirmed file are unchanged, `confirm_upload` gives the verdict that what was
stored deserves, nothing was written outside the one key of the URL, and nothing can be read that could not be read before.
After a refusal the honest request still succeeds. **Harm** is what the product does not prevent on that store.

Written by `tests/tests/abuse` (`{REGENERATE}`), which compares it at every run.

"
    );
    for column in columns {
        let _ = writeln!(text, "- {}", column.summary());
    }
    let [local, garage, ceph] = columns;
    let mut group = "";
    for ((local, garage), ceph) in local.rows.iter().zip(&garage.rows).zip(&ceph.rows) {
        if local.group != group {
            group = &local.group;
            let _ = write!(
                text,
                "\n## {group}\n\n| case | local store | Garage | Ceph {release} |\n| --- | --- | --- | --- |\n"
            );
        }
        let cells = [&local.name, &cell(&local.outcome), &cell(&garage.outcome), &cell(&ceph.outcome)];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn release() -> String {
    Ceph::version().split('.').next().unwrap_or_default().to_owned()
}

/// Compares the page with the file, or writes it. Of another release of Ceph the file says nothing.
pub fn compare_with_file(columns: &[Column; 3]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(FILE);
    let page = page(columns);
    if std::env::var_os("PG_STORAGE_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, page).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let same_release = kept.contains(&format!("| Ceph {} |", release()));
    let lines = |text: &str| -> Vec<String> {
        let told = text.lines().filter(|line| same_release || !line.starts_with("- Ceph"));
        told.map(|line| if same_release { line.to_owned() } else { without_last_cell(line) }).collect()
    };
    let (kept, now) = (lines(&kept), lines(&page));
    let lost = kept.iter().filter(|line| !now.contains(line)).map(|line| format!("- {line}"));
    let new = now.iter().filter(|line| !kept.contains(line)).map(|line| format!("+ {line}"));
    let differences: Vec<String> = lost.chain(new).collect();
    assert!(kept == now, "{FILE} is not what came of the cases; {REGENERATE}\n{}", differences.join("\n"));
}

fn without_last_cell(line: &str) -> String {
    match line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")) {
        Some((rest, _)) => rest.to_owned(),
        None => line.to_owned(),
    }
}
