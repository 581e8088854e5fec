//! The configuration file: `config.ini` in the user's folder of configurations.
//!
//! Keys before the first section are for all servers. A section is a server, and its keys are for that server alone.

use anyhow::{Context, bail};
use ini::Ini;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// Keys that are about one server: those of one server never go with the address of another one.
pub const SERVER_KEYS: [&str; 5] = ["url", "token_file", "ca_cert", "client_cert", "client_key"];

/// Keys whose values are paths. Relative ones begin at the folder of the file.
const PATHS: [&str; 5] = ["token_file", "ca_cert", "client_cert", "client_key", "log_file"];

/// The key that names the section that counts where none is named.
const DEFAULT_SERVER: &str = "server";

/// The file, as it was read.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    ini: Ini,
}

/// A setting of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value; a path is absolute.
    pub value: String,
    /// The section. `None`: before the first one.
    pub section: Option<String>,
}

/// The folder of the file and of stored tokens: `bigup` in `XDG_CONFIG_HOME` (XDG Base Directory Specification), or else
/// in `~/.config`; on Windows in `%APPDATA%`.
///
/// # Errors
/// The environment tells none of them.
pub fn folder() -> anyhow::Result<PathBuf> {
    let base = if cfg!(windows) {
        env::var_os("APPDATA").map(PathBuf::from)
    } else {
        let given = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| env::home_dir().map(|home| home.join(".config")))
    };
    let base = base.context("there is no folder for the configuration: set XDG_CONFIG_HOME or HOME")?;
    Ok(base.join("bigup"))
}

impl ConfigFile {
    /// Reads the user's file. A missing file has no settings.
    ///
    /// # Errors
    /// It cannot be read, or is no INI file.
    pub fn read() -> anyhow::Result<ConfigFile> {
        // Without a folder there is no file either.
        folder().map_or_else(|_| Ok(ConfigFile::default()), |folder| ConfigFile::at(&folder.join("config.ini")))
    }

    /// Reads the file at `path`.
    fn at(path: &Path) -> anyhow::Result<ConfigFile> {
        let ini = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ini::new(),
            text => Ini::load_from_str_noescape(&text.with_context(|| path.display().to_string())?)
                .with_context(|| path.display().to_string())?,
        };
        Ok(ConfigFile { path: path.to_owned(), ini })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if there is a section for this server.
    pub fn has_server(&self, name: &str) -> bool {
        self.ini.section(Some(name)).is_some()
    }

    /// The names of its sections.
    pub fn servers(&self) -> Vec<&str> {
        self.ini.sections().flatten().collect()
    }

    /// The settings for the server `named` on the command line, else for the one that the file says. Those of a section
    /// come last, and count more.
    ///
    /// # Errors
    /// There is no such section.
    pub fn settings(&self, named: Option<&str>) -> anyhow::Result<Vec<Setting>> {
        let general = self.ini.general_section();
        let server = named.or_else(|| general.get(DEFAULT_SERVER));
        let mut settings = vec![];
        // The address and the token of the default server are no other server's.
        let is_for_all = |key: &str| key != DEFAULT_SERVER && !(server.is_some() && SERVER_KEYS.contains(&key));
        settings.extend(general.iter().filter(|(key, _)| is_for_all(key)).map(|pair| self.setting(None, pair)));
        if let Some(server) = server {
            let Some(section) = self.ini.section(Some(server)) else { bail!(self.no_server(server)) };
            settings.extend(section.iter().map(|pair| self.setting(Some(server), pair)));
        }
        Ok(settings)
    }

    fn setting(&self, section: Option<&str>, (key, value): (&str, &str)) -> Setting {
        let value = if PATHS.contains(&key) { self.absolute(value) } else { value.to_owned() };
        Setting { key: key.to_owned(), value, section: section.map(str::to_owned) }
    }

    fn absolute(&self, path: &str) -> String {
        let home = path.strip_prefix("~/").and_then(|rest| Some(env::home_dir()?.join(rest)));
        let folder = self.path.parent().unwrap_or(Path::new(""));
        home.unwrap_or_else(|| folder.join(path)).display().to_string()
    }

