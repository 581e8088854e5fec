//! Refusals in the words of the native protocol, as people read them that use `bigup-cli` or curl.

use crate::net::response::Response;
use crate::refusal::{Advice, Refusal};
use std::borrow::Cow;

/// The response to a refused request.
pub fn response(refusal: &Refusal) -> Response {
    refusal.response_saying(&of(refusal))
}

/// The facts, and the advice.
pub fn of(refusal: &Refusal) -> String {
    format!("{}{}", refusal.facts, refusal.advice.map_or(Cow::default(), advice))
}

/// The advice in words, with the punctuation that joins it to the facts.
fn advice(advice: Advice) -> Cow<'static, str> {
    let words = match advice {
        Advice::Replace => "; push with --replace to replace it",
        Advice::IdentifyOrReplace => {
            ": name its digest (file_digest) or your source; push with --replace to replace it"
        }
        Advice::NameDigestOrReplace => ": name the digest of yours, or push with --replace",
        Advice::BeginFirst => ": begin it by a GET",
        Advice::BeginToReplace => "; begin anew (GET) to replace it",
        Advice::SendAgain => "; send them again",
        Advice::UploadAgain => "; push it again",
        Advice::UploadAgainIn(seconds) => return format!("; push it again in {seconds} s").into(),
        Advice::UploadAgainInAMinute => "; push it again in a minute",
        Advice::UploadAgainThen => ", then push again",
        Advice::UploadUnderOtherName => "; push it anew under another name",
        Advice::MoveAway => "; move that away and push again, or use another name",
        Advice::UseOtherServer => "; push to a server of that version, or use another name",
        Advice::SendToken => ": send Authorization: Bearer TOKEN (bigup-cli: --token-file or BIGUP_TOKEN)",
        Advice::SendHash => ": send hash:",
        Advice::JoinRuns => ": send the slices between them, which joins them",
        Advice::AskForRuns => ": ask for runs (ranges=1)",
        Advice::AskLaterOrForRuns => ": ask again later, or for less (ranges=1)",
    };
    words.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::native::ErrorCode;

    #[test]
    fn advice_follows_the_facts() {
        let refusal = Refusal::new(ErrorCode::Exists, "a exists");
        assert_eq!(of(&refusal), "a exists");
        assert_eq!(of(&refusal.clone().advising(Advice::Replace)), "a exists; push with --replace to replace it");
        assert_eq!(of(&refusal.advising(Advice::UploadAgainIn(7))), "a exists; push it again in 7 s");
    }
}
