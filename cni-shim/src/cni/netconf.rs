use super::{
    CniError, Code, Dns, SpecVersion, ValidAttachments,
    go_json::{known_case, null_is_default},
};
use ipam_api::{
    client::Server,
    names::{NetworkName, NodeName, PoolName},
};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{path::PathBuf, time::Duration};

/// How a pod is wired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Routed: the pod shares no layer 2 with anyone.
    #[default]
    Transparent,
    /// On a bridge.
    Bridge,
    /// A macvlan child of the uplink.
    Macvlan,
    /// An ipvlan child of the uplink.
    Ipvlan,
}

/// What ADD does while the service cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnreachable {
    /// Goes on from the node's block; the service hears of it later.
    #[default]
    UseBlock,
    /// Fails with code 11.
    Fail,
}

/// Least severe message that is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What should not be.
    Warn,
    /// One line a verb.
    #[default]
    Info,
    /// Every step.
    Debug,
}

/// One plugin's configuration, checked.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// The version its result is printed in.
    pub version: SpecVersion,
    /// Name of the network.
    pub network: NetworkName,
    /// How to reach the service and where the journal is.
    pub node: NodeConf,
    /// Pool that the node belongs to, for tools that register it.
    pub pool: Option<PoolName>,
    /// How pods are wired.
    pub mode: Mode,
    /// The node's interface to the VNet; by default that of the default route.
    pub uplink: Option<String>,
    /// MTU of pods' interfaces in bytes; `None`: the uplink's.
    pub mtu: Option<u32>,
    /// Whether packets that leave the VNet get the node's address as source.
    pub ip_masq: bool,
    /// Destinations that are never masqueraded, besides the VNet's own.
    pub non_masquerade: Vec<IpNet>,
    /// Whether pods of this node are kept from the clouds' metadata services.
    pub block_metadata: bool,
    /// Where the runtime has its lists of plugins: looked into when a pod asks for ports of the node.
    pub conf_dir: PathBuf,
    /// What ADD does while the service cannot be reached.
    pub when_unreachable: WhenUnreachable,
    /// Name service for pods, passed into results.
    pub dns: Dns,
    /// The result of the plugins before, for ADD, or of ADD, for CHECK and DEL. Not
    /// read yet: DEL must not fail over it.
    pub prev_result: Option<Value>,
    /// What the runtime passes on by capability. Not read yet: only ADD needs it.
    pub runtime_config: Option<Value>,
    /// What the configuration asks for by the conventions (`args.cni`). Likewise.
    pub args_cni: Option<Value>,
    /// The lists of attachments that GC gets, as far as they are there. Likewise.
    pub attachment_lists: Vec<(&'static str, Value)>,
    /// Where messages go; standard error without one.
    pub log_file: Option<PathBuf>,
    /// Least severe message that is written.
    pub log_level: LogLevel,
}

/// What every network of a node has in common: its service and its directories.
#[derive(Debug, Clone)]
pub struct NodeConf {
    /// Addresses of the service, tried in order; empty only where a verb needs none.
    pub servers: Vec<Server>,
    /// The node's name.
    pub name: NodeName,
    /// The journal, on a file system that a reboot empties.
    pub state_dir: PathBuf,
    /// What outlives a reboot.
    pub data_dir: PathBuf,
    /// Files of what proves who is who.
    pub access: AccessFiles,
    /// Longest wait for the service in one call.
    pub timeout: Duration,
    /// The file with the kernel's boot id.
    pub boot_id_file: PathBuf,
}

