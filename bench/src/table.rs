//! The one table: what was measured, what against, and whether that is good enough.

use std::fmt::Write as _;

/// A row of the table.
pub struct Row {
    what: String,
    measured: String,
    baseline: String,
    ratio: Option<f64>,
    goal: String,
    met: Option<bool>,
}

impl Row {
    /// A measurement that is compared with nothing and has no goal, until it is told otherwise.
    pub fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            baseline: String::new(),
            ratio: None,
            goal: String::new(),
            met: None,
        }
    }

    /// What it is held against, and how many times that it is.
    pub fn against(mut self, baseline: impl Into<String>, ratio: f64) -> Self {
        self.baseline = baseline.into();
        self.ratio = Some(ratio);
        self
    }

    /// What it should be, and whether it is.
    pub fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = goal.into();
        self.met = Some(met);
        self
    }

    fn cells(&self) -> [String; 6] {
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        [
            self.what.clone(),
            self.measured.clone(),
            self.baseline.clone(),
            ratio,
            self.goal.clone(),
            met.to_owned(),
        ]
    }
}

/// The rows as a table in Markdown, in columns that also read well as they are.
pub fn markdown(rows: &[Row]) -> String {
    let head = ["what", "measured", "baseline", "ratio", "goal", "met?"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut table = String::new();
    for (at, row) in cells.iter().enumerate() {
        line(&mut table, row, &widths, ' ');
        if at == 0 {
            line(&mut table, &std::array::from_fn(|_| String::new()), &widths, '-');
        }
    }
    table
}

fn line(table: &mut String, row: &[String; 6], widths: &[usize; 6], fill: char) {
    table.push('|');
    for (cell, width) in row.iter().zip(widths) {
        let rest: String = std::iter::repeat_n(fill, width - cell.chars().count()).collect();
        // Writing to a String does not fail.
        let _ = write!(table, " {cell}{rest} |");
    }
    table.push('\n');
}
