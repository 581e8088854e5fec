//! Folders of finished files by plain HTTP: as archives for `tar`, and as an index for rclone, wget and browsers.

use super::content::{Reply, get, parts, push, put, run_documented, send, sent, set_modified, token, unchunked};
use bigup_tests::browser::{Profile, Site};
use bigup_tests::clients::rclone;
use bigup_tests::daemon::Daemon;
use bigup_tests::http::{connect, encoded};
use bigup_tests::process::{eventually, kill_9};
use bigup_tests::scrape::eventually_counted;
use bigup_tests::{data, programs, usage};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Names that are hard to carry.
const NAMES: [&str; 14] = [
    "plain.txt",
    "with space",
    "50%?#&+;=:@.bin",
    "'single' \"double\" `back` \\slash\\",
    "<b>&amp;<b>",
    "-rf",
    " leading and trailing ",
    "ünï/文/данные",
    "\u{202e}right to left",
    "e\u{301} and é",
    "empty",
    "deep/er/and/deep/er/file",
    "deep.txt",
    "~!$^*(){}[],|",
];

/// A folder of files with these names, and some that need a pax header, below `dir/top`.
fn tree() -> BTreeMap<String, Vec<u8>> {
    let mut tree: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (seed, name) in (1..).zip(NAMES) {
        let len = if name == "empty" { 0 } else { 700 * seed as usize };
        tree.insert(name.to_owned(), data::bytes(seed, len));
    }
    for len in [92, 93, 96, 97, 200] {
        tree.insert("n".repeat(len), data::bytes(len as u64, len));
    }
    let long = ["l".repeat(200), "文".repeat(80), "m".repeat(250)].join("/");
    tree.insert(long, data::bytes(77, 300_000));
    tree
}

/// Stores a file whose digest is certain. A slice is never empty.
fn store(daemon: &Daemon, name: &str, content: &[u8]) {
    if !content.is_empty() {
        return push(daemon, name, content);
    }
    send(daemon.url(), &format!("PUT /content/{name}"), &["Content-Length: 0"]).expect(201);
    eventually("its digest is certain", || !get(daemon, name, &[]).header("etag").is_empty());
}

fn push_tree(daemon: &Daemon, folder: &str, tree: &BTreeMap<String, Vec<u8>>) {
    for (name, content) in tree {
        store(daemon, &format!("{folder}/{name}"), content);
    }
}

/// The files below a folder.
fn read_tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut tree, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                tree.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    tree
}

#[track_caller]
fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8").current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{program} cannot be started ({e}): tests/run installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output
}

