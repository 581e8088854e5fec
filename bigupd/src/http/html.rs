//! Text in pages of HTML.

use std::borrow::Cow;

/// Text that means itself in HTML, within quotes too.
pub fn escaped(text: &str) -> String {
    let entity = |c| -> Cow<'static, str> {
        match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            '\'' => "&#39;".into(),
            c => c.to_string().into(),
        }
    };
    text.chars().map(entity).collect()
}
