//! The upstream against scripted backends over loopback: raw TCP on both sides of the script, so that bytes are what is
//! compared.

mod answers;
mod apart;
mod connections;
mod deadlines;
mod requests;
mod support;
mod upgrades;
