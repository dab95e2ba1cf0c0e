//! The whole text, read as strictly as the format is written.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::cell::config::Config;

/// A sample: labels as they stand, and the value.
type Samples = Vec<(String, f64)>;

/// Kind and samples of every family; panics at what Prometheus would refuse, or would only put up with.
fn parse(text: &str) -> BTreeMap<String, (String, Samples)> {
    assert!(text.ends_with('\n'), "the last line has its end");
    let mut families: BTreeMap<String, (String, Samples)> = BTreeMap::new();
    let (mut helped, mut family) = (String::new(), String::new());
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a name and its help");
            assert!(!words.is_empty() && words.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and its type");
            assert_eq!(name, helped, "HELP is before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(
                families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(),
                "twice: {line}"
            );
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(seen.insert(series.to_owned()), "twice: {line}");
            let value: f64 = value.parse().expect("a number");
            let (name, labels) = series
                .split_once('{')
                .map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').expect("labels end")));
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            let (kind, samples) = families.get_mut(&family).expect("a family before its samples");
            let suffix = name.strip_prefix(&family).expect("a sample of its family");
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (_, quoted) = label.split_once('=').expect("a label and its value");
                let value = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                assert!(value.is_some_and(|value| !value.contains(['"', '\\'])), "{line}");
            }
            samples.push((format!("{suffix}{{{labels}}}"), value));
        }
    }
    families
}

fn value(families: &BTreeMap<String, (String, Samples)>, name: &str, labels: &str) -> f64 {
    let (_, samples) = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    let found = samples.iter().find(|(of, _)| of == labels);
    found.unwrap_or_else(|| panic!("no {labels} in {samples:?}")).1
}

fn text_of(metrics: &Metrics) -> String {
    let capacity =
        celda_auction::Resources { containers: 4, memory_mib: 64, cpu_milli: 1000, disk_mib: 1, ports: 1 };
    let books = Books::new(&Config::default(), capacity).expect("books");
    let states = crate::cell::instance::State::NAMES.map(|name| (name, name.len() as u32));
    let look = Look { states, is_draining: false, journal_bytes: 9 };
    let logs = Totals { lines: 7, bytes: 70, dropped_lines: 2 };
    let kernel = Kernel::read(std::path::Path::new("/nowhere"));
    metrics.text(&Now { look: &look, books: &books, jobs_count: 0, logs, kernel })
}

fn end(cause: Cause, stopped_by: Option<StoppedBy>) -> End {
    End { cause, stopped_by, at_ms: 0, gave_up: false }
}

#[test]
fn the_whole_text_is_what_prometheus_reads() {
    let metrics = Metrics::default();
    let ms = Duration::from_millis;
    metrics.started(&Stages { prepare: ms(2), launch: ms(3), clone: ms(1), exec: ms(2) });
    metrics.started(&Stages { prepare: Duration::from_secs(600), launch: ms(1), clone: ms(1), exec: ms(1) });
    metrics.ended(&end(Cause::Signal { signal: 9 }, Some(StoppedBy::Drain)));
    metrics.ended(&end(Cause::Exit { code: 3 }, None));
    metrics.set_forwarders(vec![("syslog", Arc::default()), ("otlp", Arc::default())]);
    metrics.ended(&end(Cause::NeverRan, Some(StoppedBy::Drain)));
    let families = parse(&text_of(&metrics));
    assert_eq!(value(&families, "celda_instances", "{state=\"waiting\"}"), 7.0);
    assert_eq!(value(&families, "celda_ends_total", "{reason=\"signal\",stopped_by=\"drain\"}"), 1.0);
    assert_eq!(value(&families, "celda_ends_total", "{reason=\"failure\",stopped_by=\"nobody\"}"), 1.0);
    let (_, ends) = &families["celda_ends_total"];
    assert_eq!(ends.iter().map(|(_, count)| count).sum::<f64>(), 2.0, "what never ran has not ended");
    assert_eq!(value(&families, "celda_forward_connected", "{forwarder=\"otlp\"}"), 0.0);
    assert_eq!(value(&families, "celda_log_dropped_lines_total", "{}"), 2.0);
    assert!(value(&families, "process_resident_memory_bytes", "{}") > 0.0);
    assert!(
        value(&families, "process_open_fds", "{}") > 0.0 && value(&families, "process_threads", "{}") > 0.0
    );
    assert_eq!(value(&families, "celda_start_stage_seconds", "_sum{stage=\"clone\"}"), 0.002);
}

#[test]
fn histograms_add_up() {
    let metrics = Metrics::default();
    for us in [1, 400, 5_000, 5_000, 70_000_000] {
        let stage = Duration::from_micros(us);
        metrics.started(&Stages { prepare: stage, launch: stage, clone: stage, exec: stage });
        metrics.synced(stage);
    }
    let families = parse(&text_of(&metrics));
    for (name, (_, samples)) in families.iter().filter(|(_, (kind, _))| kind == "histogram") {
        let mut last = 0.0;
        for (labels, count) in samples {
            if labels.starts_with("_bucket") {
                assert!(*count >= last, "{name}{labels} is less than the one before");
                last = *count;
            } else if labels.starts_with("_count") {
                assert_eq!((*count, last), (5.0, 5.0), "{name}{labels}");
                last = 0.0;
            }
        }
    }
    assert_eq!(value(&families, "celda_journal_sync_seconds", "_bucket{le=\"0.005\"}"), 4.0);
    assert_eq!(value(&families, "celda_journal_sync_seconds", "_bucket{le=\"+Inf\"}"), 5.0);
}
