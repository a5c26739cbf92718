//! The line's rules, each as a table of steps.

use super::*;
use balancer_importance::Priority;
use balancer_time::Nanos;

mod crowds;
mod order;
mod places;
mod random;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000_000_000;

const fn who(client: u64) -> Who {
    Who { client, priority: Priority::Normal }
}

fn line(size: usize, target: Option<Nanos>) -> FairLine {
    FairLine::new(LinePolicy { size, target })
}

fn joining(who: Who, arrived: Nanos) -> Joining {
    Joining { who, weight: 1, arrived, straight: 0 }
}

/// Joins with weight 1, for which there has to be room.
fn join(line: &mut FairLine, client: u64, now: Nanos) -> LineTicket {
    line.join(&joining(who(client), now), now).expect("room in the line")
}

fn join_all(line: &mut FairLine, clients: impl IntoIterator<Item = u64>, now: Nanos) {
    for client in clients {
        join(line, client, now);
    }
}

/// The clients of the next turns. Each turn ends after `held`, by which time goes on; with `None` it does not end.
fn served(line: &mut FairLine, turns: usize, held: Option<Nanos>, now: &mut Nanos) -> Vec<u64> {
    let mut clients = Vec::new();
    for _ in 0..turns {
        let Some(turn) = line.next(*now) else { break };
        clients.push(turn.ticket.who.client);
        if let Some(held) = held {
            *now += held;
            line.end(turn.ticket.who, Some(held), *now);
        }
    }
    clients
}

fn refused(line: &mut FairLine) -> Vec<(u64, LineRefusal)> {
    std::iter::from_fn(|| line.refused()).map(|(ticket, why)| (ticket.who.client, why)).collect()
}
