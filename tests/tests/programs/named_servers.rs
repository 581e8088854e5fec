//! The client's configuration file: named servers, a login, and which of file, environment and command line counts.

use bigup_tests::daemon::Daemon;
use bigup_tests::{data, programs};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder for the configuration of the client.
struct Home(tempfile::TempDir);

impl Home {
    fn with(text: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::create_dir(home.0.path().join("bigup")).unwrap();
        fs::write(home.path("config.ini"), text).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("bigup").join(name)
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = programs::cli();
        command.args(arguments).env("XDG_CONFIG_HOME", self.0.path());
        command
    }

    #[track_caller]
    fn said(&self, arguments: &[&str]) -> String {
        succeeded(&self.cli(arguments).output().unwrap())
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn failed(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn new_token(daemon: &Daemon) -> String {
    let mut bigupd = Command::new(programs::path("bigupd"));
    bigupd.arg("--data-dir").arg(daemon.data()).args(["token", "new", "t", "--prefix", "alice"]);
    succeeded(&bigupd.output().unwrap()).trim().to_owned()
}

fn log_in(home: &Home, arguments: &[&str], token: &str) -> Output {
    let mut login = home.cli(&[&["login"], arguments].concat());
    let mut child = login.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_login_is_all_that_later_commands_need() {
    let daemon = Daemon::start();
    let (token, home) = (new_token(&daemon), Home(tempfile::tempdir().unwrap()));
    let refused = failed(&log_in(&home, &["--server", "lab", daemon.url()], "bigup_wrong\n"), 1);
    assert!(
        refused.contains("the token is none of this server's") && !home.0.path().join("bigup").exists(),
        "{refused}"
    );
    let said = succeeded(&log_in(&home, &["--server", "lab", daemon.url()], &format!("{token}\n")));
    assert!(said.contains("under alice/"), "{said}");
    assert_eq!(fs::metadata(home.path("lab.token")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(home.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    let file = data::file(&daemon.scratch(), "a", 1, 10);
    home.said(&["push", "lab:alice/runs/", text(&file)]);
    assert!(data::same(&file, &daemon.finished("alice/runs/a")));
    home.said(&["push", "--server", "lab", text(&file)]);
    assert!(data::same(&file, &daemon.finished("alice/a")));
    assert!(home.said(&["list", "lab:alice/runs/"]).contains("alice/runs/a"));
    let to = daemon.scratch().join("to");
    home.said(&["get", "lab:alice/runs/a", text(&to)]);
    assert!(data::same(&file, &to));
    let unknown = failed(&home.cli(&["list", "--server", "bal"]).output().unwrap(), 2);
    assert!(unknown.contains("it has lab") && unknown.contains("bigup-cli login"), "{unknown}");
    // As the advice says.
    succeeded(&log_in(&home, &[daemon.url()], &token));
    assert!(home.said(&["status", "alice/a"]).contains("finished"));
    assert!(home.said(&["config", "--server", "lab"]).contains("lab.token"));
    for shown in [home.said(&["config"]), home.said(&["config", "--json"])] {
        assert!(shown.contains("config.ini") && !shown.contains(&token), "{shown}");
    }
}

#[test]
fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let home = Home::with("url = http://file\nlimit_rate = 1M\n[lab]\nurl = http://lab\n");
    let url = |arguments: &[&str], variable: Option<&str>| {
        let mut command = home.cli(&[&["config"], arguments].concat());
        if let Some(value) = variable {
            command.env("BIGUP_URL", value);
        }
        let said = succeeded(&command.output().unwrap());
        let line = said.lines().find(|line| line.starts_with("url")).unwrap().to_owned();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let file = home.path("config.ini");
    assert_eq!(url(&[], None), format!("http://file {}", text(&file)));
    assert_eq!(url(&[], Some("http://variable")), "http://variable BIGUP_URL");
    assert_eq!(url(&["--url", "http://flag"], Some("http://variable")), "http://flag command line");
    // A server on the command line counts as a flag.
    assert_eq!(url(&["--server", "lab"], Some("http://variable")), format!("http://lab {} [lab]", text(&file)));
    let both = home.cli(&["config", "--server", "lab", "--url", "http://flag"]).output().unwrap();
    assert!(failed(&both, 2).contains("leave --url out"));
}

#[test]
fn settings_are_the_options_of_commands_and_mistakes_are_told_with_their_file() {
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "a", 1, 10);
    let home = Home::with(&format!("url = {}\nquiet = true\ninto = x/\nslice_size = 1M\n", daemon.url()));
    assert_eq!(home.said(&["push", text(&file)]), "");
    assert!(data::same(&file, &daemon.finished("x/a")));
    home.said(&["push", text(&file), "--into", "y/"]);
    assert!(data::same(&file, &daemon.finished("y/a")));
    assert!(home.said(&["push", text(&file), "--json"]).contains("done"), "what is given is not contradicted");
    for (line, says) in [
        ("ulr = http://h", "ulr is no option of a command; known are"),
        ("limit_rate = much", "--limit-rate"),
        ("replace = perhaps", "must be true or false"),
        ("delete = true", "delete is no option"),
        ("[lab", "config.ini"),
    ] {
        fs::write(home.path("config.ini"), format!("{line}\n")).unwrap();
        let said = failed(&home.cli(&["push", text(&file)]).output().unwrap(), 2);
        assert!(said.contains(says) && said.contains("config.ini"), "{said}");
    }
    succeeded(&home.cli(&["--version"]).output().unwrap());
}

#[test]
fn a_stored_token_goes_to_no_other_server() {
    let (daemon, other) = (Daemon::start(), Daemon::start());
    let token = new_token(&daemon);
    // This one asks for a token, too, and tells by its answer whether one came.
    new_token(&other);
    let home = Home::with(&format!("url = {}\ntoken_file = t\n", daemon.url()));
    fs::write(home.path("t"), &token).unwrap();
    home.said(&["status"]);
    let elsewhere = home.cli(&["status", "--url", other.url()]).output().unwrap();
    assert!(failed(&elsewhere, 1).contains("a token is needed"), "{elsewhere:?}");
    let elsewhere = home.cli(&["status"]).env("BIGUP_URL", other.url()).output().unwrap();
    assert!(failed(&elsewhere, 1).contains("a token is needed"), "{elsewhere:?}");
}

#[test]
fn completions_know_the_commands() {
    for (shell, has) in [("bash", "complete -F"), ("zsh", "#compdef bigup-cli"), ("fish", "complete -c bigup-cli")] {
        let mut cli = programs::cli();
        let said = succeeded(&cli.args(["completions", shell]).output().unwrap());
        assert!(said.contains(has) && said.contains("remove"), "{shell}");
    }
}
