//! Counts and durations with their units and ranges.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, schema::Type},
};

/// Why a number is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Outside the range the quantity allows.
    #[error("{what} {value} is not valid: give {least} to {most}")]
    OutOfRange {
        /// The quantity.
        what: &'static str,
        /// What was given.
        value: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
    /// Neither a count nor a percentage.
    #[error("surge {0:?} is not valid: give a count such as 1 or a share of nodes such as \"10%\"")]
    Surge(String),
}

macro_rules! quantity {
    ($(#[$doc:meta])* $type:ident, $what:literal, $least:literal ..= $most:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $type(u32);

        impl $type {
            /// Least value.
            pub const MIN: u64 = $least;
            /// Greatest value.
            pub const MAX: u64 = $most;

            /// The number.
            #[must_use]
            pub fn get(self) -> u64 {
                u64::from(self.0)
            }
        }

        impl TryFrom<u64> for $type {
            type Error = InvalidQuantity;
            fn try_from(value: u64) -> Result<Self, InvalidQuantity> {
                match u32::try_from(value) {
                    Ok(small) if ($least..=$most).contains(&value) => Ok(Self(small)),
                    _ => Err(InvalidQuantity::OutOfRange { what: $what, value, least: $least, most: $most }),
                }
            }
        }

        impl From<$type> for u64 {
            fn from(quantity: $type) -> u64 {
                quantity.get()
            }
        }

        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let value: u64 = text.parse().map_err(|_| format!("{} wants a whole number from {} to {}", $what, $least, $most))?;
                Self::try_from(value).map_err(|e| e.to_string())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some($least))
                    .maximum(Some($most))
                    .into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    };
}

quantity!(
    /// Most pods a node runs, so the pod addresses its block holds.
    MaxPods, "maxPods", 1..=65_536
);
quantity!(
    /// Nodes a pool plans for.
    NodeCount, "nodes", 0..=1_000_000
);
quantity!(
    /// Addresses a block has beyond `maxPods`, so that a replaced pod can start
    /// before its predecessor's address has rested.
    #[derive(Default)]
    Headroom, "headroom", 0..=65_536
);
quantity!(
    /// Wished rest of an address between two holders, in seconds.
    RestSeconds, "restSeconds", 0..=86_400
);

impl Default for RestSeconds {
    /// conntrack keeps `SYN_SENT` for 120 s; ten more to be sure.
    fn default() -> Self {
        Self(130)
    }
}

/// Extra nodes during an upgrade: a count, or a share of `nodes` rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    /// That many nodes.
    Count(u32),
    /// That share of the pool's nodes, 0 to 100 percent.
    Percent(u8),
}

impl Surge {
    const MOST: u32 = 1_000_000;

    /// How many nodes it adds to a pool of `nodes`.
    #[must_use]
    pub fn of(self, nodes: NodeCount) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            Self::Percent(percent) => (nodes.get() * u64::from(percent)).div_ceil(100),
        }
    }
}

impl Default for Surge {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl TryFrom<u64> for Surge {
    type Error = InvalidQuantity;
    fn try_from(value: u64) -> Result<Self, InvalidQuantity> {
        match u32::try_from(value) {
            Ok(count) if count <= Self::MOST => Ok(Self::Count(count)),
            _ => Err(InvalidQuantity::OutOfRange { what: "surge", value, least: 0, most: Self::MOST.into() }),
        }
    }
}

impl FromStr for Surge {
    type Err = InvalidQuantity;
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity::Surge(text.to_owned());
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(invalid()),
            },
            None => text.parse::<u64>().map_err(|_| invalid())?.try_into(),
        }
    }
}

impl fmt::Display for Surge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.pad(&count.to_string()),
            Self::Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SurgeText {
    Count(u64),
    Percent(String),
}

impl Serialize for Surge {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Surge {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let invalid =
            |_| serde::de::Error::custom("give a count such as 1 or a share of nodes such as \"10%\"");
        match SurgeText::deserialize(deserializer).map_err(invalid)? {
            SurgeText::Count(count) => count.try_into(),
            SurgeText::Percent(text) => text.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Surge {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(Self::MOST)))
            .item(ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(100|[0-9]{1,2})%$")))
            .description(Some("extra nodes during an upgrade: a count, or a share of nodes, rounded up"))
            .into()
    }
}

impl ToSchema for Surge {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Surge")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surge_rounds_a_share_up() {
        let nodes = NodeCount::try_from(21).unwrap();
        assert_eq!("10%".parse::<Surge>().unwrap().of(nodes), 3);
        assert_eq!("0%".parse::<Surge>().unwrap().of(nodes), 0);
        assert_eq!("2".parse::<Surge>().unwrap().of(nodes), 2);
        for bad in ["", "-1", "101%", "%", "1.5", "ten"] {
            assert!(bad.parse::<Surge>().is_err(), "{bad}");
        }
    }

    #[test]
    fn surge_reads_and_writes_both_forms() {
        for text in ["1", "\"10%\""] {
            let surge: Surge = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&surge).unwrap(), text);
        }
        assert!(serde_json::from_str::<Surge>("\"ten\"").unwrap_err().to_string().contains("10%"));
        assert!(serde_json::from_str::<Surge>("-1").is_err());
    }

    #[test]
    fn max_pods_wants_at_least_one() {
        assert!(serde_json::from_str::<MaxPods>("0").unwrap_err().to_string().contains("1 to 65536"));
        assert_eq!(serde_json::from_str::<MaxPods>("30").unwrap().get(), 30);
    }
}
