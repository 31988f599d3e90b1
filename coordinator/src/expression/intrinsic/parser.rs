//! The text of a call to its tree. Nesting is bounded; unknown functions and wrong numbers of arguments end here.

use serde_json::{Number, Value};

use super::call::{Argument, Call, Piece};
use super::function::Function;
use crate::expression::path::Path;
use crate::expression::syntax::SyntaxError;

/// How deep calls may nest: well above the ten levels of Step Functions.
const MAX_NESTING: usize = 64;

struct Parser<'s> {
    source: &'s str,
    offset: usize,
    nesting: usize,
}

/// The whole text as a call.
pub(super) fn parse(source: &str) -> Result<Call, SyntaxError> {
    let mut parser = Parser {
        source,
        offset: 0,
        nesting: 0,
    };
    let call = parser.call()?;
    parser.skip_space();
    if parser.offset < source.len() {
        return Err(parser.error("nothing may follow the closing parenthesis of the call"));
    }
    Ok(call)
}

impl<'s> Parser<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.offset..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.offset = self.source.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.offset += token.len_utf8();
        }
        found
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::at(self.offset, message)
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let length = rest
            .find(|character| !is_part(character))
            .unwrap_or(rest.len());
        self.offset += length;
        &rest[..length]
    }

    fn call(&mut self) -> Result<Call, SyntaxError> {
        self.skip_space();
        let start = self.offset;
        let name = self
            .word(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '_'));
        let function = Function::named(name).ok_or_else(|| {
            let message = if name.is_empty() {
                "expected a path that starts with '$' or a call of an intrinsic function".to_owned()
            } else {
                format!("there is no intrinsic function '{name}'")
            };
            SyntaxError::at(start, message)
        })?;
        if !self.eat('(') {
            return Err(self.error(format!("'(' must follow {function} immediately")));
        }
        if self.nesting == MAX_NESTING {
            return Err(self.error(format!("calls nest deeper than {MAX_NESTING} levels")));
        }
        self.nesting += 1;
        let arguments = self.arguments(function)?;
        self.nesting -= 1;
        let (least, most) = function.arity();
        if !(least..=most).contains(&arguments.len()) {
            let count = arguments.len();
            let expected = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            return Err(SyntaxError::at(
                start,
                format!("{function} takes {expected} arguments, but is given {count}"),
            ));
        }
        Ok(Call {
            function,
            arguments,
        })
    }

    fn arguments(&mut self, function: Function) -> Result<Vec<Argument>, SyntaxError> {
        let mut arguments = Vec::new();
        self.skip_space();
        if self.eat(')') {
            return Ok(arguments);
        }
        loop {
            self.skip_space();
            let is_template = function == Function::Format && arguments.is_empty();
            arguments.push(self.argument(is_template)?);
            self.skip_space();
            if self.eat(')') {
                return Ok(arguments);
            }
            if !self.eat(',') {
                return Err(self.error(format!(
                    "expected ',' or ')' in the arguments of {function}"
                )));
            }
        }
    }

    fn argument(&mut self, is_template: bool) -> Result<Argument, SyntaxError> {
        match self.peek() {
            Some('\'') => self.text(is_template),
            Some('$') => self.path(),
            Some('-' | '0'..='9') => {
                let start = self.offset;
                let text = self
                    .word(|character| matches!(character, '0'..='9' | '.' | '-' | '+' | 'e' | 'E'));
                let number: Result<Number, _> = text.parse();
                let number = number
                    .map_err(|_| SyntaxError::at(start, format!("'{text}' is not a number")))?;
                Ok(Argument::Literal(Value::Number(number)))
            }
            _ => {
                for (word, value) in [
                    ("true", Value::Bool(true)),
                    ("false", Value::Bool(false)),
                    ("null", Value::Null),
                ] {
                    if let Some(after) = self.rest().strip_prefix(word)
                        && !after.starts_with(|character: char| {
                            character.is_alphanumeric() || character == '.'
                        })
                    {
                        self.offset += word.len();
                        return Ok(Argument::Literal(value));
                    }
                }
                self.call().map(Argument::Call)
            }
        }
    }

    /// A text in apostrophes. In the template of a format, `{}` without a backslash is a place for an argument.
    fn text(&mut self, is_template: bool) -> Result<Argument, SyntaxError> {
        let start = self.offset;
        self.eat('\'');
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut open_escape = false;
        while let Some(character) = self.peek() {
            self.offset += character.len_utf8();
            match character {
                '\'' => {
                    if open_escape {
                        return Ok(Argument::OpenEscape(
                            self.source[start..self.offset].to_owned(),
                        ));
                    }
                    if !is_template {
                        return Ok(Argument::Literal(Value::String(text)));
                    }
                    pieces.push(Piece::Text(text));
                    return Ok(Argument::Template(pieces));
                }
                '\\' => match self.peek() {
                    Some(escaped @ ('\'' | '{' | '}' | '\\')) => {
                        self.offset += 1;
                        text.push(escaped);
                    }
                    // The specification makes this an error of the run, not of the definition.
                    _ => open_escape = true,
                },
                '{' if is_template && self.eat('}') => {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Place);
                }
                other => text.push(other),
            }
        }
        Err(SyntaxError::at(start, "the apostrophe is not closed"))
    }

    /// A path, which ends at the first comma or parenthesis that is not its own.
    fn path(&mut self) -> Result<Argument, SyntaxError> {
        let start = self.offset;
        let mut brackets = 0_usize;
        let mut parentheses = 0_usize;
        let mut quote = None;
        let mut characters = self.rest().char_indices();
        let mut length = self.rest().len();
        while let Some((at, character)) = characters.next() {
            match (quote, character) {
                (_, '\\') => {
                    characters.next();
                }
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') if brackets > 0 => quote = Some(character),
                (None, '[') => brackets += 1,
                (None, ']') => brackets = brackets.saturating_sub(1),
                (None, '(') => parentheses += 1,
                (None, ')') if parentheses > 0 => parentheses -= 1,
                (None, ',' | ')') if brackets == 0 && parentheses == 0 => {
                    length = at;
                    break;
                }
                _ => {}
            }
        }
        let source = self.rest()[..length].trim_end();
        self.offset += length;
        Path::compile(source)
            .map(Argument::Path)
            .map_err(|error| SyntaxError {
                offset: error.offset.map(|offset| start + offset),
                ..error
            })
    }
}

/// Splits the template of a format that is only known at run time. It is a value, so nothing in it is escaped.
pub(super) fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, text) in template.split("{}").enumerate() {
        if index > 0 {
            pieces.push(Piece::Place);
        }
        pieces.push(Piece::Text(text.to_owned()));
    }
    pieces
}
