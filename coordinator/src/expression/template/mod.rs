//! Payload templates: a JSON document some of whose leaves are computed, in the notation of either query language.
//!
//! In JSONPath a field `"name.$"` holds a path or an intrinsic function call, and becomes the field `name`. In JSONata
//! any string that is `{% ... %}` is an expression. A template is compiled once; subtrees without anything to compute
//! stay literals, and a template that is one literal costs a clone. Errors say where in the template they arose.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::environment::Environment;
use super::intrinsic::{IntrinsicError, Query, QueryError};
use super::jsonata::{EvaluationError, Expression, expression_source};
use super::path::PathError;
use super::scope::Scope;
use super::syntax::SyntaxError;

/// What marks a computed field of a JSONPath template.
const COMPUTED: &str = ".$";

/// A compiled payload template.
#[derive(Debug)]
pub struct Template {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Literal(Value),
    Expression(Expression),
    Query(Query),
    Array(Vec<Node>),
    Object(Vec<Field>),
}

#[derive(Debug)]
struct Field {
    /// The name in the payload.
    name: String,
    /// The name in the template, which errors point at.
    written: String,
    node: Node,
}

impl Template {
    /// Compiles a template of a state whose query language is JSONPath.
    pub fn compile_jsonpath(template: &Value) -> Result<Self, TemplateSyntaxError> {
        Ok(Self {
            root: jsonpath_node(template, &mut Pointer::default())?,
        })
    }

    /// Compiles a template of a state whose query language is JSONata.
    pub fn compile_jsonata(template: &Value) -> Result<Self, TemplateSyntaxError> {
        Ok(Self {
            root: jsonata_node(template, &mut Pointer::default())?,
        })
    }

    /// A template that is this value, whatever it looks like.
    pub fn literal(value: Value) -> Self {
        Self {
            root: Node::Literal(value),
        }
    }

    /// The payload of a template that computes nothing, without a copy.
    pub fn as_literal(&self) -> Option<&Value> {
        match &self.root {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// The payload.
    pub fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Value, TemplateError> {
        evaluate(&self.root, scope, environment, &mut Pointer::default())
    }
}

fn jsonpath_node(template: &Value, pointer: &mut Pointer) -> Result<Node, TemplateSyntaxError> {
    match template {
        Value::Array(items) => {
            let nodes = compile_items(items, pointer, jsonpath_node)?;
            Ok(literal_array(nodes))
        }
        Value::Object(members) => {
            let mut fields: Vec<Field> = Vec::with_capacity(members.len());
            for (written, member) in members {
                let field = pointer.within(written, |pointer| {
                    let Some(name) = written.strip_suffix(COMPUTED) else {
                        return Ok(Field::new(written, written, jsonpath_node(member, pointer)?));
                    };
                    let Value::String(source) = member else {
                        let message = format!("the value of the field '{written}' must be a string that holds a path or an intrinsic function call");
                        return Err(pointer.error(&member.to_string(), SyntaxError::new(message)));
                    };
                    let query = Query::compile(source).map_err(|error| pointer.error(source, error))?;
                    Ok(Field::new(name, written, Node::Query(query)))
                })?;
                if fields.iter().any(|other| other.name == field.name) {
                    let message = format!(
                        "the field '{}' is given twice, as a literal and as '{}{COMPUTED}'",
                        field.name, field.name
                    );
                    return Err(pointer.within(written, |pointer| {
                        pointer.error(written, SyntaxError::new(message))
                    }));
                }
                fields.push(field);
            }
            Ok(literal_object(fields))
        }
        literal => Ok(Node::Literal(literal.clone())),
    }
}

fn jsonata_node(template: &Value, pointer: &mut Pointer) -> Result<Node, TemplateSyntaxError> {
    match template {
        Value::String(text) => match expression_source(text) {
            Some(source) => Expression::compile(source)
                .map(Node::Expression)
                .map_err(|error| pointer.error(source, error)),
            None => Ok(Node::Literal(template.clone())),
        },
        Value::Array(items) => {
            let nodes = compile_items(items, pointer, jsonata_node)?;
            Ok(literal_array(nodes))
        }
        Value::Object(members) => {
            let mut fields = Vec::with_capacity(members.len());
            for (name, member) in members {
                let node = pointer.within(name, |pointer| jsonata_node(member, pointer))?;
                fields.push(Field::new(name, name, node));
            }
            Ok(literal_object(fields))
        }
        literal => Ok(Node::Literal(literal.clone())),
    }
}

type Compiler = fn(&Value, &mut Pointer) -> Result<Node, TemplateSyntaxError>;

fn compile_items(
    items: &[Value],
    pointer: &mut Pointer,
    compile: Compiler,
) -> Result<Vec<Node>, TemplateSyntaxError> {
    let mut nodes = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        nodes.push(pointer.within(&index.to_string(), |pointer| compile(item, pointer))?);
    }
    Ok(nodes)
}

/// Folds an array of literals into one literal.
fn literal_array(nodes: Vec<Node>) -> Node {
    if !nodes.iter().all(Node::is_literal) {
        return Node::Array(nodes);
    }
    Node::Literal(Value::Array(
        nodes.into_iter().filter_map(Node::into_literal).collect(),
    ))
}

/// Folds an object of literals into one literal.
fn literal_object(fields: Vec<Field>) -> Node {
    if !fields.iter().all(|field| field.node.is_literal()) {
        return Node::Object(fields);
    }
    let members = fields
        .into_iter()
        .filter_map(|field| Some((field.name, field.node.into_literal()?)));
    Node::Literal(Value::Object(members.collect()))
}

impl Node {
    fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    fn into_literal(self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }
}

impl Field {
    fn new(name: &str, written: &str, node: Node) -> Self {
        Self {
            name: name.to_owned(),
            written: written.to_owned(),
            node,
        }
    }
}

fn evaluate(
    node: &Node,
    scope: &Scope<'_>,
    environment: &mut Environment,
    pointer: &mut Pointer,
) -> Result<Value, TemplateError> {
    match node {
        Node::Literal(value) => Ok(value.clone()),
        Node::Expression(expression) => match expression.evaluate(scope, environment) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(pointer.failure(expression.source(), TemplateErrorKind::Undefined)),
            Err(error) => {
                Err(pointer.failure(expression.source(), TemplateErrorKind::Evaluation(error)))
            }
        },
        Node::Query(query) => query.evaluate(scope, environment).map_err(|error| {
            let kind = match error {
                QueryError::Path(error) => TemplateErrorKind::Path(error),
                QueryError::Intrinsic(error) => TemplateErrorKind::Intrinsic(error),
            };
            pointer.failure(query.source(), kind)
        }),
        Node::Array(nodes) => {
            let mut items = Vec::with_capacity(nodes.len());
            for (index, node) in nodes.iter().enumerate() {
                // Index texts are only needed for computed items, whose errors may point at them.
                items.push(match node {
                    Node::Literal(value) => value.clone(),
                    _ => pointer.within(&index.to_string(), |pointer| {
                        evaluate(node, scope, environment, pointer)
                    })?,
                });
            }
            Ok(Value::Array(items))
        }
        Node::Object(fields) => {
            let mut members = Map::with_capacity(fields.len());
            for Field {
                name,
                written,
                node,
            } in fields
            {
                let value = pointer.within(written, |pointer| {
                    evaluate(node, scope, environment, pointer)
                })?;
                members.insert(name.clone(), value);
            }
            Ok(Value::Object(members))
        }
    }
}

