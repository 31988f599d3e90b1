//! What breaks off takes down what it was about, and nothing else.
//!
//! A panic is a mistake in this build. One that a single saga, definition or event provokes must not stop
//! the partition, the router or the API for all others.

use crate::engine::{self, Effects, Program, Record, Saga};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Called with every entry before it is folded. It exists so that a test can break a fold off.
pub(crate) type Probe = fn(&Record);

/// Does something that touches only what it is given or makes itself, and gives the words of the panic if it
/// breaks off. Whatever it has changed until then must not be used any more.
pub(crate) fn contain<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned());
        words
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "it broke off without a word".to_owned())
    })
}

/// Folds an entry, as [`engine::fold`] does.
///
/// # Errors
/// Why the fold broke off; `state` is then of no use any more.
pub(crate) fn fold(
    probe: Option<Probe>,
    state: &mut Option<Saga>,
    program: Option<&Program>,
    record: &Record,
) -> Result<Effects, String> {
    contain(|| {
        if let Some(probe) = probe {
            probe(record);
        }
        engine::fold(state, program, record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        assert_eq!(contain(|| 1), Ok(1));
        assert_eq!(
            contain(|| panic!("a word")),
            Err::<(), _>("a word".to_owned())
        );
        let number = 7;
        let told = contain(|| panic!("number {number}"));
        assert_eq!(told, Err::<(), _>("number 7".to_owned()));
    }
}
