//! docs/durability.md names the tests that run its sentences: they are there. Commands in documents can be given as they
//! stand.

use bigup_tests::docs::root;
use bigup_tests::programs;
use std::path::PathBuf;
use std::process::Command;

/// `file: test` pairs in backquotes.
fn named(text: &str) -> Vec<(&str, &str)> {
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.filter_map(|piece| piece.split_once(": ")).filter(|(file, _)| *file != "is_uploaded").collect()
}

/// Where files with tests of programs and crates are.
fn test_folders() -> impl Iterator<Item = PathBuf> {
    let programs = std::fs::read_dir(root().join("tests/tests")).expect("the folder can be read").flatten();
    let crates = ["bigup-merger/tests", "bigup-core/tests", "bigupd/tests"].map(|folder| root().join(folder));
    programs.map(|entry| entry.path()).chain(crates)
}

#[test]
fn the_tests_that_the_documents_name_are_there() {
    let text = std::fs::read_to_string(root().join("docs/durability.md")).expect("the document is there");
    let named = named(&text);
    assert!(named.len() > 20, "few tests are named: {named:?}");
    for (file, test) in named {
        let source = test_folders().find_map(|f| std::fs::read_to_string(f.join(format!("{file}.rs"))).ok());
        let source = source.unwrap_or_else(|| panic!("there is no file {file}.rs"));
        let test = format!("fn {test}(");
        let at = source.find(&test).unwrap_or_else(|| panic!("{file}.rs has no {test}"));
        let before = &source[..at];
        assert!(before.trim_end().ends_with("#[test]"), "{file}.rs: {test} is no test");
    }
}

#[test]
fn what_documents_say_to_be_run_is_run_by_files_that_are_there() {
    let mut named = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("the document can be read");
        for marker in text.split("<!-- run by ").skip(1) {
            let file = marker.split([':', ' ']).next().expect("there is a first part");
            assert!(root().join(file).is_file(), "{}: there is no {file}", document.display());
            named += 1;
        }
    }
    assert!(named > 10, "only {named} were found");
}

/// The programs whose commands are parsed, each by what it parses itself.
const PROGRAMS: [&str; 4] = ["bigupd", "bigup-cli", "bigup-merger", "bench"];

/// What documents write for a value, and one that can be parsed in its place.
const VALUES: [(&str, &str); 5] =
    [("TIME", "1s"), ("name|activity", "name"), ("N", "1"), ("ID", "1"), ("SHELL", "bash")];

/// Folders of the repository whose files documents name by their paths.
const FOLDERS: [&str; 6] = ["tests", "systemd", "bigup-core", "bigupd", "bigup-merger", "bigup-cli"];

/// Spans that begin with a program's name and are what it prints.
const NO_COMMANDS: [&str; 1] = ["bigupd listening on"];

fn documents() -> Vec<PathBuf> {
    let markdown = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder can be read").flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "md"))
    };
    let all = ["", "docs", "docs/design"].into_iter().flat_map(markdown);
    all.filter(|path| !path.ends_with("CHANGELOG.md")).collect()
}

/// The lines of commands in a document, and those of synopses and spans in its text, which may be cut short.
fn lines(text: &str) -> Vec<(String, bool)> {
    let (mut lines, mut prose) = (vec![], String::new());
    for (i, part) in text.split("\n```").enumerate() {
        match (i % 2 == 1).then(|| part.split_once('\n')).flatten() {
            Some(("sh", block)) => {
                lines.extend(block.replace("\\\n", " ").lines().map(|line| (line.to_owned(), false)));
            }
            // Beside synopses stands what they are for.
            Some(("", block)) => {
                let synopses = block.lines().filter_map(|line| line.split("  ").next());
                lines.extend(synopses.map(|line| (line.to_owned(), true)));
            }
            Some(_) => {}
            None => prose += part,
        }
    }
    lines.extend(prose.split('`').skip(1).step_by(2).map(|span| (span.to_owned(), true)));
    lines
}

/// The words of a line as a shell splits it, cut where another command begins. Quotes count, nothing is expanded.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word, mut quote) = (vec![], vec![], String::new(), None);
    for c in line.chars().chain(['\n']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            (None, c) if c.is_whitespace() || "|&;()".contains(c) => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if !c.is_whitespace() || c == '\n' {
                    all.push(std::mem::take(&mut words));
                }
            }
            (_, c) => word.push(c),
        }
    }
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

