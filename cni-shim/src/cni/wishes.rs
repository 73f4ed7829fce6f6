use super::{
    CniError, Code, Dns, Invocation, NetConf,
    go_json::{known_case, known_case_within, null_is_default},
    port_wishes::{self, RawMapping},
};
use crate::{mac::Mac, ports::PortMapping};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// What a runtime asks for one pod, by the CNI conventions. Of several places that say the same thing the
/// first counts: `runtimeConfig`, then `args.cni`, then `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Addresses.
    pub ips: Option<WishedIps>,
    /// The MAC of the pod's interface.
    pub mac: Option<Mac>,
    /// Name service: the configuration's where it says anything, else the runtime's.
    pub dns: Dns,
    /// The node's ports that are to lead to it.
    pub ports: Vec<PortMapping>,
}

/// Addresses that a pod is to have, one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WishedIps {
    /// Where they are asked for.
    pub key: &'static str,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// `runtimeConfig`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Runtime {
    #[serde(default, deserialize_with = "null_is_default")]
    ips: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    mac: String,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: RuntimeDns,
    #[serde(default, rename = "portMappings", deserialize_with = "null_is_default")]
    port_mappings: Vec<RawMapping>,
}

#[derive(Debug, Default, Deserialize)]
struct RuntimeDns {
    #[serde(default, deserialize_with = "null_is_default")]
    servers: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    searches: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    options: Vec<String>,
}

/// `args.cni`, likewise.
#[derive(Debug, Default, Deserialize)]
struct Args {
    #[serde(default, deserialize_with = "null_is_default")]
    ips: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    mac: String,
}

/// Where a value comes from: whose mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    key: &'static str,
    code: Code,
}

impl Source {
    const fn stdin(key: &'static str) -> Self {
        Self { key, code: Code::InvalidConfig }
    }

    const fn environment(key: &'static str) -> Self {
        Self { key, code: Code::Environment }
    }

    fn invalid(self, value: &str, why: impl std::fmt::Display) -> CniError {
        CniError::new(self.code, format!("{} {value:?} is not valid", self.key)).details(why.to_string())
    }
}

impl Wishes {
    /// Reads what an ADD is asked for.
    ///
    /// # Errors
    /// Code 7 for what is wrong in the configuration, 4 for `CNI_ARGS`, naming key and value.
    pub fn read(invocation: &Invocation, conf: &NetConf) -> Result<Self, CniError> {
        let runtime: Runtime =
            part("runtimeConfig", &["ips", "mac", "dns", "portMappings"], conf.runtime_config.as_ref())?;
        let args: Args = part("args.cni", &["ips", "mac"], conf.args_cni.as_ref())?;
        let by_args = invocation.args.ip.as_deref().unwrap_or_default();
        let by_args = by_args.split(',').map(str::to_owned).collect();
        let ips = [
            (Source::stdin("runtimeConfig.ips"), runtime.ips),
            (Source::stdin("args.cni.ips"), args.ips),
            (Source::environment("CNI_ARGS IP"), by_args),
        ];
        let mac = [
            (Source::stdin("runtimeConfig.mac"), runtime.mac),
            (Source::stdin("args.cni.mac"), args.mac),
            (Source::environment("CNI_ARGS MAC"), invocation.args.mac.clone().unwrap_or_default()),
        ];
        let servers = conf.dns.nameservers.iter().map(|server| (Source::stdin("dns.nameservers"), server));
        let asked =
            runtime.dns.servers.iter().map(|server| (Source::stdin("runtimeConfig.dns.servers"), server));
        for (source, server) in servers.chain(asked) {
            name_server(source, server)?;
        }
        let asked = Dns {
            nameservers: runtime.dns.servers,
            domain: String::new(),
            search: runtime.dns.searches,
            options: runtime.dns.options,
        };
        Ok(Self {
            ips: first_ips(ips)?,
            mac: first_mac(mac)?,
            ports: port_wishes::mappings(&runtime.port_mappings)?,
            dns: if conf.dns == Dns::default() { asked } else { conf.dns.clone() },
        })
    }
}

