//! The token by which a server lets us in.

use crate::client::error::TokenError;
use crate::client::text;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of the file that are read: longer files are something else.
const MAX_FILE_LEN: u64 = 4096;

/// A token. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token that the file `path` holds, with space around it or not. The file may be a link or a pipe.
    ///
    /// # Errors
    /// The file cannot be read, or there is no token in it, or something else than one.
    pub fn from_file(path: &Path) -> Result<Token, TokenError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE_LEN).read_to_end(&mut bytes));
        read.map_err(|cause| TokenError::Read { path: path.to_owned(), cause })?;
        let token = text::decode(&bytes).and_then(|text| Token::of(&text));
        token.ok_or_else(|| TokenError::NotInFile(path.to_owned()))
    }

    /// The token `text`, with space around it or not.
    ///
    /// # Errors
    /// It holds something else than visible ASCII, or nothing.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        Token::of(text).ok_or(TokenError::Invalid)
    }

    /// A new one, for a server of our own.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Token, TokenError> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(|error| TokenError::NoRandomness(error.to_string()))?;
        Ok(Token(bigup_core::protocol::digest::Digest(bits).to_string()))
    }

    /// `text` without space around it, if that can be a token: visible ASCII (RFC 6750, section 2.1, allows less).
    fn of(text: &str) -> Option<Token> {
        let token = text.trim();
        let is_token = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        is_token.then(|| Token(token.to_owned()))
    }

    /// The token itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_alone_but_for_space_around_it() {
        for text in ["bigup_1", "bigup_1\n", " bigup_1\r\n"] {
            assert_eq!(Token::of(text), Some(Token("bigup_1".to_owned())), "{text:?}");
        }
        for text in ["", "\n", "a b", "a\nb", "ä"] {
            assert_eq!(Token::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Token::of("bigup_1")).contains("bigup_1"));
    }
}
