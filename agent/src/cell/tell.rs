//! What the agent says of itself: structured lines on standard error, by tracing.
//!
//! ```text
//! start{id app image attempt}              debug: one for each attempt; its end says how long it took
//!   ├─ prepare                                    image, root and network are made ready
//!   └─ launch                                     the holder starts it
//! call{path}                               debug: one for each call of the API
//! adopt                                    info: what a cell that comes back takes over
//! ```
//! What the filter leaves out costs a load and a branch: neither spans nor their fields are made.

use serde::Deserialize;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::error::{CellError, Result};

/// Says the same as `log.filter`, and wins over it.
pub const FILTER_ENV: &str = "CELDA_LOG";

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is said, as directives of tracing's `EnvFilter`: `info`, or `info,celda::cell::door=debug`.
    pub filter: String,
    /// How.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: Format::Text }
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl LogConfig {
    /// Has everything said on standard error from now on.
    ///
    /// # Errors
    /// [`CellError::Filter`].
    pub fn begin(&self) -> Result<()> {
        let given = std::env::var(FILTER_ENV).ok();
        let text = given.as_deref().unwrap_or(&self.filter);
        let wrong = |error: tracing_subscriber::filter::ParseError| CellError::Filter {
            text: text.to_owned(),
            why: error.to_string(),
        };
        let filter = EnvFilter::builder().parse(text).map_err(wrong)?;
        // Spans are made where the filter wants them only, so that their ends are few unless asked for.
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::CLOSE);
        let subscriber = subscriber.with_writer(std::io::stderr);
        match self.format {
            Format::Json => subscriber.json().flatten_event(true).with_span_list(false).init(),
            Format::Text => {
                subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
            }
        }
        Ok(())
    }
}

/// The span of one attempt to start an instance.
pub fn start(id: &str, app: &str, image: &str, attempt: u32) -> Span {
    tracing::debug_span!("start", id, app, image, attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_listens_to_is_not_made() {
        assert!(start("web", "shop", "image", 1).is_disabled());
        let quiet = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink);
        tracing::subscriber::with_default(quiet.finish(), || {
            assert!(start("web", "shop", "image", 1).is_disabled(), "starts are for debug");
        });
        let loud = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::sink);
        tracing::subscriber::with_default(loud.finish(), || {
            assert!(!start("web", "shop", "image", 1).is_disabled());
        });
    }
}