/// Files of what proves to the service who this node is, and the other way round. They are
/// read with every call, so that they can be changed, and one that cannot be used is an outage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessFiles {
    /// The token.
    pub token: Option<PathBuf>,
    /// Certificates of the CAs that may vouch for an `https` service; nobody else's count.
    pub ca: Option<PathBuf>,
    /// The client certificate; goes with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl NodeConf {
    /// Refuses what no call could ever get through with: each would look like an outage.
    ///
    /// # Errors
    /// Code 7, naming the key that is missing.
    pub fn check_access(&self) -> Result<(), CniError> {
        if let Some(server) = self.servers.iter().find(|server| server.is_tls())
            && self.access.ca.is_none()
        {
            return Err(invalid(
                "caFile",
                &format!(
                    "it is missing, and {server} is verified by it alone: name the file with its CA's certificate"
                ),
            ));
        }
        let (missing, there) = match (&self.access.cert, &self.access.key) {
            (Some(_), None) => ("keyFile", "certFile"),
            (None, Some(_)) => ("certFile", "keyFile"),
            (Some(_), Some(_)) | (None, None) => return Ok(()),
        };
        Err(invalid(missing, &format!("it is missing and {there} is there: give both or none")))
    }
}

/// Default of `stateDir`.
pub const STATE_DIR: &str = "/run/cni-shim";
/// Default of `dataDir`.
pub const DATA_DIR: &str = "/var/lib/cni-shim";
/// Default of `confDir`.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Default of `bootIdFile`.
pub const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Default of `timeoutSeconds`.
pub const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
    server: Option<OneOrMany>,
    #[serde(default, deserialize_with = "null_is_default")]
    node: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pool: String,
    #[serde(default, deserialize_with = "null_is_default")]
    mode: Mode,
    #[serde(default, deserialize_with = "null_is_default")]
    uplink: String,
    #[serde(default, deserialize_with = "null_is_default")]
    mtu: u32,
    #[serde(default, deserialize_with = "null_is_default")]
    ip_masq: bool,
    #[serde(default, rename = "nonMasqueradeCIDRs", deserialize_with = "null_is_default")]
    non_masquerade: Vec<IpNet>,
    #[serde(default, deserialize_with = "null_is_default")]
    block_metadata: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    conf_dir: String,
    #[serde(default, deserialize_with = "null_is_default")]
    when_unreachable: WhenUnreachable,
    #[serde(default, deserialize_with = "null_is_default")]
    state_dir: String,
    #[serde(default, deserialize_with = "null_is_default")]
    data_dir: String,
    #[serde(default, deserialize_with = "null_is_default")]
    token_file: String,
    #[serde(default, deserialize_with = "null_is_default")]
    ca_file: String,
    #[serde(default, deserialize_with = "null_is_default")]
    cert_file: String,
    #[serde(default, deserialize_with = "null_is_default")]
    key_file: String,
    timeout_seconds: Option<f64>,
    #[serde(default, deserialize_with = "null_is_default")]
    boot_id_file: String,
    #[serde(default, deserialize_with = "null_is_default")]
    log_file: String,
    #[serde(default, deserialize_with = "null_is_default")]
    log_level: LogLevel,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: Dns,
    prev_result: Option<Value>,
    runtime_config: Option<Value>,
    args: Option<Value>,
}

impl Raw {
    const KEYS: [&str; 30] = [
        "cniVersion",
        "name",
        "server",
        "node",
        "pool",
        "mode",
        "uplink",
        "mtu",
        "ipMasq",
        "nonMasqueradeCIDRs",
        "blockMetadata",
        "confDir",
        "whenUnreachable",
        "stateDir",
        "dataDir",
        "tokenFile",
        "caFile",
        "certFile",
        "keyFile",
        "timeoutSeconds",
        "bootIdFile",
        "logFile",
        "logLevel",
        "dns",
        "prevResult",
        "runtimeConfig",
        "args",
        ValidAttachments::KEYS[0],
        ValidAttachments::KEYS[1],
        "type",
    ];
}

