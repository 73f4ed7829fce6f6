//! What each resource does when asked well.

use crate::app::App;
use axum::http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_thing_is_made_read_changed_and_deleted() {
    let app = App::new().await;
    let spec = json!({"addressSpace": ["10.240.0.0/12"]});
    let made = app.put("/v1/vnets/prod", &spec).await.expect(201);
    assert_eq!(made.header("location"), "/v1/vnets/prod");
    let tag = made.header("etag").to_owned();
    let again = app.put("/v1/vnets/prod", &spec).await.expect(200);
    assert_eq!(again.body, made.body);

    let read = app.get("/v1/vnets/prod").await.expect(200);
    assert_eq!(read.body, made.body);

    let patched = app.patch("/v1/vnets/prod", &json!({"serviceCidrs": ["10.0.0.0/16"]})).await.expect(200);
    assert_eq!(patched.body["addressSpace"], json!(["10.240.0.0/12"]), "the rest stays");
    assert_eq!(patched.body["serviceCidrs"], json!(["10.0.0.0/16"]));
    assert_ne!(patched.header("etag"), tag);
    // Null takes a member back to its default (RFC 7396).
    let patched = app.patch("/v1/vnets/prod", &json!({"serviceCidrs": null})).await.expect(200);
    assert_eq!(patched.body["serviceCidrs"], json!([]));
    app.patch("/v1/vnets/prod", &json!({"addressSpace": null}))
        .await
        .expect_problem("invalid-request", Some("/addressSpace"));

    app.delete("/v1/vnets/prod").await.expect(204);
    app.get("/v1/vnets/prod").await.expect_problem("not-found", None);
    app.delete("/v1/vnets/prod").await.expect_problem("not-found", None);
}

#[tokio::test]
async fn an_edit_is_made_on_the_version_that_was_read() {
    let app = App::furnished().await;
    let first = app.get("/v1/pools/workers").await.expect(200).header("etag").to_owned();
    let edit = |tag: &str, nodes: u64| {
        let call = app.call(Method::PATCH, "/v1/pools/workers").header("if-match", tag);
        call.raw("application/merge-patch+json", json!({"nodes": nodes}).to_string()).send()
    };
    let second = edit(&first, 4).await.expect(200).header("etag").to_owned();
    assert_ne!(first, second);
    edit(&first, 5).await.expect_problem("precondition-failed", None);
    edit(&format!("{first}, {second}"), 5).await.expect(200);
    edit("*", 6).await.expect(200);
    assert_eq!(app.get("/v1/pools/workers").await.body["nodes"], 6);
    let stale = app.call(Method::DELETE, "/v1/pools/workers").header("if-match", &first);
    stale.send().await.expect_problem("precondition-failed", None);
    let spec = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 1, "nodes": 1});
    let new =
        |path: &'static str| app.call(Method::PUT, path).header("if-none-match", "*").json(&spec).send();
    new("/v1/pools/other").await.expect(201);
    new("/v1/pools/other").await.expect_problem("precondition-failed", None);
    let missing = app.call(Method::PUT, "/v1/pools/third").header("if-match", "*").json(&spec);
    missing.send().await.expect_problem("precondition-failed", None);
}

/// Who asks for a deletion on condition of the version that was read, late or again, must not meet what has been made in
/// the same name since: of a node that would be a VM in use, declared gone.
#[tokio::test]
async fn a_version_never_comes_back() {
    let app = App::furnished().await;
    let pool = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 1, "nodes": 2});
    app.put("/v1/pools/few", &pool).await.expect(201);
    let things = [
        (
            "/v1/vnets/lab",
            json!({"addressSpace": ["192.168.0.0/16"]}),
            json!({"addressSpace": ["192.168.0.0/17"]}),
        ),
        (
            "/v1/vnets/prod/subnets/more",
            json!({"cidrs": ["10.241.0.0/24"]}),
            json!({"cidrs": ["10.241.0.0/24"], "gateways": ["10.241.0.2"]}),
        ),
        (
            "/v1/vnets/prod/subnets/nodes/reservations/some",
            json!({"first": "10.240.8.0", "last": "10.240.8.1", "reason": "one"}),
            json!({"first": "10.240.8.0", "last": "10.240.8.1", "reason": "two"}),
        ),
        (
            "/v1/pools/more",
            json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 1, "nodes": 1}),
            json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 1, "nodes": 2}),
        ),
        (
            "/v1/nodes/node-9",
            json!({"pool": "few", "addresses": ["10.240.9.9"]}),
            json!({"pool": "few", "addresses": ["10.240.9.9"], "mac": "02:00:0a:f0:09:09"}),
        ),
    ];
    for (path, first, second) in &things {
        let mut had = Vec::new();
        for _ in 0..3 {
            for spec in [first, second, first, second] {
                let tag = app.put(path, spec).await.header("etag").to_owned();
                if had.last() != Some(&tag) {
                    assert!(!had.contains(&tag), "{path}: {tag} after {had:?}");
                    had.push(tag);
                }
            }
            let (now, before) = had.split_last().unwrap();
            for tag in before {
                let late = app.call(Method::DELETE, path).header("if-match", tag);
                late.send().await.expect_problem("precondition-failed", None);
            }
            app.call(Method::DELETE, path).header("if-match", now).send().await.expect(204);
        }
    }
}

