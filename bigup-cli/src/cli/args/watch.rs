//! The options of `watch`: those of `push`, and some of its own.

use crate::cli::args::push::PushArgs;
use crate::watch::afterwards::Then;
use crate::watch::completeness::Quiet;
use crate::watch::keeping::{FreeSpace, Keeping};
use bigup_core::protocol::units::parse_duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Time for which a file must rest where the system tells that nobody can be writing to it.
const QUIET: Duration = Duration::from_secs(2);

/// The same where it does not tell.
const QUIET_UNTOLD: Duration = Duration::from_secs(60);

/// The reaction to a finished file of the same name and other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnChange {
    /// Tell it as an error, and leave the finished file as it is.
    Error,
    /// Replace the finished file.
    Replace,
    /// Push it with a number in its name, like a-2.tif.
    Number,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Time for which a file must not change before it is pushed [default: 2s where the system tells that no program can be
    /// writing to it, else 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub settle: Option<Duration>,
    /// Time that must have passed since the last change of a file, by the file's own time, like 1h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub min_age: Duration,
    /// Push each folder inside the watched one as a whole, once a file in it matches this pattern of gitignore, like
    /// CopyComplete.txt; that file goes last
    #[arg(long, value_name = "PATTERN")]
    pub ready_when: Option<String>,
    /// The end of a local file that is stored and verified, and unchanged since: keep, delete, or move=DIR, which keeps its
    /// path below the folder DIR
    #[arg(long, value_name = "WHAT", default_value = "keep", value_parser = then)]
    pub then: Then,
    /// With --then: keep stored files for this time after their last change, like 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub keep_for: Option<Duration>,
    /// With --then delete: keep stored files while so much disk space is free, like 50G or 10%; then the oldest go, as many as
    /// it takes
    #[arg(long, value_name = "SPACE")]
    pub keep_free: Option<FreeSpace>,
    /// Send large files while they grow. A file appears on the server once it is complete, as ever; slices that were written
    /// again meanwhile are sent again
    #[arg(long)]
    pub follow: bool,
    /// On a finished file of the same name and other content, as after a change of a file that was pushed
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnChange::Error)]
    pub changed: OnChange,
    /// Time between two scans of the whole folder, behind the system's own events
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub scan: Duration,
    /// Time between two scans where the system tells no events: network file systems, Windows, too many folders
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub poll: Duration,
    /// Show the state of the watches of the folder, and end: with 0 if all of them are at work, else with 1
    #[arg(long)]
    pub status: bool,
    /// Keep this file up to date with metrics for the textfile collector of Prometheus' node exporter; its name ends in .prom
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Folder for the journal of what is stored [default: bigup in XDG_STATE_HOME or ~/.local/state; on Windows in
    /// %LOCALAPPDATA%]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub push: PushArgs,
}

impl WatchArgs {
    /// Checks that the arguments fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), String> {
        let PushArgs { name, files_from, command, embedded, manifest, remove_source, dry_run, .. } = &self.push;
        let is_plain = name.is_none() && files_from.is_none() && embedded.is_none() && manifest.is_none();
        if !is_plain || *command || *remove_source || *dry_run || self.push.follow_symlinks || self.push.replace {
            let of_push = "--name, --files-from, --command, --embedded, --manifest, --dry-run and --follow-symlinks";
            return Err(format!(
                "watch pushes the files of a folder: {of_push} are of push; --then delete stands for --remove-source, and \
                 --changed replace for --replace"
            ));
        }
        if self.push.paths.len() != 1 {
            return Err(format!(
                "watch takes one folder, and {} are given: start it once for each",
                self.push.paths.len()
            ));
        }
        if self.metrics_file.as_ref().is_some_and(|path| path.extension().is_none_or(|extension| extension != "prom")) {
            return Err("--metrics-file: the name must end with .prom, else no collector reads the file".to_owned());
        }
        let keeps = self.keep_for.is_some() || self.keep_free.is_some();
        match &self.then {
            Then::Keep if keeps => {
                Err("--keep-for and --keep-free say when files go: give --then delete or --then move=DIR too"
                    .to_owned())
            }
            Then::Move(_) if self.keep_free.is_some() => {
                Err("--keep-free needs --then delete: a file that is moved frees no disk space".to_owned())
            }
            _ => self.push.check(),
        }
    }

    /// How long stored files stay.
    pub fn keeping(&self) -> Keeping {
        Keeping { keep_for: self.keep_for, keep_free: self.keep_free }
    }

    /// The times for which a file must rest.
    pub fn quiet(&self) -> Quiet {
        Quiet { told: self.settle.unwrap_or(QUIET), untold: self.settle.unwrap_or(QUIET_UNTOLD) }
    }
}

fn then(text: &str) -> Result<Then, String> {
    match (text, text.split_once(['=', ' '])) {
        ("keep", _) => Ok(Then::Keep),
        ("delete", _) => Ok(Then::Delete),
        (_, Some(("move", folder))) if !folder.is_empty() => Ok(Then::Move(PathBuf::from(folder))),
        _ => Err("it is keep, delete or move=DIR".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn watch(arguments: &[&str]) -> Result<WatchArgs, String> {
        let cli = Cli::try_parse_from([&["bigup-cli", "watch"], arguments].concat()).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Watch(args) => args.check().map(|()| args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_of_files_is_one_of_three() {
        let then = |arguments: &[&str]| watch(&[&["f"], arguments].concat()).map(|args| args.then);
        assert_eq!(then(&[]), Ok(Then::Keep));
        assert_eq!(then(&["--then", "delete"]), Ok(Then::Delete));
        for text in ["move=/d", "move /d"] {
            assert_eq!(then(&["--then", text]), Ok(Then::Move(PathBuf::from("/d"))));
        }
        for text in ["move", "move=", "remove"] {
            assert!(then(&["--then", text]).unwrap_err().contains("move=DIR"), "{text}");
        }
    }

    #[test]
    fn files_are_kept_for_a_time_only_where_they_go_at_all() {
        let keep = |arguments: &[&str]| watch(&[&["f"], arguments].concat()).map(|args| args.keeping());
        let day = Some(Duration::from_secs(24 * 3600));
        let tenth = Some(FreeSpace::Percent(10));
        assert_eq!(
            keep(&["--then", "delete", "--keep-for", "1d", "--keep-free", "10%"]),
            Ok(Keeping { keep_for: day, keep_free: tenth })
        );
        assert!(keep(&["--keep-for", "1d"]).unwrap_err().contains("--then delete"));
        assert!(keep(&["--then", "move=/d", "--keep-free", "10%"]).unwrap_err().contains("frees no disk space"));
        assert!(keep(&["--metrics-file", "m.txt"]).unwrap_err().contains(".prom"));
        assert_eq!(keep(&["--then", "move=/d", "--keep-for", "1d"]), Ok(Keeping { keep_for: day, keep_free: None }));
    }

    #[test]
    fn a_given_time_of_rest_counts_everywhere() {
        assert_eq!(watch(&["f"]).unwrap().quiet(), Quiet { told: QUIET, untold: QUIET_UNTOLD });
        let given = Duration::from_millis(100);
        assert_eq!(watch(&["f", "--settle", "100ms"]).unwrap().quiet(), Quiet { told: given, untold: given });
    }

    #[test]
    fn options_for_single_files_are_refused() {
        for option in [&["--name", "x"][..], &["--replace"], &["--remove-source"], &["--dry-run"], &["--command"]] {
            assert!(watch(&[&["f"], option].concat()).unwrap_err().contains("of push"), "{option:?}");
        }
        assert!(watch(&["f", "g"]).unwrap_err().contains("2 are given"));
    }
}
