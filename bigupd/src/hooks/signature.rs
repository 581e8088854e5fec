//! Signs requests to a URL, so that the receiver can check their sender: by HMAC-SHA256, as in Standard Webhooks 1.0
//! (github.com/standard-webhooks, spec/standard-webhooks.md). Libraries that check it exist for most languages.
//!
//! No header carries the secret itself: over plain HTTP a listener would learn it, and nothing would keep a question
//! from being changed or sent again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bigup_core::protocol::name::printable;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Beginning of a secret.
const PREFIX: &str = "whsec_";

/// Length of a secret, in bytes.
const LEN: std::ops::RangeInclusive<usize> = 24..=64;

/// Block of SHA-256, in bytes.
const BLOCK_LEN: usize = 64;

/// Command that makes a secret.
const HOW: &str = "make one with: (umask 077; (printf whsec_; head -c 32 /dev/urandom | base64 -w0; echo) > FILE)";

/// The secret that both sides know.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads a secret from a file.
    ///
    /// # Errors
    /// It cannot be read, or is no secret; the error tells how to make a secret.
    pub fn read(file: &Path) -> Result<Secret, String> {
        let shown = printable(&file.to_string_lossy());
        let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
        Secret::parse(&text).map_err(|why| format!("{shown}: {why}; {HOW}"))
    }

    fn parse(text: &str) -> Result<Secret, String> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or("the secret does not begin with whsec_")?;
        let bytes = STANDARD.decode(encoded).map_err(|e| format!("what follows whsec_ is no base64 ({e})"))?;
        match LEN.contains(&bytes.len()) {
            true => Ok(Secret(bytes)),
            false => Err(format!("the secret has {} bytes, not {} to {}", bytes.len(), LEN.start(), LEN.end())),
        }
    }

    /// The headers by which a receiver checks that the sender of `body` knows the secret, and sent it at `time`
    /// (seconds since 1970). `id` is the same at each attempt.
    pub fn headers(&self, id: &str, time: u64, body: &str) -> [(&'static str, String); 3] {
        let signature = hmac(&self.0, format!("{id}.{time}.{body}").as_bytes());
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", time.to_string()),
            ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
        ]
    }
}

/// HMAC-SHA256 (RFC 2104). `key` is no longer than a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| -> [u8; BLOCK_LEN] { std::array::from_fn(|i| key.get(i).unwrap_or(&0) ^ pad) };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, sections 4.2 to 4.4.
    #[test]
    fn the_code_is_that_of_the_rfc() {
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (key, message, code) in [
            (&[0x0b; 20][..], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        ] {
            assert_eq!(hex(hmac(key, message)), code);
        }
    }

    #[test]
    fn secrets_are_read_and_mistakes_told() {
        let encoded = STANDARD.encode([7; 32]);
        assert_eq!(Secret::parse(&format!("whsec_{encoded}\n")).ok().map(|secret| secret.0), Some(vec![7; 32]));
        for (wrong, why) in [
            (encoded.clone(), "begin with whsec_"),
            ("whsec_!".to_owned(), "no base64"),
            (format!("whsec_{}", STANDARD.encode([7; 23])), "23 bytes, not 24 to 64"),
            (format!("whsec_{}", STANDARD.encode([7; 65])), "65 bytes"),
        ] {
            assert!(Secret::parse(&wrong).is_err_and(|told| told.contains(why)), "{wrong}");
        }
    }

    /// The advice of the message works.
    #[test]
    fn a_secret_can_be_made_as_the_message_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let told = Secret::read(Path::new("/dev/null")).err().unwrap();
        let command = told.split_once("make one with: ").unwrap().1.replace("FILE", &file.display().to_string());
        assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
        assert_eq!(Secret::read(&file).ok().map(|secret| secret.0.len()), Some(32));
    }
}
