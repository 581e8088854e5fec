//! The identities that tell uploads apart.

use crate::protocol::name::FileName;
use std::borrow::Borrow;
use std::fmt;
use std::io;

/// The identity of an upload: the name of its folder in `tmp/`. It is not the file's name: a protocol may have several
/// uploads of one name, or name an upload before its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// The identity of the native upload of `name`, of which there is one at a time.
    pub fn of_name(name: &FileName) -> UploadId {
        UploadId(name.spool_folder())
    }

    /// The upload in a folder that was found in `tmp/`.
    pub(super) fn of_folder(folder: String) -> UploadId {
        UploadId(folder)
    }

    /// The folder's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes sure that a record of a file of `name` is this upload's. All uploads are of the native protocol so far,
    /// and theirs are one to a name.
    ///
    /// # Errors
    /// It is another upload's: the folder was renamed by hand, or names that differ by case only are one to the file
    /// system.
    pub(super) fn check_is_of(&self, name: &FileName) -> io::Result<()> {
        if *self == UploadId::of_name(name) {
            return Ok(());
        }
        Err(io::Error::other(format!("it is the upload of {name}")))
    }
}

impl Borrow<str> for UploadId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_upload_is_told_by_its_name() {
        let name = |name: &str| FileName::new(name).unwrap();
        let id = UploadId::of_name(&name("a/b"));
        assert_eq!(id.as_str(), "a%2Fb");
        assert!(id.check_is_of(&name("a/b")).is_ok());
        assert!(id.check_is_of(&name("a")).unwrap_err().to_string().contains("the upload of a"));
    }
}
