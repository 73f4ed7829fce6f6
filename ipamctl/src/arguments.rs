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
use jiff::{SignedDuration, Timestamp};
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

    /// Whether what is asked for is to stay.
    pub(crate) fn keeps(&self) -> bool {
        !self.dry_run
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

/// A length of time on the command line: a number and `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    const FORMS: &str = "write a number and s, m, h or d, for example 24h or 90d";
    let unit = text.chars().next_back().ok_or(FORMS)?;
    let number: i64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or(FORMS)?;
    let seconds = match unit {
        's' => Some(number),
        'm' => number.checked_mul(60),
        'h' => number.checked_mul(3_600),
        'd' => number.checked_mul(86_400),
        _ => None,
    };
    Ok(SignedDuration::from_secs(seconds.filter(|&seconds| seconds > 0).ok_or(FORMS)?))
}

/// A moment on the command line: a time, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = duration(text).ok().and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    ago.ok_or_else(|| {
        "write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 1h or 7d".to_owned()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("2m", 120), ("24h", 86_400), ("90d", 7_776_000)] {
            assert_eq!(duration(text), Ok(SignedDuration::from_secs(seconds)));
        }
        for wrong in
            ["", "90", "h", "-1h", "0d", "1w", "1.5h", "99999999999999999999d", "999999999999999999d", "1ü"]
        {
            assert!(duration(wrong).unwrap_err().contains("for example"), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_some_time_ago() {
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap().to_string(), "2026-01-31T12:00:00Z");
        let ago = Timestamp::now().duration_since(moment("1h").unwrap()).as_secs();
        assert!((3_599..3_700).contains(&ago), "{ago}");
        for wrong in ["yesterday", "999999999999d", ""] {
            assert!(moment(wrong).unwrap_err().contains("how long ago"), "{wrong}");
        }
    }
}
