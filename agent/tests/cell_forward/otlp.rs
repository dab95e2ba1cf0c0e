//! OTLP logs over gRPC.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use celda::cell::forward::{Forwarder, Otlp};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use std::io::Write as _;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::support::{Cell, say, until};

/// A collector that first answers what it is told to, and then takes everything.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<VecDeque<Result<i64, Status>>>>,
    taken: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(0));
        let rejected_log_records = answer?;
        self.taken.lock().unwrap().push(request.into_inner());
        let error_message = "some are too old".to_owned();
        let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collector {
    async fn serve(&self) -> Otlp {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let service = LogsServiceServer::new(self.clone());
        tokio::spawn(async move {
            let next = |listener: TcpListener| async move {
                Some((listener.accept().await.map(|one| one.0), listener))
            };
            let incoming = futures_util::stream::unfold(listener, next);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Otlp { endpoint, ..Otlp::default() }
    }

    /// Instance, severity and body of every record, in order.
    fn records(&self) -> Vec<(String, i32, Value)> {
        let mut records = Vec::new();
        for of_instance in self.taken.lock().unwrap().iter().flat_map(|request| &request.resource_logs) {
            let resource = of_instance.resource.as_ref().unwrap();
            let Value::StringValue(id) = attribute(&resource.attributes, "service.instance.id") else {
                panic!()
            };
            assert_eq!(attribute(&resource.attributes, "service.name"), Value::StringValue("shop".into()));
            assert_eq!(attribute(&resource.attributes, "celda.cell"), Value::StringValue("cell-1".into()));
            for record in of_instance.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                assert!(record.time_unix_nano > 0);
                assert_eq!(
                    attribute(&record.attributes, "log.iostream"),
                    Value::StringValue("stdout".into())
                );
                let body = record.body.clone().unwrap().value.unwrap();
                records.push((id.clone(), record.severity_number, body));
            }
        }
        records
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.unwrap_or_else(|| panic!("no {key}")).value.clone().unwrap().value.unwrap()
}

fn forwarder(config: &Otlp) -> Forwarder {
    Forwarder::otlp(config, "cell-1").unwrap().unwrap()
}

fn line(id: &str, number: u64) -> (String, i32, Value) {
    (id.to_owned(), 9, Value::StringValue(format!("line {number}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_records_of_their_instance_and_bytes_stay_bytes() {
    let (mut cell, collector) = (Cell::new(), Collector::default());
    let config = collector.serve().await;
    let (mut one, mut other) = (cell.instance("web-0"), cell.instance("web-1"));
    say(&mut one, 0..2);
    one.write_all(b"\xff\0 no text\n").unwrap();
    say(&mut other, [7]);
    until("the lines", || cell.records_count("web-0") == 3 && cell.records_count("web-1") == 1).await;
    let tally = cell.forward(forwarder(&config));
    until("the records", || collector.records().len() == 4).await;
    let bytes = ("web-0".to_owned(), 9, Value::BytesValue(b"\xff\0 no text".to_vec()));
    assert_eq!(collector.records(), [line("web-0", 0), line("web-0", 1), bytes, line("web-1", 7)]);
    until("the tally", || tally.sent_lines() == 4 && tally.is_connected()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_cannot_take_now_is_sent_again_and_what_it_never_takes_is_counted() {
    let (mut cell, collector) = (Cell::new(), Collector::default());
    let config = collector.serve().await;
    collector.answers.lock().unwrap().extend([
        Err(Status::unavailable("full")),
        Err(Status::unauthenticated("who are you")),
        Err(Status::internal("oops")),
        Ok(2),
        Err(Status::invalid_argument("no such thing")),
    ]);
    let mut web = cell.instance("web-0");
    say(&mut web, 0..5);
    until("the lines", || cell.records_count("web-0") == 5).await;
    let tally = cell.forward(forwarder(&config));
    until("the first batch", || tally.sent_lines() == 3).await;
    assert_eq!(collector.records(), (0..5).map(|number| line("web-0", number)).collect::<Vec<_>>(), "once");
    assert_eq!(tally.lost_lines(), 2, "what the collector says that it threw away");
    say(&mut web, [5]);
    until("the refusal", || tally.lost_lines() == 3).await;
    say(&mut web, [6]);
    until("what comes after", || tally.sent_lines() == 4).await;
    assert_eq!(collector.records().last(), Some(&line("web-0", 6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_later_gets_all_of_it() {
    let mut cell = Cell::new();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = Otlp { endpoint: Some(format!("http://{address}")), ..Otlp::default() };
    let mut web = cell.instance("web-0");
    say(&mut web, 0..5);
    let tally = cell.forward(forwarder(&config));
    until("the lines", || cell.records_count("web-0") == 5).await;
    assert_eq!(tally.sent_lines(), 0);
    let collector = Collector::default();
    let service = LogsServiceServer::new(collector.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve(address));
    until("the records", || collector.records().len() == 5).await;
}
