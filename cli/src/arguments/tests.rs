//! What the command line understands, and what it says when it does not.

use super::*;
use clap::FromArgMatches;
use dirigent_contracts::outcome::SagaStatus;
use std::time::Duration;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let words = std::iter::once("dirigent").chain(line.split_whitespace());
    let matches = command().try_get_matches_from(words)?;
    Arguments::from_arg_matches(&matches)
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_stands_in_one_group_of_the_help() {
    let mut grouped: Vec<&str> = help::GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    let command = command();
    let mut known: Vec<&str> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    grouped.sort_unstable();
    known.sort_unstable();
    assert_eq!(grouped, known);
}

#[test]
fn the_help_reads_well() {
    insta::assert_snapshot!(command().render_help());
}

#[test]
fn a_key_is_positional_or_an_option_but_not_both() {
    let key = |line: &str| match parse(line).unwrap().command {
        Command::Describe(saga) => saga.address().unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(key("describe order o-1"), "order/o-1");
    assert_eq!(key("describe order --key o-1"), "order/o-1");
    assert!(parse("describe order").is_err());
    assert!(parse("describe order o-1 --key o-1").is_err());
}

#[test]
fn a_callback_says_how_the_step_ended() {
    assert!(parse("callback t --output-data {}").is_ok());
    assert!(parse("callback t --error Declined --cause no").is_ok());
    assert!(parse("callback t").is_err());
    assert!(parse("callback t --cause no").is_err());
    assert!(parse("callback t --output-data {} --error Declined").is_err());
}

#[test]
fn times_and_statuses_are_words() {
    let Command::Run(run) = parse("run order --timeout 1m30s").unwrap().command else {
        panic!()
    };
    assert_eq!(run.timeout, Some(Duration::from_secs(90)));
    assert!(parse("run order --timeout soon").is_err());
    let Command::List(list) = parse("list -s stuck -s running").unwrap().command else {
        panic!()
    };
    assert_eq!(list.status, [SagaStatus::Stuck, SagaStatus::Running]);
    let error = parse("list --status lost").unwrap_err().to_string();
    assert!(error.contains("compensating"), "{error}");
}

#[test]
fn a_name_that_cannot_be_one_is_refused_with_the_reason() {
    let error = parse("start a.b").unwrap_err().to_string();
    assert!(error.contains("letters, digits, '-' and '_'"), "{error}");
}

#[test]
fn dead_letters_are_listed_unless_one_is_replayed() {
    let letters = |line: &str| match parse(line).unwrap().command {
        Command::DeadLetters(letters) => letters,
        other => panic!("{other:?}"),
    };
    assert!(letters("dead-letters").command.is_none());
    assert_eq!(letters("dead-letters --limit 3").limit, 3);
    assert!(matches!(
        letters("dead-letters replay 7").command,
        Some(DeadLettersCommand::Replay { number: 7 })
    ));
}
