//! Who may call what: every operation of the document by every role, by nobody, and by another node.

use crate::{
    app::{App, Call, Reply, token_spec},
    examples::{Example, examples},
};
use axum::{
    body::Body,
    http::{Method, Request},
};
use ipam_api::{
    token::Secret,
    wire::{Role, TokenSpec},
};
use ipam_server::{
    peer::{Certificate, Peer, Place},
    store::Change,
};
use serde_json::json;
use std::collections::BTreeSet;

/// What a furnished service knows of these tests' callers.
struct Keys {
    admin: Secret,
    planner: Secret,
    join: Secret,
    node_1: Secret,
    vm_1: Secret,
    stranger: Secret,
}

const ROLES: [Role; 5] = Role::ALL;

async fn keep(app: &App, spec: &TokenSpec, byte: u8) -> Secret {
    let secret = Secret::new(spec.role, [byte; 32]);
    app.store.create_token(spec, &secret, &Change::default()).await.unwrap();
    secret
}

async fn keep_of_node(app: &App, node: &str, byte: u8) -> Secret {
    let spec = TokenSpec { node: Some(node.parse().unwrap()), ..token_spec(Role::Node) };
    keep(app, &spec, byte).await
}

fn join_spec(uses: u64) -> TokenSpec {
    TokenSpec {
        pool: Some("workers".parse().unwrap()),
        uses: Some(uses),
        expires_in_seconds: Some(3600),
        ..token_spec(Role::Join)
    }
}

impl Keys {
    async fn of(app: &App) -> Self {
        Self {
            admin: keep(app, &token_spec(Role::Admin), 10).await,
            planner: keep(app, &token_spec(Role::Planner), 11).await,
            join: keep(app, &join_spec(5), 12).await,
            node_1: keep_of_node(app, "node-1", 13).await,
            vm_1: keep_of_node(app, "vm-1", 14).await,
            stranger: keep_of_node(app, "node-9", 15).await,
        }
    }

    /// The token of this role that an example's path is for.
    fn of_role(&self, role: Role, example: &Example) -> Secret {
        match role {
            Role::Admin => self.admin.clone(),
            Role::Planner => self.planner.clone(),
            Role::Viewer => crate::examples::viewer(),
            Role::Join => self.join.clone(),
            Role::Node if example.path.contains("/vm-1/") => self.vm_1.clone(),
            Role::Node => self.node_1.clone(),
        }
    }
}

/// The roles that the document lets call an operation; none where it is public.
fn roles(example: &Example) -> BTreeSet<Role> {
    let security = example.operation["security"]
        .as_array()
        .unwrap_or_else(|| panic!("{} does not say who may call it", example.id));
    security
        .iter()
        .filter_map(|scheme| scheme["bearer"].as_array())
        .flatten()
        .map(|word| {
            ROLES.into_iter().find(|role| word == role.word()).unwrap_or_else(|| panic!("{word} is no role"))
        })
        .collect()
}

fn guarded(app: &App) -> Vec<Example> {
    examples(&app.document).into_iter().filter(|example| !roles(example).is_empty()).collect()
}

/// A valid call of an operation.
fn call<'a>(app: &'a App, example: &Example, path: &str) -> Call<'a> {
    let call = app.call(example.method.clone(), path);
    let call = match example.id.as_str() {
        "syncNode" => call.header("ipam-node", "claim=1, boot=1, seq=1, block=1"),
        _ => call,
    };
    match (&example.body, &example.method) {
        (Some(body), &Method::PATCH) => call.raw("application/merge-patch+json", body.to_string()),
        (Some(body), _) => call.json(body),
        (None, _) => call,
    }
}

#[track_caller]
fn expect_unauthenticated(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 401, "{what}: {}", reply.text);
    reply.expect_problem("unauthenticated", None);
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"ipam\"", "{what}");
}

