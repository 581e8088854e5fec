//! The settings of the configuration file beside those of the command line and the environment.
//!
//! The command line counts most, then the environment, then the file. A server that the command line names counts as the
//! command line does: no variable sends its token elsewhere. The settings that count are added to the command line as
//! options, so that the file has the same options, with the same values, as the commands.

use crate::cli::config::file::{ConfigFile, SERVER_KEYS, Setting};
use crate::client::address::masked;
use anyhow::bail;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::env;
use std::ffi::{OsStr, OsString};

/// Environment variable with the token.
pub const TOKEN_VARIABLE: &str = "BIGUP_TOKEN";

/// Options that are about a single run.
const OF_A_RUN: [&str; 22] = [
    "command",
    "delete",
    "dry_run",
    "embedded",
    "files_from",
    "help",
    "json",
    "manifest",
    "name",
    "prefix",
    "remove_source",
    "server",
    "to",
    "version",
    "watch",
    "growing",
    "checksum",
    "metrics_file",
    "shell",
    "state",
    "status",
    "then",
];

/// True if the file may have a value for this option.
fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some() && !OF_A_RUN.contains(&arg.get_id().as_str())
}

/// The options of all commands that the file may have values for, by name.
pub fn settings_of(program: &Command) -> Vec<&Arg> {
    let mut all: Vec<&Arg> = program.get_subcommands().flat_map(Command::get_arguments).collect();
    all.retain(|arg| is_setting(arg));
    all.sort_by_key(|arg| arg.get_id().as_str());
    all.dedup_by_key(|arg| arg.get_id().as_str());
    all
}

/// The settings of `file` that count for a command with these `matches`, whose server is `named` on the command line.
///
/// # Errors
/// There is no such server, or a key is no option.
pub fn counting(
    program: &Command,
    matches: &ArgMatches,
    file: &ConfigFile,
    named: Option<&str>,
) -> anyhow::Result<Vec<Setting>> {
    let known = settings_of(program);
    let settings = file.settings(named)?;
    for Setting { key, section, .. } in &settings {
        if !known.iter().any(|arg| arg.get_id() == key.as_str()) {
            let place = section.as_ref().map(|name| format!(" [{name}]")).unwrap_or_default();
            let known = known.iter().map(|arg| arg.get_id().as_str()).collect::<Vec<_>>().join(", ");
            bail!("{}{place}: {key} is no option of a command; known are {known}", file.path().display());
        }
    }
    let of_arguments = |key: &str| matches.try_contains_id(key).ok().and_then(|_| matches.value_source(key));
    let is_given = |setting: &Setting| match of_arguments(&setting.key) {
        Some(ValueSource::CommandLine) => true,
        Some(ValueSource::EnvVariable) => named.is_none() || setting.section.is_none(),
        _ => {
            let has_token = env::var_os(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty());
            setting.key == "token_file" && named.is_none() && has_token
        }
    };
    // A token or certificate of the file goes to no server but its own.
    let has_own_url = settings.iter().any(|setting| setting.key == "url" && is_given(setting))
        || of_arguments("url").is_some_and(|source| source == ValueSource::CommandLine)
        || named.is_none() && of_arguments("url") == Some(ValueSource::EnvVariable);
    let counts = |setting: &Setting| !(is_given(setting) || has_own_url && SERVER_KEYS.contains(&setting.key.as_str()));
    let counting = settings.iter().filter(|setting| counts(setting));
    // Of two values of a key the last one counts.
    let is_last = |setting: &&Setting| settings.iter().rev().find(|other| other.key == setting.key) == Some(*setting);
    Ok(counting.filter(is_last).cloned().collect())
}

/// A setting that counts, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// Its key.
    pub key: String,
    /// Its value, without user and password of a URL. The token itself is no setting.
    pub value: String,
    /// The command line, the name of a variable, or the file with its section.
    pub from: String,
}

/// The settings that count: those of the `file`, which are `settings`, and others.
pub fn shown(program: &Command, matches: &ArgMatches, file: &ConfigFile, settings: &[Setting]) -> Vec<ShownSetting> {
    let mut all = vec![];
    for arg in settings_of(program) {
        let key = arg.get_id().as_str();
        let given = matches.try_contains_id(key).ok().and_then(|_| matches.value_source(key));
        let given_value = || matches.get_raw(key).and_then(|mut values| values.next()).map(OsStr::to_owned);
        let of_file = settings.iter().find(|setting| setting.key == key);
        let variable = arg.get_env().and_then(|name| Some((name.to_string_lossy().into_owned(), env::var_os(name)?)));
        let (value, from) = match (of_file, given, variable) {
            (_, Some(ValueSource::CommandLine), _) => (given_value(), "command line".to_owned()),
            (Some(Setting { value, section, .. }), ..) => {
                let section = section.as_ref().map(|name| format!(" [{name}]")).unwrap_or_default();
                (Some(value.into()), format!("{}{section}", file.path().display()))
            }
            (None, _, Some((name, value))) => (Some(value), name),
            (None, Some(ValueSource::DefaultValue), None) if key == "url" => (given_value(), "default".to_owned()),
            _ => continue,
        };
        let value = value.map(|value| masked(&value.to_string_lossy())).unwrap_or_default();
        all.push(ShownSetting { key: key.to_owned(), value, from });
    }
    let has_token_file = all.iter().any(|setting| setting.key == "token_file");
    if !has_token_file && env::var_os(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty()) {
        let (value, from) = ("(not shown)".to_owned(), TOKEN_VARIABLE.to_owned());
        all.push(ShownSetting { key: "token".to_owned(), value, from });
    }
    all
}

/// The command line `arguments` with the settings that `command` has as options, except those that contradict what is
/// given.
pub fn with_settings(
    arguments: &[OsString],
    command: &Command,
    matches: &ArgMatches,
    settings: &[Setting],
) -> Result<Vec<OsString>, String> {
    let is_given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut added = vec![];
    for Setting { key, value, .. } in settings {
        let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == key.as_str()) else { continue };
        if command.get_arg_conflicts_with(arg).iter().any(is_given) {
            continue;
        }
        let option = format!("--{}", arg.get_long().unwrap_or(key));
        match (arg.get_action(), value.as_str()) {
            (ArgAction::SetTrue, "true" | "yes" | "1") => added.push(option.into()),
            (ArgAction::SetTrue, "false" | "no" | "0") => {}
            (ArgAction::SetTrue, _) => return Err(format!("{key} is {value:?}, and must be true or false")),
            _ => added.push(format!("{option}={value}").into()),
        }
    }
    // Behind the name of the command.
    let (before, behind) = arguments.split_at(arguments.len().min(2));
    Ok(before.iter().cloned().chain(added).chain(behind.iter().cloned()).collect())
}