fn part<T: Default + serde::de::DeserializeOwned>(
    name: &'static str,
    keys: &[&str],
    value: Option<&Value>,
) -> Result<T, CniError> {
    let invalid = |key: String, why: String| {
        CniError::new(Code::InvalidConfig, format!("{key} in the network configuration is not valid"))
            .details(why)
    };
    let object = match value {
        None | Some(Value::Null) => return Ok(T::default()),
        Some(Value::Object(object)) => object.clone(),
        Some(other) => return Err(invalid(name.to_owned(), format!("give an object, not {other}"))),
    };
    let mut object = known_case(object, keys);
    if let Some(Value::Object(dns)) = object.get_mut("dns") {
        *dns = known_case(std::mem::take(dns), &["servers", "searches", "options"]);
    }
    if let Some(mappings) = object.get_mut("portMappings") {
        *mappings = known_case_within(mappings.take(), &RawMapping::KEYS);
    }
    serde_path_to_error::deserialize(Value::Object(object))
        .map_err(|error| invalid(format!("{name}.{}", error.path()), error.inner().to_string()))
}

/// The addresses of the first place that has any; a prefix length behind one does not matter, for a pod has
/// its addresses alone.
fn first_ips(places: [(Source, Vec<String>); 3]) -> Result<Option<WishedIps>, CniError> {
    for (source, texts) in places {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let address = match text.parse::<IpNet>() {
                Ok(net) => net.addr(),
                Err(_) => text.parse().map_err(|_| {
                    source.invalid(text, "give an IPv4 or IPv6 address, with or without a prefix length")
                })?,
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            return Ok(Some(WishedIps { key: source.key, addresses }));
        }
    }
    Ok(None)
}

fn first_mac(places: [(Source, String); 3]) -> Result<Option<Mac>, CniError> {
    let Some((source, text)) = places.into_iter().find(|(_, text)| !text.is_empty()) else { return Ok(None) };
    let mac: Mac = text.parse().map_err(|why| source.invalid(&text, why))?;
    if !mac.is_assignable() {
        return Err(source.invalid(&text, "an interface has one that is neither zero nor a group's"));
    }
    Ok(Some(mac))
}

