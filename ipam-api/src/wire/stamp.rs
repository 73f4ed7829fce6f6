use serde::{Deserialize, Serialize};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use std::{fmt, str::FromStr};
use utoipa::ToSchema;

/// Name of the header that every request of a node carries.
pub const NODE_HEADER: &str = "ipam-node";

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(maximum = 999_999_999_999_999_i64)]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }
    };
}

counter!(
    /// Generation of a claim: no two claims of a service share one, and later ones are higher.
    Claim
);
counter!(
    /// Number of a node's boot; counts within one claim.
    BootSeq
);
counter!(
    /// Sequence number within one boot: `CLOCK_BOOTTIME` in µs, always rising.
    Seq
);
counter!(
    /// Version of a block's ranges.
    BlockVersion
);

/// What orders two requests of one node about one address: later is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The claim.
    pub claim: Claim,
    /// The boot within it.
    pub boot: BootSeq,
    /// The sequence number within that.
    pub seq: Seq,
}

/// Why a header is not a stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStamp {
    /// Not a structured-field dictionary (RFC 9651).
    #[error("not a structured-field dictionary: {0}; write claim=3, boot=7, seq=918273645, block=1")]
    Syntax(String),
    /// A needed member is missing or of another type.
    #[error("member {0} is missing or of the wrong type; write claim=3, boot=7, seq=918273645, block=1")]
    Member(&'static str),
}

/// The `Ipam-Node` header: who of a node's lives speaks, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStamp {
    /// Orders the request.
    pub stamp: Stamp,
    /// The block version the node works with.
    pub block: BlockVersion,
    /// The kernel's boot id behind `boot`.
    pub boot_id: Option<String>,
    /// Hash of the uplink's MAC and the DMI uuid, fixed at the claim.
    pub machine: Option<String>,
}

impl FromStr for NodeStamp {
    type Err = InvalidStamp;

    fn from_str(text: &str) -> Result<Self, InvalidStamp> {
        let members: Dictionary =
            Parser::new(text).parse().map_err(|error: sfv::Error| InvalidStamp::Syntax(error.to_string()))?;
        let item = |name: &str| match members.get(name) {
            Some(ListEntry::Item(item)) => Some(&item.bare_item),
            _ => None,
        };
        let number = |name: &'static str| match item(name) {
            Some(BareItem::Integer(value)) => {
                u64::try_from(i64::from(*value)).map_err(|_| InvalidStamp::Member(name))
            }
            _ => Err(InvalidStamp::Member(name)),
        };
        let text = |name: &'static str| match item(name) {
            None => Ok(None),
            Some(BareItem::String(value)) if value.as_str().len() <= 256 => {
                Ok(Some(value.as_str().to_owned()))
            }
            Some(_) => Err(InvalidStamp::Member(name)),
        };
        let boot = number("boot")?;
        if boot == 0 {
            // The service's word for "no boot heard of".
            return Err(InvalidStamp::Member("boot"));
        }
        Ok(Self {
            stamp: Stamp { claim: Claim(number("claim")?), boot: BootSeq(boot), seq: Seq(number("seq")?) },
            block: BlockVersion(number("block")?),
            boot_id: text("boot-id")?,
            machine: text("machine")?,
        })
    }
}

impl fmt::Display for NodeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { claim, boot, seq } = self.stamp;
        write!(f, "claim={claim}, boot={boot}, seq={seq}, block={}", self.block)?;
        for (name, value) in [("boot-id", &self.boot_id), ("machine", &self.machine)] {
            if let Some(value) = value {
                write!(f, ", {name}={}", quoted(value))?;
            }
        }
        Ok(())
    }
}

/// A structured-field string; characters it cannot carry are left out.
fn quoted(text: &str) -> String {
    let kept: String = text.chars().filter(|c| (' '..='~').contains(c)).collect();
    format!("\"{}\"", kept.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_wire() {
        let stamp = NodeStamp {
            stamp: Stamp { claim: Claim(3), boot: BootSeq(7), seq: Seq(918_273_645) },
            block: BlockVersion(1),
            boot_id: Some("b7-\"x\"\\".to_owned()),
            machine: None,
        };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
    }

    #[test]
    fn a_stamp_wants_its_four_numbers() {
        for bad in [
            "",
            "claim=3",
            "claim=3, boot=7, seq=x, block=1",
            "claim=-1, boot=7, seq=1, block=1",
            "ü",
            "claim=1.5, boot=7, seq=1, block=1",
            "claim=1, boot=0, seq=1, block=1",
        ] {
            assert!(bad.parse::<NodeStamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn later_claims_boots_and_numbers_win_in_that_order() {
        let stamp = |claim, boot, seq| Stamp { claim: Claim(claim), boot: BootSeq(boot), seq: Seq(seq) };
        assert!(stamp(2, 0, 0) > stamp(1, 9, 9));
        assert!(stamp(1, 2, 0) > stamp(1, 1, 9));
        assert!(stamp(1, 1, 2) > stamp(1, 1, 1));
    }
}
