//! All plans, as one snapshot. The plan of a limit is looked up with each request, so a changed plan is in force on the
//! next request of all its clients.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::terms::{MAX_PLANS, Plan, PlanName, Terms};

/// The number of a plan in this process, by which rows of the limiter remember the plan that they follow. A plan keeps
/// its number as long as it exists; afterwards another plan may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanNumber(NonZeroU16);

/// A plan that is in force.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its number.
    pub number: PlanNumber,
    /// What it grants.
    pub terms: Terms,
}

/// A snapshot of all plans.
#[derive(Clone, Debug, Default)]
pub struct PlanMap(HashMap<PlanName, Planned>);

impl PlanMap {
    /// A plan by its name.
    pub fn get(&self, name: &PlanName) -> Option<&Planned> {
        self.0.get(name)
    }

    /// All plans, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&PlanName, &Planned)> {
        self.0.iter()
    }

    /// The lowest number that no plan has; `None` at the bound on plans.
    fn free_number(&self) -> Option<PlanNumber> {
        let mut taken = vec![false; MAX_PLANS];
        for planned in self.0.values() {
            if let Some(place) = taken.get_mut(usize::from(planned.number.0.get()) - 1) {
                *place = true;
            }
        }
        let free = taken.iter().position(|taken| !taken)?;
        u16::try_from(free + 1).ok().and_then(NonZeroU16::new).map(PlanNumber)
    }

    fn put(&mut self, plan: Plan) -> Option<PlanNumber> {
        let number = match self.0.get(&plan.name) {
            Some(known) => known.number,
            None => self.free_number()?,
        };
        self.0.insert(plan.name, Planned { number, terms: plan.terms });
        Some(number)
    }
}

/// A change of one plan, for [`crate::limiter::Limiter::plan_changed`].
#[derive(Clone, Debug)]
pub struct PlanChange {
    /// The plan's number.
    pub number: PlanNumber,
    /// What it grants after the change; `None`: it was removed.
    pub terms: Option<Terms>,
}

/// The plans in force.
#[derive(Debug, Default)]
pub struct Plans {
    snapshot: ArcSwap<PlanMap>,
    /// Held while a snapshot is made and swapped in.
    writer: Mutex<()>,
}

impl Plans {
    /// The snapshot. Takes no lock and allocates nothing.
    pub fn load(&self) -> Guard<Arc<PlanMap>> {
        self.snapshot.load()
    }

    /// Adds or replaces a plan, which is in force from then on. `None`: there are [`MAX_PLANS`] others. Takes the
    /// writers' lock.
    pub fn put(&self, plan: Plan) -> Option<PlanChange> {
        let terms = Some(plan.terms.clone());
        self.change(|map| map.put(plan)).map(|number| PlanChange { number, terms })
    }

    /// Removes a plan. `None`: there was no such plan. Takes the writers' lock.
    pub fn remove(&self, name: &PlanName) -> Option<PlanChange> {
        let gone = self.change(|map| map.0.remove(name))?;
        Some(PlanChange { number: gone.number, terms: None })
    }

    /// Puts these plans in force, and no others, and returns what that changed. If there are more than [`MAX_PLANS`],
    /// the last ones are left out. Takes the writers' lock.
    pub fn replace(&self, plans: Vec<Plan>) -> Vec<PlanChange> {
        self.change(|map| {
            let before = map.clone();
            map.0.retain(|name, _| plans.iter().any(|plan| plan.name == *name));
            let gone = before.0.iter().filter(|(name, _)| !map.0.contains_key(*name));
            let mut changes: Vec<PlanChange> =
                gone.map(|(_, gone)| PlanChange { number: gone.number, terms: None }).collect();
            for plan in plans {
                let terms = plan.terms.clone();
                if before.0.get(&plan.name).is_some_and(|known| known.terms == terms) {
                    continue;
                }
                if let Some(number) = map.put(plan) {
                    changes.push(PlanChange { number, terms: Some(terms) });
                }
            }
            changes
        })
    }

    fn change<R>(&self, change: impl FnOnce(&mut PlanMap) -> R) -> R {
        let _writer = self.writer.lock();
        let mut map = PlanMap::clone(&self.snapshot.load());
        let result = change(&mut map);
        self.snapshot.store(Arc::new(map));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Rate};

    fn name(text: &str) -> PlanName {
        PlanName::parse(text).unwrap()
    }

    fn plan(text: &str, capacity: u32) -> Plan {
        let limit = Limit { capacity, rate: Rate::per_second(0) };
        Plan { name: name(text), terms: Terms::of_numbers(limit) }
    }

    fn capacity(plans: &Plans, text: &str) -> Option<u32> {
        plans.load().get(&name(text)).map(|planned| planned.terms.buckets[0].limit.capacity)
    }

    #[test]
    fn a_plan_keeps_its_number_for_as_long_as_it_is_there() {
        let plans = Plans::default();
        let free = plans.put(plan("free", 1)).unwrap().number;
        let pro = plans.put(plan("pro", 2)).unwrap().number;
        assert_ne!(free, pro);
        assert_eq!(plans.put(plan("free", 3)).unwrap().number, free);
        assert_eq!((capacity(&plans, "free"), capacity(&plans, "pro")), (Some(3), Some(2)));
        let gone = plans.remove(&name("free")).unwrap();
        assert_eq!((gone.number, gone.terms), (free, None));
        assert!(plans.remove(&name("free")).is_none());
        assert_eq!(plans.put(plan("other", 4)).unwrap().number, free);
        assert_eq!(plans.load().0.len(), 2);
    }

    #[test]
    fn replacing_all_tells_what_is_different() {
        let plans = Plans::default();
        for (text, capacity) in [("a", 1), ("b", 2), ("c", 3)] {
            plans.put(plan(text, capacity));
        }
        let changes = plans.replace(vec![plan("a", 1), plan("b", 5), plan("d", 6)]);
        let now = |change: &PlanChange| change.terms.as_ref().map(|terms| terms.buckets[0].limit.capacity);
        assert_eq!(changes.iter().map(now).collect::<Vec<_>>(), [None, Some(5), Some(6)]);
        let all = ["a", "b", "c", "d"].map(|text| capacity(&plans, text));
        assert_eq!(all, [Some(1), Some(5), None, Some(6)]);
        assert!(plans.replace(vec![plan("a", 1), plan("b", 5), plan("d", 6)]).is_empty());
    }

    #[test]
    fn there_are_no_more_plans_than_the_bound() {
        let plans = Plans::default();
        let many = (0..=MAX_PLANS).map(|number| plan(&number.to_string(), 1)).collect();
        assert_eq!(plans.replace(many).len(), MAX_PLANS);
        assert!(plans.put(plan("one more", 1)).is_none());
        assert!(plans.put(plan("0", 2)).is_some());
        plans.remove(&name("0"));
        assert!(plans.put(plan("one more", 1)).is_some());
    }
}
