//! A request and its backend: sends it, waits for the answer's head, and sends it again where its story says so.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::answer::Looked;
use super::conn::Conn;
use super::deliver::FromBackend;
use super::dial::{lost, refused};
use super::exchange::{Calling, Doing, Exchange, Upload};
use super::keys::{BackSlot, ClientSlot};
use super::pace::Pace;
use super::state::Letter;
use super::turn::{Buffers, Go, Loop};
use crate::error::Reject;
use crate::proxy::exchange::BodyFault;
use crate::proxy::exchange::FrontendEvent;
use crate::proxy::story::{Call, Event, NewRequest, Step, Story};
use crate::proxy::{Phase, Reuse, UpstreamError};
use balancer_http::fields::Fields;
use balancer_http::message::{BodyLength, Reason, RequestHead};
use balancer_time::Nanos;

/// Steps of backends' TLS handshakes in one turn.
const MOST_SHAKEN: usize = 2;

impl Loop {
    /// Asks the service about a request.
    pub(super) fn begin(&mut self, conn: &mut Conn, exchange: &mut Exchange, buffers: &mut Buffers) -> Go {
        exchange.upload.streams = !exchange.upload.is_whole;
        let (service, received_at) = (self.shared.service.clone(), exchange.received_at);
        let bound_to = conn.pinned.and_then(|key| self.backs.get(key)).map(|back| back.endpoint);
        let asked = NewRequest {
            head: &mut exchange.head,
            in_memory: exchange.upload.is_whole,
            body_bytes: exchange.upload.came,
            received_at,
            can_upgrade: self.shared.can_upgrade,
            bound_to,
        };
        let step = catch_unwind(AssertUnwindSafe(|| service.begin(asked)));
        let step = step.unwrap_or_else(|_| self.panicked(&exchange.head, received_at));
        self.take_step(conn, exchange, step, None, buffers)
    }

    fn panicked(&self, head: &RequestHead, received_at: Nanos) -> Step {
        self.shared.service.observe(FrontendEvent::Panicked);
        let reject = Reject::new(Reason::Internal, "the request could not be handled");
        let mut answer = self.shared.service.refuse(head, &reject, received_at);
        answer.close = true;
        Step::Answer(answer)
    }

    /// Does what a story asks for. `answered`: the backend whose answer was just read, if one was.
    pub(super) fn take_step(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        mut step: Step,
        mut answered: FromBackend,
        buffers: &mut Buffers,
    ) -> Go {
        loop {
            // The backend's answer is not the client's answer: its connection is released.
            if !matches!(step, Step::Answer(_))
                && let Some((back, _, (at, have))) = answered.take()
            {
                self.let_go(back, at == have);
            }
            step = match step {
                Step::Answer(answer) => return self.deliver(conn, exchange, answer, answered, buffers),
                Step::Work(most) => {
                    exchange.upload.streams = false;
                    self.gathered += exchange.upload.body.len();
                    exchange.doing = Doing::Gathering(most);
                    return Go::On;
                }
                Step::Wait(story, until) => match self.listen(conn, &story) {
                    true => {
                        exchange.doing = Doing::Waiting(story, until);
                        return Go::Wait;
                    }
                    false => self.guarded(exchange, |head| story.resume(head, false)),
                },
                Step::Call(story, call) => match self.send(conn, exchange, &story, &call, buffers) {
                    Ok(back) => {
                        let since = self.now;
                        exchange.upload.pace = Pace::new(since);
                        let calling = Calling { story, call, back, since, interim: 0, keep_alive: true };
                        exchange.doing = Doing::Calling(calling);
                        return Go::On;
                    }
                    Err(error) => self.tell(exchange, story, Event::Failed(error)),
                },
            };
        }
    }

    /// Calls a story; a panic in it becomes a 500.
    pub(super) fn guarded(&self, exchange: &Exchange, call: impl FnOnce(&RequestHead) -> Step) -> Step {
        let head = &exchange.head;
        catch_unwind(AssertUnwindSafe(|| call(head)))
            .unwrap_or_else(|_| self.panicked(head, exchange.received_at))
    }

    /// Tells a story what came of its call.
    pub(super) fn tell(&self, exchange: &Exchange, story: Box<Story>, event: Event) -> Step {
        self.guarded(exchange, |head| story.on(event, head, !exchange.upload.is_gone))
    }

    /// Has a letter posted to this loop when a waiting request can go on. False: it can already.
    fn listen(&self, conn: &Conn, story: &Story) -> bool {
        let (shared, number, key) = (self.shared.clone(), self.number, conn.key);
        story.listen(Box::new(move || shared.loops[number].post(Letter::Woken(key))))
    }

    /// Sends the head, and a body that is whole in memory.
    fn send(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        story: &Story,
        call: &Call,
        buffers: &mut Buffers,
    ) -> Result<BackSlot, UpstreamError> {
        let Exchange { head, upload, .. } = exchange;
        // If it is sent again, a streamed body begins anew.
        (upload.is_sent, upload.is_stopped) = (false, false);
        upload.most = call.max_body_bytes;
        let protocol = story.protocol(head);
        // An upgraded connection is never a kept one.
        let reuse = if protocol.is_some() { Reuse::Never } else { call.reuse };
        let key = self.dial(conn.key, conn.pinned, call, reuse)?;
        let out = &mut buffers.out;
        out.clear();
        story.outgoing(head, &call.endpoint, |fields| {
            write_head(out, (&head.method, story.target(head)), fields, upload.length, protocol);
        });
        if upload.is_whole && !upload.streams && upload.length == BodyLength::Chunked {
            crate::engine::render::chunk(out, &upload.body);
            out.extend_from_slice(crate::engine::render::LAST_CHUNK);
        } else if !upload.streams {
            out.extend_from_slice(&upload.body);
        }
        let Some(back) = self.backs.get(key) else { return Err(lost()) };
        if let Err(error) = back.send(out) {
            let error = back.broke(std::io::Error::from(error));
            self.backs.close(key);
            return Err(error);
        }
        Ok(key)
    }

