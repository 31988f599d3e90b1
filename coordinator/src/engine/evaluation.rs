//! How data enters and leaves a state, in both query languages.
//!
//! `JSONPath`: `InputPath`, `Parameters`, (work), `ResultSelector`, `ResultPath`, `OutputPath`.
//! `JSONata`: `Arguments`, (work), `Output`. `Assign` in both, evaluated with the old variables.

use super::{
    program::{Kind, Quantity, Selection, State, Text},
    saga::{self, Run},
    turn::Turn,
};
use crate::expression::{
    Environment, EvaluationError, Expression, IntrinsicError, Path, PathError, Query, QueryError,
    Scope, Template, TemplateError, TemplateErrorKind, Variables,
};
use dirigent_contracts::{
    definition::model::QueryLanguage, error_name, limit, outcome::Failure, time::Timestamp,
};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// The variables that a scope sees: its own, then those of the scopes around it.
pub(super) struct Sight<'a> {
    pub(super) run: &'a Run,
    pub(super) scope: u32,
}

impl Variables for Sight<'_> {
    fn variable(&self, name: &str) -> Option<&Value> {
        let mut at = self.run.scopes.get(&self.scope);
        while let Some(scope) = at {
            if let Some(value) = scope.variables.get(name) {
                return Some(value);
            }
            at = scope
                .parent
                .and_then(|slot| self.run.scopes.get(&slot.scope));
        }
        None
    }
}

impl Sight<'_> {
    /// All of them in one map, for when the scopes will be gone.
    pub(super) fn flatten(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let mut at = self.run.scopes.get(&self.scope);
        while let Some(scope) = at {
            for (name, value) in &scope.variables {
                all.entry(name.clone()).or_insert_with(|| value.clone());
            }
            at = scope
                .parent
                .and_then(|slot| self.run.scopes.get(&slot.scope));
        }
        all
    }
}

/// What an expression is evaluated against, besides the variables.
#[derive(Clone, Copy, Default)]
pub(super) struct Subject<'v> {
    pub(super) result: Option<&'v Value>,
    pub(super) error_output: Option<&'v Value>,
    pub(super) token: Option<&'v str>,
    pub(super) item: Option<(u32, &'v Value)>,
}

/// The field of the context object that tells of the saga.
pub(super) const EXECUTION: &str = "Execution";

static EMPTY: LazyLock<Arc<Value>> = LazyLock::new(|| Arc::new(json!({})));

