//! Limits and plans as callers write them.

use crate::api::members::{BodyFaults, Members};
use balancer_limiter::document::{BucketMembers, LimitMembers, check_count};
use balancer_limiter::identity::{ClientId, IdForm};
use balancer_limiter::terms::{BucketSpec, ClientLimit, MAX_BUCKETS, MAX_IN_FLIGHT, Terms};

/// Members of a limit, beside what names its client.
pub(super) const LIMIT_MEMBERS: [&str; 5] = ["plan", "buckets", "max_in_flight", "mode", "shared"];

/// Reads a limit. `id` is the client's, where that could be read. `None`: there are faults.
pub(super) fn limit(
    members: &Members<'_>,
    id: Option<&ClientId>,
    faults: &mut BodyFaults,
) -> Option<ClientLimit> {
    let plan = members.text_or_null("plan", faults);
    let buckets = buckets(members, faults);
    let max_in_flight = max_in_flight(members, faults);
    let mode = members.text_or_null("mode", faults);
    let read = LimitMembers {
        has_plan: members.has_value("plan"),
        plan: plan.as_deref(),
        buckets,
        max_in_flight,
        mode: mode.as_deref(),
        shared: members.flag("shared", faults),
        is_range: id.is_none_or(|id| matches!(id.form(), IdForm::Range(_))),
    };
    read.check(&mut |member, detail| members.fault(member, detail, faults))
}

/// Reads what a plan grants. `None`: there are faults.
pub(super) fn plan_terms(members: &Members<'_>, faults: &mut BodyFaults) -> Option<Terms> {
    let buckets = buckets(members, faults);
    if buckets.as_ref().is_some_and(Vec::is_empty) {
        members.fault("buckets", format!("missing; a plan has 1 to {MAX_BUCKETS}"), faults);
    }
    let max_in_flight = max_in_flight(members, faults);
    Some(Terms { buckets: buckets?.into(), max_in_flight })
}

fn max_in_flight(members: &Members<'_>, faults: &mut BodyFaults) -> Option<u32> {
    let given = members.has_value("max_in_flight");
    given.then(|| members.whole("max_in_flight", 1, MAX_IN_FLIGHT, faults)).flatten()
}

/// None at all when the member is not there, `null` or `[]`.
fn buckets(members: &Members<'_>, faults: &mut BodyFaults) -> Option<Vec<BucketSpec>> {
    if !members.has_value("buckets") {
        return Some(Vec::new());
    }
    let elements = members.elements("buckets", faults)?;
    let count = elements.len();
    check_count(count).map_err(|detail| members.fault("buckets", detail, faults)).ok()?;
    let pointer = members.pointer("buckets");
    let mut specs = Vec::with_capacity(count);
    for (index, element) in elements.into_iter().enumerate() {
        let known = ["name", "amount", "per", "capacity", "mode", "reset"];
        let members = Members::below(element, format!("{pointer}/{index}"), &known, faults);
        specs.extend(members.and_then(|members| bucket(&members, &specs, faults)));
    }
    (specs.len() == count).then_some(specs)
}

fn bucket(members: &Members<'_>, beside: &[BucketSpec], faults: &mut BodyFaults) -> Option<BucketSpec> {
    let name = members.text_required("name", "a name such as \"day\"", faults);
    let amount_micro = members.amount("amount", faults);
    let per = members.text_required("per", "a span such as \"1s\", \"1m\", \"1h\" or \"1d\"", faults);
    let capacity = members.has("capacity").then(|| members.capacity("capacity", faults).map(u64::from));
    let mode = members.text_or_null("mode", faults);
    let reset = members.text_or_null("reset", faults);
    let read = BucketMembers {
        name: name.as_deref(),
        amount_micro,
        per: per.as_deref(),
        capacity,
        mode: mode.as_deref(),
        reset: reset.as_deref(),
    };
    read.check(beside, &mut |member, detail| members.fault(member, detail, faults))
}
