//! Rules for requests with certain methods and paths, and what these change about the client's limit.

use std::sync::Arc;

use smallvec::SmallVec;

use super::terms::{BucketId, BucketSpec};
use balancer_http::path::{each_reading, is_below, is_below_in_any_case, normal};

/// Most tokens that one request may cost.
pub const MAX_COST: u32 = 1_000_000;

/// What a rule changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Each request also needs a token of each of these buckets. Every client has such buckets of its own.
    Buckets(Arc<[BucketSpec]>),
    /// Each request takes that many tokens of every bucket of the client's limit.
    Cost(u32),
    /// Requests need no tokens at all.
    Exempt,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRule {
    /// Its name; no other rule has it.
    pub name: Arc<str>,
    /// The methods that it is for; if empty, all methods.
    pub methods: Vec<String>,
    /// It is for this path and all below it. In normal form.
    prefix: String,
    /// What it changes.
    pub effect: Effect,
}

impl RequestRule {
    /// A rule for the path `prefix` and all below it, however they are spelled.
    pub fn new(name: &str, methods: Vec<String>, prefix: &str, effect: Effect) -> Self {
        Self { name: name.into(), methods, prefix: normal(prefix).into_owned(), effect }
    }

    /// Whether some request fits both rules and neither is more specific, so that it is not clear which one decides.
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

    /// Whether it has a bucket with that id.
    pub fn has_bucket(&self, id: BucketId) -> bool {
        self.buckets().iter().any(|bucket| bucket.id == id)
    }

    /// Whether it is for a method. Some backends take `post` for `POST`, so the case does not matter; it does for an
    /// exemption, which another spelling of the method does not get.
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

/// What tokens a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// It needs a token of each bucket of these rules. One or two rules, as honest requests have, need no allocation.
    pub rules: SmallVec<[&'a RequestRule; 2]>,
    /// It needs that many tokens of each bucket of its client's limit.
    pub cost: u32,
}

impl Needs<'_> {
    /// The same with a cost of at most 1, to ask only whether each bucket has a token.
    pub fn to_look(self) -> Self {
        Self { cost: self.cost.min(1), ..self }
    }
}

/// What the readings of a path need so far. Without a cost: all of them were exempt.
#[derive(Default)]
struct Met<'a> {
    rules: SmallVec<[&'a RequestRule; 2]>,
    cost: Option<u32>,
}

impl<'a> Met<'a> {
    /// Adds what one reading needs; `rule`: the rule that it meets, if any.
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
    /// Sorts the rules: longer prefixes first; of equal ones, those for certain methods first.
    pub fn new(mut rules: Vec<RequestRule>) -> Self {
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.prefix.len()), rule.methods.is_empty()));
        Self(rules)
    }

    /// What a request needs, in whichever way its backend reads its path: the buckets of the most specific rule of each
    /// reading ([`each_reading`]), and the highest cost. `None`: every reading is exempt, so it needs nothing. A path
    /// with too many readings meets every rule for its method.
    pub fn needs(&self, method: &str, path: &str) -> Option<Needs<'_>> {
        let mut met = Met::default();
        if self.0.is_empty() || !each_reading(path, |path| self.meet(method, path, &mut met)) {
            met.add(None);
            self.0.iter().filter(|rule| rule.is_for_method(method)).for_each(|rule| met.add(Some(rule)));
        }
        let Met { rules, cost } = met;
        cost.map(|cost| Needs { rules, cost })
    }

    /// Adds what one reading needs. Some backends take `/LOGIN` for `/login`: a reading also meets a rule that is more
    /// specific when case is ignored, unless that is an exemption.
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

    /// The most specific rule for a request. `path`: without its query, in its normal form.
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
            let found = rules.most_specific(method, &normal(path)).map(|rule| &*rule.name);
            assert_eq!(found, Some(name), "{method} {path}");
        }
        assert_eq!(RequestRules::default().most_specific("GET", "/"), None);
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
        // Too many readings: all rules for the method, and never an exemption.
        let many = "/static/a;%3B%2f%5c\\. /%00%2500/..";
        let all = rules.needs("POST", many).unwrap();
        assert_eq!((all.rules.len(), all.cost), (2, 10));
        assert_eq!(rules.needs("GET", many).unwrap().rules.len(), 1);
    }

    /// Another case of a method or a path needs the same, and is not exempt.
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

    #[test]
    fn a_look_costs_at_most_one_token_and_a_rule_knows_its_buckets() {
        let rules = kinds();
        for (path, cost, look) in [("/free", 0, 0), ("/login", 1, 1), ("/export", 10, 1)] {
            let needs = rules.needs("POST", path).unwrap();
            let names =
                |needs: &Needs<'_>| needs.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
            assert_eq!((needs.cost, names(&needs)), (cost, names(&needs.clone().to_look())));
            assert_eq!(needs.to_look().cost, look, "{path}");
        }
        let (login, deep) = (BucketId::of("login"), BucketId::of("deep"));
        let has = |name: &str, id| rules.0.iter().find(|rule| &*rule.name == name).unwrap().has_bucket(id);
        assert_eq!([has("login", login), has("login", deep), has("export", login)], [true, false, false]);
    }
}
