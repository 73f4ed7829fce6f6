//! The real router over a real database in a temporary file. Every answer is checked against the document.

use crate::{
    examples::{VIEWER_ID, viewer},
    schema::findings,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, StatusCode},
};
use ipam_api::{
    token::Secret,
    wire::{Role, TokenSpec},
};
use ipam_server::{
    api::{self, Credentials, Service},
    clock::SystemClock,
    peer::Peer,
    store::{Change, DatabaseUrl, Store},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tower::ServiceExt;

/// The service under test.
pub(crate) struct App {
    router: Router,
    pub(crate) service: Service,
    pub(crate) store: Store,
    pub(crate) document: Value,
    _dir: Arc<TempDir>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
    /// The body as JSON; null where there is none.
    pub(crate) body: Value,
}

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// The answer is this problem and, where `pointer` is given, points there.
    #[track_caller]
    pub(crate) fn expect_problem(&self, slug: &str, pointer: Option<&str>) {
        assert_eq!(self.body["type"], format!("/problems/{slug}"), "{}", self.text);
        if let Some(pointer) = pointer {
            let pointers: Vec<_> =
                self.body["errors"].as_array().into_iter().flatten().map(|error| &error["pointer"]).collect();
            assert!(pointers.iter().any(|got| *got == pointer), "wanted {pointer}: {}", self.text);
        }
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }
}

/// A token of this role, named like it.
pub(crate) fn token_spec(role: Role) -> TokenSpec {
    TokenSpec {
        name: role.word().to_owned(),
        role,
        node: None,
        pool: None,
        uses: None,
        expires_in_seconds: None,
        node_token_seconds: None,
    }
}

/// A request about to be sent.
pub(crate) struct Call<'a> {
    app: &'a App,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn bearer(self, secret: &Secret) -> Self {
        self.header("authorization", &format!("Bearer {}", secret.expose()))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string())
    }

    pub(crate) fn raw(mut self, media_type: &str, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self.header("content-type", media_type)
    }

    pub(crate) async fn send(self) -> Reply {
        self.app.send(self.request.body(self.body).unwrap()).await
    }
}

