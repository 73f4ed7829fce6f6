use anyhow::Result;
use std::{collections::BTreeSet, fs};

/// What a careless demo would change on the machine itself: links, mounts, forwarding; a line each.
pub(crate) fn look() -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    let links = fs::read_to_string("/proc/net/dev")?;
    // Two lines of headings; counters behind the colon.
    seen.extend(
        links.lines().skip(2).filter_map(|line| Some(format!("link {}", line.split_once(':')?.0.trim()))),
    );
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    seen.extend(mounts.lines().map(|line| format!("mount {line}")));
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        let value = fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
        seen.insert(format!("{key} = {}", value.trim()));
    }
    Ok(seen)
}
