//! Scripts of the repository: shells can read them, and `./x` does what it lists. Where it would build and test, a script in
//! place of cargo writes down what it was asked for.

use bigup_tests::docs::root;
use bigup_tests::hooks::{lines, script};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Folders with scripts, from the repository on.
const FOLDERS: [&str; 12] = [
    ".",
    ".ci",
    "bigupd/web/blake3",
    "dist",
    "systemd",
    "systemd/debian",
    "tests",
    "tests/boot",
    "tests/dist",
    "tests/fuzz",
    "tests/garage",
    "tests/windows",
];

/// The shell that a script is for. None: it is no script of a shell.
fn shell(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let interpreter = text.lines().next()?.strip_prefix("#!")?.rsplit(['/', ' ']).next()?;
    ["sh", "bash"].contains(&interpreter).then(|| interpreter.to_owned())
}

fn scripts() -> Vec<(PathBuf, String)> {
    let entries =
        FOLDERS.iter().flat_map(|folder| fs::read_dir(root().join(folder)).expect("it can be read").flatten());
    let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    files.filter_map(|path| shell(&path).map(|shell| (path, shell))).collect()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is UTF-8")
}

#[test]
fn shells_can_read_all_scripts() {
    let scripts = scripts();
    assert!(scripts.len() > 10, "{scripts:?}");
    for (path, shell) in &scripts {
        let output = output(Command::new(shell).arg("-n").arg(path));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// Where it is installed, which `tests/run` sees to.
#[test]
fn shellcheck_warns_of_no_script() {
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.arg("--severity=warning").args(scripts().into_iter().map(|(path, _)| path));
    match shellcheck.output() {
        Ok(output) => assert!(output.status.success(), "{}", text(&output.stdout)),
        Err(e) => println!("there is no shellcheck: {e}"),
    }
}

/// `./x` with a cargo that tells of two files' tests, and what this cargo was asked for, a line each time.
struct Tasks {
    folder: tempfile::TempDir,
}

impl Tasks {
    fn new() -> Tasks {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listed = "layout::a_file: test\nlayout::a_folder: test\npackage::a_layout_of_files: test";
        script(
            folder.path(),
            "cargo",
            &format!("echo \"$*\" >> DIR/asked\ncase $* in *--list*) echo '{listed}' ;; esac"),
        );
        Tasks { folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").expect("there is one");
        let mut command = Command::new(root().join("x"));
        // From any folder.
        command.args(arguments).current_dir(self.folder.path());
        output(command.env("PATH", format!("{}:{path}", self.folder.path().display())))
    }

    fn asked(&self) -> Vec<String> {
        lines(&self.folder.path().join("asked"))
    }
}

#[test]
fn x_without_a_task_lists_all_and_refuses_others() {
    let tasks = Tasks::new();
    let listed = tasks.run(&[]);
    assert!(listed.status.success(), "{listed:?}");
    let source = fs::read_to_string(root().join("x")).expect("it is there");
    let (_, cases) = source.split_once("\ncase $task in\n").expect("it has tasks");
    let names = cases.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(')')).map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric())).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(text(&listed.stdout).contains(&format!("./x {name} ")), "{name} is not listed");
    }
    let refused = tasks.run(&["nonsense"]);
    assert_eq!((refused.status.code(), &refused.stdout), (Some(2), &listed.stdout));
    assert_eq!(tasks.asked(), [""; 0]);
}

#[test]
fn x_e2e_runs_the_tests_of_a_file_or_those_with_a_word_in_their_names() {
    const TEST: &str = "test -p bigup-tests --test repository --";
    let ran = |arguments: &[&str]| {
        let tasks = Tasks::new();
        let output = tasks.run(&[&["e2e", "layout"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let asked = tasks.asked();
        assert_eq!(asked[0], "build --workspace");
        asked.last().expect("it was asked").clone()
    };
    assert_eq!(ran(&[]), format!("{TEST} --exact layout::a_file layout::a_folder"));
    assert_eq!(ran(&["folder"]), format!("{TEST} --exact layout::a_folder"));
    assert_eq!(ran(&["folder", "--nocapture"]), format!("{TEST} --nocapture --exact layout::a_folder"));
    assert_eq!(ran(&["--nocapture"]), format!("{TEST} --nocapture --exact layout::a_file layout::a_folder"));
}

#[test]
fn x_e2e_says_which_file_or_test_is_not_there() {
    for (arguments, said) in [
        (&["e2e"][..], "which file"),
        (&["e2e", "nonsense"], "there is no tests/tests/*/nonsense.rs"),
        (&["e2e", "layout", "nonsense"], "no test in tests/tests/repository/layout.rs has nonsense in its name"),
    ] {
        let output = Tasks::new().run(arguments);
        assert!(!output.status.success() && text(&output.stderr).contains(said), "{arguments:?}: {output:?}");
    }
}

#[test]
fn every_file_of_tests_is_a_module_of_the_program_in_its_folder() {
    let folders = fs::read_dir(root().join("tests/tests")).expect("it can be read").flatten();
    for folder in folders.map(|entry| entry.path()) {
        assert!(folder.is_dir(), "{}: it would be a program of its own", folder.display());
        let main = fs::read_to_string(folder.join("main.rs")).expect("each folder is a program");
        for file in fs::read_dir(&folder).expect("it can be read").flatten() {
            let name = file.path().file_stem().expect("it has a name").to_string_lossy().into_owned();
            assert!(name == "main" || main.contains(&format!("mod {name};")), "{}", file.path().display());
        }
    }
}
