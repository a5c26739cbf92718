//! Every family of series that there is, each declared in one line.

/// What the numbers of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are a distribution of seconds.
    Histogram,
}

/// Declares every family, each as `Variant = Kind "name": "what it counts";`.
macro_rules! families {
    ($($variant:ident = $kind:ident $name:literal: $help:literal;)+) => {
        /// A family of series: they share name, kind and help, and differ in their labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Family {
            $(#[doc = $help] $variant,)+
        }

        impl Family {
            /// Every family, in the order in which `/metrics` shows them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name, kind and help.
            pub const fn about(self) -> (&'static str, FamilyKind, &'static str) {
                match self {
                    $(Self::$variant => ($name, FamilyKind::$kind, $help),)+
                }
            }
        }
    };
}

families! {
    // In the order in which `/metrics` shows them.
    HttpRequests = Counter "balancer_http_requests_total":
        "Requests by method and by the status that was sent; 499: the client left. Calls of the API are none, here and below.";
    HttpRequestDurationSeconds = Histogram "balancer_http_request_duration_seconds":
        "From the complete head to the last byte of the answer.";
    HttpRequestsInFlight = Gauge "balancer_http_requests_in_flight":
        "Requests whose answers are not delivered yet.";
    Connections = Gauge "balancer_connections": "Client connections by what they are doing.";
    ConnectionsRejected = Counter "balancer_connections_rejected_total": "Connections that were not taken.";
    TlsHandshakes = Counter "balancer_tls_handshakes_total":
        "TLS handshakes with clients by how they ended; plain: the client did not speak TLS.";
    TlsHandshakeDurationSeconds = Histogram "balancer_tls_handshake_duration_seconds":
        "From a connection's first byte to the end of its handshake, of those that ended well.";
    TlsCertificateExpiry = Gauge "balancer_tls_certificate_expiry_timestamp_seconds":
        "When a certificate expires that clients are shown, since the epoch.";
    Http2Connections = Gauge "balancer_http2_connections": "Client connections that speak HTTP/2.";
    Http2Streams = Gauge "balancer_http2_streams": "Requests on them; each counts as a connection, too.";
    Http2Abuse = Counter "balancer_http2_abuse_total":
        "HTTP/2 connections that were ended for a flood, by what it was made of.";
    WorkersBusy = Gauge "balancer_workers_busy":
        "Loops that were busy for most of the time when they looked last; tiny_http: workers at a request.";
    LoopLagSeconds = Histogram "balancer_loop_lag_seconds":
        "How long a loop took for the events that it was told of at once: so long others waited.";
    LoopConnections = Gauge "balancer_loop_connections": "Client connections by the loop that has them.";
    LoopsStuck = Gauge "balancer_loops_stuck": "Loops that do not go on, by a fault of this program.";
    QueueDepth = Gauge "balancer_queue_depth": "Requests that wait for a backend to have room.";
    QueueWaitSeconds = Histogram "balancer_queue_wait_seconds":
        "How long requests waited for a backend to have room, by their priority.";
    QueueClients = Gauge "balancer_queue_clients":
        "Clients with requests that wait for a backend to have room, once for each of their priorities; under queue_order fifo all count as one.";
    QueueRefused = Counter "balancer_queue_refused_total":
        "Requests that were refused because every backend was full: full: there was no place to wait in; target, timeout: they waited for queue_target or queue_timeout.";
    Panics = Counter "balancer_panics_total": "Panics that a worker caught.";
    BackendUp = Gauge "balancer_backend_up": "1 while a backend is given requests.";
    BackendState = Gauge "balancer_backend_state": "1 for what a backend is: up, drain, down or ejected.";
    BackendRequests = Counter "balancer_backend_requests_total":
        "Attempts by the status of the answer, or error.";
    BackendRequestDurationSeconds = Histogram "balancer_backend_request_duration_seconds":
        "An attempt, up to the head of the answer.";
    BackendInFlight = Gauge "balancer_backend_in_flight": "Requests in flight on a backend.";
    BackendLimit = Gauge "balancer_backend_limit":
        "Most requests at once on a backend, now; +Inf: no bound.";
    BackendLimitProbes = Counter "balancer_backend_limit_probes_total":
        "Trials of a measured bound with fewer requests at once, by what they found of its places.";
    BackendRetries = Counter "balancer_backend_retries_total": "Requests that were sent again.";
    BackendEjections = Counter "balancer_backend_ejections_total":
        "How often a backend was taken out because of its answers.";
    BackendResponseBytes = Counter "balancer_backend_response_bytes_total":
        "Bytes of answers' bodies that clients got from a backend.";
    HealthChecks = Counter "balancer_health_checks_total": "Health checks by result.";
    RatelimitRequests = Counter "balancer_ratelimit_requests_total":
        "Decisions by the kind of limit; none: unlimited.";
    RatelimitKeys = Counter "balancer_ratelimit_keys_total":
        "Keys that requests showed, by what came of them.";
    RatelimitClients = Gauge "balancer_ratelimit_clients": "Buckets in memory.";
    RatelimitOverflow = Counter "balancer_ratelimit_overflow_total":
        "Requests that a shared overflow bucket decided.";
    RatelimitCacheHits = Counter "balancer_ratelimit_cache_hits_total": "Limits found in memory.";
    RatelimitCacheMisses = Counter "balancer_ratelimit_cache_misses_total": "Limits that had to be loaded.";
    RatelimitCacheEvictions = Counter "balancer_ratelimit_cache_evictions_total":
        "Limits thrown out of memory for want of room.";
    BudgetPeers = Gauge "balancer_budget_peers":
        "Other instances that are heard and share every client's budget with this one.";
    BudgetHotClients = Gauge "balancer_budget_hot_clients":
        "Clients whose spending this instance tells the others.";
    BudgetMessagesSent = Counter "balancer_budget_messages_sent_total":
        "Messages to the other instances.";
    BudgetMessagesReceived = Counter "balancer_budget_messages_received_total":
        "Messages of other instances that were read.";
    BudgetMessagesDropped = Counter "balancer_budget_messages_dropped_total":
        "What does not count: not signed, unknown, heard before, too much; and requests told to nobody, as too much is hot.";
    BudgetMessagesOtherVersion = Counter "balancer_budget_messages_other_version_total":
        "What of the dropped messages came from instances of another version.";
    BudgetLagSeconds = Gauge "balancer_budget_lag_seconds":
        "How long a message takes to all instances; 0 where nothing is told.";
    BudgetCutOff = Gauge "balancer_budget_cut_off":
        "1 while this instance hears no other, and holds each client to a part of its limits, or is heard by no other.";
    StoreUp = Gauge "balancer_store_up":
        "1 while the database answers and takes changes; /v1/status says what it does else.";
    StoreOperationDurationSeconds = Histogram "balancer_store_operation_duration_seconds":
        "Calls of the database.";
    StoreErrors = Counter "balancer_store_errors_total": "Calls of the database that failed.";
    OtelSpansSent = Counter "balancer_otel_spans_sent_total":
        "Spans of requests that the collector has taken.";
    OtelSpansDropped = Counter "balancer_otel_spans_dropped_total":
        "Spans that it will not get: queue_full: it is too slow, or away; unreachable: it could not be given them within a minute; refused: it did not want them; stopped: the process ended first; attempts: a request was sent too often.";
    ConfigReloads = Counter "balancer_config_reloads_total": "Reloads by result.";
    BuildInfo = Gauge "balancer_build_info": "1; the version is a label.";
    ProcessCpuSeconds = Counter "process_cpu_seconds_total": "CPU time of the process, user and system.";
    ProcessResidentMemoryBytes = Gauge "process_resident_memory_bytes":
        "Memory of the process that is in RAM.";
    ProcessOpenFds = Gauge "process_open_fds": "Open file descriptors.";
    ProcessMaxFds = Gauge "process_max_fds": "How many file descriptors may be open.";
    ProcessStartTimeSeconds = Gauge "process_start_time_seconds":
        "When the process started, since the epoch.";
    ProcessThreads = Gauge "process_threads": "Threads of the process.";
}
