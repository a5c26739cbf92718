//! The integration tests: the real programs over real sockets, on every engine and both databases.
//!
//! - `support` starts programs, clients and backends, and ends them.
//! - Each other module is about one subject. `each_engine!` makes a test for every engine, `each_store!` one for SQLite and
//!   one for PostgreSQL.
//! - Without PostgreSQL, only the SQLite half runs, and says what was skipped; `BALANCER_TEST_REQUIRE_POSTGRES=1` makes
//!   that a failure. `BALANCER_TEST_POSTGRES_URL` names a server to use instead of one that is started for the tests.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

mod support;

mod access;
mod access_log;
mod answers;
mod api;
mod auto;
mod backend_state;
mod backends_api;
mod balancing;
mod bodies;
mod bounds;
mod budget;
mod callers;
mod causes;
mod cli;
mod command_line;
mod configuration;
mod contract_api;
mod contract_forwarding;
mod contract_log;
mod cuts;
mod dashboard;
mod deployed;
mod discovery;
mod drills;
mod durability;
mod echo;
mod engines;
mod files;
mod forwarding;
mod full_table;
mod ground;
mod health;
mod hops;
mod http2;
mod https;
mod identity;
mod instances;
mod levels;
mod limiter;
mod load;
mod loops;
mod metrics;
mod openapi;
mod otel;
mod outage;
mod overview;
mod pages;
mod pools;
mod process;
mod prometheus;
mod queue;
mod recipes;
mod reference;
mod reload;
mod replaced;
mod request_ids;
mod requests;
mod restarts;
mod retries;
mod routes;
mod schemathesis;
mod scripts;
mod series;
mod store_words;
mod strategies;
mod terms;
mod tls;
mod tls_backends;
mod tls_front;
mod trimmed;
mod unreadable;
mod v1;
