//! What calls return and refuse, function by function.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::expression::scope::NoVariables;

fn evaluated(source: &str) -> Result<Value, IntrinsicError> {
    let input = json!({
        "name": "Arnav",
        "template": "Hello, my name is {}.",
        "numbers": [1, 2, 3, 4, 5],
        "mixed": [1, "1", 1.0, true, null, [1], {"a": 1}, 1],
        "object": {"a": 1, "b": [true, null]},
        "text": "This.is+a,test=string",
        "null": null,
        "float": 1.5,
        "nested": {"fst": {"a": {"a1": 1, "a2": 2}, "b": 2, "d": 3}, "snd": {"a": {"a3": 1, "a4": 2}, "c": 3, "d": 4}}
    });
    let context = json!({"Execution": {"Name": "run-1"}});
    let bias = json!(4.3);
    let variables = [("bias", &bias)];
    let scope = Scope::new(&input, &context, &variables);
    Intrinsic::compile(source)
        .expect(source)
        .evaluate(&scope, &mut Environment::new(0, 1))
}

fn assert_returns(table: &[(&str, Value)]) {
    for (source, expected) in table {
        assert_eq!(evaluated(source).as_ref(), Ok(expected), "{source}");
    }
}

fn assert_fails(table: &[(&str, &str)]) {
    for (source, says) in table {
        let error = evaluated(source).expect_err(source);
        assert!(
            matches!(error, IntrinsicError::Failure { .. }),
            "{source}: {error}"
        );
        assert!(error.to_string().contains(says), "{source}: {error}");
    }
}

#[test]
fn format_puts_values_into_a_template() {
    assert_returns(&[
        (
            "States.Format('Hello, my name is {}.', $.name)",
            json!("Hello, my name is Arnav."),
        ),
        (
            "States.Format($.template, $.name)",
            json!("Hello, my name is Arnav."),
        ),
        (
            "States.Format('{} {} {}', 1, null, true)",
            json!("1 null true"),
        ),
        ("States.Format('{}', $.float)", json!("1.5")),
        (
            "States.Format('{}', $.object)",
            json!("{a=1, b=[true, null]}"),
        ),
        ("States.Format('no place')", json!("no place")),
        ("States.Format('')", json!("")),
        (
            "States.Format('\\{\\} is {}, it\\'s \\\\', 1)",
            json!("{} is 1, it's \\"),
        ),
        ("States.Format('{a} { } {}', 1)", json!("{a} { } 1")),
        (
            "States.Format('{}', States.Format('{}-{}', $$.Execution.Name, $bias))",
            json!("run-1-4.3"),
        ),
    ]);
    assert_fails(&[
        ("States.Format('{} {}', 1)", "2 places {}, but 1 values"),
        ("States.Format('none', 1)", "0 places"),
        ("States.Format($.object)", "argument 1 must be a string"),
    ]);
}

#[test]
fn json_goes_to_text_and_back() {
    assert_returns(&[
        ("States.StringToJson('')", json!(null)),
        ("States.StringToJson(' ')", json!(null)),
        ("States.StringToJson('-0')", json!(0)),
        ("States.StringToJson('1.1')", json!(1.1)),
        ("States.StringToJson('\"a\"')", json!("a")),
        (
            "States.StringToJson('{\"a\": [1, 2]}')",
            json!({"a": [1, 2]}),
        ),
        (
            "States.JsonToString($.object)",
            json!("{\"a\":1,\"b\":[true,null]}"),
        ),
        ("States.JsonToString($.name)", json!("\"Arnav\"")),
        ("States.JsonToString($.null)", json!("null")),
        (
            "States.StringToJson(States.JsonToString($.object))",
            json!({"a": 1, "b": [true, null]}),
        ),
    ]);
    assert_fails(&[
        ("States.StringToJson('{')", "not JSON"),
        (
            "States.StringToJson(1)",
            "argument 1 must be a string, but is 1",
        ),
    ]);
}

