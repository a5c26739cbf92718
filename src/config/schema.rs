//! The configuration file's JSON Schema (draft 2020-12), made of the keys as the code declares them. It says less than
//! [`super::load()`] checks: what is in a text, and what keys have to do with each other, only `balancer check` knows.

use serde_json::{Map, Value, json};

use super::keys::{Key, Shape};
use super::load;

/// As `forms::parse_duration` reads them: larger units first, each once, at least one.
const DURATION: &str = "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

/// The schema.
pub fn schema() -> Value {
    let keys = load::keys();
    let mut root = object("", &keys);
    let about = [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("Balancer's configuration")),
        ("description", json!(format!("As version {} reads it.", env!("CARGO_PKG_VERSION")))),
        // Words of VS Code's, which would mark them as errors otherwise; other readers pass over them.
        ("allowComments", json!(true)),
        ("allowTrailingCommas", json!(true)),
    ];
    for (name, value) in about {
        root.insert(name.into(), value);
    }
    Value::Object(root)
}

/// The object whose keys stand below that path.
fn object(path: &str, keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        let Some(name) = leaf(path, &key.path) else { continue };
        properties.insert(name.into(), property(key, keys));
        if key.default.is_empty() {
            required.push(json!(name));
        }
    }
    let mut object = Map::new();
    object.insert("type".into(), json!("object"));
    object.insert("properties".into(), Value::Object(properties));
    object.insert("additionalProperties".into(), json!(false));
    if !required.is_empty() {
        object.insert("required".into(), Value::Array(required));
    }
    object
}

/// The key's own name if it stands directly below that path.
fn leaf<'a>(path: &str, key: &'a str) -> Option<&'a str> {
    let rest = if path.is_empty() { key } else { key.strip_prefix(path)?.strip_prefix('.')? };
    (!rest.contains('.')).then_some(rest)
}

fn property(key: &Key, keys: &[Key]) -> Value {
    let below = |path: &str| {
        let prefix = format!("{path}.");
        keys.iter().any(|other| other.path.starts_with(&prefix))
    };
    let elements = format!("{}[]", key.path);
    let form = match &key.shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Duration { .. } => {
            json!({ "type": "string", "pattern": DURATION })
        }
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Text(_) => json!({ "type": "string" }),
        Shape::Number(_) => json!({ "type": "number" }),
        Shape::List { max, .. } => {
            let items =
                if below(&elements) { object(&elements, keys).into() } else { json!({ "type": "string" }) };
            let list = json!({ "type": "array", "items": items, "maxItems": max });
            // A default without brackets: a single element may stand so.
            if key.default.starts_with('"') { json!({ "anyOf": [{ "type": "string" }, list] }) } else { list }
        }
        Shape::Section => object(&key.path, keys).into(),
        Shape::Other(_) if below(&elements) => {
            let least = usize::from(key.default.is_empty());
            json!({ "type": "array", "items": object(&elements, keys), "minItems": least })
        }
        Shape::Other(_) if below(&key.path) => {
            // It may have several forms: which keys belong together is not said here.
            let mut form = object(&key.path, keys);
            form.remove("required");
            json!({ "anyOf": [{ "type": "string" }, form] })
        }
        Shape::Other(_) => json!({}),
    };
    let mut property = match form {
        Value::Object(form) => form,
        _ => Map::new(),
    };
    if key.nullable && !property.is_empty() {
        let nothing = json!({ "type": "null" });
        property = match property.remove("anyOf") {
            Some(Value::Array(mut forms)) => {
                forms.push(nothing);
                Map::from_iter([("anyOf".to_owned(), Value::Array(forms))])
            }
            _ => Map::from_iter([("anyOf".to_owned(), json!([property, nothing]))]),
        };
    }
    let takes = match key.shape {
        Shape::Section => key.about.to_owned(),
        _ => format!("{} Takes {}{}.", key.about, key.shape, if key.nullable { ", or null" } else { "" }),
    };
    property.insert("description".into(), json!(takes));
    if let Ok(default) = serde_json::from_str::<Value>(key.default) {
        property.insert("default".into(), default);
    }
    Value::Object(property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_place_and_its_words() {
        let schema = schema();
        for key in load::keys() {
            let mut at = &schema;
            for part in key.path.split('.') {
                let (name, element) = match part.strip_suffix("[]") {
                    Some(name) => (name, true),
                    None => (part, false),
                };
                let objects = [at, &at["anyOf"][0], &at["anyOf"][1], &at["anyOf"][2]];
                at = objects
                    .iter()
                    .map(|one| &one["properties"][name])
                    .find(|found| !found.is_null())
                    .unwrap();
                if element {
                    at = &at["items"];
                }
            }
            assert!(
                at["description"].as_str().is_some_and(|text| text.starts_with(key.about)),
                "{}",
                key.path
            );
        }
        assert_eq!(schema["required"], json!(["backends"]));
        assert_eq!([&schema["allowComments"], &schema["allowTrailingCommas"]], [true, true]);
        assert_eq!(schema["properties"]["backends"]["items"]["required"], json!(["name", "url"]));
        assert_eq!(schema["properties"]["frontend"]["additionalProperties"], json!(false));
    }
}
