//! Everything that is made from the programs' own description of their commands and settings: manual pages and completions
//! for the package, and with `--docs` the reference and the sample configuration, which are kept in the repository.

mod completions;
mod man;
mod markdown;
mod pages;
mod sections;
mod settings;

use anyhow::Context;
use clap::Parser;
use std::path::{Path, PathBuf};

/// Writes manual pages and completions, made from what the programs' `--help` says.
#[derive(Parser)]
struct Arguments {
    /// Write docs/reference.md, docs/configuration.md and systemd/bigupd.ini instead
    #[arg(long)]
    docs: bool,
    /// Where to: man/ and completions/ are made in it, or with --docs the files of this repository
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let files = if arguments.docs { documents() } else { of_the_package() };
    files.into_iter().try_for_each(|(name, text)| write(&arguments.folder.join(name), &text))
}

fn of_the_package() -> Vec<(PathBuf, Vec<u8>)> {
    let pages = pages::all();
    let commands = pages.iter().map(|page| (page.name(), page.section, man::of_command(page, &pages)));
    let settings = (man::SETTINGS_PAGE.to_owned(), man::SETTINGS_SECTION, man::of_settings());
    let manuals = commands.chain([settings]);
    let manuals = manuals.map(|(name, section, text)| (format!("man/{name}.{section}").into(), text.into_bytes()));
    let completions = completions::all().into_iter().map(|(name, text)| (Path::new("completions").join(name), text));
    manuals.chain(completions).collect()
}

fn documents() -> Vec<(PathBuf, Vec<u8>)> {
    let files = [
        ("docs/reference.md", markdown::reference()),
        ("docs/configuration.md", settings::reference()),
        ("systemd/bigupd.ini", settings::sample()),
    ];
    files.map(|(name, text)| (PathBuf::from(name), text.into_bytes())).to_vec()
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("files are in folders")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