fn invalid(key: &str, why: &dyn std::fmt::Display) -> CniError {
    CniError::new(Code::InvalidConfig, format!("{key} in the network configuration is not valid"))
        .details(why.to_string())
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn directory(key: &str, text: String, default: &str) -> Result<PathBuf, CniError> {
    let path = PathBuf::from(filled(text).unwrap_or_else(|| default.to_owned()));
    if path.is_absolute() { Ok(path) } else { Err(invalid(key, &"give an absolute path")) }
}

fn file(key: &str, text: String) -> Result<Option<PathBuf>, CniError> {
    filled(text).map(|text| directory(key, text, "")).transpose()
}

/// A server of the configuration: names are not resolved, so an IP address or a socket.
///
/// # Errors
/// Says which forms there are.
pub fn server(text: &str) -> Result<Server, String> {
    let server: Server = text.parse().map_err(|error: ipam_api::client::ClientError| error.to_string())?;
    if server.ip().is_none() && server.socket_path().is_none() {
        return Err(format!(
            "{text}: host names are not resolved: write https://IP:PORT, http://IP:PORT or unix:///path/of/socket"
        ));
    }
    Ok(server)
}

/// The node's name as the kernel has it.
///
/// # Errors
/// The kernel's host name cannot be read or is no node name.
pub fn host_name() -> Result<NodeName, String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| error.to_string())?;
    text.trim().to_ascii_lowercase().parse().map_err(|error: ipam_api::names::InvalidName| error.to_string())
}

/// Timeouts of the configuration: 0.05 to 60 seconds.
///
/// # Errors
/// Outside that range.
pub fn timeout(seconds: f64) -> Result<Duration, String> {
    if (0.05..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("give 0.05 to 60 seconds".to_owned())
    }
}

impl NetConf {
    /// Reads one plugin's configuration, as standard input has it.
    ///
    /// # Errors
    /// Code 6 for what is not a JSON object, 1 for a `cniVersion` that is not
    /// spoken, 2 for a mode that is not built, 7 for everything else, naming the key.
    pub fn parse(text: &[u8]) -> Result<Self, CniError> {
        Self::from_object(object(text)?)
    }

    /// As [`NetConf::parse`], from JSON already read.
    ///
    /// # Errors
    /// As [`NetConf::parse`].
    pub fn from_object(object: Map<String, Value>) -> Result<Self, CniError> {
        let mut object = known_case(object, &Raw::KEYS);
        // The version decides how the rest is to be understood: it is looked at first.
        let version = match object.get("cniVersion") {
            None | Some(Value::Null) => SpecVersion::of("")?,
            Some(Value::String(version)) => SpecVersion::of(version)?,
            Some(_) => return Err(invalid("cniVersion", &"give a text such as \"1.0.0\"")),
        };
        if let Some(Value::Object(dns)) = object.get_mut("dns") {
            *dns = known_case(std::mem::take(dns), &Dns::KEYS);
        }
        if let Some(Value::String(mode)) = object.get("mode")
            && mode.is_empty()
        {
            object.remove("mode");
        }
        let lists = ValidAttachments::KEYS.into_iter();
        let lists = lists.filter_map(|key| Some((key, object.remove(key)?))).collect();
        let raw: Raw = serde_path_to_error::deserialize(Value::Object(object))
            .map_err(|error| invalid(&error.path().to_string(), error.inner()))?;
        Ok(Self { attachment_lists: lists, ..Self::check(raw, version)? })
    }

