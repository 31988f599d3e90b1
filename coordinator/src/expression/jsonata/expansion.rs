//! A budget on the text that an expression makes. Most functions make no more than they are given, but replacing,
//! joining and appending inside a loop multiply: a quarter of a megabyte replaced by a quarter of a megabyte is all
//! the memory there is, and running out of memory ends the process.
//!
//! The evaluator has no such limit, so the operands of the few multiplying operations are passed through functions of
//! ours, which return them as they are and refuse what would grow too large. Their names cannot be written by people.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use jsonata_core::ast::{AstNode, BinaryOp};
use jsonata_core::evaluator::{Evaluator, EvaluatorError};
use jsonata_core::functions::string::build_regex;
use jsonata_core::value::JValue;

use super::survey::{call, for_each_child_mut};

/// The text that is replaced in, or the list that is joined.
const SUBJECT: &str = "!subject";
/// What is replaced.
const PATTERN: &str = "!pattern";
/// What it is replaced by, or what stands between the items.
const FILLING: &str = "!filling";
/// A text that was put together in a loop.
const GROWN: &str = "!grown";

/// Passes the operands of all multiplying operations through the guards.
///
/// A node is `repeated` when it may be evaluated more than once: only then is appending a danger.
pub(super) fn guard(node: &mut AstNode, repeated: bool) {
    match node {
        AstNode::Binary {
            op: BinaryOp::ChainPipe,
            lhs,
            rhs,
        } => {
            // `text ~> $replace(pattern, filling)` has its subject on the left.
            if let AstNode::Function { name, args, .. } = &mut **rhs
                && guard_operands(name, args, 1)
            {
                wrap(lhs, SUBJECT);
            }
        }
        AstNode::Function { name, args, .. } => {
            if guard_operands(name, args, 0)
                && let Some(subject) = args.first_mut()
            {
                wrap(subject, SUBJECT);
            }
        }
        _ => {}
    }
    let repeats = repeated
        || matches!(
            node,
            AstNode::Lambda { .. }
                | AstNode::Path { .. }
                | AstNode::FunctionApplication(_)
                | AstNode::ObjectTransform { .. }
                | AstNode::Sort { .. }
                | AstNode::Transform { .. }
        );
    let is_concatenation = is_concatenation(node);
    for_each_child_mut(node, &mut |child| {
        // The whole of `a & b & c` is guarded, not its parts.
        let is_part = is_concatenation && self::is_concatenation(child);
        jsonata_core::value::with_stack(|| guard(child, repeats));
        if repeats && !is_part && self::is_concatenation(child) {
            wrap(child, GROWN);
        }
    });
}

/// Whether a function is one of the guards.
pub(super) fn is_guard(name: &str) -> bool {
    name.starts_with('!')
}

fn is_concatenation(node: &AstNode) -> bool {
    matches!(
        node,
        AstNode::Binary {
            op: BinaryOp::Concatenate,
            ..
        }
    )
}

/// Wraps pattern and filling of a call whose subject is not among its first `missing` arguments.
fn guard_operands(name: &str, arguments: &mut [AstNode], missing: usize) -> bool {
    // `$replace(?, 'a', 'b')` makes a function, and wrapping its placeholder would make another.
    if arguments.contains(&AstNode::Placeholder) {
        return false;
    }
    let (pattern, filling) = match (name, arguments.len() + missing) {
        ("replace", 3 | 4) => (Some(1 - missing), 2 - missing),
        ("join", 2) => (None, 1 - missing),
        _ => return false,
    };
    if let Some(pattern) = pattern.and_then(|position| arguments.get_mut(position)) {
        wrap(pattern, PATTERN);
    }
    if let Some(filling) = arguments.get_mut(filling) {
        wrap(filling, FILLING);
    }
    true
}

fn wrap(node: &mut AstNode, guard: &str) {
    let wrapped = std::mem::replace(node, AstNode::Undefined);
    *node = call(guard, vec![wrapped]);
}

/// What is known of an operation until its last operand comes.
struct Pending {
    subject: JValue,
    pattern: JValue,
}

/// The text that may still be made, in bytes.
pub(super) type Budget = Rc<Cell<usize>>;

/// Makes the guards known to an evaluator.
pub(super) fn register(evaluator: &mut Evaluator, budget: &Budget) -> Result<(), EvaluatorError> {
    let pending = Rc::new(RefCell::new(Vec::<Pending>::new()));
    let subjects = Rc::clone(&pending);
    evaluator.register_fn_override(SUBJECT, move |arguments: &[JValue]| {
        let subject = operand(arguments);
        subjects.borrow_mut().push(Pending {
            subject: subject.clone(),
            pattern: JValue::Undefined,
        });
        Ok(subject)
    })?;
    let patterns = Rc::clone(&pending);
    evaluator.register_fn_override(PATTERN, move |arguments: &[JValue]| {
        let pattern = operand(arguments);
        if let Some(operation) = patterns.borrow_mut().last_mut() {
            operation.pattern = pattern.clone();
        }
        Ok(pattern)
    })?;
    let fillings = Rc::clone(budget);
    evaluator.register_fn_override(FILLING, move |arguments: &[JValue]| {
        let filling = operand(arguments);
        if let (Some(operation), JValue::String(text)) = (pending.borrow_mut().pop(), &filling) {
            spend(&fillings, growth(&operation, text))?;
        }
        Ok(filling)
    })?;
    let grown = Rc::clone(budget);
    evaluator.register_fn_override(GROWN, move |arguments: &[JValue]| {
        let text = operand(arguments);
        spend(&grown, text.as_str().map_or(0, str::len))?;
        Ok(text)
    })
}

fn operand(arguments: &[JValue]) -> JValue {
    arguments.first().cloned().unwrap_or(JValue::Undefined)
}

/// Takes from the budget, unless there is not enough of it.
pub(super) fn spend(budget: &Budget, bytes: usize) -> Result<(), EvaluatorError> {
    let left = budget.get().checked_sub(bytes);
    budget.set(left.ok_or_else(|| {
        EvaluatorError::EvaluationError(
            "D2015: the expression makes more text than is allowed".to_owned(),
        )
    })?);
    Ok(())
}

/// The most that filling can add to a subject.
fn growth(operation: &Pending, filling: &str) -> usize {
    match (&operation.subject, &operation.pattern) {
        (JValue::Array(items), _) => items.len().saturating_mul(filling.len()),
        (JValue::String(text), JValue::String(pattern)) if !pattern.is_empty() => text
            .matches(&**pattern)
            .count()
            .saturating_mul(filling.len()),
        (JValue::String(text), JValue::Regex { pattern, flags }) => {
            let matches =
                build_regex(pattern, flags).map_or(0, |regex| regex.find_iter(text).count());
            // Each `$0` or `$1` may stand for what was matched, which all in all is no more than the text.
            let references = filling.matches('$').count().saturating_mul(text.len());
            matches
                .saturating_mul(filling.len())
                .saturating_add(references)
        }
        _ => 0,
    }
}
