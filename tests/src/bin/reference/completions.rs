//! Completions for shells, from what clap tells of the programs.

use crate::pages;
use clap_complete::{Shell, generate};
use std::path::PathBuf;

/// The completions of all programs: file names, as the shells look for them, below a folder for each shell.
pub fn all() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![];
    for (program, _) in pages::programs() {
        let name = program.get_name().to_owned();
        let named = [
            (Shell::Bash, name.clone()),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
            (Shell::PowerShell, format!("_{name}.ps1")),
        ];
        for (shell, file) in named {
            let mut script = vec![];
            generate(shell, &mut program.clone(), name.clone(), &mut script);
            if shell == Shell::Bash {
                script = with_one_name_for_each_state(&String::from_utf8(script).expect("it is a script"), &name);
            }
            files.push((PathBuf::from(shell.to_string()).join(file), script));
        }
    }
    files
}

/// Where a program's name has a hyphen, clap_complete goes to states by other names than it gives them, and completes nothing
/// behind a subcommand (clap issue 6421).
fn with_one_name_for_each_state(script: &str, program: &str) -> Vec<u8> {
    script.replace(&program.replace('-', "__subcmd__"), &program.replace('-', "__")).into_bytes()
}
