//! Bad input to every operation: a documented problem that names the field and the cure, and nothing changes.

use crate::{
    app::App,
    examples::{Example, examples},
    schema::findings,
};
use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::stream;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const STAMP: &str = "claim=1, boot=1, seq=1, block=1";

/// A valid call of the operation, for one thing to be made wrong in it.
fn call<'a>(app: &'a App, example: &Example, path: &str) -> crate::app::Call<'a> {
    let call = app.call(example.method.clone(), path);
    let call = if example.id == "syncNode" { call.header("ipam-node", STAMP) } else { call };
    match &example.body {
        Some(body) => call.json(body),
        None => call,
    }
}

#[tokio::test]
async fn junk_in_a_path() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let long = "a".repeat(300);
    for example in examples(&app.document) {
        for name in example.parameters("path") {
            for junk in ["%20", "%2F..%2F", "%00", "-", "a%0Ab", "%F0%9F%98%80", "..%2f", &long] {
                // An interface name may be one dash, and almost any character.
                if name == "ifName" && ["-", "%F0%9F%98%80"].contains(&junk) {
                    continue;
                }
                let reply = call(&app, &example, &example.with(&name, junk)).send().await;
                reply.expect_problem("invalid-request", Some(&format!("path:{name}")));
            }
            for unreadable in ["%ff", "%zz", "a%", "%c3"] {
                let reply = call(&app, &example, &example.with(&name, unreadable)).send().await;
                reply.expect_problem("malformed-request", Some("path:"));
            }
            let reply = call(&app, &example, &format!("{}/more", example.with(&name, "x/y"))).send().await;
            reply.expect_problem("not-found", None);
        }
    }
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn junk_in_a_query() {
    let app = App::furnished().await;
    let before = app.everything().await;
    for example in examples(&app.document) {
        // The service's own pages take no parameters and are asked by machines that may add some.
        if example.operation["tags"][0] == "service" {
            continue;
        }
        let known = example.parameters("query");
        let mut bad = vec![("bogus=1".to_owned(), "query:bogus"), ("=".to_owned(), "query:")];
        for (name, values) in [
            ("limit", &["0", "1001", "-1", "x", "", "1e3", "99999999999999999999"][..]),
            ("after", &["x", "0", "zz", "ff", "%00", ""]),
            ("dryRun", &["yes", "1", "", "TRUE"]),
            ("vmGone", &["yes", "1", ""]),
            ("network", &["%20", "", "a/b", "-"]),
            ("node", &["A", "", "%00"]),
            ("pool", &["A", "", "a_b"]),
            ("address", &["10.0.0", "10.0.0.0/8", "", "::g"]),
        ] {
            if known.iter().any(|known| known == name) {
                let pointer = match name {
                    "limit" => "query:limit",
                    "after" => "query:after",
                    "dryRun" => "query:dryRun",
                    "vmGone" => "query:vmGone",
                    "network" => "query:network",
                    "node" => "query:node",
                    "pool" => "query:pool",
                    _ => "query:address",
                };
                bad.extend(values.iter().map(|value| (format!("{name}={value}"), pointer)));
                bad.push((format!("{name}=a&{name}=b"), pointer));
            }
        }
        for (query, pointer) in bad {
            let reply = call(&app, &example, &format!("{}?{query}", example.path)).send().await;
            reply.expect_problem("invalid-request", Some(pointer));
        }
        for query in ["%ff=1", "limit=%zz", "a=%"] {
            let reply = call(&app, &example, &format!("{}?{query}", example.path)).send().await;
            reply.expect_problem("malformed-request", Some("query:"));
        }
    }
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn junk_in_headers() {
    let app = App::furnished().await;
    let before = app.everything().await;
    for example in examples(&app.document) {
        let known = example.parameters("header");
        for (name, pointer, values) in [
            ("If-Match", "header:if-match", &["3", "\"3", "", "\"3\" \"4\"", "*, \"3\""][..]),
            ("If-None-Match", "header:if-none-match", &["3", "W/3", ""]),
            (
                "Ipam-Node",
                "header:ipam-node",
                &[
                    "",
                    "x",
                    "claim=1",
                    "claim=1, boot=1, seq=-1, block=1",
                    "claim=\"1\", boot=1, seq=1, block=1",
                    "ü",
                ],
            ),
        ] {
            if !known.iter().any(|known| known == name) {
                continue;
            }
            for value in values {
                let mut request = app.call(example.method.clone(), &example.path).header(name, value);
                if let Some(body) = &example.body {
                    request = request.json(body);
                }
                request.send().await.expect_problem("invalid-request", Some(pointer));
            }
        }
        if known.iter().any(|known| known == "If-Match") {
            for headers in [&[("If-None-Match", "\"3\"")][..], &[("If-Match", "*"), ("If-None-Match", "*")]] {
                let mut request = call(&app, &example, &example.path);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                request.send().await.expect_problem("invalid-request", Some("header:if-none-match"));
            }
            for value in ["\"999999\"", "W/\"1\"", "\"x\"", "\"18446744073709551615\""] {
                let reply = call(&app, &example, &example.path).header("If-Match", value).send().await;
                reply.expect_problem("precondition-failed", None);
            }
            let reply = call(&app, &example, &example.path).header("If-None-Match", "*").send().await;
            reply.expect_problem("precondition-failed", None);
        }
    }
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn wrong_methods_and_unknown_paths() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let all = examples(&app.document);
    for example in &all {
        let has: BTreeSet<&str> = all
            .iter()
            .filter(|other| other.template == example.template)
            .flat_map(|other| match other.method.as_str() {
                "GET" => vec!["GET", "HEAD"],
                method => vec![method],
            })
            .collect();
        for method in ["GET", "PUT", "PATCH", "DELETE", "POST", "TRACE", "OPTIONS", "PROPFIND"] {
            if has.contains(method) {
                continue;
            }
            let reply = app.call(method.parse().unwrap(), &example.path).json(&json!({})).send().await;
            let allowed: BTreeSet<&str> = reply.header("allow").split(',').collect();
            assert_eq!(allowed, has, "{method} {}", example.path);
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/vnets/",
        "/v2/vnets",
        "/v1/pools/a/b",
        "/v1/plan/apply",
        "/%ff",
        "//v1/vnets",
    ] {
        app.get(path).await.expect_problem("not-found", None);
    }
    let head = Request::builder().method(Method::HEAD).uri("/v1/vnets/prod").body(Body::empty()).unwrap();
    let reply = app.send_unchecked(head).await.expect(200);
    assert!(reply.text.is_empty() && reply.headers.contains_key("etag"), "{reply:?}");
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn bodies_that_are_none() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(100_000);
    for example in examples(&app.document).into_iter().filter(|example| example.body.is_some()) {
        let send = |media_type: &'static str, body: String| {
            let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
            call.raw(media_type, body).send()
        };
        for text in
            ["", " \n", "{", "{}}", "{\"a\" 1}", "nul", "{'a': 1}", "\u{feff}{}", "{},", "{\"a\": NaN}"]
        {
            let reply = send("application/json", text.to_owned()).await;
            let kind = reply.body["type"].as_str().unwrap();
            // A field that is not known may be seen before the text is found not to be JSON.
            assert!(
                ["/problems/malformed-request", "/problems/invalid-request"].contains(&kind),
                "{text}: {}",
                reply.text
            );
            if !text.contains('a') && !text.starts_with("{}") {
                assert_eq!(kind, "/problems/malformed-request", "{text}: {}", reply.text);
            }
        }
        for text in ["null", "[]", "[[]]", "\"x\"", "1", "-1", "1e30", "true", "[{}]"] {
            send("application/json", text.to_owned()).await.expect_problem("invalid-request", Some(""));
        }
        for text in [&deep, &deep_object] {
            let reply = send("application/json", text.clone()).await;
            assert!([400, 422].contains(&reply.status.as_u16()), "{}", reply.text);
        }
        let body = example.body.as_ref().unwrap().to_string();
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "json"]
        {
            let reply = send(media_type, body.clone()).await;
            reply.expect_problem("unsupported-media-type", None);
            assert!(reply.text.contains("application/json"), "{}", reply.text);
        }
        let untyped = Request::builder().method(example.method.clone()).uri(&example.path);
        let untyped = untyped.header("ipam-node", STAMP).body(Body::from(body.clone())).unwrap();
        app.send(untyped).await.expect_problem("unsupported-media-type", None);
        let in_the_middle = format!("{}ü", &body[..body.len() / 2]).into_bytes();
        let invalid_utf8 = [&in_the_middle[..], b"\xff"].concat();
        let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
        let reply = call.raw("application/json", invalid_utf8).send().await;
        assert!([400, 422].contains(&reply.status.as_u16()), "{}", reply.text);
    }
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let app = App::furnished().await;
    let before = app.everything().await;
    for example in examples(&app.document).into_iter().filter(|example| example.body.is_some()) {
        // A journal may be large; everything else is refused long before ten megabytes.
        let size = if example.id == "syncNode" { 40_000_000 } else { 10_000_000 };
        let unread =
            Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<Result<String, String>>> {
                panic!("a body that says it is too large was read")
            }));
        let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
        let reply =
            call.header("content-length", &size.to_string()).raw("application/json", unread).send().await;
        reply.expect_problem("too-large", None);

        // Without a length it is read up to the limit.
        let chunk = " ".repeat(100_000);
        let chunks = (0..size / 100_000).map(move |_| Ok::<_, String>(chunk.clone()));
        let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
        let reply = call.raw("application/json", Body::from_stream(stream::iter(chunks))).send().await;
        reply.expect_problem("too-large", None);

        let broken = stream::iter([Ok("{".to_owned()), Err("gone")]);
        let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
        let reply = call.raw("application/json", Body::from_stream(broken)).send().await;
        reply.expect_problem("malformed-request", None);
    }
    assert_eq!(app.everything().await, before);
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                found.push(format!("{at}/{name}"));
                places(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.push(format!("{at}/{index}"));
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Whatever the document does not allow is refused, at the place where it is wrong.
#[tokio::test]
async fn fields_that_are_wrong() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let mut sent = 0;
    for example in examples(&app.document) {
        let Some(body) = &example.body else { continue };
        let send = |body: Value| {
            let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
            async move { call.json(&body).send().await }
        };
        let mut all = Vec::new();
        places(body, "", &mut all);
        for place in &all {
            for junk in [
                json!(null),
                json!({}),
                json!([]),
                json!([[]]),
                json!(""),
                json!("junk \u{0}"),
                json!("x".repeat(5000)),
                json!(-1),
                json!(0),
                json!(1.5),
                json!(1e30),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(true),
                json!("10.0.0.0/33"),
                json!({"exact": null}),
                json!([null]),
                json!("%"),
                json!("-1"),
            ] {
                let mut wrong = body.clone();
                *wrong.pointer_mut(place).unwrap() = junk;
                if findings(&app.document, &example.schema(), &wrong).is_empty() {
                    continue;
                }
                sent += 1;
                let reply = send(wrong.clone()).await;
                assert_eq!(reply.status, 422, "{} {wrong}: {}", example.id, reply.text);
                let errors = reply.body["errors"].as_array().unwrap();
                assert!(
                    errors.iter().any(|error| {
                        let pointer = error["pointer"].as_str().unwrap();
                        pointer.starts_with(place.as_str()) || place.starts_with(pointer)
                    }),
                    "{} {place} {wrong}: {}",
                    example.id,
                    reply.text
                );
                assert!(
                    errors.iter().all(|error| error["detail"].as_str().unwrap().len() < 1000),
                    "{}",
                    reply.text
                );
            }
            // Where an object is, one more member is one too many.
            let mut wrong = body.clone();
            if let Some(Value::Object(members)) = wrong.pointer_mut(place) {
                members.insert("bogus".to_owned(), json!(1));
                let reply = send(wrong).await;
                reply.expect_problem("invalid-request", Some(&format!("{place}/bogus")));
                assert!(reply.text.contains("or use"), "names what is known: {}", reply.text);
            }
        }
        let mut wrong = body.clone();
        wrong["bogus"] = json!(null);
        send(wrong).await.expect_problem("invalid-request", Some("/bogus"));
        let schema = example.schema();
        let schema = app.document.pointer(&schema["$ref"].as_str().unwrap()[1..]).unwrap();
        for name in schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()) {
            let mut wrong = body.clone();
            wrong.as_object_mut().unwrap().remove(name);
            send(wrong).await.expect_problem("invalid-request", Some(&format!("/{name}")));
        }
        // The same member twice.
        let (name, value) = body.as_object().unwrap().iter().next().unwrap();
        let twice = format!("{{\"{name}\": {value}, \"{name}\": {value}}}");
        let call = app.call(example.method.clone(), &example.path).header("ipam-node", STAMP);
        call.raw("application/json", twice)
            .send()
            .await
            .expect_problem("invalid-request", Some(&format!("/{name}")));
    }
    assert!(sent > 400, "only {sent} wrong bodies");
    assert_eq!(app.everything().await, before);
}

