//! What a backup and a restore did, for people.

use super::{at, dimmed, lines, span, table};
use crate::backup::{BackedUp, Copied, Restored};
use comfy_table::{Cell, CellAlignment};
use std::time::Duration;

/// What a backup holds.
pub(crate) fn backed_up(answer: &BackedUp) -> String {
    let mut text = parts(&answer.parts);
    text += &format!(
        "{} holds what was acknowledged before {}; it took {}\n",
        answer.file.display(),
        at(answer.began),
        span(answer.ended.since(answer.began))
    );
    for stream in &answer.left_to_you {
        text += &format!(
            "{stream} triggers sagas and is yours: `nats stream backup {stream} DIRECTORY` copies it\n"
        );
    }
    text
}

/// What a restore brought back.
pub(crate) fn restored(answer: &Restored) -> String {
    let mut text = parts(&answer.parts);
    text += &format!(
        "the installation stands as it stood at {}; now start its coordinators\n",
        at(answer.began)
    );
    text += &format!(
        "messages are kept {} longer than before, as old as the backup is: `nats stream edit \
         --max-age` sets that back when all sagas have gone on\n",
        span(Duration::from_secs(answer.longer_kept_s))
    );
    text
}

fn parts(parts: &[Copied]) -> String {
    let mut table = table(&["STREAM", "MESSAGES", "BYTES"]);
    for part in parts {
        let number = |number: u64| Cell::new(number).set_alignment(CellAlignment::Right);
        table.add_row([
            dimmed(&part.stream),
            number(part.messages),
            number(part.bytes),
        ]);
    }
    lines(&table)
}
