//! The command `status`.

use crate::cli::advice;
use crate::cli::args::StatusArgs;
use crate::cli::print::{eprint_line, print_json, print_line};
use crate::client::Client;
use bigup_core::protocol::name::{FileName, printable};
use bigup_core::protocol::native::{ListResponse, UploadResponse, UploadStatus};
use bigup_core::protocol::units::show_size;

/// Shows all unfinished uploads, or one name; false where the server does not know the name.
///
/// # Errors
/// The name cannot be used, or the server does not answer.
pub fn run(args: &StatusArgs) -> anyhow::Result<bool> {
    let client = args.server.client()?;
    match &args.name {
        Some(name) => one(&client, &FileName::new(name)?, args.json),
        None => all(&client, args.json).map(|()| true),
    }
}

fn all(client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.uploads_json().map_err(advice::failed_call)?;
    if json {
        print_json(&answer);
        return Ok(());
    }
    let list: ListResponse = client.read_as(answer).map_err(advice::failed_call)?;
    if list.uploads.is_empty() {
        eprint_line("no unfinished uploads");
        return Ok(());
    }
    table(&list.uploads).iter().for_each(|line| print_line(line));
    Ok(())
}

fn one(client: &Client, name: &FileName, json: bool) -> anyhow::Result<bool> {
    let Some(answer) = client.status_json(name).map_err(advice::failed_call)? else {
        eprint_line(&format!("{name}: the server knows no such file, finished or not"));
        return Ok(false);
    };
    if json {
        print_json(&answer);
    } else {
        describe(name, &client.read_as(answer).map_err(advice::failed_call)?).iter().for_each(|line| print_line(line));
    }
    Ok(true)
}

/// The state of a file, in lines.
fn describe(name: &FileName, answer: &UploadResponse) -> Vec<String> {
    let size = answer.file_size.map_or("size not known".to_owned(), show_size);
    if answer.is_uploaded == 1 {
        let digest = answer.digest().map(|digest| format!("{digest}  {name}"));
        return [format!("{name}: finished, {size}")].into_iter().chain(digest).collect();
    }
    let held = of(answer.held().count(), answer.slice_num);
    let merged = answer.curr_merge_slice_id.unwrap_or(0);
    let paused = if answer.paused { ", paused" } else { "" };
    let line = format!("{name}: not finished, {size}, {held} slices held, {merged} merged{paused}");
    let why = answer.last_error.as_ref().map(|why| format!("the merger stopped: {}", printable(why)));
    [line].into_iter().chain(why).collect()
}

/// The uploads in aligned columns, names last: they may be of any length.
fn table(uploads: &[UploadStatus]) -> Vec<String> {
    let header = ["SIZE", "SLICES", "MERGED", "MERGER", "IDLE", "NAME"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(uploads.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}  "));
        cells.collect::<String>() + &row[5]
    };
    rows.iter().map(line).collect()
}

fn row(upload: &UploadStatus) -> [String; 6] {
    let paused = if upload.paused { "  (paused)" } else { "" };
    let why = upload.last_error.as_ref().map(|why| format!("  ({})", printable(why))).unwrap_or_default();
    [
        upload.file_size.map_or("?".to_owned(), show_size),
        of(upload.slices_held, upload.slice_num),
        upload.curr_merge_slice_id.to_string(),
        if upload.merge_slice_process_exist == 1 { "at work".to_owned() } else { "-".to_owned() },
        idle(upload.idle_seconds),
        printable(&upload.file_name) + paused + &why,
    ]
}

/// `37/128`, `37/?`.
fn of(held: u64, num: Option<u64>) -> String {
    format!("{held}/{}", num.map_or("?".to_owned(), |num| num.to_string()))
}

/// Seconds in the largest unit that fits.
fn idle(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_names_are_harmless() {
        let upload = |name: &str, held| UploadStatus {
            file_name: name.to_owned(),
            slices_held: held,
            slice_num: Some(128),
            idle_seconds: 61,
            last_error: Some("\u{1b}[2Jgone".to_owned()),
            ..UploadStatus::default()
        };
        let lines = table(&[upload("a\u{1b}[31m", 5), upload("b", 100)]);
        assert_eq!(lines[0], "SIZE   SLICES  MERGED  MERGER   IDLE  NAME");
        assert_eq!(lines[1], "   ?    5/128       0       -  1 min  a\\u{1b}[31m  (\\u{1b}[2Jgone)");
        assert_eq!(lines[2].find('b'), lines[1].find('a'));
    }

    #[test]
    fn idle_times_are_told_in_the_largest_unit() {
        let times = [0, 59, 60, 3599, 3600, 86_399, 86_400].map(idle);
        assert_eq!(times, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d"]);
    }
}
