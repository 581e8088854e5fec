//! The reference of all commands for reading in the repository: docs/reference.md.

use crate::pages::{self, Page};
use crate::sections::{self, Section};
use bigupd::config::settings;
use clap::{Arg, Command};

const HEAD: &str = "\
# Commands

What `--help` says of every command; the manual pages say the same. Made by `cargo run -p bigup-tests --bin reference -- \
--docs .`: change the commands, not this file.

Settings of `bigupd` stand in [configuration.md](configuration.md).
";

/// docs/reference.md.
pub fn reference() -> String {
    let pages = pages::all();
    let mut text = HEAD.to_owned();
    for page in &pages {
        let parent = pages.iter().find(|other| page.parent == Some(other.name()));
        text += &of_command(page, parent.map(|parent| &parent.command));
    }
    text
}

fn of_command(page: &Page, parent: Option<&Command>) -> String {
    let command = &page.command;
    let level = if parent.is_none() { "##" } else { "###" };
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let mut text = format!("\n{level} {}\n{}\n\n```\n{usage}\n```\n", page.call(), escaped(&about));
    text += &options(command, page.call() == "bigupd");
    let known = parent.map(sections::of).unwrap_or_default();
    for section in sections::of(command).iter().filter(|section| !known.contains(section)) {
        text += &of_section(section);
    }
    text
}

/// A table of the command's arguments, without those that every command has. The daemon's settings stand elsewhere.
fn options(command: &Command, is_daemon: bool) -> String {
    let is_shown = |arg: &&Arg| {
        let is_common = matches!(arg.get_id().as_str(), "help" | "version");
        let is_elsewhere = is_daemon && settings::find(arg.get_id().as_str()).is_some();
        !arg.is_hide_set() && !is_common && !is_elsewhere
    };
    let rows: Vec<String> = command.get_arguments().filter(is_shown).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n| argument | meaning | default | environment |\n| --- | --- | --- | --- |\n{}", rows.concat())
}

fn row(arg: &Arg) -> String {
    let names: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let takes_value = arg.get_action().takes_values();
    let call = match arg.get_long() {
        Some(long) if takes_value => format!("--{long} {}", names.join(" ")),
        Some(long) => format!("--{long}"),
        None => names.join(" "),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let (help, told) = split_default(&help);
    let given: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if given.is_empty() || !takes_value { told.to_owned() } else { format!("`{}`", given.join(",")) };
    let possible: Vec<String> = match takes_value {
        true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => vec![],
    };
    let values = if possible.is_empty() { String::new() } else { format!(": {}", possible.join(", ")) };
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    format!("| `{}` | {}{values} | {} | {variable} |\n", cell(&call), escaped(help), escaped(&default))
}

/// A help text, and the default that it tells at its end.
fn split_default(help: &str) -> (&str, &str) {
    let (text, rest) = help.rsplit_once(" [default: ").unwrap_or((help, ""));
    match rest.strip_suffix(']') {
        Some(default) => (text, default),
        None => (help, ""),
    }
}

fn of_section(section: &Section) -> String {
    let title = if section.title.is_empty() { String::new() } else { format!("\n{}:\n", section.title) };
    let entries = section.entries.iter().map(|entry| match (&entry.term, &entry.text) {
        (term, text) if term.is_empty() && section.title.is_empty() => format!("\n{}\n", escaped(text)),
        (term, text) if term.is_empty() => format!("- {}\n", escaped(text)),
        (term, text) => format!("- `{term}`: {}\n", escaped(text)),
    });
    format!("{title}{}", entries.collect::<String>())
}

/// `text` as it stands in a table, where a bar would end a cell also within code.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `text` such that nothing in it is markup, but for code in backquotes.
pub fn escaped(text: &str) -> String {
    cell(text).replace('<', "&lt;").replace('*', "\\*").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_at_the_end_of_a_help_text_is_found() {
        assert_eq!(split_default("Bytes [default: 8M]"), ("Bytes", "8M"));
        assert_eq!(split_default("Bytes [default: 8M] or so"), ("Bytes [default: 8M] or so", ""));
        assert_eq!(split_default("Bytes"), ("Bytes", ""));
    }
}