#[tokio::test]
async fn public_is_what_tells_nothing_of_anyone() {
    let app = App::furnished().await.guarded();
    let public: BTreeSet<String> = examples(&app.document)
        .iter()
        .filter(|example| roles(example).is_empty())
        .map(|example| format!("{} {}", example.method, example.path))
        .collect();
    assert_eq!(public.iter().collect::<Vec<_>>(), ["GET /livez", "GET /openapi.json", "GET /readyz"]);
    for path in ["/livez", "/openapi.json", "/readyz"] {
        app.get(path).await.expect(200);
        // A probe with an old token is a probe.
        app.call(Method::GET, path).header("authorization", "Bearer old").send().await.expect(200);
    }
    for (path, status) in [("/docs", 303), ("/docs/", 200), ("/docs/swagger-ui.css", 200), ("/docs/x", 404)] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        app.send_unchecked(request).await.expect(status);
    }
    for path in ["/v1", "/v1/nodes/", "/v1/nothing", "/metrics/"] {
        app.get(path).await.expect(404);
    }
}

/// The list of routes says who may call what, and both door and document follow it; what it must never say is
/// said here once more.
#[tokio::test]
async fn roles_are_given_with_care() {
    let app = App::new().await;
    for example in guarded(&app) {
        let roles = roles(&example);
        let id = &example.id;
        assert!(roles.contains(&Role::Admin), "{id} is nobody's");
        assert_eq!(roles.contains(&Role::Join), id == "putCredential", "{id}: join");
        let of_node = example.template.starts_with("/v1/nodes/{node}") && id != "deleteCredential";
        assert_eq!(roles.contains(&Role::Node), of_node, "{id}: node");
        let secret = example.template.starts_with("/v1/tokens");
        let reads = example.method == Method::GET && !secret;
        assert_eq!(roles.contains(&Role::Viewer), reads, "{id}: viewer");
        assert_eq!(roles.contains(&Role::Planner), reads || id == "plan", "{id}: planner");
        // A certificate is a node's, and makes no token that would outlive it.
        let certificate = example.operation["security"]
            .as_array()
            .unwrap()
            .iter()
            .any(|scheme| scheme.get("clientCertificate").is_some());
        assert_eq!(certificate, of_node && id != "putCredential", "{id}: certificate");
        for status in ["401", "403"] {
            assert!(example.operation["responses"].get(status).is_some(), "{id} has no {status}");
        }
    }
}

#[tokio::test]
async fn without_a_credential_that_counts_nobody_is_let_in() {
    let open = App::furnished().await;
    let app = open.guarded();
    let keys = Keys::of(&app).await;
    let revoked = keep(&app, &token_spec(Role::Admin), 99).await;
    let id = revoked.hash().id().unwrap();
    app.store.revoke_token(&id, &Change::default()).await.unwrap();
    let admin = keys.admin.expose();
    let (mut other, last) = (admin.to_owned(), admin.chars().last().unwrap());
    other.pop();
    other.push(if last == 'A' { 'E' } else { 'A' });
    let mut wrong = vec![
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {}", &admin[..admin.len() - 1]),
        format!("Bearer {admin}A"),
        format!("Bearer {other}"),
        format!("Bearer {}", admin.replace("admin", "root")),
        // Another role's word before the same random bits.
        format!("Bearer {}", keys.planner.expose().replace("planner", "admin")),
        format!("Bearer {}", revoked.expose()),
        format!("Basic {admin}"),
        format!("Basic {}", "aXBhbTppcGFt"),
        admin.to_owned(),
        format!("Token {admin}"),
        // What is kept of it is not it.
        format!("Bearer {}", keys.admin.hash().as_str()),
        format!("Bearer {}", keys.admin.hash().id().unwrap()),
    ];
    wrong.extend(ROLES.map(|role| format!("Bearer {}", Secret::new(role, [77; 32]).expose())));

    let before = open.everything().await;
    for example in guarded(&app) {
        let what = &example.id;
        expect_unauthenticated(&call(&app, &example, &example.path).send().await, what);
        for text in &wrong {
            let reply = call(&app, &example, &example.path).header("authorization", text).send().await;
            expect_unauthenticated(&reply, &format!("{what} with {text:?}"));
        }
        let twice = call(&app, &example, &example.path).bearer(&keys.admin).bearer(&keys.admin);
        expect_unauthenticated(&twice.send().await, what);
        let elsewhere = format!("{}?access_token={admin}", example.path);
        expect_unauthenticated(&call(&app, &example, &elsewhere).send().await, what);
        // A body that nobody reads cannot be wrong: strangers learn nothing of what is wanted.
        let junk = app.call(example.method.clone(), &example.path).raw("text/plain", "junk");
        expect_unauthenticated(&junk.send().await, what);
        if example.method == Method::GET {
            let head = Request::builder().method("HEAD").uri(&example.path).body(Body::empty()).unwrap();
            let reply = app.send_unchecked(head).await;
            assert_eq!((reply.status.as_u16(), reply.text.as_str()), (401, ""), "HEAD {}", example.path);
        }
        // Where nobody is asked for a credential, a wrong one that is shown is refused all the same.
        let reply = call(&open, &example, &example.path).header("authorization", &wrong[6]).send().await;
        expect_unauthenticated(&reply, what);
    }
    assert_eq!(open.everything().await, before);
}

