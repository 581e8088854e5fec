//! Completions for shells, from what clap tells of the programs.

use crate::pages;
use bigup_client::cli::completions;
use clap_complete::Shell;
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
            let script = completions::of(&program, shell);
            files.push((PathBuf::from(shell.to_string()).join(file), script));
        }
    }
    files
}