    fn no_server(&self, name: &str) -> String {
        let known = match &self.servers()[..] {
            [] => "it names no server".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        format!("there is no server {name:?} in {}: {known}; bigup-cli login URL --server {name}", self.path.display())
    }
}

/// `text` with these keys in `section`, and all else as it was. `None`: before the first section.
pub fn with_keys(text: &str, section: Option<&str>, keys: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_header = |line: &String| line.trim_start().starts_with('[');
    let begin = match section {
        None => 0,
        Some(name) => match lines.iter().position(|line| line.trim() == format!("[{name}]")) {
            Some(at) => at + 1,
            None => {
                lines.extend((!lines.is_empty()).then(String::new));
                lines.push(format!("[{name}]"));
                lines.len()
            }
        },
    };
    let mut end = lines[begin..].iter().position(is_header).map_or(lines.len(), |len| begin + len);
    for (key, value) in keys {
        let is_key = |line: &&mut String| line.split_once('=').is_some_and(|(name, _)| name.trim() == *key);
        match lines[begin..end].iter_mut().find(is_key) {
            Some(line) => *line = format!("{key} = {value}"),
            None => {
                // Blank lines before the next section stay there.
                let blank = lines[begin..end].iter().rev().take_while(|line| line.trim().is_empty()).count();
                lines.insert(end - blank, format!("{key} = {value}"));
                end += 1;
            }
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that does not depend on where the file lies.
    const ABSOLUTE: &str = if cfg!(windows) { "C:/t" } else { "/t" };

    fn file(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        std::fs::write(&path, text).unwrap();
        let file = ConfigFile::at(&path).unwrap();
        (dir, file)
    }

    fn shown(settings: &[Setting]) -> Vec<String> {
        let section = |setting: &Setting| setting.section.clone().unwrap_or_default();
        settings.iter().map(|s| format!("{} {}={}", section(s), s.key, s.value)).collect()
    }

    #[test]
    fn a_section_is_a_server_and_no_other_servers_token_goes_to_it() {
        let first = format!("url = http://a\ntoken_file = {ABSOLUTE}\nlimit_rate = 1M\n");
        let (_dir, file) = file(&(first + "[lab]\nurl = http://lab\nlimit_rate = 2M\n"));
        let token = format!(" token_file={ABSOLUTE}");
        assert_eq!(shown(&file.settings(None).unwrap()), [" url=http://a", &token, " limit_rate=1M"]);
        let of_lab = [" limit_rate=1M", "lab url=http://lab", "lab limit_rate=2M"];
        assert_eq!(shown(&file.settings(Some("lab")).unwrap()), of_lab);
        let message = file.settings(Some("bal")).unwrap_err().to_string();
        assert!(message.contains("it has lab") && message.contains("login URL --server bal"), "{message}");
    }

    #[test]
    fn the_file_can_say_which_server_is_meant() {
        let (_dir, file) = file("server = lab\n[lab]\nurl = http://lab\n");
        assert_eq!(shown(&file.settings(None).unwrap()), ["lab url=http://lab"]);
    }

    #[test]
    fn relative_paths_begin_at_the_file() {
        let (dir, file) = file(&format!("token_file = t\nca_cert = {ABSOLUTE}\n"));
        let token = format!(" token_file={}", dir.path().join("t").display());
        assert_eq!(shown(&file.settings(None).unwrap()), [token, format!(" ca_cert={ABSOLUTE}")]);
        assert!(ConfigFile::at(&dir.path().join("none")).unwrap().settings(None).unwrap().is_empty());
    }

    #[test]
    fn keys_are_set_and_all_else_stays() {
        let keys = [("url", "http://new"), ("token_file", "t")];
        assert_eq!(with_keys("", None, &keys), "url = http://new\ntoken_file = t\n");
        assert_eq!(with_keys("", Some("lab"), &keys), "[lab]\nurl = http://new\ntoken_file = t\n");
        let text = "# mine\nlimit_rate = 1M\n\n[lab]\nurl=http://old\n# kept\n\n[b]\nurl = http://b\n";
        let lab = "# mine\nlimit_rate = 1M\n\n[lab]\nurl = http://new\n# kept\ntoken_file = t\n\n[b]\nurl = http://b\n";
        assert_eq!(with_keys(text, Some("lab"), &keys), lab);
        assert_eq!(with_keys(lab, Some("lab"), &keys), lab);
        let general = with_keys(text, None, &keys);
        assert!(
            general.starts_with("# mine\nlimit_rate = 1M\nurl = http://new\ntoken_file = t\n\n[lab]\n"),
            "{general}"
        );
        assert!(
            with_keys(text, Some("c"), &keys).ends_with("url = http://b\n\n[c]\nurl = http://new\ntoken_file = t\n")
        );
    }
}
