use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::{Config, Duration, FaultOrigin, Options, PathBuf, env, from_text, load};
use balancer_limiter::limit::{Limit, Rate};

const SHIPPED: &str = include_str!("../../../config.json");

/// Pieces that JSON and our forms are made of.
const PIECES: [&str; 33] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e9",
    "0.5",
    "99999999999999999999",
    "\\u0000",
    "\"10s\"",
    "\"1d\"",
    "\"5/s\"",
    "\"0.0.0.0/0\"",
    "\"http://h\"",
    "\"sqlite:x\"",
    "\"file:x\"",
    "\"\"",
    "\"workers\":",
    "\"token\":\"t\"",
    "\"default\":",
    "\n",
    "//",
    "/*",
    "é",
    "[]",
    "{}",
];

fn mutated() -> impl Strategy<Value = String> {
    let change =
        (any::<prop::sample::Index>(), 0..40_usize, prop::sample::select(&PIECES[..]), any::<bool>());
    prop::collection::vec(change, 0..4).prop_map(|changes| {
        let mut text = SHIPPED.to_owned();
        for (at, length, piece, cut) in changes {
            let mut start = at.index(text.len() + 1);
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = if cut { (start + length).min(text.len()) } else { start };
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(start..end, piece);
        }
        text
    })
}

/// Swaps the value of one key by another, so that most files stay JSON.
fn swapped() -> impl Strategy<Value = String> {
    let values = prop::sample::select(&PIECES[7..]);
    (any::<prop::sample::Index>(), values).prop_map(|(which, value)| {
        let colons: Vec<usize> = SHIPPED.match_indices("\": ").map(|(at, _)| at + 3).collect();
        let start = colons[which.index(colons.len())];
        let end = SHIPPED[start..].find([',', '}', '\n']).map_or(SHIPPED.len(), |length| start + length);
        format!("{}{value}{}", &SHIPPED[..start], &SHIPPED[end..])
    })
}

fn within_bounds(config: &Config) -> Result<(), TestCaseError> {
    let day = Duration::from_secs(86_400);
    prop_assert!((1..=64).contains(&config.listen.len()));
    prop_assert!((1..=1_024).contains(&config.pools[0].backends.len()));
    let mut names: Vec<_> = config.pools[0].backends.iter().map(|backend| &backend.name).collect();
    names.sort();
    names.dedup();
    prop_assert_eq!(names.len(), config.pools[0].backends.len());
    for backend in &config.pools[0].backends {
        prop_assert!(!backend.name.is_empty() && !backend.host.is_empty());
        prop_assert!(backend.port > 0 || backend.host.starts_with('_'));
        prop_assert!(backend.weight <= 1_000);
    }
    let frontend = &config.frontend;
    prop_assert!(
        frontend.workers.is_none_or(|workers| workers > 0) && (1..=4_096).contains(&frontend.workers())
    );
    prop_assert!(
        frontend.max_body_bytes <= 1 << 40 && frontend.max_headers > 0 && frontend.max_head_bytes >= 1_024
    );
    for timeout in
        [frontend.head_timeout, frontend.body_timeout, frontend.idle_timeout, frontend.write_timeout]
    {
        prop_assert!(timeout > Duration::ZERO && timeout <= day);
    }
    prop_assert!((1..=128).contains(&config.rate_limit.ipv6_prefix) && config.rate_limit.max_clients > 0);
    if let Some(limit) = config.rate_limit.default.as_ref().and_then(|terms| terms.first()) {
        prop_assert!(limit.capacity <= Limit::MAX_CAPACITY && limit.rate.micro <= Rate::MAX_MICRO);
    }
    if let Some(check) = &config.pools[0].health_check {
        prop_assert!(
            check.path.starts_with('/') && !check.expect.is_empty() && check.rise > 0 && check.fall > 0
        );
    }
    let open = config.admin.allow.iter().any(|net| !net.addr().is_loopback());
    prop_assert!(!open || config.admin.insecure || config.admin.token.is_some());
    prop_assert!((1..=256).contains(&config.database.pool_size) && config.cache.max_entries > 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_mutation_of_the_file_panics_and_what_is_accepted_is_within_bounds(
        text in prop_oneof![mutated(), swapped()]
    ) {
        match from_text(&text, &PathBuf::from("/srv")) {
            Ok(config) => within_bounds(&config)?,
            Err(faults) => {
                prop_assert!(!faults.list().is_empty());
                let lines = text.lines().count().max(1) + 1;
                for fault in faults.list() {
                    let inside = matches!(fault.origin, FaultOrigin::Line(line) if (1..=lines).contains(&line));
                    prop_assert!(inside, "{fault:?}");
                    prop_assert!(!fault.text.is_empty() && !fault.text.contains('\n'), "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn no_variable_panics(name in "BALANCER(_|__)[A-Z_0-9]{0,20}", value in "[\\[\\]{}\":,0-9a-z/.]{0,20}") {
        let options = Options { to: vec![":9001".into()], ..Options::default() };
        if let Ok(loaded) = load(&options, &env(&[(&name, &value)])) {
            within_bounds(&loaded.config)?;
        }
    }
}
