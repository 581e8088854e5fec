//! What modes yield: titled tables, for the terminal and for Markdown.

use serde_json::{Value, json};
use std::fmt::Write;

/// Figures with a title.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// How, and how to read it; Markdown.
    pub text: String,
    /// Titles of the columns; the first is that of the rows' names.
    pub header: Vec<String>,
    /// Cells as they are shown, as many a row as `header` has.
    pub rows: Vec<Vec<String>>,
    /// What of it is drawn, if anything: seconds by row name, less is better.
    pub bars: Vec<(String, f64)>,
}

impl Table {
    /// One without rows.
    pub fn new(title: impl Into<String>, text: impl Into<String>, header: &[&str]) -> Table {
        let header = header.iter().map(|title| (*title).to_owned()).collect();
        Table { title: title.into(), text: text.into(), header, ..Table::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
        debug_assert_eq!(self.rows.last().map(Vec::len), Some(self.header.len()), "every column has a cell");
    }

    /// For the terminal: columns in line.
    pub fn plain(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.header]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in [&self.header].into_iter().chain(&self.rows) {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = match column {
                    0 => write!(text, "  {cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// For a document: a heading, the text, the table, and what the chart draws as a comment.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("### {}\n\n", self.title);
        if !self.text.is_empty() {
            text += &format!("{}\n\n", self.text);
        }
        text += &line(&self.header);
        let rules: Vec<String> =
            (0..self.header.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
        text += &line(&rules);
        self.rows.iter().for_each(|row| text += &line(row));
        if !self.bars.is_empty() {
            text += &format!("\n{BARS}{} -->\n", json!({"title": self.title, "bars": self.bars}));
        }
        text
    }
}

const BARS: &str = "<!-- bars: ";

/// What [`Table::markdown`] left for the chart in a document, in order: titles and bars.
pub fn bars(document: &str) -> Vec<(String, Vec<(String, f64)>)> {
    let comments = document.lines().filter_map(|line| line.strip_prefix(BARS)?.strip_suffix(" -->"));
    let group = |value: Value| {
        let bars = value["bars"].as_array()?.iter();
        let bars = bars.filter_map(|bar| Some((bar[0].as_str()?.to_owned(), bar[1].as_f64()?))).collect();
        Some((value["title"].as_str()?.to_owned(), bars))
    };
    comments.filter_map(|comment| group(serde_json::from_str(comment).ok()?)).collect()
}

/// The middle one of these, or between the middle two; NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    (lower + upper) / 2.0
}

/// Seconds to three figures or so.
pub fn seconds(value: f64) -> String {
    match value {
        v if v.is_nan() => "n/a".to_owned(),
        v if v < 0.9995 => format!("{v:.3} s"),
        v if v < 99.95 => format!("{v:.2} s"),
        v => format!("{v:.0} s"),
    }
}

/// A median with the least and the most.
pub fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let middle = seconds(median(values.iter().copied()));
    if values.len() < 2 || !least.is_finite() { middle } else { format!("{middle} ({least:.2}–{most:.2})") }
}

/// How many times as much.
pub fn times(value: f64) -> String {
    if value.is_nan() { "n/a".to_owned() } else { format!("{value:.2}×") }
}

/// A size that somebody chose, as it is said: `64 MiB`.
pub fn size_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Bytes a second.
pub fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.0} MiB/s", bytes as f64 / seconds / 1048576.0)
}
