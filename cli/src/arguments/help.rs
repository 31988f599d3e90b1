//! How `dirigent --help` looks: the commands in groups, examples, exit codes.

use super::Arguments;
use crate::exit::Exit;
use clap::{
    CommandFactory,
    builder::{
        StyledStr,
        styling::{AnsiColor, Style, Styles},
    },
};
use std::fmt::Write;

/// The groups of commands, in the order of a newcomer's first day.
pub(super) const GROUPS: [(&str, &[&str]); 4] = [
    ("Run", &["dev", "coordinator"]),
    (
        "Definitions",
        &[
            "check",
            "test",
            "schema",
            "deploy",
            "definitions",
            "definition",
        ],
    ),
    (
        "Sagas",
        &[
            "start", "run", "list", "describe", "history", "trace", "publish", "signal",
            "callback", "cancel", "retry",
        ],
    ),
    (
        "Operation",
        &[
            "status",
            "top",
            "limits",
            "dead-letters",
            "doctor",
            "backup",
            "restore",
            "completions",
            "bench",
        ],
    ),
];

const EXAMPLES: [(&str, &str); 4] = [
    (
        "dirigent dev",
        "a broker, a coordinator and workers, in one terminal",
    ),
    ("dirigent deploy order.yaml", "make it known"),
    (
        "dirigent run order --key o-1 --input @order.json",
        "start it and wait",
    ),
    ("dirigent history order o-1", "what happened, as a timeline"),
];

const HEADING: Style = AnsiColor::Yellow.on_default().bold();
const WORD: Style = AnsiColor::Green.on_default().bold();
const STYLES: Styles = Styles::styled()
    .header(HEADING)
    .usage(HEADING)
    .literal(WORD)
    .placeholder(AnsiColor::Cyan.on_default());

/// The command line with its help.
pub(crate) fn command() -> clap::Command {
    let command = Arguments::command().styles(STYLES);
    let mut groups = StyledStr::new();
    for (heading, names) in GROUPS {
        // Writing to memory cannot fail.
        let _ = writeln!(groups, "{HEADING}{heading}:{HEADING:#}");
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about);
            let about = about.map(StyledStr::ansi).map(|about| about.to_string());
            let about = about.unwrap_or_default();
            let _ = writeln!(groups, "  {WORD}{name:<13}{WORD:#} {about}");
        }
        let _ = writeln!(groups);
    }
    let mut examples = StyledStr::new();
    let _ = writeln!(examples, "{HEADING}Examples:{HEADING:#}");
    for (example, meaning) in EXAMPLES {
        let _ = writeln!(examples, "  {WORD}{example:<50}{WORD:#} {meaning}");
    }
    let _ = write!(
        examples,
        "\n{HEADING}Exit codes:{HEADING:#}\n{}",
        Exit::table()
    );
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{{options}}\n\n{}\n",
        groups.ansi(),
        examples.ansi()
    );
    command.help_template(template)
}