/// Runtimes parse these and fail the container over one that they cannot.
fn name_server(source: Source, text: &str) -> Result<(), CniError> {
    // A link-local server is one on an interface.
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(source.invalid(text, "give the name server's IP address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{CniArgs, netconf};
    use proptest::prelude::*;
    use serde_json::json;

    fn read(args: &str, more: &Value) -> Result<Wishes, CniError> {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "pods", "server": "unix:///s", "node": "n1"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let invocation = Invocation {
            container_id: "c".parse().unwrap(),
            if_name: "eth0".parse().unwrap(),
            netns: None,
            args: CniArgs::parse(args),
        };
        Wishes::read(&invocation, &NetConf::from_object(netconf::object(conf.to_string().as_bytes())?)?)
    }

    fn ips(wishes: &Wishes) -> (&str, String) {
        let ips = wishes.ips.as_ref().unwrap();
        (ips.key, ips.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_runtimes_send_is_understood() {
        assert_eq!(read("", &json!({})).unwrap(), Wishes::default());
        // Multus, podman with several, and one that Go has written.
        let multus = read("IP=10.0.0.7,fd00::7;MAC=02:00:00:00:00:07", &json!({})).unwrap();
        assert_eq!(ips(&multus), ("CNI_ARGS IP", "10.0.0.7 fd00::7".to_owned()));
        assert_eq!(multus.mac.unwrap().to_string(), "02:00:00:00:00:07");
        let podman = read(
            "",
            &json!({"runtimeConfig": {"ips": ["10.0.0.7/24", "10.0.0.7"], "mac": "02:00:00:00:00:08"}}),
        );
        assert_eq!(ips(&podman.unwrap()), ("runtimeConfig.ips", "10.0.0.7".to_owned()));
        let go = json!({"RuntimeConfig": {"IPs": null, "Mac": "", "DNS": {"Servers": ["9.9.9.9"], "Searches": ["x"], "Options": null}}});
        let go = read("", &go).unwrap();
        assert_eq!((go.dns.nameservers[0].as_str(), go.dns.search[0].as_str()), ("9.9.9.9", "x"));
        assert_eq!((go.ips, go.mac), (None, None));
        // containerd does not write its keys as the conventions do.
        let containerd = json!({"runtimeConfig": {"portMappings": [
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}
        ]}});
        assert_eq!(read("", &containerd).unwrap().ports[0].to_string(), "tcp 8080");
    }

    #[test]
    fn the_first_place_that_says_anything_counts() {
        let args = json!({"cni": {"IPs": ["10.0.0.2"], "mac": "02:00:00:00:00:02", "labels": [1]}});
        let all = json!({"runtimeConfig": {"ips": ["10.0.0.1"]}, "args": args});
        let wishes = read("IP=10.0.0.3;MAC=02:00:00:00:00:03", &all).unwrap();
        assert_eq!(ips(&wishes), ("runtimeConfig.ips", "10.0.0.1".to_owned()));
        assert_eq!(wishes.mac.unwrap().to_string(), "02:00:00:00:00:02");
        let wishes =
            read("IP=10.0.0.3", &json!({"Args": {"CNI": args["cni"]}, "runtimeConfig": null})).unwrap();
        assert_eq!(ips(&wishes), ("args.cni.ips", "10.0.0.2".to_owned()));
    }

    #[test]
    fn the_configurations_name_service_wins() {
        let both = json!({"dns": {"search": ["a"]}, "runtimeConfig": {"dns": {"servers": ["9.9.9.9"]}}});
        let dns = read("", &both).unwrap().dns;
        assert_eq!((dns.search.len(), dns.nameservers.len()), (1, 0));
        let empty = json!({"dns": {}, "runtimeConfig": {"dns": {"servers": ["fe80::1%eth0"]}}});
        assert_eq!(read("", &empty).unwrap().dns.nameservers, ["fe80::1%eth0"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        for (args, conf, code, named) in [
            ("IP=10.0.0", json!({}), Code::Environment, ["CNI_ARGS IP", "10.0.0"]),
            ("MAC=02-00-00-00-00-01", json!({}), Code::Environment, ["CNI_ARGS MAC", "02-00"]),
            ("MAC=01:00:5e:00:00:01", json!({}), Code::Environment, ["CNI_ARGS MAC", "01:00:5e"]),
            ("MAC=00:00:00:00:00:00", json!({}), Code::Environment, ["CNI_ARGS MAC", "00:00"]),
            ("", json!({"runtimeConfig": {"mac": "x"}}), Code::InvalidConfig, ["runtimeConfig.mac", "\"x\""]),
            ("", json!({"runtimeConfig": {"ips": [7]}}), Code::InvalidConfig, ["runtimeConfig.ips[0]", "7"]),
            (
                "",
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 70_000}]}}),
                Code::InvalidConfig,
                ["runtimeConfig.portMappings[0].hostPort", "70000"],
            ),
            ("", json!({"runtimeConfig": [7]}), Code::InvalidConfig, ["runtimeConfig", "7"]),
            ("", json!({"args": {"cni": {"ips": ["y"]}}}), Code::InvalidConfig, ["args.cni.ips", "\"y\""]),
            ("", json!({"dns": {"nameservers": ["ns"]}}), Code::InvalidConfig, ["dns.nameservers", "\"ns\""]),
            (
                "",
                json!({"runtimeConfig": {"dns": {"servers": ["ns"]}}}),
                Code::InvalidConfig,
                ["runtimeConfig.dns.servers", "\"ns\""],
            ),
        ] {
            let error = read(args, &conf).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(named.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in ".*") {
            let _ = read(&format!("IP={text}"), &json!({"runtimeConfig": {"mac": text, "ips": [text]}}));
        }
    }
}
