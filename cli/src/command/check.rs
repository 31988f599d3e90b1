//! `check`: what is wrong with a definition, with its place in the file, without a broker.

use crate::{arguments::CheckArguments, exit::Exit, input, render, trouble::Trouble};
use std::path::Path;

/// Checks files.
pub(crate) fn check(arguments: &CheckArguments) -> Result<Exit, Trouble> {
    let mut exit = Exit::Done;
    for path in &arguments.files {
        let document = input::text(path)?;
        match dirigent_coordinator::compile(&path.display().to_string(), &document) {
            Ok((parsed, _)) => {
                if let Some(warnings) = parsed.warnings_report() {
                    render::report(&warnings);
                    if arguments.strict {
                        exit = Exit::No;
                    }
                }
                let line = format!(
                    "{}: fine, version {}\n",
                    path.display(),
                    parsed.digest.short()
                );
                render::print(&line)?;
            }
            Err(report) => {
                render::report(&report);
                exit = Exit::No;
            }
        }
    }
    Ok(exit)
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
