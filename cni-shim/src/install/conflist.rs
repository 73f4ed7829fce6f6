//! The list of plugins that the runtime reads: what the configuration says, in versions that all of them speak.

use super::{InstallError, chained::Spoken};
use crate::cni::{CniError, NetConf, SpecVersion, netconf::object};
use ipam_api::names::NetworkName;
use serde_json::{Map, Value, json};

/// Our type.
pub const PLUGIN: &str = "cni-shim";
/// Capabilities that we act on.
const CAPABILITIES: [&str; 4] = ["ips", "mac", "dns", "portMappings"];

/// A network configuration as somebody wrote it: a list of plugins with ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// What the list says besides its plugins.
    list: Map<String, Value>,
    before: Vec<Map<String, Value>>,
    ours: Map<String, Value>,
    after: Vec<Map<String, Value>>,
}

impl Source {
    /// One that says nothing but the network's name.
    #[must_use]
    pub fn of(network: &NetworkName) -> Self {
        let mut list = Map::new();
        list.insert("name".to_owned(), network.as_str().into());
        let mut ours = Map::new();
        ours.insert("type".to_owned(), PLUGIN.into());
        Self { list, before: Vec::new(), ours, after: Vec::new() }
    }

    /// Reads a list of plugins with one of ours, or ours alone.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let mut list = object(text).map_err(|error| error.to_string())?;
        let Some(plugins) = list.remove("plugins") else {
            let mut ours = list;
            let moved = ["name", "cniVersion", "cniVersions"];
            let list = moved.iter().filter_map(|key| Some(((*key).to_owned(), ours.remove(*key)?))).collect();
            return Ok(Self { list, before: Vec::new(), ours, after: Vec::new() });
        };
        let Value::Array(plugins) = plugins else { return Err("its plugins are no list".to_owned()) };
        let mut found = Self { list, before: Vec::new(), ours: Map::new(), after: Vec::new() };
        for plugin in plugins {
            let Value::Object(plugin) = plugin else {
                return Err("one of its plugins is no object".to_owned());
            };
            match (kind(&plugin) == PLUGIN, found.ours.is_empty()) {
                (true, true) => found.ours = plugin,
                (_, true) => found.before.push(plugin),
                (_, false) => found.after.push(plugin),
            }
        }
        if found.ours.is_empty() {
            return Err(format!("it has no plugin of type {PLUGIN}"));
        }
        Ok(found)
    }

    /// Says something else in our part.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.ours.insert(key.to_owned(), value.into());
    }

    /// The name of the network, as it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        self.list.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Our part, checked.
    ///
    /// # Errors
    /// As [`NetConf::from_object`].
    pub fn conf(&self) -> Result<NetConf, CniError> {
        let mut conf = self.ours.clone();
        for key in ["name", "cniVersion"] {
            conf.extend(self.list.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        if !conf.contains_key("cniVersion") {
            conf.insert("cniVersion".to_owned(), SpecVersion::V1_0_0.as_str().into());
        }
        NetConf::from_object(conf)
    }

    /// Takes the other plugins of a list over, where this one has none.
    pub(super) fn keep_chained_of(&mut self, other: &Self) {
        if self.before.is_empty() && self.after.is_empty() {
            self.before.clone_from(&other.before);
            self.after.clone_from(&other.after);
        }
    }

    /// The types of the other plugins.
    pub(super) fn chained(&self) -> Vec<String> {
        self.before.iter().chain(&self.after).map(|plugin| kind(plugin).to_owned()).collect()
    }

    /// The list as runtimes read it.
    pub(super) fn text(&self, versions: &Versions) -> Vec<u8> {
        let mut ours = self.ours.clone();
        ours.insert("type".to_owned(), PLUGIN.into());
        if !ours.contains_key("capabilities") {
            let all: Map<String, Value> =
                CAPABILITIES.iter().map(|capability| ((*capability).to_owned(), true.into())).collect();
            ours.insert("capabilities".to_owned(), all.into());
        }
        let plugins = self.before.iter().chain([&ours]).chain(&self.after).cloned().map(Value::Object);
        let mut list = self.list.clone();
        list.insert("plugins".to_owned(), Value::Array(plugins.collect()));
        list.insert("cniVersion".to_owned(), versions.one.as_str().into());
        list.remove("cniVersions");
        if let Some(newest) = versions.newest {
            list.insert("cniVersions".to_owned(), json!([versions.one.as_str(), newest.as_str()]));
        }
        let mut text = format!("{:#}", Value::Object(list)).into_bytes();
        text.push(b'\n');
        text
    }

    /// The versions for it: as it says, and 1.1.0 as well, as far as all of its plugins speak them.
    pub(super) fn versions(&self, chained: &[Spoken]) -> Result<Versions, InstallError> {
        let said = self.list.get("cniVersion").and_then(Value::as_str).filter(|text| !text.is_empty());
        // Older libraries read this one alone, and cannot read results of 1.1.0.
        let most = match said {
            Some(text) => {
                SpecVersion::of(text).map_err(|error| InstallError::Configuration(error.to_string()))?
            }
            None => SpecVersion::V1_0_0,
        };
        let common: Vec<SpecVersion> = SpecVersion::ALL
            .into_iter()
            .filter(|version| chained.iter().all(|one| one.speaks(*version)))
            .collect();
        let one = common.iter().rev().find(|version| **version <= most).copied();
        let Some(one) = one else {
            let who: Vec<String> = chained.iter().map(ToString::to_string).collect();
            return Err(InstallError::NoCommonVersion { most, chained: who.join("; ") });
        };
        // Newer ones take the newest named, and fail where one plugin does not speak it.
        let newest = common.last().copied().filter(|newest| *newest >= SpecVersion::V1_1_0 && *newest > one);
        Ok(Versions { one, newest })
    }
}

/// What a list says of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    /// `cniVersion`: for every runtime.
    pub(super) one: SpecVersion,
    /// Besides it in `cniVersions`: GC and STATUS came with 1.1.0.
    pub(super) newest: Option<SpecVersion>,
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Source {
        Source::read(value.to_string().as_bytes()).unwrap()
    }

    fn written(source: &Source, chained: &[Spoken]) -> Value {
        serde_json::from_slice(&source.text(&source.versions(chained).unwrap())).unwrap()
    }

    fn speaks(versions: &[&str]) -> Spoken {
        Spoken::of("portmap", versions.iter().map(|version| (*version).to_owned()).collect())
    }

    #[test]
    fn newer_runtimes_are_told_of_1_1_0_only_where_every_plugin_speaks_it() {
        let source = read(&json!({"name": "n", "plugins": [{"type": "cni-shim"}, {"type": "portmap"}]}));
        let list = written(&source, &[speaks(&["0.4.0", "1.0.0", "1.1.0"])]);
        assert_eq!(
            (&list["cniVersion"], &list["cniVersions"]),
            (&json!("1.0.0"), &json!(["1.0.0", "1.1.0"]))
        );
        let list = written(&source, &[speaks(&["0.4.0", "1.0.0", "1.1.0"]), speaks(&["0.4.0", "1.0.0"])]);
        assert_eq!((&list["cniVersion"], list.get("cniVersions")), (&json!("1.0.0"), None));
        let list = written(&source, &[speaks(&["0.3.1", "0.4.0"])]);
        assert_eq!((&list["cniVersion"], list.get("cniVersions")), (&json!("0.4.0"), None));
        let error = source.versions(&[speaks(&["2.0.0"])]).unwrap_err().to_string();
        assert!(error.contains("portmap speaks 2.0.0"), "{error}");
    }

    #[test]
    fn a_version_that_somebody_chose_is_the_newest_for_old_runtimes() {
        for (said, one, newest) in
            [("0.4.0", "0.4.0", json!(["0.4.0", "1.1.0"])), ("1.1.0", "1.1.0", Value::Null)]
        {
            let list = written(&read(&json!({"name": "n", "cniVersion": said, "type": "cni-shim"})), &[]);
            assert_eq!((&list["cniVersion"], &list["cniVersions"]), (&json!(one), &newest));
        }
    }

    #[test]
    fn other_plugins_and_other_words_stay() {
        let mut alone = read(&json!({"name": "n", "type": "cni-shim", "server": "unix:///s"}));
        let old = read(&json!({
            "name": "n", "disableGC": true, "cniVersions": ["1.1.0"],
            "plugins": [{"type": "first"}, {"type": "cni-shim", "server": "unix:///old"}, {"type": "last", "x": 1}]
        }));
        alone.keep_chained_of(&old);
        assert_eq!(alone.chained(), ["first", "last"]);
        let list = written(&alone, &[]);
        assert_eq!(list["plugins"][1]["server"], "unix:///s");
        assert_eq!(
            list["plugins"][1]["capabilities"],
            json!({"ips": true, "mac": true, "dns": true, "portMappings": true})
        );
        assert_eq!(list["plugins"][2], json!({"type": "last", "x": 1}));
        assert_eq!(written(&old, &[])["disableGC"], true);
        let mut other = read(&json!({"name": "n", "plugins": [{"type": "cni-shim"}, {"type": "tuning"}]}));
        other.keep_chained_of(&old);
        assert_eq!(other.chained(), ["tuning"], "its own count");
        assert!(Source::read(br#"{"plugins": [{"type": "bridge"}]}"#).unwrap_err().contains("cni-shim"));
    }
}
