//! How a pull shows itself: a bar per layer on a terminal, a line per event on a pipe, an object per event for `--json`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use celda_layerfs::Digest;
use celda_layerfs::progress::{Event, Progress, Silent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output;

/// The watcher that fits where standard error goes. `quiet` shows nothing but errors.
pub(super) fn watcher(json: bool, quiet: bool) -> Arc<dyn Progress> {
    if quiet {
        Arc::new(Silent)
    } else if json {
        Arc::new(JsonLines)
    } else if io::stderr().is_terminal() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Lines)
    }
}

fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// One line an event; progress in between is left out.
struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event) {
        let line = match event {
            Event::Resolved { image, manifest, layers } => {
                let total = layers.iter().map(|layer| layer.1).sum();
                format!("{image}: {manifest}, {} layers, {}", layers.len(), output::bytes(total))
            }
            Event::LayerPresent(layer) => format!("{}: already here", short(&layer)),
            Event::LayerProgress { .. } => return,
            Event::LayerRetry { layer, attempt, reason } => {
                format!("{}: attempt {attempt} failed, trying again: {reason}", short(&layer))
            }
            Event::LayerDone(layer) => format!("{}: done", short(&layer)),
            Event::Ready { image, .. } => format!("{image}: ready"),
        };
        let _ = writeln!(io::stderr(), "{}", output::printable(&line));
    }
}

/// One JSON object a line, progress included.
struct JsonLines;

impl Progress for JsonLines {
    fn event(&self, event: Event) {
        let value = match event {
            Event::Resolved { image, manifest, layers } => {
                let layer = |(digest, bytes)| serde_json::json!({"digest": digest, "bytes": bytes});
                let layers: Vec<_> = layers.into_iter().map(layer).collect();
                serde_json::json!({"event": "resolved", "image": image, "manifest": manifest, "layers": layers})
            }
            Event::LayerPresent(layer) => serde_json::json!({"event": "layer-present", "layer": layer}),
            Event::LayerProgress { layer, bytes, total } => {
                serde_json::json!({"event": "layer-progress", "layer": layer, "bytes": bytes, "total": total})
            }
            Event::LayerRetry { layer, attempt, reason } => {
                serde_json::json!({"event": "layer-retry", "layer": layer, "attempt": attempt, "reason": reason})
            }
            Event::LayerDone(layer) => serde_json::json!({"event": "layer-done", "layer": layer}),
            Event::Ready { image, manifest } => {
                serde_json::json!({"event": "ready", "image": image, "manifest": manifest})
            }
        };
        let _ = writeln!(io::stderr(), "{}", output::json_printable(&value.to_string()));
    }
}

/// One bar a layer.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    fn bar(&self, layer: Digest, total: u64) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let add = || {
            let bar = self.all.add(ProgressBar::new(total));
            if let Ok(style) =
                ProgressStyle::with_template("{prefix}: {msg:11} [{bar:30}] {bytes:>10}/{total_bytes}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(short(&layer));
            bar.set_message("waiting");
            bar
        };
        layers.entry(layer).or_insert_with(add).clone()
    }
}

impl Progress for Bars {
    fn event(&self, event: Event) {
        match event {
            Event::Resolved { image, manifest, layers } => {
                let _ = self.all.println(format!("{image}: {manifest}"));
                for (layer, total) in layers {
                    self.bar(layer, total);
                }
            }
            Event::LayerPresent(layer) => {
                let bar = self.bar(layer, 0);
                bar.set_position(bar.length().unwrap_or(0));
                bar.abandon_with_message("already here");
            }
            Event::LayerProgress { layer, bytes, total } => {
                let bar = self.bar(layer, total);
                bar.set_message("pulling");
                bar.set_position(bytes);
            }
            Event::LayerRetry { layer, attempt, reason } => {
                let text = format!("{}: attempt {attempt} failed, trying again: {reason}", short(&layer));
                let _ = self.all.println(output::printable(&text));
            }
            Event::LayerDone(layer) => {
                let bar = self.bar(layer, 0);
                bar.set_position(bar.length().unwrap_or(0));
                bar.abandon_with_message("done");
            }
            Event::Ready { image, .. } => {
                let _ = self.all.println(format!("{image}: ready"));
            }
        }
    }
}
