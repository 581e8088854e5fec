//! Checksums that clients send of a body, by the algorithms that protocols name.

use sha2::Digest;
use std::str::FromStr;

/// An algorithm of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1 (FIPS 180-4), which every server of tus with checksums must have.
    Sha1,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// MD5 (RFC 1321).
    Md5,
    /// CRC-32 (ISO 3309), four bytes, the most significant one first.
    Crc32,
    /// BLAKE3.
    Blake3,
}

impl Algorithm {
    /// All of them, as a header lists them.
    pub const NAMES: &str = "sha1,sha256,sha512,md5,crc32,blake3";

    const ALL: [Algorithm; 6] =
        [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512, Algorithm::Md5, Algorithm::Crc32, Algorithm::Blake3];
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Algorithm, ()> {
        Ok(match name {
            "sha1" => Algorithm::Sha1,
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            "md5" => Algorithm::Md5,
            "crc32" => Algorithm::Crc32,
            "blake3" => Algorithm::Blake3,
            _ => return Err(()),
        })
    }
}

/// A checksum that a client tells, and its algorithm.
pub type ToldChecksum = (Algorithm, Vec<u8>);

/// A checksum being computed.
#[derive(Clone, Debug)]
pub enum Checksum {
    /// By [`Algorithm::Sha1`].
    Sha1(sha1::Sha1),
    /// By [`Algorithm::Sha256`].
    Sha256(sha2::Sha256),
    /// By [`Algorithm::Sha512`].
    Sha512(sha2::Sha512),
    /// By [`Algorithm::Md5`].
    Md5(md5::Md5),
    /// By [`Algorithm::Crc32`].
    Crc32(crc32fast::Hasher),
    /// By [`Algorithm::Blake3`].
    Blake3(Box<blake3::Hasher>),
    /// By all of them, until the one that counts is told.
    Each(Vec<(Algorithm, Checksum)>),
}

impl Checksum {
    /// Of no bytes so far.
    pub fn new(algorithm: Algorithm) -> Checksum {
        match algorithm {
            Algorithm::Sha1 => Checksum::Sha1(Digest::new()),
            Algorithm::Sha256 => Checksum::Sha256(Digest::new()),
            Algorithm::Sha512 => Checksum::Sha512(Digest::new()),
            Algorithm::Md5 => Checksum::Md5(Digest::new()),
            Algorithm::Crc32 => Checksum::Crc32(crc32fast::Hasher::new()),
            Algorithm::Blake3 => Checksum::Blake3(Box::default()),
        }
    }

    /// Of no bytes so far, by an algorithm that is told later. Computing costs as much as all of them.
    pub fn by_any() -> Checksum {
        Checksum::Each(Algorithm::ALL.map(|algorithm| (algorithm, Checksum::new(algorithm))).to_vec())
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Checksum::Sha1(hasher) => hasher.update(bytes),
            Checksum::Sha256(hasher) => hasher.update(bytes),
            Checksum::Sha512(hasher) => hasher.update(bytes),
            Checksum::Md5(hasher) => hasher.update(bytes),
            Checksum::Crc32(hasher) => hasher.update(bytes),
            Checksum::Blake3(hasher) => drop(hasher.update(bytes)),
            Checksum::Each(all) => all.iter_mut().for_each(|(_, checksum)| checksum.update(bytes)),
        }
    }

    /// The checksum of all bytes taken by this algorithm, which is the one that it was made for.
    pub fn finish_by(self, algorithm: Algorithm) -> Vec<u8> {
        match self {
            Checksum::Each(all) => {
                let found = all.into_iter().find(|(found, _)| *found == algorithm);
                found.map_or_else(Vec::new, |(_, checksum)| checksum.finish())
            }
            only => only.finish(),
        }
    }

    /// The checksum of all bytes taken. Empty if its algorithm is not told yet.
    pub fn finish(self) -> Vec<u8> {
        match self {
            Checksum::Sha1(hasher) => hasher.finalize().to_vec(),
            Checksum::Sha256(hasher) => hasher.finalize().to_vec(),
            Checksum::Sha512(hasher) => hasher.finalize().to_vec(),
            Checksum::Md5(hasher) => hasher.finalize().to_vec(),
            Checksum::Crc32(hasher) => hasher.finalize().to_be_bytes().to_vec(),
            Checksum::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
            Checksum::Each(_) => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        // The digests of "abc" that the standards give, and `crc32` and `b3sum` print.
        for (name, expected) in [
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("crc32", "352441c2"),
            ("blake3", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ] {
            let mut checksum = Checksum::new(name.parse().unwrap());
            ["a", "", "bc"].iter().for_each(|piece| checksum.update(piece.as_bytes()));
            let mut any = Checksum::by_any();
            any.update(b"abc");
            assert_eq!(any.finish_by(name.parse().unwrap()), checksum.clone().finish(), "{name}");
            let shown: String = checksum.finish().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, expected, "{name}");
        }
        assert_eq!(Checksum::new(Algorithm::Sha512).finish().len(), 64);
        assert!(Algorithm::NAMES.split(',').all(|name| name.parse::<Algorithm>().is_ok()));
        assert!("SHA1".parse::<Algorithm>().is_err());
    }
}
