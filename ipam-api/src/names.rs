//! Names of things, checked once where they enter.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

fn is_label(text: &str, longest: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= longest
        && bytes.iter().copied().all(inner)
        && bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
}

/// CNI's rule for container ids and network names (spec, "Parameters").
fn is_cni_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Linux's rule for interface names, and CNI's.
fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(InvalidName { what: $what, text, rule: $rule })
                }
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some($pattern))
                    .description(Some($rule))
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

name!(
    /// Name of a VNet.
    VnetName,
    "VNet name",
    "1 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
    |text| is_label(text, 63)
);
name!(
    /// Name of a subnet inside its VNet.
    SubnetName,
    "subnet name",
    "1 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
    |text| is_label(text, 63)
);
name!(
    /// Name of a reservation inside its subnet.
    ReservationName,
    "reservation name",
    "1 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
    |text| is_label(text, 63)
);
name!(
    /// Name of a node pool.
    PoolName,
    "pool name",
    "1 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
    |text| is_label(text, 63)
);
name!(
    /// Name of a node: a DNS subdomain (RFC 1123), as Kubernetes names nodes.
    NodeName,
    "node name",
    "a DNS name: 1 to 253 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
    "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
    |text| is_label(text, 253)
);
name!(
    /// What a token is called where it must not be shown: the start of its hash.
    TokenId,
    "token id",
    "16 hex digits, as `ipamctl token list` shows them",
    "^[0-9a-f]{16}$",
    |text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name!(
    /// Name of a CNI network on a node.
    NetworkName,
    "network name",
    "1 to 253 letters, digits, '_', '.' and '-', a letter or digit first",
    "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$",
    is_cni_id
);
name!(
    /// A container id, as the runtime gives it.
    ContainerId,
    "container id",
    "1 to 253 letters, digits, '_', '.' and '-', a letter or digit first",
    "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$",
    is_cni_id
);
name!(
    /// Name of an interface inside a pod.
    IfName,
    "interface name",
    "1 to 15 characters without '/', ':' or white space, not '.' or '..'",
    r"^[^/:\s]{1,15}$",
    is_interface
);

impl Default for NetworkName {
    /// What an attachment without a named network belongs to.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// A subnet named with its VNet, written `vnet/subnet`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubnetPath {
    /// The VNet.
    pub vnet: VnetName,
    /// The subnet inside it.
    pub subnet: SubnetName,
}

impl FromStr for SubnetPath {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some((vnet, subnet)) = text.split_once('/') else {
            return Err(InvalidName {
                what: "subnet",
                text: text.to_owned(),
                rule: "write it as VNET/SUBNET, for example prod/nodes",
            });
        };
        Ok(Self { vnet: vnet.parse()?, subnet: subnet.parse()? })
    }
}

impl TryFrom<String> for SubnetPath {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<SubnetPath> for String {
    fn from(path: SubnetPath) -> String {
        path.to_string()
    }
}

impl fmt::Display for SubnetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vnet, self.subnet)
    }
}

impl fmt::Debug for SubnetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl PartialSchema for SubnetPath {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[a-z0-9.-]{1,63}/[a-z0-9.-]{1,63}$"))
            .description(Some("a subnet named with its VNet, written VNET/SUBNET"))
            .into()
    }
}

impl ToSchema for SubnetPath {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SubnetPath")
    }
}

/// One pod interface of a node: what holds an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The CNI network; `default` where the caller names none.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub if_name: IfName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.if_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_edges_alphanumeric() {
        for good in ["a", "node-1", "node-1.example.com", "0"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a b", ".", "ü", &"a".repeat(254)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert!("a".repeat(64).parse::<VnetName>().is_err());
    }

    #[test]
    fn interfaces_follow_linux() {
        for good in ["eth0", "net1", "a.b", &"x".repeat(15)] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", &"x".repeat(16)] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subnet_is_named_with_its_vnet() {
        let path: SubnetPath = "prod/nodes".parse().unwrap();
        assert_eq!(path.to_string(), "prod/nodes");
        assert!("nodes".parse::<SubnetPath>().unwrap_err().to_string().contains("VNET/SUBNET"));
        assert!("prod/a/b".parse::<SubnetPath>().is_err());
    }
}
