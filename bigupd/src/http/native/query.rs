//! Reading a query string, strictly: every parameter at most once, percent-encoded UTF-8, plain numbers. A file name is
//! given out only if the sender has the permission for the request.

use crate::admission::access::Access;
use crate::admission::tokens::Permission;
use crate::metrics::UploadProtocol;
use crate::refusal::{Refusal, within_request};
use crate::uploads::request::BeginRequest;
use bigup_core::protocol::kept::Kept;
use bigup_core::protocol::name::FileName;
use bigup_core::protocol::native::{ErrorCode, MAX_DIGESTS, MAX_SOURCE_LEN, MAX_WAIT_SECS, param};
use bigup_core::protocol::plan::{MAX_SLICES, Plan, PlanError};
use bigup_core::protocol::units::parse_u64;
use bigup_core::storage::spool::UploadId;
use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

/// The parameters of one request, not yet made sense of, and its sender's permissions.
#[derive(Debug)]
pub struct QueryParams {
    map: HashMap<String, String>,
    by: Access,
}

/// The form of the response to a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseForm {
    /// Held slices as runs.
    pub ranges: bool,
    /// Time to wait for the file to be finished.
    pub wait: Duration,
}

fn bad(message: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, message)
}

impl QueryParams {
    /// Reads a query string, sent `by` somebody.
    ///
    /// # Errors
    /// A parameter is there twice, or is not UTF-8.
    pub fn parse(query: &str, by: Access) -> Result<QueryParams, Refusal> {
        let mut map = HashMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if map.contains_key(&name) {
                return Err(bad(format!(
                    "the parameter {} is there twice",
                    bigup_core::protocol::name::printable(&name)
                )));
            }
            map.insert(name, value);
        }
        Ok(QueryParams { map, by })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.map.get(name).map(String::as_str)
    }

    /// The asker.
    pub fn by(&self) -> &Access {
        &self.by
    }

    fn file_name(&self, any_of: &[Permission]) -> Result<FileName, Refusal> {
        let name = self.get(param::FILE_NAME).ok_or_else(|| bad(format!("{} is missing", param::FILE_NAME)))?;
        let name = FileName::new(name)?;
        self.by.check(any_of, Some(&name))?;
        Ok(name)
    }

    /// The file name, to send slices of it.
    ///
    /// # Errors
    /// It is missing or refused, or its sender may not push it.
    pub fn name_to_push(&self) -> Result<FileName, Refusal> {
        self.file_name(&[Permission::Push])
    }

    /// The file name, to tell its state: every client that pushes gets to know that too.
    ///
    /// # Errors
    /// It is missing or refused, or its sender may neither push nor read it.
    pub fn name_to_show(&self) -> Result<FileName, Refusal> {
        self.file_name(&[Permission::Read, Permission::Push])
    }

    /// The file name, to cancel its upload: the permission depends on who began it, too.
    ///
    /// # Errors
    /// It is missing or refused, or its sender may neither push nor delete it.
    pub fn name_to_cancel(&self) -> Result<FileName, Refusal> {
        self.file_name(&[Permission::Push, Permission::Delete])
    }

    /// True if there is no other parameter than `name`.
    pub fn is_only(&self, name: &str) -> bool {
        self.map.keys().all(|key| key == name)
    }

    /// True if there is a file name.
    pub fn has_file_name(&self) -> bool {
        self.get(param::FILE_NAME).is_some()
    }

    /// A whole number; `None` if it is not there.
    ///
    /// # Errors
    /// It is no whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match parse_u64(text) {
            Some(number) => Ok(Some(number)),
            None => {
                let shown: String = bigup_core::protocol::name::printable(text).chars().take(40).collect();
                Err(bad(format!("{name} is {shown:?}, not a whole number from 0 to {}", u64::MAX)))
            }
        }
    }

    /// A whole number that must be there.
    ///
    /// # Errors
    /// It is missing or no whole number.
    pub fn needed_number(&self, name: &str) -> Result<u64, Refusal> {
        self.number(name)?.ok_or_else(|| bad(format!("{name} is missing")))
    }

    /// True if a switch is on.
    ///
    /// # Errors
    /// It is neither 1 nor 0.
    pub fn switch(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(bad(format!("{name} is neither 1 nor 0"))),
        }
    }

    /// A value of a type that reads itself; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn value<T: FromStr<Err = String>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.get(name).map(str::parse).transpose().map_err(|why| bad(format!("{name}: {why}")))
    }

    /// The client's source.
    ///
    /// # Errors
    /// It is too long or not visible ASCII.
    pub fn source(&self) -> Result<Option<String>, Refusal> {
        let Some(source) = self.get(param::SOURCE) else { return Ok(None) };
        if source.is_empty() || source.len() > MAX_SOURCE_LEN || !source.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad(format!("{} is not 1 to {MAX_SOURCE_LEN} visible ASCII characters", param::SOURCE)));
        }
        Ok(Some(source.to_owned()))
    }

    /// The request of a GET that begins or goes on with an upload.
    ///
    /// # Errors
    /// Something is missing or makes no sense.
    pub fn begin(&self) -> Result<BeginRequest, Refusal> {
        let slice_num = self.number(param::SLICE_NUM)?;
        let slice_size = self.number(param::SLICE_SIZE)?;
        if slice_num.is_none() && slice_size.is_none() && self.has_file_name() {
            return Err(bad(format!("{} is missing (or {})", param::SLICE_NUM, param::SLICE_SIZE)));
        }
        let ask = self.begin_by(Plan::new(slice_num, slice_size, self.number(param::FILE_SIZE)?))?;
        let is_oldest = self.map.keys().all(|name| [param::FILE_NAME, param::SLICE_NUM].contains(&name.as_str()));
        self.check_named(&ask, is_oldest)?;
        Ok(BeginRequest { by_size: is_oldest, ..ask })
    }

    /// The request of a POST that begins the upload too, by slice `slice_id` of `len` bytes. Its `slice_size` is that
    /// of the slice, which tells that of the upload unless it is the last one.
    ///
    /// # Errors
    /// Something is missing or makes no sense.
    pub fn begin_with_slice(&self, slice_id: u64, len: u64) -> Result<BeginRequest, Refusal> {
        let plan = Plan::new(self.number(param::SLICE_NUM)?, None, self.number(param::FILE_SIZE)?);
        let ask = self.begin_by(plan.and_then(|plan| plan.learn(slice_id, len)))?;
        self.check_named(&ask, false)?;
        Ok(ask)
    }

    /// Refuses a request that does not tell the owner of its bytes, where others could send slices too. The oldest
    /// client cannot tell it.
    fn check_named(&self, ask: &BeginRequest, is_oldest: bool) -> Result<(), Refusal> {
        let is_named = ask.source.is_some() || ask.file_digest.is_some();
        if is_oldest || is_named || matches!(ask.plan.slice_num, Some(0 | 1)) {
            return Ok(());
        }
        let message = format!(
            "whose slices these are is not said: add {}, the same to each request of this file (one that says which bytes \
             these are, like a path, size and time), or {}, the file's BLAKE3",
            param::SOURCE,
            param::FILE_DIGEST
        );
        Err(bad(message))
    }

    fn begin_by(&self, plan: Result<Plan, PlanError>) -> Result<BeginRequest, Refusal> {
        let (name, replace) = (self.name_to_push()?, self.switch(param::REPLACE)?);
        if replace {
            self.by.check(&[Permission::Replace], Some(&name))?;
        }
        Ok(BeginRequest {
            by: self.by.clone(),
            id: UploadId::of_name(&name),
            name,
            plan: plan.map_err(within_request)?,
            source: self.source()?,
            file_digest: self.value(param::FILE_DIGEST)?,
            replace,
            recut: self.switch(param::RECUT)?,
            discard: self.switch(param::DISCARD)?,
            by_size: true,
            kept: Kept { modified: self.value(param::MODIFIED)?, mode: self.value(param::MODE)? },
            metadata: None,
            sha256: None,
            protocol: UploadProtocol::Native,
            awaits_end: false,
            concat: None,
            peer: None,
            certificate: None,
        })
    }

    /// The form of the response to a GET.
    ///
    /// # Errors
    /// Something makes no sense.
    pub fn form(&self) -> Result<ResponseForm, Refusal> {
        let wait = self.number(param::WAIT)?.unwrap_or(0).min(MAX_WAIT_SECS);
        Ok(ResponseForm { ranges: self.switch(param::RANGES)?, wait: Duration::from_secs(wait) })
    }

    /// The slices, first and last, whose digests a GET asks for.
    ///
    /// # Errors
    /// It is no range, or too long a one.
    pub fn digests(&self) -> Result<Option<(u64, u64)>, Refusal> {
        let Some(text) = self.get(param::DIGESTS) else { return Ok(None) };
        let range = text.split_once('-').and_then(|(a, b)| Some((parse_u64(a)?, parse_u64(b)?)));
        match range {
            Some((first, last)) if first <= last && last - first >= MAX_DIGESTS => Err(bad(format!(
                "{} asks for {} digests, at most {MAX_DIGESTS} at once",
                param::DIGESTS,
                (last - first).saturating_add(1)
            ))),
            Some((first, last)) if first <= last && last >= MAX_SLICES => Err(bad(format!(
                "{} ends at slice {last}; the last one possible is {}",
                param::DIGESTS,
                MAX_SLICES - 1
            ))),
            Some((first, last)) if first <= last => Ok(Some((first, last))),
            _ => Err(bad(format!("{} is not FIRST-LAST, like 0-99", param::DIGESTS))),
        }
    }
}

