//! Hears other instances, on a connection that does nothing else. A word about changes only says that there are some, which
//! are then read from the list of changes. A word about the shared budget is a whole message. A pooler that shares
//! connections by transaction loses `LISTEN` without an error; `database.listen_url` leads past it.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use postgres::fallible_iterator::FallibleIterator;

use super::chain;
use super::connect::{Connection, Connector};
use super::notify::{BUDGET_CHANNEL, unopened};
use crate::store::session::{Listener, Unopened, Word, retry_after};

/// The channel on which writes are announced.
const CHANGES_CHANNEL: &str = "balancer_changes";
/// How long the thread listens before it checks whether it has to end.
const SLICE: Duration = Duration::from_millis(100);
/// Most words in a row before it checks that, too.
const MAX_WORDS: usize = 1_000;
/// After how many slices without a word the server is asked whether it is still there.
const SLICES_UNASKED: u32 = 50;
/// After how many failed attempts in a row the failure is logged.
const SAID_AFTER: u32 = 4;

/// Listens on PostgreSQL.
pub(super) struct Listen {
    pub connector: Connector,
    /// What the server may take to answer.
    pub patience: Duration,
}

impl Listener for Listen {
    fn run(self: Box<Self>, hear: &dyn Fn(Word<'_>), end: &Receiver<()>) {
        let mut unheard = Unheard::default();
        while end.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Timeout) {
            let Unopened { cause, is_refusal } = match self.connect() {
                Ok(mut connection) => {
                    if std::mem::take(&mut unheard).failures >= SAID_AFTER {
                        log::info!("store: changes by other instances are heard of again");
                    }
                    // Changes from before this connection were not heard.
                    hear(Word::Changes);
                    match self.listen(&mut connection, hear, end) {
                        Ok(()) => return,
                        Err(cause) => Unopened { cause, is_refusal: false },
                    }
                }
                Err(unopened) => unopened,
            };
            let pause = unheard.failed(is_refusal);
            if unheard.failures == SAID_AFTER {
                log::warn!(
                    "store: no word of changes by other instances: {cause}; they are looked for every few seconds"
                );
            } else {
                log::debug!("store: listening: {cause}");
            }
            if end.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

/// What failed since words could last be heard.
#[derive(Default)]
struct Unheard {
    failures: u32,
    /// How many refusals the last ones are.
    refusals: u32,
}

impl Unheard {
    /// Counts a failure. Returns how long to wait until the next attempt.
    fn failed(&mut self, is_refusal: bool) -> Duration {
        self.failures += 1;
        self.refusals = if is_refusal { self.refusals + 1 } else { 0 };
        retry_after(self.refusals)
    }
}

/// How many slices in a row brought no word.
#[derive(Default)]
struct Silence(u32);

impl Silence {
    /// Counts a slice. True once after each [`SLICES_UNASKED`] without a word.
    fn is_long(&mut self, heard: bool) -> bool {
        self.0 = if heard { 0 } else { self.0 + 1 };
        let is_long = self.0 >= SLICES_UNASKED;
        if is_long {
            self.0 = 0;
        }
        is_long
    }
}

impl Listen {
    fn connect(&self) -> Result<Connection, Unopened> {
        let mut connection = self.connector.dial().map_err(unopened)?;
        // The server keeps notifications until every listener has taken them, in a bounded queue. So it has to give up a
        // listener that hangs, after the same time after which this side gives up the server. Servers before version 12
        // have no such setting.
        let patience = self.connector.config.get_tcp_user_timeout().map_or(0, Duration::as_millis);
        let listen = format!(
            "SELECT set_config(name, '{patience}', false) FROM pg_settings WHERE name = 'tcp_user_timeout'; \
             LISTEN {CHANGES_CHANNEL}; LISTEN {BUDGET_CHANNEL}"
        );
        self.ask(&mut connection, &listen).map_err(unopened)?;
        Ok(connection)
    }

    /// Listens until `end` is closed, which is `Ok`, or until the connection breaks.
    fn listen(
        &self,
        connection: &mut Connection,
        hear: &dyn Fn(Word<'_>),
        end: &Receiver<()>,
    ) -> Result<(), String> {
        let mut silence = Silence::default();
        loop {
            let is_long = silence.is_long(pass_on(connection, hear)?);
            if end.try_recv() == Err(TryRecvError::Disconnected) {
                return Ok(());
            }
            if connection.client.is_closed() {
                return Err("the server closed the connection".into());
            }
            if is_long {
                self.ask(connection, "SELECT 1").map_err(|error| chain(&error))?;
            }
        }
    }

    fn ask(&self, connection: &mut Connection, sql: &str) -> Result<(), postgres::Error> {
        connection.deadline.set(self.patience);
        let result = connection.client.batch_execute(sql);
        connection.deadline.clear();
        result
    }
}

/// Passes on words until none has come for [`SLICE`]. Returns whether there was any.
fn pass_on(connection: &mut Connection, hear: &dyn Fn(Word<'_>)) -> Result<bool, String> {
    let mut heard = false;
    let mut words = connection.client.notifications();
    let mut words = words.timeout_iter(SLICE);
    for _ in 0..MAX_WORDS {
        let Some(word) = words.next().map_err(|error| chain(&error))? else { break };
        heard = true;
        match word.channel() {
            BUDGET_CHANNEL => hear(Word::Budget(word.payload())),
            _ => hear(Word::Changes),
        }
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_after_every_so_many_slices_without_a_word() {
        let mut silence = Silence::default();
        // Slices in a row, whether they bring a word, and how many of them end a long silence.
        for (slices, heard, long) in
            [(49, false, 0), (1, false, 1), (49, false, 0), (1, true, 0), (100, false, 2)]
        {
            assert_eq!((0..slices).filter(|_| silence.is_long(heard)).count(), long, "{slices} {heard}");
        }
    }

    #[test]
    fn only_refusals_in_a_row_make_the_pauses_longer() {
        let mut unheard = Unheard::default();
        let steps =
            [(false, 250), (false, 250), (true, 250), (true, 500), (true, 1_000), (false, 250), (true, 250)];
        for (is_refusal, pause_ms) in steps {
            assert_eq!(unheard.failed(is_refusal), Duration::from_millis(pause_ms));
        }
        assert_eq!(unheard.failures, 7);
    }
}
