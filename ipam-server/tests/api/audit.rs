//! What people do leaves an event: who, from where, what, before and after.

use crate::{
    app::{App, Call, Reply, token_spec},
    examples::{VIEWER_ID, examples, viewer},
};
use axum::http::Method;
use ipam_api::{token::Secret, wire::Role};
use ipam_server::{
    peer::{Peer, Place},
    store::Change,
};
use serde_json::{Value, json};

/// One change that an operation makes, in a furnished service.
struct Deed {
    /// What has to be there before.
    setup: Option<(&'static str, Value)>,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    subject: &'static str,
    /// `create`, `update` or `delete`.
    action: &'static str,
}

/// A change of each operation that changes the plan or credentials.
fn deed(operation: &str) -> Deed {
    let of = |method, path, body, subject, action| Deed { setup: None, method, path, body, subject, action };
    let put = |path, body, subject| of(Method::PUT, path, Some(body), subject, "create");
    let patch = |path, body, subject| of(Method::PATCH, path, Some(body), subject, "update");
    let delete = |path, subject| of(Method::DELETE, path, None, subject, "delete");
    let vnet = json!({"addressSpace": ["10.16.0.0/12"]});
    let subnet = json!({"cidrs": ["10.241.0.0/24"]});
    let pool = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 8, "nodes": 2});
    match operation {
        "putVnet" => put("/v1/vnets/test", vnet, "vnet/test"),
        "patchVnet" => patch("/v1/vnets/prod", json!({"serviceCidrs": []}), "vnet/prod"),
        "deleteVnet" => {
            Deed { setup: Some(("/v1/vnets/test", vnet)), ..delete("/v1/vnets/test", "vnet/test") }
        }
        "putSubnet" => put("/v1/vnets/prod/subnets/more", subnet, "subnet/prod/more"),
        "patchSubnet" => Deed {
            setup: Some(("/v1/vnets/prod/subnets/more", subnet)),
            ..patch("/v1/vnets/prod/subnets/more", json!({"gateways": ["10.241.0.2"]}), "subnet/prod/more")
        },
        "deleteSubnet" => Deed {
            setup: Some(("/v1/vnets/prod/subnets/more", subnet)),
            ..delete("/v1/vnets/prod/subnets/more", "subnet/prod/more")
        },
        "putReservation" => put(
            "/v1/vnets/prod/subnets/nodes/reservations/lb",
            json!({"first": "10.240.200.1", "last": "10.240.200.9", "reason": "load balancer"}),
            "reservation/prod/nodes/lb",
        ),
        "deleteReservation" => Deed {
            setup: Some((
                "/v1/vnets/prod/subnets/nodes/reservations/lb",
                json!({"first": "10.240.200.1", "last": "10.240.200.9", "reason": "load balancer"}),
            )),
            ..delete("/v1/vnets/prod/subnets/nodes/reservations/lb", "reservation/prod/nodes/lb")
        },
        "putPool" => put("/v1/pools/others", pool, "pool/others"),
        "patchPool" => patch("/v1/pools/workers", json!({"nodes": 4}), "pool/workers"),
        "deletePool" => {
            Deed { setup: Some(("/v1/pools/others", pool)), ..delete("/v1/pools/others", "pool/others") }
        }
        "putNode" => {
            put("/v1/nodes/node-2", json!({"pool": "workers", "addresses": ["10.240.0.12"]}), "node/node-2")
        }
        "deleteNode" => delete("/v1/nodes/node-1", "node/node-1"),
        "createToken" => {
            of(Method::POST, "/v1/tokens", Some(json!({"name": "bob", "role": "viewer"})), "token/", "create")
        }
        "deleteToken" => delete("/v1/tokens/d7b071c29a21a626", "token/d7b071c29a21a626"),
        "putCredential" => {
            let secret = Secret::new(Role::Node, [30; 32]);
            put("/v1/nodes/node-1/credential", json!({"token": secret.expose()}), "token/")
        }
        "deleteCredential" => {
            let secret = Secret::new(Role::Node, [29; 32]);
            Deed {
                setup: Some(("/v1/nodes/node-1/credential", json!({"token": secret.expose()}))),
                ..delete("/v1/nodes/node-1/credential", "credential/node-1")
            }
        }
        other => panic!("{other} changes something: say how, so that its event is looked at"),
    }
}

/// The operations that change something that is no node's own record of its pods.
fn mutations(document: &Value) -> Vec<String> {
    // A furnished service has nothing to repair and no recovery to end: tests/store/{doctor,recovery}.rs look at
    // their events.
    const RECORDS: [&str; 6] =
        ["putAllocation", "deleteAllocation", "syncNode", "plan", "repair", "endRecovery"];
    let all = examples(document).into_iter().filter(|example| example.method != Method::GET);
    all.map(|example| example.id).filter(|id| !RECORDS.contains(&id.as_str())).collect()
}

fn call<'a>(app: &'a App, deed: &Deed, path: &str, by: &Secret) -> Call<'a> {
    let call = app.call(deed.method.clone(), path).bearer(by);
    match (&deed.body, &deed.method) {
        (Some(body), &Method::PATCH) => call.raw("application/merge-patch+json", body.to_string()),
        (Some(body), _) => call.json(body),
        (None, _) => call,
    }
}