/// True if a POST with this query brings a bundle.
pub fn is_bundle(query: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| name == param::BUNDLE))
}

/// Percent-decoding as forms do it: `+` is a space.
fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let bytes = percent_encoding::percent_decode_str(&spaced);
    match bytes.decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(bad("a parameter is not UTF-8 in percent-encoding".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(query: &str) -> Result<BeginRequest, Refusal> {
        QueryParams::parse(query, Access::Everything).and_then(|params| params.begin())
    }

    #[test]
    fn the_seeds_query_is_enough() {
        let ask = begin("file_name=a%20b%2Bc&slice_num=3").unwrap();
        assert_eq!(ask.name.as_str(), "a b+c");
        assert_eq!((ask.plan.slice_num, ask.plan.slice_size, ask.source), (Some(3), None, None));
        assert_eq!(begin("file_name=%E6%96%87+x&slice_num=0").unwrap().name.as_str(), "文 x");
    }

    #[test]
    fn the_query_of_a_bundle_has_its_parameter() {
        assert!(is_bundle("bundle=3") && is_bundle("x&bundle="));
        assert!(!is_bundle("file_name=bundle") && !is_bundle("bundles=1"));
    }

    #[test]
    fn facts_of_the_file_are_asked_to_be_kept() {
        let kept = |query: &str| begin(&format!("file_name=x&slice_num=1{query}")).unwrap().kept;
        assert_eq!(kept(""), Kept::default());
        let both = kept("&modified=-1.5&mode=755");
        assert_eq!(
            (both.modified.unwrap().nanos(), both.mode.unwrap().to_string()),
            (-1_500_000_000, "755".to_owned())
        );
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (query, says) in [
            ("", "file_name is missing"),
            ("file_name=x", "slice_num is missing"),
            ("file_name=x&slice_num=", "slice_num is \"\""),
            ("file_name=x&slice_num=-1", "slice_num is \"-1\""),
            ("file_name=x&slice_num=+1", "slice_num is \" 1\""),
            ("file_name=x&slice_num=1.5", "not a whole number"),
            ("file_name=x&slice_num=99999999999999999999999", "not a whole number"),
            ("file_name=x&slice_num=1000001", "1000001 slices are too many"),
            ("file_name=x&slice_num=1&slice_num=2", "twice"),
            ("file_name=x&slice_num=3&slice_size=10&file_size=100", "slice_num is 3"),
            ("file_name=x&slice_size=0", "slice_size is 0"),
            ("file_name=x&slice_num=1&replace=yes", "replace"),
            ("file_name=x&slice_num=1&source=%00", "source"),
            ("file_name=x&slice_num=1&file_digest=00", "64 hexadecimal"),
            ("file_name=x&slice_num=1&modified=yesterday", "modified: \"yesterday\" is no time"),
            ("file_name=x&slice_num=1&modified=253402300800", "out of range"),
            ("file_name=x&slice_num=1&mode=4755", "mode: 4755 is more than 777"),
            ("file_name=%ff&slice_num=1", "UTF-8"),
            ("file_name=../x&slice_num=1", "elsewhere"),
        ] {
            let refusal = begin(query).unwrap_err();
            assert!(refusal.facts.contains(says), "{query}: {}", refusal.facts);
            assert!(matches!(refusal.status().as_u16(), 400 | 413), "{query}");
        }
    }

    #[test]
    fn ranges_of_digests_are_bounded() {
        let digests =
            |text: &str| QueryParams::parse(&format!("digests={text}"), Access::Everything).unwrap().digests();
        assert_eq!(digests("0-4095"), Ok(Some((0, 4095))));
        for wrong in ["0-4096", "4-3", "x", "1", "-", "0-18446744073709551616"] {
            assert!(digests(wrong).is_err(), "{wrong}");
        }
        assert_eq!(digests("999999-999999"), Ok(Some((999_999, 999_999))));
        assert!(digests("0-18446744073709551615").is_err());
        for beyond in ["1000000-1000000", "999999-1000000", "18446744073709551615-18446744073709551615"] {
            assert!(digests(beyond).unwrap_err().facts.contains("999999"), "{beyond}");
        }
    }
}
