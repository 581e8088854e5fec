//! What operators give the daemon. The bytes are its configuration file, a file of certificates and keys, and tokens.json.

use bigup_core::pem::{certificates, private_key};
use bigup_core::protocol::plan::MAX_SLICES;
use bigup_core::protocol::units::MIB;
use bigup_core::storage::data_dir::DataDir;
use bigupd::admission::tokens::{Tokens, check_name};
use bigupd::cli::Arguments;
use bigupd::net::tls::Tls;
use bigupd::net::tls::TlsFiles;
use clap::Parser;
use std::path::Path;
use std::time::Duration;

/// Checks a file of an operator's.
///
/// # Panics
/// What was accepted is nonsense, what was refused is not told, a flag does not win over the file, or tokens change.
pub fn check(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let path = dir.path().join("bigupd.ini");
    std::fs::write(&path, data).expect("the file can be written");
    let path = path.to_str().expect("temporary folders have plain names");
    check_pem(Path::new(path));
    check_tokens(data, dir.path());
    let settle = |more: &[&str]| {
        let line = [&["bigupd", "--config", path], more].concat();
        Arguments::try_parse_from(line).expect("the command line is right").settle(&|_| None)
    };
    let (config, _) = match settle(&[]) {
        Ok(settled) => settled,
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.is_empty()));
            return;
        }
    };
    assert!(!config.data_dir.as_os_str().is_empty());
    let (limits, uploads) = (&config.limits, &config.uploads);
    assert!(uploads.slice_size >= MIB && (1..=MAX_SLICES).contains(&uploads.slices), "{uploads:?}");
    let times = [limits.header_timeout, limits.idle_timeout, limits.body_timeout];
    assert!(times.iter().all(|time| !time.is_zero()), "{limits:?}");
    assert!(limits.connections > 0 && uploads.number > 0 && config.mergers.most > 0, "{config:?}");
    assert_ne!(config.expire_after, Some(Duration::ZERO));
    let flags = ["--data-dir", "/flag", "--merger-idle", "7s", "--listen", "127.0.0.1:7"];
    let (flagged, _) = settle(&flags).expect("right flags do not make a right file wrong");
    assert_eq!(flagged.data_dir.to_str(), Some("/flag"));
    assert_eq!((flagged.mergers.idle, flagged.listen.to_string().as_str()), (Duration::from_secs(7), "127.0.0.1:7"));
    assert_eq!((&flagged.limits, &flagged.uploads), (limits, uploads), "what has no flag stays");
}

fn check_pem(path: &Path) {
    let named = |why: String| assert!(why.contains("bigupd.ini"), "{why}");
    match certificates(path) {
        Ok(found) => assert!(!found.is_empty()),
        Err(why) => named(why.to_string()),
    }
    let _ = private_key(path).map_err(|why| named(why.to_string()));
    let files = TlsFiles {
        cert: path.to_owned(),
        key: path.to_owned(),
        client_ca: Some(path.to_owned()),
        client_crl: Some(path.to_owned()),
    };
    if let Err(mistakes) = Tls::load(&files) {
        assert!(!mistakes.is_empty());
    }
}

fn check_tokens(bytes: &[u8], folder: &Path) {
    let data = DataDir::create(&folder.join("data")).expect("a data folder can be made");
    std::fs::write(data.tokens_json(), bytes).expect("it can be written");
    let Ok(Some(tokens)) = Tokens::read(&data) else { return };
    for token in tokens.iter() {
        assert_eq!(check_name(&token.name), Ok(()));
        crate::name::assert_harmless(&token.name);
    }
    Tokens::update(&data, |_| Ok(())).expect("it can be written");
    assert_eq!(Tokens::read(&data).expect("it can be read"), Some(tokens));
}
