//! The files of the page, as they lie in `bigupd/web`.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct WebFile {
    /// Its name below `/page/`.
    pub name: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

macro_rules! web_files {
    ($($name:literal),* $(,)?) => {
        &[$(WebFile { name: $name, bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $name)) }),*]
    };
}

/// The page itself, in which [`site`](super::site) sets the operator's words.
pub const INDEX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/index.html"));

/// All other files.
pub const FILES: &[WebFile] = web_files![
    "app.js",
    "icon.svg",
    "style.css",
    "engine/answer.js",
    "engine/backoff.js",
    "engine/blake3.js",
    "engine/blake3.wasm",
    "engine/cut.js",
    "engine/meter.js",
    "engine/plain-blake3.js",
    "engine/pool.js",
    "engine/queue.js",
    "engine/refusals.js",
    "engine/server.js",
    "engine/slots.js",
    "engine/source.js",
    "engine/store.js",
    "engine/tab-lock.js",
    "engine/tuner.js",
    "engine/upload.js",
    "engine/worker.js",
    "view/announcer.js",
    "view/clipboard.js",
    "view/dom.js",
    "view/download.js",
    "view/entries.js",
    "view/files.js",
    "view/format.js",
    "view/send.js",
    "view/session.js",
    "view/state-words.js",
    "view/token.js",
    "view/upload-row.js",
    "view/virtual-list.js",
    "view/wake-lock.js",
    "words/de.js",
    "words/en.js",
    "words/index.js",
    "words/zh.js",
];

/// The content type of a file, by the end of its name. `None` if the page has no such files.
pub fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(folder: &str) -> Vec<String> {
        let path = format!("{}/web/{folder}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| format!("{folder}{}", entry.file_name().to_str().unwrap())).collect()
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary_and_has_a_type() {
        let there: BTreeSet<String> = ["", "engine/", "view/", "words/"].into_iter().flat_map(names).collect();
        let served = FILES.iter().map(|file| file.name.to_owned()).chain(["index.html".to_owned()]).collect();
        assert_eq!(there, served);
        assert!(FILES.iter().all(|file| content_type(file.name).is_some()));
    }
}
