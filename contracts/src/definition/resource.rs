//! What a Task does: the forms of `Resource`, and the ARNs of definitions that come from AWS.
//!
//! Every ARN becomes a task for our workers: a Lambda function or an activity the task of its name, a
//! call of another service the task `service.action`.

use super::{
    model::{Action, Resource},
    place::{choices, nearest},
    service::{INTEGRATIONS, Integration},
};
use crate::id::{DefinitionName, TaskName};

const WAIT_FOR_TOKEN: &str = ".waitForTaskToken";
const AWAIT: &str = ".await";

/// Why a text is not a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourceError {
    pub(super) message: String,
    pub(super) help: String,
}

fn refuse<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, ResourceError> {
    Err(ResourceError {
        message: message.into(),
        help: help.into(),
    })
}

/// True for what only the saga extension has.
pub(super) fn needs_extension(action: &Action) -> bool {
    !matches!(action, Action::Task { .. })
}

/// True for what an Express workflow cannot do: it has no way to wait for an answer.
pub(super) fn waits_for_answer(resource: &Resource) -> Option<&'static str> {
    let is_arn = resource.text.starts_with("arn:");
    match &resource.action {
        Action::Task {
            waits_for_token: true,
            ..
        } => Some("`.waitForTaskToken`"),
        Action::Await { .. } => Some("`.await`"),
        _ if is_arn && resource.text.contains(".sync") => Some("`.sync`"),
        _ if is_arn && resource.text.contains(":activity:") => Some("an activity"),
        _ => None,
    }
}

/// Parses `Resource`.
pub(super) fn parse(text: &str) -> Result<Resource, ResourceError> {
    let action = match text.split_once(':') {
        Some(("task", rest)) => task(rest)?,
        Some(("event", rest)) => event(rest)?,
        Some(("saga", rest)) => saga(rest)?,
        Some(("arn", _)) => arn(text)?,
        scheme => {
            let near = scheme.and_then(|(scheme, rest)| {
                let near = nearest(scheme, ["task", "event", "saga", "arn"])?;
                Some(format!("did you mean `{near}:{rest}`?"))
            });
            let forms = "a resource is `task:NAME`, `event:SUBJECT`, `saga:NAME` or an ARN";
            let help = near.unwrap_or_else(|| forms.to_owned());
            return refuse(format!("`{text}` is not a resource"), help);
        }
    };
    Ok(Resource {
        text: text.to_owned(),
        action,
    })
}

fn task(rest: &str) -> Result<Action, ResourceError> {
    let (name, waits_for_token) = match rest.strip_suffix(WAIT_FOR_TOKEN) {
        Some(name) => (name, true),
        None => (rest, false),
    };
    if name.ends_with(AWAIT) {
        return refuse(
            "`.await` waits for an event, not for a task",
            "a task that is completed later is `task:NAME.waitForTaskToken`",
        );
    }
    task_action(name, waits_for_token)
}

fn task_action(name: &str, waits_for_token: bool) -> Result<Action, ResourceError> {
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse(
            format!("`{name}` is not the name of a task"),
            "a task's name has no white space, such as `task:charge-card`",
        );
    }
    match TaskName::new(name) {
        Ok(task) => Ok(Action::Task {
            task,
            waits_for_token,
        }),
        Err(error) => refuse(
            error.to_string(),
            "a task is named such as `task:charge-card`",
        ),
    }
}

fn event(rest: &str) -> Result<Action, ResourceError> {
    if let Some(subject) = rest.strip_suffix(AWAIT) {
        check_subject(subject, true)?;
        return Ok(Action::Await {
            subject: subject.to_owned(),
        });
    }
    check_subject(rest, false)?;
    Ok(Action::Publish {
        subject: rest.to_owned(),
    })
}

fn saga(rest: &str) -> Result<Action, ResourceError> {
    match DefinitionName::new(rest) {
        Ok(definition) => Ok(Action::Saga { definition }),
        Err(error) => refuse(
            error.to_string(),
            "name a deployed definition, such as `saga:refund`",
        ),
    }
}

/// A NATS subject that a definition may use; wildcards only to listen.
pub(super) fn check_subject(subject: &str, to_listen: bool) -> Result<(), ResourceError> {
    let tokens: Vec<_> = subject.split('.').collect();
    let is_wild = |token: &&str| matches!(*token, "*" | ">");
    for (index, token) in tokens.iter().enumerate() {
        if token.is_empty() {
            return refuse(
                format!("`{subject}` has an empty token"),
                "a subject is one or more tokens with a dot between two, such as `orders.placed`",
            );
        }
        if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse(
                format!("`{subject}` has white space in it"),
                "a subject is one or more tokens with a dot between two, such as `orders.placed`",
            );
        }
        if token.contains(['*', '>']) && !is_wild(token) {
            return refuse(
                format!("`{token}` is not a token of a subject"),
                "the wildcards `*` and `>` stand for whole tokens",
            );
        }
        if *token == ">" && index + 1 < tokens.len() {
            return refuse(
                format!("`>` is not the last token of `{subject}`"),
                "`>` stands for all the tokens that follow; `*` stands for one",
            );
        }
    }
    if !to_listen && tokens.iter().any(&is_wild) {
        return refuse(
            format!("`{subject}` has a wildcard, so it names no single subject"),
            "an event is published on one subject",
        );
    }
    let first = tokens.first().copied().unwrap_or_default();
    if first == "dirigent" || first.starts_with('$') || first == "_INBOX" {
        return refuse(
            format!("`{subject}` is one of the subjects that Dirigent or NATS keeps for itself"),
            "use a subject that does not begin with `dirigent`, `$` or `_INBOX`",
        );
    }
    if is_wild(&first) {
        return refuse(
            format!("`{subject}` takes in the subjects that Dirigent keeps for itself"),
            "name the first token, such as `orders.>`",
        );
    }
    Ok(())
}

