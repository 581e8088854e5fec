//! From the words of the command line to a command, with the settings of the configuration file.

use crate::cli::args::{Cli, Command};
use crate::cli::config::file::ConfigFile;
use crate::cli::config::merge::{counting, shown, with_settings};
use crate::cli::print::eprint_line;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Error, FromArgMatches};
use std::ffi::OsString;
use std::io::ErrorKind::BrokenPipe;
use std::io::Write;

/// The arguments of this program; ends it as clap does (exit code 2) where they make no sense.
pub fn parse_or_exit() -> Cli {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    parse(&arguments).unwrap_or_else(|error| {
        if !error.use_stderr() {
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            std::process::exit(i32::from(printed.is_err_and(|error| error.kind() != BrokenPipe)));
        }
        // It quotes arguments, which may be names that a shell found in a folder.
        error.render().to_string().lines().for_each(eprint_line);
        std::process::exit(error.exit_code())
    })
}

fn parse(arguments: &[OsString]) -> Result<Cli, Error> {
    let (matches, mut cli) = parsed(arguments)?;
    if cli.command.has_settings() {
        let file = ConfigFile::read().map_err(|error| invalid(format!("{error:#}")))?;
        let is_known = |name: &str| file.has_server(name);
        let named = cli.command.take_server(&is_known).map_err(invalid)?;
        let (name, of_command) = matches.subcommand().expect("there is no command line without a command");
        let has_url = of_command.try_contains_id("url").is_ok()
            && of_command.value_source("url") == Some(ValueSource::CommandLine);
        if has_url && let Some(named) = &named {
            return Err(invalid(format!("the server {named} has a URL of its own: leave --url out")));
        }
        let program = Cli::command();
        let settings = counting(&program, of_command, &file, named.as_deref());
        let mut settings = settings.map_err(|error| invalid(format!("{error:#}")))?;
        if cli.command.has_place() {
            settings.retain(|setting| setting.key != "into");
        }
        match &mut cli.command {
            Command::Config(args) => args.shown = shown(&program, of_command, &file, &settings),
            _ if settings.is_empty() => {}
            command => {
                let of_program = program.find_subcommand(name).expect("it was parsed");
                let merged = with_settings(arguments, of_program, of_command, &settings);
                let merged = merged.map_err(|error| invalid(format!("{}: {error}", file.path().display())))?;
                let (_, again) = parsed(&merged).map_err(|error| in_file(&error, &file))?;
                *command = again.command;
                command.take_server(&is_known).map_err(invalid)?;
            }
        }
    }
    cli.check().map_err(invalid)?;
    Ok(cli)
}

fn parsed(arguments: &[OsString]) -> Result<(ArgMatches, Cli), Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((matches, cli))
}

fn invalid(message: String) -> Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

/// An error that only the settings of the file make.
fn in_file(error: &Error, file: &ConfigFile) -> Error {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    invalid(format!("{}: {first}", file.path().display()))
}
