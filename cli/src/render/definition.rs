//! Definitions, for people.

use super::{at, brief, cell, dimmed, lines, table};
use comfy_table::Cell;
use dirigent_contracts::api::{DefinitionSummary, DeployAnswer};

/// The newest version of each definition.
pub(crate) fn definitions(definitions: &[DefinitionSummary]) -> String {
    if definitions.is_empty() {
        return "no definition is deployed; `dirigent deploy FILE` deploys one\n".to_owned();
    }
    let mut table = table(&["NAME", "VERSION", "DEPLOYED", "TRIGGERS", "COMMENT"]);
    for one in definitions {
        table.add_row([
            Cell::new(&one.name),
            dimmed(one.digest.short()),
            dimmed(at(one.deployed_at)),
            cell(one.triggers.join(", ")),
            Cell::new(brief(&one.comment, 60)),
        ]);
    }
    lines(&table)
}

/// A definition was deployed.
pub(crate) fn deployed(answer: &DeployAnswer) -> String {
    let what = if answer.changed {
        "deployed"
    } else {
        "is deployed already,"
    };
    format!("{} {what} version {}\n", answer.name, answer.digest.short())
}
