//! What expressions give, table by table, in the words of the language's documentation and of recorded runs.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::expression::environment::Limits;
use crate::expression::scope::NoVariables;

const NOW: i64 = 1_700_000_000_123_456;

fn evaluated(source: &str, input: &Value) -> Result<Option<Value>, EvaluationError> {
    let context = json!({"Execution": {"Name": "run"}});
    let result = json!({"answer": 42});
    let list = json!([1, 2, 3]);
    let order = json!({"id": "o-1", "lines": [{"sku": "a", "count": 2}, {"sku": "b", "count": 1}]});
    let variables = [("list", &list), ("order", &order)];
    let scope = Scope::new(input, &context, &variables).with_result(&result);
    Expression::compile(source)
        .expect(source)
        .evaluate(&scope, &mut Environment::new(NOW, 1))
}

fn value(source: &str) -> Value {
    evaluated(source, &json!({"a": {"b": [5]}, "n": 7, "text": "x"}))
        .expect(source)
        .expect(source)
}

fn failure(source: &str) -> EvaluationError {
    evaluated(source, &json!({"a": 1})).expect_err(source)
}

#[test]
fn only_a_whole_text_between_the_marks_is_an_expression() {
    for (text, expected) in [
        ("{% $a %}", Some("$a")),
        ("{%$a%}", Some("$a")),
        ("{% %}", Some("")),
        (" {% $a %}", None),
        ("{% $a %} ", None),
        ("{%}", None),
        ("$a", None),
        ("", None),
    ] {
        assert_eq!(expression_source(text), expected, "{text:?}");
    }
}