#[track_caller]
fn assert_same(is: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, by: &str) {
    assert_eq!(is.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{by}");
    for (name, content) in expected {
        assert!(is[name] == *content, "{by}: {name}");
    }
}

/// Unpacks the archive in `folder` by Python's tarfile.
const PYTHON: &str = "
import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (0o644, 0, 0, '', ''), member
        assert member.isreg(), member
        assert int(member.mtime) == member.mtime
    archive.extractall(sys.argv[2], filter='data') if hasattr(tarfile, 'data_filter') else archive.extractall(sys.argv[2])
";

#[test]
fn an_archive_is_what_tar_bsdtar_and_python_unpack() {
    let daemon = Daemon::start();
    let tree = tree();
    push_tree(&daemon, "dir/top", &tree);
    put(&daemon, "dir/topless", b"not in it");
    put(&daemon, "dir/top-less/x", b"not in it");
    fs::create_dir_all(daemon.finished("dir/top/empty folder")).unwrap();
    symlink("/etc/passwd", daemon.finished("dir/top/link")).unwrap();
    symlink(daemon.data(), daemon.finished("dir/top/folder-link")).unwrap();
    nix::unistd::mkfifo(&daemon.finished("dir/top/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    daemon.server().get("file_name=dir/top/unfinished&slice_num=2&slice_size=5").expect(200);
    let reply = get(&daemon, "dir/top/?tar", &[]).expect(200);
    for (header, value) in [
        ("content-type", "application/x-tar"),
        ("content-length", &*reply.body.len().to_string()),
        ("content-disposition", "attachment; filename=\"top.tar\"; filename*=UTF-8''top.tar"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "private, no-cache"),
        ("last-modified", ""),
        ("bigup-digest", ""),
        ("transfer-encoding", ""),
    ] {
        assert_eq!(reply.header(header), value, "{header}");
    }
    assert!(reply.header("etag").starts_with("\"tar-"), "{reply:?}");
    let again = get(&daemon, "dir/top/?tar=", &[]).expect(200);
    assert!(again.body == reply.body && again.header("etag") == reply.header("etag"));
    let mut head = send(daemon.url(), "HEAD /content/dir/top/?tar", &[]).expect(200);
    head.headers.insert("date".to_owned(), reply.header("date").to_owned());
    assert_eq!((&head.headers, head.body.len()), (&reply.headers, 0));
    let scratch = daemon.scratch();
    let archive = scratch.join("top.tar");
    fs::write(&archive, &reply.body).unwrap();
    for (by, program, arguments) in [
        ("tar", "tar", &["-xf", "../top.tar"][..]),
        ("tar-c", "env", &["LC_ALL=C", "tar", "-xf", "../top.tar"]),
        ("bsdtar", "bsdtar", &["-xf", "../top.tar"]),
        ("python", "python3", &["-c", PYTHON, "../top.tar", "."]),
    ] {
        let to = scratch.join(by);
        fs::create_dir(&to).unwrap();
        let output = run(program, arguments, &to);
        assert!(output.stderr.is_empty(), "{output:?}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "{by}: all is in one folder");
        let mut expected = tree.clone();
        if by == "bsdtar" {
            // It composes letters with their accents.
            let content = expected.remove("e\u{301} and é").unwrap();
            expected.insert("\u{e9} and é".to_owned(), content);
        }
        assert_same(&read_tree(&to.join("top")), &expected, by);
        for name in ["plain.txt", "ünï/文/данные"] {
            let found = fs::metadata(to.join("top").join(name)).unwrap();
            let original = fs::metadata(daemon.finished(&format!("dir/top/{name}"))).unwrap();
            let seconds = |found: &fs::Metadata| std::os::unix::fs::MetadataExt::mtime(found);
            assert_eq!(
                (seconds(&found), found.permissions().mode() & 0o777),
                (seconds(&original), 0o644),
                "{by} {name}"
            );
        }
    }
    // The order is that of the list.
    let listed = run("tar", &["-tf", "top.tar", "--quoting-style=literal"], &scratch);
    let names: Vec<String> = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(names.is_sorted() && names.len() == tree.len(), "{names:?}");
}

#[test]
fn ranges_of_an_archive_are_parts_of_it() {
    let daemon = Daemon::start();
    for (seed, len) in [(1, 0), (2, 1), (3, 511), (4, 512), (5, 513), (6, 300_000), (7, 5)] {
        store(&daemon, &format!("d/{seed}"), &data::bytes(seed, len));
    }
    push(&daemon, &format!("d/文{}", "x".repeat(150)), b"0123456789");
    let whole = get(&daemon, "d/?tar", &[]).expect(200);
    let (all, tag) = (&whole.body, whole.header("etag"));
    let size = all.len();
    let mut dice = data::Dice::new(7);
    for round in 0..300 {
        let first = dice.below(size as u64) as usize;
        let last = (first + dice.below([2, 700, size as u64][round % 3]) as usize).min(size - 1);
        let reply = get(&daemon, "d/?tar", &[&format!("Range: bytes={first}-{last}")]).expect(206);
        assert!(reply.body == all[first..=last], "{first}-{last}");
        assert_eq!(reply.header("content-range"), format!("bytes {first}-{last}/{size}"));
        assert_eq!(reply.header("content-type"), "application/x-tar");
    }
    let reply = get(&daemon, "d/?tar", &["Range: bytes=-2000"]).expect(206);
    assert!(reply.body == all[size - 2000..]);
    let reply = get(&daemon, "d/?tar", &["Range: bytes=-10,0-9,3000-3999"]).expect(206);
    let told: Vec<String> = parts(&reply, "application/x-tar").into_iter().map(|(range, _)| range).collect();
    let (first, last) = (size - 10, size - 1);
    assert_eq!(
        told,
        [format!("bytes {first}-{last}/{size}"), format!("bytes 0-9/{size}"), format!("bytes 3000-3999/{size}")]
    );
    let beyond = get(&daemon, "d/?tar", &[&format!("Range: bytes={size}-")]).expect(416);
    assert_eq!(
        (beyond.header("content-range"), &*beyond.error()),
        (&*format!("bytes */{size}"), "range_not_satisfiable")
    );
    let (range, other) = ("Range: bytes=0-9", "\"tar-0\"");
    for (headers, status) in [
        (vec![format!("If-Range: {tag}"), range.to_owned()], 206),
        (vec![format!("If-Range: {other}"), range.to_owned()], 200),
        (vec!["If-Range: Sat, 01 Jan 2050 00:00:00 GMT".to_owned(), range.to_owned()], 200),
        (vec![format!("If-None-Match: {tag}")], 304),
        (vec![format!("If-None-Match: {other}")], 200),
        (vec![format!("If-Match: {tag}"), range.to_owned()], 206),
        (vec![format!("If-Match: {other}")], 412),
        (vec!["If-Match: *".to_owned()], 200),
        (vec!["If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT".to_owned()], 200),
        (vec!["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT".to_owned()], 200),
    ] {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let reply = get(&daemon, "d/?tar", &lines).expect(status);
        assert!(status != 304 || (reply.header("etag") == tag && reply.body.is_empty()), "{reply:?}");
    }
    let head = send(daemon.url(), "HEAD /content/d/?tar", &[range]).expect(200);
    assert_eq!(head.header("content-length"), size.to_string());
}

#[test]
fn every_change_gives_another_archive_and_the_same_files_the_same_one() {
    let daemon = Daemon::start();
    for name in ["d/1", "d/2", "e"] {
        push(&daemon, name, b"0123456789");
    }
    let etag = || get(&daemon, "d/?tar", &[]).expect(200).header("etag").to_owned();
    let first = etag();
    assert_ne!(get(&daemon, "?tar", &[]).expect(200).header("etag"), first);
    push(&daemon, "d/2", b"other");
    let second = etag();
    push(&daemon, "d/3", b"0123456789");
    let third = etag();
    send(daemon.url(), "DELETE /content/d/3", &[]).expect(204);
    assert!(first != second && second != third && etag() == second, "{first} {second} {third}");
    let (whole, another) = (get(&daemon, "d/?tar", &[]), daemon.another());
    let same = get(&another, "d/?tar", &[]).expect(200);
    assert!(same.header("etag") == second && same.body == whole.body);
    // Nothing tells what this one is: so nothing tells parts of one archive from those of another.
    set_modified(&put(&daemon, "d/by-hand", b"x"), 784_111_777);
    let reply = get(&daemon, "d/?tar", &["Range: bytes=0-9"]).expect(200);
    assert_eq!((reply.header("etag"), reply.header("accept-ranges")), ("", "none"));
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    assert_eq!(get(&daemon, "d/?tar", &["If-Match: *"]).status, 200);
    assert_eq!(get(&daemon, "d/?tar", &[&format!("If-Match: {second}")]).status, 412);
}

/// Begins to read, and takes the first bytes.
fn begun(daemon: &Daemon, target: &str, headers: &str) -> (std::net::TcpStream, Vec<u8>) {
    let mut stream = connect(daemon.url());
    let request = format!("GET /content/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut begin = vec![0; 4096];
    stream.read_exact(&mut begin).unwrap();
    (stream, begin)
}

/// Reads on until the connection ends, however it ends.
fn rest((mut stream, mut bytes): (std::net::TcpStream, Vec<u8>)) -> Reply {
    let _ = stream.read_to_end(&mut bytes);
    Reply::parse(&bytes)
}

#[test]
fn an_archive_breaks_off_where_its_folder_changed_and_goes_on_where_it_did_not() {
    let changes: [fn(&Daemon); 5] = [
        |daemon| push(daemon, "d/2", &data::bytes(9, 6 << 20)),
        |daemon| drop(send(daemon.url(), "DELETE /content/d/2", &[]).expect(204)),
        |daemon| set_modified(&daemon.finished("d/2"), 784_111_777),
        |daemon| {
            fs::rename(daemon.finished("d/2"), daemon.finished("d/moved")).unwrap();
            symlink(daemon.finished("d/moved"), daemon.finished("d/2")).unwrap();
        },
        |daemon| fs::write(daemon.finished("d/2"), "short").unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let daemon = Daemon::start();
        let contents = [1, 2].map(|seed| data::bytes(seed, 20 << 20));
        for (name, content) in ["d/1", "d/2"].iter().zip(&contents) {
            push(&daemon, name, content);
        }
        let whole = send(daemon.url(), "HEAD /content/d/?tar", &[]).expect(200);
        let reading = begun(&daemon, "d/?tar", "");
        change(&daemon);
        let reply = rest(reading);
        assert_eq!(reply.header("etag"), whole.header("etag"));
        // The first file is there but for its last piece, and nothing of the second one.
        let (len, end) = (reply.body.len(), 512 + (20 << 20));
        assert!((19 << 20..=end + 512).contains(&len), "{number}: {len}");
        assert!(reply.body[512..len.min(end)] == contents[0][..len.min(end) - 512]);
        let broken = || daemon.log().contains("d/: its download breaks off: ") && daemon.log().contains("d/2");
        eventually("the log says so", broken);
        // A client that goes on gets the new archive from its first byte.
        let resumed = format!("If-Range: {}", whole.header("etag"));
        let resumed = get(&daemon, "d/?tar", &[&resumed, &format!("Range: bytes={}-", reply.body.len())]);
        assert!(resumed.status == 200 && resumed.body[..512] == reply.body[..512], "{number}");
    }
}

#[test]
fn an_archive_that_was_cut_off_is_read_on_by_curl_and_wget() {
    let daemon = Daemon::start();
    let scratch = daemon.scratch();
    for seed in 0..40 {
        push(&daemon, &format!("d/{seed:02}"), &data::bytes(seed, 100_000 + seed as usize));
    }
    let url = format!("{}/content/d/?tar", daemon.url());
    let whole = get(&daemon, "d/?tar", &[]).expect(200).body;
    let mut dice = data::Dice::new(3);
    for round in 0..20 {
        let at = dice.below(whole.len() as u64) as usize;
        let to = scratch.join(format!("{round}.tar"));
        fs::write(&to, &whole[..at]).unwrap();
        let to = to.to_str().unwrap();
        match round % 2 {
            0 => run("curl", &["-fsS", "-C", "-", "-o", to, &url], &scratch),
            _ => run("wget", &["-q", "-c", "-O", to, &url], &scratch),
        };
        assert!(fs::read(to).unwrap() == whole, "{round}: cut at {at}");
    }
    run("aria2c", &["-q", "-x", "4", "-s", "4", "-k", "1M", "-o", "aria2.tar", &url], &scratch);
    assert!(fs::read(scratch.join("aria2.tar")).unwrap() == whole);
    // It is saved under the name of its folder, and unpacked while it comes.
    run("curl", &["-fsSOJ", &format!("{}/content/d/?tar", daemon.url())], &scratch);
    assert!(fs::read(scratch.join("d.tar")).unwrap() == whole);
    run("bash", &["-euo", "pipefail", "-c", &format!("curl -fsS '{url}' | tar -x")], &scratch);
    assert_eq!(read_tree(&scratch.join("d")).len(), 40);
}

#[test]
fn files_of_8_gib_and_more_are_in_archives() {
    let daemon = Daemon::start();
    let (sparse, len) = (put(&daemon, "d/huge", b"begin"), (8 << 30) + 5);
    fs::File::options().write(true).open(&sparse).unwrap().set_len(len).unwrap();
    put(&daemon, "d/last", b"the end");
    let head = send(daemon.url(), "HEAD /content/d/?tar", &[]).expect(200);
    let size = 3 * 512 + len.next_multiple_of(512) + 1024 + 1024;
    assert_eq!(head.header("content-length"), size.to_string());
    // Nobody reads all of it here: both see a file of that size.
    let (stream, begin) = begun(&daemon, "d/?tar", "");
    drop(stream);
    let body = Reply::parse(&begin).body;
    let archive = daemon.scratch().join("huge.tar");
    let file = fs::File::create(&archive).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &body[..3 * 512 + 5], 0).unwrap();
    file.set_len(size).unwrap();
    let listed = run("tar", &["-tvf", "huge.tar"], &daemon.scratch());
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&format!(" {len} ")), "{listed:?}");
    let script = format!("import tarfile; assert [m.size for m in tarfile.open('huge.tar')] == [{len}]");
    run("python3", &["-c", &script], &daemon.scratch());
}

#[test]
fn a_folder_is_read_by_its_own_path_alone() {
    let daemon = Daemon::start();
    put(&daemon, "folder/file", b"right");
    put(&daemon, "other/x", b"x");
    fs::create_dir_all(daemon.finished("hollow/inner")).unwrap();
    fs::create_dir_all(daemon.data().join("outside")).unwrap();
    fs::write(daemon.data().join("outside/secret"), "secret").unwrap();
    symlink(daemon.data().join("outside"), daemon.finished("link")).unwrap();
    symlink(daemon.data().join("outside"), daemon.finished("other/link")).unwrap();
    for query in ["", "?tar"] {
        for folder in [
            "../",
            "%2e%2e/",
            "%2E%2E%2Foutside/",
            "folder/../",
            "folder/..%2f..%2foutside/",
            "%2e/",
            ".%2f",
            ".//",
            "/folder/",
            "/",
            "%2Ffolder/",
            "folder//",
            "folder%2F/",
            "%00/",
            "%ff/",
            "folder%0a/",
            &"a/".repeat(2000),
        ] {
            let reply = get(&daemon, &format!("{folder}{query}"), &[]).expect(400);
            assert_eq!(reply.error(), "bad_name", "{folder}{query}");
        }
        for folder in ["nothing/", "hollow/", "link/", "other/link/", "folder/file/", "folder/file/x/", "folde/"] {
            let reply = get(&daemon, &format!("{folder}{query}"), &[]).expect(404);
            assert_eq!(reply.error(), "not_found", "{folder}{query}");
            assert_eq!(send(daemon.url(), &format!("HEAD /content/{folder}{query}"), &[]).status, 404);
        }
        assert!(
            !String::from_utf8_lossy(&get(&daemon, &format!("other/{query}"), &[]).expect(200).body).contains("secret")
        );
    }
    for query in ["tar&x", "tar&tar", "tar=1", "x", "prefix=a", "tar&", "&tar", "TAR", "zip", "t%61r"] {
        let reply = get(&daemon, &format!("folder/?{query}"), &[]).expect(400);
        assert_eq!(reply.error(), "bad_request", "{query}");
        assert_eq!(get(&daemon, &format!("?{query}"), &[]).status, if query == "prefix=a" { 200 } else { 400 });
    }
    for path in ["folder/", "folder/?tar"] {
        for method in ["DELETE", "POST", "PATCH"] {
            let reply = send(daemon.url(), &format!("{method} /content/{path}"), &["Content-Length: 0"]).expect(405);
            assert_eq!(reply.header("allow"), "GET, HEAD, PUT, OPTIONS", "{method} {path}");
        }
    }
    assert_eq!(get(&Daemon::start(), "?tar", &[]).expect(404).error(), "not_found");
}

/// The names in an archive.
fn members(archive: &[u8]) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("archive.tar"), archive).unwrap();
    let listed = run("tar", &["-tf", "archive.tar"], scratch.path());
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The links of an index, decoded by nobody.
fn links(reply: &Reply) -> Vec<String> {
    let body = if reply.header("transfer-encoding") == "chunked" { unchunked(&reply.body) } else { reply.body.clone() };
    let text = String::from_utf8(body).unwrap();
    assert!(text.ends_with("</ul>\n"), "{text}");
    let links = text.split("<a href=\"").skip(1);
    links.map(|link| link.split_once('"').unwrap().0.to_owned()).collect()
}

/// A link without its percent-encoding.
fn decoded(link: &str) -> String {
    let mut parts = link.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits follow"));
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("names are UTF-8")
}

#[test]
fn tokens_read_folders_as_far_as_their_prefix_permits() {
    let daemon = Daemon::with(&["--allow-anonymous", "yes"]);
    for name in ["a/b/x", "a/b/y/z", "a/c", "ab", "b/z"] {
        put(&daemon, name, b"x");
    }
    let reader = token(&daemon, "reader", &["--prefix", "a/b/", "--permissions", "read"]);
    let pusher = token(&daemon, "pusher", &["--permissions", "push"]);
    let foreign = "Authorization: Bearer bigup_0000".to_owned();
    let nobody = "X-Nothing: here".to_owned();
    for query in ["", "?tar"] {
        let statuses = |folder: &str| {
            let ask = |token: &String| get(&daemon, &format!("{folder}{query}"), &[token, "Accept: text/html"]).status;
            [&reader, &pusher, &nobody, &foreign].map(ask)
        };
        assert_eq!(statuses("a/b/"), [200, 403, 200, 401]);
        assert_eq!(statuses("a/"), [200, 403, 200, 401]);
        assert_eq!(statuses(""), [200, 403, 200, 401]);
        // A refusal tells nothing of what there is.
        assert_eq!(statuses("b/"), [403, 403, 200, 401]);
        assert_eq!(statuses("nothing/"), [403, 403, 404, 401]);
    }
    let archived =
        |folder: &str, token: &str| members(&get(&daemon, &format!("{folder}?tar"), &[token]).expect(200).body);
    assert_eq!(archived("", &reader), ["a/b/x", "a/b/y/z"]);
    assert_eq!(archived("a/", &reader), ["a/b/x", "a/b/y/z"]);
    assert_eq!(archived("a/b/", &reader), ["b/x", "b/y/z"]);
    assert_eq!(archived("a/", &nobody), ["a/b/x", "a/b/y/z", "a/c"]);
    let all = get(&daemon, "?tar", &[&nobody]).expect(200);
    assert_eq!(members(&all.body), ["a/b/x", "a/b/y/z", "a/c", "ab", "b/z"]);
    assert_eq!(all.header("content-disposition"), "attachment; filename=\"files.tar\"; filename*=UTF-8''files.tar");
    let linked = |folder: &str, token: &str| links(&get(&daemon, folder, &[token, "Accept: text/html"]).expect(200));
    assert_eq!(linked("", &reader), ["a/"]);
    assert_eq!(linked("a/", &reader), ["b/"]);
    assert_eq!(linked("a/b/", &reader), ["x", "y/"]);
    assert_eq!(linked("", &nobody), ["a/", "ab", "b/"]);
    assert_eq!(linked("a/", &nobody), ["b/", "c"]);
    for foreign in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Referer: http://evil.example/page"] {
        for target in ["a/", "a/?tar", "?tar"] {
            assert_eq!(get(&daemon, target, &[foreign]).status, 403, "{target} {foreign}");
        }
    }
}

