//! `check`: what is wrong with a definition, with its place in the file, without a broker.

use crate::{
    arguments::{CheckArguments, Output, ViewArguments},
    exit::Exit,
    input, render,
    trouble::Trouble,
};
use dirigent_contracts::{
    definition::{Diagnostic, Report},
    id::DefinitionDigest,
};
use serde::Serialize;
use std::path::Path;

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    /// The version that it would be deployed as; nothing if it cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DefinitionDigest>,
    diagnostics: Vec<Diagnostic>,
}

/// Checks files.
pub(crate) fn check(arguments: &CheckArguments, view: ViewArguments) -> Result<Exit, Trouble> {
    let mut all = Vec::new();
    for path in &arguments.files {
        let document = input::text(path)?;
        let file = path.display().to_string();
        let (digest, report) = match dirigent_coordinator::compile(&file, &document) {
            Ok((parsed, _)) => (Some(parsed.digest.clone()), parsed.warnings_report()),
            Err(report) => (None, Some(report)),
        };
        let diagnostics = report
            .as_ref()
            .map_or(&[][..], Report::diagnostics)
            .to_vec();
        if view.output == Output::Table {
            report.inspect(render::report);
            if let Some(digest) = &digest {
                render::print(&format!("{file}: fine, version {}\n", digest.short()))?;
            }
        }
        all.push(Checked {
            file,
            digest,
            diagnostics,
        });
    }
    if view.output == Output::Json {
        render::print(&render::document(&all)?)?;
    }
    let is_fine = all
        .iter()
        .all(|one| one.digest.is_some() && (one.diagnostics.is_empty() || !arguments.strict));
    Ok(if is_fine { Exit::Done } else { Exit::No })
}

/// The name of the definition that a file holds: that of the file.
pub(crate) fn name_of(path: &Path) -> Result<dirigent_contracts::id::DefinitionName, Trouble> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse()
        .map_err(|error: dirigent_contracts::id::IdError| Trouble::NoName {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}
