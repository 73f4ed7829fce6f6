//! The service in numbers.

use crate::app::App;
use serde_json::json;
use std::time::Duration;

/// One number of `/metrics`, by its name with its labels.
async fn metric(app: &App, name: &str) -> Option<f64> {
    let text = app.get("/metrics").await.expect(200).text;
    assert!(text.ends_with("# EOF\n"), "{text}");
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
    while metric(&app, "ipam_addresses_used{pool=\"workers\"}").await != Some(2.0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
