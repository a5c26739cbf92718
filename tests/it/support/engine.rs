//! The engines, and what each of them can do: one table, which docs/engines.md shows and by which tests are skipped.

use super::aloud;

/// A frontend engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The loops, for Linux.
    Epoll,
    /// The portable engine.
    TinyHttp,
}

/// Every engine, in the order of the table's columns. `each_engine!` makes one test for each that is built.
pub const ENGINES: &[Engine] = &[Engine::Epoll, Engine::TinyHttp];

impl Engine {
    /// Its name in `frontend.engine`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::TinyHttp => "tiny_http",
        }
    }

    /// Whether the engine can do that. If not, this says that the test is skipped, and the test should return.
    pub fn can(self, case: Case) -> bool {
        let can = case.row().1[ENGINES.iter().position(|engine| *engine == self).expect("listed")];
        if !can {
            aloud(&format!("skipped on {}: {}", self.name(), case.row().0));
        }
        can
    }
}

/// What an engine may or may not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Bodies of any size stream with bounded memory.
    Streaming,
    /// When a backend breaks off, the client sees that its answer is broken.
    BrokenAnswers,
    /// The same for a reset in the middle of an answer whose end is the end of its connection.
    Resets,
    /// Reason phrases of backends are kept.
    Reasons,
    /// Names of fields are passed on as they are spelled.
    Spelling,
    /// Answers are judged by our rules to the letter.
    StrictAnswers,
    /// An answer's head may be as large as the configuration says.
    AnswerBounds,
    /// Interim answers are bounded and checked.
    Interim,
    /// A kept connection that breaks does not count as a failure of its backend.
    Stale,
    /// A length that the backend declares is declared to the client, however long the body is.
    LongLengths,
    /// Some characters in targets that the grammar does not allow go on byte for byte.
    Targets,
    /// Every request that breaks the grammar is answered with a refusal.
    StrictFraming,
    /// Characters that only look like blanks are refused at the ends of a field.
    FieldEnds,
    /// Any declared length is safe.
    HugeLengths,
    /// The connection ends after a refused body.
    ClosesAfterRefusal,
    /// A head is not read beyond its bound.
    HeadBounds,
    /// A thousand kept connections at once are all served.
    ManyKept,
    /// A restart behind an activated socket leaves new connections to the next process.
    Restarts,
    /// Ending under load costs no request.
    Ending,
    /// Without descriptors, accepting pauses and goes on by itself.
    Descriptors,
    /// A request that waits for a backend with room needs no worker, and ends with its client.
    Parking,
    /// The user of a process that calls the API without a token is known on wildcard addresses, too.
    Callers,
    /// Health checks judge answers as requests do, and name what is wrong with an answer that is not HTTP.
    Checks,
}

impl Case {
    /// All of them, in the order of the page.
    pub const ALL: &[Self] = &[
        Self::Streaming,
        Self::BrokenAnswers,
        Self::Resets,
        Self::Reasons,
        Self::Spelling,
        Self::StrictAnswers,
        Self::AnswerBounds,
        Self::Interim,
        Self::Stale,
        Self::LongLengths,
        Self::Targets,
        Self::StrictFraming,
        Self::FieldEnds,
        Self::HugeLengths,
        Self::ClosesAfterRefusal,
        Self::HeadBounds,
        Self::ManyKept,
        Self::Restarts,
        Self::Ending,
        Self::Descriptors,
        Self::Parking,
        Self::Callers,
        Self::Checks,
    ];