    fn check(raw: Raw, version: SpecVersion) -> Result<Self, CniError> {
        let network = raw.name.parse().map_err(|why| invalid("name", &why))?;
        if raw.mode != Mode::Transparent {
            return Err(CniError::new(
                Code::UnsupportedField,
                format!("mode {:?} is not supported", raw.mode).to_lowercase(),
            )
            .details("write \"mode\": \"transparent\" or leave it out"));
        }
        let servers = match raw.server {
            None => {
                return Err(invalid(
                    "server",
                    &"it is missing: give https://IP:PORT, http://IP:PORT or unix:///path/of/socket",
                ));
            }
            Some(OneOrMany::One(one)) => vec![one],
            Some(OneOrMany::Many(many)) => many,
        };
        if servers.is_empty() {
            return Err(invalid(
                "server",
                &"give at least one: https://IP:PORT, http://IP:PORT or unix:///path/of/socket",
            ));
        }
        let servers = servers.iter().map(|text| server(text)).collect::<Result<_, _>>();
        let name = match filled(raw.node) {
            Some(name) => name.parse().map_err(|why| invalid("node", &why))?,
            None => host_name().map_err(|why| invalid("node", &format!("it is missing and {why}")))?,
        };
        if raw.uplink.parse::<ipam_api::names::IfName>().is_err() && !raw.uplink.is_empty() {
            return Err(invalid("uplink", &"give the name of an interface"));
        }
        if raw.mtu != 0 && !(576..=65_535).contains(&raw.mtu) {
            return Err(invalid("mtu", &"give 576 to 65535 bytes, or 0 for the uplink's"));
        }
        let timeout = raw.timeout_seconds.map_or(Ok(TIMEOUT), timeout);
        Ok(Self {
            version,
            network,
            node: NodeConf {
                servers: servers.map_err(|why| invalid("server", &why))?,
                name,
                state_dir: directory("stateDir", raw.state_dir, STATE_DIR)?,
                data_dir: directory("dataDir", raw.data_dir, DATA_DIR)?,
                access: AccessFiles {
                    token: file("tokenFile", raw.token_file)?,
                    ca: file("caFile", raw.ca_file)?,
                    cert: file("certFile", raw.cert_file)?,
                    key: file("keyFile", raw.key_file)?,
                },
                timeout: timeout.map_err(|why| invalid("timeoutSeconds", &why))?,
                boot_id_file: directory("bootIdFile", raw.boot_id_file, BOOT_ID_FILE)?,
            },
            pool: filled(raw.pool)
                .map(|pool| pool.parse().map_err(|why| invalid("pool", &why)))
                .transpose()?,
            mode: raw.mode,
            uplink: filled(raw.uplink),
            mtu: Some(raw.mtu).filter(|&mtu| mtu != 0),
            ip_masq: raw.ip_masq,
            non_masquerade: raw.non_masquerade,
            block_metadata: raw.block_metadata,
            conf_dir: directory("confDir", raw.conf_dir, CONF_DIR)?,
            when_unreachable: raw.when_unreachable,
            dns: raw.dns,
            prev_result: raw.prev_result,
            runtime_config: raw.runtime_config,
            args_cni: raw.args.and_then(|args| match args {
                Value::Object(args) => known_case(args, &["cni"]).remove("cni"),
                _ => None,
            }),
            attachment_lists: Vec::new(),
            log_file: file("logFile", raw.log_file)?,
            log_level: raw.log_level,
        })
    }
}