    /// Goes on with a request that was sent.
    pub(super) fn call(&mut self, conn: &mut Conn, exchange: &mut Exchange, buffers: &mut Buffers) -> Go {
        let Doing::Calling(calling) = &mut exchange.doing else { return Go::On };
        let key = calling.back;
        if let Err(error) =
            self.push_request(key, calling, &mut exchange.upload, conn.key, &mut buffers.cipher)
        {
            return self.failed(conn, exchange, error, buffers);
        }
        if exchange.upload.is_under_way()
            && let Err(fault) = self.upload(conn, exchange, key, buffers)
        {
            let error = UpstreamError { phase: Phase::RequestBody(fault), cause: fault.to_string() };
            return self.failed(conn, exchange, error, buffers);
        }
        if conn.broken {
            return Go::On;
        }
        match self.look_for_head(conn, exchange, buffers) {
            Looked::Later => self.after_look(conn, exchange),
            Looked::Gone => Go::On,
            Looked::Failed(error) => self.failed(conn, exchange, error, buffers),
            Looked::Head(head, span) => self.answered(conn, exchange, *head, span, buffers),
        }
    }

    /// There is no answer yet. Says whether the rest of the body is read at once.
    fn after_look(&mut self, conn: &mut Conn, exchange: &Exchange) -> Go {
        let Doing::Calling(Calling { back, .. }) = &exchange.doing else { return Go::Wait };
        let takes = self.backs.get(*back).is_some_and(|back| !back.is_connecting && back.is_flushed());
        // The rest of its body can't come any more: reading on finds that out.
        if takes && conn.ended && conn.readable && exchange.upload.is_under_way() {
            return Go::On;
        }
        Go::Wait
    }

    /// Finishes making the connection, and sends what is left of the request.
    fn push_request(
        &mut self,
        key: BackSlot,
        calling: &mut Calling,
        upload: &mut Upload,
        client: ClientSlot,
        cipher: &mut [u8],
    ) -> Result<(), UpstreamError> {
        let now = self.now;
        let Some(back) = self.backs.get(key) else { return Err(lost()) };
        if back.is_connecting {
            match rustix::net::sockopt::socket_error(&back.socket) {
                Ok(Err(error)) | Err(error) => return Err(refused(error)),
                Ok(Ok(())) => {}
            }
            // A socket without a peer's address is still connecting.
            if back.socket.0.peer_addr().is_err() {
                return Ok(());
            }
            if back.secure.is_some() && back.readable {
                // A step may verify a chain or do a key exchange. Only a few are made in a turn, so that other clients
                // do not wait.
                if self.shaken_backs >= MOST_SHAKEN {
                    self.again.push(client);
                    return Ok(());
                }
                self.shaken_backs += 1;
            }
            if !back.shake_hands(cipher)? {
                return Ok(());
            }
            back.is_connecting = false;
            calling.since = now;
        }
        if back.is_flushed() {
            return Ok(());
        }
        let before = back.out_at;
        let flushed = back.flush();
        if back.is_flushed() {
            // The client's time begins anew, since it had to wait for the backend.
            upload.pace = Pace::new(now);
        }
        if back.is_flushed() || back.out_at > before {
            calling.since = now;
        }
        if let Err(error) = flushed {
            // It may have said why before.
            if !back.readable && !back.ended {
                return Err(back.broke(std::io::Error::from(error)));
            }
            back.out.clear();
            back.out_at = 0;
            back.readable = true;
        }
        Ok(())
    }

    /// No head came: tells the story, and does what it asks for.
    pub(super) fn failed(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        mut error: UpstreamError,
        buffers: &mut Buffers,
    ) -> Go {
        let Doing::Calling(Calling { story, call, back, .. }) =
            std::mem::replace(&mut exchange.doing, Doing::Nothing)
        else {
            return Go::Close;
        };
        self.backs.close(back);
        if !matches!(error.phase, Phase::RequestBody(_)) {
            error.cause = format!("{}: {}", call.endpoint.address, error.cause);
        }
        if matches!(error.phase, Phase::RequestBody(BodyFault::ClientGone)) {
            exchange.upload.is_stopped = true;
        }
        let step = self.tell(exchange, story, Event::Failed(error));
        self.take_step(conn, exchange, step, None, buffers)
    }
}

/// Writes a request's head as a backend gets it.
fn write_head(
    out: &mut Vec<u8>,
    (method, target): (&str, &str),
    fields: &Fields,
    length: BodyLength,
    protocol: Option<&str>,
) {
    for part in [method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    for (name, value) in fields.lines() {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    match length {
        BodyLength::Known(bytes) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked | BodyLength::UntilClose => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        // RFC 9110 §8.6: where a body is expected, its absence is said.
        BodyLength::Empty if matches!(method, "POST" | "PUT" | "PATCH") => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        BodyLength::Empty => {}
    }
    if let Some(protocol) = protocol {
        for part in ["Connection: Upgrade\r\nUpgrade: ", protocol, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}
