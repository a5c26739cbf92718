//! Limits and plans as callers write them.

use crate::api::members::{Faults, Members};
use balancer_limiter::identity::{ClientId, IdForm};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{
    BucketName, BucketSpec, ClientLimit, MAX_BUCKETS, MAX_IN_FLIGHT, Mode, PlanName, Reset, Terms, parse_per,
};

/// Members of a limit, beside what names its client.
pub(super) const LIMIT_MEMBERS: [&str; 5] = ["plan", "buckets", "max_in_flight", "mode", "shared"];

/// Millionths of a token.
const MICRO: u64 = 1_000_000;

/// Reads a limit. `id` is the client's, where that could be read. `None`: there are faults.
pub(super) fn limit(
    members: &Members<'_>,
    id: Option<&ClientId>,
    faults: &mut Faults,
) -> Option<ClientLimit> {
    let plan = plan_name(members, "plan", faults);
    let buckets = buckets(members, faults);
    let max_in_flight = max_in_flight(members, faults);
    let exempt = exempt(members, faults);
    let shared = members.flag("shared", faults);
    let is_range = id.is_none_or(|id| matches!(id.form(), IdForm::Range(_)));
    if shared && !is_range {
        members.fault("shared", "only a range such as 10.0.0.0/8 is shared by several clients", faults);
    }
    let has_buckets = buckets.as_ref().is_none_or(|buckets| !buckets.is_empty());
    match (members.has_value("plan"), has_buckets) {
        (true, true) => {
            members.fault("buckets", "a limit has a plan or buckets of its own, not both", faults);
        }
        (false, false) if !exempt => {
            let detail = "missing; a limit has a plan, buckets of its own, or \"mode\": \"exempt\"";
            members.fault("buckets", detail, faults);
        }
        _ => {}
    }
    let own = Terms { buckets: buckets?.into(), max_in_flight };
    Some(ClientLimit { plan, own, exempt, shared })
}

/// Reads what a plan grants. `None`: there are faults.
pub(super) fn plan_terms(members: &Members<'_>, faults: &mut Faults) -> Option<Terms> {
    let buckets = buckets(members, faults);
    if buckets.as_ref().is_some_and(Vec::is_empty) {
        members.fault("buckets", format!("missing; a plan has 1 to {MAX_BUCKETS}"), faults);
    }
    let max_in_flight = max_in_flight(members, faults);
    Some(Terms { buckets: buckets?.into(), max_in_flight })
}

/// The name of a plan, where there is one.
pub(super) fn plan_name(members: &Members<'_>, name: &str, faults: &mut Faults) -> Option<PlanName> {
    let text = members.text_or_null(name, faults)?;
    PlanName::parse(&text).map_err(|fault| members.fault(name, fault.to_string(), faults)).ok()
}

fn exempt(members: &Members<'_>, faults: &mut Faults) -> bool {
    match members.text_or_null("mode", faults).as_deref() {
        None => false,
        Some("exempt") => true,
        Some(_) => {
            let detail =
                "must be \"exempt\" or not be there; \"enforced\" and \"shadow\" are for single buckets";
            members.fault("mode", detail, faults);
            false
        }
    }
}

fn max_in_flight(members: &Members<'_>, faults: &mut Faults) -> Option<u32> {
    if members.has_value("max_in_flight") {
        members.whole("max_in_flight", 1, MAX_IN_FLIGHT, faults)
    } else {
        None
    }
}

/// None at all when the member is not there, `null` or `[]`.
fn buckets(members: &Members<'_>, faults: &mut Faults) -> Option<Vec<BucketSpec>> {
    if !members.has_value("buckets") {
        return Some(Vec::new());
    }
    let elements = members.elements("buckets", faults)?;
    if elements.len() > MAX_BUCKETS {
        members.fault("buckets", format!("must be 1 to {MAX_BUCKETS}, found {}", elements.len()), faults);
        return None;
    }
    let pointer = members.pointer("buckets");
    let mut specs: Vec<BucketSpec> = Vec::with_capacity(elements.len());
    let count = elements.len();
    for (index, element) in elements.into_iter().enumerate() {
        let known = ["name", "amount", "per", "capacity", "mode", "reset"];
        let base = format!("{pointer}/{index}");
        let Some(members) = Members::below(element, base, &known, faults) else { continue };
        let Some(spec) = bucket(&members, faults) else { continue };
        if specs.iter().any(|other| other.name == spec.name) {
            members.fault("name", "names another bucket of this limit already", faults);
        }
        specs.push(spec);
    }
    (specs.len() == count).then_some(specs)
}

fn bucket(members: &Members<'_>, faults: &mut Faults) -> Option<BucketSpec> {
    let name = members.text("name", faults);
    if !members.has("name") {
        members.fault("name", "missing; must be a name such as \"day\"", faults);
    }
    let name = name.and_then(|name| {
        BucketName::parse(&name).map_err(|fault| members.fault("name", fault.to_string(), faults)).ok()
    });
    let amount = members.amount("amount", faults);
    let per = per(members, faults);
    let capacity = match amount {
        // Without a capacity the bucket holds what flows into it in one span.
        Some(amount) if !members.has("capacity") && amount.is_multiple_of(MICRO) => {
            u32::try_from(amount / MICRO).ok()
        }
        None if !members.has("capacity") => None,
        _ => members.capacity("capacity", faults),
    };
    let mode = match members.text_or_null("mode", faults).as_deref() {
        None | Some("enforced") => Mode::Enforced,
        Some("shadow") => Mode::Shadow,
        Some(_) => {
            members.fault("mode", "must be \"enforced\" or \"shadow\"", faults);
            return None;
        }
    };
    let reset = reset(members, per, faults);
    let limit = Limit { capacity: capacity?, rate: Rate { micro: amount?, per_secs: per? } };
    Some(BucketSpec { mode, reset: reset?, ..BucketSpec::new(name?, limit) })
}

fn per(members: &Members<'_>, faults: &mut Faults) -> Option<u32> {
    let allowed = "a span such as \"1s\", \"1m\", \"1h\" or \"1d\", at most \"366d\", or \"1mo\"";
    if !members.has("per") {
        members.fault("per", format!("missing; must be {allowed}"), faults);
    }
    let secs = parse_per(&members.text("per", faults)?);
    if secs.is_none() {
        members.fault("per", format!("must be {allowed}"), faults);
    }
    secs
}

/// `None`: there is a fault; `Some(None)`: no reset.
fn reset(members: &Members<'_>, per: Option<u32>, faults: &mut Faults) -> Option<Option<Reset>> {
    if !members.has_value("reset") {
        return Some(None);
    }
    if members.text("reset", faults)? != "utc" {
        members.fault("reset", "must be \"utc\" or null", faults);
        return None;
    }
    let reset = Reset::of_per(per?);
    if reset.is_none() {
        members.fault("reset", "goes with a \"per\" of \"1h\", \"1d\" or \"1mo\"", faults);
    }
    reset.map(Some)
}
