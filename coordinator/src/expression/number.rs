//! Between floating point and JSON numbers: an integral number is an integer again, and rounding is the one of ASL.
//! Invariant: no number that leaves this folder is written `5.0` because of a detour through floating point.

use serde_json::{Number, Value};

/// The first power of two at which an `f64` no longer fits an `i64`.
const I64_END: f64 = 9_223_372_036_854_775_808.0;

/// The JSON number of a floating point one, an integer where it is integral; `None` for NaN and the infinities.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn from_f64(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && (-I64_END..I64_END).contains(&number) {
        // The range check makes the cast exact; it also turns -0.0 into 0.
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

/// A JSON number rounded half up to an integer, which is what the intrinsic functions do with fractions.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn rounded(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let rounded = (number.as_f64()? + 0.5).floor();
    (-I64_END..I64_END)
        .contains(&rounded)
        .then_some(rounded as i64)
}

/// Rewrites a negative zero, which `serde_json` reads from `-0` as a float, into the integer that it is.
pub(crate) fn without_negative_zero(value: &mut Value) {
    match value {
        Value::Number(number)
            if number
                .as_f64()
                .is_some_and(|float| float == 0.0 && float.is_sign_negative()) =>
        {
            *value = Value::from(0);
        }
        Value::Array(items) => items.iter_mut().for_each(without_negative_zero),
        Value::Object(fields) => fields.values_mut().for_each(without_negative_zero),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn integral_floats_are_integers_again() {
        assert_eq!(from_f64(5.0), Some(json!(5)));
        assert_eq!(from_f64(-0.0), Some(json!(0)));
        assert_eq!(from_f64(1.5), Some(json!(1.5)));
        assert_eq!(from_f64(1e300), Some(json!(1e300)));
        assert_eq!(from_f64(f64::NAN), None);
    }

    #[test]
    fn fractions_round_half_up() {
        for (number, expected) in [("1.5", 2), ("-1.5", -1), ("2.4", 2), ("-2.6", -3), ("7", 7)] {
            let number: Number = number.parse().unwrap();
            assert_eq!(rounded(&number), Some(expected), "{number}");
        }
        assert_eq!(rounded(&Number::from_f64(1e300).unwrap()), None);
    }

    #[test]
    fn a_negative_zero_is_a_zero() {
        let mut value: Value = serde_json::from_str("[-0, {\"a\": -0}, 0.0, -1]").unwrap();
        without_negative_zero(&mut value);
        assert_eq!(value.to_string(), "[0,{\"a\":0},0.0,-1]");
    }
}
