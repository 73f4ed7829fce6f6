//! What a collector of traces is sent, and that nothing waits for one.

use crate::{
    collector::{Collector, Mood},
    process::command,
    running::{Ca, Running, ended, until},
};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What nothing may take that waits for no collector; such a wait takes longer.
const PROMPT: Duration = Duration::from_secs(4);

/// What the last spans are given to get through, and what else ends meanwhile.
const END: Duration = Duration::from_secs(9);

/// Serves in an environment, with a batch for every few spans.
fn serve(dir: &Path, environment: &[(&str, &str)]) -> Running {
    let database = format!("sqlite://{}", dir.join("ipam.db").display());
    let mut serve = command(&["serve", "--database", &database, "--listen", "127.0.0.1:0"]);
    serve.args(["--log-format", "json"]).env("OTEL_BSP_SCHEDULE_DELAY", "10");
    Running::of(dir, serve.envs(environment.iter().copied()), 1)
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn lines(service: &Running) -> Vec<Value> {
    service.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_request_is_a_span_of_its_callers_trace() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    let service = serve(
        dir.path(),
        &[(ENDPOINT, &collector.endpoint()), ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")],
    );
    let body = json!({"addressSpace": ["10.240.0.0/12"]});
    let headers = [
        ("traceparent", traceparent("01")),
        ("x-request-id", "ticket-42".to_owned()),
        ("tracestate", "lab=7".to_owned()),
    ];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    service.plain().send_with("PUT /v1/vnets/prod?dryRun=false", &headers, Some(&body)).unwrap().expect(201);

    let arrived = collector.span("PUT /v1/vnets/{vnet}");
    assert_eq!(arrived.span.kind(), SpanKind::Server);
    assert_eq!((arrived.trace(), arrived.parent()), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(arrived.span.trace_state, "lab=7");
    assert!(arrived.span.end_time_unix_nano > arrived.span.start_time_unix_nano);
    let wanted = [
        ("http.request.method", "PUT"),
        ("http.response.header.x-request-id", "[ticket-42]"),
        ("http.response.status_code", "int 201"),
        ("http.route", "/v1/vnets/{vnet}"),
        ("url.path", "/v1/vnets/prod"),
    ];
    let wanted: BTreeMap<_, _> = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(arrived.attributes, wanted, "these and no other");
    assert_eq!(arrived.status(), StatusCode::Unset);
    assert_eq!(arrived.resource["service.name"], "ipam-server");
    assert_eq!(arrived.resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(arrived.resource["deployment.environment.name"], "lab");

    let plan = collector.span("store plan");
    assert_eq!((plan.trace(), plan.parent()), (TRACE.to_owned(), arrived.id()));
    assert_eq!(plan.span.kind(), SpanKind::Internal);
    let answered = lines(&service).into_iter().find(|line| line["fields"]["message"] == "answered").unwrap();
    assert_eq!(answered["span"], json!({"name": "request", "id": "ticket-42", "trace_id": TRACE}));
    service.stop();
}

#[test]
fn a_batch_is_in_the_trace_of_a_request_that_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    let service = serve(dir.path(), &[(ENDPOINT, &collector.endpoint()), ("OTEL_SERVICE_NAME", "ipam-lab")]);
    let mut client = service.plain();
    for (path, body) in [
        ("vnets/prod", json!({"addressSpace": ["10.240.0.0/12"]})),
        ("vnets/prod/subnets/nodes", json!({"cidrs": ["10.240.0.0/16"]})),
        ("pools/workers", json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 3})),
        ("nodes/vm-1", json!({"pool": "workers", "addresses": ["10.240.0.11"], "allocator": "service"})),
        ("nodes/vm-1/allocations/c0/eth0", json!({})),
    ] {
        client.send(&format!("PUT /v1/{path}"), None, Some(&body)).unwrap().expect(201);
    }
    let request = collector.span("PUT /v1/nodes/{node}/allocations/{containerId}/{ifName}");
    assert_eq!(request.parent(), "", "it begins a trace");
    assert_eq!(request.resource["service.name"], "ipam-lab");
    let hold = collector.span("store hold");
    assert_eq!((hold.trace(), hold.parent()), (request.trace(), request.id()));
    let batch = collector.find("the batch", |span| {
        span.span.name == "store nodes" && (span.trace(), span.parent()) == (hold.trace(), hold.id())
    });
    assert!(batch.span.end_time_unix_nano <= request.span.end_time_unix_nano);
    // The upkeep has its turn at once; when tokens were used is noted often, and begins no trace.
    let upkeep = collector.span("prune");
    let pruned = collector.find("what it did", |span| span.parent() == upkeep.id());
    assert_eq!((pruned.span.name.as_str(), pruned.trace()), ("store nodes", upkeep.trace()));
    service.stop();
    assert!(
        collector.arrived().iter().all(|span| !span.span.name.starts_with("store") || span.parent() != "")
    );
}

#[test]
fn unknown_paths_and_methods_make_no_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    let service = serve(dir.path(), &[(ENDPOINT, &collector.endpoint())]);
    let mut client = service.plain();
    client.send("GET /v1/anything", None, None).unwrap().expect(404);
    client.send(&format!("POST /v1/{}", "x".repeat(3000)), None, None).unwrap().expect(404);
    client.send("BREW /v1/pools", None, None).unwrap().expect(405);
    let unknown = collector.span("GET");
    assert_eq!(unknown.attributes["url.path"], "/v1/anything");
    assert!(!unknown.attributes.contains_key("http.route"));
    // What a caller did wrong is no error of the service.
    assert_eq!(unknown.status(), StatusCode::Unset);
    assert_eq!(collector.span("POST").attributes["url.path"].len(), 1024);
    let brewed = collector.span("HTTP /v1/pools");
    assert_eq!(brewed.attributes["http.request.method"], "_OTHER");
    service.stop();
}

