use super::{CniArgs, CniError, Code, SpecVersion};
use ipam_api::names::{Attachment, ContainerId, IfName, NetworkName};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// What the runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Attach a container to the network.
    Add,
    /// Detach it, or make sure that it is.
    Del,
    /// Tell whether an attachment is as it was made.
    Check,
    /// Take away what the runtime no longer knows of a network.
    Gc,
    /// Tell whether ADD can work.
    Status,
    /// Tell the versions spoken.
    Version,
}

impl Verb {
    /// The verb of `CNI_COMMAND`.
    ///
    /// # Errors
    /// Code 4 for anything else.
    pub fn of(text: &str) -> Result<Self, CniError> {
        match text {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "VERSION" => Ok(Self::Version),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            _ => Err(CniError::new(
                Code::Environment,
                format!("CNI_COMMAND {text:?} is not known: give ADD, DEL, CHECK, GC, STATUS or VERSION"),
            )),
        }
    }

    /// The version that brought it.
    #[must_use]
    pub fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_1_0,
            Self::Check => SpecVersion::V0_4_0,
            Self::Gc | Self::Status => SpecVersion::V1_1_0,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}

/// The environment of ADD, DEL and CHECK, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub if_name: IfName,
    /// `CNI_NETNS` as given; `None` only for DEL.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
}

impl Invocation {
    /// The attachment that the verb is about.
    #[must_use]
    pub fn attachment(&self, network: &NetworkName) -> Attachment {
        Attachment {
            network: network.clone(),
            container_id: self.container_id.clone(),
            if_name: self.if_name.clone(),
        }
    }

    /// Reads the variables that the verb needs. A variable set to nothing counts as unset.
    ///
    /// # Errors
    /// Code 4; all missing variables are named at once.
    pub fn read(verb: Verb, variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
        let container_id = filled("CNI_CONTAINERID");
        let if_name = filled("CNI_IFNAME");
        let netns = filled("CNI_NETNS");
        let (Some(container_id), Some(if_name), true) =
            (&container_id, &if_name, netns.is_some() || verb == Verb::Del)
        else {
            let missing: Vec<&str> = [
                ("CNI_CONTAINERID", container_id.is_none()),
                ("CNI_NETNS", netns.is_none() && verb != Verb::Del),
                ("CNI_IFNAME", if_name.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            return Err(CniError::new(
                Code::Environment,
                format!("required environment variables [{}] are missing or empty", missing.join(",")),
            ));
        };
        let invalid = |name: &str, why: &dyn std::fmt::Display| {
            CniError::new(Code::Environment, format!("{name} is not valid")).details(why.to_string())
        };
        Ok(Self {
            container_id: container_id.parse().map_err(|why| invalid("CNI_CONTAINERID", &why))?,
            if_name: if_name.parse().map_err(|why| invalid("CNI_IFNAME", &why))?,
            netns: netns.map(PathBuf::from),
            args: CniArgs::parse(&filled("CNI_ARGS").unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(verb: Verb, variables: &[(&str, &str)]) -> Result<Invocation, CniError> {
        Invocation::read(verb, |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let error = read(Verb::Add, &[("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(error.code, Code::Environment);
        assert!(error.msg.contains("[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"), "{error}");
        let error = read(Verb::Check, &[("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert!(error.msg.contains("[CNI_NETNS]"), "{error}");
    }

    #[test]
    fn del_goes_without_a_namespace() {
        let variables =
            [("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", ""), ("CNI_ARGS", "")];
        assert_eq!(read(Verb::Del, &variables).unwrap().netns, None);
        assert!(read(Verb::Add, &variables).is_err());
    }

    #[test]
    fn names_are_checked() {
        for (id, name) in
            [("-c", "eth0"), ("a/b", "eth0"), ("c", "a/b"), ("c", "seventeen-letters"), ("c", "..")]
        {
            let error =
                read(Verb::Add, &[("CNI_CONTAINERID", id), ("CNI_IFNAME", name), ("CNI_NETNS", "/n")])
                    .unwrap_err();
            assert_eq!(error.code, Code::Environment, "{id} {name}");
            assert!(error.msg.contains("is not valid"), "{error}");
        }
    }

    #[test]
    fn verbs_are_known_by_their_exact_names() {
        for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status, Verb::Version] {
            assert_eq!(Verb::of(&verb.to_string()), Ok(verb));
            let other = verb.to_string().to_lowercase();
            assert_eq!(Verb::of(&other).unwrap_err().code, Code::Environment);
        }
    }
}