/// Only edits change a reservation, so who has its version has it.
#[tokio::test]
async fn a_reservation_that_the_reader_has_is_not_sent_again() {
    let app = App::furnished().await;
    let path = "/v1/vnets/prod/subnets/nodes/reservations/vms";
    let tag = app.get(path).await.expect(200).header("etag").to_owned();
    let read = |tags: &str| app.call(Method::GET, path).header("if-none-match", tags).send();
    for tags in [&tag, &format!("W/{tag}"), &format!("\"77\", {tag}"), "*"] {
        let same = read(tags).await.expect(304);
        assert_eq!((same.header("etag"), same.bytes.len()), (&*tag, 0), "{tags}");
    }
    assert_eq!(read("\"77\"").await.expect(200).body["name"], "vms");
    let mut spec = json!({"first": "10.240.0.4", "last": "10.240.0.255", "reason": "VMs", "forNodes": true});
    app.put(path, &spec).await.expect(200);
    let changed = read(&tag).await.expect(200);
    assert_eq!(changed.body["reason"], "VMs");
    assert_ne!(changed.header("etag"), tag);
    spec["last"] = json!("10.240.0.250");
    let now = changed.header("etag").to_owned();
    app.put(path, &spec).await.expect(200);
    assert_eq!(read(&now).await.expect(200).body["last"], "10.240.0.250");
}

/// What a thing counts changes without its version: a reader that has the version has not the counts.
#[tokio::test]
async fn a_thing_with_counts_is_always_answered_whole() {
    let app = App::furnished().await;
    let paths = ["/v1/vnets/prod", "/v1/vnets/prod/subnets/nodes", "/v1/pools/workers", "/v1/nodes/vm-1"];
    let mut had = Vec::new();
    for path in paths {
        let read = app.get(path).await.expect(200);
        had.push((path, read.header("etag").to_owned(), read.body));
    }
    app.put("/v1/vnets/prod/subnets/more", &json!({"cidrs": ["10.241.0.0/24"]})).await.expect(201);
    app.put("/v1/nodes/node-2", &json!({"pool": "workers", "addresses": ["10.240.9.9"]})).await.expect(201);
    app.put("/v1/nodes/vm-1/allocations/c9/eth0", &json!({})).await.expect(201);
    for (path, tag, body) in had {
        let now = app.call(Method::GET, path).header("if-none-match", &tag).send().await.expect(200);
        assert_eq!(now.header("etag"), tag, "{path}: no one edited it");
        assert_ne!(now.body, body, "{path}: its counts changed");
    }
    let operations = app.document["paths"].as_object().unwrap().values().flat_map(|item| {
        item.as_object().unwrap().values().filter(|operation| operation["responses"].get("304").is_some())
    });
    let ids: Vec<_> = operations.map(|operation| &operation["operationId"]).collect();
    assert_eq!(ids, ["getReservation"]);
}

#[tokio::test]
async fn edits_without_a_version_do_not_lose_each_other() {
    let app = App::furnished().await;
    let (a, b) = (json!({"nodes": 5}), json!({"restSeconds": 60}));
    let (a, b) = tokio::join!(app.patch("/v1/pools/workers", &a), app.patch("/v1/pools/workers", &b));
    a.expect(200);
    b.expect(200);
    let pool = app.get("/v1/pools/workers").await.body;
    assert_eq!((&pool["nodes"], &pool["restSeconds"]), (&json!(5), &json!(60)));
}

