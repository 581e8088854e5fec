//! A store of three servers (SeaweedFS), one of which dies in the middle of pushes: all files become objects.

use bigup_core::protocol::name::FileName;
use bigup_tests::daemon::Daemon;
use bigup_tests::process::{eventually, within};
use bigup_tests::seaweed::{Cluster, write_credentials};
use bigup_tests::{data, programs};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Time in which the master takes the dead server's volumes out, and mergers try again.
const NOTICED: Duration = Duration::from_secs(180);

fn push(url: &str, file: &Path) -> Child {
    let mut push = programs::cli();
    push.args(["push", "--json", "--slice-size", "1M", "--limit-rate", "8M", "--url", url]).arg(file);
    push.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the client can be started")
}

#[test]
fn a_server_of_the_store_dies_and_all_files_become_objects() {
    let (mut cluster, folder) = (Cluster::start_in(tempfile::tempdir().unwrap()), tempfile::tempdir().unwrap());
    cluster.seaweed.make_bucket("servers");
    let credentials = folder.path().join("credentials");
    write_credentials(&credentials, true);
    let options = [
        "--store=s3://servers/p".to_owned(),
        format!("--s3-endpoint={}", cluster.seaweed.endpoint()),
        format!("--s3-credentials-file={}", credentials.display()),
        "--reserve=0".to_owned(),
        "--merger-idle=2s".to_owned(),
    ];
    let daemon = Daemon::with(&options.each_ref().map(String::as_str));
    let objects = cluster.seaweed.objects("servers", &credentials);
    let files: Vec<PathBuf> = (0..4).map(|i| data::file(folder.path(), &format!("f{i}"), i, 48 * MIB + i)).collect();
    let mut pushes: Vec<Child> = files.iter().map(|file| push(daemon.url(), file)).collect();
    eventually("parts are in the store", || objects.unfinished().unwrap().len() == files.len());
    cluster.kill(1);
    within(NOTICED, "the pushes end with two servers", || {
        pushes.iter_mut().all(|push| push.try_wait().unwrap().is_some())
    });
    for (file, push) in files.iter().zip(&mut pushes) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(push.wait().unwrap().success(), "{name}");
        let found = objects.find(&FileName::new(name).unwrap()).unwrap().expect("the object is there");
        assert_eq!(found.facts.expect("they are noted").digest.to_string(), data::digest(file));
        let mut response = ureq::get(format!("{}/content/{name}", daemon.url())).call().unwrap();
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut response.body_mut().as_reader(), &mut hasher).unwrap();
        assert_eq!(hasher.finalize().to_string(), data::digest(file), "{name} is not exact");
    }
    daemon.eventually_clean();
    assert_eq!(objects.unfinished().unwrap(), Vec::<String>::new(), "uploads of parts are left");
}
