//! Manual pages: what clap tells of a command, and the sections of its help under the names that manuals have for them.

use crate::pages::Page;
use crate::sections::{self, Entry, Section};
use bigupd::config::settings::{SETTINGS, Setting};
use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

/// The page of the configuration file.
pub const SETTINGS_PAGE: &str = "bigupd.ini";

/// Its section: file formats.
pub const SETTINGS_SECTION: &str = "5";

/// Headings of manuals (man-pages(7)) for those of help.
const HEADINGS: [(&str, &str); 1] = [("Exit codes", "EXIT STATUS")];

/// The manual page of `page`, one of `pages`.
pub fn of_command(page: &Page, pages: &[Page]) -> String {
    // What stands below the options has sections of its own.
    let command = page.command.clone().after_help("").after_long_help("");
    let usage = command.clone().render_usage().to_string();
    // The usage, too: clap_mangen would tell every option again.
    let command = command.override_usage(usage.trim_start_matches("Usage: ").to_owned());
    let man = Man::new(command.clone());
    let mut text = head(&page.name(), page.section, &about(&command));
    let mut add = |render: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut part = vec![];
        render(&mut part).expect("memory can be written");
        text += &without_preamble(&String::from_utf8(part).expect("it was made of text"));
    };
    add(&|part| man.render_synopsis_section(part));
    add(&|part| man.render_description_section(part));
    add(&|part| man.render_options_section(part));
    // Settings by what they are about are parts of the options.
    let text = text.replacen(".SH OPTIONS\n", ".SH OPTIONS_\n", 1);
    let (before, options) = text.split_once(".SH OPTIONS_\n").expect("every command has --help");
    let mut text = format!("{before}.SH OPTIONS\n{}", options.replace("\n.SH ", "\n.SS "));
    if page.command.get_subcommands().next().is_some() {
        text += &lines(&commands(page, pages));
    }
    sections::of(&page.command).iter().for_each(|section| text += &lines(&of_section(section)));
    text + &lines(&see_also(page, pages))
}

/// The manual page of the configuration file.
pub fn of_settings() -> String {
    let mut text = head(SETTINGS_PAGE, SETTINGS_SECTION, "configuration of bigupd");
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]).text([roman("/etc/bigup/bigupd.ini")]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in crate::settings::DESCRIPTION {
        page.control("PP", []).text([roman(*paragraph)]);
    }
    page.control("SH", ["SETTINGS"]);
    for topic in crate::settings::topics() {
        page.control("SS", [topic.title()]);
        SETTINGS.iter().filter(|setting| setting.topic == topic).for_each(|setting| of_setting(&mut page, setting));
    }
    page.control("SH", ["FILES"]);
    for (file, what) in crate::settings::FILES {
        page.control("TP", []).text([bold(*file)]).text([roman(*what)]);
    }
    page.control("SH", ["EXAMPLES"]);
    page.control("EX", []);
    for line in crate::settings::EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("EE", []);
    page.control("SH", ["SEE ALSO"]).text([bold("bigupd"), roman("(8), "), bold("bigupd-token"), roman("(8)")]);
    text += &lines(&page);
    text
}

fn of_setting(page: &mut Roff, setting: &Setting) {
    page.control("TP", []).text([bold(setting.key), roman(" = "), italic(setting.value)]);
    page.text([roman(format!("{}.", setting.help))]);
    let default = setting.default.map_or("none".to_owned(), ToOwned::to_owned);
    page.control("RS", []);
    page.control("PP", []).text([
        roman(format!("Default: {default}. Example: {}. Elsewhere: ", setting.example)),
        bold(format!("--{}", setting.flag())),
        roman(", "),
        bold(setting.variable()),
        roman("."),
    ]);
    page.control("RE", []);
}

/// Title and NAME. No date: the same source gives the same page.
fn head(name: &str, section: &str, about: &str) -> String {
    let source = format!("bigup {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", [&name.to_uppercase(), section, "\"\"", &source, "bigup"]);
    // Hyphens in it would be taken for minus signs, of which whatis(1) knows nothing.
    page.control("SH", ["NAME"]);
    format!("{}{name} \\- {}\n", page.render(), lines(&Roff::from(roman(about))).trim_end())
}

/// What the command is, as a part of a sentence.
fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let (first, rest) = about.split_at(about.chars().next().map_or(0, char::len_utf8));
    format!("{}{}", first.to_lowercase(), rest.trim_end_matches('.'))
}

fn commands(page: &Page, pages: &[Page]) -> Roff {
    let mut text = Roff::new();
    text.control("SH", ["COMMANDS"]);
    for sub in pages.iter().filter(|sub| sub.parent.as_deref() == Some(&page.name())) {
        text.control("TP", []).text([bold(sub.name()), roman(format!("({})", sub.section))]);
        text.text([roman(sub.command.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    text
}

fn of_section(section: &Section) -> Roff {
    let mut text = Roff::new();
    let heading = HEADINGS.iter().find(|(ours, _)| *ours == section.title).map(|(_, theirs)| (*theirs).to_owned());
    let is_prose = section.title.is_empty();
    let heading = if is_prose { "NOTES".to_owned() } else { heading.unwrap_or_else(|| section.title.to_uppercase()) };
    text.control("SH", [heading.as_str()]);
    for entry in &section.entries {
        match entry {
            Entry { term, text: what } if term.is_empty() => text.control("PP", []).text([roman(what)]),
            Entry { term, text: what } => text.control("TP", []).text([bold(term)]).text([roman(what)]),
        };
    }
    text
}

/// The page's own family, and what else belongs to it.
fn see_also(page: &Page, pages: &[Page]) -> Roff {
    let mut others: Vec<(String, &str)> = vec![];
    let own = page.name();
    for other in pages {
        let is_near = other.parent.is_none()
            || other.parent.as_deref() == Some(&own)
            || page.parent.is_some() && other.parent == page.parent;
        if is_near && other.name() != own {
            others.push((other.name(), other.section));
        }
    }
    if page.section == "8" {
        others.push((SETTINGS_PAGE.to_owned(), SETTINGS_SECTION));
    }
    others.sort_by_key(|(name, section)| (*section, name.clone()));
    let mut line: Vec<Inline> = vec![];
    for (i, (name, section)) in others.into_iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        line.extend([roman(separator), bold(name), roman(format!("({section})"))]);
    }
    let mut text = Roff::new();
    text.control("SH", ["SEE ALSO"]).text(line);
    text
}

/// The lines of a part; what comes before all lines stands in the head already.
fn lines(part: &Roff) -> String {
    without_preamble(&part.render())
}

fn without_preamble(text: &str) -> String {
    let is_preamble = |line: &&str| line.starts_with(".ie ") || line.starts_with(".el ");
    text.lines().skip_while(is_preamble).flat_map(|line| [line, "\n"]).collect()
}
