//! Forwarders against servers on loopback: ones that stall, reset, come late, refuse, or want certificates.

#![allow(clippy::unwrap_used)]

mod otlp;
mod support;
mod syslog;
