//! File names as users give them, and the safe forms of them.
//!
//! A [`FileName`] is a relative path of one or more components, any Unicode. It is turned into another form only at the
//! edges: [`FileName::spool_folder`] names the upload's folder below `tmp/`, [`FileName::section_title`] its section of
//! info.ini, [`printable`] its text on a terminal or in a log.

use std::fmt;

/// Longest component of a file name, in bytes: `NAME_MAX` of Linux (limits.h).
pub const MAX_COMPONENT_LEN: usize = 255;

/// Longest file name in all, in bytes: well below `PATH_MAX` (4096), so that any data folder fits before it.
pub const MAX_NAME_LEN: usize = 2048;

/// Most components of a new name: each is a folder, and takes an inode. Older names with more components can be read,
/// gone on with and deleted.
pub const MAX_COMPONENTS: usize = 64;

/// Longest folder name that [`FileName::spool_folder`] gives, in bytes. Leaves space for suffixes below `NAME_MAX`.
const MAX_FOLDER_LEN: usize = 200;

/// The name of a finished file, relative to `files/`.
///
/// Components are separated by `/`. No component is empty, `.` or `..`; there are no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

/// The reason a file name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    #[error("the file name is empty")]
    Empty,
    /// A name that starts at the root.
    #[error("the file name {0} is absolute; give a path relative to the data folder's files/")]
    Absolute(String),
    /// `a//b` or `a/`.
    #[error("the file name {0} has an empty component")]
    EmptyComponent(String),
    /// `.` or `..`.
    #[error("the file name {0} has the component {1:?}, which would lead elsewhere")]
    Dots(String, String),
    /// NUL, newline, escape and the like.
    #[error("the file name {0} has the control character U+{1:04X}")]
    Control(String, u32),
    /// A component over [`MAX_COMPONENT_LEN`].
    #[error("a component of the file name has {got} bytes; at most {MAX_COMPONENT_LEN} are possible")]
    ComponentTooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A name over [`MAX_COMPONENTS`], which is not permitted for new files.
    #[error("the file name has {got} components; at most {MAX_COMPONENTS} are possible: use fewer folders")]
    TooDeep {
        /// Its number of components.
        got: usize,
    },
    /// A name over [`MAX_NAME_LEN`].
    #[error("the file name has {got} bytes; at most {MAX_NAME_LEN} are possible")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
}

