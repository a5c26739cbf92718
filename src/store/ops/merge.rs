//! Decides what a list of changes leads to, given what is stored. Nothing is read or written here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::super::v1::{Condition, LimitRow};
use crate::store::StoreError;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::Limit;
use balancer_limiter::terms::{ClientLimit, PlanName};

/// A change of one limit that is asked for: a wish.
#[derive(Clone, Debug)]
pub struct Change {
    /// The id of the limit.
    pub id: ClientId,
    /// What it is changed to.
    pub to: To,
    /// The condition that must hold before.
    pub condition: Condition,
}

/// What a limit is changed to.
#[derive(Clone, Debug)]
pub enum To {
    /// This limit, which must be new.
    New(ClientLimit),
    /// This limit, new or in the place of another.
    Put(ClientLimit),
    /// One bucket `default` with these numbers, for a limit that exists. Its other bounds stay.
    Numbers(Limit),
    /// Nothing: the limit is removed.
    Gone,
}

/// What becomes of one id.
#[derive(Clone, Debug)]
pub struct Done {
    /// The id, with the text that is stored.
    pub id: ClientId,
    /// The row before.
    pub before: Option<LimitRow>,
    /// The limit now; `None` when there is none.
    pub after: Option<ClientLimit>,
    /// The number of the change.
    pub version: i64,
    /// The index of the last wish for this id.
    pub index: usize,
}

impl Done {
    /// Whether there is a row now where none was.
    pub fn is_new(&self) -> bool {
        self.before.is_none() && self.after.is_some()
    }

    /// The row as it is now.
    pub fn row(&self) -> Option<LimitRow> {
        let limit = self.after.clone()?;
        Some(LimitRow { client_id: self.id.text().to_owned(), limit, version: self.version })
    }
}

/// Applies the wishes one after the other. Ids that have no row before and none after are left out. Versions are still 0.
///
/// # Errors
/// The index of the first wish that can't be done, and why.
pub(super) fn merge(
    stored: Vec<LimitRow>,
    wishes: &[Change],
    plan_exists: impl Fn(&PlanName) -> bool,
) -> Result<Vec<Done>, (usize, StoreError)> {
    let mut places: HashMap<ClientId, usize> = HashMap::with_capacity(wishes.len());
    let mut done: Vec<Done> = Vec::with_capacity(wishes.len());
    let rows = stored.into_iter().filter_map(|row| Some((ClientId::parse(&row.client_id).ok()?, row)));
    let mut rows: HashMap<ClientId, LimitRow> = rows.collect();
    for (index, wish) in wishes.iter().enumerate() {
        let at = match places.entry(wish.id.clone()) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                let before = rows.remove_entry(&wish.id);
                let (id, before) = before.map_or((wish.id.clone(), None), |(id, row)| (id, Some(row)));
                let after = before.as_ref().map(|row| row.limit.clone());
                done.push(Done { id, before, after, version: 0, index });
                *place.insert(done.len() - 1)
            }
        };
        let one = &mut done[at];
        let after = step(one, wish, index, &plan_exists).map_err(|fault| (index, fault))?;
        if one.after.is_none() {
            // A limit keeps the id with which it is created.
            one.id = wish.id.clone();
        }
        (one.after, one.index) = (after, index);
    }
    done.retain(|one| one.before.is_some() || one.after.is_some());
    Ok(done)
}

