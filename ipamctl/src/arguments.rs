//! Arguments that several commands take.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ipam_api::{
    client::{Apply, Write},
    names::{InvalidName, ReservationName, SubnetPath},
    quantity::NodeCount,
    wire::PoolSubnet,
};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::{fmt, str::FromStr};

/// Whether a change is only tried.
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Only say what would happen; change nothing
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    /// How the change is asked for.
    pub(crate) fn write(&self) -> Write {
        if self.dry_run { Write::dry_run() } else { Write::default() }
    }

    /// A sentence about what happened, or would have: its verb in the past and as it would be.
    pub(crate) fn verb(&self, happened: &'static str) -> String {
        match self.write().apply {
            Apply::Really => happened.to_owned(),
            Apply::DryRun => format!("would be {happened}"),
        }
    }

    /// What a PUT did.
    pub(crate) fn put(&self, created: bool) -> String {
        if created {
            self.verb("created")
        } else {
            format!("was there already; {}", self.verb("set as asked"))
        }
    }
}

/// A parser of a word of the wire: one of `words`.
pub(crate) fn one_of<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(serde_json::Value::String(word)))
}

/// A CIDR on the command line.
pub(crate) fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "write ADDRESS/PREFIX, for example 10.240.0.0/16 or fd00:10::/64".to_owned())
}

/// A subnet of a pool on the command line: `VNET/SUBNET`, or `VNET/SUBNET=NODES`.
pub(crate) fn pool_subnet(text: &str) -> Result<PoolSubnet, String> {
    let (subnet, nodes) = match text.split_once('=') {
        Some((subnet, nodes)) => (subnet, Some(nodes.parse::<NodeCount>()?)),
        None => (text, None),
    };
    Ok(PoolSubnet { subnet: subnet.parse().map_err(|error: InvalidName| error.to_string())?, nodes })
}

/// A reservation on the command line: `VNET/SUBNET/NAME`.
#[derive(Debug, Clone)]
pub(crate) struct ReservationPath {
    pub(crate) subnet: SubnetPath,
    pub(crate) name: ReservationName,
}

impl FromStr for ReservationPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((subnet, name)) = text.rsplit_once('/').filter(|(subnet, _)| subnet.contains('/')) else {
            return Err("write it as VNET/SUBNET/NAME, for example prod/nodes/vms".to_owned());
        };
        let invalid = |error: InvalidName| error.to_string();
        Ok(Self { subnet: subnet.parse().map_err(invalid)?, name: name.parse().map_err(invalid)? })
    }
}

impl fmt::Display for ReservationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.subnet, self.name)
    }
}
