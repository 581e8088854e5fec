//! The command `config`: the settings that count, and where each comes from. No token is shown.

use crate::cli::args::ConfigArgs;
use crate::cli::config::merge::ShownSetting;
use crate::cli::print::{print_json, print_line};
use serde_json::json;

/// Prints the settings that count.
pub fn run(args: &ConfigArgs) {
    if args.json {
        let line = |row: &ShownSetting| print_json(&json!({"key": row.key, "value": row.value, "from": row.from}));
        return args.shown.iter().for_each(line);
    }
    let width = |of: fn(&ShownSetting) -> &str| args.shown.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (keys, values) = (width(|row| &row.key), width(|row| &row.value));
    for ShownSetting { key, value, from } in &args.shown {
        print_line(&format!("{key:keys$}  {value:values$}  {from}"));
    }
}
