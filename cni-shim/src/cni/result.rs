use super::{
    CniError, Code, SpecVersion,
    go_json::{known_case_within, null_is_default},
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
    /// Its MTU in bytes; said from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
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
    /// The routing table, where it is not the main one; such a route is told from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
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
    /// Of the result and all that is in it.
    const KEYS: [&str; 18] = [
        "interfaces",
        "ips",
        "routes",
        "dns",
        "name",
        "mac",
        "sandbox",
        "mtu",
        "address",
        "gateway",
        "interface",
        "dst",
        "gw",
        "table",
        "nameservers",
        "domain",
        "search",
        "options",
    ];

    /// The result in the words of a version.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> Value {
        if version < SpecVersion::V0_3_0 {
            return self.to_json_by_family(version);
        }
        let mut interfaces = self.interfaces.clone();
        if version < SpecVersion::V1_1_0 {
            interfaces.iter_mut().for_each(|interface| interface.mtu = None);
        }
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
            "interfaces": interfaces,
            "ips": ips,
            "routes": self.routes_in(version).collect::<Vec<_>>(),
            "dns": self.dns,
        })
    }

    /// The routes that a version can tell of: a reader of an older one would take any for the main table's.
    fn routes_in(&self, version: SpecVersion) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.table.is_none() || version >= SpecVersion::V1_1_0)
    }

    /// As 0.1.0 and 0.2.0 had it: one address a family with its routes, and no interfaces.
    fn to_json_by_family(&self, version: SpecVersion) -> Value {
        let mut object = json!({"cniVersion": version.as_str(), "dns": self.dns});
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) else { continue };
            let mut family = json!({"ip": ip.address});
            if let Some(gateway) = ip.gateway {
                family["gateway"] = json!(gateway);
            }
            let routes: Vec<&Route> =
                self.routes_in(version).filter(|route| route.dst.addr().is_ipv4() == v4).collect();
            if !routes.is_empty() {
                family["routes"] = json!(routes);
            }
            object[key] = family;
        }
        object
    }

    /// Reads a `prevResult`; keys it does not know are left out.
    ///
    /// # Errors
    /// Code 7 naming the field that cannot be read.
    pub fn from_json(value: Value) -> Result<Self, CniError> {
        if !value.is_object() {
            return Err(CniError::new(Code::InvalidConfig, "prevResult is not a JSON object"));
        }
        let value = known_case_within(value, &Self::KEYS);
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
                Interface {
                    name: "vn0".into(),
                    mac: "02:00:00:00:00:01".into(),
                    sandbox: String::new(),
                    mtu: Some(1500),
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    sandbox: "/run/n".into(),
                    mtu: Some(1500),
                },
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
                table: None,
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
        assert!(new["interfaces"][0].get("mtu").is_none());
        let newest = result().to_json(SpecVersion::V1_1_0);
        assert_eq!(newest["interfaces"][1]["mtu"], 1500);
        let mut apart = result();
        apart.routes[0].table = Some(7);
        assert_eq!(apart.to_json(SpecVersion::V1_1_0)["routes"][0]["table"], 7);
        assert_eq!(apart.to_json(SpecVersion::V1_0_0)["routes"], json!([]));
        assert!(newest["ips"][0].get("version").is_none());
    }

    #[test]
    fn the_oldest_versions_get_one_address_a_family() {
        for version in [SpecVersion::V0_1_0, SpecVersion::V0_2_0] {
            assert_eq!(
                result().to_json(version),
                json!({
                    "cniVersion": version.as_str(),
                    "ip4": {"ip": "10.0.0.7/32", "gateway": "169.254.1.1",
                            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]},
                    "ip6": {"ip": "fd00::7/128"},
                    "dns": {}
                })
            );
        }
        for version in [SpecVersion::V0_3_0, SpecVersion::V0_3_1] {
            let printed = result().to_json(version);
            assert_eq!(
                (&printed["ips"][1]["version"], &printed["ips"][1]["interface"]),
                (&json!("6"), &json!(1))
            );
        }
    }

    #[test]
    fn what_was_printed_is_read_back() {
        // prevResult of CHECK, which came with 0.4.0.
        for version in SpecVersion::ALL.into_iter().filter(|version| *version >= SpecVersion::V0_4_0) {
            let mut expected = result();
            if version < SpecVersion::V1_1_0 {
                expected.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
            }
            assert_eq!(PluginResult::from_json(result().to_json(version)).unwrap(), expected);
        }
    }

    #[test]
    fn nested_keys_match_as_go_matches_them() {
        let read = PluginResult::from_json(json!({
            "Interfaces": [{"Name": "eth0", "MAC": "02:00:00:00:00:02", "Sandbox": "/run/n", "PciID": "x"}],
            "IPS": [{"Address": "10.0.0.7/32", "Gateway": null, "Interface": 0, "Version": "4"}],
            "Routes": [{"DST": "0.0.0.0/0", "GW": "169.254.1.1"}],
            "Dns": {"NameServers": null, "Search": ["x"]}
        }))
        .unwrap();
        assert_eq!((read.interfaces[0].sandbox.as_str(), read.ips[0].interface), ("/run/n", Some(0)));
        assert_eq!((read.routes.len(), read.dns.search.len(), read.dns.nameservers.len()), (1, 1, 0));
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
