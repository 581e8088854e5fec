//! Query strings.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;

/// All but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of a request, in the order given.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    /// No parameters.
    pub fn new() -> Query {
        Query::default()
    }

    /// With `name=value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Query {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        let value = value.to_string();
        self.0.extend([name, "="].into_iter().chain(utf8_percent_encode(&value, RESERVED)));
        self
    }

    /// With `name=value` where there is a value.
    #[must_use]
    pub fn with_known(self, name: &str, value: Option<impl fmt::Display>) -> Query {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With `name=1` where the switch is on.
    #[must_use]
    pub fn with_switch(self, name: &str, on: bool) -> Query {
        self.with_known(name, on.then_some(1))
    }

    /// As it stands behind the `?`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_unreserved_characters_are_encoded() {
        let query = Query::new().with("a", "x y/é&=+%?#").with("b", "-._~aZ9");
        assert_eq!(query.as_str(), "a=x%20y%2F%C3%A9%26%3D%2B%25%3F%23&b=-._~aZ9");
    }

    #[test]
    fn unknown_values_and_switches_that_are_off_are_left_out() {
        let query = Query::new().with_known("a", None::<u64>).with_switch("b", false).with_switch("c", true);
        assert_eq!(query.as_str(), "c=1");
    }
}