#[tokio::test]
async fn a_dry_run_answers_the_same_and_changes_nothing() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let pool = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 2});
    let tried = app.put("/v1/pools/batch?dryRun=true", &pool).await.expect(201);
    let vnet = json!({"addressSpace": ["172.16.0.0/12"]});
    app.put("/v1/vnets/b?dryRun=true", &vnet).await.expect(201);
    let subnet = json!({"cidrs": ["10.241.0.0/16"]});
    app.put("/v1/vnets/prod/subnets/b?dryRun=true", &subnet).await.expect(201);
    let reservation = json!({"first": "10.240.200.0", "last": "10.240.200.9", "reason": "r"});
    app.put("/v1/vnets/prod/subnets/nodes/reservations/b?dryRun=true", &reservation).await.expect(201);
    let node = json!({"pool": "workers", "addresses": ["10.240.0.12"]});
    app.put("/v1/nodes/node-2?dryRun=true", &node).await.expect(201);
    app.patch("/v1/pools/workers?dryRun=true", &json!({"nodes": 9})).await.expect(200);
    app.patch("/v1/vnets/prod/subnets/nodes?dryRun=true", &json!({"reservePlatform": false})).await;
    app.delete("/v1/nodes/node-1?dryRun=true").await.expect(204);
    app.delete("/v1/pools/workers?dryRun=true").await.expect_problem("in-use", None);
    assert_eq!(app.everything().await, before);
    let made = app.put("/v1/pools/batch", &pool).await.expect(201);
    assert_eq!(made.body["status"], tried.body["status"]);
}