fn arn(text: &str) -> Result<Action, ResourceError> {
    let parts: Vec<_> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "lambda", _, _, "function", name] => task_action(name, false),
        ["arn", _, "lambda", _, _, "function", name, qualifier] if !qualifier.is_empty() => {
            task_action(name, false)
        }
        ["arn", _, "states", _, _, "activity", name] => task_action(name, false),
        ["arn", _, "states", _, _, "aws-sdk", service, rest @ ..] => sdk_call(text, service, rest),
        ["arn", _, "states", _, _, service, rest @ ..] => optimized_call(text, service, rest),
        _ => refuse(
            format!("the ARN `{text}` is not one that a Task can call"),
            "a Task calls a Lambda function, an activity, or a service (`arn:aws:states:::sqs:sendMessage`)",
        ),
    }
}

/// How a service is called: the last parts of its ARN.
struct Call<'t> {
    action: &'t str,
    pattern: Pattern,
}

#[derive(PartialEq)]
enum Pattern {
    Response,
    Job,
    Callback,
}

fn call<'t>(text: &str, rest: &[&'t str]) -> Result<Call<'t>, ResourceError> {
    let (action, pattern) = match rest {
        [last] => match last.split_once('.') {
            None => (*last, Pattern::Response),
            Some((action, "sync")) => (action, Pattern::Job),
            Some((action, "waitForTaskToken")) => (action, Pattern::Callback),
            Some((_, pattern)) => return unknown_pattern(text, pattern),
        },
        // `.sync:2`: the same job, its output as JSON instead of as text.
        [last, "2"] if let Some((action, "sync")) = last.split_once('.') => (action, Pattern::Job),
        _ => {
            return refuse(
                format!("the ARN `{text}` names no action"),
                "a call is `arn:aws:states:::SERVICE:ACTION`",
            );
        }
    };
    if action.is_empty() || !action.chars().all(|c| c.is_ascii_alphanumeric()) {
        return refuse(
            format!("the ARN `{text}` names no action"),
            "a call is `arn:aws:states:::SERVICE:ACTION`",
        );
    }
    Ok(Call { action, pattern })
}

fn unknown_pattern<T>(text: &str, pattern: &str) -> Result<T, ResourceError> {
    let known = ["sync", "waitForTaskToken"];
    let help = match nearest(pattern, known) {
        Some(near) => format!("did you mean `.{near}`?"),
        None => "a call ends in its action, `.sync`, `.sync:2` or `.waitForTaskToken`".to_owned(),
    };
    refuse(
        format!("the ARN `{text}` ends in the unknown pattern `.{pattern}`"),
        help,
    )
}

fn optimized_call(text: &str, service: &str, rest: &[&str]) -> Result<Action, ResourceError> {
    let Some(integration) = INTEGRATIONS.iter().find(|one| one.service == service) else {
        let near = nearest(service, INTEGRATIONS.iter().map(|one| one.service));
        let help = near.map_or_else(
            || format!("use `task:{service}.ACTION`, or the service's `aws-sdk` call"),
            |near| format!("did you mean `{near}`?"),
        );
        return refuse(
            format!("`{service}` is not a service that a Task can call"),
            help,
        );
    };
    let call = call(text, rest)?;
    if !integration.actions.contains(&call.action) {
        return refuse(
            format!("`{service}` has no action `{}` here", call.action),
            unknown_action_help(integration, call.action),
        );
    }
    let allowed = match call.pattern {
        Pattern::Response => integration.actions,
        Pattern::Job => integration.jobs,
        Pattern::Callback => integration.callbacks,
    };
    if !allowed.contains(&call.action) {
        let pattern = if call.pattern == Pattern::Job {
            ".sync"
        } else {
            WAIT_FOR_TOKEN
        };
        return refuse(
            format!(
                "`{service}:{}` cannot be called with `{pattern}`",
                call.action
            ),
            format!("call it as `arn:aws:states:::{service}:{}`", call.action),
        );
    }
    task_action(
        &format!("{service}.{}", call.action),
        call.pattern == Pattern::Callback,
    )
}

fn unknown_action_help(integration: &Integration, action: &str) -> String {
    let service = integration.service;
    match nearest(action, integration.actions.iter().copied()) {
        Some(near) => format!("did you mean `{service}:{near}`?"),
        None => format!(
            "it has {}; other actions are called as `aws-sdk:{service}:{action}`",
            choices(integration.actions)
        ),
    }
}