impl Turn<'_> {
    /// The state's input as its fields see it: `InputPath` applied, or as it is.
    pub(super) fn effective_input(
        &mut self,
        scope: u32,
        state: &State,
    ) -> Result<Arc<Value>, Failure> {
        let Some(raw) = self.scope(scope).map(|scope| Arc::clone(&scope.input)) else {
            return Ok(Arc::clone(&EMPTY));
        };
        match &state.data.input {
            Selection::Whole => Ok(raw),
            Selection::Nothing => Ok(Arc::clone(&EMPTY)),
            Selection::Path(path) => self
                .select(scope, state, path, &raw, "InputPath")
                .map(Arc::new),
        }
    }

    /// What the state works on: `Parameters` or `Arguments` if it has them, else `input`.
    pub(super) fn arguments(
        &mut self,
        scope: u32,
        state: &State,
        input: &Arc<Value>,
        subject: Subject<'_>,
    ) -> Result<Arc<Value>, Failure> {
        match &state.data.arguments {
            None => Ok(Arc::clone(input)),
            Some(template) => {
                let field = match state.language {
                    QueryLanguage::JsonPath => "Parameters",
                    QueryLanguage::Jsonata => "Arguments",
                };
                self.template(scope, state, template, input, subject, field)
                    .map(Arc::new)
            }
        }
    }

    /// The state's output and the variables that it assigns, from its result.
    pub(super) fn output(
        &mut self,
        scope: u32,
        state: &State,
        result: &Arc<Value>,
    ) -> Result<(Arc<Value>, Map<String, Value>), Failure> {
        let Some(raw) = self.scope(scope).map(|scope| Arc::clone(&scope.input)) else {
            return Ok((Arc::clone(result), Map::new()));
        };
        let (output, assigned) = match state.language {
            QueryLanguage::JsonPath => {
                let assigned = self.assign(
                    scope,
                    state,
                    state.data.assign.as_ref(),
                    result,
                    Subject::default(),
                )?;
                let result = match &state.data.result_selector {
                    None => Arc::clone(result),
                    Some(template) => {
                        let value = self.template(
                            scope,
                            state,
                            template,
                            result,
                            Subject::default(),
                            "ResultSelector",
                        )?;
                        Arc::new(value)
                    }
                };
                let combined = combine(&state.data.result_path, &raw, &result)?;
                (self.output_path(scope, state, combined)?, assigned)
            }
            QueryLanguage::Jsonata => {
                // Only these have a result of their own; the others pass on their input.
                let has_result = matches!(
                    state.kind,
                    Kind::Task(_) | Kind::Parallel { .. } | Kind::Map(_)
                );
                let subject = Subject {
                    result: has_result.then_some(&**result),
                    ..Subject::default()
                };
                let assigned =
                    self.assign(scope, state, state.data.assign.as_ref(), &raw, subject)?;
                let output = match &state.data.output {
                    None => Arc::clone(result),
                    Some(template) => {
                        Arc::new(self.template(scope, state, template, &raw, subject, "Output")?)
                    }
                };
                (output, assigned)
            }
        };
        self.check_size(state, &output)?;
        Ok((output, assigned))
    }

    pub(super) fn output_path(
        &mut self,
        scope: u32,
        state: &State,
        value: Arc<Value>,
    ) -> Result<Arc<Value>, Failure> {
        match &state.data.output_path {
            Selection::Whole => Ok(value),
            Selection::Nothing => Ok(Arc::clone(&EMPTY)),
            Selection::Path(path) => self
                .select(scope, state, path, &value, "OutputPath")
                .map(Arc::new),
        }
    }

    pub(super) fn assign(
        &mut self,
        scope: u32,
        state: &State,
        template: Option<&Template>,
        input: &Value,
        subject: Subject<'_>,
    ) -> Result<Map<String, Value>, Failure> {
        let Some(template) = template else {
            return Ok(Map::new());
        };
        match self.template(scope, state, template, input, subject, "Assign")? {
            Value::Object(assigned) => {
                self.check_variables(scope, state, &assigned)?;
                Ok(assigned)
            }
            _ => Ok(Map::new()),
        }
    }

    /// Evaluates a template of this state. `input` is `$` in `JSONPath` mode.
    pub(super) fn template(
        &mut self,
        scope: u32,
        state: &State,
        template: &Template,
        input: &Value,
        subject: Subject<'_>,
        field: &str,
    ) -> Result<Value, Failure> {
        if let Some(literal) = template.as_literal() {
            return Ok(literal.clone());
        }
        self.look(scope, state, input, subject, |seen, environment| {
            template.evaluate(seen, environment)
        })
        .map_err(|error| template_failure(state, field, &error))
    }

    pub(super) fn expression(
        &mut self,
        scope: u32,
        state: &State,
        expression: &Expression,
        input: &Value,
        field: &str,
    ) -> Result<Value, Failure> {
        let subject = Subject::default();
        let value = self
            .look(scope, state, input, subject, |seen, environment| {
                expression.evaluate(seen, environment)
            })
            .map_err(|error| expression_failure(state, field, expression.source(), &error))?;
        value.ok_or_else(|| undefined(state, field, expression.source()))
    }

    pub(super) fn select(
        &mut self,
        scope: u32,
        state: &State,
        path: &Path,
        input: &Value,
        field: &str,
    ) -> Result<Value, Failure> {
        let subject = Subject::default();
        self.look(scope, state, input, subject, |seen, _| path.select(seen))
            .map_err(|error| path_failure(state, field, &error))
    }

    fn query(
        &mut self,
        scope: u32,
        state: &State,
        query: &Query,
        input: &Value,
        field: &str,
    ) -> Result<Value, Failure> {
        let subject = Subject::default();
        self.look(scope, state, input, subject, |seen, environment| {
            query.evaluate(seen, environment)
        })
        .map_err(|error| match error {
            QueryError::Path(error) => path_failure(state, field, &error),
            QueryError::Intrinsic(error) => intrinsic_failure(state, field, &error),
        })
    }

    /// Looks at what a state of a scope sees. A context object holds the saga's whole input, which is
    /// copied once in a turn.
    pub(super) fn look<T>(
        &mut self,
        scope: u32,
        state: &State,
        input: &Value,
        subject: Subject<'_>,
        look: impl FnOnce(&Scope<'_>, &mut Environment) -> T,
    ) -> T {
        let mut context = Value::Null;
        if state.needs_context {
            let execution = self.execution.take().unwrap_or_else(|| {
                let mut execution = self.execution_without_input();
                execution["Input"] = Value::clone(&self.run.input);
                execution
            });
            context = self.context(scope, state, subject, execution);
        }
        let sight = Sight {
            run: self.run,
            scope,
        };
        let seen = view(input, &context, &sight, subject);
        let value = look(&seen, &mut self.environment);
        if let Some(execution) = context.get_mut(EXECUTION) {
            self.execution = Some(execution.take());
        }
        value
    }

    /// A number of this state: a literal, or computed from `input`.
    pub(super) fn quantity(
        &mut self,
        scope: u32,
        state: &State,
        quantity: &Quantity,
        input: &Value,
        field: &str,
    ) -> Result<f64, Failure> {
        let (value, error) = match quantity {
            Quantity::Literal(value) => return Ok(*value),
            Quantity::Expression(expression) => {
                let value = self.expression(scope, state, expression, input, field)?;
                (value, error_name::QUERY_EVALUATION_ERROR)
            }
            Quantity::Path(path) => {
                let value = self.select(scope, state, path, input, &format!("{field}Path"))?;
                (value, error_name::RUNTIME)
            }
        };
        // Step Functions takes a text that is a number, where it comes by a path.
        let text = value
            .as_str()
            .filter(|_| matches!(quantity, Quantity::Path(_)));
        let number = text.map_or_else(|| value.as_f64(), |text| text.parse().ok());
        number.ok_or_else(|| {
            failure(
                state,
                error,
                &format!("The field '{field}' must be a number, but is {value}"),
            )
        })
    }

    /// A whole number of this state that is not negative.
    pub(super) fn count(
        &mut self,
        scope: u32,
        state: &State,
        quantity: &Quantity,
        input: &Value,
        field: &str,
    ) -> Result<u64, Failure> {
        let number = self.quantity(scope, state, quantity, input, field)?;
        if number >= 0.0 && number.fract() == 0.0 && number <= 9_007_199_254_740_992.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be a whole number in range"
            )]
            return Ok(number as u64);
        }
        let error = match quantity {
            Quantity::Expression(_) => error_name::QUERY_EVALUATION_ERROR,
            Quantity::Literal(_) | Quantity::Path(_) => error_name::RUNTIME,
        };
        let message =
            format!("The field '{field}' must be a whole number of at least 0, but is {number}");
        Err(failure(state, error, &message))
    }

    pub(super) fn text(
        &mut self,
        scope: u32,
        state: &State,
        text: &Text,
        input: &Value,
        field: &str,
    ) -> Result<String, Failure> {
        let (value, error) = match text {
            Text::Literal(text) => return Ok(text.clone()),
            Text::Expression(expression) => {
                let value = self.expression(scope, state, expression, input, field)?;
                (value, error_name::QUERY_EVALUATION_ERROR)
            }
            Text::Query(query) => {
                let value = self.query(scope, state, query, input, &format!("{field}Path"))?;
                (value, error_name::RUNTIME)
            }
        };
        match value {
            Value::String(text) => Ok(text),
            other => Err(failure(
                state,
                error,
                &format!("The field '{field}' must be a string, but is {other}"),
            )),
        }
    }

    pub(super) fn instant(
        &mut self,
        scope: u32,
        state: &State,
        text: &Text,
        input: &Value,
    ) -> Result<Timestamp, Failure> {
        let written = self.text(scope, state, text, input, "Timestamp")?;
        let error = match text {
            Text::Expression(_) => error_name::QUERY_EVALUATION_ERROR,
            Text::Literal(_) | Text::Query(_) => error_name::RUNTIME,
        };
        parse_instant(&written).ok_or_else(|| {
            let message = format!(
                "The field 'Timestamp' must be an ISO-8601 date-time with an offset, \
                 such as 2026-01-31T12:00:00Z, but is {written:?}"
            );
            failure(state, error, &message)
        })
    }

    /// The context object that a state sees, if it may look at it, without the saga's input.
    pub(super) fn context_without_input(&self, scope: u32, state: &State) -> Value {
        if !state.needs_context {
            return Value::Null;
        }
        let execution = self.execution_without_input();
        self.context(scope, state, Subject::default(), execution)
    }

    fn execution_without_input(&self) -> Value {
        json!({
            "Id": self.address.to_string(),
            "Input": null,
            "Name": self.address.key.as_str(),
            "RoleArn": "",
            "StartTime": self.run.started_at.to_rfc3339(),
            "RedriveCount": 0,
        })
    }

    fn context(&self, scope: u32, state: &State, subject: Subject<'_>, execution: Value) -> Value {
        let run = &*self.run;
        let Some(at) = run.scopes.get(&scope) else {
            return Value::Null;
        };
        let mut of_state =
            json!({ "EnteredTime": at.entered_at.to_rfc3339(), "Name": &*state.name });
        if matches!(
            state.kind,
            Kind::Task(_) | Kind::Parallel { .. } | Kind::Map(_)
        ) {
            of_state["RetryCount"] = json!(at.retries.iter().sum::<u32>());
        }
        let mut context = json!({
            EXECUTION: null,
            "State": of_state,
            "StateMachine": {
                "Id": self.address.definition.as_str(),
                "Name": self.address.definition.as_str(),
            },
        });
        // Put in, where the macro would copy it.
        context[EXECUTION] = execution;
        let own = subject
            .item
            .map(|(index, value)| json!({ "Index": index, "Value": value }));
        if let Some(item) = own.or_else(|| enclosing_item(run, scope)) {
            context["Map"] = json!({ "Item": item });
        }
        if let Some(token) = subject.token {
            context["Task"] = json!({ "Token": token });
        }
        context
    }
}

