//! The page for browsers, in Firefox: choosing, dropping, and going on after a reload.
//!
//! Needs node and Firefox (`firefox-esr`).

use bigup_tests::daemon::Daemon;
use bigup_tests::process::eventually;
use bigup_tests::visitor::Visitor;
use bigup_tests::{data, turns};
use serde_json::json;

const MIB: u64 = 1 << 20;

#[test]
fn firefox_sends_by_choice_and_by_drop_and_goes_on_after_a_reload() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = |name: &str, len: u64| data::file(&daemon.scratch(), name, len, len);
    let (small, slices, dropped, resumed) =
        (file("small", 1000), file("slices", 20 * MIB + 1), file("dropped", 3 * MIB), file("resumed", 64 * MIB));
    let mut visitor = Visitor::in_firefox();
    visitor.open(daemon.url());
    visitor.choose(&[&small, &slices]);
    visitor.until_verified(2);
    visitor.drop_files(&[&dropped]);
    visitor.until_verified(3);
    for (file, name) in [(&small, "small"), (&slices, "slices"), (&dropped, "dropped")] {
        assert!(data::same(file, &daemon.finished(name)), "{name} arrived differently");
    }
    visitor.click("#clear");
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "2"}));
    visitor.choose(&[&resumed]);
    let held = || daemon.server().get("peek=1&file_name=resumed").held().len();
    eventually("some slices are held", || held() >= 2);
    visitor.ask(&json!({"do": "reload"}));
    visitor.until("#list .row[data-state=missing]");
    visitor.choose(&[&resumed]);
    visitor.until_verified(1);
    assert_eq!(visitor.text("#list .digest"), data::digest(&resumed));
    assert!(data::same(&resumed, &daemon.finished("resumed")));
    visitor.assert_clean();
}
