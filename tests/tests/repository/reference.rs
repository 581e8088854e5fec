//! What is made from the programs' own description of their commands and settings: the reference in the repository is up to
//! date, manual pages are right for man(1), and completions for their shells.

use bigup_tests::daemon::list;
use bigup_tests::docs::root;
use bigup_tests::programs;
use bigupd::config::settings::SETTINGS;
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started ({e}): see tests/run"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// What a command prints, which must succeed.
fn printed(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).expect("output is UTF-8")
}

/// The generator's files, in a folder of their own.
fn made(arguments: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_reference")).args(arguments).arg(folder.path()));
    folder
}

#[test]
fn the_reference_and_the_sample_in_the_repository_are_up_to_date() {
    let made = made(&["--docs"]);
    for file in ["docs/reference.md", "docs/configuration.md", "systemd/bigupd.ini"] {
        let kept = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        let fresh = std::fs::read_to_string(made.path().join(file)).unwrap();
        let differs = kept.lines().zip(fresh.lines()).find(|(kept, fresh)| kept != fresh);
        let how = "cargo run -p bigup-tests --bin reference -- --docs .";
        assert!(kept == fresh, "{file} is not what the programs say: {differs:?}; make it anew: {how}");
    }
}

#[test]
fn the_sample_configuration_is_right_and_so_is_every_default_in_it() {
    let sample = std::fs::read_to_string(root().join("systemd/bigupd.ini")).unwrap();
    let with_defaults = SETTINGS.iter().filter(|setting| setting.default.is_some()).fold(sample.clone(), |text, s| {
        let line = format!("\n;{} = ", s.key);
        assert!(text.contains(&line) || text.contains(&line.replace(';', "")), "{} is not in the sample", s.key);
        text.replace(&line, &line.replace(';', ""))
    });
    assert_ne!(sample, with_defaults);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bigupd.ini");
    for text in [sample, with_defaults] {
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new(programs::path("bigupd"));
        run(check.arg("--check-config").arg("--config").arg(&file));
    }
}

#[test]
fn manual_pages_are_right_and_know_each_other() {
    let made = made(&[]);
    let pages = list(&made.path().join("man"));
    assert!(pages.len() > 10, "{pages:?}");
    let called: Vec<String> = pages
        .iter()
        .map(|page| page.rsplit_once('.').map(|(name, section)| format!("{name}({section})")).unwrap())
        .collect();
    for page in &pages {
        let path = made.path().join("man").join(page);
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l"]).arg(&path).env("MANWIDTH", "200").env("LC_ALL", "C.UTF-8");
        let output = run(&mut man);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{page}");
        let text = String::from_utf8(output.stdout).unwrap();
        let is_command = !page.ends_with(".5");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO", "EXAMPLES"] {
            assert!(text.contains(&format!("\n{section}\n")), "{page} has no {section}");
        }
        assert!(!is_command || text.contains("\nEXIT STATUS\n"), "{page} does not tell its exit codes");
        // What whatis(1) and apropos(1) look for.
        run(Command::new("lexgrog").arg(&path));
        let (_, see_also) = text.split_once("\nSEE ALSO\n").unwrap();
        for other in see_also.split("\n\n").next().unwrap().split(',') {
            assert!(called.contains(&other.trim().to_owned()), "{page}: there is no page {other}");
        }
    }
}

#[test]
fn manual_pages_tell_every_setting() {
    let made = made(&[]);
    let settings = std::fs::read_to_string(made.path().join("man/bigupd.ini.5")).unwrap();
    let daemon = std::fs::read_to_string(made.path().join("man/bigupd.8")).unwrap();
    for setting in SETTINGS {
        assert!(settings.contains(&format!("\\fB{}\\fR = ", setting.key)), "{}", setting.key);
        assert!(settings.contains(&setting.variable()), "{}", setting.variable());
        assert!(daemon.contains(&format!("\\-\\-{}", setting.flag().replace('-', "\\-"))), "{}", setting.flag());
    }
}

#[test]
fn completions_are_right_for_their_shells() {
    let made = made(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let folder = made.path().join("completions").join(shell);
        let scripts = list(&folder);
        assert_eq!(scripts.len(), 3, "{shell}: {scripts:?}");
        for script in scripts {
            run(Command::new(shell).arg("-n").arg(folder.join(script)));
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let made = made(&[]);
    let complete = |program: &str, words: &[&str]| -> Vec<String> {
        // As bash does it: the function that is registered for the command gets the words of the line.
        let script = "source \"$1\"; shift; line=(\"$@\"); COMP_WORDS=(\"${line[@]}\"); COMP_CWORD=$((${#line[@]} - 1))
            registered=$(complete -p \"$1\"); [[ $registered =~ -F\\ ([^ ]+) ]]
            \"${BASH_REMATCH[1]}\" \"$1\" \"${line[COMP_CWORD]}\" \"${line[COMP_CWORD - 1]}\"
            printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"]).arg(made.path().join("completions/bash").join(program));
        printed(bash.arg(program).args(words)).lines().map(str::to_owned).collect()
    };
    assert_eq!(complete("bigup-cli", &["pu"]), ["push"]);
    assert_eq!(complete("bigup-cli", &["push", "--ret"]), ["--retries", "--retry-for"]);
    assert_eq!(complete("bigup-cli", &["push", "--when-full", ""]), ["stop", "wait"]);
    assert_eq!(complete("bigupd", &["token", "n"]), ["new"]);
    assert_eq!(complete("bigupd", &["--max-up"]), ["--max-uploads", "--max-uploads-per-token"]);
    assert_eq!(complete("bigup-merger", &["--file-n"]), ["--file-name"]);
}

#[test]
fn fish_completes_commands_and_options() {
    let made = made(&[]);
    let complete = |program: &str, line: &str| -> Vec<String> {
        let script = made.path().join("completions/fish").join(format!("{program}.fish"));
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]).arg(script).arg(line);
        // A word and what it means.
        printed(&mut fish).lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
    };
    assert_eq!(complete("bigup-cli", "bigup-cli pu"), ["push"]);
    assert_eq!(complete("bigupd", "bigupd token n"), ["new"]);
    assert_eq!(complete("bigup-merger", "bigup-merger --file-n"), ["--file-name"]);
}
