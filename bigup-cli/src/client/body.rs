//! The body of a request that may be sent more than once.

use std::io::Read;

/// Bytes that are sent as the body of a request, and once more where the request is repeated.
pub trait RequestBody {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// All of them, from the first on. A reader that fails ends the request.
    fn open(&self) -> Box<dyn Read + '_>;
}

impl RequestBody for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn open(&self) -> Box<dyn Read + '_> {
        Box::new(*self)
    }
}
