//! JSONata expressions: compiled once, evaluated against a [`Scope`] under the limits of an [`Environment`].
//!
//! The language itself is `jsonata-core`; this module binds it to sagas. Only what an expression mentions is bound
//! (`demand`), plain field chains never leave `serde_json` (`chain`), and every function that would read the
//! clock or entropy is replaced by one that asks the environment (`functions`).

mod chain;
mod conversion;
mod demand;
mod expansion;
mod functions;
mod survey;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

use jsonata_core::ast::AstNode;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorError, EvaluatorOptions};
use jsonata_core::parser;
use jsonata_core::value::JValue;
use serde_json::Value;

use self::chain::{Chain, Outcome};
use self::conversion::ResultBuilder;
use self::demand::Demand;
use self::survey::Survey;
use super::environment::{Environment, Limits};
use super::scope::Scope;
use super::syntax::SyntaxError;

/// The name of the reserved variable that holds input, result, error output and context.
const STATES: &str = "states";

/// The source inside `{% ... %}`, without the white space around it, if the text is an expression.
///
/// Nothing may stand before `{%` or after `%}`; any other text is a literal.
pub fn expression_source(text: &str) -> Option<&str> {
    text.strip_prefix("{%")?.strip_suffix("%}").map(str::trim)
}

/// A compiled JSONata expression.
#[derive(Debug)]
pub struct Expression {
    source: String,
    program: Program,
    references: Vec<String>,
}

#[derive(Debug)]
enum Program {
    /// `$name.a.b`: looked up in place, with the general program for when an array lies on the way.
    Chain(Chain, Box<General>),
    General(Box<General>),
}

#[derive(Debug)]
struct General {
    tree: AstNode,
    /// How much of each variable the expression can see.
    demands: Vec<(String, Demand)>,
    /// The functions of ours that it calls.
    functions: Vec<functions::Function>,
    /// Whether it multiplies text, which then has to be watched.
    is_guarded: bool,
}

impl Expression {
    /// Compiles the source of an expression, without its `{% %}`.
    pub fn compile(source: &str) -> Result<Self, SyntaxError> {
        let mut tree = parser::parse(source).map_err(|error| syntax_error(source, &error))?;
        survey::rewrite(&mut tree);
        expansion::guard(&mut tree, false);
        let survey = Survey::of(&tree);
        if let Some(problem) = survey.misuse() {
            return Err(problem_at_name(source, problem));
        }
        let references = survey.references();
        let chain = Chain::of(&tree);
        let general = Box::new(General {
            functions: survey.functions(),
            is_guarded: survey.is_guarded(),
            demands: survey.into_demands(),
            tree,
        });
        let program = match chain {
            Some(chain) => Program::Chain(chain, general),
            None => Program::General(general),
        };
        Ok(Self {
            source: source.to_owned(),
            program,
            references,
        })
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables that the expression mentions and does not bind itself, without `$`, sorted; functions that come
    /// with the language are not among them, the reserved `states` is.
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// The value of the expression, or `None` when it is undefined.
    pub fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Option<Value>, EvaluationError> {
        match &self.program {
            Program::Chain(chain, general) => match chain.follow(scope) {
                Outcome::Found(value) => Ok(Some(value.clone())),
                Outcome::Undefined => Ok(None),
                Outcome::Unclear => general.evaluate(scope, environment),
            },
            Program::General(general) => general.evaluate(scope, environment),
        }
    }
}

impl General {
    fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Option<Value>, EvaluationError> {
        let limits = *environment.limits();
        let mut context = Context::new();
        for (name, demand) in &self.demands {
            if let Some(value) = demand::bound_value(name, demand, scope) {
                context.bind(name.clone(), value);
            }
        }
        let mut evaluator = Evaluator::with_options(context, options(&limits));
        let random = Rc::new(Cell::new(*environment.random()));
        let budget = Rc::new(Cell::new(limits.text_bytes));
        for function in &self.functions {
            function.register(&mut evaluator, environment.now(), &random, &budget, &limits)?;
        }
        if self.is_guarded {
            expansion::register(&mut evaluator, &budget)?;
        }
        // There is no root document in ASL: `$`, `$$` and bare field names are undefined.
        let result = evaluator.evaluate(&self.tree, &JValue::Undefined);
        *environment.random() = random.get();
        ResultBuilder::new(&limits).build(&result?)
    }
}

fn options(limits: &Limits) -> EvaluatorOptions {
    EvaluatorOptions {
        timeout_ms: Some(u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX)),
        max_stack_depth: Some(limits.recursion),
        max_sequence_length: Some(limits.sequence),
        cancel: None,
    }
}

