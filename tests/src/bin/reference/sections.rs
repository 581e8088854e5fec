//! What stands below the options in `--help`, cut into its sections.
//!
//! A section begins with a line that ends in a colon and is not indented. Its indented lines are entries, a term and its
//! text with two or more spaces between, or text alone; a line that is indented deeper goes on with the one before it.

use clap::Command;

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its heading, without the colon; empty for what stands before the first one.
    pub title: String,
    /// What it says.
    pub entries: Vec<Entry>,
}

/// One entry of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is explained. Empty: the text stands for itself.
    pub term: String,
    /// The explanation.
    pub text: String,
}

/// The sections of `command`'s help.
pub fn of(command: &Command) -> Vec<Section> {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    parse(&text.map(ToString::to_string).unwrap_or_default())
}

/// The sections of `text`, those without an entry left out.
fn parse(text: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut is_new = true;
    for line in text.lines() {
        let current = sections.last_mut().expect("there is one to begin with");
        let indent = line.len() - line.trim_start().len();
        match (line.trim(), current.entries.last_mut()) {
            ("", _) => is_new = true,
            (heading, _) if indent == 0 && heading.ends_with(':') => {
                sections.push(Section { title: heading.trim_end_matches(':').to_owned(), entries: vec![] });
                is_new = true;
            }
            // Prose goes on without being indented, entries by being indented deeper.
            (more, Some(entry)) if !is_new && (indent == 0 || indent > 2) => entry.text += &format!(" {more}"),
            (first, _) => {
                current.entries.push(entry(first));
                is_new = false;
            }
        }
    }
    sections.retain(|section| !section.entries.is_empty());
    sections
}

fn entry(line: &str) -> Entry {
    let (term, text) = line.split_once("  ").unwrap_or(("", line));
    Entry { term: term.to_owned(), text: text.trim_start().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: &str, text: &str) -> Entry {
        Entry { term: term.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn sections_have_terms_with_texts_and_texts_alone() {
        let text =
            "Prose that\ngoes on.\n\nMore.\n\nExit codes:\n  0  well\n  1  not\n     at all\n\nEmpty:\n\nSee:\n  it";
        let [prose, codes, see] = &parse(text)[..] else { panic!("{:?}", parse(text)) };
        assert_eq!(prose.title, "");
        assert_eq!(prose.entries, [entry("", "Prose that goes on."), entry("", "More.")]);
        assert_eq!(codes.title, "Exit codes");
        assert_eq!(codes.entries, [entry("0", "well"), entry("1", "not at all")]);
        assert_eq!((see.title.as_str(), &see.entries[..]), ("See", &[entry("", "it")][..]));
        assert_eq!(parse(""), []);
    }
}