#[tokio::test]
async fn another_role_is_kept_out() {
    let open = App::furnished().await;
    let app = open.guarded();
    let keys = Keys::of(&app).await;
    let before = open.everything().await;
    let mut count = 0;
    for example in guarded(&app) {
        let allowed = roles(&example);
        for role in ROLES.into_iter().filter(|role| !allowed.contains(role)) {
            let reply =
                call(&app, &example, &example.path).bearer(&keys.of_role(role, &example)).send().await;
            assert_eq!(reply.status, 403, "{} by {role:?}: {}", example.id, reply.text);
            reply.expect_problem("forbidden", None);
            count += 1;
        }
    }
    assert_eq!(open.everything().await, before);
    assert!(count > 60, "only {count}");
}

#[tokio::test]
async fn another_node_is_kept_out() {
    let open = App::furnished().await;
    let app = open.guarded();
    let keys = Keys::of(&app).await;
    let certified = |node: &str| {
        let peer = Peer {
            place: Place::Network("192.0.2.1:1000".parse().unwrap()),
            certificate: Some(Certificate::OfNode(node.parse().unwrap())),
        };
        open.guarded().seen_by(peer)
    };
    let stranger = certified("node-9");
    let before = open.everything().await;
    for example in guarded(&app) {
        let id = &example.id;
        let by_token = call(&app, &example, &example.path).bearer(&keys.stranger).send().await;
        assert_eq!(by_token.status, 403, "{id}: {}", by_token.text);
        let by_certificate = call(&stranger, &example, &example.path).send().await;
        assert_eq!(by_certificate.status, 403, "{id}: {}", by_certificate.text);
        if !example.template.contains("{node}") {
            continue;
        }
        // A name that comes in disguise is the same name, and a name like one's own is another.
        for disguise in
            ["node%2D1", "%6eode-1", "node%2d1", "node-90", "node-", "node-9.", "NODE-9", "node-9%00"]
        {
            let path = example.with("node", disguise);
            let reply = call(&app, &example, &path).bearer(&keys.stranger).send().await;
            assert_eq!(reply.status, 403, "{id} at {path}: {}", reply.text);
        }
        for more in ["?dryRun=true", "?node=node-9"] {
            let path = format!("{}{more}", example.path);
            let reply = call(&app, &example, &path).bearer(&keys.stranger).send().await;
            assert_eq!(reply.status, 403, "{id} at {path}: {}", reply.text);
        }
    }
    assert_eq!(open.everything().await, before);
    // Its own name in disguise is its own.
    let own = app.call(Method::GET, "/v1/nodes/%6eode%2D9").bearer(&keys.stranger).send().await;
    own.expect(404).expect_problem("not-found", None);
    certified("node-1").get("/v1/nodes/node-1").await.expect(200);
}

