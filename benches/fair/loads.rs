//! Who asks for what, how often.

use balancer_importance::Priority;

/// How long requests work, around a mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Exponential: what the rules were tuned on.
    Exponential,
    /// All alike.
    Constant,
    /// Pareto with exponent 1.5, at most 100 means: one request in a hundred takes a fifth of all time.
    HeavyTail,
}

impl Service {
    pub fn draw(self, mean_s: f64, random: &mut fastrand::Rng) -> f64 {
        let uniform = 1.0 - random.f64();
        match self {
            Self::Exponential => -mean_s * uniform.ln(),
            Self::Constant => mean_s,
            Self::HeavyTail => (mean_s / 2.88 * uniform.powf(-1.0 / 1.5)).min(100.0 * mean_s),
        }
    }
}

/// Requests of one client, at random times.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub client: u64,
    pub weight: u32,
    pub priority: Priority,
    /// Requests a second.
    pub rate: f64,
    pub service: Service,
    pub mean_s: f64,
    /// How long each is held before it works.
    pub hold_s: f64,
    /// Each request comes under a name that was never seen before.
    pub made_up: bool,
    /// When they begin.
    pub from_s: f64,
    /// Whether it is one of those that the table is about.
    pub shown: bool,
}

impl Source {
    pub fn new(client: u64, rate: f64, mean_s: f64) -> Self {
        Self {
            client,
            weight: 1,
            priority: Priority::Normal,
            rate,
            service: Service::Exponential,
            mean_s,
            hold_s: 0.0,
            made_up: false,
            from_s: 0.0,
            shown: true,
        }
    }

    pub fn hidden(self) -> Self {
        Self { shown: false, ..self }
    }
}

/// A backend becomes another one at a time: all of them do.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at_s: f64,
    pub processors: f64,
    pub speed: f64,
}
