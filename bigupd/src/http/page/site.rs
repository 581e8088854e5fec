//! The page with the operator's words in it, ready to be sent.

use crate::http::html::escaped;
use crate::http::page::files::{FILES, INDEX, content_type};
use crate::http::page::settings::{Logo, PageSettings};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// First component of the paths of all files but the page itself.
pub const PATH: &str = "page";

/// Name of the operator's picture.
const LOGO: &str = "logo";

/// A file as it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its content type.
    pub content_type: &'static str,
    /// Its entity tag, with the quotes.
    pub etag: String,
    /// Its content.
    pub bytes: Bytes,
}

impl Sent {
    fn new(content_type: &'static str, bytes: Bytes) -> Sent {
        let etag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        Sent { content_type, etag, bytes }
    }
}

/// All files of the page, by their paths. Empty if the page is off.
#[derive(Clone, Debug, Default)]
pub struct Site(Arc<HashMap<String, Sent>>);

impl Site {
    /// The page as the settings say.
    pub fn new(settings: &PageSettings) -> Site {
        if !settings.is_on {
            return Site::default();
        }
        // It was readable when the settings were checked; an upload is worth more than a picture.
        let logo = settings.read_logo().unwrap_or_else(|why| {
            log::warn!("{why}");
            None
        });
        let index = Sent::new("text/html; charset=utf-8", index(settings, logo.is_some()).into());
        let files = FILES.iter().map(|file| {
            let kind = content_type(file.name).expect("a test compares the table with the types");
            (format!("/{PATH}/{}", file.name), Sent::new(kind, Bytes::from_static(file.bytes)))
        });
        let logo = logo.map(|Logo { content_type, bytes }| (logo_path(), Sent::new(content_type, bytes.into())));
        Site(Arc::new(files.chain(logo).chain([("/".to_owned(), index)]).collect()))
    }

    /// The file at a path.
    pub fn at(&self, path: &str) -> Option<&Sent> {
        self.0.get(path)
    }
}

fn logo_path() -> String {
    format!("/{PATH}/{LOGO}")
}

/// The page with the operator's words.
fn index(settings: &PageSettings, has_logo: bool) -> String {
    let logo = if has_logo { logo_path() } else { format!("/{PATH}/icon.svg") };
    INDEX
        .replace("{{title}}", &words(&settings.title))
        .replace("{{text}}", &words(settings.text.as_deref().unwrap_or_default()))
        .replace("{{logo}}", &logo)
}

/// Text of the operator, which is no place for other text either.
fn words(text: &str) -> String {
    escaped(text).replace('{', "&#123;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(title: &str, text: Option<&str>) -> PageSettings {
        PageSettings { is_on: true, title: title.to_owned(), text: text.map(str::to_owned), logo: None }
    }

    #[test]
    fn the_words_of_the_operator_stand_in_the_page_as_text() {
        let page = index(&on("A & <b> \"c\"", Some("{{logo}} <script>")), false);
        assert!(page.contains("<title>A &amp; &lt;b&gt; &quot;c&quot;</title>"), "{page}");
        assert!(page.contains("&#123;&#123;logo}} &lt;script&gt;"), "{page}");
        assert!(!page.contains("{{"), "{page}");
    }

    #[test]
    fn a_page_that_is_off_has_no_file() {
        let site = Site::new(&PageSettings { is_on: false, ..on("x", None) });
        assert!(site.at("/").is_none() && site.at("/page/app.js").is_none());
        let site = Site::new(&on("x", None));
        assert!(site.at("/").is_some() && site.at("/page/app.js").is_some() && site.at("/page/logo").is_none());
        assert!(site.at("/page/index.html").is_none() && site.at("/page/../Cargo.toml").is_none());
    }

    #[test]
    fn the_page_names_no_script_and_no_style_of_its_own() {
        // The policy refuses what stands in the page itself, so it would do nothing.
        let text = INDEX.replace("<script type=\"module\" src=\"", "");
        for inline in ["<script", "<style", " style=", " onclick=", " onload=", "javascript:", "http:", "https:"] {
            assert!(!text.contains(inline), "{inline}");
        }
    }
}