/// The parser says what it stumbled over but not where. The place is the end of the shortest start of the text that
/// no continuation can repair, found by parsing such starts: an error costs that, a good expression nothing.
fn syntax_error(source: &str, error: &parser::ParserError) -> SyntaxError {
    const LONGEST_SEARCH: usize = 4096;
    let message = error.display_message();
    let message = message
        .trim_start_matches("Parse error: ")
        .trim_start_matches("Invalid syntax: ")
        .to_owned();
    let offset = if wants_more(error) {
        Some(source.len())
    } else if source.len() <= LONGEST_SEARCH {
        source
            .char_indices()
            .map(|(start, character)| (start, start + character.len_utf8()))
            .find(|&(_, end)| {
                // Within a word or an operator a start means something else than the whole of it.
                !continues_token(source, end)
                    && parser::parse(&source[..end]).is_err_and(|error| !wants_more(&error))
            })
            .map(|(start, _)| token_start(source, start))
    } else {
        None
    };
    SyntaxError { message, offset }
}

fn wants_more(error: &parser::ParserError) -> bool {
    use parser::ParserError as E;
    match error {
        E::UnexpectedEnd | E::UnclosedString | E::UnclosedComment | E::UnclosedBacktick => true,
        E::UnexpectedToken(token) => token == "Eof",
        E::Expected { found, .. } => found == "Eof",
        E::InvalidSyntax(message) => message.contains("Eof") || message.contains("S0302"),
        _ => false,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn continues_token(source: &str, end: usize) -> bool {
    let bytes = source.as_bytes();
    let (Some(&last), Some(&next)) = (bytes.get(end.wrapping_sub(1)), bytes.get(end)) else {
        return false;
    };
    (is_word(last) && is_word(next)) || (last.is_ascii_punctuation() && next.is_ascii_punctuation())
}

fn token_start(source: &str, offset: usize) -> usize {
    let bytes = source.as_bytes();
    if bytes.get(offset).copied().is_some_and(is_word) {
        let word = bytes[..offset]
            .iter()
            .rev()
            .take_while(|&&byte| is_word(byte))
            .count();
        return offset - word;
    }
    offset
}

fn problem_at_name(source: &str, problem: survey::Misuse) -> SyntaxError {
    SyntaxError {
        offset: source.find(problem.name).map(|at| at.saturating_sub(1)),
        message: problem.message,
    }
}

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// The sort of failure.
    pub kind: EvaluationErrorKind,
    /// JSONata's own code for it, such as `T2001`, where there is one.
    pub code: Option<String>,
    /// What went wrong, for people; it begins with the code.
    pub message: String,
}

/// The sorts of failure of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationErrorKind {
    /// A value of the wrong type or size, or a call of something that is no function.
    Failed,
    /// The expression itself raised it, with `$error` or `$assert`.
    Thrown,
    /// A limit of the environment was reached.
    LimitExceeded,
    /// The result is a function or a number that JSON cannot hold.
    NotJson,
}

impl EvaluationError {
    fn limit(message: impl Into<String>) -> Self {
        Self {
            kind: EvaluationErrorKind::LimitExceeded,
            code: None,
            message: message.into(),
        }
    }

    fn not_json(message: impl Into<String>) -> Self {
        Self {
            kind: EvaluationErrorKind::NotJson,
            code: None,
            message: message.into(),
        }
    }
}

impl From<EvaluatorError> for EvaluationError {
    fn from(error: EvaluatorError) -> Self {
        let code = error.code().map(str::to_owned);
        let kind = match code.as_deref() {
            Some("D1011" | "D1012" | "D2014" | "D2015" | "U1001" | "U1003") => {
                EvaluationErrorKind::LimitExceeded
            }
            Some("D3137" | "D3141") => EvaluationErrorKind::Thrown,
            _ => EvaluationErrorKind::Failed,
        };
        Self {
            kind,
            code,
            message: error.message().to_owned(),
        }
    }
}
