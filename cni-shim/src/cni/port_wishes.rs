//! `runtimeConfig.portMappings`, by the CNI conventions.

use super::{
    CniError, Code,
    go_json::{known_case_within, null_is_default},
};
use crate::ports::PortMapping;
use ipam_api::names::NetworkName;
use serde::Deserialize;
use serde_json::Value;
use std::{net::IpAddr, num::NonZeroU16};

const KEY: &str = "runtimeConfig.portMappings";

/// One mapping as runtimes write it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawMapping {
    #[serde(default, deserialize_with = "null_is_default")]
    host_port: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    container_port: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    protocol: String,
    #[serde(default, rename = "hostIP", deserialize_with = "null_is_default")]
    host_ip: String,
}

impl RawMapping {
    /// The keys of a mapping, as the conventions spell them.
    pub(super) const KEYS: [&str; 4] = ["hostPort", "containerPort", "protocol", "hostIP"];
}

/// The mappings of a pod. One without a port of the node asks for nothing: runtimes pass on every port that
/// a container declares.
///
/// # Errors
/// Code 7, and 2 for an address that nobody can be led on from, naming key and value.
pub(super) fn mappings(raw: &[RawMapping]) -> Result<Vec<PortMapping>, CniError> {
    let mut mappings: Vec<PortMapping> = Vec::new();
    for (n, raw) in raw.iter().enumerate() {
        let invalid = |key: &str, value: &str, why: &str| {
            CniError::new(Code::InvalidConfig, format!("{KEY}[{n}].{key} {value:?} is not valid"))
                .details(why.to_owned())
        };
        let Some(host_port) = NonZeroU16::new(raw.host_port) else { continue };
        let container_port = NonZeroU16::new(raw.container_port)
            .ok_or_else(|| invalid("containerPort", "0", "give the pod's port, 1 to 65535"))?;
        let protocol = match raw.protocol.as_str() {
            "" => Ok(crate::ports::Protocol::default()),
            text => text.parse(),
        };
        let protocol = protocol.map_err(|why| invalid("protocol", &raw.protocol, &why.to_string()))?;
        let host_ip = match raw.host_ip.as_str() {
            "" => None,
            text => {
                let address: IpAddr = text.parse().map_err(|_| {
                    invalid("hostIP", text, "give an address of the node, or leave it out for all of them")
                })?;
                Some(address.to_canonical())
            }
        };
        if host_ip.is_some_and(|address| address.is_ipv6() && address.is_loopback()) {
            return Err(CniError::new(
                Code::UnsupportedField,
                format!("{KEY}[{n}].hostIP {:?} is not supported", raw.host_ip),
            )
            .details(
                "the kernel leads nobody from ::1 to a pod: give 127.0.0.1, or an address of the node",
            ));
        }
        let mapping = PortMapping { protocol, host_ip, host_port, container_port };
        if mappings.iter().any(|other| other.overlaps(mapping)) {
            return Err(invalid("hostPort", &mapping.to_string(), "it is asked for twice: give each once"));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

/// Whether a file of the runtime's is the list of this network and has the plugin `portmap` do port mappings.
#[must_use]
pub fn chains_portmap(text: &[u8], network: &NetworkName) -> bool {
    let Ok(list) = serde_json::from_slice::<Value>(text) else { return false };
    let list = known_case_within(list, &["name", "plugins", "type", "capabilities", "portMappings"]);
    let does = |plugin: &Value| plugin["type"] == "portmap" && plugin["capabilities"]["portMappings"] == true;
    list["name"] == network.as_str() && list["plugins"].as_array().is_some_and(|all| all.iter().any(does))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(mappings: &Value) -> Result<Vec<String>, CniError> {
        let raw: Vec<RawMapping> = serde_json::from_value(mappings.clone()).unwrap();
        let told = |one: &PortMapping| format!("{one} {}", one.container_port);
        super::mappings(&raw).map(|all| all.iter().map(told).collect())
    }

    #[test]
    fn what_runtimes_send_is_understood() {
        let all = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8080, "containerPort": 53, "protocol": "UDP", "hostIP": ""},
            {"hostPort": 9000, "containerPort": 9000, "hostIP": "127.0.0.1"},
            {"hostPort": 9000, "containerPort": 9001, "protocol": "Tcp", "hostIP": "10.240.0.10"},
            {"hostPort": 5000, "containerPort": 5000, "protocol": "SCTP", "hostIP": "::ffff:10.240.0.10"},
            {"hostPort": 0, "containerPort": 81, "protocol": "tcp"},
            {"containerPort": 82, "protocol": null}
        ]);
        let told = [
            "tcp 8080 80",
            "udp 8080 53",
            "tcp 127.0.0.1:9000 9000",
            "tcp 10.240.0.10:9000 9001",
            "sctp 10.240.0.10:5000 5000",
        ];
        assert_eq!(read(&all).unwrap(), told);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        for (mapping, code, words) in [
            (json!({"hostPort": 80}), Code::InvalidConfig, ["[0].containerPort", "0"]),
            (
                json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}),
                Code::InvalidConfig,
                ["protocol", "icmp"],
            ),
            (
                json!({"hostPort": 80, "containerPort": 80, "hostIP": "lo"}),
                Code::InvalidConfig,
                ["hostIP", "lo"],
            ),
            (
                json!({"hostPort": 80, "containerPort": 80, "hostIP": "::1"}),
                Code::UnsupportedField,
                ["hostIP", "127.0.0.1"],
            ),
        ] {
            let error = read(&json!([mapping])).unwrap_err();
            assert!(
                error.code == code && words.iter().all(|word| error.to_string().contains(word)),
                "{error}"
            );
        }
        let twice = json!([
            {"hostPort": 80, "containerPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "containerPort": 81}
        ]);
        assert!(read(&twice).unwrap_err().msg.contains("[1].hostPort \"tcp 80\""));
    }

    #[test]
    fn portmap_is_seen_in_the_list_of_the_network_alone() {
        let network = "vnet".parse().unwrap();
        let list = |name: &str, plugin: Value| {
            json!({"name": name, "plugins": [{"type": "cni-shim"}, plugin]}).to_string()
        };
        let does = json!({"Type": "portmap", "Capabilities": {"portMappings": true}});
        assert!(chains_portmap(list("vnet", does.clone()).as_bytes(), &network));
        assert!(!chains_portmap(list("other", does).as_bytes(), &network));
        assert!(!chains_portmap(list("vnet", json!({"type": "portmap"})).as_bytes(), &network));
        assert!(!chains_portmap(list("vnet", json!("portmap")).as_bytes(), &network));
        for text in ["", "[]", "{}", "{\"name\": \"vnet\", \"plugins\": 7}"] {
            assert!(!chains_portmap(text.as_bytes(), &network), "{text}");
        }
    }
}
