//! One forwarder: read, send, again until it has come, keep the place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::catalog::Catalog;
use super::config::{Otlp, Syslog};
use super::error::{ForwardError, Result};
use super::otlp::Collector;
use super::places::Places;
use super::reader::{Batch, Reader};
use super::wire::Server;
use super::{BACK_OFF_FIRST, BACK_OFF_MAX, Line, PLACES_INTERVAL, TICK, Tally, syslog};

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Syslog { server: Server, facility: u8 },
    Otlp(Collector),
}

/// One forwarder.
#[derive(Debug)]
pub struct Forwarder {
    name: &'static str,
    cell: String,
    sink: Sink,
    tally: Arc<Tally>,
}

impl Forwarder {
    /// To a syslog server, if one is configured, for the cell of this name.
    ///
    /// # Errors
    /// [`ForwardError::Tls`].
    pub fn syslog(config: &Syslog, cell: &str) -> Result<Option<Self>> {
        let Some(server) = Server::of(config)? else { return Ok(None) };
        let sink = Sink::Syslog { server, facility: config.facility };
        Ok(Some(Self { name: "syslog", cell: cell.to_owned(), sink, tally: Arc::default() }))
    }

    /// To an OpenTelemetry collector, if one is configured. In a runtime only.
    ///
    /// # Errors
    /// [`ForwardError::Tls`].
    pub fn otlp(config: &Otlp, cell: &str) -> Result<Option<Self>> {
        let Some(collector) = Collector::of(config)? else { return Ok(None) };
        let sink = Sink::Otlp(collector);
        Ok(Some(Self { name: "otlp", cell: cell.to_owned(), sink, tally: Arc::default() }))
    }

    /// A word for it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it has done.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Forwards for ever, from the places that are written down in `directory`.
    pub async fn run(mut self, catalog: impl Catalog, directory: &Path) {
        let (places, is_damaged) = Places::open(directory.join(format!("{}.places", self.name)));
        if is_damaged {
            tracing::warn!(
                forwarder = self.name,
                "its places cannot be read: all that is kept is sent again"
            );
        }
        let mut reader = Reader::new(catalog, places);
        let mut written_at = Instant::now();
        loop {
            reader.refresh().await;
            // Files that were just written are read from memory.
            let batch = tokio::task::block_in_place(|| reader.fill());
            let is_idle = batch.is_none();
            if let Some(batch) = batch {
                let mut delivery = Box::pin(self.deliver(&batch));
                loop {
                    tokio::select! {
                        () = &mut delivery => break,
                        // Instances come and go however long the other side is away.
                        () = tokio::time::sleep(TICK) => reader.refresh().await,
                    }
                }
                drop(delivery);
                reader.done(batch);
            }
            if written_at.elapsed() >= PLACES_INTERVAL {
                written_at = Instant::now();
                if let Err(error) = tokio::task::block_in_place(|| reader.places().write()) {
                    tracing::warn!(forwarder = self.name, %error, "its places are not written down");
                }
            }
            if is_idle {
                self.look_at_connection().await;
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Sends a batch until it has come, or is refused for good.
    async fn deliver(&mut self, batch: &Batch) {
        self.tally.lost_lines.fetch_add(batch.lost_count, Relaxed);
        let mut back_off = BACK_OFF_FIRST;
        loop {
            let error = match self.send(&batch.lines).await {
                Ok(refused_count) => {
                    let sent_count = (batch.lines.len() as u64).saturating_sub(refused_count);
                    self.tally.sent_lines.fetch_add(sent_count, Relaxed);
                    self.tally.lost_lines.fetch_add(refused_count, Relaxed);
                    if !self.tally.is_connected.swap(true, Relaxed) {
                        tracing::info!(forwarder = self.name, "it forwards");
                    }
                    return;
                }
                Err(error) => error,
            };
            if let ForwardError::Refused { .. } = &error {
                self.tally.lost_lines.fetch_add(batch.lines.len() as u64, Relaxed);
                tracing::warn!(forwarder = self.name, %error, count = batch.lines.len(), "lines are lost");
                return;
            }
            if self.tally.is_connected.swap(false, Relaxed) || back_off == BACK_OFF_FIRST {
                tracing::warn!(forwarder = self.name, %error, "it waits, and sends that again");
            }
            tokio::time::sleep(jitter(back_off)).await;
            back_off = (2 * back_off).min(BACK_OFF_MAX);
        }
    }

    async fn send(&mut self, lines: &[Line]) -> Result<u64> {
        match &mut self.sink {
            Sink::Syslog { server, facility } => {
                let mut bytes = Vec::new();
                lines.iter().for_each(|line| syslog::message(&mut bytes, line, &self.cell, *facility));
                server.send(&bytes).await.map(|()| 0)
            }
            Sink::Otlp(collector) => collector.send(lines, &self.cell).await,
        }
    }

    /// A server that ended an idle connection is found out before the next line is written into the void.
    async fn look_at_connection(&mut self) {
        if let Sink::Syslog { server, .. } = &mut self.sink
            && server.is_lost().await
        {
            self.tally.is_connected.store(false, Relaxed);
            tracing::info!(forwarder = self.name, "the server has ended the connection");
        }
    }
}

/// Half of it to all of it: cells that lost one server do not all come back at once.
fn jitter(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    wait / 2 + (wait / 2).mul_f64(f64::from(nanos % 1024) / 1024.0)
}
