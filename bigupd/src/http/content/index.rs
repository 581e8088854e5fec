//! The index of a folder: a page of HTML with a link to each file and folder in it. Browsers show it, and clients such as
//! rclone and `wget -r` read files by it.

use crate::admission::access::Access;
use crate::http::app::App;
use crate::http::content::chunks::{CHUNK, Chunks};
use crate::http::content::folder::Folder;
use crate::http::content::listing::moment;
use crate::http::content::routes::ENCODED;
use crate::http::html::escaped;
use crate::net::response::{Response, keep_nowhere};
use crate::refusal::Refusal;
use crate::uploads::Uploads;
use bigup_core::storage::store::FolderEntry;
use percent_encoding::utf8_percent_encode;
use std::ops::ControlFlow;
use warp::http::Method;
use warp::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The page runs and loads nothing. Without `allow-same-origin` a browser would send its links as those of a page of
/// others, and without `allow-downloads` it would save no file.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-downloads \
     allow-same-origin",
);

/// An index, as far as it is still to be made.
#[derive(Clone, Debug)]
struct Index {
    folder: Folder,
    /// The last name that it has already. `None` before its beginning.
    after: Option<String>,
    /// It has an entry, or may be without one.
    may_end: bool,
}

impl App {
    /// Responds with the index of a folder.
    ///
    /// # Errors
    /// Its sender may not read there, or there is no file.
    pub(super) async fn index(&self, by: &Access, method: &Method, path: String) -> Result<Response, Refusal> {
        let folder = Folder::seen_by(path, by)?;
        let may_end = folder.is_all();
        let (first, rest) = self.chunk(Index { folder, after: None, may_end }).await?;
        let mut response = match *method == Method::GET {
            true => self.chunked(first, rest),
            false => Response::default(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HTML);
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        keep_nowhere(&mut response);
        Ok(response)
    }
}

impl Chunks for Index {
    fn chunk(mut self, uploads: &Uploads) -> Result<(Vec<u8>, Option<Index>), Refusal> {
        let mut text = if self.after.is_none() { head(&self.folder) } else { String::new() };
        let mut is_all = true;
        let after = self.after.take().unwrap_or_default();
        uploads.list_level(self.folder.path(), self.folder.prefix(), &after, |entry| {
            text.push_str(&line(&self.folder, &entry));
            self.after = Some(entry.name().to_owned());
            is_all = text.len() < CHUNK;
            if is_all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.may_end |= self.after.is_some();
        if is_all && !self.may_end {
            return Err(self.folder.without_files());
        }
        if is_all {
            text.push_str("</ul>\n");
        }
        Ok((text.into_bytes(), (!is_all).then_some(self)))
    }
}

fn head(folder: &Folder) -> String {
    let name = escaped(folder.shown());
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\n<h1><bdi>{name}</bdi></h1>\n<ul>\n"
    )
}

/// A link, relative to the folder. A name in it may run from right to left, and changes nothing outside.
fn line(folder: &Folder, entry: &FolderEntry) -> String {
    let name = folder.inner(entry.name());
    let facts = match entry {
        FolderEntry::File(file) => format!(" {} bytes, {}", file.size, moment(file.modified)),
        FolderEntry::Folder(_) => String::new(),
    };
    let link = utf8_percent_encode(name, ENCODED);
    format!("<li><a href=\"{link}\"><bdi>{}</bdi></a>{facts}</li>\n", escaped(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_and_a_link_and_nothing_else() {
        let folder = Folder::seen_by("a/".to_owned(), &Access::Everything).unwrap();
        let lined = |name: &str| line(&folder, &FolderEntry::Folder(format!("a/{name}/")));
        for (name, link, text) in [
            ("b c", "b%20c/", "b c/"),
            ("<script>", "%3Cscript%3E/", "&lt;script&gt;/"),
            ("\" onclick='x", "%22%20onclick%3D%27x/", "&quot; onclick=&#39;x/"),
            ("50%?#&;", "50%25%3F%23%26%3B/", "50%?#&amp;;/"),
            ("javascript:x", "javascript%3Ax/", "javascript:x/"),
            ("文", "%E6%96%87/", "文/"),
        ] {
            assert_eq!(lined(name), format!("<li><a href=\"{link}\"><bdi>{text}</bdi></a></li>\n"));
        }
        assert!(
            head(&Folder::seen_by("<b>/".to_owned(), &Access::Everything).unwrap()).contains("<title>&lt;b&gt;/</")
        );
    }
}