#[test]
fn arrays_are_made_and_taken_apart() {
    assert_returns(&[
        ("States.Array()", json!([])),
        (
            "States.Array('a', 1, $.null, States.Array(true))",
            json!(["a", 1, null, [true]]),
        ),
        (
            "States.ArrayPartition($.numbers, 2)",
            json!([[1, 2], [3, 4], [5]]),
        ),
        (
            "States.ArrayPartition($.numbers, 9)",
            json!([[1, 2, 3, 4, 5]]),
        ),
        (
            "States.ArrayPartition($.numbers, 1.5)",
            json!([[1, 2], [3, 4], [5]]),
        ),
        ("States.ArrayPartition(States.Array(), 1)", json!([])),
        ("States.ArrayContains($.numbers, 5)", json!(true)),
        ("States.ArrayContains($.numbers, '5')", json!(false)),
        ("States.ArrayContains($.mixed, null)", json!(true)),
        ("States.ArrayContains($.mixed, $.mixed[6])", json!(true)),
        ("States.ArrayRange(1, 9, 2)", json!([1, 3, 5, 7, 9])),
        ("States.ArrayRange(1, 8, 3)", json!([1, 4, 7])),
        ("States.ArrayRange(5, -5, -5)", json!([5, 0, -5])),
        ("States.ArrayRange(0, 0, 1)", json!([0])),
        ("States.ArrayRange(1, 2, -1)", json!([])),
        ("States.ArrayGetItem($.numbers, 0)", json!(1)),
        ("States.ArrayGetItem($.numbers, 4)", json!(5)),
        ("States.ArrayLength($.numbers)", json!(5)),
        ("States.ArrayLength(States.Array())", json!(0)),
        (
            "States.ArrayUnique($.mixed)",
            json!([1, "1", 1.0, true, null, [1], {"a": 1}]),
        ),
    ]);
    assert_eq!(
        evaluated("States.ArrayRange(1, 1000, 1)")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        1000
    );
    assert_fails(&[
        ("States.ArrayPartition($.numbers, 0)", "greater than zero"),
        ("States.ArrayPartition($.numbers, -1)", "greater than zero"),
        (
            "States.ArrayPartition('a', 1)",
            "argument 1 must be an array",
        ),
        (
            "States.ArrayContains('a', 1)",
            "argument 1 must be an array",
        ),
        ("States.ArrayRange(1, 2, 0)", "must not be zero"),
        ("States.ArrayRange(0, 1000, 1)", "more than 1000 items"),
        (
            "States.ArrayRange(1, 9223372036854775807, 1)",
            "more than 1000 items",
        ),
        (
            "States.ArrayRange('a', 2, 1)",
            "argument 1 must be an integer",
        ),
        (
            "States.ArrayGetItem($.numbers, 5)",
            "no item 5 in an array of 5",
        ),
        ("States.ArrayGetItem($.numbers, -1)", "no item -1"),
        (
            "States.ArrayLength($.object)",
            "argument 1 must be an array",
        ),
        (
            "States.ArrayUnique(null)",
            "argument 1 must be an array, but is null",
        ),
    ]);
}

#[test]
fn texts_are_encoded_hashed_and_split() {
    assert_returns(&[
        (
            "States.Base64Encode('Data to encode')",
            json!("RGF0YSB0byBlbmNvZGU="),
        ),
        ("States.Base64Encode('')", json!("")),
        (
            "States.Base64Decode('RGF0YSB0byBlbmNvZGU=')",
            json!("Data to encode"),
        ),
        ("States.Base64Decode('')", json!("")),
        (
            "States.Hash('abc', 'SHA-1')",
            json!("a9993e364706816aba3e25717850c26c9cd0d89d"),
        ),
        (
            "States.StringSplit($.text, '.+,=')",
            json!(["This", "is", "a", "test", "string"]),
        ),
        ("States.StringSplit('1,2,3', ',')", json!(["1", "2", "3"])),
        ("States.StringSplit(',1,,2,', ',')", json!(["1", "2"])),
        ("States.StringSplit('abc', ',')", json!(["abc"])),
        ("States.StringSplit('abc', '')", json!(["abc"])),
        ("States.StringSplit('', ',')", json!([])),
        (
            "States.ArrayGetItem(States.StringSplit($$.Execution.Name, '-'), 0)",
            json!("run"),
        ),
    ]);
    let long = "x".repeat(10_001);
    assert_fails(&[
        (
            &format!("States.Base64Encode('{long}')"),
            "longer than 10000",
        ),
        (
            &format!("States.Hash('{long}', 'MD5')"),
            "longer than 10000",
        ),
        ("States.Base64Decode('#')", "not Base64"),
        ("States.Hash('abc', 'CRC')", "not 'CRC'"),
        (
            "States.Hash($.numbers, 'MD5')",
            "argument 1 must be a string, but is [1,2,3,4,5]",
        ),
        ("States.StringSplit(1, ',')", "argument 1 must be a string"),
    ]);
}

#[test]
fn objects_merge_shallowly() {
    assert_returns(&[
        (
            "States.JsonMerge($.nested.fst, $.nested.snd, false)",
            json!({"a": {"a3": 1, "a4": 2}, "b": 2, "c": 3, "d": 4}),
        ),
        (
            "States.JsonMerge(States.StringToJson('{\"x\": \"false\"}'), $.object, false)",
            json!({"x": "false", "a": 1, "b": [true, null]}),
        ),
    ]);
    assert_fails(&[
        ("States.JsonMerge($.object, $.object, true)", "only shallow"),
        ("States.JsonMerge($.object, 1, false)", "must be objects"),
    ]);
}

