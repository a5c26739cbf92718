//! How many workers are worth running while the processors are the bottleneck, and others want them as much as we do: as
//! many as get one. Each further one takes it from a load generator or a backend on the same machine, is woken for
//! events that another would have taken next, and makes every batch of events smaller: with a backend and its clients on the
//! same two cores, two workers cost a fifth more processor time a request than one, and get less done.

/// A worker is worth running from this much on, in hundredths of a processor.
const WORTH: u64 = 25;
/// So much below one processor each, all that run are busy all the time.
const SLACK: u64 = 10;
/// After a trial in vain, so many looks go by before the next; twice as many each time.
const PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Share {
    /// One more than seemed worth it runs, to see what it gets.
    on_trial: bool,
    pause: u32,
    /// Looks until the next trial.
    left: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { on_trial: false, pause: PAUSE, left: 0 }
    }
}

impl Share {
    /// How many workers should run, when that many did, and all our threads together `used` so much, in hundredths of a
    /// processor; `None`: not known yet.
    pub fn fit(&mut self, limit: usize, used: Option<u64>) -> usize {
        let Some(used) = used else { return limit };
        let worth = usize::try_from(used.saturating_sub(WORTH).div_ceil(100)).unwrap_or(usize::MAX).max(1);
        let was_trial = std::mem::take(&mut self.on_trial);
        if worth < limit {
            if was_trial {
                self.left = self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
            return worth;
        }
        if was_trial {
            self.pause = PAUSE;
        }
        if used + SLACK < limit as u64 * 100 {
            return limit;
        }
        self.on_trial = self.left == 0;
        self.left = self.left.saturating_sub(1);
        limit + usize::from(self.on_trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_run_as_get_a_processor() {
        // (running, used, then running)
        for (limit, used, then) in [
            (8, 102, 1),
            (8, 126, 2),
            (8, 0, 1),
            (2, 102, 1),
            (2, 126, 2),
            (2, 189, 2),
            (2, 190, 3),
            (1, 89, 1),
            (1, 90, 2),
            (1, 140, 2),
            (4, 800, 5),
        ] {
            assert_eq!(Share::default().fit(limit, Some(used)), then, "{limit} {used}");
            assert_eq!(Share::default().fit(limit, None), limit);
        }
    }

    #[test]
    fn a_trial_in_vain_is_repeated_ever_more_seldom_and_a_good_one_goes_on_at_once() {
        let mut share = Share::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let mut looks = 0;
            while share.fit(1, Some(97)) == 1 {
                looks += 1;
            }
            pauses.push(looks);
            assert_eq!(share.fit(2, None), 2, "nothing known yet");
            assert_eq!(share.fit(2, Some(103)), 1);
        }
        assert_eq!(pauses, [0, 8, 16, 32, 64, 64]);
        while share.fit(1, Some(99)) == 1 {}
        assert_eq!(share.fit(2, Some(199)), 3);
        assert_eq!(share.fit(3, Some(299)), 4);
        assert_eq!(share.fit(4, Some(330)), 4, "busy, but not all of the time");
        assert_eq!(share.fit(4, Some(130)), 2, "others want them, too");
    }
}
