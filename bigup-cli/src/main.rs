//! The program `bigup-cli`: logging, flags, exit code. All else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_env = "gnu", target_os = "linux", target_feature = "crt-static"))]
    bigup_core::host_names::find_by_files_and_dns();
    // Our own warnings only: what the HTTP library has to say of each connection would tear the progress bar.
    let mut logger = bigup_core::logging::logger("bigup_client=warn");
    // Whatever is asked for: as traces ureq would show all that is sent, the token with it.
    logger.filter_module("ureq_proto::util", log::LevelFilter::Debug).init();
    bigup_client::cli::run(bigup_client::cli::parse::parse_or_exit())
}
