//! How much one request may ask for: what is more is refused before anything is read or compared.

use crate::app::{App, Reply};
use serde_json::{Value, json};

const MOST_BLOCKS: u64 = 262_144;

/// The places that a refusal points at.
#[track_caller]
fn pointers(reply: &Reply) -> Vec<&str> {
    assert_eq!(reply.status, 422, "{}", reply.text);
    reply.expect_problem("invalid-request", None);
    let errors = reply.body["errors"].as_array().unwrap();
    errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

fn pool(nodes: u64, surge: &Value) -> Value {
    json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 1, "nodes": nodes, "surge": surge})
}

fn named(name: &str, mut pool: Value) -> Value {
    pool["name"] = json!(name);
    pool
}

#[tokio::test]
async fn a_pool_has_a_size() {
    let app = App::furnished().await;
    let before = app.everything().await;
    for (nodes, surge) in [
        (MOST_BLOCKS + 1, json!(0)),
        (MOST_BLOCKS, json!(1)),
        (131_073, json!("100%")),
        (1_000_000, json!(1_000_000)),
    ] {
        let refused = app.put("/v1/pools/big", &pool(nodes, &surge)).await;
        assert_eq!(pointers(&refused), ["/nodes"], "{nodes} and {surge}");
        assert!(refused.text.contains("262144"), "says how many: {}", refused.text);
        let plan = json!({"pools": [named("big", pool(nodes, &surge))]});
        assert_eq!(pointers(&app.post("/v1/plan", &plan).await), ["/pools/0/nodes"], "{nodes} and {surge}");
    }
    let refused = app.patch("/v1/pools/workers", &json!({"nodes": MOST_BLOCKS, "surge": 1})).await;
    assert_eq!(pointers(&refused), ["/nodes"]);
    // As many as may be are refused for want of room only.
    for (nodes, surge) in [(MOST_BLOCKS, json!(0)), (131_072, json!("100%"))] {
        let refused = app.put("/v1/pools/big", &pool(nodes, &surge)).await.expect(507);
        refused.expect_problem("exhausted", None);
        let plan = json!({"pools": [named("big", pool(nodes, &surge))]});
        assert_eq!(app.post("/v1/plan", &plan).await.expect(200).body["fits"], false);
    }
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn the_pools_of_a_plan_have_a_size_together() {
    let app = App::furnished().await;
    let plan = async |sizes: &[u64]| {
        let pools =
            sizes.iter().enumerate().map(|(i, &nodes)| named(&format!("p{i}"), pool(nodes, &json!(0))));
        app.post("/v1/plan", &json!({"pools": pools.collect::<Vec<_>>()})).await
    };
    // Pointed at is the pool with which it is too much, once.
    assert_eq!(pointers(&plan(&[100_000, 162_145, 5]).await), ["/pools/1/nodes"]);
    assert_eq!(pointers(&plan(&[100_000, 162_144, 0, 1]).await), ["/pools/3/nodes"]);
    plan(&[100_000, 162_143, 1]).await.expect(200);
}

#[tokio::test]
async fn a_plan_names_a_pool_once() {
    let app = App::furnished().await;
    let small = || pool(1, &json!(0));
    let twice = json!({"pools": [named("a", small()), named("b", small()), named("a", small())]});
    let refused = app.post("/v1/plan", &twice).await;
    assert_eq!(pointers(&refused), ["/pools/2/name"]);
    assert!(refused.text.contains("pool a is planned twice"), "{}", refused.text);
}

#[tokio::test]
async fn subnets_and_pools_are_at_most_256() {
    let app = App::furnished().await;
    let before = app.everything().await;
    // Subnets that are not there, so that the number is seen to be what is refused first.
    let subnets = |count: usize| -> Vec<Value> {
        (0..count).map(|i| json!({"subnet": format!("prod/s{i}")})).collect()
    };
    let wide = |count: usize| json!({"subnets": subnets(count), "maxPods": 1, "nodes": 1});
    assert_eq!(pointers(&app.put("/v1/pools/wide", &wide(257)).await), ["/subnets"]);
    assert_eq!(pointers(&app.put("/v1/pools/wide", &wide(256)).await).len(), 256);
    let refused = app.patch("/v1/pools/workers", &json!({"subnets": subnets(257)})).await;
    assert_eq!(pointers(&refused), ["/subnets"]);
    let plan = async |subnets: Vec<Value>, pools: Vec<Value>| {
        app.post("/v1/plan", &json!({"subnets": subnets, "pools": pools})).await
    };
    assert_eq!(pointers(&plan(vec![], vec![named("p", wide(257))]).await), ["/pools/0/subnets"]);

    let pools = |count: usize| (0..count).map(|i| named(&format!("p{i}"), pool(1, &json!(0)))).collect();
    assert_eq!(pointers(&plan(vec![], pools(257)).await), ["/pools"]);
    assert_eq!(plan(vec![], pools(256)).await.expect(200).body["fits"], true);

    let imagined = |count: usize| -> Vec<Value> {
        let cidr = |i: usize| format!("10.{}.{}.0/24", 242 + i / 256, i % 256);
        (0..count).map(|i| json!({"subnet": format!("prod/s{i}"), "cidrs": [cidr(i)]})).collect()
    };
    assert_eq!(pointers(&plan(imagined(257), pools(1)).await), ["/subnets"]);
    plan(imagined(256), pools(1)).await.expect(200);
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn a_vnet_has_at_most_256_cidrs_a_list() {
    let app = App::new().await;
    let many = |count: usize| -> Vec<String> {
        (0..count).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256)).collect()
    };
    let other = json!(["172.16.0.0/12"]);
    for count in [257, 30_000] {
        let space = json!({"addressSpace": many(count), "serviceCidrs": other});
        assert_eq!(pointers(&app.put("/v1/vnets/v", &space).await), ["/addressSpace"]);
        let services = json!({"addressSpace": other, "serviceCidrs": many(count)});
        assert_eq!(pointers(&app.put("/v1/vnets/v", &services).await), ["/serviceCidrs"]);
    }
    // Refused by its length alone: what is wrong with each of them, and with each beside each, was not looked at.
    let wrong = json!({"addressSpace": vec!["10.0.0.1/8"; 30_000]});
    assert_eq!(pointers(&app.put("/v1/vnets/v", &wrong).await), ["/addressSpace"]);
    let alike = json!({"addressSpace": vec!["10.0.0.0/8"; 30_000]});
    assert_eq!(pointers(&app.put("/v1/vnets/v", &alike).await), ["/addressSpace"]);
    app.get("/v1/vnets/v").await.expect_problem("not-found", None);

    let full = json!({"addressSpace": many(256), "serviceCidrs": other});
    app.put("/v1/vnets/v", &full).await.expect(201);
    let edit = json!({"addressSpace": many(257)});
    assert_eq!(pointers(&app.patch("/v1/vnets/v", &edit).await), ["/addressSpace"]);
}