fn view<'a>(
    input: &'a Value,
    context: &'a Value,
    variables: &'a dyn Variables,
    subject: Subject<'a>,
) -> Scope<'a> {
    let mut scope = Scope::new(input, context, variables);
    if let Some(result) = subject.result {
        scope = scope.with_result(result);
    }
    if let Some(error_output) = subject.error_output {
        scope = scope.with_error_output(error_output);
    }
    scope
}

fn enclosing_item(run: &Run, scope: u32) -> Option<Value> {
    let mut at = run.scopes.get(&scope);
    while let Some(scope) = at {
        if let Some(item) = &scope.item {
            return Some(json!({ "Index": item.index, "Value": &*item.value }));
        }
        at = scope.parent.and_then(|slot| run.scopes.get(&slot.scope));
    }
    None
}

/// `ResultPath`: puts the result into the raw input.
pub(super) fn combine(
    path: &Selection,
    raw: &Arc<Value>,
    result: &Arc<Value>,
) -> Result<Arc<Value>, Failure> {
    match path {
        Selection::Whole => Ok(Arc::clone(result)),
        Selection::Nothing => Ok(Arc::clone(raw)),
        Selection::Path(path) => path
            .assign(Value::clone(raw), Value::clone(result))
            .map(Arc::new)
            .map_err(|error| {
                Failure::new(error_name::RESULT_PATH_MATCH_FAILURE, error.to_string())
            }),
    }
}

