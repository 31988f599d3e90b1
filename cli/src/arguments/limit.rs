//! Arguments of `limits`: values with the units that people use.

use super::operator::duration;
use bytesize::ByteSize;
use clap::Args;
use dirigent_contracts::limits::{Limit, LimitError, Limits, Unit};

#[derive(Clone, Debug, Args)]
pub(crate) struct LimitsArguments {
    /// New values, such as payload=1MiB, saga-age=720h, history=500000, or payload=default
    #[arg(value_name = "NAME=VALUE", value_parser = change)]
    pub(crate) changes: Vec<(Limit, u64)>,
}

/// A limit and its new value, within its range.
fn change(text: &str) -> Result<(Limit, u64), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a name and a value with = between them, such as payload=1MiB")?;
    let limit: Limit = name
        .parse()
        .map_err(|error: LimitError| error.to_string())?;
    let value = if value == "default" {
        limit.default()
    } else {
        match limit.unit() {
            Unit::Count => value
                .parse()
                .map_err(|_| format!("{value} is not a number"))?,
            Unit::Bytes => {
                let size: ByteSize = value.parse().map_err(|_| {
                    format!("{value} is not a size, such as 300000, 512KiB or 1MiB")
                })?;
                size.as_u64()
            }
            Unit::Seconds => duration(value)?.as_secs(),
            Unit::Milliseconds => u64::try_from(duration(value)?.as_millis()).unwrap_or(u64::MAX),
        }
    };
    let checked = Limits::default().set(limit, value);
    checked.map_err(|error| error.to_string())?;
    Ok((limit, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_with_the_units_of_people() {
        for (text, limit, value) in [
            ("payload=512KiB", Limit::Payload, 524_288),
            ("payload=300000", Limit::Payload, 300_000),
            ("saga-age=720h", Limit::SagaAge, 2_592_000),
            ("expression-time=500ms", Limit::ExpressionTime, 500),
            ("attempts=7", Limit::Attempts, 7),
            ("attempts=default", Limit::Attempts, 10_000),
        ] {
            assert_eq!(change(text), Ok((limit, value)));
        }
    }

    #[test]
    fn what_is_no_limit_says_why() {
        for (text, why) in [
            ("payload", "="),
            ("payloads=1", "there is no limit `payloads`"),
            ("payload=much", "not a size"),
            ("payload=1GiB", "between 1024 and"),
            ("attempts=0", "between 1 and"),
            ("attempts=many", "not a number"),
            ("saga-age=long", "such as"),
        ] {
            let error = change(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
