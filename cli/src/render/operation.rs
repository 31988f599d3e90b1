//! How the installation stands, for people.

use super::{at, brief, cell, dimmed, lines, table};
use comfy_table::{Cell, Color};
use dirigent_contracts::api::{DeadLettersAnswer, LimitsAnswer, StatusAnswer};
use std::collections::BTreeMap;

/// Messages that could not be understood.
pub(crate) fn letters(answer: &DeadLettersAnswer) -> String {
    if answer.letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = table(&["NUMBER", "SINCE", "SUBJECT", "REASON", "BODY"]);
    for letter in &answer.letters {
        table.add_row([
            Cell::new(letter.number),
            dimmed(at(letter.at)),
            cell(&letter.subject),
            Cell::new(brief(&letter.reason, 100)).fg(Color::Red),
            dimmed(brief(&letter.body, 60)),
        ]);
    }
    let shown = answer.letters.len() as u64;
    let mut text = lines(&table);
    if shown < answer.total {
        text += &format!("{shown} of {}; --limit shows more\n", answer.total);
    }
    text
}

/// The limits of the installation.
pub(crate) fn limits(answer: &LimitsAnswer) -> String {
    let mut table = table(&["LIMIT", "VALUE", "DEFAULT", "UNIT", "BOUNDS"]);
    for limit in &answer.limits {
        let value = Cell::new(limit.value);
        let is_default = limit.value == limit.default;
        table.add_row([
            Cell::new(&limit.name),
            if is_default {
                value
            } else {
                value.fg(Color::Yellow)
            },
            dimmed(limit.default.to_string()),
            dimmed(limit.unit.clone()),
            Cell::new(&limit.what),
        ]);
    }
    lines(&table)
}

/// How the installation stands.
pub(crate) fn status(answer: &StatusAnswer) -> String {
    let mut owned: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (partition, owner) in answer.owners.iter().enumerate() {
        owned.entry(owner).or_default().push(partition.to_string());
    }
    let mut table = table(&[]);
    table.add_row(["broker", &format!("nats-server {}", answer.server)]);
    table.add_row(["durability", &answer.durability]);
    table.add_row(["dead letters", &answer.dead_letters.to_string()]);
    table.add_row(["partitions", &answer.partitions.to_string()]);
    for (owner, partitions) in owned {
        let numbers = format!("{}: {}", partitions.len(), partitions.join(" "));
        let owner = if owner.is_empty() {
            Cell::new("  nobody").fg(Color::Red)
        } else {
            cell(format!("  {owner}"))
        };
        table.add_row([owner, dimmed(numbers)]);
    }
    lines(&table)
}
