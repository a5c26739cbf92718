//! How far memory has followed the database's list of changes, and which of these changes this process made itself.

use std::collections::VecDeque;

/// The state of what memory holds as a whole: ranges, plans and backends.
#[derive(Default)]
pub struct Book {
    /// Counts the writes of this process to ranges, plans and backends. What was read before such a write is too old.
    pub writes: u64,
    /// The number of the last change, by any instance, that memory has followed; `None`: everything must be read.
    pub followed: Option<i64>,
    /// First and last numbers of changes that this process made, and put in force itself.
    pub mine: VecDeque<(i64, i64)>,
}

/// Most spans of our own numbers that are remembered. Changes beyond are read again, like those of other instances.
const MAX_MINE: usize = 10_000;

impl Book {
    /// Notes changes that this process is about to commit.
    pub fn note(&mut self, seqs: (i64, i64)) {
        self.mine.push_back(seqs);
        if self.mine.len() > MAX_MINE {
            self.mine.pop_front();
        }
    }

    /// These changes no longer count as our own: they may not be committed, or only later, or are not in force here. If
    /// they are committed, they are read like those of other instances.
    pub fn disown(&mut self, seqs: (i64, i64)) {
        self.mine.retain(|mine| *mine != seqs);
        if self.followed.is_some_and(|followed| followed >= seqs.0) {
            self.followed = Some(seqs.0 - 1);
        }
    }

    /// The number of the newest change that memory knows of.
    pub fn latest(&self) -> Option<i64> {
        self.followed.max(self.mine.back().map(|(_, last)| *last))
    }

    /// Whether this process made that change.
    pub fn is_mine(&self, seq: i64) -> bool {
        let at = self.mine.partition_point(|(_, last)| *last < seq);
        self.mine.get(at).is_some_and(|(first, _)| *first <= seq)
    }

    /// Memory has followed all changes from `from` up to that number. Does nothing when `followed` is no longer `from`,
    /// since a change of this process was disowned meanwhile.
    pub fn reached(&mut self, from: Option<i64>, seq: i64) {
        if self.followed != from {
            return;
        }
        self.followed = Some(seq);
        while self.mine.front().is_some_and(|(_, last)| *last <= seq) {
            self.mine.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_changes_are_known_until_they_are_passed_or_disowned() {
        let mut book = Book { followed: Some(3), ..Book::default() };
        for seqs in [(4, 4), (6, 9), (12, 12)] {
            book.note(seqs);
        }
        let mine: Vec<i64> = (0..15).filter(|seq| book.is_mine(*seq)).collect();
        assert_eq!(mine, [4, 6, 7, 8, 9, 12]);
        book.reached(Some(3), 7);
        assert_eq!((book.followed, book.is_mine(4), book.is_mine(8)), (Some(7), false, true));
        // It was followed already, and is read again.
        book.disown((6, 9));
        assert_eq!((book.followed, book.is_mine(7)), (Some(5), false));
        book.reached(Some(7), 20);
        assert_eq!(book.followed, Some(5), "a round that began before does not count");
        book.disown((12, 12));
        assert_eq!((book.followed, book.is_mine(12)), (Some(5), false));
    }

    #[test]
    fn the_newest_change_is_the_last_that_was_followed_or_made_here() {
        let mut book = Book::default();
        assert_eq!(book.latest(), None);
        book.note((4, 9));
        assert_eq!(book.latest(), Some(9));
        book.followed = Some(12);
        assert_eq!(book.latest(), Some(12));
        book.note((13, 14));
        assert_eq!(book.latest(), Some(14));
    }

    #[test]
    fn what_is_remembered_of_own_changes_is_bounded() {
        let mut book = Book::default();
        for seq in 0..=MAX_MINE as i64 {
            book.note((seq, seq));
        }
        assert_eq!((book.is_mine(0), book.is_mine(1)), (false, true));
    }
}
