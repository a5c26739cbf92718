//! Moments that explain a bend in a plot: reloads, and backends whose state changed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::reading::BackendKey;
use balancer_pool::backend_state::{State, line};
use balancer_pool::backends::{Backend, Snapshot};
use balancer_time::Nanos;

/// Most marks that are kept; the oldest are dropped.
pub const MAX_MARKS: usize = 256;

/// Longest text of a mark, in bytes.
const MAX_TEXT: usize = 300;

/// Most backends whose states are remembered. Backends beyond it get no marks.
const MAX_STATES: usize = 16_384;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The process began.
    Start,
    /// Another configuration is in force.
    Reload,
    /// A reload was refused.
    ReloadFailed,
    /// A backend is given requests again.
    Up,
    /// The operator drains a backend.
    Drain,
    /// A backend is out of service.
    Down,
    /// A backend was taken out of service because of its answers.
    Ejected,
}

impl MarkKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Start, Self::Reload, Self::ReloadFailed, Self::Up, Self::Drain, Self::Down, Self::Ejected];

    /// The word for it in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::ReloadFailed => "reload_failed",
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }

    const fn of(state: State) -> Self {
        match state {
            State::Up => Self::Up,
            State::Drain => Self::Drain,
            State::Down => Self::Down,
            State::Ejected => Self::Ejected,
        }
    }
}

/// A moment that explains a bend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryMark {
    /// When it was noticed.
    pub at: Nanos,
    /// What it was.
    pub kind: MarkKind,
    /// What happened, as a sentence; at most 300 bytes and an ellipsis.
    pub text: String,
}

/// A backend as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendNow {
    /// Its pool.
    pub pool: String,
    /// Its name in the pool.
    pub name: String,
    /// What sentences call it.
    pub title: String,
    /// Its state.
    pub state: State,
    /// Why it is in that state.
    pub cause: Option<String>,
}

/// All backends of a pool as they are now.
pub fn backends_now(snapshot: &Snapshot) -> Vec<BackendNow> {
    let of = |group: &Arc<Backend>| {
        let told = snapshot.told(group);
        BackendNow {
            pool: group.pool.to_string(),
            name: group.name.to_string(),
            title: group.title.to_string(),
            state: told.state,
            cause: told.cause,
        }
    };
    snapshot.backends().iter().map(of).collect()
}

/// The marks, and the states and counts that the next look is compared with.
#[derive(Debug, Default)]
pub(super) struct Marks {
    all: VecDeque<HistoryMark>,
    /// Each backend's state at the last look, and since when it has it.
    states: HashMap<BackendKey, (State, Nanos)>,
    /// Reloads that succeeded and that failed, at the last look.
    reloads: (u64, u64),
}

impl Marks {
    /// Adds a mark.
    pub fn add(&mut self, at: Nanos, kind: MarkKind, mut text: String) {
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        if self.all.len() == MAX_MARKS {
            self.all.pop_front();
        }
        self.all.push_back(HistoryMark { at, kind, text });
    }

    /// Marks reloads that ended since the last look, from their counts since the start: that succeeded, and that
    /// failed. Older counts may come after newer ones, from another thread.
    pub fn saw_reloads(&mut self, at: Nanos, (done, failed): (u64, u64)) {
        if done > self.reloads.0 {
            self.add(at, MarkKind::Reload, "the configuration was reloaded".into());
        }
        if failed > self.reloads.1 {
            self.add(at, MarkKind::ReloadFailed, "a reload was refused: nothing was changed".into());
        }
        self.reloads = (done.max(self.reloads.0), failed.max(self.reloads.1));
    }

    /// Marks backends whose state changed since the last look. A backend that is new is not a change.
    pub fn saw_backends(&mut self, at: Nanos, backends: impl Iterator<Item = BackendNow>) {
        let mut before = std::mem::take(&mut self.states);
        for BackendNow { pool, name, title, state, cause } in backends.take(MAX_STATES) {
            let key = (pool, name);
            let since = match before.remove(&key) {
                Some((was, since)) if was == state => since,
                Some(_) => {
                    let cause = cause.as_deref().unwrap_or("it is given requests");
                    self.add(at, MarkKind::of(state), line(&title, None, state, cause));
                    at
                }
                None => at,
            };
            self.states.insert(key, (state, since));
        }
    }

    /// Since when a backend has the state that it has.
    pub fn since(&self, key: &BackendKey) -> Option<Nanos> {
        self.states.get(key).map(|(_, since)| *since)
    }

    /// The marks from that moment on, oldest first.
    pub fn from(&self, from: Nanos) -> Vec<HistoryMark> {
        self.all.iter().filter(|mark| mark.at >= from).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(name: &str, state: State) -> BackendNow {
        let cause = (state != State::Up).then(|| "why".to_owned());
        BackendNow { pool: "default".into(), name: name.into(), title: name.into(), state, cause }
    }

    #[test]
    fn a_change_is_marked_once_and_tells_since_when_it_is_so() {
        let mut marks = Marks::default();
        let key = ("default".to_owned(), "a".to_owned());
        for (at, states, since) in [
            (1, vec![("a", State::Up), ("b", State::Up)], 1),
            (2, vec![("a", State::Up), ("b", State::Down)], 1),
            (3, vec![("a", State::Ejected), ("b", State::Down)], 3),
            (4, vec![("a", State::Ejected), ("b", State::Drain), ("c", State::Down)], 3),
            (5, vec![("a", State::Up)], 5),
            (6, vec![("a", State::Up), ("b", State::Up)], 5),
        ] {
            marks.saw_backends(at, states.into_iter().map(|(name, state)| now(name, state)));
            assert_eq!(marks.since(&key), Some(since), "{at}");
        }
        let texts: Vec<_> = marks.from(3).into_iter().map(|mark| (mark.at, mark.kind, mark.text)).collect();
        assert_eq!(
            texts,
            [
                (3, MarkKind::Ejected, "backend a is ejected: why".to_owned()),
                (4, MarkKind::Drain, "backend b is in drain: why".to_owned()),
                (5, MarkKind::Up, "backend a is up: it is given requests".to_owned()),
            ]
        );
        assert_eq!(marks.from(0).len(), 4);
    }

    #[test]
    fn reloads_are_marked_and_the_oldest_marks_go() {
        let mut marks = Marks::default();
        // The third was counted before the second, and comes after it.
        for (at, counts) in
            [(1, (0, 0)), (2, (1, 0)), (2, (0, 0)), (3, (1, 0)), (4, (3, 1)), (5, (3, 0)), (6, (3, 1))]
        {
            marks.saw_reloads(at, counts);
        }
        let kinds: Vec<_> = marks.from(0).into_iter().map(|mark| (mark.at, mark.kind.name())).collect();
        assert_eq!(kinds, [(2, "reload"), (4, "reload"), (4, "reload_failed")]);
        for at in 10..2_000 {
            marks.add(at, MarkKind::Down, "ä".repeat(400));
        }
        let all = marks.from(0);
        assert_eq!((all.len(), all[0].at), (MAX_MARKS, 2_000 - MAX_MARKS as u64));
        assert!(all[0].text.len() <= MAX_TEXT + '…'.len_utf8(), "{}", all[0].text);
    }
}
