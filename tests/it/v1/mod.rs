//! Version 1 of the API: what is stored, on both databases; what depends on the engine, on every engine.

mod engines;
mod stores;

use serde_json::{Value, json};

use crate::support::{Balancer, Response, request};

fn day(amount: u32) -> Value {
    json!({ "name": "day", "amount": amount, "per": "1d" })
}

fn encoded(id: &str) -> String {
    id.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn call(balancer: &Balancer, method: &str, target: &str, fields: &[(&str, &str)], body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(balancer.admin, method, target, fields, body.as_bytes())
}

fn pointers(response: &Response) -> Vec<String> {
    let json = response.json();
    let errors = json["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
}

const IDS: &[&str] =
    &["a/b/c", "10.0.0.0/8", "🎉 🦀", "%2F", "+ +", "..", ".", "a?b=c&d#e", "usage", "it's \"'\\"];
