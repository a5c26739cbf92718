//! Rules for some requests: a method and a path's prefix, and what they change about the client's limit.

use std::sync::Arc;

use smallvec::SmallVec;

use super::terms::{BucketId, BucketSpec};
use balancer_http::path::{each_reading, is_below, is_below_in_any_case, normal};

/// Most tokens that one request may cost.
pub const MAX_COST: u32 = 1_000_000;

/// What a rule changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Each request needs a token of each of these too. Every client has buckets of its own for them.
    Buckets(Arc<[BucketSpec]>),
    /// Each request takes so many tokens of every bucket of the client's limit.
    Cost(u32),
    /// No bucket is asked, for any client.
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

    /// Whether some request is meant by both, and neither is more specific.
    pub fn meets(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.methods.is_empty() == other.methods.is_empty()
            && (self.methods.is_empty() || self.methods.iter().any(|method| is_among(&other.methods, method)))
    }

    /// The buckets that it adds.
    pub fn buckets(&self) -> &[BucketSpec] {
        match &self.effect {
            Effect::Buckets(buckets) => buckets,
            Effect::Cost(_) | Effect::Exempt => &[],
        }
    }

    /// Whether one of its buckets is that.
    pub fn has_bucket(&self, id: BucketId) -> bool {
        self.buckets().iter().any(|bucket| bucket.id == id)
    }

    /// Some backends take `post` for `POST`, so it needs what `POST` needs; to be exempt it must be the method itself.
    fn is_for_method(&self, method: &str) -> bool {
        self.methods.is_empty()
            || if self.is_exemption() {
                self.methods.iter().any(|own| own == method)
            } else {
                is_among(&self.methods, method)
            }
    }

    fn is_exemption(&self) -> bool {
        self.effect == Effect::Exempt
    }

    fn is_for(&self, method: &str, path: &str) -> bool {
        self.is_for_method(method) && is_below(path, &self.prefix)
    }
}

fn is_among(methods: &[String], method: &str) -> bool {
    methods.iter().any(|one| one.eq_ignore_ascii_case(method))
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// A token of each bucket of these. No allocation for the one or two that honest requests meet.
    pub rules: SmallVec<[&'a RequestRule; 2]>,
    /// So many tokens of each bucket of its client's limit.
    pub cost: u32,
}

impl Needs<'_> {
    /// The same for a look that takes nothing: whether each bucket has a token.
    pub fn to_look(self) -> Self {
        Self { cost: self.cost.min(1), ..self }
    }
}

/// What the readings of a path have met so far; without a cost nothing but exemptions.
#[derive(Default)]
struct Met<'a> {
    rules: SmallVec<[&'a RequestRule; 2]>,
    cost: Option<u32>,
}

impl<'a> Met<'a> {
    /// The rule that one reading meets, if any.
    fn add(&mut self, rule: Option<&'a RequestRule>) {
        let cost = match rule.map(|rule| (rule, &rule.effect)) {
            None => 1,
            Some((_, Effect::Cost(cost))) => *cost,
            Some((_, Effect::Exempt)) => return,
            Some((rule, Effect::Buckets(_))) => {
                if !self.rules.iter().any(|other| std::ptr::eq(*other, rule)) {
                    self.rules.push(rule);
                }
                1
            }
        };
        self.cost = self.cost.max(Some(cost));
    }
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

    /// The most specific rule for a request; `path` without its query, compared in its normal form.
    pub fn find(&self, method: &str, path: &str) -> Option<&RequestRule> {
        if self.0.is_empty() {
            return None;
        }
        self.most_specific(method, &normal(path))
    }