#[tokio::test]
async fn lists_come_in_pages_that_lose_nothing() {
    let app = App::furnished().await;
    for number in 0..7 {
        let spec = json!({"addressSpace": [format!("172.{}.0.0/16", 16 + number)]});
        app.put(&format!("/v1/vnets/v{number}"), &spec).await.expect(201);
    }
    for path in [
        "/v1/vnets",
        "/v1/vnets/prod/subnets",
        "/v1/vnets/prod/subnets/nodes/extents",
        "/v1/vnets/prod/subnets/nodes/reservations",
        "/v1/pools",
        "/v1/nodes",
        "/v1/allocations",
        "/v1/nodes/vm-1/allocations",
    ] {
        let all = app.get(path).await.expect(200).body;
        let all = all["items"].as_array().unwrap();
        for limit in 1..=3 {
            let mut pages: Vec<Value> = Vec::new();
            let mut query = format!("?limit={limit}");
            loop {
                let page = app.get(&format!("{path}{query}")).await.expect(200).body;
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= limit, "{path}: {page}");
                pages.extend(items.iter().cloned());
                let Some(next) = page["next"].as_str() else { break };
                assert_eq!(items.len(), limit, "a page before the last is full");
                query = format!("?limit={limit}&after={next}");
            }
            assert_eq!(&pages, all, "{path} by {limit}");
        }
        // A cursor of another list is refused or read as a place; it never breaks anything.
        for key in ["7a7a7a7a", "70726f64", "302f30", "2d31", "3939393939393939393939393939393939393939"] {
            let reply = app.get(&format!("{path}?after={key}")).await;
            assert!([200, 422].contains(&reply.status.as_u16()), "{path}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn nodes_and_allocations_are_found_by_what_they_are() {
    let app = App::furnished().await;
    let pod = json!({"pod": {"namespace": "shop", "name": "web-0", "uid": "u"}});
    let held = app.put("/v1/nodes/vm-1/allocations/c1/eth0?network=other", &pod).await.expect(201).body;
    let address = held["addresses"][0]["address"].as_str().unwrap();
    let count = async |path: &str| app.get(path).await.expect(200).body["items"].as_array().unwrap().len();
    assert_eq!(count("/v1/nodes?pool=workers").await, 2);
    assert_eq!(count("/v1/nodes?pool=other").await, 0);
    assert_eq!(count("/v1/allocations").await, 2);
    for (query, wanted) in [
        ("node=vm-1", 2),
        ("node=node-1", 0),
        ("network=other", 1),
        ("network=default", 1),
        ("pod=web-0", 1),
        ("namespace=shop", 1),
        ("namespace=none", 0),
        ("pod=web-0&node=vm-1&namespace=shop", 1),
        ("address=192.0.2.1", 0),
    ] {
        assert_eq!(count(&format!("/v1/allocations?{query}")).await, wanted, "{query}");
    }
    assert_eq!(count(&format!("/v1/allocations?address={address}")).await, 1);
    let v6 = held["addresses"][1]["address"].as_str().unwrap();
    assert_eq!(count(&format!("/v1/allocations?address={v6}")).await, 1, "by either family");
}

#[tokio::test]
async fn the_service_picks_and_takes_back_for_its_own_nodes() {
    let app = App::furnished().await;
    let path = "/v1/nodes/vm-1/allocations/c1/eth0";
    let held = app.put(path, &json!({})).await.expect(201);
    assert_eq!(held.header("location"), path);
    assert_eq!(app.put(path, &json!({})).await.expect(200).body, held.body, "asked again, the same");
    assert_eq!(app.get(path).await.expect(200).body, held.body);
    assert_eq!(held.body["network"], "default");
    app.delete(path).await.expect(204);
    app.delete(path).await.expect(204);
    assert_eq!(app.get(path).await.expect(200).body["state"], "released");
    app.put("/v1/nodes/node-1/allocations/c1/eth0", &json!({})).await.expect(422);
}

fn stamp(node: &Value, boot: u64, seq: u64) -> String {
    format!(
        "claim={}, boot={boot}, seq={seq}, block={}, boot-id=\"b{boot}\"",
        node["claim"], node["block"]["version"]
    )
}

#[tokio::test]
async fn a_node_syncs_holds_and_releases() {
    let app = App::furnished().await;
    let node = app.get("/v1/nodes/node-1").await.expect(200).body;
    assert_eq!(node["state"], "planned");
    let sync = |stamp: String, body: Value| {
        let call = app.call(Method::PUT, "/v1/nodes/node-1/allocations").header("ipam-node", &stamp);
        async move { call.json(&body).send().await }
    };
    let empty = |seq: u64| json!({"asOfSeq": seq, "entries": []});
    let answer = sync(stamp(&node, 1, 10), empty(10)).await.expect(200).body;
    assert_eq!(answer["node"]["state"], "active");

    let address = node["block"]["ranges"][0]["first"].clone();
    let path = "/v1/nodes/node-1/allocations/c1/eth0?network=pods";
    let put = |seq: u64| app.call(Method::PUT, path).header("ipam-node", &stamp(&node, 1, seq));
    let body = json!({"address": address, "pod": {"name": "web-0"}});
    let held = put(20).json(&body).send().await.expect(201).body;
    assert_eq!(held["addresses"][0]["address"], address);
    assert_eq!(put(20).json(&body).send().await.expect(200).body, held, "a replay changes nothing");
    let other = app.call(Method::PUT, "/v1/nodes/node-1/allocations/c2/eth0?network=pods");
    let outside = other.header("ipam-node", &stamp(&node, 1, 21)).json(&json!({"address": "10.240.0.200"}));
    outside.send().await.expect_problem("address-taken", None);

    let release = format!("{path}&address={}", address.as_str().unwrap());
    let gone = app.call(Method::DELETE, &release).header("ipam-node", &stamp(&node, 1, 30));
    gone.send().await.expect(204);
    assert_eq!(
        put(20).json(&body).send().await.expect(200).body["state"],
        "released",
        "late and changes nothing"
    );

    for stale in [
        "claim=999, boot=1, seq=40, block=1".to_owned(),
        format!("claim={}, boot=1, boot-id=\"another\", seq=40, block=1", node["claim"]),
        format!("claim={}, boot=1, seq=40, block=99", node["claim"]),
    ] {
        sync(stale, empty(40)).await.expect_problem("stale-claim", None);
    }
    let none =
        app.call(Method::PUT, "/v1/nodes/none/allocations/c1/eth0").header("ipam-node", &stamp(&node, 1, 1));
    none.json(&body).send().await.expect_problem("stale-claim", None);
    let none = app.call(Method::DELETE, "/v1/nodes/none/allocations/c1/eth0");
    none.header("ipam-node", &stamp(&node, 1, 1)).send().await.expect_problem("stale-claim", None);
    let unstamped = app.call(Method::PUT, "/v1/nodes/node-1/allocations").json(&empty(50));
    unstamped.send().await.expect_problem("invalid-request", Some("header:ipam-node"));

    // Deleted, it stays until it confirms.
    let deleting = app.delete("/v1/nodes/node-1").await.expect(202).body;
    assert_eq!(deleting["state"], "deleting");
    let mut last = empty(60);
    last["deletion"] = deleting["deletion"].clone();
    let answer = sync(stamp(&node, 1, 60), last).await.expect(200).body;
    assert!(answer.get("node").is_none(), "{answer}");
    app.get("/v1/nodes/node-1").await.expect_problem("not-found", None);
    sync(stamp(&node, 1, 70), empty(70)).await.expect_problem("stale-claim", None);
}

#[tokio::test]
async fn to_an_ended_claim_nothing_is_read() {
    let app = App::furnished().await;
    let first = app.get("/v1/nodes/node-1").await.expect(200).body;
    let list = "/v1/nodes/node-1/allocations";
    let one = "/v1/nodes/node-1/allocations/c1/eth0";
    let read =
        |path: &'static str, stamp: String| app.call(Method::GET, path).header("ipam-node", &stamp).send();
    // Takes the claim up and holds an address in it.
    let hold = async |node: &Value| {
        let sync = app.call(Method::PUT, list).header("ipam-node", &stamp(node, 1, 10));
        sync.json(&json!({"asOfSeq": 10, "entries": []})).send().await.expect(200);
        let put = app.call(Method::PUT, &format!("{one}?network=default"));
        let body = json!({"address": node["block"]["ranges"][0]["first"]});
        put.header("ipam-node", &stamp(node, 1, 20)).json(&body).send().await.expect(201);
    };
    let whole = async |node: &Value| {
        let listed = read(list, stamp(node, 1, 30)).await.expect(200).body;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        let held = read(one, stamp(node, 1, 30)).await.expect(200).body;
        assert_eq!((&held["state"], &held), (&json!("held"), &listed["items"][0]));
        assert_eq!(app.get(list).await.expect(200).body, listed, "an admin's read names no claim");
        assert_eq!(app.get(one).await.expect(200).body, held);
    };
    let refused = async |stamp: String| {
        for path in [list, one, "/v1/nodes/node-1/allocations/none/eth0"] {
            let stale = read(path, stamp.clone()).await.expect(409);
            stale.expect_problem("stale-claim", None);
            assert!(!stale.text.contains("c1"), "tells nothing: {}", stale.text);
        }
    };
    hold(&first).await;
    whole(&first).await;
    app.delete("/v1/nodes/node-1?vmGone=true").await.expect(204);
    // No node of the name: to a shim its claim has ended, to others the page is missing.
    refused(stamp(&first, 1, 30)).await;
    app.get(list).await.expect_problem("not-found", None);
    app.get(one).await.expect_problem("not-found", None);

    let spec = json!({"pool": "workers", "addresses": ["10.240.0.10"], "uid": "u1"});
    let second = app.put("/v1/nodes/node-1", &spec).await.expect(201).body;
    hold(&second).await;
    refused(stamp(&first, 1, 30)).await;
    whole(&second).await;
    let spec = json!({"pool": "workers", "addresses": ["10.240.0.10"], "uid": "u2", "replace": true});
    let third = app.put("/v1/nodes/node-1", &spec).await.expect(200).body;
    hold(&third).await;
    refused(stamp(&second, 1, 30)).await;
    whole(&third).await;
    // One that never was.
    let mut later = third.clone();
    later["claim"] = json!(third["claim"].as_u64().unwrap() + 1);
    refused(stamp(&later, 1, 30)).await;
}

#[tokio::test]
async fn planned_nodes_keep_addresses_for_themselves() {
    let app = App::new().await;
    app.put("/v1/vnets/v", &json!({"addressSpace": ["10.0.0.0/8", "fd00::/16"]})).await.expect(201);
    let cidrs = json!(["10.0.0.0/27", "fd00::/64"]);
    app.put("/v1/vnets/v/subnets/a", &json!({ "cidrs": cidrs })).await.expect(201);
    // 27 addresses: three nodes and their blocks.
    let pool = json!({"subnets": [{"subnet": "v/a"}], "maxPods": 8, "nodes": 3, "surge": 0});
    app.put("/v1/pools/p", &pool).await.expect(201);
    let before = app.everything().await;
    let apart = json!({"pool": "p", "addresses": ["10.0.0.28", "fd00::1d"]});
    let short = app.put("/v1/nodes/n", &apart).await.expect(507);
    short.expect_problem("exhausted", None);
    for (number, wanted) in [("need", 2), ("have", 1), ("largestFree", 1), ("nodesThatFit", 1)] {
        assert_eq!(short.body[number], wanted, "{number}: {}", short.text);
        assert_eq!(short.body["subnets"][0][number], wanted, "{number}: {}", short.text);
    }
    let gateway = json!({"cidrs": cidrs, "gateways": ["10.0.0.30"]});
    app.put("/v1/vnets/v/subnets/a", &gateway).await.expect_problem("in-use", None);
    app.patch("/v1/vnets/v/subnets/a", &json!({"gateways": ["10.0.0.30"]}))
        .await
        .expect_problem("in-use", None);
    let vms = json!({"first": "10.0.0.30", "last": "10.0.0.30", "reason": "a VM"});
    app.put("/v1/vnets/v/subnets/a/reservations/r", &vms).await.expect_problem("in-use", None);
    assert_eq!(app.everything().await, before);
}

#[tokio::test]
async fn blocks_follow_their_pool_and_say_what_they_give_up() {
    let app = App::furnished().await;
    let stamp = |seq: u64, version: u64| format!("claim=1, boot=1, seq={seq}, block={version}");
    let sync = async |seq: u64, version: u64| {
        app.call(Method::PUT, "/v1/nodes/node-1/allocations")
            .header("ipam-node", &stamp(seq, version))
            .json(&json!({"asOfSeq": seq, "entries": []}))
            .send()
            .await
            .expect(200)
    };
    let block = app.get("/v1/nodes/node-1").await.expect(200).body["block"].clone();
    assert!(block["leaving"].is_null(), "{block}");
    sync(10, 1).await;
    let before = app.everything().await;
    let tried = app.patch("/v1/pools/workers?dryRun=true", &json!({"maxPods": 20})).await.expect(200);
    assert_eq!(app.everything().await, before);
    let done = app.patch("/v1/pools/workers", &json!({"maxPods": 20})).await.expect(200);
    assert_eq!(tried.body["status"], done.body["status"]);
    assert_eq!(done.body["status"]["leaving"], 10, "vm-1 has picked nothing there: {}", done.text);
    let shrunk = app.get("/v1/nodes/node-1").await.expect(200).body["block"].clone();
    assert_eq!(shrunk["version"], 2);
    assert_eq!(shrunk["ranges"][0]["first"], block["ranges"][0]["first"]);
    assert_eq!(shrunk["leaving"][0]["last"], block["ranges"][0]["last"]);
    assert_eq!(app.get("/v1/capacity").await.expect(200).body["pools"][0]["leaving"], 10);

    let gone = json!({"address": shrunk["leaving"][0]["first"]});
    let hold = |version| {
        app.call(Method::PUT, "/v1/nodes/node-1/allocations/c1/eth0")
            .header("ipam-node", &stamp(20 + version, version))
            .json(&gone)
            .send()
    };
    hold(1).await.expect(201);
    hold(2).await.expect_problem("address-taken", None);
    assert_eq!(sync(30, 1).await.body["node"]["block"], shrunk);
    assert!(sync(31, 2).await.body["node"]["block"]["leaving"].is_null());
    assert_eq!(app.get("/v1/pools/workers").await.expect(200).body["status"]["leaving"], 0);

    let short = app.patch("/v1/pools/workers", &json!({"maxPods": 65536})).await.expect(507);
    short.expect_problem("exhausted", None);
    assert_eq!(short.body["subnets"][0]["subnet"], "prod/nodes", "{}", short.text);
}

#[tokio::test]
async fn a_node_whose_vm_is_gone_leaves_at_once() {
    let app = App::furnished().await;
    app.delete("/v1/nodes/vm-1").await.expect_problem("in-use", None);
    app.delete("/v1/nodes/vm-1?vmGone=true").await.expect(204);
    app.get("/v1/nodes/vm-1").await.expect_problem("not-found", None);
}

#[tokio::test]
async fn a_plan_says_what_a_pool_then_takes() {
    let app = App::furnished().await;
    let before = app.everything().await;
    let demand = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 30, "nodes": 2});
    let mut named = demand.clone();
    named["name"] = json!("batch");
    let plan = app.post("/v1/plan", &json!({"pools": [named]})).await.expect(200);
    assert_eq!(plan.body["fits"], true);
    assert_eq!(app.everything().await, before);
    assert_eq!(plan.body["pools"][0]["blocks"], 3);
    app.put("/v1/pools/batch", &demand).await.expect(201);
    let again = app.post("/v1/plan", &json!({"pools": [named]})).await.expect(200);
    assert_ne!(plan.header("etag"), again.header("etag"), "the answer may have changed");

    named["nodes"] = json!(200_000);
    let plan = app.post("/v1/plan", &json!({"pools": [named]})).await.expect(200).body;
    assert_eq!(plan["fits"], false);
    assert!(plan["shortages"][0]["nodesThatFit"].as_u64().unwrap() > 1000, "{plan}");
}