fn sdk_call(text: &str, service: &str, rest: &[&str]) -> Result<Action, ResourceError> {
    if service.is_empty() || !service.chars().all(|c| c.is_ascii_alphanumeric()) {
        return refuse(
            format!("the ARN `{text}` names no service"),
            "a call is `arn:aws:states:::aws-sdk:SERVICE:ACTION`",
        );
    }
    let call = call(text, rest)?;
    if call.pattern == Pattern::Job {
        return refuse(
            format!(
                "`aws-sdk:{service}:{}` cannot be called with `.sync`",
                call.action
            ),
            "only optimized integrations have `.sync`",
        );
    }
    task_action(
        &format!("{service}.{}", call.action),
        call.pattern == Pattern::Callback,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_of(text: &str) -> (String, bool) {
        match parse(text).unwrap().action {
            Action::Task {
                task,
                waits_for_token,
            } => (task.to_string(), waits_for_token),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_task_has_its_name() {
        for (text, name, waits) in [
            ("task:charge-card", "charge-card", false),
            ("task:charge-card.waitForTaskToken", "charge-card", true),
            ("task:dynamodb.putItem", "dynamodb.putItem", false),
            (
                "arn:aws:lambda:us-east-1:111111111111:function:fn",
                "fn",
                false,
            ),
            (
                "arn:aws:lambda:us-east-1:111111111111:function:fn:$LATEST",
                "fn",
                false,
            ),
            (
                "arn:aws-cn:lambda:<region>:<account>:function:fn:7",
                "fn",
                false,
            ),
            (
                "arn:aws:states:us-east-1:111111111111:activity:a1",
                "a1",
                false,
            ),
            ("arn:aws:states:::sqs:sendMessage", "sqs.sendMessage", false),
            (
                "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
                "sqs.sendMessage",
                true,
            ),
            (
                "arn:aws:states:::states:startExecution.sync",
                "states.startExecution",
                false,
            ),
            (
                "arn:aws:states:::states:startExecution.sync:2",
                "states.startExecution",
                false,
            ),
            (
                "arn:aws:states:::aws-sdk:dynamodb:putItem",
                "dynamodb.putItem",
                false,
            ),
            (
                "arn:aws:states:::aws-sdk:s3:listBuckets.waitForTaskToken",
                "s3.listBuckets",
                true,
            ),
            (
                "arn:<partition>:states:<region>::lambda:invoke",
                "lambda.invoke",
                false,
            ),
        ] {
            assert_eq!(task_of(text), (name.to_owned(), waits), "{text}");
            assert_eq!(parse(text).unwrap().text, text);
        }
    }

    #[test]
    fn events_and_sagas_are_told_apart() {
        let action = |text: &str| parse(text).unwrap().action;
        assert_eq!(
            action("event:a.b"),
            Action::Publish {
                subject: "a.b".into()
            }
        );
        assert_eq!(
            action("event:a.*.await"),
            Action::Await {
                subject: "a.*".into()
            }
        );
        assert_eq!(
            action("saga:refund"),
            Action::Saga {
                definition: DefinitionName::new("refund").unwrap()
            }
        );
    }

    #[test]
    fn what_is_not_a_resource_is_refused_with_help() {
        for (text, help) in [
            ("charge-card", "`task:NAME`"),
            ("tsak:charge-card", "`task:charge-card`"),
            ("task:", "task:charge-card"),
            ("task:charge card", "white space"),
            ("task:x.await", "waitForTaskToken"),
            ("event:", "tokens"),
            ("event:a..b", "tokens"),
            ("event:a b", "tokens"),
            ("event:a.>", "one subject"),
            ("event:a.>.b.await", "`*` stands for one"),
            ("event:a.b*.await", "whole tokens"),
            ("event:dirigent.event.x", "does not begin"),
            ("event:$JS.API", "does not begin"),
            ("event:_INBOX.x", "does not begin"),
            ("event:*.x.await", "first token"),
            ("event:.await", "tokens"),
            ("saga:a.b", "saga:refund"),
            ("arn:aws:states:::dynamodb:query", "aws-sdk:dynamodb:query"),
            ("arn:aws:states:::dynamodb:getItm", "dynamodb:getItem"),
            ("arn:aws:states:::sqss:sendMessage", "`sqs`"),
            ("arn:aws:states:::sqs:sendMessage.sync", "sqs:sendMessage"),
            (
                "arn:aws:states:::glue:startJobRun.waitForTaskToken",
                "glue:startJobRun",
            ),
            (
                "arn:aws:states:::sqs:sendMessage.waitForTaskTokn",
                "`.waitForTaskToken`",
            ),
            ("arn:aws:states:::sqs", "SERVICE:ACTION"),
            ("arn:aws:states:::aws-sdk:s3:getObject.sync", "optimized"),
            ("arn:aws:s3:::bucket", "Lambda"),
            (
                "arn:aws:lambda:us-east-1:111111111111:function:",
                "task:charge-card",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.help.contains(help), "{text}: {error:?}");
        }
    }
}
