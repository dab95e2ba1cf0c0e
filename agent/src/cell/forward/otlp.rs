//! Lines as OTLP logs, and a collector that takes them over gRPC.
//!
//! Messages and client are OpenTelemetry's own. Its batching exporter is not used: it keeps records in a queue of its own
//! and drops them when that is full, where here a place on the disk moves when the collector has answered.

use std::path::Path;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};

use super::config::Otlp;
use super::error::{ForwardError, Result};
use super::{CONNECT_DEADLINE, Line, SEND_DEADLINE};
use crate::cell::logs::Stream;

/// Bytes of an answer: a count and a message.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of a collector's words that are repeated.
const WORDS_CHARS_MAX: usize = 200;

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    to: String,
    client: LogsServiceClient<Channel>,
}

impl Collector {
    /// One that is configured; nothing where none is. In a runtime only; it is connected to when there is something to send.
    ///
    /// # Errors
    /// [`ForwardError::Tls`].
    pub(super) fn of(config: &Otlp) -> Result<Option<Self>> {
        let Some(to) = config.endpoint.clone() else { return Ok(None) };
        let wrong =
            |path: &Path, why: String| ForwardError::Tls { to: to.clone(), path: path.to_owned(), why };
        let read = |path: &Path| std::fs::read(path).map_err(|error| wrong(path, error.to_string()));
        let endpoint = Endpoint::from_shared(to.clone());
        let mut endpoint = endpoint.map_err(|error| wrong(Path::new(&to), error.to_string()))?;
        endpoint = endpoint.connect_timeout(CONNECT_DEADLINE).timeout(SEND_DEADLINE);
        if let Some(ca) = &config.tls_ca {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
            if let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            let tls = tls.timeout(CONNECT_DEADLINE);
            endpoint = endpoint.tls_config(tls).map_err(|error| wrong(ca, error.to_string()))?;
        }
        let client = LogsServiceClient::new(endpoint.connect_lazy());
        let client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Some(Self { to, client }))
    }

    /// Sends a batch, and answers how many of its records the collector has thrown away.
    ///
    /// # Errors
    /// [`ForwardError::Export`], [`ForwardError::Refused`].
    pub(super) async fn send(&mut self, lines: &[Line], cell: &str) -> Result<u64> {
        let export = self.client.export(Request::new(request(lines, cell)));
        let answered = tokio::time::timeout(SEND_DEADLINE, export).await;
        let late = || tonic::Status::deadline_exceeded("no answer in time");
        match answered.unwrap_or_else(|_| Err(late())) {
            Ok(answer) => match answer.into_inner().partial_success {
                Some(partial) if partial.rejected_log_records > 0 => {
                    let words: String = partial.error_message.chars().take(WORDS_CHARS_MAX).collect();
                    tracing::warn!(
                        to = self.to,
                        count = partial.rejected_log_records,
                        words,
                        "records were refused"
                    );
                    Ok(partial.rejected_log_records.unsigned_abs().min(lines.len() as u64))
                }
                _ => Ok(0),
            },
            // The one answer that says that the batch itself is wrong. All else may be mended there, also a missing right.
            Err(status) if status.code() == Code::InvalidArgument => {
                let why = status.message().chars().take(WORDS_CHARS_MAX).collect();
                Err(ForwardError::Refused { to: self.to.clone(), why })
            }
            Err(status) => Err(ForwardError::Export { to: self.to.clone(), status: Box::new(status) }),
        }
    }
}

/// Lines that follow each other and are of one instance share their resource.
fn request(lines: &[Line], cell: &str) -> ExportLogsServiceRequest {
    let resource_logs =
        lines.chunk_by(|one, other| one.id == other.id).map(|of_one| of_instance(of_one, cell));
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

fn of_instance(lines: &[Line], cell: &str) -> ResourceLogs {
    let attributes = match lines.first() {
        Some(Line { id, app, index, .. }) => vec![
            attribute("service.name", Value::StringValue(app.to_string())),
            attribute("service.instance.id", Value::StringValue(id.to_string())),
            attribute("celda.cell", Value::StringValue(cell.to_owned())),
            attribute("celda.index", Value::IntValue((*index).into())),
        ],
        None => Vec::new(),
    };
    let scope = InstrumentationScope {
        name: "celda".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let log_records = lines.iter().map(record).collect();
    ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }
}

fn record(line: &Line) -> LogRecord {
    let entry = &line.entry;
    let severity = match entry.stream {
        Stream::Output => SeverityNumber::Info,
        Stream::Error => SeverityNumber::Error,
        Stream::Notice => SeverityNumber::Warn,
    };
    let body = match std::str::from_utf8(&entry.payload) {
        Ok(text) => Value::StringValue(text.to_owned()),
        Err(_) => Value::BytesValue(entry.payload.clone()),
    };
    let mut attributes = vec![
        attribute("log.iostream", Value::StringValue(line.stream().into())),
        attribute("celda.sequence", Value::IntValue(entry.sequence.cast_signed())),
    ];
    if entry.is_partial {
        attributes.push(attribute("celda.partial", Value::BoolValue(true)));
    }
    LogRecord {
        time_unix_nano: entry.time_ns,
        observed_time_unix_nano: entry.time_ns,
        severity_number: severity.into(),
        body: Some(AnyValue { value: Some(body) }),
        attributes,
        ..LogRecord::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