impl App {
    /// An empty service.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(dir.path().join("ipam.db"));
        let store = Store::open(&url, Arc::new(SystemClock)).await.unwrap();
        let service = Service::new(store.clone(), Credentials::Unasked);
        let document = serde_json::from_str(&api::document()).unwrap();
        Self { router: api::router(service.clone()), service, store, document, _dir: Arc::new(dir) }
    }

    /// The same service for those who have to show a credential.
    pub(crate) fn guarded(&self) -> Self {
        self.asking(Credentials::Required)
    }

    fn asking(&self, credentials: Credentials) -> Self {
        let service = Service::new(self.store.clone(), credentials);
        Self {
            router: api::router(service.clone()),
            service,
            store: self.store.clone(),
            document: self.document.clone(),
            _dir: Arc::clone(&self._dir),
        }
    }

    /// The same service for everyone.
    pub(crate) fn opened(&self) -> Self {
        self.asking(Credentials::Unasked)
    }

    /// The same service as an end of a connection sees it that is this peer.
    pub(crate) fn seen_by(self, peer: Peer) -> Self {
        Self { router: self.router.layer(Extension(ConnectInfo(peer))), ..self }
    }

    /// A service with one of everything.
    pub(crate) async fn furnished() -> Self {
        let app = Self::new().await;
        app.put(
            "/v1/vnets/prod",
            &json!({"addressSpace": ["10.240.0.0/12", "fd00:10::/48"], "serviceCidrs": ["10.0.0.0/16"]}),
        )
        .await
        .expect(201);
        app.put("/v1/vnets/prod/subnets/nodes", &json!({"cidrs": ["10.240.0.0/16", "fd00:10::/64"]}))
            .await
            .expect(201);
        app.put(
            "/v1/vnets/prod/subnets/nodes/reservations/vms",
            &json!({"first": "10.240.0.4", "last": "10.240.0.255", "reason": "the VMs' own", "forNodes": true}),
        )
        .await
        .expect(201);
        app.put(
            "/v1/pools/workers",
            &json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 3}),
        )
        .await
        .expect(201);
        app.put("/v1/nodes/node-1", &json!({"pool": "workers", "addresses": ["10.240.0.10"]}))
            .await
            .expect(201);
        app.put(
            "/v1/nodes/vm-1",
            &json!({"pool": "workers", "addresses": ["10.240.0.11"], "allocator": "service"}),
        )
        .await
        .expect(201);
        app.put("/v1/nodes/vm-1/allocations/c0/eth0", &json!({})).await.expect(201);
        let token =
            app.store.create_token(&token_spec(Role::Viewer), &viewer(), &Change::default()).await.unwrap();
        assert_eq!(token.id.as_str(), VIEWER_ID);
        app
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call { app: self, request: Request::builder().method(method).uri(path), body: Body::empty() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::PUT, path).json(body).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::POST, path).json(body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::PATCH, path).raw("application/merge-patch+json", body.to_string()).send().await
    }

    /// Sends a request and checks its answer against the document.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.send_unchecked(request).await;
        let wrong = self.undocumented(&method, &path, &reply);
        assert!(wrong.is_empty(), "{method} {path} → {reply:?}: {wrong:?}");
        reply
    }

    /// Sends a request whose answer the document does not describe: the documentation page's.
    pub(crate) async fn send_unchecked(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Reply { status: parts.status, headers: parts.headers, bytes: bytes.into(), text, body }
    }

    /// The template in the document that a path matches, if any.
    fn template(&self, path: &str) -> Option<&str> {
        let segments: Vec<&str> = path.split('/').collect();
        self.document["paths"].as_object()?.keys().map(String::as_str).find(|template| {
            let wanted: Vec<&str> = template.split('/').collect();
            wanted.len() == segments.len()
                && wanted.iter().zip(&segments).all(|(wanted, got)| {
                    if wanted.starts_with('{') { !got.is_empty() } else { wanted == got }
                })
        })
    }

    /// What of an answer the document does not say.
    fn undocumented(&self, method: &Method, path: &str, reply: &Reply) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut demand = |fine: bool, what: &str| {
            if !fine {
                wrong.push(what.to_owned());
            }
        };
        demand(reply.headers.contains_key("x-request-id"), "a request id");
        demand(reply.status != StatusCode::INTERNAL_SERVER_ERROR, "no defect");
        let operation = self
            .template(path)
            .map(|template| &self.document["paths"][template])
            .map(|item| item.get(method.as_str().to_lowercase()));
        let (status, problem) = match operation {
            None => (404, Some("/problems/not-found")),
            Some(None) => match *method {
                Method::OPTIONS => (204, None),
                _ => (405, Some("/problems/method-not-allowed")),
            },
            Some(Some(operation)) => {
                let Some(response) = operation["responses"].get(reply.status.as_str()) else {
                    return vec![format!("status {}", reply.status)];
                };
                return self.unlike(response, reply);
            }
        };
        demand(reply.status.as_u16() == status, &format!("status {status}"));
        if let Some(problem) = problem {
            demand(reply.body["type"] == problem, problem);
        }
        demand(status == 404 || reply.headers.contains_key("allow"), "allow");
        wrong
    }

    /// In what an answer is unlike its description.
    fn unlike(&self, response: &Value, reply: &Reply) -> Vec<String> {
        let mut wrong = Vec::new();
        let documented = |name: &str| {
            response["headers"]
                .as_object()
                .is_some_and(|headers| headers.keys().any(|header| header.eq_ignore_ascii_case(name)))
        };
        for name in ["etag", "location", "retry-after"] {
            if documented(name) != reply.headers.contains_key(name) {
                wrong.push(format!("header {name}"));
            }
        }
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            if !reply.text.is_empty() {
                wrong.push("no body".to_owned());
            }
            return wrong;
        };
        let media_type =
            reply.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
        let Some(described) = content.get(media_type) else {
            wrong.push(format!("media type {media_type}"));
            return wrong;
        };
        let text = media_type.contains("-text;").then(|| Value::from(reply.text.as_str()));
        wrong.extend(findings(&self.document, &described["schema"], text.as_ref().unwrap_or(&reply.body)));
        if let Some(kinds) = response.get("x-problem-types").and_then(Value::as_array)
            && !kinds.contains(&reply.body["type"])
        {
            wrong.push(format!("problem {}", reply.body["type"]));
        }
        wrong
    }

    /// Everything the service knows, page by page.
    pub(crate) async fn everything(&self) -> Value {
        let mut all = Vec::new();
        let mut paths = vec![
            "/v1/vnets".to_owned(),
            "/v1/pools".to_owned(),
            "/v1/nodes".to_owned(),
            "/v1/allocations".to_owned(),
            "/v1/tokens".to_owned(),
            "/v1/events".to_owned(),
        ];
        while let Some(path) = paths.pop() {
            let listing = self.get(&format!("{path}?limit=1000")).await.expect(200).body;
            for item in listing["items"].as_array().unwrap() {
                let name = item["name"].as_str().unwrap_or_default();
                if path == "/v1/vnets" {
                    paths.push(format!("{path}/{name}/subnets"));
                } else if path.ends_with("/subnets") {
                    paths.push(format!("{path}/{name}/extents"));
                    paths.push(format!("{path}/{name}/reservations"));
                }
            }
            all.push(json!({ "path": path, "listing": listing }));
        }
        Value::Array(all)
    }
}
