//! The front door: engines that accept connections, parse requests, call the [`Service`](crate::exchange::Service) and
//! deliver its answers. They share how an answer is written ([`render`]); everything else is each engine's own.

pub mod render;
pub mod tiny_http;
