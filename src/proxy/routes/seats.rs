//! Bounds how many requests one client has under way by one route (the route's `max_in_flight`), whichever limit the
//! client has. Each such request holds a [`RouteSeat`], which gives its place back when it is dropped.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{ActiveRoute, ActiveRoutes};
use balancer_http::routes::MetRoutes;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::terms::BucketId;

/// Enough that two loops seldom wait for the same lock.
const SHARDS: usize = 32;

/// A route and a client. The route goes by its name, so that a reload keeps the counts.
type Place = (BucketId, ClientKey);

/// Counts the requests under way. There are at most as many rows as requests by routes that have a bound.
#[derive(Default)]
pub struct RouteSeats {
    hasher: RandomState,
    shards: [Mutex<HashMap<Place, u32>>; SHARDS],
}

/// Counts a request as under way by a route, until it is dropped.
#[must_use]
pub struct RouteSeat {
    seats: Arc<RouteSeats>,
    place: Place,
}

impl RouteSeats {
    /// Takes a seat for each of the met routes that has a bound.
    ///
    /// # Errors
    /// The first route that has no seat left for that client, and its bound. No seat is held then.
    pub(in crate::proxy) fn take<'a>(
        self: &Arc<Self>,
        routes: &'a ActiveRoutes,
        met: &'a MetRoutes,
        client: ClientKey,
    ) -> Result<Vec<RouteSeat>, (&'a ActiveRoute, u32)> {
        let mut held = Vec::new();
        for route in routes.all_met(met) {
            let Some(most) = route.config.max_in_flight else { continue };
            let place = (BucketId::of_route(&route.config.name), client);
            held.push(self.sit(place, most).ok_or((route, most))?);
        }
        Ok(held)
    }

    fn sit(self: &Arc<Self>, place: Place, most: u32) -> Option<RouteSeat> {
        let mut shard = self.shard(place).lock();
        let inside = shard.entry(place).or_default();
        if *inside >= most {
            return None;
        }
        *inside += 1;
        Some(RouteSeat { seats: Arc::clone(self), place })
    }

    fn shard(&self, place: Place) -> &Mutex<HashMap<Place, u32>> {
        let number = usize::try_from(self.hasher.hash_one(place) % SHARDS as u64).unwrap_or_default();
        &self.shards[number]
    }
}

impl Drop for RouteSeat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut inside) = self.seats.shard(self.place).lock().entry(self.place) {
            *inside.get_mut() -= 1;
            if *inside.get() == 0 {
                inside.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_each_clients_own_and_leaves_nothing_behind() {
        let seats = Arc::<RouteSeats>::default();
        let client = |n: u8| ClientKey::address([192, 0, 2, n].into());
        let (one, other) = (BucketId::of_route("a"), BucketId::of_route("b"));
        let first = seats.sit((one, client(1)), 2);
        let second = seats.sit((one, client(1)), 2);
        assert!(first.is_some() && second.is_some());
        assert!(seats.sit((one, client(1)), 2).is_none());
        assert!(seats.sit((one, client(2)), 2).is_some(), "another client");
        assert!(seats.sit((other, client(1)), 1).is_some(), "another route");
        drop(first);
        assert!(seats.sit((one, client(1)), 2).is_some(), "its seat is free again");
        drop(second);
        assert!(seats.shards.iter().all(|shard| shard.lock().is_empty()), "no row is left");
    }

    #[test]
    fn many_threads_never_pass_the_bound() {
        const MOST: u32 = 3;
        let seats = Arc::<RouteSeats>::default();
        let place = (BucketId::of_route("a"), ClientKey::address([192, 0, 2, 1].into()));
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(seat) = seats.sit(place, MOST) else { continue };
                        let now = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                        assert!(now <= MOST, "{now}");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(seat);
                    }
                });
            }
        });
        assert!(seats.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
