//! One request of each operation that makes sense to a furnished service.

use axum::http::Method;
use ipam_api::{token::Secret, wire::Role};
use serde_json::{Value, json};

/// An operation with a valid request.
#[derive(Debug, Clone)]
pub(crate) struct Example {
    pub(crate) id: String,
    pub(crate) method: Method,
    /// With `{name}` for its parameters.
    pub(crate) template: String,
    /// The same, filled in.
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    /// What the document says of it.
    pub(crate) operation: Value,
}

impl Example {
    /// The path with one parameter replaced by other text.
    pub(crate) fn with(&self, parameter: &str, text: &str) -> String {
        let hole = format!("{{{parameter}}}");
        self.template
            .split('/')
            .zip(self.path.split('/'))
            .map(|(template, filled)| if template == hole { text } else { filled })
            .collect::<Vec<_>>()
            .join("/")
    }

    /// The names of its parameters in one place (`path`, `query`, `header`).
    pub(crate) fn parameters(&self, place: &str) -> Vec<String> {
        self.operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The schema of its body.
    pub(crate) fn schema(&self) -> Value {
        self.operation["requestBody"]["content"]["application/json"]["schema"].clone()
    }
}

/// The id of the token that `App::furnished` makes of [`viewer`].
pub(crate) const VIEWER_ID: &str = "d7b071c29a21a626";

/// A viewer's token.
pub(crate) fn viewer() -> Secret {
    Secret::new(Role::Viewer, [1; 32])
}

/// The value of a path parameter.
fn parameter(operation: &str, name: &str) -> &'static str {
    match (operation, name) {
        ("putAllocation" | "getAllocation" | "deleteAllocation", "node") => "vm-1",
        (_, "node") => "node-1",
        (_, "vnet") => "prod",
        (_, "subnet") => "nodes",
        (_, "name") => "vms",
        (_, "pool") => "workers",
        (_, "containerId") => "c0",
        (_, "ifName") => "eth0",
        // The one that `App::furnished` made.
        (_, "token") => VIEWER_ID,
        (_, "ip") => "10.240.0.10",
        other => panic!("no example for {other:?}"),
    }
}

fn body(operation: &str) -> Value {
    match operation {
        "putVnet" => {
            json!({"addressSpace": ["10.240.0.0/12", "fd00:10::/48"], "serviceCidrs": ["10.0.0.0/16"]})
        }
        "patchVnet" => json!({"serviceCidrs": ["10.0.0.0/16"]}),
        "putSubnet" => json!({
            "cidrs": ["10.240.0.0/16", "fd00:10::/64"],
            "gateways": ["10.240.0.1", "fd00:10::1"],
            "reservePlatform": true
        }),
        "patchSubnet" => json!({"gateways": ["10.240.0.1", "fd00:10::1"], "reservePlatform": true}),
        "putReservation" => {
            json!({"first": "10.240.0.4", "last": "10.240.0.255", "reason": "the VMs' own", "forNodes": true})
        }
        "putPool" => json!({
            "subnets": [{"subnet": "prod/nodes", "nodes": 3}], "maxPods": 30, "nodes": 3, "surge": "10%",
            "headroom": 0, "alignment": "exact", "contiguous": "preferred", "nodeAddress": "external",
            "restSeconds": 130
        }),
        "patchPool" => json!({"nodes": 4, "surge": 1, "maxPods": 30, "restSeconds": 60}),
        "putNode" => json!({
            "pool": "workers", "addresses": ["10.240.0.10"], "mac": "02:00:0a:f0:00:0a", "uid": "u1",
            "replace": false, "allocator": "node"
        }),
        "putAllocation" => json!({"pod": {"namespace": "default", "name": "web-0", "uid": "p1"}}),
        "syncNode" => json!({
            "asOfSeq": 100,
            "entries": [{
                "network": "default", "containerId": "c1", "ifName": "eth0", "address": "10.240.1.4",
                "state": "wired", "seq": 50, "ageSeconds": 1, "pod": {"name": "web-1"}
            }],
            "conflicts": [{"address": "10.240.1.5", "mac": "02:00:0a:f0:00:0b", "ageSeconds": 1}]
        }),
        "createToken" => json!({"name": "alice", "role": "planner", "expiresInSeconds": 3600}),
        "putCredential" => json!({"token": format!("ipam_node_{}", "A".repeat(43))}),
        "plan" => json!({
            "subnets": [{"subnet": "test/nodes", "cidrs": ["10.1.0.0/22"]}],
            "pools": [{"name": "big", "subnets": [{"subnet": "test/nodes"}], "maxPods": 30, "nodes": 20, "surge": 1}]
        }),
        other => panic!("no example for {other}"),
    }
}

/// Every operation of the document.
pub(crate) fn examples(document: &Value) -> Vec<Example> {
    let mut all = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let path = template
                .split('/')
                .map(|segment| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) => parameter(&id, name),
                    None => segment,
                })
                .collect::<Vec<_>>()
                .join("/");
            all.push(Example {
                method: method.to_uppercase().parse().unwrap(),
                template: template.clone(),
                path,
                body: operation.get("requestBody").map(|_| body(&id)),
                operation: operation.clone(),
                id,
            });
        }
    }
    all
}
