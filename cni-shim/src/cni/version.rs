use super::{CniError, Code};
use serde_json::{Value, json};
use std::fmt;

/// A version of the CNI specification that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.3.1: lists of plugins, `ips` with a `version`.
    V0_3_1,
    /// 0.4.0: adds CHECK, and `prevResult` for DEL.
    V0_4_0,
    /// 1.0.0: `ips` without `version`.
    V1_0_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_0_0;

    /// As written in `cniVersion`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
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
        for other in ["", "0.1.0", "0.3.0", "1.0", "1.1.0", "1.0.0 ", "v1.0.0"] {
            let error = SpecVersion::of(other).unwrap_err();
            assert_eq!(error.code, Code::IncompatibleVersion, "{other}");
            assert!(error.details.contains("0.3.1, 0.4.0, 1.0.0"), "{error}");
        }
        assert!(SpecVersion::of("").unwrap_err().msg.contains("0.1.0"));
    }
}
