//! Reading an object from any place, mostly on and on.

use super::request::{Requests, Signed};
use super::{Object, ObjectError, Objects};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that are asked for in one request: a reader that stops early wastes no more than a network holds of them.
const RUN: u64 = 64 << 20;

/// An object that is read. Whatever takes its name, its bytes come from the version that was found, or none do.
pub struct ObjectReader {
    objects: Arc<Objects>,
    key: String,
    etag: String,
    size: u64,
    /// The answer that is being read, and the place that it has come to.
    open: Mutex<Option<Open>>,
}

struct Open {
    at: u64,
    end: u64,
    body: Box<dyn Read + Send>,
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectReader").field("key", &self.key).field("size", &self.size).finish_non_exhaustive()
    }
}

impl ObjectReader {
    /// Ready to read `object`. No request is made.
    pub fn new(objects: &Arc<Objects>, object: &Object) -> ObjectReader {
        ObjectReader {
            objects: Arc::clone(objects),
            key: object.key.clone(),
            etag: object.etag.clone(),
            size: object.size,
            open: Mutex::default(),
        }
    }

    /// A URL by which anybody can read the object that has its name then, for so long. No request is made.
    ///
    /// # Errors
    /// There are no credentials.
    pub fn link(&self, valid: Duration) -> Result<String, ObjectError> {
        self.objects.requests.link(&self.key, valid)
    }

    /// Fills `bytes` with those at `offset`.
    ///
    /// # Errors
    /// It is shorter, the store does not answer, or another version has taken its place.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let mut reading = match open.take().filter(|open| open.at == at && open.at < open.end) {
                Some(reading) => reading,
                None => self.begin(at)?,
            };
            let most = (bytes.len() - done).min(usize::try_from(reading.end - at).unwrap_or(usize::MAX));
            let got = reading.body.read(&mut bytes[done..done + most])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += got;
            reading.at += got as u64;
            *open = Some(reading);
        }
        Ok(())
    }

    fn begin(&self, at: u64) -> io::Result<Open> {
        if at >= self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = self.size.min(at + RUN);
        let response = get(&self.objects.requests, &self.key, &self.etag, at, end)?;
        if response.status().as_u16() != 206 && (at, end) != (0, self.size) {
            return Err(io::Error::other("the store gives all of an object where a range of it is asked for"));
        }
        Ok(Open { at, end, body: Box::new(response.into_body().into_reader()) })
    }
}

fn get(
    requests: &Requests,
    key: &str,
    etag: &str,
    at: u64,
    end: u64,
) -> Result<ureq::http::Response<ureq::Body>, ObjectError> {
    requests.stream("reading an object", |bucket, credentials| {
        Signed::of(bucket.get_object(Some(credentials), key), vec![])
            .with("range", format!("bytes={at}-{}", end - 1))
            .with("if-match", etag.to_owned())
    })
}
