//! The configuration file's JSON Schema (draft 2020-12), made of the keys as the code declares them. It finds less than
//! [`super::load()`] does: only `balancer check` finds doubled keys, names that must differ, bounds that another key
//! sets, and faults outside of the file.

use serde_json::{Map, Value, json};

use super::given::is_below;
use super::{load, words};
use crate::declare::{Key, More, Shape, object, property};

/// An hour, a day and a month of 30 days, as they may be written.
const PERIODS: &str = "^(0*(1h|60m|3600s|1d|24h|1440m|86400s|30d|720h|43200m|2592000s)|1mo)$";

/// What a pool takes.
const POOL: [&str; 5] = ["backends", "balancing", "upstream", "outlier", "health_check"];

/// The schema.
pub fn schema() -> Value {
    let keys = load::keys();
    let mut root = object("", &keys, &Together);
    let about = [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("Balancer's configuration")),
        ("description", json!(format!("As version {} reads it.", env!("CARGO_PKG_VERSION")))),
        // Keywords of VS Code alone, which otherwise marks both as errors.
        ("allowComments", json!(true)),
        ("allowTrailingCommas", json!(true)),
    ];
    for (name, value) in about {
        root.insert(name.into(), value);
    }
    Value::Object(root)
}

/// What the declarations do not say.
struct Together;

impl More for Together {
    fn form(&self, key: &Key, keys: &[Key]) -> Option<Value> {
        match &key.shape {
            Shape::Named(_) => Some(pools(keys)),
            Shape::Objects { max, .. } if key.path == "backends" => {
                let url = (words::BACKEND_URL.schema)();
                let object = object("backends[]", keys, self);
                // Not `anyOf`: so a validator reports the faults of an object's members.
                let item = json!({ "if": { "type": "string" }, "then": url, "else": object });
                Some(json!({ "type": "array", "items": item, "maxItems": max }))
            }
            Shape::Form(form) if keys.iter().any(|other| is_below(&other.path, &key.path)) => {
                Some(limit((form.schema)(), object(&key.path, keys, self)))
            }
            _ => None,
        }
    }

    fn together(&self, path: &str) -> Vec<Value> {
        together(path)
    }

    /// Backends at the top may be missing where there are pools or routes: see `has_place_to_go`.
    fn is_required(&self, key: &Key) -> bool {
        key.path != "backends"
    }

    fn about(&self, key: &Key) -> String {
        match key.shape {
            Shape::Section | Shape::Named(_) => key.about.to_owned(),
            _ => format!("{} Takes {}{}.", key.about, key.shape, if key.nullable { ", or null" } else { "" }),
        }
    }
}

/// A limit: a text, an object with both numbers, or one with buckets.
fn limit(text: Value, mut buckets: Map<String, Value>) -> Value {
    const NUMBERS: [&str; 2] = ["capacity", "rate_per_sec"];
    let mut numbers = buckets.clone();
    let keep = |object: &mut Map<String, Value>, is_number: bool| {
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            properties.retain(|name, _| NUMBERS.contains(&name.as_str()) == is_number);
        }
    };
    keep(&mut numbers, true);
    numbers.insert("required".into(), json!(NUMBERS));
    keep(&mut buckets, false);
    buckets.insert("required".into(), json!(["buckets"]));
    if let Some(list) = buckets.get_mut("properties").and_then(|properties| properties.get_mut("buckets")) {
        list["minItems"] = json!(1);
    }
    json!({ "anyOf": [text, numbers, buckets] })
}

