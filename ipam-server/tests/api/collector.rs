//! A collector of traces (OTLP over HTTP), in order or out of it.

use crate::running::{Leaf, until};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

/// How a collector meets what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It takes it.
    Takes,
    /// It refuses it, and says that trying again is no use.
    Refuses,
    /// It never answers.
    Hangs,
}

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) span: Span,
}

impl Arrived {
    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.span.status.clone().unwrap_or_default().code()
    }
}

#[derive(Debug)]
struct State {
    mood: Mood,
    requests: usize,
    arrived: Vec<Arrived>,
}

pub(crate) struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

impl Collector {
    pub(crate) fn start(mood: Mood) -> Self {
        Self::listen("http", mood, serve)
    }

    /// One that shows a certificate.
    pub(crate) fn secure(leaf: &Leaf) -> Self {
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()];
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        Self::listen("https", Mood::Takes, move |stream, state| {
            serve(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream), state)
        })
    }

    fn listen(
        scheme: &'static str,
        mood: Mood,
        serve: impl Fn(std::net::TcpStream, &Mutex<State>) -> io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { mood, requests: 0, arrived: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (serve, state) = (serve.clone(), Arc::clone(&shared));
                // A connection ends as its client likes.
                thread::spawn(move || drop(serve(stream.unwrap(), &state)));
            }
        });
        Self { address, scheme, state }
    }

    /// As `OTEL_EXPORTER_OTLP_ENDPOINT` names it.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// How many batches it was sent.
    pub(crate) fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.lock().unwrap().arrived.clone()
    }

    /// The first span of a name, once it is there.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> Arrived {
        self.find(name, |arrived| arrived.span.name == name)
    }

    /// The first span that is as wanted, once it is there.
    #[track_caller]
    pub(crate) fn find(&self, what: &str, wanted: impl Fn(&Arrived) -> bool) -> Arrived {
        let mut found = None;
        until(what, || {
            found = self.arrived().into_iter().find(&wanted);
            found.is_some()
        });
        found.unwrap()
    }
}

/// Takes requests that follow each other on a connection.
fn serve<S: Read + Write>(stream: S, state: &Mutex<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body)?;
        let mood = {
            let mut state = state.lock().unwrap();
            state.requests += 1;
            if state.mood == Mood::Takes {
                state.arrived.extend(spans(ExportTraceServiceRequest::decode(body.as_slice()).unwrap()));
            }
            state.mood
        };
        let status = match mood {
            Mood::Takes => "200 OK",
            Mood::Refuses => "400 Bad Request",
            // Until the client goes.
            Mood::Hangs => return stream.read_to_end(&mut Vec::new()).map(drop),
        };
        write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        stream.get_mut().flush()?;
    }
}

fn spans(request: ExportTraceServiceRequest) -> impl Iterator<Item = Arrived> {
    request.resource_spans.into_iter().flat_map(|of_resource| {
        let resource = texts(&of_resource.resource.unwrap().attributes);
        of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans).map(move |span| Arrived {
            resource: resource.clone(),
            attributes: texts(&span.attributes),
            span,
        })
    })
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

/// A value with its type, where that is not text.
fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => format!("int {number}"),
        Some(any_value::Value::ArrayValue(array)) => {
            format!("[{}]", array.values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
