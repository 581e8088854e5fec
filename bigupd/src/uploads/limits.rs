//! What of an upload is too much, and how many of them there may be.

use super::Uploads;
use crate::census::Census;
use crate::metrics::Limit;
use crate::reply::Refusal;
use bigup_core::data_dir::DataDir;
use bigup_core::plan::Plan;
use bigup_core::wire::ErrorCode;
use std::io;

/// Seconds after which an upload that was one too many may be begun again.
const FULL_RETRY_AFTER: u64 = 5;

impl Uploads {
    /// Whether what is known of an upload is within the limits.
    pub(super) fn check_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        self.check_sizes(plan.slice_size, plan.slice_num, plan.file_size)
    }

    /// The same of single numbers: bytes of a slice, number of slices, bytes of the file.
    pub(super) fn check_sizes(
        &self,
        slice: Option<u64>,
        slices: Option<u64>,
        file: Option<u64>,
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let over = |is: Option<u64>, most: u64| is.filter(|is| *is > most);
        let (limit, message) = if let Some(slice) = over(slice, limits.slice_size) {
            let most = limits.slice_size;
            (Limit::SliceSize, format!("a slice of {slice} bytes is too large: at most {most}; use smaller slices"))
        } else if let Some(file) = over(file, limits.file_size) {
            (Limit::FileSize, format!("a file of {file} bytes is too large: at most {}", limits.file_size))
        } else if let Some(slices) = over(slices, limits.slices) {
            let most = limits.slices;
            (Limit::Slices, format!("{slices} slices are too many: at most {most}; use larger slices"))
        } else {
            return Ok(());
        };
        Err(Refusal::over(limit, ErrorCode::TooLarge, message))
    }

    /// Whether one more upload may begin.
    pub(super) fn check_number_of_uploads(
        &self,
        admit: impl Fn(&Census, &DataDir, u64) -> io::Result<bool>,
    ) -> Result<(), Refusal> {
        let most = self.config.limits.uploads;
        if admit(&self.census, &self.data, most.saturating_sub(self.arriving.number()))? {
            return Ok(());
        }
        let message = format!("{most} uploads are unfinished, and no more are possible: try again later");
        Err(Refusal {
            retry_after: Some(FULL_RETRY_AFTER),
            ..Refusal::over(Limit::Uploads, ErrorCode::Overloaded, message)
        })
    }
}
