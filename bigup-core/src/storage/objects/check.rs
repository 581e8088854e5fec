//! The check at the start: that the store can be reached, and that the credentials permit all that is needed.

use super::multipart::SentPart;
use super::request::Payload;
use super::{Facts, Listed, ObjectError, Objects, RESERVED};
use crate::protocol::digest::Digest;
use crate::protocol::name::FileName;
use crate::protocol::parts::PartSizes;
use md5::{Digest as _, Md5};
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Content of the objects of the check.
const CONTENT: &[u8] = b"bigup checks its permissions; this object can be removed\n";

impl Objects {
    /// Tries everything that is asked of the store, with objects of no use that are removed again.
    ///
    /// # Errors
    /// The first thing that does not work, in one line.
    pub fn check(&self) -> io::Result<()> {
        let name = format!("{RESERVED}/check-{}", super::new_note());
        let name = FileName::new(&name).map_err(io::Error::other)?;
        let tried = self.try_all(&name);
        // The object may be there although a later step failed.
        let _ = self.delete(&self.key_of(name.as_str()));
        tried
    }

    fn try_all(&self, name: &FileName) -> io::Result<()> {
        let folder = tempfile()?;
        let mut file = std::fs::File::options().create_new(true).read(true).write(true).open(folder.join("content"))?;
        let tried = (|| {
            file.write_all(CONTENT)?;
            self.try_parts(name, &folder, &file)
        })();
        let _ = std::fs::remove_dir_all(&folder);
        tried
    }

    fn try_parts(&self, name: &FileName, folder: &std::path::Path, file: &std::fs::File) -> io::Result<()> {
        let facts =
            Facts { digest: Digest(*blake3::hash(CONTENT).as_bytes()), source: None, sha256: None, modified: None };
        let (md5, len): ([u8; 16], u64) = (Md5::digest(CONTENT).into(), CONTENT.len() as u64);
        self.pages(&self.key_of(&format!("{RESERVED}/check-")), "", false, |_: Listed| ControlFlow::Break(()))?;
        let sizes = PartSizes { part: len };
        let upload = self.multipart(folder, name, sizes, false)?;
        upload.send(1, file, 0, len, md5)?;
        let upload = self.multipart(folder, name, sizes, false)?;
        let parts: Vec<SentPart> = upload.stored.values().cloned().collect();
        if parts.len() != 1 {
            let why = format!("{} parts are listed, not the 1 that was stored", parts.len());
            return Err(io::Error::other(format!("the store {}: {why}", self.settings.url)));
        }
        upload.complete(&parts, len, &facts, true)?;
        let found = self.find(name)?.filter(|found| found.size == len && found.facts.as_ref() == Some(&facts));
        let found = found.ok_or_else(|| {
            io::Error::other(format!("the store {}: it does not show the object that was stored", self.settings.url))
        })?;
        self.remove(&found)?;
        std::fs::remove_file(folder.join(super::multipart::OBJECT_JSON))?;
        self.multipart(folder, name, sizes, false)?;
        self.abandon(folder)?;
        self.check_md5(name)
    }

    /// Warns if the store does not compare what arrives with its MD5.
    fn check_md5(&self, name: &FileName) -> io::Result<()> {
        match self.put(&self.key_of(name.as_str()), Payload::Bytes(CONTENT), [0; 16], vec![]) {
            Err(e) if e.status().is_some_and(|status| status < 500) => Ok(()),
            Err(e) => Err(e.into()),
            Ok(()) => {
                log::warn!(
                    "the store {} does not compare bodies with Content-MD5: damage on the way to it goes unnoticed",
                    self.settings.url
                );
                Ok(())
            }
        }
    }

    /// The reason why the store cannot be used, in one line that names the store and its endpoint.
    ///
    /// # Errors
    /// That line.
    pub fn check_told(&self) -> Result<(), String> {
        self.check().map_err(|e| {
            let hint = match ObjectError::of(&e).map(ObjectError::status) {
                Some(Some(401 | 403)) => "; the credentials need the rights that docs/s3.md lists",
                Some(Some(404)) => "; make the bucket first",
                _ => "",
            };
            format!("store {} at {}: {e}{hint}", self.settings.url, self.settings.endpoint())
        })
    }
}

/// A folder of its own for the file that the check sends.
fn tempfile() -> io::Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("bigup-check-{}", super::new_note()));
    std::fs::create_dir(&folder).map(|()| folder)
}