#[test]
fn expressions_see_the_scope() {
    for (source, expected) in [
        ("$states.input.n", json!(7)),
        (
            "$states.input",
            json!({"a": {"b": [5]}, "n": 7, "text": "x"}),
        ),
        ("$states.input.a.b", json!([5])),
        ("$states.result.answer", json!(42)),
        ("$states.context.Execution.Name", json!("run")),
        ("$keys($states)", json!(["input", "context", "result"])),
        ("$list", json!([1, 2, 3])),
        ("$sum($list) + $states.input.n", json!(13)),
        ("$order.lines.sku", json!(["a", "b"])),
        ("$order.lines[count > 1].sku", json!("a")),
        ("$order.lines[-1].count", json!(1)),
        ("$order.lines.{sku: count}", json!([{"a": 2}, {"b": 1}])),
        ("$order.lines^(>count)[0].sku", json!("a")),
        ("$order.lines.%.id", json!(["o-1", "o-1"])),
        ("$order.lines#$i.($i & sku)", json!(["0a", "1b"])),
        ("$order.*[0]", json!("o-1")),
        (
            "$map($order.lines, function($line) { $line.count * 2 })",
            json!([4, 2]),
        ),
        (
            "($total := $sum($order.lines.count); $total / 2)",
            json!(1.5),
        ),
        ("$variable := 1", json!(1)),
        ("$contains('hello$world', /^hello\\$/)", json!(true)),
        ("$number('2')", json!(2)),
        ("{'a': $nowhere, 'b': null}", json!({"b": null})),
        ("[1, $nowhere, 2]", json!([1, 2])),
        ("$states.input.text & '-' & $states.input.n", json!("x-7")),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
}

#[test]
fn what_is_not_there_is_undefined() {
    for source in [
        "$nowhere",
        "$nowhere.a",
        "$states.errorOutput",
        "$states.input.n.x",
        "$states.nope",
        "$",
        "$$",
        "n",
        "$list.x",
    ] {
        assert_eq!(evaluated(source, &json!({"n": 1})), Ok(None), "{source}");
    }
}

#[test]
fn whole_numbers_stay_integers() {
    for (source, expected) in [
        ("2.5 * 2", "5"),
        ("$parse('-0')", "0"),
        ("$parse('1.1')", "1.1"),
        ("1e3", "1000"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("$millis()", "1700000000123"),
    ] {
        assert_eq!(value(source).to_string(), expected, "{source}");
    }
    let large = json!({"large": 9_007_199_254_740_993_i64, "float": 5.0});
    assert_eq!(evaluated("$states.input", &large), Ok(Some(large.clone())));
}

#[test]
fn the_functions_of_states_language() {
    for (source, expected) in [
        ("$partition([1, 2, 3, 4], 3)", json!([[1, 2, 3], [4]])),
        ("$partition([], 3)", json!([])),
        ("$partition([0], 5)", json!([[0]])),
        ("$range(0, 10, 5)", json!([0, 5, 10])),
        ("$range(1, 2, 0.25)", json!([1, 1.25, 1.5, 1.75, 2])),
        ("$range(3, 1, -1)", json!([3, 2, 1])),
        ("$range(1, 3, -1)", json!([])),
        (
            "$hash('abc', 'MD5')",
            json!("900150983cd24fb0d6963f7d28e17f72"),
        ),
        ("$parse('{\"a\": [1, \"x\"]}').a[1]", json!("x")),
        ("$parse('null')", json!(null)),
        ("$now()", json!("2023-11-14T22:13:20.123Z")),
        ("$now('[Y0001]')", json!("2023")),
        ("$random() < 1", json!(true)),
        ("$random(7) = $random(7)", json!(true)),
        ("$random() = $random()", json!(false)),
        ("$length($uuid())", json!(36)),
        ("$sum($shuffle([1, 2, 3]))", json!(6)),
        ("$replace('a-b-c', '-', '+')", json!("a+b+c")),
        ("$replace('a-b-c', '-', '+', 1)", json!("a+b-c")),
        ("'a-b-c' ~> $replace('-', '+')", json!("a+b+c")),
        ("$replace('265USD', /([0-9]+)USD/, '$$$1')", json!("$265")),
        (
            "$replace('ab', /b/, function($m) { $uppercase($m.match) })",
            json!("aB"),
        ),
        (
            "$replace('ab', 'a', $replace('cd', 'c', 'e'))",
            json!("edb"),
        ),
        (
            "($dashless := $replace(?, '-', ''); $dashless('a-b'))",
            json!("ab"),
        ),
        ("$join(['a', 'b'], '-') & $join(['c', 'd'])", json!("a-bcd")),
        ("['a', 'b'] ~> $join('-')", json!("a-b")),
        (
            "$reduce(['a', 'b', 'c'], function($all, $one) { $all & '-' & $one })",
            json!("a-b-c"),
        ),
        ("['a', 'b'].($ & 1 & $nowhere)", json!(["a1", "b1"])),
        ("$pad('foo', -5, '#')", json!("##foo")),
        ("$pad('foo', 5) & '|'", json!("foo  |")),
        ("[1, 2] ~> $partition(1)", json!([[1], [2]])),
        ("$map(['1', '2'], $parse)", json!([1, 2])),
        ("['1', '2'] ~> $map($parse)", json!([1, 2])),
        ("$count($map([1..3], $uuid))", json!(3)),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
}

#[test]
fn randomness_follows_the_seed_and_advances() {
    let expression =
        Expression::compile("[$uuid(), $random(), $shuffle([1, 2, 3, 4, 5])]").unwrap();
    let scope = Scope::of_variables(&NoVariables);
    let mut environment = Environment::new(NOW, 9);
    let first = expression.evaluate(&scope, &mut environment).unwrap();
    let second = expression.evaluate(&scope, &mut environment).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        expression
            .evaluate(&scope, &mut Environment::new(NOW, 9))
            .unwrap(),
        first
    );
}

#[test]
fn misuse_is_an_error_that_says_what_was_wrong() {
    for (source, kind, says) in [
        ("1 + 'a'", EvaluationErrorKind::Failed, "T2002"),
        (
            "$hash('abc', 'SHA-3')",
            EvaluationErrorKind::Failed,
            "SHA-512, but not 'SHA-3'",
        ),
        (
            "$hash(1, 'MD5')",
            EvaluationErrorKind::Failed,
            "argument 1 of $hash",
        ),
        (
            "$partition([1], 0)",
            EvaluationErrorKind::Failed,
            "greater than zero",
        ),
        (
            "$partition([1], 1.5)",
            EvaluationErrorKind::Failed,
            "must be an integer",
        ),
        (
            "$range(1, 2, 0)",
            EvaluationErrorKind::Failed,
            "must not be zero",
        ),
        (
            "$range(1, 2)",
            EvaluationErrorKind::Failed,
            "takes 3 arguments",
        ),
        ("$parse('')", EvaluationErrorKind::Failed, "not JSON"),
        (
            "$error('no stock')",
            EvaluationErrorKind::Thrown,
            "no stock",
        ),
        (
            "$assert(false, 'never')",
            EvaluationErrorKind::Thrown,
            "never",
        ),
        (
            "function($x) { $x }",
            EvaluationErrorKind::NotJson,
            "function",
        ),
        ("{'f': $sum}", EvaluationErrorKind::NotJson, "function"),
        ("$nowhere()", EvaluationErrorKind::Failed, "T1006"),
    ] {
        let error = failure(source);
        assert_eq!(error.kind, kind, "{source}: {error}");
        assert!(error.message.contains(says), "{source}: {error}");
    }
}

#[test]
fn runaway_expressions_are_stopped() {
    for source in [
        "($f := function($n) { 1 + $f($n + 1) }; $f(0))",
        "[1..10000000]",
        "$range(0, 1e9, 1)",
        "$pad('x', 1e12)",
        "$replace($pad('', 100000, 'x'), 'x', $pad('', 10000, 'y'))",
        "$replace($pad('', 100000, 'x'), /./, $pad('', 10000, 'y'))",
        "$replace($pad('', 100000, 'x'), /.*/, $pad('', 10000, '$0'))",
        "$pad('', 100000, 'x') ~> $replace('x', $pad('', 10000, 'y'))",
        "$join($map([1..100000], $string), $pad('', 10000, 'y'))",
        "($long := $pad('', 100000); $map([1..100000], function($i) { $long & $i }))",
        "($long := $pad('', 100000); [1..100000].($long & 'x' & $long))",
        "($f := function($s, $n) { $n = 0 ? $s : $f($s & $s, $n - 1) }; $f('xx', 60))",
        "$reduce([1..200], function($deep, $i) { {'inner': $deep} })",
        "$reduce([1..60], function($wide, $i) { {'left': $wide, 'right': $wide} })",
    ] {
        assert_eq!(
            failure(source).kind,
            EvaluationErrorKind::LimitExceeded,
            "{source}"
        );
    }
    let expression = Expression::compile("($f := function($n) { $f($n + 1) }; $f(0))").unwrap();
    let limits = Limits {
        time: std::time::Duration::from_millis(20),
        ..Limits::default()
    };
    let mut environment = Environment::new(NOW, 1).with_limits(limits);
    let error = expression
        .evaluate(&Scope::of_variables(&NoVariables), &mut environment)
        .unwrap_err();
    assert_eq!(error.kind, EvaluationErrorKind::LimitExceeded);
}

#[test]
fn syntax_errors_name_their_place() {
    for (source, offset) in [
        ("$a +", Some(4)),
        ("$a + * 2 )", Some(7)),
        ("1 two", Some(2)),
        ("($a; $b", Some(7)),
        ("$sum($eval('1'))", Some(5)),
        ("$map([1], $eval)", Some(10)),
        ("", Some(0)),
    ] {
        let error = Expression::compile(source).expect_err(source);
        assert_eq!(error.offset, offset, "{source}: {error}");
    }
    assert!(
        Expression::compile("$eval('1')")
            .unwrap_err()
            .message
            .contains("$parse")
    );
}

#[test]
fn references_are_the_variables_from_outside() {
    for (source, expected) in [
        ("$a + $sum($b.c) + $states.input", vec!["a", "b", "states"]),
        ("($x := 1; $x + $y)", vec!["y"]),
        (
            "$map($items, function($v, $i) { $v * $factor })",
            vec!["factor", "items"],
        ),
        ("$items@$i#$n.($i & $n)", vec!["items"]),
        ("$custom(1) + $partition([1], 1)", vec!["custom"]),
        ("$.a", vec![]),
    ] {
        assert_eq!(
            Expression::compile(source).unwrap().references(),
            expected,
            "{source}"
        );
    }
}

#[test]
fn an_expression_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Expression>();
}

/// Evaluates without the fast path and without demands, to compare with.
fn evaluated_plainly(source: &str, variable: &Value) -> Option<Value> {
    let mut context = Context::new();
    context.bind("v".to_owned(), conversion::to_jsonata(variable));
    let result = Evaluator::with_context(context)
        .evaluate(&parser::parse(source).unwrap(), &JValue::Undefined)
        .unwrap();
    ResultBuilder::new(&Limits::default())
        .build(&result)
        .unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (0..5).prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn shortcuts_give_what_the_evaluator_gives(variable in any_json()) {
        let variables = [("v", &variable)];
        for source in [
            "$v", "$v.a", "$v.a.b", "$v.a.b.c", "$v.b[0].a", "$v.a[a=1].b", "[$v.a, $v.a.b, $v.c]", "$count($v.a) + $count($v.b.a)",
            "$v.a{b: c}", "$v.a^(b)", "$v.*.a", "$v.a.(b)", "$v.a.%.b", "$v.**.a", "$v.a[]", "$v.a.{'x': $v.b}", "$exists($v.a) ? $v.b : $v.c",
        ] {
            let scope = Scope::of_variables(&variables);
            let expression = Expression::compile(source).unwrap();
            let actual = expression.evaluate(&scope, &mut Environment::new(0, 0));
            if let Ok(actual) = actual {
                prop_assert_eq!(actual, evaluated_plainly(source, &variable), "{}", source);
            }
        }
    }

    #[test]
    fn no_source_makes_the_compiler_panic(source in "[$a-z0-9 .,:;()\\[\\]{}\"'%@#&|*+/^~<>=?!-]{0,40}") {
        if let Err(error) = Expression::compile(&source) {
            prop_assert!(error.offset.is_none_or(|offset| offset <= source.len()));
        }
    }

    #[test]
    fn any_text_is_refused_or_compiled(source in "\\PC{0,30}") {
        let _ = Expression::compile(&source);
    }
}

#[test]
fn deep_sources_are_refused_or_compiled() {
    for source in [
        "(".repeat(100_000),
        format!("{}1{}", "[".repeat(900), "]".repeat(900)),
        "1+".repeat(5000),
        "$a.".repeat(5000),
    ] {
        let _ = Expression::compile(&source);
    }
}
