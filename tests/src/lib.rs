//! What the end-to-end tests share: the real programs, started with data folders of their own and ended by their ids.
//!
//! - [`programs`] - finding the programs.
//! - [`daemon`] - a `bigupd` and what it logs.
//! - [`accept`] - a listener.
//! - [`browser`] - Chromium, and a site whose pages it opens.
//! - [`certificates`] - authorities and what they sign.
//! - [`gate`] - a connection that stops in the middle of a transfer.
//! - [`gateway`] - nginx, Caddy and HAProxy before daemons.
//! - [`gluster`] - a file system of two machines.
//! - [`http`] - requests as a plain HTTP client makes them.
//! - [`clients`] - clients of other protocols that others made.
//! - [`data`] - contents that can be made again.
//! - [`docs`] - commands that documents tell their readers to type.
//! - [`faults`] - making the n-th file operation of the real programs fail.
//! - [`hooks`] - programs and a server that are asked and told.
//! - [`mapped`] - files that are mapped for writing.
//! - [`mount`] - file systems of a test's own.
//! - [`needs`] - what is skipped without root.
//! - [`powercut`] - what a power cut leaves.
//! - [`proxy`] - a bad network.
//! - [`wan`] - a long, slow, lossy link.
//! - [`process`] - waiting for conditions, ending processes.
//! - [`scrape`] - what those who watch a daemon get.
//! - [`seaweed`] - a store of objects, and a proxy that disturbs requests to it.
//! - [`stored`] - a daemon whose finished files go to that store.
//! - [`turns`] - tests that keep the whole machine busy.
//! - [`tus`] - a client of tus.
//! - [`usage`] - what a process uses.
//! - [`visitor`] - a visitor of the page, in Chromium.

pub mod accept;
pub mod browser;
pub mod certificates;
pub mod clients;
pub mod daemon;
pub mod data;
pub mod docs;
pub mod faults;
pub mod gate;
pub mod gateway;
pub mod gluster;
pub mod hooks;
pub mod http;
pub mod mapped;
pub mod mount;
pub mod needs;
pub mod powercut;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod scrape;
pub mod seaweed;
pub mod stored;
pub mod turns;
pub mod tus;
pub mod usage;
pub mod visitor;
pub mod wan;

/// The number in an environment variable, or `default`.
///
/// # Panics
/// It is none.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("it is a number"))
}
