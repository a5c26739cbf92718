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
        let (mut failures, mut refusals) = (0, 0);
        while end.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Timeout) {
            let cause = match self.connect() {
                Ok(mut connection) => {
                    if failures >= SAID_AFTER {
                        log::info!("store: changes by other instances are heard of again");
                    }
                    (failures, refusals) = (0, 0);
                    // Changes from before this connection were not heard.
                    hear(Word::Changes);
                    match self.listen(&mut connection, hear, end) {
                        Ok(()) => return,
                        Err(cause) => cause,
                    }
                }
                Err(Unopened { cause, is_refusal }) => {
                    refusals = if is_refusal { refusals + 1 } else { 0 };
                    cause
                }
            };
            failures += 1;
            if failures == SAID_AFTER {
                log::warn!(
                    "store: no word of changes by other instances: {cause}; they are looked for every few seconds"
                );
            } else {
                log::debug!("store: listening: {cause}");
            }
            if end.recv_timeout(retry_after(refusals)) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
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
        let mut silent = 0;
        loop {
            silent = if pass_on(connection, hear)? { 0 } else { silent + 1 };
            if end.try_recv() == Err(TryRecvError::Disconnected) {
                return Ok(());
            }
            if connection.client.is_closed() {
                return Err("the server closed the connection".into());
            }
            if silent >= SLICES_UNASKED {
                silent = 0;
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
