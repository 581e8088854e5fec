//! The page as other visitors have it: by keys alone, on a phone that would sleep, on a slow line, with very many files.

use bigup_tests::daemon::Daemon;
use bigup_tests::process::eventually;
use bigup_tests::visitor::Visitor;
use bigup_tests::{data, turns};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// Stands in for the system, which a headless browser has no screen of: `held` counts locks, `lose` takes them as a hidden page
/// loses them.
const SCREEN: &str = "
const screen = { held: 0, asked: 0, locks: [] };
globalThis.screenOfTest = screen;
Object.defineProperty(Navigator.prototype, 'wakeLock', { configurable: true, value: {
  async request() {
    screen.asked += 1;
    screen.held += 1;
    const lock = new EventTarget();
    lock.release = async () => {
      if (lock.isOver) return;
      lock.isOver = true;
      screen.held -= 1;
      lock.dispatchEvent(new Event('release'));
    };
    screen.locks.push(lock);
    return lock;
  },
} });
";

fn press(visitor: &mut Visitor, key: &str) {
    visitor.ask(&json!({"do": "press", "key": key}));
}

/// Presses a key until the focus is at what the selector names.
fn press_up_to(visitor: &mut Visitor, key: &str, selector: &str) {
    let is_there = format!("document.activeElement.matches({})", json!(selector));
    for _ in 0..40 {
        if visitor.run(&is_there) == true {
            return;
        }
        press(visitor, key);
    }
    panic!("40 times {key} do not lead to {selector}: {}", visitor.run("document.activeElement.outerHTML"));
}

fn screen(visitor: &mut Visitor, field: &str) -> u64 {
    visitor.run(&format!("screenOfTest.{field}")).as_u64().unwrap()
}

#[test]
fn files_are_chosen_paused_resumed_and_found_by_keys_alone() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "by keys", 7, 64 * MIB);
    let mut visitor = Visitor::new();
    // As in Firefox: the other chooser, of handles, is the system's own and opens nowhere here.
    visitor.ask(&json!({"do": "before", "script": "delete globalThis.showOpenFilePicker"}));
    visitor.open(daemon.url());
    press_up_to(&mut visitor, "Tab", "#limit");
    // Of the rates to choose from it is 1 MiB per second.
    for _ in 0..3 {
        press(&mut visitor, "ArrowDown");
    }
    assert_eq!(visitor.run("document.activeElement.value"), "1");
    press_up_to(&mut visitor, "Shift+Tab", "#choose-files");
    visitor.ask(&json!({"do": "choose_by_key", "key": "Enter", "files": [file]}));
    visitor.until("#list .row[data-state=active] .facts:text-matches('left')");
    press_up_to(&mut visitor, "Tab", "button[aria-label='Pause: by keys']");
    press(&mut visitor, "Space");
    visitor.until("#list .row[data-state=paused]");
    // The button is gone, and the focus is at the one in its place.
    eventually("the focus is at Resume", || {
        visitor.run("document.activeElement.getAttribute('aria-label')") == "Resume: by keys"
    });
    press_up_to(&mut visitor, "Shift+Tab", "#limit");
    press(&mut visitor, "Home");
    press_up_to(&mut visitor, "Tab", "button[aria-label='Resume: by keys']");
    press(&mut visitor, "Enter");
    visitor.until_verified(1);
    assert!(data::same(&file, &daemon.finished("by keys")));
    press_up_to(&mut visitor, "Tab", "button[aria-label='Copy digest: by keys']");
    press(&mut visitor, "Enter");
    visitor.until("#live:has-text('Copied')");
    assert_eq!(visitor.run("document.activeElement.getAttribute('aria-label')"), "Copy digest: by keys");
    press_up_to(&mut visitor, "Shift+Tab", "#tab-files");
    press(&mut visitor, "Enter");
    visitor.until("#files-list .row:has-text('by keys')");
    press_up_to(&mut visitor, "Tab", "#search");
    "nothing".chars().for_each(|key| press(&mut visitor, &key.to_string()));
    visitor.until("#files-note:has-text('No name has this in it')");
    visitor.assert_clean();
}

#[test]
fn the_screen_stays_on_while_something_is_sent() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "long", 8, 64 * MIB);
    let mut visitor = Visitor::new();
    visitor.ask(&json!({"do": "before", "script": SCREEN}));
    visitor.open(daemon.url());
    assert_eq!(screen(&mut visitor, "asked"), 0);
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "2"}));
    visitor.choose(&[&file]);
    visitor.until("#list .row[data-state=active] .facts:text-matches('left')");
    // Once for the whole upload, not for each slice.
    assert_eq!((screen(&mut visitor, "held"), screen(&mut visitor, "asked")), (1, 1));
    // The page was hidden, where browsers take it, and is seen again.
    visitor.run("screenOfTest.locks[0].release()");
    assert_eq!(screen(&mut visitor, "held"), 0);
    visitor.run("document.dispatchEvent(new Event('visibilitychange'))");
    eventually("it is held again", || screen(&mut visitor, "held") == 1);
    visitor.click("button[aria-label='Pause: long']");
    eventually("a pause lets the screen go off", || screen(&mut visitor, "held") == 0);
    visitor.ask(&json!({"do": "select", "at": "#limit", "value": "0"}));
    visitor.click("button[aria-label='Resume: long']");
    visitor.until_verified(1);
    eventually("the end lets the screen go off", || screen(&mut visitor, "held") == 0);
    assert!(data::same(&file, &daemon.finished("long")));
    visitor.assert_clean();
}

#[test]
fn on_a_slow_line_the_rate_is_told_and_the_file_is_exact() {
    let _turn = turns::turn();
    let daemon = Daemon::start();
    let file = data::file(&daemon.scratch(), "slow", 9, 6 * MIB);
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.ask(&json!({"do": "line", "latency": 300, "rate": MIB}));
    visitor.choose(&[&file]);
    // What the line carries, and no more, although requests are handed to the system much faster.
    visitor.until("#list .facts:text-matches('MiB of 6 MiB · ([0-9]{3} KiB|1(\\\\.[0-9]+)? MiB)/s · [0-9]+ s left')");
    visitor.until_verified(1);
    assert!(data::same(&file, &daemon.finished("slow")));
    visitor.assert_clean();
}

#[test]
fn of_ten_thousand_files_few_rows_are_in_the_document() {
    let _turns = turns::all_turns();
    let daemon = Daemon::start();
    let folder = daemon.scratch().join("many");
    for number in 0..10_000_u64 {
        data::file(&folder.join(format!("part {}", number % 7)), &format!("{number}.bin"), number, 1 + number % 30);
    }
    let mut visitor = Visitor::new();
    visitor.open(daemon.url());
    visitor.drop_files(&[&folder]);
    visitor.until("#sum-detail:has-text('10000 files')");
    let rows = |visitor: &mut Visitor| visitor.ask(&json!({"do": "count", "at": "#list .row"})).as_u64().unwrap();
    assert!(rows(&mut visitor) < 60);
    visitor.until("#uploads-title:has-text('All files are verified')");
    assert!(rows(&mut visitor) < 60);
    for number in [0, 1, 777, 9999] {
        let name = format!("part {}/{number}.bin", number % 7);
        assert!(data::same(&folder.join(&name), &daemon.finished(&format!("many/{name}"))), "{name}");
    }
    assert_eq!(visitor.ask(&json!({"do": "faults"})), Value::Array(Vec::new()));
}
