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
        assert!(found.contains(&reference), "{name} is described for nobody");
    }
}

/// The document and the table are held together by what the API really answers.
#[test]
fn the_document_has_the_paths_and_methods_that_are_there_and_no_others() {
    let bench = Bench::new();
    let document = bench.json("GET", "/-/openapi.json", "").body;
    assert_eq!(document, super::document("/-"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), RESOURCES.iter().map(|resource| resource.routes.len()).sum::<usize>());
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
    bench.surface = crate::edge::admin::Surface::Admin;
    let plain = bench.json("GET", "/openapi.json", "").body;
    assert_eq!(plain["openapi"], "3.1.0");
    for path in ["/v1/status", "/livez", "/limits"] {
        assert!(plain["paths"].get(path).is_some(), "{path}");
    }
}
