//! SHA-256, by which protocols of others name the content of a whole file (RFC 9530, section 5).

use sha2::Digest;
use std::fmt;
use std::str::FromStr;

/// A SHA-256 value (FIPS 180-4): 32 bytes, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Sha256, String> {
        // A BLAKE3 value has the same form: 32 bytes as hexadecimal digits.
        blake3::Hash::from_hex(text).map(|bytes| Sha256(*bytes.as_bytes())).map_err(|_| {
            format!("a SHA-256 value has 64 hexadecimal digits, this one has {} characters", text.chars().count())
        })
    }
}

/// The SHA-256 of bytes that come one after another.
#[derive(Clone, Debug, Default)]
pub struct RunningSha256(sha2::Sha256);

impl RunningSha256 {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The value of all bytes taken so far.
    pub fn finish(&self) -> Sha256 {
        Sha256(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_standard() {
        let mut hash = RunningSha256::default();
        ["a", "", "bc"].iter().for_each(|piece| hash.update(piece.as_bytes()));
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.finish().to_string(), text);
        assert_eq!(text.parse(), Ok(hash.finish()));
        assert_eq!(text.to_uppercase().parse(), Ok(hash.finish()));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('b', "g"), &text.replace("ba", "ä")] {
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
    }
}
