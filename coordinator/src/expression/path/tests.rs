//! What paths select, refuse and assign, on the bookshop that every JSONPath text uses and on recorded runs.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::expression::scope::NoVariables;

static SHOP: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "store": {
            "book": [
                {"category": "reference", "author": "Nigel Rees", "title": "Sayings", "price": 8.95},
                {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword", "price": 12.99},
                {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553", "price": 8.99},
                {"category": "fiction", "author": "J. R. R. Tolkien", "title": "Rings", "isbn": "0-395", "price": 22.99}
            ],
            "bicycle": {"color": "red", "price": 19.95}
        },
        "limit": 10,
        "empty": [],
        "nothing": null,
        "numbers": [3, 1, 2],
        "codes": ["a", "b", "c"],
        "deep": [[1, 2], [3, [4]]]
    })
});

fn select(path: &str, input: &Value) -> Result<Value, PathError> {
    let context =
        json!({"Execution": {"Input": {"input-value": 0}}, "Map": {"Item": {"Value": "v"}}});
    let (answer, list) = (json!({"text": "ok"}), json!([{"n": 1}, {"n": 2}]));
    let variables = [("answer", &answer), ("list", &list), ("größe_1", &answer)];
    Path::compile(path)
        .expect(path)
        .select(&Scope::new(input, &context, &variables))
}