impl FileName {
    /// Checks `name` and takes it as a file name.
    ///
    /// # Errors
    /// Says which rule the name breaks; the name is shown in [`printable`] form.
    pub fn new(name: &str) -> Result<FileName, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong { got: name.len() });
        }
        if let Some(c) = name.chars().find(|c| c.is_control()) {
            return Err(NameError::Control(printable(name), c as u32));
        }
        if name.starts_with('/') {
            return Err(NameError::Absolute(printable(name)));
        }
        for component in name.split('/') {
            match component {
                "" => return Err(NameError::EmptyComponent(printable(name))),
                "." | ".." => return Err(NameError::Dots(printable(name), component.to_owned())),
                c if c.len() > MAX_COMPONENT_LEN => return Err(NameError::ComponentTooLong { got: c.len() }),
                _ => {}
            }
        }
        Ok(FileName(name.to_owned()))
    }

    /// True if a new file or upload is permitted to have this name.
    ///
    /// # Errors
    /// It is not permitted; the error gives the reason.
    pub fn check_new(&self) -> Result<(), NameError> {
        match self.components().count() {
            got if got > MAX_COMPONENTS => Err(NameError::TooDeep { got }),
            _ => Ok(()),
        }
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the folder that the file is in, without a `/` at its end. Empty: it is in no other one.
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The components, in order; never empty.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The folder name of the native upload of this file: readable for ordinary names, safe for all.
    ///
    /// Letters and digits of any script and `-`, `_`, `.`, `+`, `=`, `@`, `,` stand for themselves (a leading `.` apart,
    /// so that the names with a dot in front are left to bigup's own files); all else is percent-encoded, the `/` too.
    /// A result over 200 bytes is cut and ends in `%~` and 128 bits of the name's BLAKE3 hash. `%~` comes from nothing
    /// else, and `%` is always encoded, so two names never share a folder.
    pub fn spool_folder(&self) -> String {
        let full = encode(&self.0, |i, c| c.is_alphanumeric() || "-_+=@,".contains(c) || (c == '.' && i > 0));
        if full.len() <= MAX_FOLDER_LEN {
            return full;
        }
        let hash = blake3::hash(self.0.as_bytes()).to_hex();
        let keep = full.floor_char_boundary(MAX_FOLDER_LEN - 34);
        format!("{}%~{}", &full[..keep], &hash[..32])
    }

    /// The title of this file's section in info.ini: the name with some characters percent-encoded. These are the ones
    /// with a meaning to INI readers (`[`, `]`, `%`, `;`, `#`, `=`, `:`, quotes, backslash), spaces at the ends, and
    /// invisible characters. The first letter of `DEFAULT` is encoded too, since Python's configparser gives that name
    /// a meaning of its own.
    pub fn section_title(&self) -> String {
        if self.0 == "DEFAULT" {
            return "%44EFAULT".to_owned();
        }
        let last = self.0.char_indices().last().map_or(0, |(i, _)| i);
        encode(&self.0, |i, c| {
            let inner = i > 0 && i < last;
            c.is_alphanumeric() || "-_.+@,/(){}!$&~^".contains(c) || (c == ' ' && inner)
        })
    }

    /// The name that `title` stands for: the inverse of [`FileName::section_title`]. `None` if it stands for no name.
    pub fn from_section_title(title: &str) -> Option<FileName> {
        let bytes = percent_encoding::percent_decode_str(title);
        FileName::new(&bytes.decode_utf8().ok()?).ok()
    }
}

impl fmt::Display for FileName {
    /// The [`printable`] form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// `text` on a single line, with every character that could steer a terminal or fake a log line ([`steers`]) written as
/// `\u{…}`.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `text` in quotes, [`printable`]: for messages that quote input.
pub fn quoted(text: &str) -> String {
    // Quotes within are told from those around it.
    printable(&format!("{text:?}"))
}

/// JSON of the same meaning as `json` that is safe on a terminal. Characters that would steer it occur in JSON strings
/// only, and are escaped (RFC 8259, section 7).
pub fn printable_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            line.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            line.push(c);
        }
    }
    line
}

/// True if a character could steer a terminal or make a line look like another line. These are control characters, ends
/// of lines, characters that turn the direction of text (Bidi_Control, UAX #9), and invisible characters (most of
/// Default_Ignorable_Code_Point, UAX #44, except variation selectors, which emoji need).
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}')
}