/// Input whose form is right and whose meaning is not.
#[tokio::test]
async fn meanings_that_are_wrong() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let vnet = |space: Value, service: Value| json!({"addressSpace": space, "serviceCidrs": service});
    let subnet = |cidrs: Value| json!({ "cidrs": cidrs });
    let pool = |subnet: &str, max_pods: u64, nodes: u64| json!({"subnets": [{"subnet": subnet}], "maxPods": max_pods, "nodes": nodes});
    let range = |first: &str, last: &str| json!({"first": first, "last": last, "reason": "r"});
    let subnets = "/v1/vnets/prod/subnets";
    let nodes = "/v1/vnets/prod/subnets/nodes/reservations";
    for (path, body, kind, pointer) in [
        ("/v1/vnets/a".to_owned(), vnet(json!([]), json!([])), "invalid-request", Some("/addressSpace")),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["10.0.0.0/33"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["127.0.0.0/8"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["169.254.0.0/16"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["224.0.0.0/8"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["fe80::/64"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["ff02::/64"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["::1/128"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        (
            "/v1/vnets/a".to_owned(),
            vnet(json!(["172.16.0.1/12"]), json!([])),
            "invalid-request",
            Some("/addressSpace/0"),
        ),
        ("/v1/vnets/a".to_owned(), vnet(json!(["10.240.0.0/16"]), json!([])), "overlap", None),
        ("/v1/vnets/a".to_owned(), vnet(json!(["10.0.0.0/24"]), json!([])), "overlap", None),
        ("/v1/vnets/prod".to_owned(), vnet(json!(["172.16.0.0/12"]), json!([])), "in-use", None),
        (format!("{subnets}/b"), subnet(json!(["10.240.1.0/24"])), "overlap", None),
        (format!("{subnets}/b"), subnet(json!(["192.168.0.0/24"])), "invalid-request", Some("/cidrs/0")),
        (format!("{subnets}/b"), subnet(json!([])), "invalid-request", Some("/cidrs")),
        (format!("{subnets}/b"), subnet(json!(["10.241.0.0/24", "10.242.0.0/24"])), "invalid-request", None),
        (format!("{subnets}/nodes"), subnet(json!(["10.241.0.0/24"])), "exists", None),
        ("/v1/vnets/none/subnets/b".to_owned(), subnet(json!(["10.241.0.0/24"])), "not-found", None),
        (format!("{nodes}/b"), range("10.240.0.200", "10.240.1.0"), "overlap", None),
        (format!("{nodes}/b"), range("10.240.9.9", "10.240.9.0"), "invalid-request", None),
        (format!("{nodes}/b"), range("10.240.9.9", "fd00:10::1000"), "invalid-request", None),
        (format!("{nodes}/b"), range("10.250.0.1", "10.250.0.2"), "invalid-request", Some("/first")),
        ("/v1/pools/b".to_owned(), pool("prod/nodes", 0, 1), "invalid-request", Some("/maxPods")),
        ("/v1/pools/b".to_owned(), pool("prod/none", 30, 1), "invalid-request", Some("/subnets/0/subnet")),
        ("/v1/pools/b".to_owned(), pool("prod/nodes", 250, 5000), "exhausted", None),
        ("/v1/pools/workers".to_owned(), pool("prod/nodes", 65_536, 3), "exhausted", None),
        (
            "/v1/nodes/b".to_owned(),
            json!({"pool": "none", "addresses": ["10.240.0.20"]}),
            "invalid-request",
            Some("/pool"),
        ),
        ("/v1/nodes/b".to_owned(), json!({"pool": "workers"}), "invalid-request", Some("/addresses")),
        (
            "/v1/nodes/b".to_owned(),
            json!({"pool": "workers", "addresses": ["10.9.0.1"]}),
            "invalid-request",
            Some("/addresses/0"),
        ),
        ("/v1/nodes/b".to_owned(), json!({"pool": "workers", "addresses": ["10.240.0.10"]}), "overlap", None),
    ] {
        let reply = app.put(&path, &body).await;
        reply.expect_problem(kind, pointer);
        assert!(reply.body["detail"].as_str().unwrap().len() > 10, "{}", reply.text);
    }
    for (path, kind) in [
        ("/v1/vnets/prod", "in-use"),
        ("/v1/vnets/prod/subnets/nodes", "in-use"),
        ("/v1/vnets/prod/subnets/nodes/reservations/vms", "in-use"),
        ("/v1/pools/workers", "in-use"),
        ("/v1/vnets/none", "not-found"),
        ("/v1/vnets/none/subnets/none", "not-found"),
        ("/v1/vnets/prod/subnets/none", "not-found"),
        ("/v1/vnets/prod/subnets/nodes/reservations/none", "not-found"),
        ("/v1/pools/none", "not-found"),
        ("/v1/nodes/none", "not-found"),
    ] {
        app.delete(path).await.expect_problem(kind, None);
    }
    for path in [
        "/v1/vnets/none",
        "/v1/vnets/none/subnets",
        "/v1/vnets/none/subnets/x",
        "/v1/vnets/prod/subnets/none/extents",
        "/v1/vnets/prod/subnets/none/reservations",
        "/v1/pools/none",
        "/v1/nodes/none",
        "/v1/nodes/none/allocations",
        "/v1/nodes/node-1/allocations/none/eth0",
        "/v1/addresses/192.0.2.1",
    ] {
        app.get(path).await.expect_problem("not-found", None);
    }
    for path in ["/v1/vnets/none", "/v1/vnets/prod/subnets/none", "/v1/pools/none"] {
        app.patch(path, &json!({})).await.expect_problem("not-found", None);
    }
    assert_eq!(app.everything().await, before);
}
