//! Templates of both languages, and where their errors point.

use serde_json::json;

use super::*;
use crate::expression::scope::NoVariables;

fn payload(template: &Template) -> Result<Value, TemplateError> {
    let input = json!({"a": 1, "list": [1, 2], "name": "x"});
    let context = json!({"Execution": {"Id": "e"}});
    let x = json!(42);
    let variables = [("x", &x)];
    template.evaluate(
        &Scope::new(&input, &context, &variables),
        &mut Environment::new(0, 0),
    )
}

#[test]
fn a_jsonpath_template_computes_its_marked_fields() {
    let template = Template::compile_jsonpath(&json!({
        "plain": "$.a",
        "path.$": "$.list[0]",
        "context.$": "$$.Execution.Id",
        "variable.$": "$x",
        "root.$": "$",
        "call.$": "States.Format('{}!', $.name)",
        "inner": {"Comment": "kept", "deep": [{"b.$": "$.a"}, "$.a", 7]},
        "a.$b": 1
    }))
    .unwrap();
    let expected = json!({
        "plain": "$.a",
        "path": 1,
        "context": "e",
        "variable": 42,
        "root": {"a": 1, "list": [1, 2], "name": "x"},
        "call": "x!",
        "inner": {"Comment": "kept", "deep": [{"b": 1}, "$.a", 7]},
        "a.$b": 1
    });
    assert_eq!(
        payload(&template).unwrap().to_string(),
        expected.to_string()
    );
}

#[test]
fn a_jsonata_template_computes_its_expressions_and_nothing_else() {
    let template = Template::compile_jsonata(&json!([
        null, 0, 0.1, true, "string", [], "$x", "$.a", " {% $x %}", "{% $states.input.list %}", {"{% key %}": "{%true%}", "b.$": "{% $x & '' %}"}
    ]))
    .unwrap();
    let expected = json!([
        null, 0, 0.1, true, "string", [], "$x", "$.a", " {% $x %}", [1, 2], {"{% key %}": true, "b.$": "42"}
    ]);
    assert_eq!(payload(&template).unwrap(), expected);
    assert_eq!(
        payload(&Template::compile_jsonata(&json!("{% $x %}")).unwrap()),
        Ok(json!(42))
    );
}

#[test]
fn a_template_without_anything_to_compute_is_a_literal() {
    let value = json!({"a": [1, {"b": "$.x"}], "c": {}});
    assert_eq!(
        Template::compile_jsonpath(&value).unwrap().as_literal(),
        Some(&value)
    );
    assert_eq!(
        Template::compile_jsonata(&value).unwrap().as_literal(),
        Some(&value)
    );
    assert_eq!(
        Template::literal(json!("{% $x %}")).as_literal(),
        Some(&json!("{% $x %}"))
    );
    assert!(
        Template::compile_jsonata(&json!({"a": ["{% 1 %}"]}))
            .unwrap()
            .as_literal()
            .is_none()
    );
}

#[test]
fn errors_point_into_the_template() {
    for (template, pointer, text) in [
        (json!({"a": {"b~/c.$": "$."}}), "/a/b~0~1c.$", "$."),
        (json!({"a": [0, {"b.$": 1}]}), "/a/1/b.$", "1"),
        (json!({"a.$": "plain"}), "/a.$", "plain"),
        (json!({"a": 1, "a.$": "$.a"}), "/a.$", "a.$"),
    ] {
        let error = Template::compile_jsonpath(&template).unwrap_err();
        assert_eq!(
            (error.pointer.as_str(), error.text.as_str()),
            (pointer, text),
            "{error}"
        );
    }
    let error = Template::compile_jsonata(&json!({"a": [1, "{% 1 + %}"]})).unwrap_err();
    assert_eq!(
        (
            error.pointer.as_str(),
            error.text.as_str(),
            error.error.offset
        ),
        ("/a/1", "1 +", Some(3))
    );
}

#[test]
fn a_leaf_without_a_value_fails_the_template() {
    for (template, pointer, expression) in [
        (
            json!({"result": "{% $doesNotExist %}"}),
            "/result",
            "$doesNotExist",
        ),
        (json!("{% $doesNotExist %}"), "", "$doesNotExist"),
        (
            json!([1, ["{% $states.input.none %}"]]),
            "/1/0",
            "$states.input.none",
        ),
    ] {
        let error = payload(&Template::compile_jsonata(&template).unwrap()).unwrap_err();
        assert_eq!(
            (error.pointer.as_str(), error.expression.as_str()),
            (pointer, expression)
        );
        assert_eq!(error.kind, TemplateErrorKind::Undefined);
    }
    let failing =
        payload(&Template::compile_jsonata(&json!({"a": "{% 1 + 'x' %}"})).unwrap()).unwrap_err();
    assert!(matches!(failing.kind, TemplateErrorKind::Evaluation(_)));
    let missing =
        payload(&Template::compile_jsonpath(&json!({"value.$": "$.none"})).unwrap()).unwrap_err();
    assert_eq!(missing.pointer, "/value.$");
    assert!(matches!(
        missing.kind,
        TemplateErrorKind::Path(PathError::NotFound { .. })
    ));
    let refused = payload(
        &Template::compile_jsonpath(&json!({"v.$": "States.ArrayGetItem($.list, 9)"})).unwrap(),
    )
    .unwrap_err();
    assert!(matches!(
        refused.kind,
        TemplateErrorKind::Intrinsic(IntrinsicError::Failure { .. })
    ));
}

#[test]
fn a_template_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<Template>();
    let template = Template::compile_jsonata(&json!("{% $states.input %}")).unwrap();
    let scope = Scope::of_variables(&NoVariables);
    assert_eq!(
        template.evaluate(&scope, &mut Environment::new(0, 0)),
        Ok(Value::Null)
    );
}
