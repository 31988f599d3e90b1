//! The query languages of a definition: JSONata, JSONPath with intrinsic functions, and payload templates of both.
//!
//! Everything is compiled once, when a definition is loaded, into values that are `Send + Sync`; evaluation never
//! parses. An evaluation sees a [`Scope`] (what it may look at) and an [`Environment`] (time, randomness, limits) and
//! nothing else: no clock, no entropy, no I/O. So the same scope and environment give the same value on every replay
//! and on every machine. The one exception is [`Limits::time`], which stops an evaluation that would stop the fold.
//!
//! ```
//! use dirigent_coordinator::expression::{Environment, Scope, Template};
//! use serde_json::json;
//!
//! let template = Template::compile_jsonata(&json!({ "total": "{% $sum($states.input.prices) + $fee %}" }))?;
//!
//! let (input, context, fee) = (json!({ "prices": [20, 22] }), json!({}), json!(0.5));
//! let variables = [("fee", &fee)];
//! let scope = Scope::new(&input, &context, &variables);
//! let mut environment = Environment::new(1_700_000_000_000_000, 42);
//! assert_eq!(template.evaluate(&scope, &mut environment)?, json!({ "total": 42.5 }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`scope`] | input, context object and variables, borrowed from the saga's state |
//! | [`environment`] | now, the seeded random source, limits |
//! | [`jsonata`] | `{% ... %}` expressions |
//! | [`path`] | JSONPath, reference paths, `ResultPath` |
//! | [`intrinsic`] | `States.Format(...)` and its seventeen siblings |
//! | [`template`] | payload templates whose leaves are any of the above |

mod digest;
pub mod environment;
pub mod intrinsic;
pub mod jsonata;
mod number;
pub mod path;
mod rendering;
pub mod scope;
mod syntax;
pub mod template;

pub use environment::{Environment, Limits, RandomSource};
pub use intrinsic::{Intrinsic, IntrinsicError, Query, QueryError};
pub use jsonata::{EvaluationError, EvaluationErrorKind, Expression, expression_source};
pub use path::{Path, PathError};
pub use scope::{NoVariables, Scope, Variables};
pub use syntax::SyntaxError;
pub use template::{Template, TemplateError, TemplateErrorKind, TemplateSyntaxError};
