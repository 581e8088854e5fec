//! Parts of the page without a browser, run by node: its digests, the meaning of responses, delays, and the words.

use bigup_core::protocol::digest::of_bytes;
use bigup_tests::{clients, docs};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

fn results() -> Value {
    let mut command = clients::node("page/engine.mjs");
    let output = command.arg(docs::root().join("bigupd/web")).output().expect("node can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn input(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn digests_are_those_of_the_blake3_crate_with_webassembly_and_without() {
    let results = results();
    assert_eq!(results["isWasm"], true, "the module runs, and without it the plain way does");
    for way in ["wasm", "plain"] {
        let hashes = results[way].as_object().unwrap();
        assert!(hashes.len() > 15);
        for (len, hash) in hashes {
            assert_eq!(hash, &of_bytes(&input(len.parse().unwrap())).to_string(), "{way}: {len} bytes");
        }
    }
    for way in ["joinsWasm", "joinsPlain"] {
        let joined = results[way].as_array().unwrap();
        assert!(joined.len() > 3);
        for pair in joined {
            let len = pair[0].as_u64().unwrap() as usize;
            assert_eq!(pair[1], of_bytes(&input(len)).to_string(), "{way}: {len} bytes");
        }
    }
}

/// Codes in the table of docs/http.md.
fn documented_codes() -> BTreeSet<String> {
    let text = std::fs::read_to_string(docs::root().join("docs/http.md")).unwrap();
    let table = text.split("## Statuses").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.skip(1).map(|row| row.split('|').nth(2).unwrap().to_owned());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_error_code_has_a_course_and_words_in_every_language() {
    let results = results();
    let codes: BTreeSet<String> = serde_json::from_value(results["codes"].clone()).unwrap();
    let documented = documented_codes();
    assert!(documented.len() > 15, "{documented:?}");
    assert_eq!(codes, documented);
    let english = &results["languages"]["en"];
    for (language, keys) in results["languages"].as_object().unwrap() {
        assert_eq!(keys, english, "{language} has other words");
        for code in &codes {
            // A state has the words of these two codes.
            let key = match code.as_str() {
                "cancelled" => "cancelled_by",
                "paused" => "server_paused",
                code => code,
            };
            assert!(keys.as_array().unwrap().contains(&key.into()), "{language}: {code}");
        }
    }
    assert_eq!(results["chosen"], json!(["de", "zh", "de", "en", "en"]));
}

#[test]
fn responses_mean_what_the_document_says() {
    let expected = json!({
        "stored": null, "pageOfAPortal": "temporary", "redirect": "temporary", "none": "temporary",
        "proxyLimit": "smaller", "quota": "final", "full": "disk", "fullForAMoment": "temporary", "newCode": "final",
        "gateway": "temporary", "prototype": "final",
    });
    assert_eq!(results()["courses"], expected);
}

#[test]
fn delays_double_and_end_after_ten_minutes_of_failures() {
    let results = results();
    let backoff = &results["backoff"];
    assert_eq!(backoff["first"], json!([200, 400, 800, 1600, 3200, 6400, 10000, 10000]));
    assert_eq!(backoff["asked"], 30000);
    assert_eq!(backoff["afterSleep"], false, "a machine that slept did not try");
    assert_eq!((&backoff["isPatient"], &backoff["isOverAfterProgress"]), (&true.into(), &false.into()));
}

#[test]
fn connections_rates_and_cuts_fit_the_line() {
    let results = results();
    // Six are used where six help, and few where one does as well.
    let tuned = &results["tuned"];
    assert!(tuned[3]["least"].as_u64().unwrap() >= 5 && tuned[0]["most"].as_u64().unwrap() <= 4, "{tuned}");
    let limited = results["limited"].as_f64().unwrap();
    assert!((950_000.0..1_050_000.0).contains(&limited), "{limited}");
    let rate = results["metered"]["rate"].as_f64().unwrap();
    assert!((900_000.0..1_100_000.0).contains(&rate), "{rate}");
    for size in results["sizes"].as_array().unwrap() {
        assert!(size[1] == true && size[2].as_u64().unwrap() <= 200_000, "{size}");
    }
    assert_eq!(results["slow"], 256 << 10);
    assert_eq!(results["limited_slices"], json!([256 << 10, 1 << 20, 2 << 20, 8 << 20]), "a second of the limit");
    let numbered = &results["numbered"];
    assert_eq!(numbered[0], "a/b (1).txt");
    assert_eq!((&numbered[1], &numbered[2], &numbered[3]), (&"x (2)".into(), &".rc (3)".into(), &"a/.rc (1)".into()));
    let long = numbered[4].as_str().unwrap();
    assert!(long.len() - 2 <= 255 && long.ends_with("ä (10).txt"), "{long}");
    assert_eq!(results["usable"][0], json!([true, true, true, true]));
    assert_eq!(results["usable"][1], json!(vec![false; 10]));
    assert_eq!(results["readable"], "a⟨U+202E⟩txt.exe");
    assert_eq!(results["sources"], 5, "equal files have equal sources, and no others");
    let source = results["source"].as_str().unwrap();
    assert!(source.len() <= 128 && source.bytes().all(|byte| byte.is_ascii_graphic()), "{source}");
}

#[test]
fn a_rebuild_of_the_module_gives_the_same_bytes() {
    let build = docs::root().join("bigupd/web/blake3/build");
    let output = Command::new(build).arg("--check").output().expect("it is a script");
    let said = String::from_utf8_lossy(&output.stderr);
    // The source of the standard library is no part of a toolchain by default; then the digests above must do.
    if output.status.code() == Some(3) {
        println!("not compared: {said}");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
}
