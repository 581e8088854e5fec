//! The operator's settings of the page.

use crate::http::page::files::content_type;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of a logo: each visitor reads them, and they stay in memory.
const MAX_LOGO: u64 = 1 << 20;

/// Settings of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// True if the page is served.
    pub is_on: bool,
    /// Its title.
    pub title: String,
    /// A sentence below the title. `None`: the page's own.
    pub text: Option<String>,
    /// The file of a picture beside the title. `None`: the page's own.
    pub logo: Option<PathBuf>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    /// Its content type.
    pub content_type: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl PageSettings {
    /// Mistakes in the settings as things stand.
    pub fn mistakes(&self) -> Vec<String> {
        self.read_logo().err().into_iter().collect()
    }

    /// The operator's picture. `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is no picture of a kind that browsers show.
    pub fn read_logo(&self) -> Result<Option<Logo>, String> {
        let logo = self.logo.as_deref().filter(|_| self.is_on).map(read);
        logo.transpose().map_err(|why| format!("web_logo: {why}"))
    }
}

fn read(path: &Path) -> Result<Logo, String> {
    let shown = path.display();
    let image = path.to_str().and_then(content_type).filter(|kind| kind.starts_with("image/"));
    let content_type = image.ok_or_else(|| format!("{shown} ends in none of .svg, .png, .jpg, .jpeg, .webp"))?;
    let mut bytes = vec![];
    let read = File::open(path).and_then(|file| file.take(MAX_LOGO + 1).read_to_end(&mut bytes));
    read.map_err(|e| format!("{shown}: {e}"))?;
    if bytes.len() as u64 > MAX_LOGO {
        return Err(format!("{shown} has more than {MAX_LOGO} bytes: take a smaller picture"));
    }
    Ok(Logo { content_type, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logo_is_a_small_picture() {
        let folder = tempfile::tempdir().unwrap();
        let with = |name: &str, len: u64| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![b'x'; len as usize]).unwrap();
            PageSettings { is_on: true, logo: Some(path), ..PageSettings::default() }
        };
        let fits = with("a.svg", MAX_LOGO).read_logo().unwrap().unwrap();
        assert_eq!((fits.content_type, fits.bytes.len() as u64), ("image/svg+xml", MAX_LOGO));
        let refused = |settings: PageSettings| settings.mistakes().concat();
        assert!(refused(with("b.png", MAX_LOGO + 1)).contains("more than 1048576 bytes"));
        assert!(refused(with("c.js", 1)).contains("none of .svg"));
        let missing = PageSettings { is_on: true, logo: Some(folder.path().join("no.svg")), ..PageSettings::default() };
        assert!(refused(missing.clone()).starts_with("web_logo: "));
        assert_eq!(PageSettings { is_on: false, ..missing }.mistakes(), Vec::<String>::new());
        assert_eq!(PageSettings::default().read_logo(), Ok(None));
    }
}