fn step(
    now: &Done,
    wish: &Change,
    index: usize,
    plan_exists: &impl Fn(&PlanName) -> bool,
) -> Result<Option<ClientLimit>, StoreError> {
    let touched = now.index != index;
    let holds = match &wish.condition {
        Condition::None => true,
        Condition::Exists => now.after.is_some(),
        Condition::Absent => now.after.is_none(),
        // A limit that an earlier wish of the list changed has no version yet that a caller could know.
        Condition::Version(versions) => {
            now.after.is_some()
                && !touched
                && now.before.as_ref().is_some_and(|row| versions.contains(&row.version))
        }
    };
    if !holds {
        return Err(StoreError::Precondition);
    }
    let known = |limit: &ClientLimit| limit.plan.as_ref().is_none_or(plan_exists);
    match (&wish.to, &now.after) {
        (To::New(_), Some(_)) => Err(StoreError::Exists),
        (To::Numbers(_) | To::Gone, None) => Err(StoreError::NotFound),
        (To::New(limit) | To::Put(limit), _) if !known(limit) => Err(StoreError::NoPlan),
        (To::New(limit) | To::Put(limit), _) => Ok(Some(limit.clone())),
        (To::Numbers(limit), Some(old)) => {
            let mut new = ClientLimit {
                shared: old.shared,
                per_instance: old.per_instance,
                ..ClientLimit::of_numbers(*limit)
            };
            (new.own.max_in_flight, new.own.importance) = (old.own.max_in_flight, old.own.importance);
            Ok(Some(new))
        }
        (To::Gone, Some(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_limiter::limit::Rate;

    fn numbers(n: u32) -> ClientLimit {
        ClientLimit::of_numbers(Limit { capacity: n, rate: Rate::per_second(1) })
    }

    fn wish(id: &str, to: To) -> Change {
        Change { id: ClientId::parse(id).unwrap(), to, condition: Condition::None }
    }

    fn stored(id: &str, n: u32) -> LimitRow {
        LimitRow { client_id: id.into(), limit: numbers(n), version: i64::from(n) }
    }

    fn of_plan(name: &str) -> ClientLimit {
        let mut limit = ClientLimit { plan: PlanName::parse(name).ok(), ..numbers(1) };
        limit.own.buckets = std::sync::Arc::new([]);
        limit
    }

    type Left = Vec<(String, Option<ClientLimit>)>;

    fn result(rows: Vec<LimitRow>, wishes: &[Change]) -> Result<Left, (usize, StoreError)> {
        let done = merge(rows, wishes, |name| name.as_str() == "free")?;
        Ok(done.into_iter().map(|one| (one.id.text().to_owned(), one.after)).collect())
    }

    #[test]
    fn each_wish_sees_what_the_ones_before_it_did() {
        let list = [
            wish("a", To::New(numbers(1))),
            wish("a", To::Gone),
            wish("::ffff:1.2.3.4", To::Gone),
            wish("1.2.3.4", To::New(numbers(2))),
            wish("b", To::Put(of_plan("free"))),
            wish("b", To::Numbers(numbers(9).own.buckets[0].limit)),
            wish("c", To::Gone),
        ];
        let rows = vec![stored("::ffff:1.2.3.4", 5), stored("c", 6)];
        assert_eq!(
            result(rows, &list).unwrap(),
            [("1.2.3.4".into(), Some(numbers(2))), ("b".into(), Some(numbers(9))), ("c".into(), None)]
        );
    }

    #[test]
    fn the_first_wish_that_fails_is_named() {
        let when = |condition| Change { condition, ..wish("c", To::Put(numbers(1))) };
        let fine = wish("d", To::New(numbers(1)));
        for (wrong, fault) in [
            (wish("c", To::New(numbers(1))), StoreError::Exists),
            (wish("a", To::Gone), StoreError::NotFound),
            (wish("a", To::Numbers(numbers(1).own.buckets[0].limit)), StoreError::NotFound),
            (wish("a", To::Put(of_plan("gold"))), StoreError::NoPlan),
            (when(Condition::Absent), StoreError::Precondition),
            (when(Condition::Version(vec![5, 7])), StoreError::Precondition),
            (Change { condition: Condition::Exists, ..wish("a", To::Gone) }, StoreError::Precondition),
            (
                Change { condition: Condition::Version(vec![1]), ..wish("d", To::Gone) },
                StoreError::Precondition,
            ),
        ] {
            let failed = result(vec![stored("c", 6)], &[fine.clone(), wrong.clone()]).unwrap_err();
            assert_eq!(failed, (1, fault), "{wrong:?}");
        }
        for fits in [Condition::Exists, Condition::Version(vec![5, 6])] {
            assert!(result(vec![stored("c", 6)], &[when(fits)]).is_ok());
        }
    }

    #[test]
    fn new_numbers_detach_from_the_plan_and_keep_what_else_bounds() {
        let mut old = LimitRow { limit: of_plan("free"), ..stored("10.0.0.0/8", 1) };
        (old.limit.own.max_in_flight, old.limit.shared, old.limit.exempt) = (Some(3), true, true);
        (old.limit.own.importance.weight, old.limit.per_instance) = (Some(7), true);
        let list = [wish("10.0.0.0/8", To::Numbers(numbers(2).own.buckets[0].limit))];
        let mut new = numbers(2);
        (new.own.max_in_flight, new.own.importance.weight) = (Some(3), Some(7));
        (new.shared, new.per_instance) = (true, true);
        assert_eq!(result(vec![old], &list).unwrap(), [("10.0.0.0/8".into(), Some(new))]);
    }
}
