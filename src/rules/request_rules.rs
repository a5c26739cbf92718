//! Rules for some requests: a method and a path's prefix, and what they change about the client's limit.

use std::sync::Arc;

use super::path::{is_below, normal};
use super::terms::BucketSpec;

/// Most tokens that one request may cost.
pub const MAX_COST: u32 = 1_000_000;

/// What a rule changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Each request needs a token of each of these too. Every client has buckets of its own for them.
    Buckets(Arc<[BucketSpec]>),
    /// Each request takes so many tokens of every bucket of the client's limit.
    Cost(u32),
    /// No bucket is asked, whoever it is.
    Exempt,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRule {
    /// Different from those of other rules.
    pub name: Arc<str>,
    /// Methods that it is for; none: every one.
    pub methods: Vec<String>,
    /// What a path must be or lie below, in its normal form.
    prefix: String,
    /// What it changes.
    pub effect: Effect,
}

impl RequestRule {
    /// A rule for paths that are, or lie below, any writing of `prefix`.
    pub fn new(name: &str, methods: Vec<String>, prefix: &str, effect: Effect) -> Self {
        Self { name: name.into(), methods, prefix: normal(prefix).into_owned(), effect }
    }

    /// The prefix in its normal form.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether some request is meant by both, and neither is more specific.
    pub fn meets(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.methods.is_empty() == other.methods.is_empty()
            && (self.methods.is_empty() || self.methods.iter().any(|method| other.methods.contains(method)))
    }

    fn is_for(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|own| own == method))
            && is_below(path, &self.prefix)
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// A token of each of these.
    pub rule: &'a [BucketSpec],
    /// So many tokens of each bucket of its client's limit.
    pub cost: u32,
}

/// All rules, the most specific first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRules(Vec<RequestRule>);

impl RequestRules {
    /// Puts them in order: a longer prefix first; of equal ones, those for certain methods.
    pub fn new(mut rules: Vec<RequestRule>) -> Self {
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.prefix.len()), rule.methods.is_empty()));
        Self(rules)
    }

    /// The most specific rule for a request; `path` without its query. Methods are compared as they are (RFC 9110 §9.1),
    /// paths in their normal form.
    pub fn find(&self, method: &str, path: &str) -> Option<&RequestRule> {
        if self.0.is_empty() {
            return None;
        }
        let path = normal(path);
        self.0.iter().find(|rule| rule.is_for(method, &path))
    }

    /// What a request needs beside or instead of one token of its client's limit; `None`: no bucket is asked.
    pub fn needs(&self, method: &str, path: &str) -> Option<Needs<'_>> {
        match self.find(method, path).map(|rule| &rule.effect) {
            None => Some(Needs { rule: &[], cost: 1 }),
            Some(Effect::Buckets(buckets)) => Some(Needs { rule: buckets, cost: 1 }),
            Some(Effect::Cost(cost)) => Some(Needs { rule: &[], cost: *cost }),
            Some(Effect::Exempt) => None,
        }
    }

    /// All of them, the most specific first.
    pub fn iter(&self) -> impl Iterator<Item = &RequestRule> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&str, &[&str], &str)]) -> RequestRules {
        let rule = |(name, methods, prefix): &(&str, &[&str], &str)| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            RequestRule::new(name, methods, prefix, Effect::Exempt)
        };
        RequestRules::new(list.iter().map(rule).collect())
    }

    #[test]
    fn the_longest_prefix_wins_then_the_method() {
        let rules = rules(&[
            ("all", &[], "/"),
            ("api", &[], "/api"),
            ("writes", &["POST", "PUT"], "/api"),
            ("export", &["GET"], "/api/%65xport/"),
            ("login", &["POST"], "//login"),
        ]);
        let rows = [
            ("GET", "/", "all"),
            ("GET", "/api", "api"),
            ("GET", "/apis", "all"),
            ("PUT", "/api/x", "writes"),
            ("post", "/api/x", "api"),
            ("GET", "/api/export", "api"),
            ("GET", "/api/export/1", "export"),
            ("POST", "/api/export/1", "writes"),
            ("POST", "/login", "login"),
            ("POST", "/%6cogin/", "login"),
            ("POST", "/x/..//./login", "login"),
            ("GET", "/login", "all"),
        ];
        for (method, path, name) in rows {
            let found = rules.find(method, path).map(|rule| &*rule.name);
            assert_eq!(found, Some(name), "{method} {path}");
        }
        assert_eq!(RequestRules::default().find("GET", "/"), None);
    }

    #[test]
    fn two_rules_meet_when_neither_is_more_specific() {
        let all = rules(&[
            ("a", &[], "/x"),
            ("b", &[], "/./x"),
            ("c", &["GET"], "/x"),
            ("d", &["GET", "PUT"], "/x"),
            ("e", &["POST"], "/x"),
            ("f", &[], "/x/"),
        ]);
        let meeting: Vec<(&str, &str)> = all
            .iter()
            .flat_map(|one| all.iter().map(move |two| (one, two)))
            .filter(|(one, two)| one.name < two.name && one.meets(two))
            .map(|(one, two)| (&*one.name, &*two.name))
            .collect();
        assert_eq!(meeting, [("c", "d"), ("a", "b")]);
    }
}