/// Rules between the keys of one object.
fn together(path: &str) -> Vec<Value> {
    let has = |name: &str, form: Value| json!({ "required": [name], "properties": { name: form } });
    let text = json!({ "type": "string" });
    match path {
        "" => vec![has_listener(), has_place_to_go()],
        "tls" => vec![json!({ "properties": {
            "listen": { "minItems": 1, "uniqueItems": true },
            "alpn": { "minItems": 1, "uniqueItems": true },
        } })],
        "upstream.tls" => {
            let pair = ["client_cert", "client_key"];
            let [cert, key] = pair.map(|name| has(name, text.clone()));
            let none = json!({ "properties": { "client_cert": { "const": null }, "client_key": { "const": null } } });
            vec![json!({ "anyOf": [{ "allOf": [cert, key] }, none] })]
        }
        "admin.tokens[]" => {
            vec![json!({ "oneOf": [has("token_file", text.clone()), has("token_env", text)] })]
        }
        "rate_limit.rules[]" => vec![json!({ "oneOf": [
            has("limit", text),
            has("buckets", json!({ "minItems": 1 })),
            has("cost", json!({ "type": "integer" })),
            has("exempt", json!({ "const": true })),
        ] })],
        "routes[]" => {
            let object = json!({ "type": "object" });
            let actions =
                [has("pool", text.clone()), has("redirect", object.clone()), has("respond", object)];
            let one_limit =
                json!({ "not": { "allOf": [has("limit", text), has("buckets", json!({ "minItems": 1 }))] } });
            vec![json!({ "oneOf": actions }), one_limit]
        }
        "rate_limit.cors" => {
            let any =
                json!({ "anyOf": [{ "const": "*" }, { "type": "array", "contains": { "const": "*" } }] });
            let both = json!({
                "required": ["origins", "credentials"],
                "properties": { "origins": any, "credentials": { "const": true } },
            });
            vec![has("origins", json!({ "minItems": 1 })), json!({ "not": both })]
        }
        path if path.ends_with(".buckets[]") => {
            let whole = json!({ "properties": { "amount": { "type": "integer" } } });
            let span = json!({ "properties": { "per": { "pattern": PERIODS } } });
            let never = json!({ "properties": { "reset": { "const": null } } });
            vec![
                json!({ "anyOf": [has("capacity", json!({ "type": "integer" })), whole] }),
                json!({ "anyOf": [span, never] }),
            ]
        }
        _ => Vec::new(),
    }
}

/// Pools by their names. Each has backends, and the sections of the top, from which it takes what it leaves out.
fn pools(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys.iter().filter(|key| POOL.contains(&key.path.as_str())) {
        let mut property = property(key, keys, &Together);
        if key.path == "backends" {
            property["minItems"] = json!(1);
        } else {
            overriding(&mut property);
        }
        properties.insert(key.path.clone(), property);
    }
    let pool = json!({
        "type": "object", "properties": properties, "required": ["backends"], "additionalProperties": false,
    });
    json!({
        "type": "object",
        "propertyNames": { "pattern": "^(?!default$)[a-z0-9][a-z0-9_-]{0,62}$" },
        "additionalProperties": pool,
        "maxProperties": 256,
    })
}

/// Takes out what must be given and the defaults: what a pool leaves out is as it is at the top.
fn overriding(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, _| !["default", "required", "allOf"].contains(&name.as_str()));
            members.values_mut().for_each(overriding);
        }
        Value::Array(elements) => elements.iter_mut().for_each(overriding),
        _ => {}
    }
}

/// Backends, or pools or routes, which say where else requests go.
fn has_place_to_go() -> Value {
    let some = json!({ "required": ["backends"], "properties": { "backends": { "minItems": 1 } } });
    let pools = json!({ "required": ["pools"], "properties": { "pools": { "minProperties": 1 } } });
    let routes = json!({ "required": ["routes"], "properties": { "routes": { "minItems": 1 } } });
    json!({ "anyOf": [some, pools, routes] })
}

/// At least one address, and none twice; the plain port may be missing where there is the TLS port.
fn has_listener() -> Value {
    let list = |least: usize| json!({ "listen": { "minItems": least, "uniqueItems": true } });
    let plain = json!({ "properties": { "listen": { "not": { "type": "null" }, "minItems": 1 } } });
    let tls = json!({ "required": ["tls"], "properties": { "tls": { "type": "object" } } });
    json!({ "properties": list(0), "anyOf": [plain, tls] })
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
                let objects = [at, &at["anyOf"][0], &at["anyOf"][1], &at["anyOf"][2], &at["else"]];
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
        assert_eq!(schema.get("required"), None);
        assert_eq!([&schema["allowComments"], &schema["allowTrailingCommas"]], [true, true]);
        assert_eq!(schema["properties"]["backends"]["items"]["else"]["required"], json!(["name", "url"]));
        assert_eq!(schema["properties"]["frontend"]["additionalProperties"], json!(false));
    }
}