async fn events(app: &App, query: &str) -> Vec<Value> {
    let listing = app.get(&format!("/v1/events?limit=1000{query}")).await.expect(200).body;
    listing["items"].as_array().unwrap().clone()
}

/// A furnished service with an admin `alice`, as she reaches it from some address.
async fn with_alice() -> (App, App, Secret) {
    let open = App::furnished().await;
    let alice = Secret::new(Role::Admin, [31; 32]);
    let spec = ipam_api::wire::TokenSpec { name: "alice".to_owned(), ..token_spec(Role::Admin) };
    open.store.create_token(&spec, &alice, &Change::default()).await.unwrap();
    let place = Place::Network("192.0.2.7:4242".parse().unwrap());
    let app = open.guarded().seen_by(Peer { place, certificate: None });
    (open, app, alice)
}

#[tokio::test]
async fn every_deed_leaves_one_event_that_says_all() {
    let document = App::new().await.document.clone();
    let all = mutations(&document);
    assert!(all.len() >= 16, "{all:?}");
    assert_eq!(VIEWER_ID, "d7b071c29a21a626", "the deed of deleteToken names it");
    for id in all {
        let (open, app, alice) = with_alice().await;
        let deed = deed(&id);
        if let Some((path, body)) = &deed.setup {
            open.put(path, body).await.expect(201);
        }
        let earlier = events(&open, "").await;
        let reply = call(&app, &deed, deed.path, &alice).header("x-request-id", "ticket-42").send().await;
        assert!(reply.status.is_success(), "{id}: {}", reply.text);
        let now = events(&open, "").await;
        assert_eq!(now.len(), earlier.len() + 1, "{id}: {:?}", &now[earlier.len()..]);
        assert_eq!(now[..earlier.len()], earlier, "{id}");
        let event = &now[earlier.len()];
        assert_eq!(event["actor"], "alice", "{id}");
        assert_eq!(event["token"], alice.hash().id().unwrap().as_str(), "{id}");
        assert_eq!(event["source"], "192.0.2.7:4242", "{id}");
        assert_eq!(event["requestId"], "ticket-42", "{id}");
        assert_eq!(event["action"], deed.action, "{id}");
        let subject = event["subject"].as_str().unwrap();
        assert!(subject.starts_with(deed.subject), "{id}: {subject}");
        assert_eq!(event.get("before").is_some(), deed.action != "create", "{id}: {event}");
        assert_eq!(event.get("after").is_some(), deed.action != "delete", "{id}: {event}");
        assert_ne!(event.get("before"), event.get("after"), "{id}");
        assert!(!event.to_string().contains(alice.expose()), "{id}");
        // What was answered is what the event says came of it.
        if reply.body["name"].is_string() {
            assert_eq!(event["after"]["name"], reply.body["name"], "{id}");
        }

        // The same again changes nothing, and nothing is what it leaves.
        if [Method::PUT, Method::PATCH].contains(&deed.method) {
            let again = call(&app, &deed, deed.path, &alice).send().await;
            assert!(again.status.is_success(), "{id}: {}", again.text);
            assert_eq!(events(&open, "").await, now, "{id} again");
        }
    }
}

#[tokio::test]
async fn what_is_only_tried_or_refused_leaves_none() {
    let document = App::new().await.document.clone();
    for id in mutations(&document) {
        let (open, app, alice) = with_alice().await;
        let deed = deed(&id);
        if let Some((path, body)) = &deed.setup {
            open.put(path, body).await.expect(201);
        }
        let before = open.everything().await;
        let example = examples(&document).into_iter().find(|example| example.id == id).unwrap();
        if example.parameters("query").contains(&"dryRun".to_owned()) {
            let tried = call(&app, &deed, &format!("{}?dryRun=true", deed.path), &alice).send().await;
            assert!(tried.status.is_success(), "{id}: {}", tried.text);
            assert_eq!(open.everything().await, before, "{id} tried");
        }
        if example.parameters("header").contains(&"If-Match".to_owned()) {
            let late = call(&app, &deed, deed.path, &alice).header("if-match", "\"999\"").send().await;
            late.expect(412);
        }
        call(&app, &deed, deed.path, &viewer()).send().await.expect(403);
        if let Some(Value::Object(body)) = &deed.body {
            let mut body = body.clone();
            body.insert("bogus".to_owned(), json!(1));
            let wrong = Deed { body: Some(body.into()), ..deed };
            call(&app, &wrong, wrong.path, &alice).send().await.expect(422);
        }
        assert_eq!(open.everything().await, before, "{id} refused");
    }
}