fn assert_selects(table: &[(&str, Value)]) {
    for (path, expected) in table {
        assert_eq!(select(path, &SHOP).as_ref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_definite_path_selects_its_value() {
    assert_selects(&[
        ("$.limit", json!(10)),
        ("$['limit']", json!(10)),
        ("$[\"limit\"]", json!(10)),
        ("$.store.bicycle.color", json!("red")),
        ("$['store']['bicycle'].color", json!("red")),
        ("$.store.book[0].title", json!("Sayings")),
        ("$.store.book[-1].title", json!("Rings")),
        ("$.store.book[ 1 ].title", json!("Sword")),
        ("$.nothing", json!(null)),
        ("$.empty", json!([])),
        ("$.deep[1][1][0]", json!(4)),
        (
            "$.store.bicycle['color', 'price', 'none']",
            json!({"color": "red", "price": 19.95}),
        ),
        ("$$.Execution.Input.input-value", json!(0)),
        ("$$.Map.Item.Value", json!("v")),
        ("$answer", json!({"text": "ok"})),
        ("$answer.text", json!("ok")),
        ("$list[1].n", json!(2)),
        ("$list[*].n", json!([1, 2])),
        ("$größe_1.text", json!("ok")),
    ]);
    assert_eq!(select("$", &json!(5)), Ok(json!(5)));
    assert_eq!(
        select(
            "$.items[10]",
            &json!({"items": (0..=10).collect::<Vec<_>>()})
        ),
        Ok(json!(10))
    );
    assert_eq!(select("$[0]", &json!(["a"])), Ok(json!("a")));
}

#[test]
fn an_indefinite_path_selects_a_list() {
    assert_selects(&[
        ("$.store.book[*].price", json!([8.95, 12.99, 8.99, 22.99])),
        ("$.store.bicycle.*", json!(["red", 19.95])),
        ("$.store.bicycle[*]", json!(["red", 19.95])),
        ("$.codes[0,2]", json!(["a", "c"])),
        ("$.codes[0,7]", json!(["a"])),
        ("$.codes[1:]", json!(["b", "c"])),
        ("$.codes[:1]", json!(["a"])),
        ("$.codes[:-1]", json!(["a", "b"])),
        ("$.codes[-2:]", json!(["b", "c"])),
        ("$.codes[0:3:2]", json!(["a", "c"])),
        ("$.codes[2:1]", json!([])),
        ("$.codes[-9:99]", json!(["a", "b", "c"])),
        ("$..price", json!([8.95, 12.99, 8.99, 22.99, 19.95])),
        ("$..book[2].title", json!(["Moby Dick"])),
        ("$..['color']", json!(["red"])),
        ("$.deep..*", json!([[1, 2], [3, [4]], 1, 2, 3, [4], 4])),
        ("$.deep[*][0]", json!([1, 3])),
        ("$.store['book','bicycle'].price", json!([19.95])),
        (
            "$.store.book[*]['title','isbn']",
            json!([{"title": "Sayings"}, {"title": "Sword"}, {"title": "Moby Dick", "isbn": "0-553"}, {"title": "Rings", "isbn": "0-395"}]),
        ),
    ]);
}

#[test]
fn a_list_over_something_missing_is_empty() {
    for path in [
        "$.item.items[*]",
        "$.item.items[1:5].itemValue",
        "$.item.items[1:5]",
        "$.item.items[1:]",
        "$.items[*]",
        "$.items[1:]",
        "$.items[:1].itemValue",
        "$.items[:1]",
        "$[*]",
        "$..x",
        "$.items[?(@.a)]",
        "$.a.*",
    ] {
        assert_eq!(select(path, &json!({})), Ok(json!([])), "{path}");
    }
}

#[test]
fn a_filter_keeps_what_it_accepts() {
    let titles = |filter: &str| select(&format!("$.store.book[?({filter})].title"), &SHOP);
    for (filter, expected) in [
        ("@.isbn", json!(["Moby Dick", "Rings"])),
        ("!@.isbn", json!(["Sayings", "Sword"])),
        ("@.price < 10", json!(["Sayings", "Moby Dick"])),
        ("@.price<=8.95", json!(["Sayings"])),
        ("@.price > $.limit", json!(["Sword", "Rings"])),
        (
            "@.category == 'fiction' && @.price < 10",
            json!(["Moby Dick"]),
        ),
        (
            "@.category == \"fiction\" && (@.price < 10 || @.isbn == '0-395')",
            json!(["Moby Dick", "Rings"]),
        ),
        ("@.category != 'fiction'", json!(["Sayings"])),
        ("@['category'] == 'reference'", json!(["Sayings"])),
        ("@.author =~ /.*waugh/i", json!(["Sword"])),
        ("@.author =~ /waugh/i", json!([])),
        ("@.title in ['Rings', 'Sword']", json!(["Sword", "Rings"])),
        (
            "@.title nin ['Rings', 'Sword']",
            json!(["Sayings", "Moby Dick"]),
        ),
        ("'Rings' == @.title", json!(["Rings"])),
        ("@.title contains 'ing'", json!(["Sayings", "Rings"])),
        ("@.isbn == null", json!([])),
        (
            "@.isbn != '0-395'",
            json!(["Sayings", "Sword", "Moby Dick"]),
        ),
        ("@.title size 5", json!(["Sword", "Rings"])),
        ("@.title.length() == 7", json!(["Sayings"])),
        ("!(@.price < 20)", json!(["Rings"])),
        ("@.title == $answer.text", json!([])),
        ("@.price == '8.95'", json!(["Sayings"])),
        ("@.price === '8.95'", json!([])),
        ("true", json!(["Sayings", "Sword", "Moby Dick", "Rings"])),
    ] {
        assert_eq!(titles(filter), Ok(expected), "{filter}");
    }
    assert_selects(&[
        ("$.numbers[?(@ > 1)]", json!([3, 2])),
        ("$..[?(@.color)].price", json!([19.95])),
        ("$.store.bicycle[?(@.color == 'red')].price", json!([19.95])),
        ("$.codes[?(@ in $.codes)]", json!(["a", "b", "c"])),
        ("$.deep[?(@ anyof [1, 9])]", json!([[1, 2]])),
        ("$.deep[?(@ subsetof [1, 2])]", json!([[1, 2]])),
        ("$.deep[?(@[1] empty false)]", json!([[3, [4]]])),
    ]);
    let users = json!({"users": [{"status": 0, "year": 1997}, {"status": 1, "year": 1998}]});
    assert_eq!(
        select("$.users[?(@.status == 0)]", &users),
        Ok(json!([{"status": 0, "year": 1997}]))
    );
}

#[test]
fn functions_end_a_path() {
    assert_selects(&[
        ("$.store.book.length()", json!(4)),
        ("$.store.book[*].price.max()", json!(22.99)),
        ("$.numbers.min()", json!(1)),
        ("$.numbers.sum()", json!(6)),
        ("$.numbers.avg()", json!(2)),
        ("$.store.bicycle.keys()", json!(["color", "price"])),
        ("$.codes.first()", json!("a")),
        ("$.codes.last()", json!("c")),
        ("$.codes.index(-2)", json!("b")),
        ("$..price.length()", json!(5)),
    ]);
    assert!(matches!(
        select("$.limit.keys()", &SHOP),
        Err(PathError::Function { .. })
    ));
    assert!(matches!(
        select("$.empty.max()", &SHOP),
        Err(PathError::Function { .. })
    ));
}

#[test]
fn names_may_be_escaped() {
    let input = json!({
        "a.b": 1, "c d": 2, "@x[": 3, "Test\\\"\"Name\"": "recorded", "it's": 4, "&Ж中.\u{10346}": 5, "back\\slash": 6, "": 7
    });
    for (path, expected) in [
        ("$.a\\.b", json!(1)),
        ("$['a.b']", json!(1)),
        ("$.c\\ d", json!(2)),
        ("$['c d']", json!(2)),
        ("$.\\@x\\[", json!(3)),
        ("$['Test\\\"\"Name\"']", json!("recorded")),
        ("$['it\\'s']", json!(4)),
        ("$[\"it's\"]", json!(4)),
        ("$.&Ж中\\.\\uD800\\uDF46", json!(5)),
        ("$['back\\\\slash']", json!(6)),
        ("$['back\\slash']", json!(6)),
        ("$['']", json!(7)),
    ] {
        assert_eq!(select(path, &input), Ok(expected), "{path}");
    }
}

#[test]
fn a_place_that_is_not_there_is_not_found() {
    for (path, says) in [
        ("$.none", "No results for path: $['none']"),
        ("$.none.more", "Missing property in path $['none']"),
        (
            "$.codes[9]",
            "No results for path: $['codes'][9]; the array has 3 items",
        ),
        ("$.codes[-4]", "$['codes'][-4]"),
        ("$.limit.x", "is a number"),
        ("$.nothing.x", "is null"),
        ("$.codes.x", "is an array"),
        ("$.store[0]", "is an object"),
        ("$$.none", "$$['none']"),
    ] {
        let error = select(path, &SHOP).expect_err(path);
        assert!(
            matches!(error, PathError::NotFound { .. }) && error.to_string().contains(says),
            "{path}: {error}"
        );
    }
    let undefined = select("$none.x", &SHOP).unwrap_err();
    assert!(matches!(undefined, PathError::UndefinedVariable { ref name, .. } if name == "none"));
}

#[test]
fn paths_know_what_they_are() {
    for (path, definite, reference) in [
        ("$", true, true),
        ("$.a.b[0]['c']", true, true),
        ("$$.a", true, true),
        ("$v.a", true, true),
        ("$['a','b']", true, false),
        ("$['a','b'].c", false, false),
        ("$.a[*]", false, false),
        ("$.a[0,1]", false, false),
        ("$.a[1:2]", false, false),
        ("$..a", false, false),
        ("$.a.length()", true, false),
        ("$.a[?(@.b)]", false, false),
    ] {
        let compiled = Path::compile(path).unwrap();
        assert_eq!(
            (compiled.is_definite(), compiled.is_reference()),
            (definite, reference),
            "{path}"
        );
        assert_eq!(compiled.source(), path);
    }
    assert_eq!(Path::compile("$name.a").unwrap().variable(), Some("name"));
    assert_eq!(Path::compile("$.name").unwrap().variable(), None);
}

#[test]
fn a_text_that_is_no_path_is_refused() {
    for (path, offset) in [
        ("", 0),
        ("a", 0),
        ("$.", 2),
        ("$.a.", 4),
        ("$..", 3),
        ("$.a b", 3),
        ("$[", 2),
        ("$['a", 2),
        ("$[a]", 2),
        ("$.a]", 3),
        ("$[1", 3),
        ("$[1:2:0]", 5),
        ("$.a*b", 3),
        ("$1a", 1),
        ("$.a[?(@.b]", 9),
        ("$.a[?(@.b = 1)]", 10),
        ("$.a[?('x')]", 6),
        ("$.a[?(@.b =~ /(/)]", 13),
        ("$.a.shout()", 4),
        ("$[(@.length-1)]", 2),
        ("$.a[?()]", 6),
        ("$[99999999999999999999]", 2),
    ] {
        let error = Path::compile(path).expect_err(path);
        assert_eq!(error.offset, Some(offset), "{path}: {error}");
    }
}

#[test]
fn assigning_creates_the_objects_on_the_way() {
    for (path, root, expected) in [
        ("$", json!({"a": 1}), json!("new")),
        ("$.a", json!({"a": 1, "b": 2}), json!({"a": "new", "b": 2})),
        ("$.c", json!({"a": 1}), json!({"a": 1, "c": "new"})),
        (
            "$.x.y['z']",
            json!({"a": 1}),
            json!({"a": 1, "x": {"y": {"z": "new"}}}),
        ),
        ("$.a[1]", json!({"a": [1, 2]}), json!({"a": [1, "new"]})),
        ("$.a[0].b", json!({"a": [{}]}), json!({"a": [{"b": "new"}]})),
    ] {
        assert_eq!(
            Path::compile(path).unwrap().assign(root, json!("new")),
            Ok(expected),
            "{path}"
        );
    }
}

#[test]
fn assigning_to_what_is_no_object_is_a_mismatch() {
    for (path, root, says) in [
        ("$.a", json!("text"), "the input is a string"),
        ("$.a.b", json!({"a": 1}), "$['a'] is a number"),
        ("$.a.b", json!({"a": null}), "$['a'] is null"),
        ("$.a[0]", json!({}), "$['a'] is an object"),
        ("$.a[5]", json!({"a": []}), "$['a'] is an array without"),
    ] {
        let error = Path::compile(path)
            .unwrap()
            .assign(root, json!(1))
            .expect_err(path);
        assert!(
            matches!(error, PathError::Mismatch { .. }) && error.to_string().contains(says),
            "{path}: {error}"
        );
    }
    for path in ["$.a[*]", "$$.a", "$v.a", "$['a','b']", "$.a.length()"] {
        let error = Path::compile(path)
            .unwrap()
            .assign(json!({}), json!(1))
            .expect_err(path);
        assert!(
            matches!(error, PathError::NotAReferencePath { .. }),
            "{path}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    for path in [
        format!("$[?({}@.a{})]", "(".repeat(10_000), ")".repeat(10_000)),
        format!("$[?({}@.a)]", "!".repeat(10_000)),
        "$[?(@[?(".repeat(10_000),
        format!("$[?(@ in {})]", "[".repeat(10_000)),
    ] {
        assert!(Path::compile(&path).is_err());
    }
    assert!(Path::compile(&format!("${}", ".a".repeat(10_000))).is_ok());
}

#[test]
fn a_multiplying_path_is_stopped() {
    let wide = json!(vec![vec![vec![0; 20]; 20]; 20]);
    let error = select("$..*..*..*..*..*", &wide);
    assert!(error.is_ok() || matches!(error, Err(PathError::TooMany { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,40}") {
        let _ = Path::compile(&text);
        let _ = Path::compile(&format!("${text}"));
        let _ = Path::compile(&format!("$[?({text})]"));
    }

    #[test]
    fn what_compiles_selects_or_says_why(text in "\\$[.a-c@$*\\[\\]'0-9:,?()!=<&| \\\\-]{0,24}") {
        match Path::compile(&text) {
            Ok(path) => {
                let _ = path.select(&Scope::new(&SHOP, &SHOP, &NoVariables));
                let _ = path.assign(SHOP.clone(), json!(1));
            }
            Err(error) => prop_assert!(error.offset.is_none_or(|offset| offset <= text.len())),
        }
    }

    #[test]
    fn what_was_assigned_is_selected(names in prop::collection::vec("[a-z]{1,3}", 1..5)) {
        let path = Path::compile(&format!("$.{}", names.join("."))).unwrap();
        let root = path.assign(json!({}), json!("new")).unwrap();
        prop_assert_eq!(path.select(&Scope::new(&root, &Value::Null, &NoVariables)), Ok(json!("new")));
    }
}
