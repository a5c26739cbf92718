//! `docs/api.md`, made from the document. `BALANCER_WRITE_DOCS=1 cargo test --lib reference` writes it anew.

use std::fmt::Write;

use serde_json::Value;

use super::document;

const HEAD: &str = include_str!("reference.md");

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// The last part of a reference.
fn name_of(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// The page.
fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    let paths = document["paths"].as_object().unwrap();
    for tag in document["tags"].as_array().unwrap() {
        let tag = text(tag, "name");
        let _ = write!(page, "\n## {tag}\n");
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                if operation["tags"][0] == tag && method != "head" {
                    write_operation(&mut page, path, method, item, operation);
                }
            }
        }
    }
    page.push_str("\n## What every call may be answered\n\n| status | |\n|---|---|\n");
    for (status, response) in document["components"]["responses"].as_object().unwrap() {
        let _ = writeln!(page, "| {status} | {} |", text(response, "description"));
    }
    page.push_str("\nAll of them are `application/problem+json` (RFC 9457); see `Problem`.\n\n## Schemas\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        write_schema(&mut page, name, schema);
    }
    page
}

fn write_operation(page: &mut String, path: &str, method: &str, item: &Value, operation: &Value) {
    let _ = write!(page, "\n### `{} {path}`\n\n{}.\n", method.to_uppercase(), text(operation, "summary"));
    let parameters = item["parameters"].as_array().into_iter().chain(operation["parameters"].as_array());
    let parameters: Vec<_> = parameters.flatten().collect();
    if !parameters.is_empty() {
        page.push_str("\n| parameter | in | |\n|---|---|---|\n");
    }
    for parameter in parameters {
        let (name, place) = (text(parameter, "name"), text(parameter, "in"));
        let _ = writeln!(page, "| `{name}` | {place} | {} |", text(parameter, "description"));
    }
    if let Some(body) = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str() {
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let _ = write!(page, "\nBody: `{}`, such as `{example}`\n", name_of(body));
    }
    page.push_str("\n| status | | body | fields |\n|---|---|---|---|\n");
    for (status, response) in operation["responses"].as_object().unwrap() {
        if response.get("$ref").is_some() {
            continue;
        }
        let content = response["content"].as_object().into_iter().flatten();
        let bodies: Vec<_> = content
            .map(|(kind, content)| match content["schema"]["$ref"].as_str() {
                Some(schema) => format!("`{}`", name_of(schema)),
                None => kind.split(';').next().unwrap_or_default().to_owned(),
            })
            .collect();
        let fields: Vec<_> = response["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let about = text(response, "description");
        let _ = writeln!(page, "| {status} | {about} | {} | {} |", bodies.join(", "), fields.join(", "));
    }
}

fn write_schema(page: &mut String, name: &str, schema: &Value) {
    let _ = write!(page, "\n### {name}\n");
    if schema.get("properties").is_none() {
        let _ = write!(page, "\n{}\n", kind(schema));
    }
    if !text(schema, "description").is_empty() {
        let _ = write!(page, "\n{}\n", text(schema, "description"));
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    page.push_str("\n| member | | |\n|---|---|---|\n");
    for (name, property) in properties {
        let mark = if required.contains(&name.as_str()) { "" } else { ", may be left out" };
        let about = text(property, "description");
        let _ = writeln!(page, "| `{name}` | {}{mark} | {about} |", kind(property));
    }
}

/// What a schema allows, in few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", name_of(reference));
    }
    for joined in ["oneOf", "anyOf"] {
        if let Some(several) = schema[joined].as_array().filter(|_| schema["type"].is_null()) {
            return several.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(word) = schema.get("const") {
        return format!("`{word}`");
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec!["anything"],
    };
    let mut kind_text = kinds.join(" or ");
    if let Some(items) = schema.get("items") {
        let _ =
            write!(kind_text, " of {}", if items["type"] == "object" { members(items) } else { kind(items) });
    }
    let bound = |least: &str, most: &str| (schema[least].as_u64(), schema[most].as_u64());
    for ((least, most), unit) in [
        (bound("minimum", "maximum"), ""),
        (bound("minLength", "maxLength"), " characters"),
        (bound("minItems", "maxItems"), " of them"),
    ] {
        match (least, most) {
            (Some(least), Some(most)) => {
                let _ = write!(kind_text, ", {least} to {most}{unit}");
            }
            (None, Some(most)) => {
                let _ = write!(kind_text, ", at most {most}{unit}");
            }
            _ => {}
        }
    }
    kind_text
}

/// `{a, b}` of an object that has no name of its own.
fn members(schema: &Value) -> String {
    let names: Vec<_> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    format!("`{{{}}}`", names.join(", "))
}

#[test]
fn the_page_is_what_the_document_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let made = page(&document(""));
    if std::env::var_os("BALANCER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/api.md is not what openapi says: BALANCER_WRITE_DOCS=1 cargo test --lib reference"
    );
}