#[tokio::test]
async fn those_who_may_are_let_in() {
    let document = App::new().await;
    for example in guarded(&document) {
        // Who may, meets what everyone meets where nobody is asked.
        let anyone = call(&App::furnished().await, &example, &example.path).send().await.status;
        for role in roles(&example) {
            let open = App::furnished().await;
            let app = open.guarded();
            let keys = Keys::of(&app).await;
            // A join token is for a node that is not there yet.
            let path = match role {
                Role::Join => example.with("node", "new-1"),
                _ => example.path.clone(),
            };
            let reply = call(&app, &example, &path).bearer(&keys.of_role(role, &example)).send().await;
            let id = &example.id;
            assert!(![401, 403].contains(&reply.status.as_u16()), "{id} by {role:?}: {}", reply.text);
            assert_eq!(reply.status, anyone, "{id} by {role:?}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_node_says_nothing_of_its_predecessor_or_of_another_pool() {
    let open = App::furnished().await;
    open.put("/v1/pools/others", &json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 8, "nodes": 2}))
        .await
        .expect(201);
    let app = open.guarded();
    let bound = TokenSpec {
        node: Some("node-2".parse().unwrap()),
        pool: Some("workers".parse().unwrap()),
        ..token_spec(Role::Node)
    };
    let bound = keep(&app, &bound, 20).await;
    let node_1 = keep_of_node(&app, "node-1", 21).await;
    let before = open.everything().await;
    let put = |path: &'static str, secret, body| app.call(Method::PUT, path).bearer(secret).json(body).send();

    let replace = json!({"pool": "workers", "addresses": ["10.240.0.10"], "uid": "u2", "replace": true});
    for path in ["/v1/nodes/node-1", "/v1/nodes/node-1?dryRun=true"] {
        put(path, &node_1, &replace).await.expect(403).expect_problem("forbidden", None);
    }
    let gone = app.call(Method::DELETE, "/v1/nodes/node-1?vmGone=true").bearer(&node_1).send().await;
    gone.expect(403).expect_problem("forbidden", None);
    let gone =
        app.call(Method::DELETE, "/v1/nodes/node-1?vmGone=true&dryRun=true").bearer(&node_1).send().await;
    gone.expect(403);
    let elsewhere = json!({"pool": "others", "addresses": ["10.240.0.12"]});
    for path in ["/v1/nodes/node-2", "/v1/nodes/node-2?dryRun=true"] {
        put(path, &bound, &elsewhere).await.expect(403).expect_problem("forbidden", None);
    }
    assert_eq!(open.everything().await, before);

    let here = json!({"pool": "workers", "addresses": ["10.240.0.12"]});
    put("/v1/nodes/node-2?dryRun=true", &bound, &here).await.expect(201);
    assert_eq!(open.everything().await, before);
    put("/v1/nodes/node-2", &bound, &here).await.expect(201);
    let event = open.get("/v1/events?subject=node/node-2").await.expect(200).body["items"][0].clone();
    assert_eq!((&event["actor"], &event["source"]), (&json!("node:node-2"), &json!("unknown")));
    // What it may not say of others, an admin may.
    open.put("/v1/nodes/node-1", &replace).await.expect(200);
}

#[tokio::test]
async fn a_node_makes_its_own_token_and_a_certificate_makes_none() {
    let open = App::furnished().await;
    let app = open.guarded();
    let keys = Keys::of(&app).await;
    let made = Secret::new(Role::Node, [40; 32]);
    let body = json!({"token": made.expose()});
    let put = |path: &str, secret: &Secret| app.call(Method::PUT, path).bearer(secret).json(&body).send();
    let reply = put("/v1/nodes/new-1/credential", &keys.join).await.expect(201);
    assert!(!reply.text.contains(made.expose()), "{}", reply.text);
    assert_eq!(reply.body["node"], "new-1");
    assert_eq!(reply.body["pool"], "workers");
    put("/v1/nodes/new-1/credential", &keys.join).await.expect(200);
    assert_eq!(open.get(&format!("/v1/tokens/{}", keys.join.hash().id().unwrap())).await.body["usesLeft"], 4);
    let spec = json!({"pool": "workers", "addresses": ["10.240.0.13"]});
    let new = app.call(Method::PUT, "/v1/nodes/new-1").bearer(&made).json(&spec).send().await;
    new.expect(201);
    // One that is there already is not for who has a join token.
    put("/v1/nodes/new-1/credential", &keys.join).await.expect(200);
    let another = json!({"token": Secret::new(Role::Node, [41; 32]).expose()});
    for node in ["new-1", "node-1", "vm-1"] {
        let path = format!("/v1/nodes/{node}/credential");
        let reply = app.call(Method::PUT, &path).bearer(&keys.join).json(&another).send().await;
        reply.expect(403).expect_problem("forbidden", None);
    }
    for token in [keys.admin.expose(), "ipam_node_short", ""] {
        let reply = app
            .call(Method::PUT, "/v1/nodes/new-1/credential")
            .bearer(&made)
            .json(&json!({ "token": token }))
            .send()
            .await;
        reply.expect_problem("invalid-request", Some("/token"));
        assert!(token.is_empty() || !reply.text.contains(token), "{}", reply.text);
    }

    let peer =
        Peer { place: Place::Unknown, certificate: Some(Certificate::OfNode("node-1".parse().unwrap())) };
    let reply = open.guarded().seen_by(peer).put("/v1/nodes/node-1/credential", &another).await;
    reply.expect(403).expect_problem("forbidden", None);
}

#[tokio::test]
async fn a_connection_tells_who_asks() {
    let open = App::furnished().await;
    let euid = nix::unistd::geteuid().as_raw();
    let at_socket = |uid| Peer { place: Place::Socket(uid), certificate: None };
    let useless =
        Peer { place: Place::Unknown, certificate: Some(Certificate::Useless("two names".to_owned())) };
    // The socket asks for the kernel's word even where nobody else is asked for anything.
    for asking in [App::guarded, App::opened] {
        let app = |peer| asking(&open).seen_by(peer);
        app(at_socket(Some(0))).get("/v1/tokens").await.expect(200);
        app(at_socket(Some(euid))).get("/v1/tokens").await.expect(200);
        for nobody in [Some(euid + 1), Some(65534), None] {
            expect_unauthenticated(&app(at_socket(nobody)).get("/v1/vnets").await, "socket");
        }
        let reply = app(useless.clone()).get("/v1/vnets").await;
        expect_unauthenticated(&reply, "certificate");
        assert!(reply.text.contains("two names"));
        // Whoever shows a token is its owner, wherever the request comes from.
        let viewer = crate::examples::viewer();
        for peer in [at_socket(Some(0)), at_socket(None), useless.clone()] {
            let app = app(peer);
            app.call(Method::GET, "/v1/vnets").bearer(&viewer).send().await.expect(200);
            app.call(Method::GET, "/v1/tokens").bearer(&viewer).send().await.expect(403);
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let app = App::new().await;
    let body = json!({"name": "alice", "role": "planner"});
    let tried = app.post("/v1/tokens?dryRun=true", &body).await.expect(201);
    assert_eq!(tried.body.get("secret"), None);
    assert!(!tried.text.contains("ipam_"), "{}", tried.text);
    assert_eq!(app.get("/v1/tokens").await.body["items"], json!([]));
    let made = app.post("/v1/tokens", &body).await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let secret: Secret = made.body["secret"].as_str().unwrap().parse().unwrap();
    assert_eq!(secret.role(), Role::Planner);
    assert_eq!(made.body["id"], secret.hash().id().unwrap().as_str());
    let again = app.post("/v1/tokens", &body).await.expect(201);
    assert_ne!(again.body["secret"], made.body["secret"], "no two are the same");
    for path in ["/v1/tokens", made.header("location"), "/v1/events"] {
        let text = app.get(path).await.expect(200).text;
        assert!(!text.contains(secret.expose()) && !text.contains(secret.hash().as_str()), "{path}: {text}");
    }
    // A token in the place of its id, or anywhere else where texts are quoted back, is not repeated.
    let token = secret.expose();
    for path in [
        format!("/v1/tokens/{token}"),
        format!("/v1/nodes/{token}"),
        format!("/v1/{token}"),
        format!("/v1/events?since={token}"),
        format!("/v1/events?{token}=1"),
        format!("/v1/nodes?limit={token}"),
        format!("/v1/addresses/{token}"),
    ] {
        let reply = app.get(&path).await;
        assert!(reply.status.is_client_error(), "{path}: {}", reply.text);
        assert!(!reply.text.contains(token), "{path}: {}", reply.text);
    }
    let junk = [
        json!({ token: 1 }),
        json!({"name": "a", "role": token}),
        json!({"name": [token], "role": "admin"}),
        json!(token),
    ];
    for body in junk {
        let reply = app.post("/v1/tokens", &body).await.expect(422);
        assert!(!reply.text.contains(token), "{}", reply.text);
    }
    let typed = app.call(Method::POST, "/v1/tokens").raw(token, "{}").send().await.expect(415);
    assert!(!typed.text.contains(token), "{}", typed.text);
}
