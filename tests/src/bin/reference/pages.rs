//! Which commands there are: the programs, and the commands of each.

use clap::{Command, CommandFactory};

/// One command, to be documented.
pub struct Page {
    /// It, with all that is told from the outside filled in.
    pub command: Command,
    /// Section of the manual: 1 for everybody's, 8 for the operator's.
    pub section: &'static str,
    /// The page of the command that this one belongs to. None: it is a program.
    pub parent: Option<String>,
}

impl Page {
    /// Name of its page, like `bigup-cli-push`.
    pub fn name(&self) -> String {
        self.command.get_display_name().unwrap_or_else(|| self.command.get_name()).to_owned()
    }

    /// How it is called, like `bigup-cli push`.
    pub fn call(&self) -> String {
        self.command.get_bin_name().unwrap_or_else(|| self.command.get_name()).to_owned()
    }
}

/// The programs, and the section of the manual that each belongs to.
pub fn programs() -> [(Command, &'static str); 3] {
    [
        (bigupd::cli::Arguments::command().name("bigupd"), "8"),
        (bigup_merger::args::Arguments::command(), "8"),
        (bigup_client::cli::args::Cli::command(), "1"),
    ]
}

/// All commands, each program before its own.
pub fn all() -> Vec<Page> {
    let mut pages = vec![];
    for (program, section) in programs() {
        // `help` explains itself.
        let mut command = program.disable_help_subcommand(true);
        command.build();
        add(&mut pages, command, section, None);
    }
    pages
}

fn add(pages: &mut Vec<Page>, command: Command, section: &'static str, parent: Option<String>) {
    let page = Page { command: command.clone(), section, parent };
    let name = page.name();
    pages.push(page);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(pages, sub.clone(), section, Some(name.clone()));
    }
}