#[tokio::test]
async fn what_goes_wrong_is_an_error_with_what_the_log_says() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    // Traces are not a matter of what is logged.
    let service = serve(dir.path(), &[(ENDPOINT, &collector.endpoint()), ("IPAM_LOG", "off")]);
    let database = format!("sqlite://{}", dir.path().join("ipam.db").display());
    let mut database = SqliteConnection::connect(&database).await.unwrap();
    database.execute("ALTER TABLE vnet RENAME TO elsewhere").await.unwrap();
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(500);
    let failed = collector.span("GET /v1/vnets");
    assert_eq!(failed.status(), StatusCode::Error);
    assert_eq!(failed.attributes["error.type"], "500");
    assert_eq!(failed.span.events.len(), 1, "{failed:?}");
    assert_eq!(service.log(), "");
}

#[test]
fn the_sampler_has_the_say_and_the_caller_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    let service = serve(
        dir.path(),
        &[(ENDPOINT, &collector.endpoint()), ("OTEL_TRACES_SAMPLER", "parentbased_always_off")],
    );
    let mut client = service.plain();
    client.send("GET /v1/vnets", None, None).unwrap().expect(200);
    client.send_with("GET /v1/pools", &[("traceparent", &traceparent("00"))], None).unwrap().expect(200);
    // More than has to be passed on is not kept.
    let state = format!("lab={}", "7".repeat(250)).repeat(3).replace("7lab", "7,lab");
    let headers = [("traceparent", traceparent("01")), ("tracestate", state)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    client.send_with("GET /v1/nodes", &headers, None).unwrap().expect(200);
    service.stop();
    let names: Vec<_> = collector.arrived().into_iter().map(|arrived| arrived.span.name).collect();
    assert!(names.contains(&"GET /v1/nodes".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| name == "GET /v1/nodes" || name == "store read"), "{names:?}");
    assert!(collector.arrived().iter().all(|arrived| arrived.trace() == TRACE));
    assert!(collector.arrived().iter().all(|arrived| arrived.span.trace_state.is_empty()));
}

#[test]
fn a_collector_that_is_away_is_told_of_once_and_keeps_nothing_waiting() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let collector = Collector::start(Mood::Refuses);
    for endpoint in [format!("http://{nobody}"), collector.endpoint()] {
        let dir = tempfile::tempdir().unwrap();
        let service =
            serve(dir.path(), &[(ENDPOINT, &endpoint), ("IPAM_LOG", "info,opentelemetry-otlp=debug")]);
        let mut client = service.plain();
        until("it is told", || {
            let began = Instant::now();
            client.send("GET /v1/vnets", None, None).unwrap().expect(200);
            assert!(began.elapsed() < PROMPT);
            service.logged("traces are not delivered") > 0
        });
        // More batches are lost, without a word.
        for _ in 0..5 {
            let lost = service.logged("HttpClient.ExportStarted");
            client.send("GET /v1/vnets", None, None).unwrap().expect(200);
            until("another is tried", || service.logged("HttpClient.ExportStarted") > lost);
        }
        let warnings: Vec<_> = lines(&service)
            .into_iter()
            .filter(|line| line["level"] != "INFO" && line["level"] != "DEBUG")
            .collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        if endpoint == collector.endpoint() {
            collector.set(Mood::Takes);
            until("it is well again", || {
                client.send("GET /v1/vnets", None, None).unwrap().expect(200);
                service.logged("traces are delivered again") == 1
            });
        }
        let began = Instant::now();
        service.stop();
        assert!(began.elapsed() < END, "{:?}", began.elapsed());
    }
}

