//! Plain async functions as handlers: JSON goes in, JSON comes out, types stand between.
//!
//! An input that does not fit is refused before the function is called, and an output that the saga
//! cannot take is refused before it is sent: neither gets better by another attempt.

use crate::{context::TaskContext, error::TaskError};
use dirigent_contracts::{error_name, limit};
use futures::future::{BoxFuture, FutureExt as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{future::Future, io, sync::Arc};

/// A handler whose types are gone.
pub(crate) type Handler = Arc<
    dyn Fn(TaskContext, Arc<Value>) -> BoxFuture<'static, Result<Value, TaskError>> + Send + Sync,
>;

/// Levels of nesting that the reply adds around its output.
const ENVELOPE_DEPTH: usize = 4;

/// Wraps a typed function.
pub(crate) fn erase<I, O, F, Fut>(function: F) -> Handler
where
    F: Fn(TaskContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
    I: DeserializeOwned,
    O: Serialize,
{
    Arc::new(move |context, input| match decode::<I>(&context, &input) {
        Ok(input) => {
            let most = context.most_output();
            let call = function(context, input);
            async move { encode(&call.await?, most) }.boxed()
        }
        Err(error) => futures::future::ready(Err(error)).boxed(),
    })
}

fn decode<I: DeserializeOwned>(context: &TaskContext, input: &Value) -> Result<I, TaskError> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            String::new()
        } else {
            format!(" at field {path:?}")
        };
        let cause = format!("the input of {}{place}: {}", context.task(), error.inner());
        TaskError::new(error_name::BAD_PAYLOAD, cause).permanent()
    })
}

fn encode<O: Serialize>(output: &O, most: u64) -> Result<Value, TaskError> {
    let output = serde_json::to_value(output).map_err(|error| {
        let cause = format!("the output cannot be written as JSON: {error}");
        TaskError::new(error_name::BAD_PAYLOAD, cause).permanent()
    })?;
    let size = size(&output);
    if size as u64 > most {
        let cause = format!(
            "the output has {size} bytes of JSON, and the limit `payload` allows the saga {most}"
        );
        return Err(TaskError::new(error_name::DATA_LIMIT_EXCEEDED, cause).permanent());
    }
    let depth = depth(&output);
    if depth > limit::DEPTH - ENVELOPE_DEPTH {
        let most = limit::DEPTH - ENVELOPE_DEPTH;
        let cause = format!("the output is nested {depth} levels deep, at most {most} fit");
        return Err(TaskError::new(error_name::BAD_PAYLOAD, cause).permanent());
    }
    Ok(output)
}

/// Bytes of the value's JSON, counted without writing it down.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither a Value nor the counter can fail; if one did, the size would be no fit.
    if serde_json::to_writer(&mut count, value).is_err() {
        usize::MAX
    } else {
        count.0
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::{
        envelope,
        id::{DefinitionName, JournalSeq, RunId, SagaAddress, SagaKey},
        task::{Reply, TaskResult},
        time::Timestamp,
    };
    use serde_json::json;

    const MOST: u64 = 1_000;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn the_size_is_that_of_the_json() {
        let value = json!({"a": [1, "é\n", null], "b": 2.5});
        assert_eq!(size(&value), value.to_string().len());
    }

    #[test]
    fn an_output_as_deep_as_allowed_is_readable_at_the_other_end() {
        let saga = SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("o-1").unwrap(),
        };
        let command = RunId::derive(&saga, JournalSeq(1), Timestamp(1))
            .effect(0)
            .command(1);
        let output = encode(&nested(limit::DEPTH - ENVELOPE_DEPTH), MOST).unwrap();
        let result = TaskResult::Succeeded {
            output: Arc::new(output),
        };
        let reply = Reply {
            command,
            result,
            callback: false,
            worker: String::new(),
            timing: None,
        };
        assert_eq!(
            envelope::decode::<Reply>(&envelope::encode(&reply)).unwrap(),
            reply
        );
        let error = encode(&nested(limit::DEPTH - ENVELOPE_DEPTH + 1), MOST).unwrap_err();
        assert_eq!(
            (error.name(), error.is_retryable()),
            (error_name::BAD_PAYLOAD, false)
        );
    }

    #[test]
    fn an_output_above_the_limit_is_refused() {
        assert!(encode(&"x".repeat(998), MOST).is_ok());
        let error = encode(&"x".repeat(999), MOST).unwrap_err();
        assert_eq!(
            (error.name(), error.is_retryable()),
            (error_name::DATA_LIMIT_EXCEEDED, false)
        );
    }
}
