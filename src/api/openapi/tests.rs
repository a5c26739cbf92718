use super::super::tests::bench::Bench;
use super::*;

/// Every `$ref` below a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" => found.push(text.clone()),
                    other => references(other, found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document("/-");
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(found.contains(&reference), "no call refers to {name}");
    }
}

/// What the API really answers shows whether the document fits it.
#[test]
fn the_document_has_the_paths_and_methods_that_are_there_and_no_others() {
    let bench = Bench::new();
    let document = bench.json("GET", "/-/openapi.json", "").body;
    assert_eq!(document, super::document("/-"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), resources().map(|resource| resource.routes.len()).sum::<usize>());
    for (path, item) in paths {
        let target = path.replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let described = item.get(method.to_lowercase());
            let reply = bench.json(method, &target, "");
            assert_eq!(described.is_none(), reply.status == 405, "{method} {target}: {reply:?}");
            if let Some(operation) = described {
                let status = reply.status.to_string();
                assert!(operation["responses"].get(&status).is_some(), "{method} {target}: {status}");
                assert!(operation["responses"].get("405").is_some(), "{method} {target}");
            }
        }
    }
}

#[test]
fn it_is_asked_for_with_and_without_the_prefix() {
    let mut bench = Bench::new();
    assert!(bench.json("GET", "/-/openapi.json", "").body["paths"].get("/-/v1/status").is_some());
    bench.surface = crate::api::Surface::Admin;
    let plain = bench.json("GET", "/openapi.json", "").body;
    assert_eq!(plain["openapi"], "3.1.0");
    for path in ["/v1/status", "/livez", "/limits"] {
        assert!(plain["paths"].get(path).is_some(), "{path}");
    }
}

/// Every parameter, body and answer of the document, with the place where it stands.
fn described(document: &Value) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                all.extend(
                    operation.as_array().unwrap().iter().map(|one| (format!("{path} {}", one["name"]), one)),
                );
                continue;
            }
            let place = format!("{method} {path}");
            let parameters = operation["parameters"].as_array().unwrap();
            all.extend(parameters.iter().map(|one| (format!("{place} {}", one["name"]), one)));
            let mut bodies = vec![("body", &operation["requestBody"])];
            bodies.extend(
                operation["responses"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(status, one)| (status.as_str(), one)),
            );
            for (name, body) in bodies {
                for (kind, content) in body["content"].as_object().into_iter().flatten() {
                    all.push((format!("{place} {name} {kind}"), content));
                }
            }
        }
    }
    for (status, response) in document["components"]["responses"].as_object().unwrap() {
        for (kind, content) in response["content"].as_object().unwrap() {
            all.push((format!("{status} {kind}"), content));
        }
    }
    all
}

#[test]
fn everything_has_an_example() {
    let document = document("");
    let all = described(&document);
    assert!(all.len() > 150, "{}", all.len());
    for (place, described) in all {
        let example = &described["example"];
        assert!(!example.is_null(), "{place} has no example");
        assert_ne!(example["title"], "", "{place}: {example}");
    }
}

#[test]
fn a_field_or_a_parameter_has_one_form() {
    for (place, described) in described(&document("")) {
        if described.get("in").is_some() {
            let schema = &described["schema"];
            let one_form = schema["type"].is_string() || schema["$ref"].is_string();
            assert!(one_form && schema.get("anyOf").is_none(), "{place}: {schema}");
        }
    }
}

#[test]
fn the_api_takes_the_examples_of_its_calls() {
    let document = document("/-");
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            // A fresh one: what one call leaves is in the way of the next.
            let bench = Bench::new();
            let parameters =
                item["parameters"].as_array().into_iter().chain(operation["parameters"].as_array());
            let mut target = path.clone();
            let mut query = Vec::new();
            for parameter in parameters.flatten() {
                let name = parameter["name"].as_str().unwrap();
                let example = &parameter["example"];
                let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
                match parameter["in"].as_str().unwrap() {
                    "path" => target = target.replace(&format!("{{{name}}}"), &text),
                    // A cursor is a page's own.
                    "query" if name != "cursor" => query.push(format!("{name}={text}")),
                    _ => {}
                }
            }
            if !query.is_empty() {
                target = format!("{target}?{}", query.join("&"));
            }
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let reply = bench.json(&method.to_uppercase(), &target, &body);
            assert_ne!(reply.status, 400, "{method} {target} {body}: {reply:?}");
            assert!(reply.status < 500, "{method} {target} {body}: {reply:?}");
        }
    }
}
