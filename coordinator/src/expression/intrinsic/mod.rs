//! The intrinsic functions of JSONPath mode: `States.Format('{} of {}', $.n, States.ArrayLength($.all))`.
//!
//! A call is parsed once into a tree of known functions with the right number of arguments; what is left to go wrong
//! at run time are paths that select nothing and values of the wrong type, and each such error names the function.
//! Random ones draw from the environment only.
//!
//! Source: the "Intrinsic Functions" section of the States Language specification and its appendix; limits and
//! rounding as documented for Step Functions; text forms as recorded runs show.

mod call;
mod function;
mod parser;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::call::Call;
pub use self::function::Function;
use super::environment::Environment;
use super::path::{Path, PathError};
use super::scope::Scope;
use super::syntax::SyntaxError;

/// A compiled call of an intrinsic function.
#[derive(Debug, Clone)]
pub struct Intrinsic {
    source: String,
    call: Call,
}

impl Intrinsic {
    /// Compiles a call.
    pub fn compile(source: &str) -> Result<Self, SyntaxError> {
        Ok(Self {
            source: source.to_owned(),
            call: parser::parse(source)?,
        })
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The outermost function.
    pub fn function(&self) -> Function {
        self.call.function
    }

    /// What the call returns.
    pub fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Value, IntrinsicError> {
        self.call.evaluate(scope, environment)
    }
}

/// Why a call returned nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IntrinsicError {
    /// A path among the arguments selects nothing.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The function refused its arguments.
    #[error("{function}: {message}")]
    Failure {
        /// The function.
        function: Function,
        /// What was wrong.
        message: String,
    },
}

/// What stands in a field that ends in `.$`: a path or a call.
#[derive(Debug, Clone)]
pub enum Query {
    /// A text that starts with `$`.
    Path(Path),
    /// Any other.
    Intrinsic(Intrinsic),
}

impl Query {
    /// Compiles a path or a call.
    pub fn compile(source: &str) -> Result<Self, SyntaxError> {
        if source.starts_with('$') {
            Path::compile(source).map(Self::Path)
        } else {
            Intrinsic::compile(source).map(Self::Intrinsic)
        }
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        match self {
            Self::Path(path) => path.source(),
            Self::Intrinsic(intrinsic) => intrinsic.source(),
        }
    }

    /// What the path selects or the call returns.
    pub fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Value, QueryError> {
        match self {
            Self::Path(path) => path.select(scope).map_err(QueryError::Path),
            Self::Intrinsic(intrinsic) => intrinsic
                .evaluate(scope, environment)
                .map_err(QueryError::Intrinsic),
        }
    }
}

/// Why a query has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// The path selects nothing.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The call failed.
    #[error(transparent)]
    Intrinsic(#[from] IntrinsicError),
}
