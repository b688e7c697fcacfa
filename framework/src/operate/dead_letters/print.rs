//! Prints dead letters in a shell.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::operate::dead_letters::filter::DeadFilter;
use crate::operate::dead_letters::letter::DeadLetter;
use crate::operate::dead_letters::queues::DeadLetters;
use crate::operate::output;
use crate::operate::printable::{cut, json_line, one_line};

/// The most characters of an error in a table row.
const SHOWN_ERROR: usize = 70;

/// Prints letters as they arrive.
pub(super) async fn list(letters: &DeadLetters, filter: &DeadFilter, as_json: bool) -> Result<(), String> {
    let mut head = Some(
        "LETTER        ID                                      AGE  KEY                      REASON       TRY  ERROR",
    );
    let listed = letters.each(filter, |letter| {
        if as_json {
            output::line(json_line(&letter.to_json()));
        } else {
            if let Some(head) = head.take() {
                output::line(format_args!("{head}"));
            }
            output::line(row(&letter));
        }
        ControlFlow::Continue(())
    });
    let listed = listed.await.map_err(|error| error.to_string())?;
    if listed == 0 && !as_json {
        output::line(format_args!("no dead letters"));
    }
    Ok(())
}

/// One row of the table.
pub(super) fn row(letter: &DeadLetter) -> String {
    let age = letter.at().and_then(|at| SystemTime::now().duration_since(at).ok()).map_or("?".into(), age);
    let reason = letter.reason_and_code();
    let (id, key, reason) = (one_line(letter.id()), one_line(letter.key()), one_line(&reason));
    let (address, error, attempts) = (letter.address(), cut(letter.error(), SHOWN_ERROR), letter.attempts());
    let row = format!("{address:<12}  {id:<36}  {age:>5}  {key:<24} {reason:<12} {attempts:>3}  {error}");
    row.trim_end().to_owned()
}

/// Prints the number of letters by queue, key and reason.
pub(super) async fn count(letters: &DeadLetters, filter: &DeadFilter, as_json: bool) -> Result<(), String> {
    let mut counts: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    let counted = letters.each(filter, |letter| {
        let of = (letter.queue.clone(), letter.key().to_owned(), letter.reason().to_owned());
        *counts.entry(of).or_default() += 1;
        ControlFlow::Continue(())
    });
    let counted = counted.await;
    for ((queue, key, reason), count) in &counts {
        if as_json {
            let line = serde_json::json!({ "count": count, "queue": queue, "key": key, "reason": reason });
            output::line(json_line(&line));
        } else {
            output::line(format_args!("{count:>8}  {}  {}  {}", one_line(queue), one_line(key), one_line(reason)));
        }
    }
    counted.map(drop).map_err(|error| error.to_string())
}

/// Prints letters as JSON, or writes them into a file.
pub(super) async fn export(letters: &DeadLetters, filter: &DeadFilter, file: Option<PathBuf>) -> Result<(), String> {
    let Some(file) = file else { return list(letters, filter, true).await };
    let problem = |error: std::io::Error| format!("--file {}: {error}", file.display());
    let mut writer = BufWriter::new(std::fs::File::create(&file).map_err(problem)?);
    let mut written = Ok(());
    let exported = letters.each(filter, |letter| {
        written = writeln!(writer, "{}", json_line(&letter.to_json()));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let exported = exported.await;
    written.and_then(|()| writer.flush()).map_err(problem)?;
    output::line(format_args!("exported {}", exported.map_err(|error| error.to_string())?));
    Ok(())
}

/// An age in its largest unit.
pub(in crate::operate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
