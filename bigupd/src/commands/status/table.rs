//! A snapshot of uploads as a table: columns that are aligned, names last and cut to the width of a terminal.

use super::snapshot::{Snapshot, Totals, UploadRow};
use bigup_core::protocol::name::printable;
use bigup_core::protocol::units::show_size;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const HEADER: [&str; 8] = ["SIZE", "HELD", "MERGED", "RATE", "MERGER", "AGE", "IDLE", "NAME"];

/// Columns before the name.
const NUMBERS: usize = HEADER.len() - 1;

/// Least width of a name, in columns of a terminal, however narrow it is.
const SHORTEST_NAME: usize = 8;

/// Space between two columns.
const GAP: &str = "  ";

/// The table. If `width` is known, in columns of a terminal, names are cut to it and the remark on an upload has a line
/// of its own below; else each upload has one line, however long.
pub fn lines(look: &Snapshot, width: Option<usize>) -> Vec<String> {
    let numbers: Vec<[String; NUMBERS]> = look.uploads.iter().map(numbers).collect();
    let column = |i: usize| numbers.iter().map(|row| row[i].len()).chain([HEADER[i].len()]).max().unwrap_or(0);
    let widths: [usize; NUMBERS] = std::array::from_fn(column);
    let line = |cells: [&str; NUMBERS], rest: &str| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}{GAP}"));
        cells.collect::<String>() + rest
    };
    let taken = widths.iter().sum::<usize>() + NUMBERS * GAP.len();
    let name_width = width.map(|width| width.saturating_sub(taken).max(SHORTEST_NAME));
    let mut lines = vec![line(std::array::from_fn(|i| HEADER[i]), HEADER[NUMBERS])];
    for (row, upload) in numbers.iter().zip(&look.uploads) {
        let (name, note) = (printable(&upload.file_name), note(upload));
        let cells = std::array::from_fn(|i| row[i].as_str());
        match (name_width, note) {
            (None, None) => lines.push(line(cells, &name)),
            (None, Some(note)) => lines.push(line(cells, &format!("{name}{GAP}({note})"))),
            (Some(most), note) => {
                lines.push(line(cells, &cut(&name, most)));
                lines.extend(
                    note.map(|note| format!("{GAP}{}", cut(&note, width.unwrap_or(0).saturating_sub(GAP.len())))),
                );
            }
        }
    }
    lines.push(total(&look.total));
    lines.extend(look.unreadable.iter().map(|u| format!("tmp/{}: {}", printable(&u.folder), printable(&u.why))));
    lines
}

fn numbers(upload: &UploadRow) -> [String; NUMBERS] {
    let merger = match (upload.merger_pid, upload.merge_slice_process_exist) {
        (Some(pid), _) => pid.to_string(),
        (None, 1) => "at work".to_owned(),
        (None, _) if upload.merger_due => "waiting".to_owned(),
        (None, _) => "-".to_owned(),
    };
    [
        upload.file_size.map_or("?".to_owned(), size),
        thread_share(upload.bytes_held, upload.file_size),
        thread_share(upload.bytes_merged, upload.file_size),
        rate(upload.bytes_per_second),
        merger,
        time(upload.age_seconds),
        time(upload.idle_seconds),
    ]
}

