//! The text of a path to its steps. Recursion, which only filters cause, is bounded; offsets in errors are bytes.

use super::function::Function;
use super::{Path, Root, Step, predicate_parser};
use crate::expression::syntax::SyntaxError;

/// How deep filters, groups and lists may nest.
const MAX_DEPTH: usize = 32;

/// A position in the source of a path.
pub(super) struct Cursor<'s> {
    pub(super) source: &'s str,
    pub(super) offset: usize,
    depth: usize,
}

/// The whole text as a path.
pub(super) fn parse(source: &str) -> Result<Path, SyntaxError> {
    let mut cursor = Cursor {
        source: source.trim_end(),
        offset: 0,
        depth: 0,
    };
    if !cursor.source.starts_with('$') {
        return Err(SyntaxError::at(
            0,
            format!("the path '{source}' does not start with '$'"),
        ));
    }
    let mut path = cursor.path(false)?;
    if let Some(character) = cursor.peek() {
        return Err(cursor.error(format!(
            "'{character}' does not continue the path '{source}'"
        )));
    }
    source.clone_into(&mut path.source);
    Ok(path)
}

impl<'s> Cursor<'s> {
    pub(super) fn rest(&self) -> &'s str {
        &self.source[self.offset..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.offset += token.len();
        }
        found
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.offset += character.len_utf8();
        Some(character)
    }

    pub(super) fn skip_space(&mut self) {
        self.offset = self.source.len() - self.rest().trim_start().len();
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::at(self.offset, message)
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.eat(token) {
            return Ok(());
        }
        let found = self.peek().map_or_else(
            || "the end".to_owned(),
            |character| format!("'{character}'"),
        );
        Err(self.error(format!(
            "expected '{token}' but found {found} in the path '{}'",
            self.source
        )))
    }

    /// Runs a parser one level deeper, unless that is too deep.
    pub(super) fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("the path nests deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// A root and its steps. Inside a filter the path ends where an operator or a bracket may follow.
    pub(super) fn path(&mut self, in_filter: bool) -> Result<Path, SyntaxError> {
        let start = self.offset;
        let root = self.root()?;
        let mut path = Path {
            source: String::new(),
            root,
            steps: Vec::new(),
            function: None,
        };
        loop {
            if self.rest().starts_with('[') {
                let step = self.bracket()?;
                path.steps.push(step);
            } else if self.eat("..") {
                let step = self.descent(in_filter)?;
                path.steps.push(step);
            } else if self.rest().starts_with('.') {
                self.offset += 1;
                if self.eat("*") {
                    path.steps.push(Step::Wildcard);
                    continue;
                }
                let at = self.offset;
                let name = self.name(in_filter)?;
                if self.rest().starts_with('(') {
                    path.function = Some(self.function(&name, at)?);
                    break;
                }
                path.steps.push(Step::Field(name));
            } else {
                break;
            }
        }
        self.source[start..self.offset].clone_into(&mut path.source);
        Ok(path)
    }

    fn root(&mut self) -> Result<Root, SyntaxError> {
        if self.eat("@") {
            return Ok(Root::Item);
        }
        if self.eat("$$") {
            return Ok(Root::Context);
        }
        self.expect("$")?;
        let rest = self.rest();
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        let length = rest
            .find(|character| !is_part(character))
            .unwrap_or(rest.len());
        let name = &rest[..length];
        if name.starts_with(|character: char| character.is_numeric()) {
            return Err(self.error(format!(
                "a variable's name does not start with a digit: '${name}'"
            )));
        }
        self.offset += length;
        Ok(if name.is_empty() {
            Root::Document
        } else {
            Root::Variable(name.to_owned())
        })
    }

    fn descent(&mut self, in_filter: bool) -> Result<Step, SyntaxError> {
        let step = if self.rest().starts_with('[') {
            self.bracket()?
        } else if self.eat("*") {
            Step::Wildcard
        } else {
            Step::Field(self.name(in_filter)?)
        };
        Ok(Step::Descent(Box::new(step)))
    }

    /// A name after a dot. A backslash takes the character after it as it is, `\uXXXX` a character by its number.
    fn name(&mut self, in_filter: bool) -> Result<String, SyntaxError> {
        let start = self.offset;
        let mut name = String::new();
        while let Some(character) = self.peek() {
            let ends = match character {
                '.' | '[' | ']' | '(' | ')' | ',' => true,
                '=' | '!' | '<' | '>' | '&' | '|' | '~' => in_filter,
                '*' | '?' => {
                    return Err(self.error(format!(
                        "'{character}' in a name must be written in brackets and quotes"
                    )));
                }
                other => other.is_whitespace(),
            };
            if ends {
                break;
            }
            self.offset += character.len_utf8();
            name.push(if character == '\\' {
                self.escaped()?
            } else {
                character
            });
        }
        if self.offset == start {
            return Err(self.error(format!("a name is missing in the path '{}'", self.source)));
        }
        Ok(name)
    }

    fn escaped(&mut self) -> Result<char, SyntaxError> {
        match self.next() {
            Some('u') if self.rest().get(..4).is_some_and(is_hexadecimal) => self.unicode(),
            Some(character) => Ok(character),
            None => Err(self.error("the path ends with a backslash")),
        }
    }

    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.code_unit();
        let units = match first {
            Some(0xD800..=0xDBFF) if self.eat("\\u") => vec![first, self.code_unit()],
            _ => vec![first],
        };
        let units: Option<Vec<u16>> = units.into_iter().collect();
        let mut characters = char::decode_utf16(units.unwrap_or_default());
        match characters.next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(self.error("the escape \\u does not name a character")),
        }
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| is_hexadecimal(digits))?;
        self.offset += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    fn function(&mut self, name: &str, at: usize) -> Result<Function, SyntaxError> {
        self.expect("(")?;
        self.skip_space();
        let argument = if self.rest().starts_with(')') {
            None
        } else {
            Some(self.integer()?)
        };
        self.expect(")")?;
        Function::named(name, argument).map_err(|message| SyntaxError::at(at, message))
    }

    fn bracket(&mut self) -> Result<Step, SyntaxError> {
        self.expect("[")?;
        self.skip_space();
        let step = match self.peek() {
            Some('*') => {
                self.offset += 1;
                Step::Wildcard
            }
            Some('?') => {
                self.offset += 1;
                let predicate = self.nested(predicate_parser::disjunction)?;
                Step::Filter(Box::new(predicate))
            }
            Some('\'' | '"') => self.quoted_names()?,
            Some('-' | ':' | '0'..='9') => self.positions()?,
            Some('(') => {
                return Err(self
                    .error("scripts in brackets are not supported; count from the end with [-1]"));
            }
            _ => {
                return Err(self.error(
                    "brackets hold a quoted name, an index, a slice, '*' or a filter '?(...)'",
                ));
            }
        };
        self.expect("]")?;
        Ok(step)
    }

    fn quoted_names(&mut self) -> Result<Step, SyntaxError> {
        let first = self.quoted()?;
        let mut names = vec![first];
        self.skip_space();
        while self.eat(",") {
            self.skip_space();
            names.push(self.quoted()?);
            self.skip_space();
        }
        Ok(match names.len() {
            1 => Step::Field(names.swap_remove(0)),
            _ => Step::Fields(names),
        })
    }

    /// A text in quotes. Only the quote itself and a backslash are escaped by a backslash; before anything else it
    /// stands for itself, as recorded runs show.
    pub(super) fn quoted(&mut self) -> Result<String, SyntaxError> {
        let start = self.offset;
        let Some(quote @ ('\'' | '"')) = self.next() else {
            return Err(SyntaxError::at(start, "expected a name in quotes"));
        };
        let mut text = String::new();
        while let Some(character) = self.next() {
            match character {
                '\\' => match self.peek() {
                    Some(escaped) if escaped == quote || escaped == '\\' => {
                        self.offset += 1;
                        text.push(escaped);
                    }
                    _ => text.push('\\'),
                },
                end if end == quote => return Ok(text),
                other => text.push(other),
            }
        }
        Err(SyntaxError::at(start, "the quote is not closed"))
    }

    fn positions(&mut self) -> Result<Step, SyntaxError> {
        let first = self.optional_integer()?;
        self.skip_space();
        if self.eat(":") {
            self.skip_space();
            let end = self.optional_integer()?;
            self.skip_space();
            let at = self.offset;
            let mut stride = 1;
            if self.eat(":") {
                self.skip_space();
                stride = self.optional_integer()?.unwrap_or(1);
            }
            if stride <= 0 {
                return Err(SyntaxError::at(
                    at,
                    "the step of a slice must be greater than zero",
                ));
            }
            return Ok(Step::Slice {
                start: first,
                end,
                stride,
            });
        }
        let mut indexes = vec![first.ok_or_else(|| self.error("an index is missing"))?];
        while self.eat(",") {
            self.skip_space();
            indexes.push(self.integer()?);
            self.skip_space();
        }
        Ok(match indexes.as_slice() {
            [index] => Step::Index(*index),
            _ => Step::Indexes(indexes),
        })
    }

    fn optional_integer(&mut self) -> Result<Option<i64>, SyntaxError> {
        match self.peek() {
            Some('-' | '0'..='9') => self.integer().map(Some),
            _ => Ok(None),
        }
    }

    fn integer(&mut self) -> Result<i64, SyntaxError> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let sign = rest.len() - digits.len();
        let length = digits
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(digits.len());
        let number = rest[..sign + length].parse();
        let number = number.map_err(|_| self.error("expected an integer"))?;
        self.offset += sign + length;
        Ok(number)
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
