//! v1 by the wire, over a store in memory.

mod backends;
mod import;
mod importance;
mod limits;
mod others;

use serde_json::Value;

use crate::api::tests::bench::{Bench, Call, Reply};

fn field<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.fields.get(name).map_or("", |value| std::str::from_utf8(value).unwrap())
}

fn call(bench: &Bench, method: &str, target: &str, fields: &[(&str, &str)], body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    bench.call(&Call { method, target, fields, body: body.as_bytes(), ..Call::default() })
}

fn pointers(reply: &Reply) -> Vec<&str> {
    let errors = reply.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}
