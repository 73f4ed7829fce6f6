//! What the agent tells of a node at `/metrics`: verbs are counted whether or not it runs.

use crate::{agent::Agent, node::Node};
use serde_json::json;

#[test]
fn verbs_that_ended_before_the_agent_began_are_in_its_metrics() {
    let node = Node::new();
    let pods: Vec<_> = (0..5).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate().take(4) {
        node.add(&format!("c{n}"), pod).done();
    }
    node.add("one-too-many", &pods[4]).failed(102);
    node.del("c0", &pods[0].path()).done();
    // Used again at once: its rest is of the least kind that is told apart.
    node.add("c4", &pods[4]).done();
    node.run("CHECK", "c4", &pods[4].path(), &json!({"cniVersion": "1.0.0"})).failed(7);

    let agent = Agent::start(&node);
    assert!(agent.get("/livez").ends_with("ok\n"));
    for (name, value) in [
        ("cni_shim_verb_duration_seconds_count{verb=\"ADD\"}", 6.0),
        ("cni_shim_verb_duration_seconds_bucket{le=\"+Inf\",verb=\"ADD\"}", 6.0),
        ("cni_shim_verb_duration_seconds_count{verb=\"DEL\"}", 1.0),
        ("cni_shim_verb_failures_total{verb=\"ADD\",code=\"102\"}", 1.0),
        ("cni_shim_reuse_age_seconds_count", 1.0),
        ("cni_shim_addresses_used", 4.0),
        ("cni_shim_addresses_left", 0.0),
        ("cni_shim_entries_unsynced", 0.0),
    ] {
        assert_eq!(agent.metric(name), Some(value), "{name} in {}", agent.get("/metrics"));
    }
    let contact = agent.metric("cni_shim_last_contact_timestamp_seconds").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - contact).abs() < 60.0, "{contact} at {now}");

    // What happens while it runs is there with the next scrape.
    node.service.state().lose("DELETE");
    node.del("c1", &pods[1].path()).done();
    assert_eq!(agent.metric("cni_shim_addresses_left"), Some(1.0));
    assert!(agent.metric("cni_shim_service_unreachable_total").unwrap() >= 1.0);
    assert_eq!(agent.metric("cni_shim_entries_unsynced"), Some(1.0));
}
