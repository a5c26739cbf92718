use std::sync::LazyLock;

use super::super::faults::MAX_FAULTS;
use super::super::tests::bench::Bench;
use super::*;
use crate::declare::{Form, OPTIONAL, Shape, Spec, owned};
use proptest::prelude::*;

/// Pointers of the faults that a create with this body is refused for.
fn faults(body: &str) -> Vec<String> {
    let reply = Bench::new().json("POST", "/limits/create", body);
    assert_eq!(reply.status, 400, "{body}: {reply:?}");
    let errors = reply.body["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_fault_is_named_by_its_field_and_all_at_once() {
    let long = format!(r#"{{"client_id":"{}","capacity":1,"rate_per_sec":1}}"#, "x".repeat(257));
    let rows: [(&str, &[&str]); 31] = [
        ("", &["/client_id", "/capacity", "/rate_per_sec"]),
        (" \r\n\t", &["/client_id", "/capacity", "/rate_per_sec"]),
        ("{}", &["/client_id", "/capacity", "/rate_per_sec"]),
        (r#"{"client_id":"","capacity":1,"rate_per_sec":1}"#, &["/client_id"]),
        (r#"{"client_id":"a\u0000b","capacity":1,"rate_per_sec":1}"#, &["/client_id"]),
        (r#"{"client_id":"a\nb","capacity":1,"rate_per_sec":1}"#, &["/client_id"]),
        (r#"{"client_id":"\ud800","capacity":1,"rate_per_sec":1}"#, &["/client_id"]),
        (r#"{"client_id":7,"capacity":1,"rate_per_sec":1}"#, &["/client_id"]),
        (
            r#"{"client_id":null,"capacity":null,"rate_per_sec":null}"#,
            &["/client_id", "/capacity", "/rate_per_sec"],
        ),
        (
            r#"{"client_id":["a"],"capacity":{},"rate_per_sec":true}"#,
            &["/client_id", "/capacity", "/rate_per_sec"],
        ),
        (&long, &["/client_id"]),
        (r#"{"client_id":"a","capacity":-1,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":1000000001,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":1e400,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":1e99999999999999999999,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":0.5,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":1.0000000001,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":"10","rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":-0.1}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1e400}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1000000000.000001}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":0.0000001}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1e-400}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":"1/s"}"#, &["/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"burst":5}"#, &["/burst"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"Capacity":5}"#, &["/Capacity"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"a/b~c":5}"#, &["/a~1b~0c"]),
        (r#"{"client_id":"a","capacity":1,"capacity":1,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"client_id":"a","c\u0061pacity":1,"capacity":2,"rate_per_sec":1}"#, &["/capacity"]),
        (r#"{"x":1,"capacity":-1,"rate_per_sec":"a"}"#, &["/x", "/client_id", "/capacity", "/rate_per_sec"]),
        (r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"x":1,"x":1}"#, &["/x", "/x"]),
    ];
    for (body, expected) in rows {
        assert_eq!(faults(body), expected, "{body}");
    }
}

#[test]
fn what_is_not_one_json_object_is_refused_as_a_whole() {
    for body in [
        "x",
        "null",
        "7",
        "\"client_id\"",
        "[]",
        r#"[{"client_id":"a","capacity":1,"rate_per_sec":1}]"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":1"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":1}{}"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":1} x"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":1,}"#,
        r#"{"client_id":"a","capacity":01,"rate_per_sec":1}"#,
        r#"{"client_id":"a","capacity":+1,"rate_per_sec":1}"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":NaN}"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":Infinity}"#,
        r#"{"client_id":"a","capacity":1,"rate_per_sec":.5}"#,
        r"{'client_id':'a','capacity':1,'rate_per_sec':1}",
        "client_id=a&capacity=1&rate_per_sec=1",
        "\u{feff}{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}",
        &"[".repeat(60_000),
        &format!("{{\"x\":{}", "[".repeat(60_000)),
    ] {
        let body_start = body.chars().take(40).collect::<String>();
        assert_eq!(faults(body), [""; 0], "{body_start}");
    }
    let mut bytes = br#"{"client_id":"a"#.to_vec();
    bytes.extend_from_slice(b"\xff\",\"capacity\":1,\"rate_per_sec\":1}");
    let call = super::super::tests::bench::Call {
        method: "POST",
        target: "/limits/create",
        body: &bytes,
        ..Default::default()
    };
    assert_eq!(Bench::new().call(&call).status, 400);
}

#[test]
fn an_answer_names_a_bounded_number_of_faults() {
    let members: Vec<String> = (0..5_000).map(|index| format!("\"m{index}\":1")).collect();
    assert_eq!(faults(&format!("{{{}}}", members.join(","))).len(), MAX_FAULTS);
}

#[test]
fn numbers_count_by_their_value() {
    for (capacity, rate, expected) in [
        ("0", "0", r#""capacity":0,"rate_per_sec":0}"#),
        ("-0", "-0.0", r#""capacity":0,"rate_per_sec":0}"#),
        ("10.0", "1.000000", r#""capacity":10,"rate_per_sec":1}"#),
        ("1e1", "1e-6", r#""capacity":10,"rate_per_sec":0.000001}"#),
        ("1000000000", "1e9", r#""capacity":1000000000,"rate_per_sec":1000000000}"#),
        ("1", "0.1", r#""capacity":1,"rate_per_sec":0.1}"#),
        ("1", "123456789.123456", r#""capacity":1,"rate_per_sec":123456789.123456}"#),
        ("100E-2", "0.50000000000000000000", r#""capacity":1,"rate_per_sec":0.5}"#),
    ] {
        let bench = Bench::new();
        let body = format!(r#"{{"client_id":"a","capacity":{capacity},"rate_per_sec":{rate}}}"#);
        assert_eq!(bench.json("POST", "/limits/create", &body).status, 201, "{body}");
        let shown = bench.json("GET", "/limits/get?client_id=a", "").text;
        assert_eq!(shown, format!(r#"{{"client_id":"a",{expected}"#));
    }
}

#[test]
fn a_query_is_read_as_a_form_and_never_guessed_at() {
    for (query, expected) in [
        ("client_id=a%20b", Some("a b")),
        ("client_id=a+b", Some("a b")),
        ("client_id=a%2Bb%2fc", Some("a+b/c")),
        ("client_id=123.5.6.7:890", Some("123.5.6.7:890")),
        ("client_id=a=b", Some("a=b")),
        ("client%5Fid=a", Some("a")),
        ("&&client_id=%F0%9F%A6%80&", Some("🦀")),
        ("client_id=é", Some("é")),
        ("client_id=", Some("")),
        ("client_id", Some("")),
        ("client_id=%", None),
        ("client_id=%4", None),
        ("client_id=%zz", None),
        ("client_id=100%&x", None),
        ("client_id=%+1", None),
        ("client_id=%ff", None),
        ("client_id=%C3", None),
        ("client_id=a&client_id=a", None),
        ("client_id=a&client%5fid=b", None),
        ("client_id=a&other=1", None),
        ("Client_id=a", None),
        ("=a", None),
        ("%ff=a", None),
    ] {
        let read = read_query(Some(query), |query| query.text(&ID, owned)).ok();
        let found = read.as_ref().and_then(Option::as_deref);
        assert_eq!(found, expected, "{query}");
        assert_eq!(read.is_some(), expected.is_some(), "{query}");
    }
    assert!(read_query(None, |query| query.text(&ID, owned)).unwrap().is_none());
}

/// A parameter that may be left out.
const ID: Spec = Spec::of("client_id", Form::text("an id"), OPTIONAL, "");

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What is beyond the bound on faults is not looked for: else such a body would keep a thread busy for minutes.
#[test]
fn a_body_of_nothing_but_faults_is_refused_as_quickly_as_it_is_read() {
    let members: Vec<String> = (10..42).map(|number| format!(r#""client_{number}":0"#)).collect();
    let operation = format!("{{{}}}", members.join(","));
    let body = format!(r#"{{"operations":[{}]}}"#, vec![operation; 10_000].join(","));
    let reply = Bench::new().json("POST", "/-/v1/batch", &body);
    let errors = reply.body["errors"].as_array().expect("faults");
    assert_eq!((reply.status, errors.len()), (400, MAX_FAULTS));
    assert_eq!(errors[0]["pointer"], "/operations/0/client_10");
}

proptest! {
    #[test]
    fn any_id_comes_back_as_it_went_in_by_body_and_by_query(id in "\\PC{1,64}") {
        prop_assume!(id.len() <= 256 && !id.chars().any(char::is_control));
        static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
        let bench = BENCH.emptied();
        let body = serde_json::json!({"client_id": id, "capacity": 3, "rate_per_sec": 2}).to_string();
        prop_assert_eq!(bench.json("POST", "/limits/create", &body).status, 201);
        prop_assert_eq!(bench.ids(), vec![id.clone()]);
        let target = format!("/limits/get?client_id={}", percent_encoded(&id));
        prop_assert_eq!(&bench.json("GET", &target, "").body["client_id"], &id);
        let by_body = serde_json::json!({"client_id": id}).to_string();
        prop_assert_eq!(bench.json("GET", "/limits/get", &by_body).text, bench.json("GET", &target, "").text);
        prop_assert_eq!(bench.json("DELETE", &target.replace("get", "delete"), &by_body).status, 204);
        prop_assert_eq!(bench.ids().len(), 0);
    }

    #[test]
    fn no_body_panics_and_every_answer_is_a_documented_one(body in "[\\[\\]{}\",:a-z_0-9eE.+\\-\\\\ ]{0,80}") {
        static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
        let reply = BENCH.emptied().json("POST", "/limits/create", &body);
        prop_assert!(matches!(reply.status, 201 | 400), "{}: {:?}", body, reply);
    }

    #[test]
    fn almost_good_bodies_are_judged_and_never_panic(
        id in "\"[a-z\\\\u0-9]{0,6}\"", capacity in "-?[0-9]{1,12}(\\.[0-9]{1,3})?(e[+-]?[0-9]{1,3})?", rate in "-?[0-9]{1,12}(\\.[0-9]{1,9})?(e[+-]?[0-9]{1,3})?",
    ) {
        static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
        let bench = BENCH.emptied();
        let body = format!(r#"{{"client_id":{id},"capacity":{capacity},"rate_per_sec":{rate}}}"#);
        let status = bench.json("POST", "/limits/create", &body).status;
        prop_assert!(matches!(status, 201 | 400));
        prop_assert_eq!(bench.ids().len(), usize::from(status == 201));
    }

    #[test]
    fn no_query_panics(query in "[%+&=a-z0-9é]{0,40}") {
        let _ = read_query(Some(&query), |query| query.text(&ID, owned));
    }
}

#[test]
fn a_body_may_have_a_list_of_texts() {
    let shape = Shape::List { of: Form::text("a name"), max: 3, single: true };
    let names = |body: &str| {
        read(body.as_bytes().to_vec(), |body| {
            Some(body.list(&Spec::new("names", shape.clone(), "[]", ""), owned))
        })
    };
    assert_eq!(names(r#"{"names": ["a", "b"]}"#).unwrap(), ["a", "b"]);
    assert_eq!(names(r#"{"names": "a"}"#).unwrap(), ["a"]);
    let refused = names(r#"{"names": ["a", 5]}"#).unwrap_err();
    let [fault] = &*refused.errors else { panic!("{:?}", refused.errors) };
    assert_eq!((&*fault.pointer, &*fault.detail), ("/names/1", "must be a name; found 5"));
}