    /// Its line in the page, and a yes or no for each of [`ENGINES`].
    pub fn row(self) -> (&'static str, &'static [bool]) {
        match self {
            Self::Streaming => ("bodies of any size stream with bounded memory, both ways", &[true, true]),
            Self::BrokenAnswers => {
                ("a backend that breaks off reaches the client as a broken answer", &[true, true])
            }
            Self::Resets => {
                ("so does a reset inside an answer that has neither a length nor chunks", &[true, false])
            }
            Self::Reasons => ("a backend's reason phrase is kept", &[true, false]),
            Self::Spelling => {
                ("field names are passed on as they are spelled (`X-Forwarded-For`)", &[true, false])
            }
            Self::StrictAnswers => (
                "HTTP/1.2, blanks behind a chunk's size, a 204 with any length and what `upstream.accept_invalid` takes are taken; \
                 lines that end with a bare LF are refused without that key",
                &[true, false],
            ),
            Self::AnswerBounds => (
                "an answer's head may have `upstream.max_headers` fields and `upstream.max_head_bytes` (else 128, and 128 KiB)",
                &[true, false],
            ),
            Self::Interim => (
                "more than eight interim answers (1xx) are refused, and one that announces a body ends its connection",
                &[true, false],
            ),
            Self::Stale => (
                "a kept connection that breaks under an idempotent request costs nothing: it goes again, even to the same backend",
                &[true, false],
            ),
            Self::LongLengths => {
                ("a declared `Content-Length` is kept on bodies over 64 KiB", &[true, false])
            }
            Self::Targets => (
                "`<`, `>`, backtick in a request's path and `<`, `>`, `\"` in its query go on as they came (else 400), as do bytes \
                 above 0x7F with `frontend.accept_invalid`",
                &[true, false],
            ),
            Self::StrictFraming => (
                "every malformed request is answered, and chunk sizes and extensions are read strictly",
                &[true, false],
            ),
            Self::FieldEnds => (
                "VT, FF, bare CR or LF at an end of a field or of the request line (`Transfer-Encoding: \\x0bchunked`), folded \
                 lines and words behind the version are refused; this crate trims them before we see them",
                &[true, false],
            ),
            Self::HugeLengths => {
                ("any declared length is safe (`Content-Length: 107374182400`)", &[true, false])
            }
            Self::ClosesAfterRefusal => {
                ("the connection is closed after a body that was refused", &[true, false])
            }
            Self::ManyKept => ("a thousand kept connections at once are all served", &[true, false]),
            Self::Restarts => ("a restart behind an activated socket loses no connection", &[true, false]),
            Self::Ending => ("ending by SIGTERM under load costs no request that was begun", &[true, false]),
            Self::Descriptors => {
                ("with no file descriptor left, accepting pauses and goes on by itself", &[true, false])
            }
            Self::Parking => (
                "a request that waits for a backend with room holds no worker, and ends with its client",
                &[true, false],
            ),
            Self::Callers => (
                "it knows whose process calls the API without a token, on every kind of `listen` address",
                &[true, false],
            ),
            Self::Checks => (
                "health checks take HTTP/1.2 and what `upstream.accept_invalid` takes, and name TLS and malformed status lines",
                &[true, false],
            ),
            Self::HeadBounds => ("a head that never ends is cut off at `max_head_bytes`", &[true, false]),
        }
    }
}

/// The table as docs/engines.md shows it.
pub fn table() -> String {
    let mut text = String::from("| case |");
    for engine in ENGINES {
        text.push_str(&format!(" `{}` |", engine.name()));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(ENGINES.len()));
    for case in Case::ALL {
        let (title, can) = case.row();
        text.push_str(&format!("\n| {title} |"));
        for can in can {
            text.push_str(if *can { " yes |" } else { " no |" });
        }
    }
    text.push('\n');
    text
}

/// Makes one test for each engine from every named function `fn(Engine)`.
macro_rules! each_engine {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        #[cfg(all(target_os = "linux", feature = "epoll"))]
        mod epoll {
            $(#[test] $(#[$attribute])* fn $name() { super::$name($crate::support::Engine::Epoll); })+
        }
        mod tiny_http {
            $(#[test] $(#[$attribute])* fn $name() { super::$name($crate::support::Engine::TinyHttp); })+
        }
    };
}

/// Makes one test for each database from every named function `fn(&Database)`.
macro_rules! each_store {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] $(#[$attribute])* fn $name() { super::$name(&$crate::support::Database::sqlite()); })+
        }
        mod postgres {
            $(#[test] $(#[$attribute])* fn $name() {
                if let Some(database) = $crate::support::Database::postgres() {
                    super::$name(&database);
                }
            })+
        }
    };
}

pub(crate) use {each_engine, each_store};
