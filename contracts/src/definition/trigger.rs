//! *(saga/1)* `Triggers`: the events that start a saga.

use super::{
    machine::Reader,
    model::{QueryLanguage, Trigger},
    place::Place,
    resource::check_subject,
};

const WHAT: &str = "a trigger";
const FIELDS: [&str; 6] = ["Event", "Subject", "Key", "Filter", "Input", "Comment"];

impl Reader {
    /// `Triggers`.
    pub(super) fn triggers(&mut self, place: &Place<'_>) -> Vec<Trigger> {
        let items = self.problems.filled_array(place);
        items.iter().map(|item| self.trigger(item)).collect()
    }

    fn trigger(&mut self, place: &Place<'_>) -> Trigger {
        self.problems.is_object(place);
        self.problems.known_fields(place, &FIELDS, WHAT);
        self.comment(place);
        let event = self.problems.required(place, "Event", WHAT);
        let name = event
            .as_ref()
            .and_then(|place| self.problems.string(place))
            .unwrap_or_default();
        let subject = place.get("Subject");
        // Without `Subject`, the event's name is the subject itself; with it, any CloudEvents type.
        let listened = subject
            .as_ref()
            .or(event.as_ref().filter(|_| subject.is_none()));
        if let Some(place) = listened
            && let Some(text) = place.node.as_str()
            && let Err(error) = check_subject(text, true)
        {
            self.problems
                .error("bad-subject", place, error.message)
                .label("not a subject")
                .help(error.help);
        }
        let subject = subject.and_then(|place| self.problems.string(&place).map(str::to_owned));
        Trigger {
            event: name.to_owned(),
            subject,
            key: place
                .get("Key")
                .and_then(|place| self.problems.expression(&place)),
            filter: place
                .get("Filter")
                .and_then(|place| self.problems.expression(&place)),
            input: place
                .get("Input")
                .map(|place| self.problems.template(&place, QueryLanguage::Jsonata)),
        }
    }
}
