//! The last hour in steps of 10 seconds: rows of numbers, of which the oldest are dropped. It knows no clock: steps are
//! numbered.

use std::collections::VecDeque;

/// The length of a step, in seconds.
pub const STEP_S: u64 = 10;

/// Steps that are kept: an hour.
pub const STEPS: usize = 360;

/// A table of a few columns, with one row for each step. A number that is not known is NaN.
#[derive(Debug)]
pub(super) struct Ring {
    columns: usize,
    /// The number of the step that comes after the last row.
    next: u64,
    values: VecDeque<f32>,
}

impl Ring {
    /// Empty. Its memory is taken at once: `columns` × [`STEPS`] × 4 bytes.
    pub fn new(columns: usize) -> Self {
        Self { columns, next: 0, values: VecDeque::with_capacity(columns * STEPS) }
    }

    /// Adds the row of a step. Steps that were left out since the last one become NaN; a step that has its row keeps
    /// it.
    pub fn push(&mut self, step: u64, row: &[f32]) {
        debug_assert_eq!(row.len(), self.columns);
        if step < self.next {
            return;
        }
        if self.values.is_empty() || step - self.next >= STEPS as u64 {
            self.values.clear();
            self.next = step;
        }
        for _ in self.next..step {
            self.add(std::iter::repeat_n(f32::NAN, self.columns));
        }
        self.add(row.iter().copied());
        self.next = step + 1;
    }

    fn add(&mut self, row: impl Iterator<Item = f32>) {
        if self.values.len() == self.columns * STEPS {
            self.values.drain(..self.columns);
        }
        self.values.extend(row);
    }

    /// A column from that step on, or from the oldest that is kept: the number of its first step, and the values.
    pub fn column(&self, column: usize, from: u64) -> (u64, Vec<f32>) {
        let rows = (self.values.len() / self.columns) as u64;
        let first = from.clamp(self.next - rows, self.next);
        let left_out = usize::try_from(first - (self.next - rows)).unwrap_or(STEPS);
        (first, self.values.iter().skip(column).step_by(self.columns).skip(left_out).copied().collect())
    }

    /// The last row and the number of its step.
    pub fn last(&self) -> Option<(u64, Vec<f32>)> {
        let at = self.values.len().checked_sub(self.columns)?;
        Some((self.next - 1, self.values.range(at..).copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps are pushed with their own number in the first column and ten times it in the second; NaN is `None`.
    fn after(steps: impl IntoIterator<Item = u64>, column: usize, from: u64) -> (u64, Vec<Option<u64>>) {
        let mut ring = Ring::new(2);
        for step in steps {
            ring.push(step, &[step as f32, 10.0 * step as f32]);
        }
        let (first, values) = ring.column(column, from);
        (first, values.into_iter().map(|value| (!value.is_nan()).then_some(value as u64)).collect())
    }

    #[test]
    fn a_column_begins_where_it_is_asked_for_or_with_the_oldest() {
        for (steps, column, from, first, values) in [
            (vec![], 0, 0, 0, vec![]),
            (vec![], 0, 7, 0, vec![]),
            (vec![0, 1, 2], 0, 0, 0, vec![Some(0), Some(1), Some(2)]),
            (vec![0, 1, 2], 1, 1, 1, vec![Some(10), Some(20)]),
            (vec![0, 1, 2], 0, 9, 3, vec![]),
            // A backend that appears later has nothing before its first step.
            (vec![5, 6], 0, 0, 5, vec![Some(5), Some(6)]),
            // The process slept.
            (vec![5, 8], 0, 0, 5, vec![Some(5), None, None, Some(8)]),
            // A step that has its row keeps it, and an older step comes too late.
            (vec![5, 6, 6, 5], 0, 0, 5, vec![Some(5), Some(6)]),
            // A hole that is longer than an hour: only the new row is left.
            (vec![5, 1_000], 0, 0, 1_000, vec![Some(1_000)]),
        ] {
            assert_eq!(after(steps.clone(), column, from), (first, values), "{steps:?} {column} {from}");
        }
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let (first, values) = after(0..1_000, 1, 0);
        assert_eq!((first, values.len()), (640, STEPS));
        assert_eq!((values[0], values[STEPS - 1]), (Some(6_400), Some(9_990)));
        // With a hole at its beginning.
        let (first, values) = after([0, 300, 600], 0, 0);
        assert_eq!((first, values.len()), (241, STEPS));
        assert_eq!((values[0], values[59], values[STEPS - 1]), (None, Some(300), Some(600)));
        let mut ring = Ring::new(3);
        (0..2_000).for_each(|step| ring.push(step, &[0.0; 3]));
        assert!(ring.values.capacity() < 4 * STEPS, "{}", ring.values.capacity());
    }

    #[test]
    fn the_last_row_is_whole() {
        let mut ring = Ring::new(2);
        assert_eq!(ring.last(), None);
        ring.push(4, &[1.0, 2.0]);
        ring.push(6, &[3.0, 4.0]);
        assert_eq!(ring.last(), Some((6, vec![3.0, 4.0])));
    }
}
