//! The service in numbers.

use crate::app::App;
use axum::http::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// One number of `/metrics`, by its name with its labels.
async fn metric(app: &App, name: &str) -> Option<f64> {
    number(&told(app).await, name)
}

async fn told(app: &App) -> String {
    let text = app.get("/metrics").await.expect(200).text;
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_what_callers_write() {
    let app = App::furnished().await;
    for node in ["node-1", "node-2", "node-3"] {
        app.get(&format!("/v1/nodes/{node}")).await;
    }
    app.get("/v1/anything").await.expect(404);
    app.delete("/v1/anything-else").await.expect(404);
    let count = |labels: &'static str| format!("ipam_http_request_duration_seconds_count{{{labels}}}");
    for (labels, number) in [
        ("method=\"GET\",route=\"/v1/nodes/{node}\",status=\"200\"", 1.0),
        ("method=\"GET\",route=\"/v1/nodes/{node}\",status=\"404\"", 2.0),
        ("method=\"PUT\",route=\"/v1/nodes/{node}\",status=\"201\"", 2.0),
        ("method=\"GET\",route=\"unknown\",status=\"404\"", 1.0),
        ("method=\"DELETE\",route=\"unknown\",status=\"404\"", 1.0),
    ] {
        assert_eq!(metric(&app, &count(labels)).await, Some(number), "{labels}");
    }
    let request =
        axum::http::Request::builder().method("BREW").uri("/v1/pools").body(axum::body::Body::empty());
    app.send(request.unwrap()).await.expect(405);
    let brewed = "method=\"other\",route=\"/v1/pools\",status=\"405\"";
    assert_eq!(metric(&app, &count(brewed)).await, Some(1.0));
}

#[tokio::test]
async fn what_the_database_undid_is_told() {
    let app = App::furnished().await;
    assert_eq!(metric(&app, "ipam_transactions_undone_total").await, Some(0.0));
}

#[tokio::test]
async fn the_plan_is_told_as_capacity_tells_it() {
    let app = App::furnished().await;
    let capacity = app.get("/v1/capacity").await.expect(200).body;
    let subnet = &capacity["subnets"][0];
    let mut sum = 0.0;
    for state in ["free", "reserved", "planned", "claimed"] {
        let name = format!("ipam_subnet_addresses{{subnet=\"prod/nodes\",state=\"{state}\"}}");
        let number = metric(&app, &name).await.unwrap();
        assert_eq!(Some(number), subnet[state].as_f64(), "{state}");
        sum += number;
    }
    assert_eq!(Some(sum), subnet["size"].as_f64(), "states are disjoint and complete");
    assert_eq!(metric(&app, "ipam_addresses_used{pool=\"workers\"}").await, Some(1.0));
    assert_eq!(metric(&app, "ipam_block_addresses{pool=\"workers\"}").await, Some(30.0));
    for (state, number) in [("planned", 2.0), ("claimed", 2.0), ("deleting", 0.0)] {
        let name = format!("ipam_blocks{{pool=\"workers\",state=\"{state}\"}}");
        assert_eq!(metric(&app, &name).await, Some(number), "{state}");
    }
    app.put("/v1/nodes/vm-1/allocations/c1/eth0", &json!({})).await.expect(201);
    // It may have been counted a second ago.
    let began = Instant::now();
    while metric(&app, "ipam_addresses_used{pool=\"workers\"}").await != Some(2.0) {
        assert!(began.elapsed() < Duration::from_secs(30), "it is not counted again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_store_is_measured_by_what_it_did() {
    let app = App::furnished().await;
    let count = async |of: &str| {
        let name = format!("ipam_store_operation_duration_seconds_count{{operation=\"{of}\"}}");
        metric(&app, &name).await.unwrap_or_default()
    };
    let batched = async || {
        let (batches, mutations) = ("ipam_batch_mutations_count", "ipam_batch_mutations_sum");
        (metric(&app, batches).await.unwrap(), metric(&app, mutations).await.unwrap())
    };
    let (plans, holds, batches) = (count("plan").await, count("hold").await, batched().await);
    assert_eq!((holds, count("release").await, batches), (1.0, 0.0, (1.0, 1.0)));
    let c1 = "/v1/nodes/vm-1/allocations/c1/eth0";
    let held = app.put(c1, &json!({})).await.expect(201).body;
    app.delete(c1).await.expect(204);
    assert_eq!((count("hold").await, count("release").await, count("plan").await), (2.0, 1.0, plans));
    assert_eq!(batched().await, (3.0, 3.0));

    // The same attachment's address has no new holder; another's has.
    let rests = "ipam_address_rest_seconds_count";
    let body = json!({"address": held["addresses"][0]["address"]});
    app.put(c1, &body).await.expect(201);
    app.delete(c1).await.expect(204);
    assert_eq!(metric(&app, rests).await, Some(0.0));
    app.put("/v1/nodes/vm-1/allocations/c2/eth0", &body).await.expect(201);
    assert_eq!(metric(&app, rests).await, Some(1.0));
    assert!(metric(&app, "ipam_address_rest_seconds_sum").await.unwrap() < 3600.0);

    app.put("/v1/vnets/other", &json!({"addressSpace": ["192.168.0.0/16"]})).await.expect(201);
    assert_eq!(count("plan").await, plans + 1.0);
    let reads = count("read").await;
    app.get("/v1/vnets/other").await.expect(200);
    assert!(count("read").await > reads);
}

#[tokio::test]
async fn connections_are_told_by_pool() {
    let app = App::furnished().await;
    // Of one moment: between two answers a connection comes back.
    let text = told(&app).await;
    for pool in ["writers", "readers"] {
        let of = |state: &str| format!("ipam_database_connections{{pool=\"{pool}\",state=\"{state}\"}}");
        let (used, idle) = (number(&text, &of("used")).unwrap(), number(&text, &of("idle")).unwrap());
        let most = number(&text, &format!("ipam_database_connections_max{{pool=\"{pool}\"}}")).unwrap();
        assert!(most >= 1.0 && used + idle <= most, "{pool}: {used} and {idle} of {most}");
    }
    assert_eq!(metric(&app, "ipam_upkeep_turn").await, Some(0.0), "nobody took it here");
}

#[tokio::test]
async fn strangers_are_counted() {
    let app = App::furnished().await;
    let name = "ipam_addresses_in_conflict{pool=\"workers\"}";
    assert_eq!(metric(&app, name).await, Some(0.0));
    let node = app.get("/v1/nodes/node-1").await.expect(200).body;
    let first = &node["block"]["ranges"][0]["first"];
    let sync = json!({
        "asOfSeq": 10, "entries": [],
        "conflicts": [{"address": first, "mac": "02:00:0a:f0:00:0b", "ageSeconds": 1}],
    });
    let stamp = format!("claim={}, boot=1, seq=10, block={}", node["claim"], node["block"]["version"]);
    app.call(Method::PUT, "/v1/nodes/node-1/allocations")
        .header("ipam-node", &stamp)
        .json(&sync)
        .send()
        .await
        .expect(200);
    assert_eq!(metric(&app, name).await, Some(1.0));
}
