use super::{CniError, Code, Verb};
use serde_json::{Value, json};
use std::fmt;

/// A version of the CNI specification that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.1.0: `ip4` and `ip6`, one address each; ADD and DEL.
    V0_1_0,
    /// 0.2.0: adds VERSION.
    V0_2_0,
    /// 0.3.0: `interfaces`, `ips` and `routes`; lists of plugins with `prevResult` for ADD.
    V0_3_0,
    /// 0.3.1: the same words.
    V0_3_1,
    /// 0.4.0: adds CHECK, and `prevResult` for DEL.
    V0_4_0,
    /// 1.0.0: `ips` without `version`.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS, and an interface's `mtu`.
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As written in `cniVersion`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration's `cniVersion`; an absent or empty one means 0.1.0.
    ///
    /// # Errors
    /// Code 1 for a version that is not spoken; the details name both sides.
    pub fn of(text: &str) -> Result<Self, CniError> {
        let asked = if text.is_empty() { "0.1.0" } else { text };
        Self::ALL.into_iter().find(|version| version.as_str() == asked).ok_or_else(|| {
            let spoken = Self::ALL.map(Self::as_str).join(", ");
            CniError::new(Code::IncompatibleVersion, format!("cniVersion {asked} is not supported")).details(
                format!(
                    "the configuration asks for {asked}; this plugin speaks {spoken}: write one of these"
                ),
            )
        })
    }

    /// Refuses a verb that came with a later version.
    ///
    /// # Errors
    /// Code 1, naming the version from which on there is the verb.
    pub fn check_speaks(self, verb: Verb) -> Result<(), CniError> {
        let since = verb.since();
        if self >= since {
            return Ok(());
        }
        Err(CniError::new(
            Code::IncompatibleVersion,
            format!("{verb} needs cniVersion {since}, the configuration says {self}"),
        )
        .details(format!("write {since} or newer in the network configuration, or do without {verb}")))
    }

    /// The answer to VERSION. Standard input is not needed for it, so the
    /// version that leads is our newest, as the reference plugins do it.
    #[must_use]
    pub fn report() -> Value {
        json!({
            "cniVersion": Self::NEWEST.as_str(),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_versions_count() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::of(version.as_str()), Ok(version));
        }
        for other in ["1.0", "1.2.0", "1.0.0 ", "v1.0.0", "0.1"] {
            let error = SpecVersion::of(other).unwrap_err();
            assert_eq!(error.code, Code::IncompatibleVersion, "{other}");
            assert!(error.details.contains("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
            assert!(error.details.contains(&format!("asks for {other};")), "{error}");
        }
        assert_eq!(SpecVersion::of(""), Ok(SpecVersion::V0_1_0));
    }

    #[test]
    fn verbs_are_there_from_their_version_on() {
        for version in SpecVersion::ALL {
            let refused = |verb: Verb| {
                version.check_speaks(verb).is_err_and(|error| error.code == Code::IncompatibleVersion)
            };
            assert!(!refused(Verb::Add) && !refused(Verb::Del));
            assert_eq!(refused(Verb::Check), version < SpecVersion::V0_4_0, "{version}");
            assert_eq!(refused(Verb::Gc), version < SpecVersion::V1_1_0, "{version}");
            assert_eq!(refused(Verb::Status), version < SpecVersion::V1_1_0, "{version}");
        }
    }
}