/// Percent-encodes every character of `text` that [`steers`], or for which `plain(byte index, character)` is false.
fn encode(text: &str, plain: impl Fn(usize, char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut buf = [0; 4];
    for (i, c) in text.char_indices() {
        if plain(i, c) && !steers(c) {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut buf).bytes() {
                out.push_str(percent_encoding::percent_encode_byte(byte));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(s: &str) -> FileName {
        FileName::new(s).unwrap()
    }

    #[test]
    fn what_is_new_has_so_many_folders_at_most_and_what_is_there_may_have_more() {
        let name = |components: usize| FileName::new(&vec!["d"; components].join("/")).unwrap();
        assert_eq!(name(MAX_COMPONENTS).check_new(), Ok(()));
        let refused = name(MAX_COMPONENTS + 1).check_new().unwrap_err();
        assert_eq!(refused, NameError::TooDeep { got: 65 });
        assert!(refused.to_string().contains("65") && refused.to_string().contains("64"));
        assert!(name(1000).check_new().is_err());
    }

    #[test]
    fn refuses_what_leads_elsewhere_and_says_why() {
        for (bad, says) in [
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("a//b", "empty component"),
            ("a/", "empty component"),
            ("./a", "elsewhere"),
            ("a/../b", "elsewhere"),
            ("..", "elsewhere"),
            ("a\0b", "U+0000"),
            ("a\nb", "U+000A"),
            ("a\u{1b}[2J", "U+001B"),
            ("a\u{9b}b", "U+009B"),
        ] {
            let message = FileName::new(bad).unwrap_err().to_string();
            assert!(message.contains(says), "{bad:?}: {message}");
            assert!(!message.chars().any(|c| c.is_control()), "{message:?}");
        }
    }

    #[test]
    fn component_length_is_checked_at_the_border() {
        assert!(FileName::new(&"a".repeat(254)).is_ok());
        assert!(FileName::new(&"a".repeat(255)).is_ok());
        assert_eq!(FileName::new(&"a".repeat(256)), Err(NameError::ComponentTooLong { got: 256 }));
        // 3 bytes each: 85 fit.
        assert!(FileName::new(&"文".repeat(85)).is_ok());
        assert_eq!(FileName::new(&"文".repeat(86)), Err(NameError::ComponentTooLong { got: 258 }));
        let long = vec!["a".repeat(127); 16].join("/");
        assert_eq!(long.len(), 2047);
        assert!(FileName::new(&long).is_ok());
        assert_eq!(FileName::new(&format!("{long}/a")), Err(NameError::TooLong { got: 2049 }));
    }

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(name("abc.txt").spool_folder(), "abc.txt");
        assert_eq!(name("图片.png").spool_folder(), "图片.png");
        assert_eq!(name("a/b c.bin").spool_folder(), "a%2Fb%20c.bin");
        assert_eq!(name(".hidden").spool_folder(), "%2Ehidden");
        assert_eq!(name("abc.txt").section_title(), "abc.txt");
        assert_eq!(name("a/b c.bin").section_title(), "a/b c.bin");
        assert_eq!(FileName::from_section_title(&name("DEFAULT").section_title()), Some(name("DEFAULT")));
        assert_eq!(name("x]\u{202E}y").section_title(), "x%5D%E2%80%AEy");
    }

    #[test]
    fn long_names_that_share_a_beginning_get_different_folders() {
        let (a, b) = (name(&format!("{}1", "x".repeat(240))), name(&format!("{}2", "x".repeat(240))));
        assert_ne!(a.spool_folder(), b.spool_folder());
        assert!(a.spool_folder().len() <= 200);
        let wide = name(&vec!["文".repeat(80); 3].join("/"));
        assert!(wide.spool_folder().len() <= 200);
    }

    #[test]
    fn printable_leaves_letters_and_escapes_what_steers() {
        assert_eq!(printable("naïve 文件"), "naïve 文件");
        assert_eq!(printable("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(printable("\u{9b}2J\u{61c}\u{ad}\u{3164}\u{e0041}"), "\\u{9b}2J\\u{61c}\\u{ad}\\u{3164}\\u{e0041}");
        assert_eq!(quoted("a\"\n\u{ffa0}"), "\"a\\\"\\n\\u{ffa0}\"");
        assert_eq!(name("\u{3164}x").spool_folder(), "%E3%85%A4x");
        assert_eq!(name("\u{3164}x").section_title(), "%E3%85%A4x");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_safe(text in "\\PC{0,300}|.{0,40}") {
            if let Ok(name) = FileName::new(&text) {
                let folder = name.spool_folder();
                prop_assert!(!folder.contains('/') && !folder.starts_with('.') && folder.len() <= 200);
                let title = name.section_title();
                prop_assert_eq!(FileName::from_section_title(&title), Some(name.clone()));
                let meaningful = |c: char| "[]%;#=:\"'\\".contains(c) && c != '%';
                prop_assert!(!title.chars().any(|c| meaningful(c) || c.is_control()));
                prop_assert_eq!(title.trim(), title.as_str());
            }
        }

        #[test]
        fn two_names_never_share_a_folder(a in "[a%/.~ 文]{1,120}", b in "[a%/.~ 文]{1,120}") {
            if let (Ok(a), Ok(b)) = (FileName::new(&a), FileName::new(&b)) {
                prop_assert_eq!(a == b, a.spool_folder() == b.spool_folder());
            }
        }
    }
}