#[tokio::test]
async fn a_shortage_says_the_numbers() {
    let app = App::furnished().await;
    let spec = json!({"subnets": [{"subnet": "prod/nodes"}], "maxPods": 250, "nodes": 5000});
    let refused = app.put("/v1/pools/big", &spec).await.expect(507).body;
    for number in ["need", "have", "largestFree", "nodesThatFit"] {
        assert!(refused[number].as_u64().is_some(), "{number}: {refused}");
    }
    assert_eq!(refused["subnets"][0]["subnet"], "prod/nodes");
    app.get("/v1/pools/big").await.expect_problem("not-found", None);
}

#[tokio::test]
async fn capacity_and_addresses_are_told() {
    let app = App::furnished().await;
    let capacity = app.get("/v1/capacity").await.expect(200).body;
    assert_eq!(capacity["subnets"][0]["size"], 65_536);
    assert_eq!(capacity["pools"][0]["claimed"], 2);
    assert_eq!(capacity["pools"][0]["used"], 1);
    for (address, usage) in [
        ("10.240.0.10", "node"),
        ("10.240.0.1", "reserved"),
        ("10.240.0.200", "reserved"),
        ("10.240.200.1", "free"),
        ("fd00:10::c8c8", "free"),
    ] {
        let told = app.get(&format!("/v1/addresses/{address}")).await.expect(200).body;
        assert_eq!(told["use"], usage, "{address}: {told}");
    }
    let held = app.get("/v1/allocations").await.body["items"][0].clone();
    for address in held["addresses"].as_array().unwrap() {
        let told = app
            .get(&format!("/v1/addresses/{}", address["address"].as_str().unwrap()))
            .await
            .expect(200)
            .body;
        assert_eq!(told["use"], "pod", "{told}");
        assert_eq!(told["node"], "vm-1");
        assert_eq!(told["allocation"], held);
    }
}

