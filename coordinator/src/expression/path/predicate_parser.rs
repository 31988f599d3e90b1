//! The text of a filter to its predicate: `||` binds weakest, then `&&`, `!` and parentheses, comparisons tightest.

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::parser::Cursor;
use super::predicate::{Operand, Operator, Pattern, Predicate};
use crate::expression::syntax::SyntaxError;

/// `a || b || c`.
pub(super) fn disjunction(cursor: &mut Cursor<'_>) -> Result<Predicate, SyntaxError> {
    let mut alternatives = vec![conjunction(cursor)?];
    cursor.skip_space();
    while cursor.eat("||") {
        alternatives.push(conjunction(cursor)?);
        cursor.skip_space();
    }
    Ok(if alternatives.len() == 1 {
        alternatives.swap_remove(0)
    } else {
        Predicate::Any(alternatives)
    })
}

fn conjunction(cursor: &mut Cursor<'_>) -> Result<Predicate, SyntaxError> {
    let mut conditions = vec![negation(cursor)?];
    cursor.skip_space();
    while cursor.eat("&&") {
        conditions.push(negation(cursor)?);
        cursor.skip_space();
    }
    Ok(if conditions.len() == 1 {
        conditions.swap_remove(0)
    } else {
        Predicate::All(conditions)
    })
}

fn negation(cursor: &mut Cursor<'_>) -> Result<Predicate, SyntaxError> {
    cursor.skip_space();
    if cursor.eat("!") {
        return Ok(Predicate::Not(Box::new(cursor.nested(negation)?)));
    }
    if cursor.eat("(") {
        let group = cursor.nested(disjunction)?;
        cursor.expect(")")?;
        return Ok(group);
    }
    comparison(cursor)
}

fn comparison(cursor: &mut Cursor<'_>) -> Result<Predicate, SyntaxError> {
    let at = cursor.offset;
    let left = operand(cursor)?;
    cursor.skip_space();
    let Some(operator) = operator(cursor) else {
        return match left {
            Operand::Path(path) => Ok(Predicate::Exists(path)),
            Operand::Literal(Value::Bool(truth)) => Ok(Predicate::Constant(truth)),
            _ => Err(SyntaxError::at(
                at,
                "a literal is not a condition; compare it with something",
            )),
        };
    };
    cursor.skip_space();
    let right = operand(cursor)?;
    Ok(Predicate::Comparison {
        left,
        operator,
        right,
    })
}

fn operator(cursor: &mut Cursor<'_>) -> Option<Operator> {
    // Longer symbols first, for some begin with others.
    for (symbol, operator) in [
        ("===", Operator::SameAs),
        ("!==", Operator::NotSameAs),
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=~", Operator::Matches),
    ] {
        if cursor.eat(symbol) {
            return Some(operator);
        }
    }
    let rest = cursor.rest();
    let length = rest
        .find(|character: char| !character.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let operator = match rest[..length].to_ascii_lowercase().as_str() {
        "in" => Operator::In,
        "nin" => Operator::NotIn,
        "contains" => Operator::Contains,
        "size" => Operator::Size,
        "empty" => Operator::Empty,
        "subsetof" => Operator::SubsetOf,
        "anyof" => Operator::AnyOf,
        "noneof" => Operator::NoneOf,
        _ => return None,
    };
    cursor.offset += length;
    Some(operator)
}

fn operand(cursor: &mut Cursor<'_>) -> Result<Operand, SyntaxError> {
    match cursor.peek() {
        Some('@' | '$') => cursor.nested(|cursor| cursor.path(true)).map(Operand::Path),
        Some('/') => pattern(cursor).map(Operand::Pattern),
        _ => literal(cursor).map(Operand::Literal),
    }
}

fn literal(cursor: &mut Cursor<'_>) -> Result<Value, SyntaxError> {
    match cursor.peek() {
        Some('\'' | '"') => cursor.quoted().map(Value::String),
        Some('[') => cursor.nested(list),
        Some('-' | '0'..='9') => number(cursor),
        _ => {
            for (word, value) in [
                ("true", Value::Bool(true)),
                ("false", Value::Bool(false)),
                ("null", Value::Null),
            ] {
                if cursor.eat(word) {
                    return Ok(value);
                }
            }
            Err(cursor.error("expected a path, a text in quotes, a number, true, false, null, a list or a pattern"))
        }
    }
}

fn list(cursor: &mut Cursor<'_>) -> Result<Value, SyntaxError> {
    cursor.expect("[")?;
    cursor.skip_space();
    let mut items = Vec::new();
    if !cursor.rest().starts_with(']') {
        loop {
            cursor.skip_space();
            items.push(literal(cursor)?);
            cursor.skip_space();
            if !cursor.eat(",") {
                break;
            }
        }
    }
    cursor.expect("]")?;
    Ok(Value::Array(items))
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, SyntaxError> {
    let rest = cursor.rest();
    let is_part = |character: char| matches!(character, '0'..='9' | '.' | '-' | '+' | 'e' | 'E');
    let length = rest
        .find(|character| !is_part(character))
        .unwrap_or(rest.len());
    let number: Number = rest[..length]
        .parse()
        .map_err(|_| cursor.error(format!("'{}' is not a number", &rest[..length])))?;
    cursor.offset += length;
    Ok(Value::Number(number))
}

/// `/pattern/flags`, which has to match the whole text.
fn pattern(cursor: &mut Cursor<'_>) -> Result<Pattern, SyntaxError> {
    let start = cursor.offset;
    cursor.expect("/")?;
    let mut source = String::new();
    loop {
        match cursor.next() {
            None => return Err(SyntaxError::at(start, "the pattern is not closed")),
            Some('/') => break,
            Some('\\') if cursor.eat("/") => source.push('/'),
            Some('\\') => {
                source.push('\\');
                source.extend(cursor.next());
            }
            Some(character) => source.push(character),
        }
    }
    let flags = cursor.rest();
    let length = flags
        .find(|character: char| !character.is_ascii_alphabetic())
        .unwrap_or(flags.len());
    let flags = &flags[..length];
    cursor.offset += length;
    whole_text(&source, flags)
        .map(Pattern)
        .map_err(|error| SyntaxError::at(start, error))
}

/// A pattern that is anchored at both ends.
pub(super) fn whole_text(source: &str, flags: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?:{source})$"))
        .case_insensitive(flags.contains('i'))
        .multi_line(flags.contains('m'))
        .dot_matches_new_line(flags.contains('s'))
        .ignore_whitespace(flags.contains('x'))
        .build()
        .map_err(|error| format!("the pattern /{source}/ is not a regular expression: {error}"))
}
