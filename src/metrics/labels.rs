//! The values of labels. Each set of values is closed, so that no request can make a new series.

use std::fmt;

use balancer_pool::fair::LineRefusal;

/// The nine standard methods (RFC 9110 §9, RFC 5789).
pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Every other method.
pub(super) const OTHER_METHOD: &str = "other";

/// The index of a method's counters: its place in [`METHODS`], or one past their end for every other method.
pub(super) fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len())
}

/// A method as a label: one of the nine standard ones or `other`.
pub fn method_label(method: &str) -> &'static str {
    METHODS.get(method_index(method)).copied().unwrap_or(OTHER_METHOD)
}

/// A closed set of label values.
pub trait Label: Copy + fmt::Debug + 'static {
    /// All of them, as they are declared.
    const VALUES: &'static [Self];

    /// Its place in [`Label::VALUES`].
    fn place(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// The value of the label, as series show it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $name {
            const VALUES: &'static [Self] = &Self::ALL;

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// What a client's connection is doing.
    ConnectionState {
        /// A head or a body is being read.
        Reading = "reading",
        /// A worker has it.
        Busy = "busy",
        /// It is kept open, between two requests.
        Idle = "idle",
        /// Its request waits, for a backend, the store or a thread for its call, and holds no worker.
        Parked = "parked",
        /// It is relayed both ways after an upgrade.
        Relay = "relay",
    }
}

labels! {
    /// Why a connection was not accepted, or was closed.
    Rejection {
        /// `frontend.max_connections`.
        MaxConnections = "max_connections",
        /// `frontend.max_connections_per_ip`.
        MaxConnectionsPerIp = "max_connections_per_ip",
        /// The process or the system has no descriptor left.
        Descriptors = "descriptors",
        /// A missing or wrong PROXY protocol header.
        ProxyProtocol = "proxy_protocol",
        /// TLS on a port that does not speak it.
        Tls = "tls",
        /// Bytes after a TLS handshake that are not TLS, or that do not belong to this connection.
        TlsRecord = "tls_record",
        /// The kernel watches no more connections for this user.
        Watches = "watches",
    }
}

labels! {
    /// How a TLS handshake with a client ended.
    Handshake {
        /// The connection is secured.
        Ok = "ok",
        /// One side refused the other, or the connection broke.
        Failed = "failed",
        /// `tls.handshake_timeout`.
        Timeout = "timeout",
        /// The client did not speak TLS.
        Plain = "plain",
    }
}

labels! {
    /// What an HTTP/2 connection was flooded with.
    Http2Flood {
        /// SETTINGS.
        Settings = "settings",
        /// PING.
        Ping = "ping",
        /// PRIORITY.
        Priority = "priority",
        /// Streams that are opened and reset at once, by the client or by us.
        Reset = "reset",
        /// Something else.
        Other = "other",
    }
}

labels! {
    /// Why a request that found every backend full was refused.
    QueueRefusal {
        /// The line is full.
        Full = "full",
        /// It waited for `balancing.queue_target`, and its client had other requests waiting all that time.
        Target = "target",
        /// It waited for `balancing.queue_timeout`.
        Timeout = "timeout",
    }
}

impl QueueRefusal {
    /// The word for it in the access log and in the answer.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::Target => "queue_target",
            Self::Timeout => "queue_timeout",
        }
    }
}

impl From<LineRefusal> for QueueRefusal {
    fn from(why: LineRefusal) -> Self {
        match why {
            LineRefusal::Full => Self::Full,
            LineRefusal::Target => Self::Target,
        }
    }
}

labels! {
    /// Why a request was sent again.
    Retry {
        /// No connection could be made.
        Connect = "connect",
        /// The connection broke before any byte of an answer.
        Reset = "reset",
        /// No head of an answer came in time.
        Timeout = "timeout",
        /// The answer's status asked for it.
        Status = "status",
    }
}

labels! {
    /// What came of a key that a request showed.
    KeyResult {
        /// It has a limit, which decided.
        Matched = "matched",
        /// It has none, or the store could not say.
        Unknown = "unknown",
        /// It can't be a key: it is too long, has control bytes, or there are several.
        Unusable = "unusable",
    }
}

labels! {
    /// Whose limit decided.
    Policy {
        /// An entry for the client.
        Client = "client",
        /// A range that holds its address.
        Range = "range",
        /// `rate_limit.default`.
        Default = "default",
        /// A rule for some requests.
        Rule = "rule",
        /// None: the client is unlimited.
        None = "none",
    }
}

labels! {
    /// What the limiter said.
    Decision {
        /// Let through.
        Allowed = "allowed",
        /// 429.
        Denied = "denied",
        /// A bucket in shadow mode, which only counts, would have refused it.
        ShadowDenied = "shadow_denied",
    }
}

labels! {
    /// What the store was asked for.
    StoreOp {
        /// What one address needs, for the cache.
        Load = "load",
        /// All ranges, plans or backends.
        Ranges = "ranges",
        /// A limit by its id.
        Get = "get",
        /// A page of limits.
        List = "list",
        /// A new limit, plan or backend.
        Create = "create",
        /// A change of one.
        Update = "update",
        /// A removal of one.
        Delete = "delete",
        /// Many limits at once.
        Batch = "batch",
        /// What other instances changed.
        Changes = "changes",
        /// Levels of buckets, saved and read.
        Levels = "levels",
        /// Whether it answers.
        Probe = "probe",
    }
}

labels! {
    /// Why a span never came to the collector.
    SpanDrop {
        /// As many requests waited to be sent as may.
        QueueFull = "queue_full",
        /// No answer, or one that asked to try again, until the time for that was over.
        Unreachable = "unreachable",
        /// The collector refused the batch, or this part of it.
        Refused = "refused",
        /// The process, or this collector's use, ended first.
        Stopped = "stopped",
        /// One request has more attempts than are recorded.
        Attempts = "attempts",
    }
}

labels! {
    /// How a reload ended.
    Reload {
        /// The new configuration is in force.
        Success = "success",
        /// It was wrong; the old one stays.
        Failure = "failure",
    }
}

/// How one attempt at a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// With an answer of that status.
    Status(u16),
    /// Without one: `code="error"`.
    Error,
}