    /// What a request needs beside or instead of one token of its client's limit, whichever reading of its path its backend
    /// takes: the buckets of the most specific rule of each reading, and the highest cost. `None`: no bucket is asked, since
    /// every reading is exempt. A path with more readings than are looked at meets every rule for its method.
    pub fn needs(&self, method: &str, path: &str) -> Option<Needs<'_>> {
        let mut met = Met::default();
        if self.0.is_empty() || !each_reading(path, |path| self.meet(method, path, &mut met)) {
            met.add(None);
            self.0.iter().filter(|rule| rule.is_for_method(method)).for_each(|rule| met.add(Some(rule)));
        }
        let Met { rules, cost } = met;
        cost.map(|cost| Needs { rules, cost })
    }

    /// What one reading meets. To some backends `/LOGIN` is `/login`: a rule that is more specific when case does not count
    /// is met too, unless it exempts.
    fn meet<'a>(&'a self, method: &str, path: &str, met: &mut Met<'a>) {
        let exact = self.most_specific(method, path);
        met.add(exact);
        let above = exact.map_or(0, |rule| rule.prefix.len());
        let loose = |rule: &&RequestRule| {
            !rule.is_exemption() && rule.is_for_method(method) && is_below_in_any_case(path, &rule.prefix)
        };
        if let Some(rule) = self.0.iter().take_while(|rule| rule.prefix.len() > above).find(loose) {
            met.add(Some(rule));
        }
    }

    /// The same as [`RequestRules::find`], for a path in its normal form.
    fn most_specific(&self, method: &str, path: &str) -> Option<&RequestRule> {
        self.0.iter().find(|rule| rule.is_for(method, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Rate};
    use crate::terms::BucketName;

    fn rules(list: &[(&str, &[&str], &str)]) -> RequestRules {
        let rule = |(name, methods, prefix): &(&str, &[&str], &str)| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            RequestRule::new(name, methods, prefix, Effect::Cost(1))
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
            ("post", "/api/x", "writes"),
            ("Post", "/login", "login"),
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

    type Row<'a> = (&'a str, Option<(&'a [&'a str], u32)>);

    fn kinds() -> RequestRules {
        let bucket = |name: &str| -> Effect {
            let limit = Limit { capacity: 1, rate: Rate::per_second(0) };
            Effect::Buckets(Arc::new([BucketSpec::new(BucketName::parse(name).unwrap(), limit)]))
        };
        let rule = |name: &str, prefix: &str, effect| RequestRule::new(name, Vec::new(), prefix, effect);
        let login = RequestRule::new("login", vec!["POST".into()], "/login", bucket("login"));
        RequestRules::new(vec![
            login,
            rule("static", "/static/", Effect::Exempt),
            rule("images", "/images", Effect::Exempt),
            rule("deep", "/static/deep", bucket("deep")),
            rule("export", "/export", Effect::Cost(10)),
            rule("free", "/free", Effect::Cost(0)),
        ])
    }

    #[test]
    fn a_request_needs_what_any_reading_of_its_path_needs() {
        let rules = kinds();
        let rows: &[Row<'_>] = &[
            ("/", Some((&[], 1))),
            ("/login", Some((&["login"], 1))),
            ("/static/a", None),
            ("/static/a;v=1/b%2Fc.", None),
            ("/static/..%2flogin", Some((&["login"], 1))),
            ("/static/..%5clogin%20.", Some((&["login"], 1))),
            ("/static/..%2fx", Some((&[], 1))),
            ("/static/..%2fimages/a", None),
            ("/static/..%2fexport", Some((&[], 10))),
            ("/static/..%2ffree", Some((&[], 0))),
            ("/free/..%2fexport", Some((&[], 10))),
            ("/free/..;/x", Some((&[], 1))),
            ("/login;x/..%2fstatic%2fdeep", Some((&["login", "deep"], 1))),
            ("/export/..;/login", Some((&["login"], 10))),
        ];
        for (path, expected) in rows {
            let needs = rules.needs("POST", path);
            let mut names: Vec<&str> =
                needs.iter().flat_map(|needs| &needs.rules).map(|rule| &*rule.name).collect();
            let mut wanted: Vec<&str> =
                expected.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            names.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(
                (names, needs.map(|needs| needs.cost)),
                (wanted, expected.map(|(_, cost)| cost)),
                "{path}"
            );
        }
        // More readings than are looked at: all rules for the method, and exempt never.
        let many = "/static/a;%3B%2f%5c\\. /%00%2500/..";
        let all = rules.needs("POST", many).unwrap();
        assert_eq!((all.rules.len(), all.cost), (2, 10));
        assert_eq!(rules.needs("GET", many).unwrap().rules.len(), 1);
    }

    /// A backend that takes a method or a path without its case finds the same needs, and no exemption.
    #[test]
    fn case_is_no_way_around_a_rule() {
        let strict = RequestRule::new("strict", vec!["GET".into()], "/login/form", Effect::Exempt);
        let cased = RequestRules::new(kinds().0.into_iter().chain([strict]).collect());
        let rows: &[(&str, Row<'_>)] = &[
            ("post", ("/login", Some((&["login"], 1)))),
            ("pOST", ("/LOGIN", Some((&["login"], 1)))),
            ("GET", ("/login", Some((&[], 1)))),
            ("GET", ("/login/form", None)),
            ("get", ("/login/form", Some((&[], 1)))),
            ("GET", ("/LOGIN/form", Some((&[], 1)))),
            ("POST", ("/Login/x", Some((&["login"], 1)))),
            ("POST", ("/Export", Some((&[], 10)))),
            ("POST", ("/STATIC/a", Some((&[], 1)))),
            ("POST", ("/static/A.CSS", None)),
            ("POST", ("/static/DEEP", Some((&["deep"], 1)))),
            ("POST", ("/static/..%2fLogin", Some((&["login"], 1)))),
            ("POST", ("/static/..%2flogin%3f/../x", Some((&["login"], 1)))),
        ];
        for (method, (path, expected)) in rows {
            let needs = cased.needs(method, path);
            let names: Vec<&str> =
                needs.iter().flat_map(|needs| &needs.rules).map(|rule| &*rule.name).collect();
            let found = needs.as_ref().map(|needs| (&names[..], needs.cost));
            assert_eq!(found, *expected, "{method} {path}");
        }
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
            ("g", &["post"], "/x"),
        ]);
        let meeting: Vec<(&str, &str)> = all
            .0
            .iter()
            .flat_map(|one| all.0.iter().map(move |two| (one, two)))
            .filter(|(one, two)| one.name < two.name && one.meets(two))
            .map(|(one, two)| (&*one.name, &*two.name))
            .collect();
        assert_eq!(meeting, [("c", "d"), ("e", "g"), ("a", "b")]);
    }
}
