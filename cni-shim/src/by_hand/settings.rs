use super::{Conf, Format};
use crate::{
    cni::netconf::{
        self, AccessFiles, BOOT_ID_FILE, DATA_DIR, NetConf, NodeConf, STATE_DIR, TIMEOUT, object,
    },
    install::Source,
};
use clap::Args;
use ipam_api::names::{NetworkName, NodeName};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Which node this is; by default what the first of our configurations would say.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// A network configuration, or a list of plugins with one of ours, to take everything else from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The service: `https://IP:PORT`, `http://IP:PORT` or `unix:///path/of/socket`; may be given several times
    #[arg(long, value_name = "URL", env = "IPAM_SERVER")]
    server: Vec<String>,
    /// This node's name; by default its host name
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Where the journal is
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Where the claim is
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The interface to the VNet; by default that of the default route
    #[arg(long, value_name = "INTERFACE")]
    uplink: Option<String>,
    /// The file with this node's token
    #[arg(long, value_name = "FILE", env = "IPAM_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Certificates of the CAs that may vouch for an https service
    #[arg(long, value_name = "FILE", env = "IPAM_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The client certificate to show to an https service; with --key-file
    #[arg(long, value_name = "FILE", env = "IPAM_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, value_name = "FILE", env = "IPAM_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// The file with the kernel's boot id
    #[arg(long, value_name = "FILE", hide = true)]
    boot_id_file: Option<PathBuf>,
    /// How output looks
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

impl Settings {
    /// As [`Settings::read`], with a service that can be called.
    pub(super) fn read_to_call(&self) -> Result<Conf, String> {
        let conf = self.read()?;
        if conf.node.servers.is_empty() {
            return Err("no server: give --server URL or --config FILE".to_owned());
        }
        conf.node.check_access().map_err(|error| error.to_string())?;
        Ok(conf)
    }

    /// Whether a configuration file is named.
    pub(super) fn names_file(&self) -> bool {
        self.config.is_some()
    }

    /// The configuration file with what the command line says instead.
    pub(super) fn read(&self) -> Result<Conf, String> {
        let mut conf = match &self.config {
            Some(path) => from_file(path)?,
            None => Conf { node: self.without_file()?, uplink: None, network: None },
        };
        let node = &mut conf.node;
        if !self.server.is_empty() {
            node.servers = self.server.iter().map(|text| netconf::server(text)).collect::<Result<_, _>>()?;
        }
        if let Some(name) = &self.node {
            node.name = name.clone();
        }
        for (there, here) in [
            (&mut node.state_dir, &self.state_dir),
            (&mut node.data_dir, &self.data_dir),
            (&mut node.boot_id_file, &self.boot_id_file),
        ] {
            if let Some(here) = here {
                *there = std::path::absolute(here).map_err(|error| format!("{}: {error}", here.display()))?;
            }
        }
        for (there, here) in [
            (&mut node.access.token, &self.token_file),
            (&mut node.access.ca, &self.ca_file),
            (&mut node.access.cert, &self.cert_file),
            (&mut node.access.key, &self.key_file),
        ] {
            if here.is_some() {
                there.clone_from(here);
            }
        }
        if self.uplink.is_some() {
            conf.uplink.clone_from(&self.uplink);
        }
        Ok(conf)
    }

    /// The network configuration that this is, to be put in place: the file's, or one of a network of that name, with
    /// what the command line says instead.
    pub(super) fn source(&self, network: &NetworkName) -> Result<Source, String> {
        let mut source = match &self.config {
            Some(path) => {
                let said = |why: String| format!("{}: {why}", path.display());
                let text = std::fs::read(path).map_err(|error| said(error.to_string()))?;
                Source::read(&text).map_err(said)?
            }
            None => Source::of(network),
        };
        match self.server.as_slice() {
            [] => {}
            [one] => source.set("server", one.as_str()),
            more => source.set("server", more),
        }
        if let Some(name) = &self.node {
            source.set("node", name.as_str());
        }
        if let Some(uplink) = &self.uplink {
            source.set("uplink", uplink.as_str());
        }
        for (key, path) in [
            ("stateDir", &self.state_dir),
            ("dataDir", &self.data_dir),
            ("tokenFile", &self.token_file),
            ("caFile", &self.ca_file),
            ("certFile", &self.cert_file),
            ("keyFile", &self.key_file),
            ("bootIdFile", &self.boot_id_file),
        ] {
            if let Some(path) = path {
                // A runtime starts the plugin in another directory.
                let path =
                    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
                source.set(key, path.to_string_lossy());
            }
        }
        Ok(source)
    }

    fn without_file(&self) -> Result<NodeConf, String> {
        let name = match &self.node {
            Some(name) => name.clone(),
            None => netconf::host_name().map_err(|why| format!("give --node NAME: {why}"))?,
        };
        Ok(NodeConf {
            servers: Vec::new(),
            name,
            state_dir: STATE_DIR.into(),
            data_dir: DATA_DIR.into(),
            access: AccessFiles::default(),
            timeout: TIMEOUT,
            boot_id_file: BOOT_ID_FILE.into(),
        })
    }
}

/// The node's part of one of our configurations, alone or in a list.
fn from_file(path: &Path) -> Result<Conf, String> {
    let said = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read(path).map_err(|error| said(error.to_string()))?;
    let mut conf = object(&text).map_err(|error| said(error.to_string()))?;
    if let Some(Value::Array(plugins)) = conf.get("plugins") {
        let ours = plugins.iter().filter_map(Value::as_object);
        let ours =
            ours.into_iter().find(|p| p.get("type").and_then(Value::as_str) == Some("cni-shim")).cloned();
        let mut ours = ours.ok_or_else(|| said("it has no plugin of type cni-shim".to_owned()))?;
        for key in ["name", "cniVersion"] {
            if let Some(value) = conf.remove(key) {
                ours.insert(key.to_owned(), value);
            }
        }
        conf = ours;
    }
    let conf = NetConf::from_object(conf).map_err(|error| said(error.to_string()))?;
    Ok(Conf { node: conf.node.clone(), uplink: conf.uplink.clone(), network: Some(conf) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(conf: &Value) -> Result<Conf, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10.conflist");
        std::fs::write(&path, conf.to_string()).unwrap();
        from_file(&path)
    }

    #[test]
    fn a_list_and_a_single_configuration_say_the_same() {
        let plugin =
            json!({"type": "cni-shim", "server": "http://127.0.0.1:1", "node": "n1", "uplink": "up0"});
        let mut single = plugin.clone();
        single["name"] = "pods".into();
        single["cniVersion"] = "1.0.0".into();
        let list = json!({"name": "pods", "cniVersion": "1.0.0", "plugins": [{"type": "other"}, plugin]});
        for conf in [single, list] {
            let conf = read(&conf).unwrap();
            assert_eq!((conf.node.name.as_str(), conf.uplink.as_deref()), ("n1", Some("up0")));
        }
        let error = read(&json!({"name": "pods", "cniVersion": "1.0.0", "plugins": []})).unwrap_err();
        assert!(error.contains("no plugin of type cni-shim"), "{error}");
    }
}