#[test]
fn a_collector_that_never_answers_keeps_nothing_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Hangs);
    let few = [("OTEL_BSP_MAX_QUEUE_SIZE", "8"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")];
    let endpoint = collector.endpoint();
    let service = serve(
        dir.path(),
        &[&[(ENDPOINT, endpoint.as_str()), ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")], &few[..]].concat(),
    );
    let mut client = service.plain();
    until("a batch hangs", || {
        client.send("GET /v1/vnets", None, None).unwrap().expect(200);
        collector.requests() > 0
    });
    // More than may wait.
    for _ in 0..50 {
        let began = Instant::now();
        client.send("GET /v1/vnets", None, None).unwrap().expect(200);
        assert!(began.elapsed() < PROMPT);
    }
    assert_eq!(service.logged("SpanDroppingStarted"), 1, "{}", service.log());
    let log = dir.path().join("log");
    let began = Instant::now();
    service.stop();
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("the last traces are not delivered"), "{log}");
}

#[test]
fn nothing_is_sent_unless_the_environment_asks_for_it() {
    let collector = Collector::start(Mood::Takes);
    let endpoint = collector.endpoint();
    for silence in [
        &[][..],
        &[(ENDPOINT, "")],
        &[(ENDPOINT, endpoint.as_str()), ("OTEL_SDK_DISABLED", "true")],
        &[(ENDPOINT, endpoint.as_str()), ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let service = serve(dir.path(), silence);
        let headers = [("traceparent", traceparent("01"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        service.plain().send_with("GET /v1/vnets", &headers, None).unwrap().expect(200);
        until("it is logged", || service.logged("answered") == 1);
        assert_eq!(service.logged("trace_id"), 0, "{}", service.log());
        service.stop();
    }
    assert_eq!(collector.requests(), 0);
}

#[test]
fn a_collector_is_reached_by_tls_where_somebody_vouches_for_it() {
    let (ca, stranger) = (Ca::new("ours"), Ca::new("another"));
    let collector = Collector::secure(&ca.leaf(&["127.0.0.1"], 1));
    let dir = tempfile::tempdir().unwrap();
    for (name, ca) in [("ours.pem", &ca), ("another.pem", &stranger)] {
        fs::write(dir.path().join(name), ca.pem()).unwrap();
    }
    let by = |name: &str| {
        let file = dir.path().join(name).display().to_string();
        serve(dir.path(), &[(ENDPOINT, &collector.endpoint()), ("OTEL_EXPORTER_OTLP_CERTIFICATE", &file)])
    };
    let service = by("another.pem");
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(200);
    until("it is told", || service.logged("traces are not delivered") == 1);
    service.stop();
    assert!(collector.arrived().is_empty());

    let service = by("ours.pem");
    service.plain().send("GET /v1/vnets", None, None).unwrap().expect(200);
    collector.span("GET /v1/vnets");
    service.stop();
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", dir.path().join("ipam.db").display());
    for (environment, words) in [
        (&[(ENDPOINT, "http://[")][..], ENDPOINT),
        (
            &[(ENDPOINT, "https://collector"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca.pem")],
            "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /nonexistent/ca.pem",
        ),
    ] {
        let mut serve = command(&["serve", "--database", &database, "--listen", "127.0.0.1:0"]);
        let output = ended(serve.envs(environment.iter().copied()));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("error: ") && text.contains(words), "{text}");
    }
}

#[test]
fn a_sampler_that_is_none_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(Mood::Takes);
    let service =
        serve(dir.path(), &[(ENDPOINT, &collector.endpoint()), ("OTEL_TRACES_SAMPLER", "sometimes")]);
    assert_eq!(service.logged("OTEL_TRACES_SAMPLER"), 1, "{}", service.log());
    service.stop();
}
