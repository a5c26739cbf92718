//! Keys of `rate_limit.rules` and `rate_limit.cors`.

use std::sync::Arc;

use super::{MAX_LIST, terms};
use crate::config::{forms, words};
use crate::declare::{Node, Parsed, Section, Shape, Spec, Value};
use balancer_http::cors::Cors;
use balancer_limiter::request_rules::{Effect, MAX_COST, RequestRule, RequestRules};
use balancer_limiter::terms::{BucketId, BucketName, BucketSpec, DEFAULT_BUCKET, MAX_RULES};

const _: () = assert!(MAX_RULES == 64 && MAX_COST == 1_000_000, "messages say so");

pub(super) fn rules(s: &mut Section<'_>) -> RequestRules {
    let shape = Shape::objects(
        "a list of at most 64 rules: [{\"match\": {\"method\": \"POST\", \"path\": \"/login\"}, \"limit\": \"5/m\"}]",
        0,
        MAX_RULES,
    );
    let about = "What some requests need beside or instead of a token of their client's limit.";
    let read = s.objects(&Spec::new("rules", shape, "[]", about), rule);
    let mut rules: Vec<RequestRule> = Vec::with_capacity(read.len());
    for (index, rule) in read.into_iter().enumerate() {
        let Some(rule) = rule else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            let text = format!("{:?} names another rule already; names must differ", &*rule.name);
            s.fault(&format!("rules[{index}].name"), text);
        } else if let Some(other) = rules.iter().find(|other| other.meets(&rule)) {
            let text = format!("is for requests that rule {:?} is for already", &*other.name);
            s.fault(&format!("rules[{index}].match"), text);
        }
        rules.push(rule);
    }
    RequestRules::new(rules)
}

/// `None` after a fault.
fn rule(mut s: Section<'_>) -> Option<RequestRule> {
    let name = Spec::of(
        "name",
        words::BUCKET_NAME,
        "null",
        "What answers call its bucket; null: its methods and its path.",
    )
    .or_null();
    let name = s.text(&name, |text| BucketName::parse(text).map_err(|_| None));
    let (methods, path) = matching(s.section("match", "Which requests."));
    let effect = effect(&mut s);
    let is_named = name.is_some();
    let name = name.or_else(|| {
        let methods = methods.as_ref()?.join(",");
        let space = if methods.is_empty() { "" } else { " " };
        BucketName::parse(&format!("{methods}{space}{}", path.as_ref()?)).ok()
    });
    if !is_named && name.is_none() && methods.is_some() && path.is_some() {
        s.fault("name", "is missing: methods and path are too long for one, or not ASCII");
    }
    s.end();
    let (name, methods, path) = (name?, methods?, path?);
    let effect = match effect? {
        Effect::Buckets(buckets) => Effect::Buckets(owned(&name, &buckets)),
        other => other,
    };
    Some(RequestRule::new(name.as_str(), methods, &path, effect))
}

/// The buckets with ids that no bucket of a limit has. A bucket without a name of its own gets the rule's.
fn owned(rule: &BucketName, buckets: &[BucketSpec]) -> Arc<[BucketSpec]> {
    let bucket = |bucket: &BucketSpec| {
        let id = BucketId::of_rule(rule.as_str(), bucket.name.as_str());
        let unnamed = bucket.name.as_str() == DEFAULT_BUCKET;
        let name = if unnamed { rule.clone() } else { bucket.name.clone() };
        BucketSpec { id, name, ..bucket.clone() }
    };
    buckets.iter().map(bucket).collect()
}

/// Methods, none for all, and the path; `None` after a fault.
fn matching(mut s: Section<'_>) -> (Option<Vec<String>>, Option<String>) {
    let method =
        Spec::of("method", words::METHODS, "null", "For which methods, as they are written; null: for all.")
            .or_null();
    let path = Spec::of("path", words::ROUTE_PATH, "", "For this path and all below it.");
    let methods = s.value(&method, |node| methods(node).map(Some));
    let path = s.text(&path, forms::route_path);
    s.end();
    (methods, path)
}

fn methods(node: &Node) -> Parsed<Vec<String>> {
    let method = |node: &Node| match &node.value {
        Value::Text(text) => forms::token_name(text).ok_or(None),
        _ => Err(None),
    };
    match &node.value {
        Value::Null => Ok(Vec::new()),
        Value::List(nodes) if (1..=16).contains(&nodes.len()) => nodes.iter().map(method).collect(),
        _ => method(node).map(|method| vec![method]),
    }
}

/// Exactly one of four; `None` after a fault.
fn effect(s: &mut Section<'_>) -> Option<Effect> {
    let about = "One bucket more, for each client.";
    let limit = s.text(&Spec::of("limit", words::RULE_LIMIT, "null", about).or_null(), terms::written);
    let buckets = terms::buckets(s);
    let cost: Option<u32> = s.whole_or_null(
        "cost",
        0..=u64::from(MAX_COST),
        "null",
        "Tokens that a request takes of each bucket of its client's limit; null: one.",
    );
    let exempt = s.bool("exempt", "false", "No bucket is asked.");
    let unnamed = limit.map(|limit| BucketSpec::new(BucketName::default_bucket(), limit));
    let of_buckets = (!buckets.is_empty()).then(|| Effect::Buckets(buckets.into()));
    let of_limit = unnamed.map(|bucket| Effect::Buckets(Arc::new([bucket])));
    let all = [of_buckets, of_limit, cost.map(Effect::Cost), exempt.then_some(Effect::Exempt)];
    let count = all.iter().flatten().count();
    if count != 1 && s.is_sound() {
        s.fault("limit", "must stand alone: a rule has one of limit, buckets, cost and exempt");
    }
    all.into_iter().flatten().next().filter(|_| count == 1)
}

/// `None`: refusals are not opened to scripts of other origins.
pub(super) fn cors(s: &mut Section<'_>) -> Option<Cors> {
    let about = "Scripts of which other origins may see refusals; null: none. Their preflights cost no token, and are refused while their client has none.";
    let mut s = s.section_if_given("cors", about)?;
    let origins = Spec::new(
        "origins",
        Shape::List { of: words::ORIGIN, max: MAX_LIST, single: true },
        "[]",
        "The origins.",
    );
    let mut origins = s.list(&origins, |text| match text {
        "*" => Ok("*".to_owned()),
        _ => forms::origin(text).ok_or(None),
    });
    let credentials = s.bool("credentials", "false", "Requests with cookies may see them too.");
    if origins.is_empty() && !s.faulty("origins") {
        s.fault("origins", "needs at least one origin, or \"*\"");
    }
    let any = origins.iter().any(|origin| origin == "*");
    if any && credentials {
        s.fault("credentials", "needs named origins: browsers take no \"*\" with it");
    }
    origins.retain(|origin| origin != "*");
    s.end();
    Some(Cors { origins: (!any).then_some(origins), credentials })
}