/// The way from the template's root to the node at hand, as a JSON pointer (RFC 6901).
#[derive(Default)]
struct Pointer {
    text: String,
}

impl Pointer {
    fn within<T>(&mut self, token: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.text.len();
        self.text.push('/');
        for character in token.chars() {
            match character {
                '~' => self.text.push_str("~0"),
                '/' => self.text.push_str("~1"),
                other => self.text.push(other),
            }
        }
        let result = work(self);
        self.text.truncate(length);
        result
    }

    fn error(&self, source: &str, error: SyntaxError) -> TemplateSyntaxError {
        TemplateSyntaxError {
            pointer: self.text.clone(),
            text: source.to_owned(),
            error,
        }
    }

    fn failure(&self, expression: &str, kind: TemplateErrorKind) -> TemplateError {
        TemplateError {
            pointer: self.text.clone(),
            expression: expression.to_owned(),
            kind,
        }
    }
}

/// A template that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at '{pointer}': {error}")]
pub struct TemplateSyntaxError {
    /// The JSON pointer of the faulty field inside the template; empty for the template itself.
    pub pointer: String,
    /// The text that does not compile, without `{% %}`.
    pub text: String,
    /// What is wrong with it.
    pub error: SyntaxError,
}

/// A template that has no payload in the scope at hand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("at '{pointer}', '{expression}': {kind}")]
pub struct TemplateError {
    /// The JSON pointer of the failing field inside the template; empty for the template itself.
    pub pointer: String,
    /// The expression, path or call that failed, without `{% %}`.
    pub expression: String,
    /// Why it failed.
    pub kind: TemplateErrorKind,
}

/// Why a leaf of a template has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// The JSONata expression is undefined, which JSON cannot say.
    #[error("the expression returned nothing (undefined)")]
    Undefined,
    /// The JSONata expression failed.
    #[error(transparent)]
    Evaluation(EvaluationError),
    /// The path selects nothing.
    #[error(transparent)]
    Path(PathError),
    /// The intrinsic function failed.
    #[error(transparent)]
    Intrinsic(IntrinsicError),
}
