//! Refusals in the words of plain HTTP, as people read them that use curl.

use crate::net::response::Response;
use crate::refusal::{Advice, Refusal};

/// The response to a refused request.
pub fn response(refusal: &Refusal) -> Response {
    refusal.response_saying(&of(refusal))
}

/// The facts, and the advice.
fn of(refusal: &Refusal) -> String {
    let advice = match refusal.advice {
        Some(Advice::SendToken) => ": send Authorization: Bearer TOKEN (curl: --oauth2-bearer TOKEN)",
        _ => "",
    };
    format!("{}{advice}", refusal.facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::native::ErrorCode;

    #[test]
    fn advice_follows_the_facts() {
        let refusal = Refusal::new(ErrorCode::Unauthorized, "a token is needed here");
        assert_eq!(of(&refusal), "a token is needed here");
        assert!(of(&refusal.advising(Advice::SendToken)).contains("here: send Authorization: Bearer"));
    }
}