/// A JSON object.
///
/// # Errors
/// Code 6 for anything else.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, CniError> {
    let wrong = |why: String| {
        CniError::new(Code::Decode, "the network configuration is not a JSON object").details(why)
    };
    if text.trim_ascii().is_empty() {
        return Err(wrong("standard input is empty: the runtime sends it there".to_owned()));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(wrong("it is JSON of another kind".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<NetConf, CniError> {
        NetConf::parse(value.to_string().as_bytes())
    }

    fn least() -> Value {
        json!({"cniVersion": "1.0.0", "name": "pods", "type": "cni-shim", "server": "http://127.0.0.1:8420", "node": "n1"})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut conf = least();
        conf[key] = value;
        conf
    }

    #[test]
    fn defaults_are_the_contracts() {
        let conf = parse(&least()).unwrap();
        assert_eq!(conf.node.state_dir, PathBuf::from("/run/cni-shim"));
        assert_eq!(conf.node.data_dir, PathBuf::from("/var/lib/cni-shim"));
        assert_eq!(conf.node.timeout, Duration::from_secs(1));
        assert_eq!(conf.when_unreachable, WhenUnreachable::UseBlock);
        assert_eq!(conf.mtu, None);
        assert!(!conf.ip_masq && !conf.block_metadata);
        assert_eq!(conf.conf_dir, PathBuf::from("/etc/cni/net.d"));
    }

    #[test]
    fn keys_match_as_go_matches_them_and_null_is_nothing() {
        let conf = parse(&json!({
            "CNIVersion": "0.4.0", "Name": "pods", "TYPE": "cni-shim", "Server": ["http://[fd00::1]:80", "unix:///s"],
            "NODE": "n1", "nonmasqueradecidrs": null, "DNS": {"Servers": ["9.9.9.9"], "NameServers": ["1.1.1.1"]},
            "prevResult": null, "capabilities": {"ips": true}, "cni.dev/x": [1], "stateDir": "", "ipMasq": true
        }))
        .unwrap();
        assert_eq!(conf.version, SpecVersion::V0_4_0);
        assert_eq!(conf.node.servers.len(), 2);
        assert_eq!(conf.dns.nameservers, ["1.1.1.1"]);
        assert!(conf.prev_result.is_none() && conf.ip_masq);
    }

    #[test]
    fn no_version_is_the_oldest() {
        let mut conf = least();
        for empty in [json!(""), Value::Null] {
            conf["cniVersion"] = empty;
            assert_eq!(parse(&conf).unwrap().version, SpecVersion::V0_1_0);
        }
        conf.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(parse(&conf).unwrap().version, SpecVersion::V0_1_0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (key, value, code) in [
            ("cniVersion", json!("1.2.0"), Code::IncompatibleVersion),
            ("cniVersion", json!(1), Code::InvalidConfig),
            ("name", json!("-"), Code::InvalidConfig),
            ("name", Value::Null, Code::InvalidConfig),
            ("server", Value::Null, Code::InvalidConfig),
            ("server", json!([]), Code::InvalidConfig),
            ("server", json!("http://ipam.example.com"), Code::InvalidConfig),
            ("server", json!("https://ipam.example.com"), Code::InvalidConfig),
            ("caFile", json!("ca.pem"), Code::InvalidConfig),
            ("node", json!("A_b"), Code::InvalidConfig),
            ("mode", json!("bridge"), Code::UnsupportedField),
            ("mode", json!("magic"), Code::InvalidConfig),
            ("mtu", json!(-1), Code::InvalidConfig),
            ("mtu", json!(68), Code::InvalidConfig),
            ("timeoutSeconds", json!(0), Code::InvalidConfig),
            ("whenUnreachable", json!("pray"), Code::InvalidConfig),
            ("stateDir", json!("run"), Code::InvalidConfig),
            ("nonMasqueradeCIDRs", json!(["x"]), Code::InvalidConfig),
            ("blockMetadata", json!("yes"), Code::InvalidConfig),
            ("confDir", json!("net.d"), Code::InvalidConfig),
        ] {
            let error = parse(&with(key, value.clone())).unwrap_err();
            assert_eq!(error.code, code, "{key} {value}: {error}");
            assert!(error.to_string().contains(key), "{key} {value}: {error}");
        }
    }

    #[test]
    fn what_no_call_could_get_through_with_is_named_where_it_matters() {
        let secure = |more: Value| {
            let mut conf = with("server", json!(["unix:///s", "https://10.0.0.1:8420"]));
            conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parse(&conf).unwrap().node
        };
        let missing = |more: Value| secure(more).check_access().unwrap_err();
        for (error, key) in [
            (missing(json!({})), "caFile"),
            (missing(json!({"caFile": "/ca", "certFile": "/c"})), "keyFile"),
            (missing(json!({"caFile": "/ca", "keyFile": "/k"})), "certFile"),
        ] {
            assert!(error.code == Code::InvalidConfig && error.msg.starts_with(key), "{error}");
        }
        let all =
            secure(json!({"CAFile": "/ca", "certFile": "/c", "keyFile": "/k", "tokenFile": "/t", "x": 1}));
        all.check_access().unwrap();
        let [ca, cert, key, token] = ["/ca", "/c", "/k", "/t"].map(|path| Some(PathBuf::from(path)));
        assert_eq!(all.access, AccessFiles { token, ca, cert, key });
        parse(&least()).unwrap().node.check_access().unwrap();
    }

    #[test]
    fn what_is_no_object_is_a_decoding_error() {
        for text in ["", " ", "{", "[]", "1", "\u{0}"] {
            assert_eq!(NetConf::parse(text.as_bytes()).unwrap_err().code, Code::Decode, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_upsets_it(text in ".*") {
            let _ = NetConf::parse(text.as_bytes());
        }
    }
}