#[test]
fn numbers_are_added_and_drawn() {
    assert_returns(&[
        ("States.MathAdd(111, -1)", json!(110)),
        ("States.MathAdd(1.5, -1.5)", json!(1)),
        ("States.MathAdd(States.MathAdd(1, 2), $bias)", json!(7)),
        ("States.MathRandom(5, 6)", json!(5)),
    ]);
    let drawn = evaluated("States.MathRandom(-10, 10)")
        .unwrap()
        .as_i64()
        .unwrap();
    assert!((-10..10).contains(&drawn));
    assert_eq!(
        evaluated("States.MathRandom(0, 999, 3)"),
        evaluated("States.MathRandom(0, 999, 3)")
    );
    assert_ne!(
        evaluated("States.MathRandom(0, 1e9, 3)"),
        evaluated("States.MathRandom(0, 1e9, 4)")
    );
    assert_eq!(
        evaluated("States.UUID()").unwrap().as_str().map(str::len),
        Some(36)
    );
    assert_fails(&[
        ("States.MathAdd(9223372036854775807, 1)", "too large"),
        ("States.MathAdd('1', 1)", "argument 1 must be an integer"),
        ("States.MathRandom(5, 5)", "greater than the start"),
        (
            "States.MathRandom(0, 9, 'x')",
            "argument 3 must be an integer",
        ),
    ]);
}

#[test]
fn paths_among_the_arguments_may_hold_commas_and_parentheses() {
    assert_returns(&[
        (
            "States.Array($.object['a','b'], $.numbers.length(), $.numbers[?(@ > 3)], $.numbers[0,1])",
            json!([{"a": 1, "b": [true, null]}, 5, [4, 5], [1, 2]]),
        ),
        ("States.Array( $.name , 'x' )", json!(["Arnav", "x"])),
    ]);
    assert!(matches!(
        evaluated("States.Format('{}', $.none)"),
        Err(IntrinsicError::Path(PathError::NotFound { .. }))
    ));
    assert!(matches!(
        evaluated("States.Array($none)"),
        Err(IntrinsicError::Path(PathError::UndefinedVariable { .. }))
    ));
}

#[test]
fn an_open_escape_fails_when_it_runs() {
    assert_fails(&[
        ("States.Format('a\\nb')", "escapes nothing"),
        ("States.Array('\\d')", "escapes nothing"),
    ]);
}

#[test]
fn a_text_that_is_no_call_is_refused() {
    for (source, offset, says) in [
        ("", 0, "expected a path"),
        ("plain text", 0, "no intrinsic function 'plain'"),
        ("States.Nope()", 0, "no intrinsic function 'States.Nope'"),
        ("States.Array", 12, "must follow"),
        ("States.Array (1)", 12, "must follow"),
        ("States.Array(1", 14, "expected ',' or ')'"),
        ("States.Array(1,)", 15, "expected a path"),
        ("States.Array('a)", 13, "not closed"),
        ("States.Array(1) x", 16, "nothing may follow"),
        ("States.Array(1-)", 13, "not a number"),
        ("States.Array($.)", 15, "name is missing"),
        (
            "States.Array(States.UUID(1))",
            13,
            "takes 0 arguments, but is given 1",
        ),
        ("States.ArrayLength()", 0, "takes 1 arguments"),
        ("States.MathRandom(1)", 0, "takes 2 to 3"),
        ("States.Format()", 0, "takes at least 1"),
        ("States.Array(x)", 13, "no intrinsic function 'x'"),
    ] {
        let error = Intrinsic::compile(source).expect_err(source);
        assert_eq!(error.offset, Some(offset), "{source}: {error}");
        assert!(error.message.contains(says), "{source}: {error}");
    }
    let deep = format!("{}{}", "States.Array(".repeat(10_000), ")".repeat(10_000));
    assert!(
        Intrinsic::compile(&deep)
            .unwrap_err()
            .message
            .contains("deeper")
    );
}

#[test]
fn a_query_is_a_path_or_a_call() {
    assert!(matches!(Query::compile("$.a"), Ok(Query::Path(_))));
    assert!(matches!(Query::compile("$$.a"), Ok(Query::Path(_))));
    assert!(matches!(
        Query::compile("States.UUID()"),
        Ok(Query::Intrinsic(_))
    ));
    assert!(Query::compile("a").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,40}") {
        let _ = Query::compile(&text);
        let _ = Intrinsic::compile(&format!("States.Format({text}"));
    }

    #[test]
    fn what_compiles_returns_or_says_why(arguments in prop::collection::vec("('[a{}\\\\]{0,4}'|-?[0-9]{1,19}|null|true|\\$\\.a)", 0..4), function in 0..18_usize) {
        let names = ["Format", "StringToJson", "JsonToString", "Array", "ArrayPartition", "ArrayContains", "ArrayRange", "ArrayGetItem", "ArrayLength",
            "ArrayUnique", "Base64Encode", "Base64Decode", "Hash", "JsonMerge", "MathRandom", "MathAdd", "StringSplit", "UUID"];
        let source = format!("States.{}({})", names[function], arguments.join(", "));
        if let Ok(intrinsic) = Intrinsic::compile(&source) {
            let input = json!({"a": [1, 2]});
            let _ = intrinsic.evaluate(&Scope::new(&input, &Value::Null, &NoVariables), &mut Environment::new(0, 0));
        }
    }
}