#[test]
fn an_index_links_files_and_folders_and_runs_nothing() {
    let daemon = Daemon::start();
    assert_eq!(links(&get(&daemon, "", &["Accept: text/html"]).expect(200)), Vec::<String>::new());
    let tree = tree();
    for (name, content) in &tree {
        put(&daemon, &format!("top/{name}"), content);
    }
    fs::create_dir_all(daemon.finished("top/empty folder/inner")).unwrap();
    symlink(daemon.data(), daemon.finished("top/link")).unwrap();
    let reply = get(&daemon, "top/", &[]).expect(200);
    let policy = reply.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("sandbox") && !policy.contains("scripts"),
        "{policy}"
    );
    for (header, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(reply.header(header), value, "{header}");
    }
    let first = |name: &String| name.split_once('/').map_or(name.clone(), |(first, _)| format!("{first}/"));
    let mut expected: Vec<String> = tree.keys().map(first).collect();
    expected.sort();
    expected.dedup();
    let linked = links(&reply);
    let names = linked.iter().map(|link| decoded(link));
    assert_eq!(names.collect::<Vec<_>>(), expected);
    assert!(linked.iter().all(|link| link.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-_.~/".contains(&b))));
    // Each link leads where it says.
    for link in &linked {
        assert_eq!(get(&daemon, &format!("top/{link}"), &[]).status, 200, "{link}");
    }
    let text = String::from_utf8(reply.body).unwrap();
    assert!(!text.contains("<b>") && text.contains("&lt;b&gt;&amp;amp;&lt;b&gt;"), "{text}");
    let head = send(daemon.url(), "HEAD /content/top/", &[]).expect(200);
    assert_eq!((head.header("content-type"), head.body.len()), ("text/html; charset=utf-8", 0));
    // The list of all files is for programs, and browsers have an index of it.
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(links(&get(&daemon, "", &[browser]).expect(200)), ["top/"]);
    for (target, accept) in [("", "Accept: */*"), ("", "X: y"), ("?prefix=top/", browser), ("", "Accept: text/htmlx")] {
        assert_eq!(get(&daemon, target, &[accept]).expect(200).header("content-type"), "application/x-ndjson");
    }
}

#[test]
fn an_index_of_many_files_comes_in_pieces_and_is_whole() {
    let daemon = Daemon::start();
    let mut expected = vec![];
    for number in 0..3000 {
        let name = format!("{number:04}-{}", "x".repeat(60));
        put(&daemon, &format!("d/{name}"), b"x");
        expected.push(name);
        if number % 10 == 0 {
            put(&daemon, &format!("d/{number:04}/inner/file"), b"x");
            expected.push(format!("{number:04}/"));
        }
    }
    expected.sort();
    assert_eq!(links(&get(&daemon, "d/", &[]).expect(200)), expected);
}

#[test]
fn an_archive_of_many_files_takes_little_memory() {
    const FILES: usize = 20_000;
    let daemon = Daemon::with(&["--max-connections-per-address", "0"]);
    for number in 0..FILES {
        put(&daemon, &format!("d/{}/{number:05}-{}", number % 3, "x".repeat(100)), format!("{number}").as_bytes());
    }
    put(&daemon, "d/z", &data::bytes(1, 30 << 20));
    let before = usage::memory(daemon.pid()).unwrap();
    let readers: Vec<_> = std::thread::scope(|threads| {
        let begin = || threads.spawn(|| begun(&daemon, "d/?tar", ""));
        (0..40).map(|_| begin()).collect::<Vec<_>>().into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    eventually_counted(daemon.url(), &[("downloads_running", 40.0)]);
    let is = usage::memory(daemon.pid()).unwrap();
    // A batch of each reader, its plan, and what malloc keeps. All names would take 5 MiB of each.
    let most = before + 40 * (512 << 10) + (40 << 20);
    assert!(is < most, "{} MiB of {}", is >> 20, most >> 20);
    // Readers that wait hold no thread.
    assert_eq!(get(&daemon, "d/z", &["Range: bytes=5-9"]).expect(206).body.len(), 5);
    let last = rest(readers.into_iter().last().unwrap());
    assert_eq!(last.header("content-length"), last.body.len().to_string());
    let names = members(&last.body);
    assert!(names.len() == FILES + 1 && names.is_sorted());
    eventually_counted(daemon.url(), &[("downloads_running", 0.0)]);
}

#[test]
fn the_documented_commands_read_folders() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let tree: BTreeMap<String, Vec<u8>> =
        [("a b.jpg", 100_000), ("2030/文.jpg", 7)].map(|(name, len)| (name.to_owned(), data::bytes(1, len))).into();
    push_tree(&daemon, "alice/photos", &tree);
    put(&daemon, "alice/other/x", b"x");
    let secret = token(&daemon, "alice", &["--prefix", "alice/", "--permissions", "read"]);
    let alice = daemon.scratch().join("alice");
    fs::write(&alice, secret.rsplit(' ').next().unwrap()).unwrap();
    let begun = get(&daemon, "alice/photos/?tar", &[&secret]).expect(200);
    fs::write(folder.path().join("photos.tar"), &begun.body[..70_000]).unwrap();
    fs::write(folder.path().join("photos.etag"), format!("{}\n", begun.header("etag"))).unwrap();
    run_documented("folders.rs: archive", &daemon, &alice, folder.path());
    assert_same(&read_tree(&folder.path().join("photos")), &tree, "curl and tar");
    assert!(fs::read(folder.path().join("photos.tar")).unwrap() == begun.body);
    fs::remove_dir_all(folder.path().join("photos")).unwrap();
    run_documented("folders.rs: index", &daemon, &alice, folder.path());
    assert_same(&read_tree(&folder.path().join("photos")), &tree, "rclone");
    let mut mirror = read_tree(&folder.path().join("mirror"));
    // It keeps the pages, too.
    mirror.retain(|name, _| !name.ends_with("index.html"));
    assert_same(
        &mirror,
        &tree.into_iter().map(|(name, content)| (format!("photos/{name}"), content)).collect(),
        "wget",
    );
}

/// rclone, which is to end well.
#[track_caller]
fn rclone_does(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = rclone(&format!("{}/content/", daemon.url())).args(arguments).output().expect("tests/run installs it");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rclone_copies_a_folder_also_after_it_and_the_daemon_were_killed() {
    const BIG: u64 = 260 << 20;
    let mut daemon = Daemon::start();
    let mut tree = tree();
    push_tree(&daemon, "top/tree", &tree);
    // From 256 MiB on it reads four ranges at once.
    let big = data::file(&daemon.scratch(), "big.bin", 5, BIG);
    let mut push = programs::cli();
    push.args(["push", "--name", "top/tree/big.bin", "--url", daemon.url()]).arg(&big);
    assert!(push.output().unwrap().status.success());
    let to = daemon.scratch().join("to");
    let to = to.to_str().unwrap();
    let mut copying = rclone(&format!("{}/content/", daemon.url()));
    let slowly = ["copy", "--bwlimit", "60M", "--multi-thread-cutoff", "256M", ":http:top/tree/", to];
    let mut copying = copying.args(slowly).spawn().expect("tests/run installs it");
    eventually("much of it was sent", || sent(&daemon) > 100e6);
    kill_9(&mut copying);
    daemon.kill_9();
    daemon.run();
    rclone_does(&daemon, &["copy", "--multi-thread-cutoff", "256M", ":http:top/tree", to]);
    assert!(data::same(&big, Path::new(to).join("big.bin").as_path()));
    rclone_does(&daemon, &["check", "--download", ":http:top/tree/", to]);
    fs::remove_file(Path::new(to).join("big.bin")).unwrap();
    assert_same(&read_tree(Path::new(to)), &tree, "rclone");
    // A second copy finds all there, and reads no file.
    fs::remove_file(daemon.finished("top/tree/big.bin")).unwrap();
    let before = sent(&daemon);
    rclone_does(&daemon, &["sync", ":http:top/tree/", to]);
    assert!((sent(&daemon) - before).abs() < 1.0);
    // Single files, by their own addresses.
    let content = tree.remove("50%?#&+;=:@.bin").unwrap();
    let one = format!("{to}/one");
    let address = format!("{}/content/top/tree/50%25%3F%23%26%2B%3B%3D%3A%40.bin", daemon.url());
    rclone_does(&daemon, &["copyurl", &address, &one]);
    assert!(fs::read(&one).unwrap() == content);
    rclone_does(&daemon, &["copyto", ":http:top/tree/with space", &one]);
    assert!(fs::read(&one).unwrap() == tree["with space"]);
    let listed = rclone_does(&daemon, &["lsf", "-R", "--files-only", "--http-headers", "Accept,text/html", ":http:"]);
    assert_eq!(listed.lines().count(), tree.len() + 1, "{listed}");
}

#[test]
fn chromium_follows_the_links_of_an_index_and_saves_files() {
    let daemon = Daemon::start();
    let (name, content) = ("50%?#&+;=:@ 文.bin", data::bytes(1, 3_000_000));
    store(&daemon, &format!("top/in <b>/{name}"), &content);
    let downloads = tempfile::tempdir().unwrap();
    let profile = Profile::new();
    let mut browser = profile.driven(&format!("{}/content/", daemon.url()), downloads.path());
    browser.follow("top/");
    browser.follow("in <b>/");
    browser.follow(name);
    // Its own rules for names of saved files are not ours.
    let saved = || fs::read_dir(downloads.path()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    eventually("the file is saved", || saved().iter().any(|path| fs::read(path).is_ok_and(|is| is == content)));
    let whole = get(&daemon, "top/?tar", &[]).expect(200).body;
    browser.value("location = '../?tar'");
    eventually("the archive is saved", || fs::read(downloads.path().join("top.tar")).is_ok_and(|is| is == whole));
}

/// Fetches content from a page of another origin: whole and in parts, as the query says.
const FETCH: &str = "
const asked = new URLSearchParams(location.search);
const fetched = async headers => {
    const response = await fetch(asked.get('content'), {headers: {Authorization: `Bearer ${asked.get('token')}`, ...headers}});
    const told = ['etag', 'content-range', 'content-length', 'accept-ranges'].map(name => response.headers.get(name));
    const bytes = new Uint8Array(await response.arrayBuffer());
    return {status: response.status, told, length: bytes.length, first: bytes[0], last: bytes.at(-1)};
};
try {
    const whole = await fetched({});
    const etag = whole.told[0];
    const all = [whole];
    for (const headers of [{Range: 'bytes=1000-1999'}, {Range: 'bytes=-10'}, {Range: 'bytes=5-', 'If-Range': etag},
            {Range: 'bytes=5-', 'If-Range': '\"other\"'}, {'If-None-Match': '\"other\"'}, {Range: 'bytes=0-0, 9-9'}]) {
        all.push(await fetched(headers));
    }
    tell(JSON.stringify(all));
} catch (e) { tell(`${e}`); }
";

#[test]
fn chromium_fetches_parts_of_files_and_archives() {
    let site = Site::start(FETCH);
    let daemon = Daemon::with(&["--allowed-origins", &format!("http://localhost:{}", site.port)]);
    push(&daemon, "d/f", &data::bytes(1, 100_000));
    let secret = token(&daemon, "reader", &["--permissions", "read"]);
    for target in ["d/f", "d/?tar"] {
        let whole = get(&daemon, target, &[&secret]).expect(200);
        let (size, etag) = (whole.body.len(), whole.header("etag"));
        let content = encoded(&format!("{}/content/{target}", daemon.url()));
        let query = format!("content={content}&token={}", secret.rsplit(' ').next().unwrap());
        let told = site.told_at("localhost", &query);
        let told: Vec<serde_json::Value> = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
        let part = |first: usize, last: usize| {
            serde_json::json!({"status": 206, "length": last - first + 1, "first": whole.body[first], "last": whole.body[last],
                "told": [etag, format!("bytes {first}-{last}/{size}"), (last - first + 1).to_string(), "bytes"]})
        };
        let all = serde_json::json!({"status": 200, "length": size, "first": whole.body[0], "last": whole.body[size - 1],
            "told": [etag, null, size.to_string(), "bytes"]});
        let expected =
            [all.clone(), part(1000, 1999), part(size - 10, size - 1), part(5, size - 1), all.clone(), all.clone()];
        assert_eq!(told[..6], expected, "{target}");
        assert_eq!(told[6]["status"], 206);
    }
}

#[test]
fn batches_of_an_archive_are_listed_again_and_compared() {
    const FILES: u64 = 600;
    let daemon = Daemon::start();
    // Long names make small batches: of 230 files here.
    let long = "x".repeat(240);
    let name = |number: u64| format!("d/{long}/{long}/{long}/{number:04}{long}");
    for number in 0..FILES {
        let content = data::bytes(number, 30_000);
        let query = format!("file_name={}&slice_id=0&slice_num=1&slice_size=30000", encoded(&name(number)));
        daemon.server().post(&query, &content).expect(200);
    }
    eventually("all digests are certain", || get(&daemon, "d/?tar", &[]).header("accept-ranges") == "bytes");
    let whole = get(&daemon, "d/?tar", &[]).expect(200);
    let mut dice = data::Dice::new(11);
    for _ in 0..60 {
        let first = dice.below(whole.body.len() as u64) as usize;
        let last = (first + dice.below(400_000) as usize).min(whole.body.len() - 1);
        let reply = get(&daemon, "d/?tar", &[&format!("Range: bytes={first}-{last}")]).expect(206);
        assert!(reply.body == whole.body[first..=last], "{first}-{last}");
    }
    // From the end to the beginning.
    let size = whole.body.len();
    let ranges = format!("Range: bytes={}-{},10-4000", size - 9000, size - 1);
    assert_eq!(parts(&get(&daemon, "d/?tar", &[&ranges]).expect(206), "application/x-tar").len(), 2);
    let reading = begun(&daemon, "d/?tar", "");
    put(&daemon, &format!("{}-new", name(FILES - 2)), b"new");
    let reply = rest(reading);
    assert!(reply.body.len() < size && reply.body == whole.body[..reply.body.len()], "{}", reply.body.len());
    let log = "d/: its download breaks off: d/ changed since the archive was begun";
    eventually("the log says so", || daemon.log().contains(log));
}
