//! Completions for shells, from what clap tells of a program.

use clap::Command;
use clap_complete::{Shell, generate};

/// The completions of `program` for `shell`.
pub fn of(program: &Command, shell: Shell) -> Vec<u8> {
    let (mut script, name) = (vec![], program.get_name().to_owned());
    generate(shell, &mut program.clone(), name.clone(), &mut script);
    if shell == Shell::Bash {
        return with_one_name_for_each_state(&String::from_utf8_lossy(&script), &name);
    }
    script
}

/// Where a program's name has a hyphen, clap_complete goes to states by other names than it gives them, and completes
/// nothing behind a subcommand (clap issue 6421).
fn with_one_name_for_each_state(script: &str, program: &str) -> Vec<u8> {
    script.replace(&program.replace('-', "__subcmd__"), &program.replace('-', "__")).into_bytes()
}
