//! `test`: sagas are rehearsed offline, with the answers of their steps from a file and time skipped.
//!
//! It is the coordinator's own engine that runs, so what holds here holds in production, as far as
//! workers answer as the file says.

mod names;
mod script;
mod stage;

use crate::{
    arguments::{Output, TestArguments, ViewArguments},
    command::name_of,
    exit::Exit,
    input, render,
    trouble::Trouble,
};
use dirigent_contracts::{
    history::{Happening, HistoryEvent},
    id::{IdError, SagaAddress},
    outcome::{Outcome, SagaStatus},
    task::Direction,
};
use dirigent_coordinator::engine::Program;
use names::Names;
use script::{Case, Script};
use serde::Serialize;
use serde_json::Value;
use stage::{Played, Stage};
use std::{path::Path, sync::Arc};

/// How one case went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rehearsed {
    pub(crate) case: String,
    /// What is not as expected; empty if all is.
    pub(crate) differences: Vec<String>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) states: Vec<Passage>,
    #[serde(skip)]
    pub(crate) history: Vec<HistoryEvent>,
}

/// One visit of a state.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Passage {
    pub(crate) state: String,
    pub(crate) input: Arc<Value>,
    /// What it left with; nothing if it failed or was broken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Arc<Value>>,
}

/// Rehearses all cases of some files.
pub(crate) fn test(arguments: &TestArguments, view: ViewArguments) -> Result<Exit, Trouble> {
    let mut all = Vec::new();
    for path in &arguments.files {
        all.extend(rehearse(path)?);
    }
    let failed = all.iter().filter(|one| !one.differences.is_empty()).count();
    match view.output {
        Output::Json => {
            render::print(&render::document(&all)?)?;
        }
        Output::Table => {
            for one in &all {
                render::print(&render::rehearsed(one, view.verbose > 0))?;
            }
            let passed = all.len() - failed;
            render::print(&format!("\n{passed} of {} cases pass\n", all.len()))?;
        }
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::No })
}

fn rehearse(path: &Path) -> Result<Vec<Rehearsed>, Trouble> {
    let script = Script::read(path)?;
    let file = path
        .parent()
        .unwrap_or(Path::new(""))
        .join(&script.definition);
    let document = input::text(&file)?;
    let name = file.display().to_string();
    let refused = |report: dirigent_contracts::definition::Report| Trouble::NotTestable {
        path: path.to_owned(),
        reason: format!("{name} is not right"),
        report: Some(Box::new(report)),
    };
    let (parsed, program) = dirigent_coordinator::compile(&name, &document).map_err(refused)?;
    let wrong = |reason: String| Trouble::NotTestable {
        path: path.to_owned(),
        reason,
        report: None,
    };
    let address = SagaAddress {
        definition: name_of(&file)?,
        key: "rehearsal"
            .parse()
            .map_err(|error: IdError| wrong(error.to_string()))?,
    };
    if script.cases.is_empty() {
        return Err(wrong("it has no cases".to_owned()));
    }
    let names = Names::of(&parsed.definition);
    for (at, case) in script.cases.iter().enumerate() {
        let checked = names.check(case);
        checked.map_err(|reason| wrong(format!("at cases[{at}].{reason}")))?;
    }
    script
        .cases
        .iter()
        .map(|case| {
            let of_state: Program;
            let program = match &case.state {
                None => &program,
                Some(state) => {
                    let mut document = parsed.canonical.clone();
                    document["StartAt"] = Value::String(state.clone());
                    let compiled = dirigent_coordinator::compile(&name, &document.to_string());
                    of_state = compiled.map_err(refused)?.1;
                    &of_state
                }
            };
            let played = Stage::play(program, case, address.clone(), parsed.digest.clone());
            Ok(judge(case, played))
        })
        .collect()
}

fn judge(case: &Case, played: Played) -> Rehearsed {
    let mut differences: Vec<String> = played
        .unanswered
        .iter()
        .map(|state| format!("{state} asks, and `answers` has nothing for it"))
        .collect();
    let expect = &case.expect;
    let status = played.outcome.as_ref().map(|outcome| outcome.status);
    let shown = status.map_or("waiting for what never comes", SagaStatus::as_str);
    if status.is_none() && expect.status.is_none() {
        differences.push(format!("it ends {shown}"));
    }
    if let Some(wanted) = expect.status
        && status != Some(wanted)
    {
        differences.push(format!("it is to end {wanted}, and ends {shown}"));
    }
    let error = played
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.failure.as_ref())
        .map(|failure| failure.error.as_str());
    if let Some(wanted) = &expect.error
        && error != Some(wanted)
    {
        let error = error.unwrap_or("none");
        differences.push(format!("the error is to be {wanted}, and is {error}"));
    }
    let output = played
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.output.as_deref());
    if let Some(wanted) = &expect.output
        && output != Some(wanted)
    {
        let output = output.map_or_else(|| "none".to_owned(), Value::to_string);
        differences.push(format!("the output is to be {wanted}, and is {output}"));
    }
    let entered = entered(&played.history);
    if let Some(wanted) = &expect.states
        && entered != *wanted
    {
        let (wanted, entered) = (wanted.join(", "), entered.join(", "));
        differences.push(format!(
            "the states are to be [{wanted}], and are [{entered}]"
        ));
    }
    Rehearsed {
        case: case.name.clone(),
        differences,
        outcome: played.outcome,
        states: passages(&played.history),
        history: played.history,
    }
}

/// The states that were entered, in order, and the steps that were undone.
fn entered(history: &[HistoryEvent]) -> Vec<String> {
    let name = |event: &HistoryEvent| match &event.what {
        Happening::StateEntered { state, .. } => Some(state.clone()),
        Happening::TaskScheduled {
            state,
            command,
            direction: Direction::Undo,
            ..
        } if command.attempt == 1 => Some(format!("{state}/undo")),
        _ => None,
    };
    history.iter().filter_map(name).collect()
}

/// What went in and out of each state.
fn passages(history: &[HistoryEvent]) -> Vec<Passage> {
    let mut passages: Vec<(u32, Passage)> = Vec::new();
    for event in history {
        match &event.what {
            Happening::StateEntered { state, input, .. } => passages.push((
                event.scope,
                Passage {
                    state: state.clone(),
                    input: Arc::clone(input),
                    output: None,
                },
            )),
            Happening::StateExited { state, output, .. } => {
                let open = passages.iter_mut().rev().find(|(scope, passage)| {
                    *scope == event.scope && passage.state == *state && passage.output.is_none()
                });
                if let Some((_, passage)) = open {
                    passage.output = Some(Arc::clone(output));
                }
            }
            _ => {}
        }
    }
    passages.into_iter().map(|(_, passage)| passage).collect()
}
