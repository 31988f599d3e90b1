//! The error of every compiler in this folder: what is wrong with a source text, and where.
//! Offsets are byte offsets into the text that was given to `compile`, so a caller can place them in a document.

/// A text that is not an expression, a path or an intrinsic function call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong, in a sentence for people.
    pub message: String,
    /// Where it is wrong, as a byte offset in the source, when the place is known.
    pub offset: Option<usize>,
}

impl SyntaxError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            offset: None,
        }
    }

    pub(crate) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            offset: Some(offset),
        }
    }
}
