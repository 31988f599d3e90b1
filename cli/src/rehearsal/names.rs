//! The names in the cases of a rehearsal. One that means nothing would be passed over, and the case would
//! pass for another reason than it says.

use super::script::Case;
use dirigent_contracts::definition::{
    model::{Definition, StateKind},
    nearest,
};

/// Everything of a definition that a case can name.
pub(super) struct Names<'a> {
    topmost: Vec<&'a str>,
    /// States of all levels, and the undoing of those that can be undone.
    all: Vec<String>,
    /// Whether objects are read: what they are called is known only when they are.
    reads: bool,
}

impl<'a> Names<'a> {
    pub(super) fn of(definition: &'a Definition) -> Self {
        let machine = &definition.machine;
        let mut names = Self {
            topmost: machine.states.keys().map(String::as_str).collect(),
            all: Vec::new(),
            reads: false,
        };
        machine.for_each_state(&mut |name, state| {
            names.all.push(name.to_owned());
            match &state.kind {
                StateKind::Task(task) if task.compensate.is_some() => {
                    names.all.push(format!("{name}/undo"));
                }
                StateKind::Map(map) => names.reads |= map.item_reader.is_some(),
                _ => {}
            }
        });
        names
    }

    /// Refuses a case that names what there is not, and says where.
    pub(super) fn check(&self, case: &Case) -> Result<(), String> {
        if let Some(state) = &case.state
            && !self.topmost.contains(&state.as_str())
        {
            let near = nearest(state, self.topmost.iter().copied());
            return Err(unknown("state", "state of the topmost level", state, near));
        }
        for name in case.answers.keys() {
            let is_object = self.reads && name.contains('/') && !name.ends_with("/undo");
            if !is_object {
                self.check_state("answers", name)?;
            }
        }
        for name in case.expect.states.iter().flatten() {
            self.check_state("expect.states", name)?;
        }
        Ok(())
    }

    fn check_state(&self, place: &str, name: &str) -> Result<(), String> {
        if self.all.iter().any(|known| known == name) {
            return Ok(());
        }
        let near = nearest(name, self.all.iter().map(String::as_str));
        Err(unknown(place, "state, and no undoing of one,", name, near))
    }
}

fn unknown(place: &str, what: &str, name: &str, near: Option<&str>) -> String {
    let meant = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("{place}: no {what} is called `{name}`{meant}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TRIP: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Book
States:
  Book: { Type: Task, Resource: 'task:book', Compensate: { Resource: 'task:release' }, Next: Both }
  Both:
    Type: Parallel
    Branches: [{ StartAt: Mail, States: { Mail: { Type: Task, Resource: 'task:mail', End: true } } }]
    End: true
";

    fn checked(case: Value) -> Result<(), String> {
        let parsed = dirigent_coordinator::compile("trip.yaml", TRIP).unwrap().0;
        let mut case = case;
        case["name"] = json!("c");
        Names::of(&parsed.definition).check(&serde_json::from_value(case).unwrap())
    }

    #[test]
    fn states_of_all_levels_and_undos_may_be_named() {
        let case = json!({"state": "Both", "answers": {"Book": {}, "Mail": {}, "Book/undo": {}},
            "expect": {"states": ["Both", "Mail"]}});
        assert_eq!(checked(case), Ok(()));
    }

    #[test]
    fn a_name_with_a_typo_is_refused_and_the_right_one_said() {
        for (case, expected) in [
            (
                json!({"answers": {"Book/udno": {}}}),
                "answers: no state, and no undoing of one, is called `Book/udno`; did you mean `Book/undo`?",
            ),
            (json!({"answers": {"Mial": {}}}), "did you mean `Mail`?"),
            // It has nothing that undoes it.
            (json!({"answers": {"Mail/undo": {}}}), "`Mail/undo`"),
            (
                json!({"answers": {"import/rows.csv": {}}}),
                "`import/rows.csv`",
            ),
            (
                json!({"state": "Mail"}),
                "state: no state of the topmost level is called `Mail`",
            ),
            (json!({"state": "Boht"}), "did you mean `Both`?"),
            (
                json!({"expect": {"states": ["Book", "Bot"]}}),
                "expect.states: no state",
            ),
        ] {
            let error = checked(case).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
