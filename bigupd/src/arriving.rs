//! Files that come in one request and have no spool ([`bigup_core::draft`]). Nothing on disk tells of them before they are
//! finished, so what counts uploads, or the bytes of a quota, asks here. Another daemon's are not seen; each is over
//! with its request, and small.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those that come at this moment. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct Arriving(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    next: u64,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    number: u64,
    name: String,
    len: u64,
    token: Option<String>,
}

/// A file counts for as long as this lives.
#[derive(Debug)]
pub struct Counted {
    all: Arriving,
    number: u64,
}

impl Arriving {
    /// Counts a file of `len` bytes, sent by whoever has this token.
    pub fn count(&self, name: &str, len: u64, token: Option<&str>) -> Counted {
        let mut known = self.lock();
        known.next += 1;
        let number = known.next;
        known.files.push(File { number, name: name.to_owned(), len, token: token.map(str::to_owned) });
        Counted { all: self.clone(), number }
    }

    /// How many there are.
    pub fn number(&self) -> u64 {
        self.lock().files.len() as u64
    }

    /// How many of them are sent by who has this token.
    pub fn number_of(&self, token: &str) -> u64 {
        self.lock().files.iter().filter(|file| file.token.as_deref() == Some(token)).count() as u64
    }

    /// Bytes that those have whose names are `meant`.
    pub fn bytes(&self, meant: impl Fn(&str) -> bool) -> u64 {
        self.lock().files.iter().filter(|file| meant(&file.name)).map(|file| file.len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.lock().files.retain(|file| file.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_while_they_come() {
        let arriving = Arriving::default();
        let one = arriving.count("a/x", 5, Some("t"));
        let two = arriving.count("b", 7, None);
        assert_eq!((arriving.number(), arriving.number_of("t"), arriving.bytes(|_| true)), (2, 1, 12));
        assert_eq!(arriving.bytes(|name| name.starts_with("a/")), 5);
        drop(one);
        assert_eq!((arriving.number(), arriving.bytes(|_| true)), (1, 7));
        drop(two);
        assert_eq!(arriving.number(), 0);
    }
}
