//! The options of `sync`: those of `push`, and some of its own.

use crate::cli::args::push::PushArgs;
use crate::cli::args::server::split_server;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `sync`.
#[derive(Args, Debug)]
pub struct SyncArgs {
    /// Remove files below the folder on the server that are not in the local one; those that --exclude or --max-size
    /// leave out stay
    #[arg(long)]
    pub delete: bool,
    /// Read all local files to compare their digests, also those that did not change since they were read last
    #[arg(long)]
    pub checksum: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub push: PushArgs,
}

impl SyncArgs {
    /// Takes the place on the server from behind the local folder. The server in it is named, where there is one.
    ///
    /// # Errors
    /// There are not two paths, or an option contradicts them.
    pub fn take_server(&mut self, is_known: &dyn Fn(&str) -> bool) -> Result<Option<String>, String> {
        let push = &mut self.push;
        let is_alone = push.name.is_none() && push.into.is_none() && push.files_from.is_none();
        let is_plain = is_alone && !push.command && push.embedded.is_none() && !push.remove_source;
        if !is_plain || push.manifest.is_some() {
            let of_push = "--name, --into, --files-from, --command, --embedded, --manifest and --remove-source";
            return Err(format!("sync has a folder and its place on the server: {of_push} are of push"));
        }
        let [_, place] = &push.paths[..] else {
            return Err("sync takes a local folder and its place on the server: DIR SERVER:PREFIX".to_owned());
        };
        let place = place.to_str().ok_or("the place on the server is not UTF-8")?.to_owned();
        push.paths = vec![PathBuf::from(&push.paths[0])];
        let (server, prefix) = split_server(&place, is_known).map_or((None, place.as_str()), |(s, p)| (Some(s), p));
        let prefix = prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return Err("the place on the server is a folder, like lab:photos/: a name is missing".to_owned());
        }
        push.name = Some(prefix.to_owned());
        push.replace = true;
        Ok(server.map(str::to_owned))
    }
}