/// RFC 3339 with a capital `T`, as the specification's profile of ISO 8601 wants it.
pub(super) fn parse_instant(text: &str) -> Option<Timestamp> {
    (text.as_bytes().get(10) == Some(&b'T'))
        .then(|| Timestamp::parse_rfc3339(text))
        .flatten()
}

pub(super) fn failure(state: &State, error: &str, message: &str) -> Failure {
    Failure::new(
        error,
        format!(
            "An error occurred while executing the state '{}': {message}",
            state.name
        ),
    )
}

fn undefined(state: &State, field: &str, source: &str) -> Failure {
    let message = format!(
        "The JSONata expression '{source}' specified for the field '{field}' returned nothing \
         (undefined)."
    );
    failure(state, error_name::QUERY_EVALUATION_ERROR, &message)
}

fn expression_failure(
    state: &State,
    field: &str,
    source: &str,
    error: &EvaluationError,
) -> Failure {
    let message = format!(
        "The JSONata expression '{source}' specified for the field '{field}' threw an error \
         during evaluation: {}",
        error.message
    );
    failure(state, error_name::QUERY_EVALUATION_ERROR, &message)
}

pub(super) fn path_failure(state: &State, field: &str, error: &PathError) -> Failure {
    failure(
        state,
        error_name::RUNTIME,
        &format!("The field '{field}' cannot be evaluated: {error}"),
    )
}

