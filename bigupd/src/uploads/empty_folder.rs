//! A folder of finished files that has nothing in it.

use super::Uploads;
use super::refusals::in_the_way;
use crate::admission::access::Access;
use crate::admission::grants::Growing;
use crate::refusal::Refusal;
use bigup_core::protocol::name::FileName;
use bigup_core::storage::store::{Store, StoreError};

impl Uploads {
    /// Makes the folder `name` among the finished files, for `by`, who may push to it. It counts as a file with no bytes
    /// in the quota. False: it was there.
    ///
    /// # Errors
    /// A limit is reached, a file is in the way, or the data folder cannot be written.
    pub fn make_folder(&self, by: &Access, name: &FileName) -> Result<bool, Refusal> {
        name.check_new()?;
        self.check_reach(name)?;
        let granted = self.take(by, name, Growing::UnnamedFile(0))?;
        let made = Store::new(&self.data).make_folder(name).map_err(|error| match error {
            StoreError::Exists => in_the_way(&format!("a file has the name {name}")),
            StoreError::InTheWay(what) => in_the_way(&what),
            StoreError::Io(error) => error.into(),
        })?;
        if made {
            granted.landed();
        }
        Ok(made)
    }
}
