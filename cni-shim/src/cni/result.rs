use super::{
    CniError, Code, SpecVersion,
    go_json::{known_case, null_is_default},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What ADD prints, and what CHECK and DEL get back as `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PluginResult {
    /// Interfaces made, on the host and in the pod.
    #[serde(default, deserialize_with = "null_is_default")]
    pub interfaces: Vec<Interface>,
    /// Addresses of the pod.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ips: Vec<Ip>,
    /// Routes in the pod.
    #[serde(default, deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    /// Name service.
    #[serde(default, deserialize_with = "null_is_default")]
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// `CNI_NETNS` as it was given, for one in the pod; empty for one on the host.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index of its interface in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; without one the family's gateway counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Name service settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Servers' addresses.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    pub(super) const KEYS: [&str; 4] = ["nameservers", "domain", "search", "options"];
}

impl PluginResult {
    const KEYS: [&str; 4] = ["interfaces", "ips", "routes", "dns"];

    /// The result in the words of a version.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let ips: Vec<Value> = self
            .ips
            .iter()
            .map(|ip| {
                let mut value = json!(ip);
                if version < SpecVersion::V1_0_0 {
                    value["version"] = Value::from(if ip.address.addr().is_ipv4() { "4" } else { "6" });
                }
                value
            })
            .collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": self.interfaces,
            "ips": ips,
            "routes": self.routes,
            "dns": self.dns,
        })
    }

    /// Reads a `prevResult`; keys it does not know are left out.
    ///
    /// # Errors
    /// Code 7 naming the field that cannot be read.
    pub fn from_json(value: Value) -> Result<Self, CniError> {
        let Value::Object(object) = value else {
            return Err(CniError::new(Code::InvalidConfig, "prevResult is not a JSON object"));
        };
        let value = Value::Object(known_case(object, &Self::KEYS));
        serde_path_to_error::deserialize(value).map_err(|error| {
            CniError::new(Code::InvalidConfig, format!("prevResult: {} cannot be read", error.path()))
                .details(error.inner().to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> PluginResult {
        PluginResult {
            interfaces: vec![
                Interface { name: "vn0".into(), mac: "02:00:00:00:00:01".into(), sandbox: String::new() },
                Interface { name: "eth0".into(), mac: "02:00:00:00:00:02".into(), sandbox: "/run/n".into() },
            ],
            ips: vec![
                Ip {
                    address: "10.0.0.7/32".parse().unwrap(),
                    gateway: Some("169.254.1.1".parse().unwrap()),
                    interface: Some(1),
                },
                Ip { address: "fd00::7/128".parse().unwrap(), gateway: None, interface: Some(1) },
            ],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("169.254.1.1".parse().unwrap()),
            }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn each_version_gets_its_own_words() {
        let old = result().to_json(SpecVersion::V0_4_0);
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        let new = result().to_json(SpecVersion::V1_0_0);
        assert_eq!(new["cniVersion"], "1.0.0");
        assert!(new["ips"][0].get("version").is_none());
        assert!(new["interfaces"][0].get("sandbox").is_none());
        assert_eq!(new["dns"], json!({}));
    }

    #[test]
    fn what_was_printed_is_read_back() {
        for version in SpecVersion::ALL {
            assert_eq!(PluginResult::from_json(result().to_json(version)).unwrap(), result());
        }
    }

    #[test]
    fn null_and_foreign_keys_are_tolerated_and_nonsense_is_named() {
        let read = PluginResult::from_json(json!({"ips": null, "dns": null, "routes": null, "x": 1}));
        assert_eq!(read.unwrap(), PluginResult::default());
        let error = PluginResult::from_json(json!({"ips": [{"address": "nine"}]})).unwrap_err();
        assert!(error.msg.contains("ips[0].address"), "{error}");
        assert!(PluginResult::from_json(json!([])).is_err());
    }
}