/// The remark on an upload besides its numbers.
fn note(upload: &UploadRow) -> Option<String> {
    let paused = upload.paused.then(|| "paused".to_owned());
    let awaits = upload.awaits_end.then(|| "awaits its end".to_owned());
    let partial = upload.partial.then(|| match &upload.part_of {
        Some(name) => format!("part of {}", printable(name)),
        None => "part of a file".to_owned(),
    });
    let is = if upload.blocked { "cannot be finished" } else { "the merger stopped" };
    let why = upload.last_error.as_ref().map(|why| format!("{is}: {}", printable(why)));
    let notes: Vec<String> = paused.into_iter().chain(awaits).chain(partial).chain(why).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn total(total: &Totals) -> String {
    let Totals { uploads, file_size, bytes_held, bytes_merged, bytes_per_second, .. } = *total;
    let uploads = if uploads == 1 { "1 upload".to_owned() } else { format!("{uploads} uploads") };
    let rate = bytes_per_second.map(|_| format!(", {}", rate(bytes_per_second))).unwrap_or_default();
    format!("{uploads}, {}: {} held, {} merged{rate}", size(file_size), size(bytes_held), size(bytes_merged))
}

/// Bytes in at most five characters: `1023`, `8.00M`.
fn size(bytes: u64) -> String {
    show_size(bytes).trim_end_matches("iB").trim_end_matches(" B").replace(' ', "")
}

/// Bytes and how much of all of them that is, in full percents: 100 stands for all.
fn thread_share(bytes: u64, all: Option<u64>) -> String {
    let percent = all.map(|all| (u128::from(bytes) * 100).checked_div(u128::from(all)).unwrap_or(100).min(100));
    let percent = percent.map_or("-".to_owned(), |percent| format!("{percent}%"));
    format!("{} {percent:>4}", size(bytes))
}

fn rate(bytes_per_second: Option<u64>) -> String {
    bytes_per_second.map_or("-".to_owned(), |rate| format!("{}/s", size(rate)))
}

/// Seconds in the largest unit that fits: `59s`, `59m`, `23h`, `7d`.
fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text cut in its middle to so many columns of a terminal, where it has more: both ends of a name tell it from others.
fn cut(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let space = most.saturating_sub(1);
    let fitting = |chars: &mut dyn Iterator<Item = char>, space: usize| -> Vec<char> {
        let mut left = space;
        let fits = |c: &char| left.checked_sub(c.width().unwrap_or(0)).map(|rest| left = rest).is_some();
        chars.take_while(fits).collect()
    };
    let head: String = fitting(&mut text.chars(), space.div_ceil(2)).into_iter().collect();
    let tail: String = fitting(&mut text.chars().rev(), space / 2).into_iter().rev().collect();
    // A mark whose letter is gone would join another letter.
    let tail = tail.trim_start_matches(|c: char| c.width() == Some(0));
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(name: &str) -> UploadRow {
        UploadRow {
            file_name: name.to_owned(),
            file_size: Some(8 << 30),
            bytes_held: (8 << 30) - 1,
            bytes_merged: 4 << 30,
            bytes_per_second: Some(99 << 20),
            merge_slice_process_exist: 1,
            merger_pid: Some(4711),
            age_seconds: 3600,
            idle_seconds: 5,
            ..UploadRow::default()
        }
    }

    #[test]
    fn columns_are_aligned_and_each_upload_has_one_line_where_there_is_no_terminal() {
        let new = UploadRow { file_name: "new".to_owned(), paused: true, awaits_end: true, ..UploadRow::default() };
        let part =
            UploadRow { file_name: "7f".to_owned(), partial: true, part_of: Some("b".to_owned()), ..new.clone() };
        let part = UploadRow { paused: false, awaits_end: false, ..part };
        let blocked = UploadRow {
            last_error: Some("it\nexists".to_owned()),
            blocked: true,
            merger_due: true,
            ..upload("a\u{1b}[31m")
        };
        assert_eq!(
            lines(&Snapshot::of(vec![blocked, upload("b"), new, part]), None),
            [
                " SIZE        HELD      MERGED     RATE  MERGER  AGE  IDLE  NAME",
                "8.00G  8.00G  99%  4.00G  50%  99.0M/s    4711   1h    5s  a\\u{1b}[31m  (cannot be finished: it\\u{a}exists)",
                "8.00G  8.00G  99%  4.00G  50%  99.0M/s    4711   1h    5s  b",
                "    ?      0    -      0    -        -       -   0s    0s  new  (paused; awaits its end)",
                "    ?      0    -      0    -        -       -   0s    0s  7f  (part of b)",
                "3 uploads, 16.0G: 16.0G held, 8.00G merged",
            ]
        );
    }

    #[test]
    fn a_table_fits_its_terminal_whatever_names_are() {
        let long = format!("folder/{}/the end.bin", "x".repeat(300));
        let note = UploadRow { last_error: Some("y".repeat(300)), ..upload(&"文".repeat(200)) };
        let look = Snapshot::of(vec![upload(&long), note, upload("short")]);
        for width in [80, 100, 200] {
            let lines = lines(&look, Some(width));
            assert!(lines.iter().all(|line| line.width() <= width), "{width}: {lines:#?}");
            assert!(lines[1].ends_with("end.bin") && lines[1].contains("  folder"), "{}", lines[1]);
            assert!(lines[3].starts_with("  the merger stopped: y"), "{}", lines[3]);
            assert!(lines[4].ends_with("  short"));
        }
        assert!(lines(&look, Some(1))[4].ends_with("  short"), "however narrow");
    }

    #[test]
    fn text_is_cut_in_its_middle() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc…fg");
        assert_eq!(cut("文文文文", 8), "文文文文");
        assert_eq!(cut("文文文文", 7), "文…文");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…", "a mark stays with its letter");
        assert_eq!(cut("abc", 0), "…");
    }

    #[test]
    fn shares_are_full_percents() {
        assert_eq!(thread_share(0, Some(0)), "0 100%");
        assert_eq!(thread_share(999, Some(1000)), "999  99%");
        assert_eq!(thread_share(1000, Some(1000)), "1000 100%");
        assert_eq!(thread_share(u64::MAX, None), "16.0E    -");
    }

    #[test]
    fn times_are_told_in_the_largest_unit() {
        assert_eq!([0, 59, 60, 3599, 3600, 86_399, 86_400].map(time), ["0s", "59s", "1m", "59m", "1h", "23h", "1d"]);
    }
}