#[tokio::test]
async fn an_allocation_is_its_own_record() {
    let (open, app, alice) = with_alice().await;
    let before = events(&open, "").await;
    let path = "/v1/nodes/vm-1/allocations/c7/eth0";
    app.call(Method::PUT, path).bearer(&alice).json(&json!({})).send().await.expect(201);
    app.call(Method::DELETE, path).bearer(&alice).send().await.expect(204);
    let node = open.get("/v1/nodes/node-1").await.body;
    let stamp = format!("claim={}, boot=1, seq=100, block=1", node["claim"]);
    let journal = json!({"asOfSeq": 100, "entries": []});
    let sync =
        app.call(Method::PUT, "/v1/nodes/node-1/allocations").bearer(&alice).header("ipam-node", &stamp);
    sync.json(&journal).send().await.expect(200);
    app.call(Method::POST, "/v1/plan")
        .bearer(&alice)
        .json(&json!({"pools": [{"name": "workers", "subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 9}]}))
        .send()
        .await
        .expect(200);
    assert_eq!(events(&open, "").await, before);
}

/// The end of a claim is a deed, though it is the node that confirms it.
#[tokio::test]
async fn a_confirmed_deletion_is_the_nodes_own_event() {
    let (open, app, alice) = with_alice().await;
    let claim = open.get("/v1/nodes/node-1").await.body["claim"].clone();
    let sync = async |seq: u64, deletion: Option<&Value>| {
        let stamp = format!("claim={claim}, boot=1, seq={seq}, block=1");
        let mut journal = json!({"asOfSeq": seq, "entries": []});
        if let Some(deletion) = deletion {
            journal["deletion"] = deletion.clone();
        }
        let call = app.call(Method::PUT, "/v1/nodes/node-1/allocations").bearer(&alice);
        call.header("ipam-node", &stamp).json(&journal).send().await.expect(200)
    };
    sync(100, None).await;
    let waiting = app.call(Method::DELETE, "/v1/nodes/node-1").bearer(&alice).send().await.expect(202).body;
    sync(200, Some(&waiting["deletion"])).await;
    let all = events(&open, "&subject=node/node-1").await;
    let told: Vec<_> = all.iter().map(|event| (event["action"].as_str(), event["actor"].as_str())).collect();
    assert_eq!(
        told,
        [
            (Some("create"), Some("anonymous")),
            (Some("delete"), Some("alice")),
            // Whoever sent what confirmed it: the record makes no node of an admin.
            (Some("free"), Some("alice"))
        ]
    );
    assert_eq!(all[2]["before"]["state"], "deleting");
}

#[tokio::test]
async fn events_are_found_by_thing_actor_and_time() {
    let (open, app, alice) = with_alice().await;
    for nodes in 4..9 {
        let deed = Deed { body: Some(json!({ "nodes": nodes })), ..deed("patchPool") };
        call(&app, &deed, deed.path, &alice).send().await.expect(200);
    }
    let all = events(&open, "").await;
    let ids: Vec<u64> = all.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let where_ =
        |wanted: &dyn Fn(&Value) -> bool| all.iter().filter(|event| wanted(event)).cloned().collect();
    let of_kind = |event: &Value, kind: &str| event["subject"].as_str().unwrap().starts_with(kind);
    let cases: Vec<(&str, Vec<Value>)> = vec![
        ("&subject=pool/workers", where_(&|event| event["subject"] == "pool/workers")),
        ("&subject=pool", where_(&|event| of_kind(event, "pool/"))),
        ("&subject=node", where_(&|event| of_kind(event, "node/"))),
        ("&subject=subnet/prod/nodes", where_(&|event| event["subject"] == "subnet/prod/nodes")),
        ("&actor=alice", where_(&|event| event["actor"] == "alice")),
        ("&actor=alice&subject=pool", where_(&|event| event["actor"] == "alice")),
        (
            "&actor=anonymous&subject=pool/workers",
            where_(&|event| event["subject"] == "pool/workers" && event["actor"] == "anonymous"),
        ),
    ];
    for (query, wanted) in &cases {
        assert!(!wanted.is_empty() && wanted.len() < all.len(), "{query}");
        assert_eq!(events(&open, query).await, *wanted, "{query}");
        // Page by page it is the same list, and a page says how it goes on.
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let page = open.get(&format!("/v1/events?limit=2{query}{after}")).await.expect(200).body;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2 && !items.is_empty(), "{query}: {page}");
            paged.extend(items.iter().cloned());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(paged, *wanted, "{query} page by page");
    }
    for none in
        ["&subject=poo", "&subject=pool/work", "&subject=pool/", "&actor=alic", "&actor=ALICE", "&subject=vm"]
    {
        assert_eq!(events(&open, none).await, Vec::<Value>::new(), "{none}");
    }
    let first = all[0]["at"].as_str().unwrap();
    assert_eq!(events(&open, &format!("&since={first}")).await.len(), all.len());
    assert_eq!(events(&open, &format!("&until={first}")).await.len(), 0);
    for wrong in
        ["since=yesterday", "until=1", "after=zz", "after=78", "limit=0", "subject=", "actor=", "kind=pool"]
    {
        let reply: Reply = open.get(&format!("/v1/events?{wrong}")).await;
        let name = wrong.split('=').next().unwrap();
        reply.expect_problem("invalid-request", (name != "kind").then_some(&*format!("query:{name}")));
    }
}