fn intrinsic_failure(state: &State, field: &str, error: &IntrinsicError) -> Failure {
    match error {
        IntrinsicError::Path(error) => path_failure(state, field, error),
        IntrinsicError::Failure { .. } => failure(
            state,
            error_name::INTRINSIC_FAILURE,
            &format!("The field '{field}' cannot be evaluated: {error}"),
        ),
    }
}

pub(super) fn template_failure(state: &State, field: &str, error: &TemplateError) -> Failure {
    let field = format!("{field}{}", error.pointer);
    match &error.kind {
        TemplateErrorKind::Undefined => undefined(state, &field, &error.expression),
        TemplateErrorKind::Evaluation(cause) => {
            expression_failure(state, &field, &error.expression, cause)
        }
        TemplateErrorKind::Path(cause) => path_failure(state, &field, cause),
        TemplateErrorKind::Intrinsic(cause) => intrinsic_failure(state, &field, cause),
    }
}

impl Turn<'_> {
    /// Whether a value may be the input or output of a state.
    pub(super) fn check_size(&self, state: &State, value: &Value) -> Result<(), Failure> {
        let most = self.run.limits.payload;
        if json_bytes(value) as u64 <= most {
            return Ok(());
        }
        let message = format!(
            "The state/task '{}' returned a result with a size exceeding the maximum of {most} bytes.",
            state.name,
        );
        Err(Failure::new(error_name::DATA_LIMIT_EXCEEDED, message))
    }
}

impl Turn<'_> {
    /// Whether variables may have these values: each is bounded, and all that the saga has together are.
    fn check_variables(
        &self,
        scope: u32,
        state: &State,
        assigned: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let most = self.run.limits.payload;
        let refuse = |message: String| {
            let failure = failure(state, error_name::DATA_LIMIT_EXCEEDED, &message);
            Err(failure)
        };
        for (name, value) in assigned {
            let bytes = json_bytes(value);
            if bytes as u64 > most {
                return refuse(format!(
                    "the variable '{name}' would have {bytes} bytes, and may have {most}: the limit \
                     `payload`"
                ));
            }
        }
        let (added, replaced) = self.growth(scope, assigned);
        let bytes = (self.run.variable_bytes + added).saturating_sub(replaced);
        if bytes > limit::VARIABLES_BYTES {
            return refuse(format!(
                "the variables of the saga would have {bytes} bytes together, and may have {}",
                limit::VARIABLES_BYTES
            ));
        }
        Ok(())
    }

    /// How many bytes variables bring to a scope, and how many of older values they replace.
    fn growth(&self, scope: u32, assigned: &Map<String, Value>) -> (u64, u64) {
        let mut replaced = 0;
        if let Some(scope) = self.scope(scope) {
            let old = assigned.keys().filter_map(|name| scope.variables.get(name));
            replaced = old.map(|value| json_bytes(value) as u64).sum();
        }
        (bytes_of(assigned), replaced)
    }

    /// A scope's variables get their values.
    pub(super) fn set_variables(&mut self, number: u32, assigned: Map<String, Value>) {
        let (added, replaced) = self.growth(number, &assigned);
        if let Some(scope) = self.scope_mut(number) {
            scope.variables.extend(assigned);
            self.run.variable_bytes = (self.run.variable_bytes + added).saturating_sub(replaced);
        }
    }

    /// A scope has ended, and its variables with it.
    pub(super) fn remove_scope(&mut self, number: u32) -> Option<saga::Scope> {
        let scope = self.run.scopes.remove(&number)?;
        let freed = bytes_of(&scope.variables);
        self.run.variable_bytes = self.run.variable_bytes.saturating_sub(freed);
        Some(scope)
    }
}

fn bytes_of(variables: &Map<String, Value>) -> u64 {
    let bytes = variables.values().map(json_bytes);
    bytes.sum::<usize>() as u64
}

/// The length of a value as compact JSON, give or take escapes: cheap enough for every transition.
pub(super) fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(value) => 5 - usize::from(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.checked_ilog10().unwrap_or(0) as usize + 1,
            (None, Some(number)) => {
                number.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 2
            }
            (None, None) => number.to_string().len(),
        },
        Value::String(text) => text.len() + 2,
        Value::Array(items) => {
            1 + items
                .iter()
                .map(|item| json_bytes(item) + 1)
                .sum::<usize>()
                .max(1)
        }
        Value::Object(fields) => {
            let inner: usize = fields
                .iter()
                .map(|(name, value)| name.len() + 4 + json_bytes(value))
                .sum();
            1 + inner.max(1)
        }
    }
}