/// The program of ours that a command is of, and its arguments, with values in place of what stands for one. None: another
/// program's.
fn of_ours(words: &[String]) -> Option<(&str, Vec<String>)> {
    let is_before = |word: &&String| ["do", "then", "sudo", "$"].contains(&word.as_str()) || word.contains('=');
    let mut words = words.iter().skip_while(is_before);
    let program = words.next()?.rsplit('/').next()?;
    PROGRAMS.contains(&program).then(|| {
        let words = words.take_while(|word| !word.starts_with('>') && !word.starts_with('<'));
        let words = words.map(|word| word.trim_matches(['[', ']']).trim_end_matches('…').replace("[=", "="));
        let value = |word: String| {
            let (flag, value) = word.split_once('=').map_or(("", &word[..]), |(flag, value)| (flag, value));
            match (VALUES.iter().find(|(name, _)| *name == value), flag) {
                (None, _) => word.clone(),
                (Some((_, value)), "") => (*value).to_owned(),
                (Some((_, value)), flag) => format!("{flag}={value}"),
            }
        };
        (program, words.map(value).filter(|word| !word.is_empty()).collect())
    })
}

/// Why a command of ours makes no sense. None: it does, as far as its words tell.
fn mistake(program: &str, arguments: &[String]) -> Option<String> {
    use clap::{CommandFactory, Parser};
    let line = || std::iter::once(program.to_owned()).chain(arguments.iter().cloned());
    let parsed = match program {
        "bigupd" => bigupd::cli::Arguments::try_parse_from(line()).map(|_| ()),
        "bigup-merger" => bigup_merger::args::Arguments::try_parse_from(line()).map(|_| ()),
        "bigup-cli" => bigup_client::cli::args::Cli::command().try_get_matches_from(line()).map(|_| ()),
        _ => {
            // It parses what comes before the question for help first.
            let output = Command::new(programs::path("bench")).args(arguments).arg("--help").output();
            let output = output.expect("it can be started");
            return (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
        }
    };
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    parsed.err().filter(|e| !matches!(e.kind(), DisplayHelp | DisplayVersion)).map(|e| e.to_string())
}

/// A command in the text may leave out what the sentence is about: `bigup-cli push` is no mistake.
fn is_cut_short(mistake: &str) -> bool {
    // Of a command without its subcommand the help is told, which is no error.
    mistake.contains("required arguments were not provided") || !mistake.starts_with("error:")
}

#[test]
fn the_commands_that_documents_tell_can_be_given() {
    let (mut parsed, mut mistakes) = (0, vec![]);
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("the document can be read");
        for (line, may_be_short) in lines(&text) {
            if NO_COMMANDS.iter().any(|text| line.starts_with(text)) {
                continue;
            }
            for words in commands(&line) {
                // A file of the repository.
                let path = words[0].split_once('/').filter(|(folder, _)| FOLDERS.contains(folder));
                if path.is_some() && !words[0].contains(['*', '…']) && !root().join(&words[0]).exists() {
                    mistakes.push(format!("{}: {line}: {} is not there", document.display(), words[0]));
                }
                let Some((program, arguments)) = of_ours(&words) else { continue };
                parsed += 1;
                let mistake = mistake(program, &arguments).filter(|mistake| !(may_be_short && is_cut_short(mistake)));
                mistakes.extend(mistake.map(|why| format!("{}: {line}: {why}", document.display())));
            }
        }
    }
    assert!(parsed > 60, "only {parsed} commands were found");
    assert_eq!(mistakes, [""; 0], "{}", mistakes.join("\n"));
}

/// The targets of links to other files of the repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://")).collect()
}

#[test]
fn the_files_that_documents_link_to_are_there() {
    let (mut found, mut missing) = (0, vec![]);
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("the document can be read");
        for file in links(&text) {
            found += 1;
            if !document.with_file_name("").join(file).exists() {
                missing.push(format!("{}: {file}", document.display()));
            }
        }
    }
    assert!(found > 30, "only {found} links were found");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn commands_are_found_as_a_shell_finds_them() {
    let found = |line: &str| {
        let all = commands(line);
        let ours = all.iter().filter_map(|words| of_ours(words));
        ours.map(|(program, arguments)| format!("{program} {}", arguments.join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(found("a && target/release/bigup-cli push 'x y' | cat # bigupd no"), ["bigup-cli push x y"]);
    assert_eq!(found("BIGUP_LOG=debug sudo bigupd token new a > b.token &"), ["bigupd token new a"]);
    assert_eq!(found("bigupd status [NAME…] [--watch[=TIME]]"), ["bigupd status NAME --watch=1s"]);
    assert_eq!(found("tests/bench idle N"), ["bench idle 1"]);
    assert!(mistake("bench", &["1G".to_owned(), "5".to_owned()]).is_some(), "that was a command in a document");
    assert!(mistake("bigupd", &["--no-such-setting".to_owned()]).is_some());
}