#[tokio::test]
async fn extents_tile_their_subnet() {
    let app = App::furnished().await;
    let extents = app.get("/v1/vnets/prod/subnets/nodes/extents?limit=1000").await.expect(200).body;
    let extents = extents["items"].as_array().unwrap();
    let number =
        |address: &Value| u32::from(address.as_str().unwrap().parse::<std::net::Ipv4Addr>().unwrap());
    let mut next = number(&json!("10.240.0.0"));
    for extent in extents {
        assert_eq!(number(&extent["first"]), next, "{extent}");
        next = number(&extent["last"]) + 1;
    }
    assert_eq!(next, number(&json!("10.241.0.0")));
}

#[tokio::test]
async fn health_says_when_the_service_stops_and_when_the_database_is_gone() {
    let app = App::new().await;
    app.get("/livez").await.expect(200);
    app.get("/readyz").await.expect(200);
    app.service.stop();
    let stopping = app.get("/readyz").await.expect(503);
    stopping.expect_problem("unavailable", None);
    app.get("/livez").await.expect(200);
    app.store.close().await;
    app.get("/v1/vnets").await.expect(503).expect_problem("unavailable", None);
    let spec = json!({"addressSpace": ["10.240.0.0/12"]});
    let refused = app.put("/v1/vnets/prod", &spec).await.expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(!refused.text.to_lowercase().contains("sql"), "no internals: {}", refused.text);
    app.get("/livez").await.expect(200);
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let app = App::new().await;
    let reply = app.call(Method::GET, "/livez").header("x-request-id", "abc-1").send().await;
    assert_eq!(reply.header("x-request-id"), "abc-1");
    let too_long = "x".repeat(200);
    for bad in ["", "a b", too_long.as_str()] {
        let reply = app.call(Method::GET, "/livez").header("x-request-id", bad).send().await;
        assert_ne!(reply.header("x-request-id"), bad);
    }
}
